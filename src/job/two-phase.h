/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* The steps that jobs with a ready phase share, in the order in which they stand in a driver's table. Each
 * comment says what the step does when it is due.
 *
 * The rule that makes every outcome certain: at PENDING the job is finalized if, and only if, the record on
 * stable storage says that the target is the disk. Otherwise it is cancelled there, which leaves the source
 * as the disk and the target as a consistent copy, whoever brought PENDING about. */

/* "record-intent": the record, before QEMU hears anything. */
StepState record_intent_state(const Job *job);
void record_intent_run(Job *job);

/* "record-accepted": that QEMU took the job, so that it is owed a Completed from now on. */
StepState record_accepted_state(const Job *job);
void record_accepted_run(Job *job);

/* "announce": the object, JobNew and the reply to the caller. */
StepState announce_state(const Job *job);
void announce_run(Job *job);

/* "say-ready": the Ready signal. */
StepState say_ready_state(const Job *job);
void say_ready_run(Job *job);

/* "decide": what the option `auto` asked for. Waits for somebody's decision otherwise. */
StepState decide_state(const Job *job);
void decide_run(Job *job);

/* "record-decision": what was asked for, before the command. */
StepState record_decision_state(const Job *job);
void record_decision_run(Job *job);

/* "ask": job-complete, a soft cancel or job-cancel. */
StepState ask_state(const Job *job);
void ask_run(Job *job);

/* "reach-pending": waits until QEMU holds the guest, or the job has ended without that. */
StepState reach_pending_state(const Job *job);

/* "record-target": which image is the disk; synced where it is the target. */
StepState record_target_state(const Job *job);
void record_target_run(Job *job);

/* "finalize": job-finalize, or job-cancel where the source stays. */
StepState finalize_state(const Job *job);
void finalize_run(Job *job);

/* "conclude": waits until the job has ended in QEMU. */
StepState conclude_state(const Job *job);

/* "look": the outcome, from QEMU's graph; by the record where QEMU is gone. */
StepState look_state(const Job *job);
void look_run(Job *job);

/* "record-outcome": synced. */
StepState record_outcome_state(const Job *job);
void record_outcome_run(Job *job);

/* "tidy" is the driver's own; this is when it is due. */
StepState tidy_state(const Job *job);

/* "tell": the Completed signal. */
StepState tell_state(const Job *job);
void tell_run(Job *job);
