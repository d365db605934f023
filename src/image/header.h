/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* What the first bytes of an image say. They are anybody's: all of it works on any bytes. */

/* As much of an image as is looked at. QEMU writes its headers from the start on, without gaps. */
#define HEADER_BYTES (64 * 1024)
/* And as much of its end, where some formats have what they are known by. */
#define HEADER_TAIL_BYTES 512

typedef struct {
        const char *format;   /* "raw", "qcow2", or the name of another one, of which nothing else is read */
        guint version;        /* of qcow2: 2 or 3 */
        guint64 virtual_size; /* bytes, whole sectors, as QEMU counts; 0 = of a format that is not read */
        guint64 cluster_size;
        char backing[1024]; /* as it stands there, UTF-8; "" = none */
        char backing_format[16];
        char data_file[4096]; /* "" = none, or its name is not in there */
        gboolean has_data_file, encrypted, extended_l2;
        gboolean dirty, corrupt; /* marked as such */
} ImageHeader;

/* `bytes`: the first `length` of a file of `file_size`, HEADER_BYTES or the whole file; of fewer what cannot
 * be known is an error. The format is the one that it has a magic of, else "raw". InvalidArgument, with a
 * message that wants the image's name in front, where a qcow2 header is not plain: cut, against its
 * specification, or of features that are not known. */
gboolean header_parse(const guint8 *bytes, gsize length, guint64 file_size, ImageHeader *header,
                      GError **error);

/* The same for a format that is known from elsewhere: anything is a raw image, all else must have its magic,
 * where that is not at its end. `header->format` is a constant or `format` itself. */
gboolean header_parse_as(const char *format, const guint8 *bytes, gsize length, guint64 file_size,
                         ImageHeader *header, GError **error);

/* The format that the last HEADER_TAIL_BYTES of an image have a magic of; NULL = none. */
const char *header_format_of_tail(const guint8 *bytes, gsize length);

/* Whether one of these functions can tell that format. */
gboolean header_knows_format(const char *format);
