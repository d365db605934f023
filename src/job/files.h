/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/types.h>

#include "graph/chain.h"
#include "job/job.h"

/* What jobs do with files by their names: look at them, remove them, relate them to each other. All of it
 * may block, so it runs in worker threads; `done` is called in the main loop, with the job as data. No image
 * is opened here. */

/* Which file it is: the numbers tell it from another one that takes its name later. */
typedef struct {
        char *path;
        dev_t device;
        ino_t inode;
} FileIdentity;

JsonArray *files_to_json(const GPtrArray *files);
GPtrArray *files_from_json(JsonArray *array);

typedef void (*FilesDone)(Job *job, const GError *error);

/* Makes job->backing the name of `to` relative to the directory of `from`. Errors: InvalidArgument where
 * one of them is no local path. */
void files_relate(Job *job, const char *from, const char *to, FilesDone done);

/* Fills job->stale with the identities of `paths` (char *, taken), and job->images with those of `changed`
 * (char *, taken), the images that the job makes invalid; what is no local file is left out. ImageInUse
 * where one of `uses` (ImageUse, taken, NULL = do not look) is the same file as one of `changed`. */
void files_examine(Job *job, GPtrArray *paths, GPtrArray *changed, GPtrArray *uses, FilesDone done);

/* Looks at the local file or block device that is to be job->image, by the name job->target, and completes
 * that. `chain` are the disk's own images. Errors: InvalidArgument, Exists, NoSuchImage, ImageInUse. */
void files_examine_target(Job *job, const Chain *chain, GPtrArray *uses, FilesDone done);

/* Whether the backing file that the header of `overlay` names, `backing`, is the file `wanted`.
 * Errors: InvalidArgument. */
void files_check_backing(Job *job, const char *overlay, const char *backing, const char *wanted,
                         FilesDone done);

/* Brings the directory entry of `path` to stable storage. A directory that is not to be seen from here, in
 * another mount namespace perhaps, is no error. */
void files_sync_directory(Job *job, const char *path, FilesDone done);

/* Removes job->stale, as far as they are what they were. `error` lists what could not be removed. */
void files_remove_stale(Job *job, FilesDone done);

/* Whether the files of job->images are still what they were. `error` says which are not. */
void files_check_images(Job *job, FilesDone done);
/* The paths of FileIdentity; `files` NULL: an empty list. */
GPtrArray *files_names(const GPtrArray *files);
/* Whether one of `uses` (ImageUse, taken, NULL = do not look) is one of `paths` (char *, taken), or somebody
 * has locks on one: ImageInUse. `closed`: the job's QEMU itself has none on them any more. */
void files_check_users(Job *job, GPtrArray *paths, gboolean closed, GPtrArray *uses, FilesDone done);
/* Adds one to job->images. */
void files_note_image(Job *job, const char *path, guint64 device, guint64 inode);

/* Notes in job->image which file is the one that was just created under its name. */
void files_identify_created(Job *job, FilesDone done);

/* Removes that file, and no other that has its name by now. Without a word where that fails. */
void files_remove_created(Job *job, FilesDone done);
