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

static gboolean check_locks(guint32 qemu, const char *path, const struct stat *st, const char *consequence,
                            GError **error)
{
        g_autoptr(GPtrArray) holders = NULL;

        if (!st || !S_ISREG(st->st_mode))
                return TRUE;
        holders = lock_holders(st->st_dev, st->st_ino, qemu);
        for (guint i = 0; i < holders->len; i++) {
                const LockHolder *holder = holders->pdata[i];

                g_autofree char *who = lock_holder_name(holder);

                g_set_error(error, BJ_ERROR, BJ_ERROR_IMAGE_IN_USE, "'%s' is locked by %s: %s", path, who,
                            consequence);
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

gboolean users_check(const Job *job, const GPtrArray *uses, const char *path, const struct stat *st,
                     const char *consequence, GError **error)
{
        guint32 qemu = job ? pid_of_qemu(job) : 0;

        for (guint i = 0; uses && i < uses->len; i++) {
                const ImageUse *use = uses->pdata[i];

                if (strcmp(use->path, path) != 0 && !(st && file_seen_is_same(&use->seen, st)))
                        continue;
                g_set_error(error, BJ_ERROR, BJ_ERROR_IMAGE_IN_USE, "'%s' is used by %s: %s", path,
                            use->user, consequence);
                return FALSE;
        }
        /* Locks of a QEMU that cannot be seen cannot be told from somebody else's. */
        return !uses || (job && qemu == 0) || check_locks(qemu, path, st, consequence, error);
}
