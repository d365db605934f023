/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Which image builds on which, of all images in some directories: kept in memory, so that it can be asked at
 * once, and never at the mercy of a file system.
 *
 * A directory is looked through down to the subdirectories of its subdirectories. Of each regular file the
 * header is read, and no other kind of file is ever opened. A link to a file counts as an image of its own,
 * since a relative name in it starts from where the link is; links to directories are not followed. Two
 * threads do that for each directory: one looks at what lies there, the other where it leads, which may be
 * another file system. One that hangs holds up nothing else.
 *
 * It is kept current by what the kernel tells of the directories. What it does not tell (a header written by
 * a QEMU that goes on running, another host's doing, a file system that came or went, a link on the way to a
 * backing file) is seen by image_index_refresh(), which compares what every file's stat() says.
 *
 * Guests write headers too: one that is in fact the contents of a raw image counts as if it were an image's.
 * That is an image too many, never one too few. */

#define IMAGE_INDEX_MAX 100000    /* files in all directories; what is beyond is unknown */
#define IMAGE_INDEX_DEPTH_MAX 256 /* layers between an image and one that builds on it */
#define IMAGE_INDEX_SUBDIRECTORIES_MAX 2

typedef struct ImageIndex ImageIndex;

/* Which image is meant: its file, by whatever name (of a block device the device's own number, and 0), or 0
 * and 0; and its path or URI, as the headers have it that name it, or NULL. One that either fits is meant.
 */
typedef struct {
        guint64 device, inode;
        const char *source;
} ImageId;

/* What an image is to the one that builds on it. */
typedef enum {
        IMAGE_PART_BACKING,
        IMAGE_PART_DATA,
} ImagePart;

typedef struct {
        char *path; /* of the image that builds on the one that was asked for */
        guint64 device, inode;
        guint depth;    /* 1: directly */
        ImagePart part; /* of what is below it on the way there */
} ImageUser;

/* What nothing is known of, and why. */
typedef struct {
        char *path; /* a file, or a directory with all that is in it */
        char *why;  /* a sentence without its end: "it cannot be read: Permission denied" */
} ImageUnknown;

/* What is known of one file. */
typedef struct {
        guint64 device, inode;
        char *format;    /* NULL = not known */
        char *backing;   /* absolute path or URI, NULL = none */
        char *data_file; /* NULL = none */
        char *why;       /* why it is not known what it builds on, NULL = it is known */
} ImageFound;

typedef void (*ImageIndexChanged)(gpointer data);

/* `complete`: every directory has been looked through since. */
typedef void (*ImageIndexDone)(gboolean complete, gpointer data);

/* Absolute paths, with a NULL at the end; those that are not there may come. `changed` (NULL = nobody) is
 * called from the default main context after things have become known, not for each one. All functions are
 * the main thread's. */
ImageIndex *image_index_new(const char *const *directories, ImageIndexChanged changed, gpointer data);
/* Who waits for a refresh is told that it is not complete. */
void image_index_free(ImageIndex *index);

/* The images that build on that one, in the order of depth and path: directly, or with `all` also by those.
 * `complete` (NULL = it does not matter): whether every directory has been looked through, answers, and it
 * is known where its files lead; else image_index_unknown() says what of that is not so. ImageUser. */
GPtrArray *image_index_users(ImageIndex *index, const ImageId *image, gboolean all, gboolean *complete);

/* What lies at that path in the directories; NULL = no image that is known of. */
ImageFound *image_index_find(ImageIndex *index, const char *path);
void image_found_free(ImageFound *found);

/* ImageUnknown, in the order of their paths: what is not taken for unused. Those on a file system that is
 * not there any more are among them, and go on to count as users. */
GPtrArray *image_index_unknown(ImageIndex *index);

/* Calls `done` once, and not before it returns, when all that has happened before the call is known; or
 * after `milliseconds`, when a directory has not answered. */
void image_index_refresh(ImageIndex *index, guint milliseconds, ImageIndexDone done, gpointer data);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageIndex, image_index_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageFound, image_found_free)
