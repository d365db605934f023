/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* What jobs do with nodes of QEMU's graph when their work is over, and flushing. */

/* "tidy": dismisses the job in QEMU, removes the nodes of job->unused and does what else its driver has to
 * do; due when the outcome is recorded. */
StepState nodes_tidy_state(const Job *job);
void nodes_tidy_run(Job *job);

/* For the driver's `tidy`: a command whose failure shows in the graph, which is then looked at. */
void nodes_command(Job *job, const char *command, JsonObject *arguments);

/* Makes job->unused, for the record of the outcome: once the first of these nodes are removed, the graph
 * does not lead to the others any more. As long as they are there, their images are locked, and the next job
 * on the disk is refused. */
void nodes_list_unused(Job *job);
/* For the driver's `leave`: those from source_node down to end_node. */
void nodes_leave_source(Job *job);
/* The same for the node of that name and what it alone stores its data in; nothing where there is none. */
void nodes_leave(Job *job, const char *name);
/* The node is only read from now on; nothing where it is so already. */
void nodes_reopen_read_only(Job *job, const char *name);

/* The arguments of blockdev-reopen for the options of one node, which are taken. */
JsonObject *nodes_reopen_options(JsonObject *options);

/* Flushes a node with all that is below it, metadata too. `error` is QEMU's where that failed. */
void nodes_flush(Job *job, const char *node, JobLooked flushed);

/* Finds out, without touching it, whether QEMU could open the file of a node for writing. */
void nodes_probe(Job *job, const char *node, JobLooked probed);
