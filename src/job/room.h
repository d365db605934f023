/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "graph/chain.h"
#include "job/job.h"

/* Whether there is room for what a job will write. */

/* Fills job->estimate: what the layers from depth `from` down to the one before `end` have, at most. `there`
 * bytes of it may have their place in the target already. */
void room_estimate(Job *job, const Chain *chain, guint from, guint end, guint64 there);

/* Compares it with the free space at `path`, where the target is or is to be. Where it might not fit, QEMU
 * is asked which of it is data, and job->estimate becomes exact. NoSpace where it surely does not fit,
 * unless the option `force` is given, or an error policy that waits for room. What cannot be known does not
 * fail. */
void room_check(Job *job, const char *path, JobLooked checked);
