/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* Commit of the active layer into a layer below it: QEMU's block-commit with `top-node` at the root, which
 * is a mirror job inside QEMU: it gets ready, stays in sync, and pivots or not at its end. */

extern const JobDriver active_commit_driver;

/* What can be said of the options without a look at QEMU. `disk` is for the message. */
gboolean commit_check_options(const Options *options, const char *disk, GError **error);
