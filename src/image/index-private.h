/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "image/index-table.h"
#include "image/index-watch.h"

/* The parts of the index. Each directory has two threads: the walker (index-walk.c), which alone adds and
 * removes its files, and the follower (index-follow.c), which puts others in their place when it has seen
 * where they lead. Neither holds the lock while a file system is asked for anything. */

typedef struct {
        ImageIndex *index;
        char *path;
        Watch *watch; /* the walker's; anybody may wake it */

        /* under the index's lock */
        GHashTable *files;        /* path → IndexedImage */
        GHashTable *troubles;     /* path of a directory in it → char *, why it is not known */
        guint64 walked, followed; /* which generation is known */
        gboolean is_late;
} ImageDirectory;

struct ImageIndex {
        int references; /* one of whoever made it, one a thread, one a source of the main loop */
        ImageIndexChanged changed;
        gpointer data;
        GPtrArray *directories; /* ImageDirectory */
        GQueue refreshes;       /* the main thread's */

        GMutex lock;
        GCond news; /* for the followers */
        UseTable uses;
        guint n_files, n_pending;
        guint64 generation; /* what everybody should know by now */
        guint64 changes;    /* made by walkers */
        gboolean is_closing, is_telling, has_changed;
};

ImageIndex *image_index_ref(ImageIndex *index);
void image_index_unref(ImageIndex *index);

/* All with the lock held. */

/* In the place of what was at its path; `old`, if it is given, must be what is there. FALSE: it is not, or
 * there is no room. */
gboolean image_directory_put(ImageDirectory *directory, IndexedImage *image, const IndexedImage *old);
gboolean image_directory_remove(ImageDirectory *directory, const char *path);
/* The files that `wanted` (NULL = all) wants, each with a reference. */
GPtrArray *image_directory_list(ImageDirectory *directory, gboolean (*wanted)(const IndexedImage *image));
/* A pass of a thread has ended: whoever waits for it is told. */
void image_index_tell(ImageIndex *index, gboolean has_changed);

/* The threads. */
gpointer image_walk_thread(gpointer directory);
gpointer image_follow_thread(gpointer directory);
