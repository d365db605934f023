/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/life.h"

/* The steps of jobs with a ready phase, in the order in which they stand in a driver's table, between those
 * of life.h. Each comment says what the step does when it is due.
 *
 * The rule that makes every outcome certain: at PENDING the job is finalized if, and only if, the record on
 * stable storage says that the target is the disk. Otherwise it is cancelled there, which leaves the source
 * as the disk and the target as a consistent copy, whoever brought PENDING about. */

/* "say-ready": the Ready signal, once. */
StepState say_ready_state(const Job *job);
void say_ready_run(Job *job);

/* "decide": what the option `auto` asked for. Waits for somebody's decision otherwise. */
StepState decide_state(const Job *job);
void decide_run(Job *job);

/* "check-users": before a pivot that makes images invalid, whether somebody has come to use one. Where that
 * is so there is no pivot, and the job stays ready. */
StepState check_users_before_pivot_state(const Job *job);
void check_users_before_pivot_run(Job *job);

/* "ask": job-complete, a soft cancel or job-cancel. */
StepState ask_state(const Job *job);
void ask_run(Job *job);

/* "record-target": which image is the disk; synced where it is the target. */
StepState record_target_state(const Job *job);
void record_target_run(Job *job);

/* "finalize": job-finalize, or job-cancel where the source stays. */
void finalize_pivot_run(Job *job);

/* "look": the outcome, from QEMU's graph; by the record where QEMU is gone. */
void look_two_phase_run(Job *job);

/* For the driver: the device stands on target_node. */
gboolean two_phase_is_in_graph(const Job *job);
