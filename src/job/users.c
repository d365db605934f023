/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/users.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "image/locks.h"

gboolean users_is_file(const char *path, const struct stat *wanted)
{
        struct stat st;

        return *path == '/' && stat(path, &st) == 0 && st.st_dev == wanted->st_dev &&
               st.st_ino == wanted->st_ino;
}

/* As its instance says; 0 = not known. */
static guint32 pid_of_qemu(const Job *job)
{
        const char *process = job->instance ? strchr(job->instance, '/') : NULL;
        unsigned int pid = 0;

        return process && sscanf(process, "/%u-", &pid) == 1 ? pid : 0;
}

static gboolean is_regular(const FileSeen *seen)
{
        return seen->there && S_ISREG(seen->st.st_mode);
}

/* Locks of a QEMU that cannot be seen cannot be told from somebody else's. */
static gboolean check_locks(const Job *job, const GPtrArray *paths, const FileSeen *seen,
                            const char *consequence, GError **error)
{
        guint32 qemu = job ? pid_of_qemu(job) : 0;
        g_autofree FileId *files = g_new0(FileId, paths->len);
        g_autoptr(GPtrArray) holders = NULL;
        g_autofree char *who = NULL;
        const LockHolder *holder;
        guint n_files = 0, index = 0;

        for (guint i = 0; i < paths->len; i++)
                if (is_regular(&seen[i]))
                        files[n_files++] = file_id(&seen[i].st);
        if (n_files == 0 || (job && qemu == 0))
                return TRUE;
        holders = lock_holders(files, n_files, qemu);
        if (holders->len == 0)
                return TRUE;
        holder = holders->pdata[0];
        while (!is_regular(&seen[index]) || seen[index].st.st_dev != holder->device ||
               seen[index].st.st_ino != holder->inode)
                index++;
        who = lock_holder_name(holder);
        g_set_error(error, BJ_ERROR, BJ_ERROR_IMAGE_IN_USE, "'%s' is locked by %s: %s",
                    (const char *) paths->pdata[index], who, consequence);
        return FALSE;
}

static gboolean check_disks(const GPtrArray *uses, const char *path, const FileSeen *seen,
                            const char *consequence, GError **error)
{
        for (guint i = 0; i < uses->len; i++) {
                const ImageUse *use = uses->pdata[i];

                if (strcmp(use->path, path) != 0 &&
                    !(seen->there && file_seen_is_same(&use->seen, &seen->st)))
                        continue;
                g_set_error(error, BJ_ERROR, BJ_ERROR_IMAGE_IN_USE, "'%s' is used by %s: %s", path,
                            use->user, consequence);
                return FALSE;
        }
        return TRUE;
}

char *users_unknown(const GPtrArray *uses)
{
        for (guint i = 0; uses && i < uses->len; i++) {
                const ImageUse *use = uses->pdata[i];

                if (!use->seen.answered)
                        return g_strdup_printf(
                                "'%s', which %s uses: it does not answer, and is known by its "
                                "name alone",
                                use->path, use->user);
        }
        return NULL;
}

gboolean users_check(const Job *job, const GPtrArray *uses, const GPtrArray *paths, const FileSeen *seen,
                     const char *consequence, GError **error)
{
        if (!uses)
                return TRUE;
        for (guint i = 0; i < paths->len; i++)
                if (!check_disks(uses, paths->pdata[i], &seen[i], consequence, error))
                        return FALSE;
        return check_locks(job, paths, seen, consequence, error);
}
