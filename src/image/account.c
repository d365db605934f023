/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/account.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"

#define ENTRY_BYTES 1024
#define ENTRY_BYTES_MAX (1024 * 1024)
#define GROUPS 64
#define GROUPS_MAX 65536 /* the kernel's own */

static void find_groups(Account *account)
{
        int room = GROUPS;

        do {
                account->n_groups = room;
                account->groups = g_renew(gid_t, account->groups, room);
                if (getgrouplist(account->name, account->gid, account->groups, &account->n_groups) >= 0)
                        return;
                room = MAX(room * 2, account->n_groups);
        } while (room <= GROUPS_MAX);
        account->n_groups = 1;
        account->groups[0] = account->gid;
}

Account *account_find(const char *user, GError **error)
{
        g_autofree char *buffer = NULL;
        struct passwd entry, *found = NULL;
        Account *account;
        int failure;

        for (gsize size = ENTRY_BYTES;; size *= 2) {
                buffer = g_realloc(buffer, size);
                failure = getpwnam_r(user, &entry, buffer, size, &found);
                if (failure != ERANGE || size >= ENTRY_BYTES_MAX)
                        break;
        }
        if (!found) {
                g_set_error(error, BJ_ERROR, failure ? BJ_ERROR_FAILED : BJ_ERROR_INVALID_ARGUMENT,
                            "there is no user '%s'%s%s", user, failure ? ": " : "",
                            failure ? g_strerror(failure) : "");
                return NULL;
        }
        account = g_new0(Account, 1);
        *account = (Account){
                .name = g_strdup(user), .uid = entry.pw_uid, .gid = entry.pw_gid, .references = 1
        };
        find_groups(account);
        return account;
}

Account *account_ref(Account *account)
{
        g_atomic_int_inc(&account->references);
        return account;
}

void account_unref(Account *account)
{
        if (!account || !g_atomic_int_dec_and_test(&account->references))
                return;
        g_free(account->name);
        g_free(account->groups);
        g_free(account);
}

/* The system's own calls, which are of one thread: those of the C library are of the whole process. Groups
 * come first, since later there is no right to change them. */
static int enter(const Account *account, gboolean for_good)
{
        const uid_t uid = for_good ? account->uid : (uid_t) -1;
        const gid_t gid = for_good ? account->gid : (gid_t) -1;

        if (geteuid() != 0 && geteuid() == account->uid && getegid() == account->gid)
                return 0;
        if (syscall(SYS_setgroups, (long) account->n_groups, account->groups) < 0 ||
            syscall(SYS_setresgid, gid, account->gid, gid) < 0 ||
            syscall(SYS_setresuid, uid, account->uid, uid) < 0)
                return -1;
        return 0;
}

gboolean account_enter_thread(const Account *account, GError **error)
{
        if (enter(account, FALSE) == 0)
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_FAILED, "cannot take the rights of user '%s': %s",
                    account->name, g_strerror(errno));
        return FALSE;
}

int account_enter_child(const Account *account)
{
        return account ? enter(account, TRUE) : 0;
}
