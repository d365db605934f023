/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who holds locks on a file: this process, another one, both, nobody. */
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib.h>
#include <glib/gstdio.h>

#include "image/locks.h"

static int open_file(char **ret_path, struct stat *ret_st)
{
        int fd = g_file_open_tmp("test-locks-XXXXXX", ret_path, NULL);

        g_assert_cmpint(fd, >=, 0);
        g_assert_no_errno(fstat(fd, ret_st));
        return fd;
}

/* As QEMU does: of the open file description, at a byte of its own. */
static void lock(int fd, off_t byte)
{
        struct flock flock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

        g_assert_no_errno(fcntl(fd, F_OFD_SETLK, &flock));
}

/* A process that has a lock on the file and goes on with this, over and over, until it is ended. */
static pid_t start_child(const char *path, void (*go_on)(const char *path), off_t byte)
{
        int ready[2];
        char text;
        pid_t pid;

        g_assert_no_errno(pipe(ready));
        pid = fork();
        g_assert_cmpint(pid, >=, 0);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL); /* it is not left behind where the test fails */
                lock(open(path, O_RDWR), byte);
                g_assert_cmpint((int) write(ready[1], "x", 1), ==, 1);
                for (;;)
                        go_on(path);
        }
        g_assert_cmpint((int) read(ready[0], &text, 1), ==, 1);
        close(ready[0]);
        close(ready[1]);
        return pid;
}

static void wait_for_the_end(const char *path)
{
        (void) path;
        pause();
}

/* A QEMU whose job gets ready. */
static void take_and_drop_locks(const char *path)
{
        int passing = open(path, O_RDWR);

        for (off_t byte = 101; byte < 109; byte++)
                lock(passing, byte);
        g_usleep(3000);
        close(passing);
        g_usleep(3000);
}

static void end(pid_t pid)
{
        g_assert_no_errno(kill(pid, SIGKILL));
        g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
}

static GPtrArray *holders_of(const struct stat *st, guint32 but)
{
        FileId file = file_id(st);

        return lock_holders(&file, 1, but);
}

static void holders(void)
{
        g_autofree char *path = NULL, *other_path = NULL;
        struct stat st, other;
        int fd = open_file(&path, &st), other_fd = open_file(&other_path, &other);
        g_autoptr(GPtrArray) nobody = holders_of(&st, 0);
        g_autoptr(GPtrArray) self = NULL, without_self = NULL, both = NULL, child_alone = NULL, left = NULL;
        pid_t pid;

        g_assert_cmpuint(nobody->len, ==, 0);
        lock(fd, 100);
        lock(fd, 201);
        lock(other_fd, 100);
        self = holders_of(&st, 0);
        g_assert_cmpuint(self->len, ==, 1);
        g_assert_cmpuint(((LockHolder *) self->pdata[0])->pid, ==, getpid());
        g_assert_cmpstr(((LockHolder *) self->pdata[0])->program, ==, "test-locks");
        without_self = holders_of(&st, (guint32) getpid());
        g_assert_cmpuint(without_self->len, ==, 0);
        pid = start_child(path, wait_for_the_end, 102);
        both = holders_of(&st, 0);
        g_assert_cmpuint(both->len, ==, 2);
        child_alone = holders_of(&st, (guint32) getpid());
        g_assert_cmpuint(child_alone->len, ==, 1);
        g_assert_cmpuint(((LockHolder *) child_alone->pdata[0])->pid, ==, pid);
        end(pid);
        left = holders_of(&st, (guint32) getpid());
        g_assert_cmpuint(left->len, ==, 0);
        close(fd);
        close(other_fd);
        g_assert_no_errno(g_unlink(path));
        g_assert_no_errno(g_unlink(other_path));
}

/* Each file has its own holders, and nobody is looked for on one that the process to leave out has none on.
 */
static void several(void)
{
        char *paths[3];
        struct stat st[3];
        int fds[3];
        pid_t pids[2];
        g_autoptr(GPtrArray) found = NULL, all = NULL;

        for (guint i = 0; i < 3; i++)
                close(open_file(&paths[i], &st[i]));
        pids[0] = start_child(paths[1], wait_for_the_end, 101);
        pids[1] = start_child(paths[2], wait_for_the_end, 101);
        for (guint i = 0; i < 3; i++)
                fds[i] = open(paths[i], O_RDWR); /* the children do not inherit these */
        lock(fds[0], 100);
        lock(fds[1], 100);
        FileId files[] = { file_id(&st[0]), file_id(&st[1]), file_id(&st[2]) };
        found = lock_holders(files, 3, (guint32) getpid());
        g_assert_cmpuint(found->len, ==, 1);
        g_assert_cmpuint(((LockHolder *) found->pdata[0])->pid, ==, pids[0]);
        g_assert_cmpuint(((LockHolder *) found->pdata[0])->inode, ==, st[1].st_ino);
        all = lock_holders(files, 3, 0);
        g_assert_cmpuint(all->len, ==, 4);
        for (guint i = 0; i < 3; i++) {
                if (i < 2)
                        end(pids[i]);
                close(fds[i]);
                g_assert_no_errno(g_unlink(paths[i]));
                g_free(paths[i]);
        }
}

/* Locks that change while they are looked at are not somebody else's; and somebody else's are seen all the
 * same. */
static void changing(void)
{
        g_autofree char *path = NULL;
        struct stat st;
        int fd = open_file(&path, &st), own;
        pid_t pid = start_child(path, take_and_drop_locks, 100);

        for (guint i = 0; i < 500; i++) {
                g_autoptr(GPtrArray) found = holders_of(&st, (guint32) pid);

                g_assert_cmpuint(found->len, ==, 0);
        }
        own = open(path, O_RDWR); /* the child has inherited the other one */
        lock(own, 110);
        for (guint i = 0; i < 20; i++) {
                g_autoptr(GPtrArray) found = holders_of(&st, (guint32) pid);

                g_assert_cmpuint(found->len, ==, 1);
                g_assert_cmpuint(((LockHolder *) found->pdata[0])->pid, ==, getpid());
        }
        end(pid);
        close(own);
        close(fd);
        g_assert_no_errno(g_unlink(path));
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/locks/holders", holders);
        g_test_add_func("/locks/several", several);
        g_test_add_func("/locks/changing", changing);
        return g_test_run();
}
