/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/life.h"

/* The steps of jobs that come to their end by themselves: commit of a middle layer, pull, backup. They stand
 * in a driver's table between those of life.h. Each comment says what the step does when it is due.
 *
 * QEMU calls such a job completed, and rewrites headers, before the data that it copied is on stable
 * storage. So the job is made to stop at PENDING, what it wrote is flushed there with the error to be seen,
 * and only then it is finalized. Where that fails the job is cancelled, which leaves the chain as it was. */

/* "ask": job-cancel, after an Abort. */
StepState ask_cancel_state(const Job *job);
void ask_cancel_run(Job *job);

/* Of a step that is due where the job stands at PENDING and nothing speaks against its end yet. */
StepState at_pending_state(const Job *job, gboolean done);

/* "check-pending": what would go wrong in the finalizing, looked at again. */
StepState check_pending_state(const Job *job);
void check_pending_run(Job *job);

/* "check-users": whether somebody has come to use an image that the job changes or makes invalid. */
StepState check_users_state(const Job *job);
void check_users_run(Job *job);

/* "flush": target_node. */
StepState flush_state(const Job *job);
void flush_run(Job *job);

/* "finalize": job-finalize, or job-cancel where one of these failed or it was asked for. */
void finalize_single_run(Job *job);

/* "look": the outcome, as QEMU says, and as the graph shows where QEMU does not say. */
void look_single_run(Job *job);

/* "flush-outcome": what the finalizing wrote. */
StepState flush_outcome_state(const Job *job);
void flush_outcome_run(Job *job);

/* For the driver: header_node stands on end_node. */
gboolean single_phase_is_in_graph(const Job *job);
