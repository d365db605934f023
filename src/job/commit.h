/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* Commit of layers into one below them: QEMU's block-commit.
 *
 * With the active layer at the top it is a mirror job inside QEMU: it gets ready, stays in sync, and pivots
 * or not at its end. Below that it comes to its end by itself, and the header of the layer above top is
 * rewritten. Which of the two it is shows when it is planned; it starts as the first. */

extern const JobDriver active_commit_driver, commit_driver;
/* With the option "restartable" and more than one layer, of which the active one is the last: see stages.h.
 * All but that are commits like any other. */
extern const JobDriver restartable_active_commit_driver;

/* The next stage: the layer at that depth, which stands on base. */
void commit_take_layer(Job *job, const Chain *chain, guint layer, JobLooked taken);
