/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/make.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/error.h"

static gboolean read_template(const char *template, char **contents, gsize *length, GError **error)
{
        g_autoptr(GError) failure = NULL;
        struct stat st;

        if (stat(template, &st) == 0 && (!S_ISREG(st.st_mode) || st.st_size > TEMPLATE_MAX)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "its template '%s' is no regular file of at most %d MiB", template,
                            TEMPLATE_MAX / 1024 / 1024);
                return FALSE;
        }
        if (g_file_get_contents(template, contents, length, &failure))
                return TRUE;
        g_set_error(error, BJ_ERROR,
                    g_error_matches(failure, G_FILE_ERROR, G_FILE_ERROR_NOENT) ? BJ_ERROR_NO_SUCH_IMAGE
                                                                               : BJ_ERROR_INVALID_ARGUMENT,
                    "its template cannot be read: %s", failure->message);
        return FALSE;
}

gboolean image_make(const char *path, const char *template, GError **error)
{
        g_autofree char *contents = NULL;
        g_autoptr(GError) failure = NULL;
        struct stat st;
        gsize length;

        if (stat(path, &st) == 0 || errno != ENOENT)
                return TRUE; /* whoever opens it will say what is wrong with it */
        if (!read_template(template, &contents, &length, error))
                return FALSE;
        if (g_file_set_contents_full(path, contents, (gssize) length,
                                     G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE, 0600,
                                     &failure))
                return TRUE;
        g_set_error(error, BJ_ERROR,
                    g_error_matches(failure, G_FILE_ERROR, G_FILE_ERROR_NOSPC) ? BJ_ERROR_NO_SPACE
                                                                               : BJ_ERROR_FAILED,
                    "'%s' cannot be made of '%s': %s", path, template, failure->message);
        return FALSE;
}
