/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/seen.h"

#include "base/error.h"
#include "base/patience.h"

static void look(const char *path, gpointer data)
{
        FileSeen *seen = data;

        seen->there = *path == '/' && stat(path, &seen->st) == 0;
}

FileSeen *files_seen(const GPtrArray *paths)
{
        g_autofree gboolean *answered = g_new0(gboolean, paths->len);
        FileSeen *seen = patience_look(paths, look, sizeof(FileSeen), answered);

        for (guint i = 0; i < paths->len; i++)
                seen[i].answered = answered[i];
        return seen;
}

gboolean files_have_answered(const GPtrArray *paths, const FileSeen *seen, GError **error)
{
        for (guint i = 0; i < paths->len; i++) {
                if (seen[i].answered)
                        continue;
                g_set_error(error, BJ_ERROR, BJ_ERROR_TIMEOUT,
                            "'%s' cannot be looked at: what it lies on does not answer",
                            (const char *) paths->pdata[i]);
                return FALSE;
        }
        return TRUE;
}

void image_uses_look(const GPtrArray *uses)
{
        g_autoptr(GPtrArray) paths = g_ptr_array_new();
        g_autofree FileSeen *seen = NULL;

        for (guint i = 0; i < uses->len; i++)
                g_ptr_array_add(paths, ((ImageUse *) uses->pdata[i])->path);
        seen = files_seen(paths);
        for (guint i = 0; i < uses->len; i++)
                ((ImageUse *) uses->pdata[i])->seen = seen[i];
}

gboolean file_seen_is_same(const FileSeen *one, const struct stat *other)
{
        return one->there && one->st.st_dev == other->st_dev && one->st.st_ino == other->st_ino;
}
