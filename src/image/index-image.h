/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/stat.h>

#include "image/index.h"

/* One file as the index has it. It is never changed: what is seen anew is another one in its place, so that
 * it can be looked at without the lock. */

/* By what a file that was changed is told from one that was not. */
typedef struct {
        guint64 device, inode, size;
        gint64 changed;   /* ns, the kernel's own time and nobody else's to set */
        gboolean settled; /* it was long ago then: a change of the same moment would have another time */
} FileMark;

typedef struct {
        ImagePart part;
        gboolean remote;
        char *source;
        guint64 device, inode; /* 0 = not known: a URI, not looked at yet, or not there */
        int failure;           /* why it could not be looked at; 0 also where it is not there */
} ImageParent;

typedef struct {
        int references;
        char *path;
        const char *format; /* NULL = it is not known, or no image */
        char *why;          /* why it is not known what it builds on; NULL = it is known */
        guint64 device, inode;
        ImageParent parents[2];
        guint n_parents;

        guint64 home; /* device of the directory: a file in an overlayfs has another */
        FileMark own; /* of what lies in the directory, which may be a link */
        gboolean is_link;
        gboolean is_pending; /* nobody has looked yet where it leads */
        FileMark target;     /* of what the link leads to */
        gboolean is_away;
} IndexedImage;

void file_mark(FileMark *mark, const struct stat *st);
/* Whether nothing has happened to what `seen` was taken of. */
gboolean file_mark_holds(const FileMark *seen, const FileMark *now);

IndexedImage *indexed_image_new(const char *path, const FileMark *own);
IndexedImage *indexed_image_copy(const IndexedImage *image);
IndexedImage *indexed_image_ref(IndexedImage *image);
void indexed_image_unref(IndexedImage *image);

/* Takes what the file says of itself; what it builds on is named, and not looked at. -1 with errno set where
 * it is not there (any more). */
int indexed_image_read(IndexedImage *image, int directory, const char *name, int flags);
void indexed_image_say(IndexedImage *image, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Parents of the same names are the same files, as long as nobody has looked again. */
/* Whether all of them are. */
gboolean indexed_image_take_parents(IndexedImage *image, const IndexedImage *old);
/* Whether a reader could tell them apart. */
gboolean indexed_image_equal(const IndexedImage *a, const IndexedImage *b);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(IndexedImage, indexed_image_unref)
