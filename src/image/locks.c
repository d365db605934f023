/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/locks.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* How often a look is begun anew because of locks that change meanwhile, and how often a lock has to be seen
 * of which nobody can be seen to have it, with longer and longer pauses. */
#define TRIES 16
#define CONFIRMED 8
#define PAUSE_MICROSECONDS 500
#define LOCKS "/proc/locks"
#define CHUNK 4096 /* bytes: what the kernel gives at once */

typedef struct {
        const FileId *id;
        char *name;
        guint all;   /* locks on it */
        guint known; /* of them, those of processes that were looked at */
        gboolean is_looked_at;
} Sought;

static void holder_free(gpointer data)
{
        LockHolder *holder = data;

        g_free(holder->program);
        g_free(holder);
}

static void sought_clear(gpointer data)
{
        g_free(((Sought *) data)->name);
}

/* As the kernel names a file in these lists: "fd:00:1234", the numbers of the device in hexadecimal. */
static GArray *sought_new(const FileId *files, guint n_files)
{
        GArray *sought = g_array_new(FALSE, TRUE, sizeof(Sought));

        g_array_set_clear_func(sought, sought_clear);
        for (guint i = 0; i < n_files; i++) {
                Sought one = { .id = &files[i],
                               .name = g_strdup_printf(" %02x:%02x:%" G_GUINT64_FORMAT " ",
                                                       major(files[i].device), minor(files[i].device),
                                                       files[i].inode) };
                g_array_append_val(sought, one);
        }
        return sought;
}

static Sought *at(const GArray *sought, guint index)
{
        return &g_array_index(sought, Sought, index);
}

static gboolean read_text(int directory, const char *name, GString *text)
{
        int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
        gssize got = fd < 0 ? -1 : 1;

        for (gsize length = 0; got > 0; length += (gsize) got) {
                g_string_set_size(text, length + CHUNK);
                got = read(fd, text->str + length, CHUNK);
                g_string_set_size(text, length + (gsize) MAX(got, 0));
        }
        if (fd >= 0)
                close(fd);
        return got == 0;
}

static guint count_in(const GString *text, const char *name)
{
        guint count = 0;

        for (const char *found = strstr(text->str, name); found; found = strstr(found + 1, name))
                count++;
        return count;
}

/* What a process has open is told to whoever may trace it: to root only with a capability that the service
 * is better without, and to the process's own user. */
static DIR *open_as_its_user(const char *path)
{
        struct stat st;

        if (stat(path, &st) < 0)
                return NULL;
        setfsgid(st.st_gid);
        setfsuid(st.st_uid);
        return opendir(path);
}

static void become_oneself(void)
{
        setfsuid(geteuid());
        setfsgid(getegid());
}

/* How many locks a process has on each; all 0 where it cannot be seen. */
static guint *count_of_process(const char *pid, const GArray *sought)
{
        g_autofree char *path = g_build_filename("/proc", pid, "fdinfo", NULL);
        g_autoptr(GString) text = g_string_new(NULL);
        guint *counts = g_new0(guint, sought->len);
        DIR *directory = open_as_its_user(path);

        for (const struct dirent *entry = directory ? readdir(directory) : NULL; entry;
             entry = readdir(directory)) {
                if (!g_ascii_isdigit(*entry->d_name) || !read_text(dirfd(directory), entry->d_name, text))
                        continue;
                for (guint i = 0; i < sought->len; i++)
                        counts[i] += count_in(text, at(sought, i)->name);
        }
        if (directory)
                closedir(directory);
        become_oneself();
        return counts;
}

static void add(GPtrArray *holders, const FileId *file, const char *pid)
{
        LockHolder *holder = g_new(LockHolder, 1);
        g_autofree char *path = pid ? g_build_filename("/proc", pid, "comm", NULL) : NULL;
        char *program = NULL;

        if (path && g_file_get_contents(path, &program, NULL, NULL))
                g_strchomp(program);
        *holder =
                (LockHolder){ file->device, file->inode, pid ? (guint32) g_ascii_strtoull(pid, NULL, 10) : 0,
                              program ? program : g_strdup("") };
        g_ptr_array_add(holders, holder);
}

/* All processes are looked at only where there is somebody to be found; and not where the one that should
 * have locks has none that can be seen: then somebody else has them for it, behind a proxy of its monitor
 * perhaps, and cannot be told from the others. */
static gboolean is_somebody_elses(const Sought *sought)
{
        return sought->is_looked_at && sought->all > sought->known;
}

static gboolean is_any(const GArray *sought, gboolean (*fits)(const Sought *sought))
{
        for (guint i = 0; i < sought->len; i++)
                if (fits(at(sought, i)))
                        return TRUE;
        return FALSE;
}

static gboolean is_looked_at(const Sought *sought)
{
        return sought->is_looked_at;
}

/* TRUE: it says something else than the last time. The kernel gives the list in pieces, which are not of the
 * same moment where others take and drop locks: one is missed, or counted twice. */
static gboolean read_list(GArray *sought)
{
        g_autoptr(GString) text = g_string_new(NULL);
        gboolean differs = FALSE;

        read_text(AT_FDCWD, LOCKS, text);
        for (guint i = 0; i < sought->len; i++) {
                guint count = count_in(text, at(sought, i)->name);

                differs = differs || count != at(sought, i)->all;
                at(sought, i)->all = count;
        }
        return differs;
}

/* FALSE: the lists do not belong together. A QEMU takes and drops locks while a job gets ready or ends:
 * they do only where it has as many before as behind, and all of its own are among them. */
static gboolean count(GArray *sought, const char *ours)
{
        g_autofree guint *before = ours ? count_of_process(ours, sought) : NULL, *behind = NULL;

        for (guint i = 0; i < sought->len; i++) {
                at(sought, i)->known = before ? before[i] : 0;
                at(sought, i)->is_looked_at = !before || before[i] > 0;
        }
        if (!is_any(sought, is_looked_at))
                return TRUE;
        for (guint reads = 0; read_list(sought) || reads == 0; reads++)
                if (reads == TRIES)
                        return FALSE;
        behind = ours ? count_of_process(ours, sought) : NULL;
        for (guint i = 0; behind && i < sought->len; i++)
                if (at(sought, i)->is_looked_at &&
                    (at(sought, i)->all < before[i] || behind[i] != before[i]))
                        return FALSE;
        return TRUE;
}

/* Those that are found among all processes but one; their locks are known then. */
static void find_holders(GPtrArray *holders, GArray *sought, const char *ours)
{
        g_autofree gboolean *wanted = g_new(gboolean, sought->len);
        DIR *processes = opendir("/proc");

        for (guint i = 0; i < sought->len; i++)
                wanted[i] = is_somebody_elses(at(sought, i));
        for (const struct dirent *entry = processes ? readdir(processes) : NULL; entry;
             entry = readdir(processes)) {
                g_autofree guint *counts = NULL;

                if (!g_ascii_isdigit(*entry->d_name) || g_strcmp0(entry->d_name, ours) == 0)
                        continue;
                counts = count_of_process(entry->d_name, sought);
                for (guint i = 0; i < sought->len; i++) {
                        if (!wanted[i] || counts[i] == 0)
                                continue;
                        at(sought, i)->known += counts[i];
                        add(holders, at(sought, i)->id, entry->d_name);
                }
        }
        if (processes)
                closedir(processes);
}

static gboolean has_holder(const GPtrArray *holders, const FileId *file)
{
        for (guint i = 0; i < holders->len; i++) {
                const LockHolder *holder = holders->pdata[i];

                if (holder->inode == file->inode && holder->device == file->device)
                        return TRUE;
        }
        return FALSE;
}

/* Adds those of whom nobody can be seen, if `holders` is to have them. */
static gboolean is_explained(const GArray *sought, GPtrArray *holders, gboolean add_them)
{
        gboolean explained = TRUE;

        for (guint i = 0; i < sought->len; i++) {
                const Sought *one = at(sought, i);

                if (!is_somebody_elses(one) || has_holder(holders, one->id))
                        continue;
                explained = FALSE;
                if (add_them)
                        add(holders, one->id, NULL);
        }
        return explained;
}

GPtrArray *lock_holders(const FileId *files, guint n_files, guint32 but)
{
        GPtrArray *holders = g_ptr_array_new_with_free_func(holder_free);
        g_autoptr(GArray) sought = sought_new(files, n_files);
        g_autofree char *ours = but ? g_strdup_printf("%u", but) : NULL;

        for (guint tries = 0, unexplained = 0; unexplained < CONFIRMED; tries++) {
                if (!count(sought, ours) && tries < TRIES)
                        continue;
                if (!is_any(sought, is_somebody_elses))
                        return holders;
                g_ptr_array_set_size(holders, 0);
                find_holders(holders, sought, ours);
                /* Else nobody has it who can be seen, or somebody has just let go of it. */
                if (is_explained(sought, holders, ++unexplained == CONFIRMED))
                        return holders;
                g_usleep(PAUSE_MICROSECONDS << unexplained);
        }
        return holders;
}

static gpointer open_list(gpointer data)
{
        g_autoptr(GString) text = g_string_new(NULL);

        read_text(AT_FDCWD, LOCKS, text);
        return data;
}

void lock_holders_soon(void)
{
        GThread *thread = g_thread_try_new("locks", open_list, NULL, NULL);

        g_clear_pointer(&thread, g_thread_unref);
}

char *lock_holder_name(const LockHolder *holder)
{
        return holder->pid ? g_strdup_printf("process %u (%s)", holder->pid, holder->program)
                           : g_strdup("a process that cannot be looked at");
}
