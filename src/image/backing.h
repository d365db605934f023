/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* What the name of a backing file stands for. */
typedef struct {
        char *source; /* absolute path as QEMU makes it, not tidied; or a URI */
        char *format; /* NULL = not recorded */
        gboolean remote;
} BackingName;

/* `text` and `format` ("" = none) as they stand in the header of the image at the absolute path `image`.
 * What is understood is a path, file:/PATH, a URI that is remote, and of json: the forms in which QEMU
 * writes a local file with a format. All else is InvalidArgument, with a message that wants the image's name
 * in front; so are names that QEMU would take as relative to wherever it runs. */
gboolean backing_parse(const char *text, const char *format, const char *image, BackingName *name,
                       GError **error);
void backing_clear(BackingName *name);

/* The path of the data file, which is none of QEMU's other forms of a name. */
char *backing_parse_data_file(const char *text, GError **error);

/* Whether an image has the scheme of one on the network: nbd:, rbd:, iscsi:, … */
gboolean backing_is_remote(const char *source);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(BackingName, backing_clear)
