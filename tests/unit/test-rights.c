/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images seen with the rights of another user, and what that user can do to the thread that has them. */
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "base/error.h"
#include "images.h"

static void rights(void)
{
        g_autoptr(Account) nobody = account_find("nobody", NULL);
        g_autofree char *closed = at("closed"), *own = at("own"), *shut = at("shut"), *link = at("link");
        g_auto(Answer) answer = { 0 };

        if (geteuid() != 0 || !nobody) {
                g_test_skip("only root can look with another's rights");
                return;
        }
        CREATE("qcow2", "own", SIZE);
        g_assert_no_errno(g_mkdir(closed, 0700));
        CREATE("qcow2", "closed/x", SIZE);
        RUN("chmod", "644", "closed/x");
        CREATE("raw", "shut", SIZE);
        g_assert_no_errno(chmod(shut, 0600));
        CREATE("qcow2", "over-shut", "-b", "shut", "-F", "raw");
        g_assert_no_errno(symlink("closed/x", link));

        answer = LOOK("own", .account = nobody);
        g_assert_false(layer(&answer, 0)->writable);
        EXPECT_ERROR("own", INVALID_ARGUMENT,
                     "image '@/own' cannot be written by user 'nobody': Permission denied",
                     .account = nobody, .want_write = TRUE);
        EXPECT_ERROR("shut", INVALID_ARGUMENT,
                     "image '@/shut' cannot be read by user 'nobody': Permission denied", .account = nobody);
        EXPECT_ERROR(
                "over-shut", INVALID_ARGUMENT,
                "image '@/shut' (backing file of '@/over-shut') cannot be read by user 'nobody': Permission "
                "denied",
                .account = nobody);
        EXPECT_ERROR("closed/x", INVALID_ARGUMENT,
                     "image '@/closed/x' cannot be read by user 'nobody': Permission denied: directory "
                     "'@/closed' "
                     "cannot be passed",
                     .account = nobody);
        EXPECT_ERROR(
                "link", INVALID_ARGUMENT,
                "image '@/link' cannot be read by user 'nobody': Permission denied: directory '@/closed' "
                "cannot be passed",
                .account = nobody);
        g_assert_no_errno(chown(own, nobody->uid, nobody->gid));
        clear(&answer);
        answer = LOOK("own", .account = nobody, .want_write = TRUE);
        g_assert_true(layer(&answer, 0)->writable);
        clear(&answer);
        answer = LOOK("closed/x", .want_write = TRUE);
        g_assert_no_error(answer.error);
        g_assert_cmpint((int) geteuid(), ==, 0);
}

static void accounts(void)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(Account) account = account_find(g_get_user_name(), NULL);

        g_assert_nonnull(account);
        g_assert_cmpint((int) account->uid, ==, (int) getuid());
        g_assert_cmpint(account->n_groups, >, 0);
        g_assert_null(account_find("no such user", &error));
        g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
        g_assert_cmpstr(error->message, ==, "there is no user 'no such user'");
        g_assert_cmpint(account_enter_child(NULL), ==, 0);
}

/* What a thread with another's rights is to the processes of that user: not theirs to kill. */
static gpointer wait_as_nobody(gpointer data)
{
        int *pipes = data;
        int tid = (int) syscall(SYS_gettid);
        g_autoptr(Account) nobody = account_find("nobody", NULL);
        GError *error = NULL;

        account_enter_thread(nobody, &error);
        g_assert_no_error(error);
        g_assert_cmpint((int) syscall(SYS_geteuid), ==, (int) nobody->uid);
        g_assert_cmpint((int) write(pipes[1], &tid, sizeof(tid)), ==, sizeof(tid));
        g_assert_cmpint((int) read(pipes[2], &tid, 1), ==, 1);
        return NULL;
}

static void become(gpointer account)
{
        if (account_enter_child(account) < 0)
                _exit(126);
}

static void signals(void)
{
        g_autoptr(Account) nobody = account_find("nobody", NULL);
        g_autofree char *number = NULL, *output = NULL;
        const char *command[] = { "sh", "-c", "id -u; id -g; kill -9 \"$0\" || echo no", NULL, NULL };
        int pipes[4], tid;
        GThread *thread;

        if (geteuid() != 0 || !nobody) {
                g_test_skip("only root can look with another's rights");
                return;
        }
        g_assert_no_errno(pipe(pipes));
        g_assert_no_errno(pipe(pipes + 2));
        thread = g_thread_new("image", wait_as_nobody, pipes);
        g_assert_cmpint((int) read(pipes[0], &tid, sizeof(tid)), ==, sizeof(tid));
        command[3] = number = g_strdup_printf("%d", tid);
        g_assert_true(g_spawn_sync("/", (char **) command, NULL,
                                   G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, become, nobody, &output,
                                   NULL, NULL, NULL));
        g_assert_cmpstr(output, ==, "65534\n65534\nno\n");
        g_assert_cmpint((int) write(pipes[3], "", 1), ==, 1);
        g_thread_join(thread);
        for (guint i = 0; i < G_N_ELEMENTS(pipes); i++)
                close(pipes[i]);
}

int main(int argc, char **argv)
{
        int result;

        g_test_init(&argc, &argv, NULL);
        images_set_up();
        g_test_add_func("/rights/images", rights);
        g_test_add_func("/rights/accounts", accounts);
        g_test_add_func("/rights/signals", signals);
        result = g_test_run();
        images_tear_down();
        return result;
}
