/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/types.h>

#include <glib.h>

/* Whose rights QEMU has, and with whose rights its images are looked at. */
typedef struct {
        char *name;
        uid_t uid;
        gid_t gid;
        gid_t *groups;
        int n_groups;
        int references;
} Account;

/* Asks the system's user database, which may take its time. InvalidArgument where it does not know `user`.
 */
Account *account_find(const char *user, GError **error);
/* From any thread. */
Account *account_ref(Account *account);
void account_unref(Account *account);

/* From here on the calling thread alone sees files as the account does: effective ids, groups, no
 * capability. It must be a thread that ends afterwards, none of a pool. Its real and saved ids stay those of
 * the process: else whatever runs as the account could trace the thread or send it signals, which are the
 * whole process's. The kernel does not dump the core of a process after that. Failed where the process may
 * not do it. */
gboolean account_enter_thread(const Account *account, GError **error);

/* Between fork and exec: everything becomes the account's, and there is no way back. NULL: nothing to do. -1
 * with errno set where it cannot. Safe in a signal handler. */
int account_enter_child(const Account *account);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Account, account_unref)
