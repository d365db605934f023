/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/files.h"
#include "job/job.h"

/* An image that a job makes, or takes over, to write into: a new file, a prepared one, a block device, an
 * export of a server, or what a passed descriptor stands for. QEMU opens and creates it. Its nodes are
 * bj-ID-f, the protocol, and bj-ID-t, the format, which is the job's target_node. */

gboolean target_is_raw(const NewImage *image);

/* What can be said before anything is looked at. Errors: InvalidArgument. */
gboolean target_check(const Job *job, GError **error);

/* Plans job->image as a copy of `like`: format, size, clusters. `backing` is the layer that it is to stand
 * on, NULL = none. Ends the step "plan", or fails the start. */
void target_plan(Job *job, const Chain *chain, const Layer *like, const Layer *backing);

/* The steps, in this order. */

/* "pass-descriptor": to QEMU, which knows it as /dev/fdset/N from then on. */
StepState pass_descriptor_state(const Job *job);
void pass_descriptor_run(Job *job);

/* "create-file": of no size where it has a format, which makes it grow. */
StepState create_file_state(const Job *job);
void create_file_run(Job *job);

/* "open-file" */
StepState open_file_state(const Job *job);
void open_file_run(Job *job);

/* "create-format": headers and tables, or the size of a raw image. */
StepState create_format_state(const Job *job);
void create_format_run(Job *job);

/* "open-format": without its backing file. */
StepState open_format_state(const Job *job);
void open_format_run(Job *job);

/* "check-target": the size of one that was there before; the look shows what is in its header, too. */
StepState check_target_state(const Job *job);
void check_target_run(Job *job);

/* "sync-target": a new file's directory. */
StepState sync_target_state(const Job *job);
void sync_target_run(Job *job);

/* What is undone of a start that failed: "remove-target", the nodes; "remove-file", one that was created. */
extern const JobStep target_undo[];
StepState remove_target_state(const Job *job);
void remove_target_run(Job *job);
StepState remove_file_state(const Job *job);
void remove_file_run(Job *job);

/* All options of its format node, but for `backing`; `direct`: past the host's page cache. */
JsonObject *target_options(const Job *job, gboolean direct);

/* For a driver's `leave`: the image is to be closed. */
void target_leave(Job *job);
