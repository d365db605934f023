/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/life.h"

/* A commit that can be taken up again goes through its range layer by layer, from the bottom up, as one job:
 * each layer is a commit of its own in QEMU, of the lowest one that is left into base. When a layer is in
 * base and the layer above it stands on base, that is done for good, and recorded: whatever comes then, the
 * same call goes on with the layers that are left.
 *
 * The steps are those of any commit, and this one stands between "delete" and the end: */

/* "begin", of a first layer as of any job: what callers asked for between two layers is recorded; a next one
 * is not begun while the job is paused, or when it was aborted. */
StepState begin_layer_state(const Job *job);
void begin_layer_run(Job *job);

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
/* QEMU is done with a layer and has not accepted the next one: it has no job that could be told anything. */
gboolean stages_are_between(const Job *job);
/* The same, and what is sent now would not come behind the start of the next one either: what a caller asks
 * for is kept for that. */
gboolean stages_keep_orders(const Job *job);
/* Keeps what was just changed of the job: speed and pause. */
void stages_keep(Job *job);
/* It was paused there: the next one waits. */
gboolean stages_are_held(const Job *job);
/* Adds to the message of a job that ends before all are done how many are. */
void stages_say_how_far(Job *job);
