/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/stat.h>

#include <glib.h>

/* Which files names lead to, as base/patience.h looks: without being held up by a file system that hangs. */

typedef struct {
        gboolean answered; /* FALSE: it is not known what is there */
        gboolean there;    /* a local file or device that can be seen */
        struct stat st;    /* of what a link leads to; all zeros where it is not there */
} FileSeen;

/* One for each of `paths` (char *); what is no absolute path, a URI say, is not there. Blocks: from a
 * thread. */
FileSeen *files_seen(const GPtrArray *paths);
/* FALSE with Timeout, which names one of them, where it is not known of all. */
gboolean files_have_answered(const GPtrArray *paths, const FileSeen *seen, GError **error);
gboolean file_seen_is_same(const FileSeen *one, const struct stat *other);

/* An image that a disk of some domain uses, and who that is, for messages. */
typedef struct {
        char *path, *user;
        FileSeen seen;
} ImageUse;

/* Fills `seen` of each ImageUse. */
void image_uses_look(const GPtrArray *uses);
