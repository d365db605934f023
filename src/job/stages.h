/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/life.h"

/* A commit that can be taken up again goes through its range layer by layer, from the bottom up, as one job:
 * each layer is a commit of its own in QEMU, of the lowest one that is left into base. When a layer is in
 * base and the layer above it stands on base, that is done for good, and recorded: whatever comes then, the
 * same call goes on with the layers that are left.
 *
 * The steps are those of any commit, and this one stands between "delete" and the end: */

/* "next-layer": the steps begin again with the one above; or the job ends where it is. */
StepState next_layer_state(const Job *job);
void next_layer_run(Job *job);

/* For the plan: how many layers there are, and which is the uppermost. */
void stages_plan(Job *job, const Chain *chain, guint top, guint base);
/* The layer that is next, by its depth; the one under it is base. -1 with `error`: the chain is another one
 * by now. */
int stages_find_next(const Job *job, const Chain *chain, GError **error);
/* There is more to come behind the stage that QEMU is at. */
gboolean stages_are_left(const Job *job);
/* Adds to the message of a job that ends before all are done how many are. */
void stages_say_how_far(Job *job);
