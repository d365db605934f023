/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* "plan", the first step of a job: a look at QEMU, which images the caller means, and what would go wrong.
 * What is wrong ends in job_start_failed(). */

/* What a qcow2 header takes for the name of a backing file, by its specification; and what else QEMU puts
 * into the cluster that the header has, without the name of a data file: 168 bytes on 7.2, some more later
 * on. */
#define HEADER_BACKING_MAX 1023
#define HEADER_OTHERS 256

/* It is due until the job has its nodes. */
StepState plan_state(const Job *job);

/* `top` and `base`: the depths that the options of these names mean, -1 where they are not given. */
typedef void (*PlanFound)(Job *job, const Chain *chain, int top, int base);

/* The chain that the job's device stands on. Errors: InvalidState, … */
Chain *plan_chain(const Job *job, GError **error);

/* Flushes the active layer, looks at QEMU and finds those images. */
void plan_find(Job *job, PlanFound found);

/* Sets what every job knows: the root node, and that `source_depth` is read and `active` is the disk.
 * Answers FALSE, and has failed the start, where a job of somebody else is at work above `deepest`. */
gboolean plan_take(Job *job, const Chain *chain, guint source_depth, guint deepest);

/* ImageUse of everybody else, that is to be looked at before images are changed; NULL: with the option
 * `force` nobody is. */
GPtrArray *plan_uses(const Job *job);

/* Whether overlays that no disk uses stand on one of these (char *, taken); with the option `force` they are
 * noted in job->spoiled. */
void plan_check_overlays(Job *job, GPtrArray *changed, JobLooked checked);

/* Whether a header that names `layer` would say its format rightly; fails the start where not. */
gboolean plan_format_can_be_recorded(Job *job, const Layer *layer);

/* What can be said of the options `backing` and `relative` before anything is looked at. */
gboolean plan_check_backing(const Job *job, GError **error);

/* The name of end_node's image as it is to be recorded in the header of header_node: what the options
 * `backing` (where it is `as_wanted`) and `relative` ask for, else its own. Fills job->backing. */
void plan_backing(Job *job, gboolean as_wanted, JobLooked done);

/* Ends the plan of a job that has a header_node: checks that its header takes job->backing and that QEMU can
 * write it, for QEMU 7.2 to 10.2 crash where a commit finds out too late. */
void plan_header(Job *job, const char *target_node);
/* The same check alone. */
void plan_check_header(Job *job, JobLooked done);

/* job->backing as an argument of the command. */
void plan_set_backing(const Job *job, JsonObject *arguments);
