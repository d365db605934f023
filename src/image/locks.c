/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/locks.h"

#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* How often a look is begun anew because of locks that change meanwhile, and how often a lock has to be seen
 * of which nobody can be seen to have it. */
#define TRIES 16
#define CONFIRMED 3

static void holder_free(gpointer data)
{
        LockHolder *holder = data;

        g_free(holder->program);
        g_free(holder);
}

/* As the kernel names a file in these lists: "fd:00:1234", the numbers of the device in hexadecimal. */
static char *name_of(guint64 device, guint64 inode)
{
        return g_strdup_printf(" %02x:%02x:%" G_GUINT64_FORMAT " ", major(device), minor(device), inode);
}

/* How many locks of a list are on that file. */
static guint count_in(const char *path, const char *name)
{
        g_autofree char *text = NULL;
        guint count = 0;

        if (!g_file_get_contents(path, &text, NULL, NULL))
                return 0;
        for (const char *found = strstr(text, name); found; found = strstr(found + 1, name))
                count++;
        return count;
}

/* What a process has open is told to whoever may trace it: to root only with a capability that the service
 * is better without, and to the process's own user. */
static GDir *open_as_its_user(const char *path)
{
        struct stat st;

        if (stat(path, &st) < 0)
                return NULL;
        setfsgid(st.st_gid);
        setfsuid(st.st_uid);
        return g_dir_open(path, 0, NULL);
}

static void become_oneself(void)
{
        setfsuid(geteuid());
        setfsgid(getegid());
}

/* -1: it cannot be seen. */
static int count_of_process(const char *pid, const char *name)
{
        g_autofree char *path = g_build_filename("/proc", pid, "fdinfo", NULL);
        g_autoptr(GDir) directory = open_as_its_user(path);
        int count = directory ? 0 : -1;

        for (const char *entry = directory ? g_dir_read_name(directory) : NULL; entry;
             entry = g_dir_read_name(directory)) {
                g_autofree char *file = g_build_filename(path, entry, NULL);
                count += (int) count_in(file, name);
        }
        become_oneself();
        return count;
}

static void add(GPtrArray *holders, guint64 device, guint64 inode, const char *pid)
{
        LockHolder *holder = g_new(LockHolder, 1);
        g_autofree char *path = pid ? g_build_filename("/proc", pid, "comm", NULL) : NULL;
        char *program = NULL;

        if (path && g_file_get_contents(path, &program, NULL, NULL))
                g_strchomp(program);
        *holder = (LockHolder){ device, inode, pid ? (guint32) g_ascii_strtoull(pid, NULL, 10) : 0,
                                program ? program : g_strdup("") };
        g_ptr_array_add(holders, holder);
}

/* Those that are found among all processes but one; adds their locks to `known`. */
static void find_holders(GPtrArray *holders, guint64 device, guint64 inode, const char *name,
                         const char *but, int *known)
{
        g_autoptr(GDir) processes = g_dir_open("/proc", 0, NULL);

        for (const char *pid = processes ? g_dir_read_name(processes) : NULL; pid;
             pid = g_dir_read_name(processes)) {
                int count = g_ascii_isdigit(*pid) && strcmp(pid, but) != 0 ? count_of_process(pid, name) : 0;

                if (count <= 0)
                        continue;
                *known += count;
                add(holders, device, inode, pid);
        }
}

GPtrArray *lock_holders(guint64 device, guint64 inode, guint32 but)
{
        GPtrArray *holders = g_ptr_array_new_with_free_func(holder_free);
        g_autofree char *name = name_of(device, inode), *ours = g_strdup_printf("%u", but);

        for (guint tries = 0, unexplained = 0; unexplained < CONFIRMED; tries++) {
                int known = but ? count_of_process(ours, name) : 0,
                    all = (int) count_in("/proc/locks", name);

                /* All processes are looked at only where there is somebody to be found; and not where the
                 * one that should have locks has none that can be seen: then somebody else has them for it,
                 * behind a proxy of its monitor perhaps, and cannot be told from the others. */
                if (but && known <= 0)
                        return holders;
                /* A QEMU takes and drops locks while a job gets ready or ends: the two lists belong together
                 * only where it has as many before as behind, and all of its own are among them. */
                if (but && tries < TRIES && (all < known || count_of_process(ours, name) != known))
                        continue;
                if (all <= known)
                        return holders;
                find_holders(holders, device, inode, name, ours, &known);
                if (holders->len > 0 || all <= known)
                        return holders;
                /* Nobody has it who can be seen, or somebody has just let go of it. */
                unexplained++;
        }
        add(holders, device, inode, NULL);
        return holders;
}

char *lock_holder_name(const LockHolder *holder)
{
        return holder->pid ? g_strdup_printf("process %u (%s)", holder->pid, holder->program)
                           : g_strdup("a process that cannot be looked at");
}
