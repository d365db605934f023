/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/stat.h>

#include "image/seen.h"
#include "job/job.h"

/* Who else uses an image that a job changes or makes invalid. Looks at files and at /proc: from a thread. */

/* Whether `path` is that file. */
gboolean users_is_file(const char *path, const struct stat *wanted);

/* FALSE with ImageInUse where one of `uses` (ImageUse, looked at; NULL = do not look at all) is one of
 * `paths` (char *), by name or by file, or where a process that is not the job's QEMU has locks on it; `job`
 * NULL: any process, since QEMU has closed it. `seen`: what each path leads to. `consequence` ends the
 * message. */
gboolean users_check(const Job *job, const GPtrArray *uses, const GPtrArray *paths, const FileSeen *seen,
                     const char *consequence, GError **error);

/* Says where that check could not tell, NULL = it could. */
char *users_unknown(const GPtrArray *uses);
