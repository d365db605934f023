/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* The steps that all jobs share, in the order in which they stand in a driver's table; two-phase.h and
 * single-phase.h have what stands between. Each comment says what the step does when it is due. */

gboolean job_is_connected(const Job *job);
/* In QEMU's job list the job has come to its end, or it is not there any more. */
gboolean job_has_ended(const Job *job);
/* It is on its way to the end: nothing that is asked of it makes a difference before PENDING. */
gboolean job_is_past_ready(const Job *job);
gboolean job_is_pending(const Job *job);
void job_warn(Job *job, const GError *error);

/* "record-intent": the record, before QEMU hears anything. */
StepState record_intent_state(const Job *job);
void record_intent_run(Job *job);

/* For job_write(), of a record without which there is no job. */
void start_recorded(const GError *error, gpointer job);

/* "begin": gives up a job that was planned by an earlier start of the service, if QEMU never got it: nobody
 * waits for it any more. */
StepState begin_state(const Job *job);
void begin_run(Job *job);

/* "start" is the driver's own: its `run` ends in start_command(). */
StepState start_state(const Job *job);
/* The arguments that all commands have that start a job. */
JsonObject *start_arguments(const Job *job);
/* An option of the job as an argument of the command, where the option was given. */
void start_text(const Job *job, JsonObject *arguments, const char *option);
void start_number(const Job *job, JsonObject *arguments, const char *argument, const char *option);
/* `arguments` is taken. */
void start_command(Job *job, const char *command, JsonObject *arguments);

/* "record-accepted": that QEMU took the job, so that it is owed a Completed from now on. */
StepState record_accepted_state(const Job *job);
void record_accepted_run(Job *job);

/* "announce": the object, JobNew and the reply to the caller. */
StepState announce_state(const Job *job);
void announce_run(Job *job);

/* "record-decision": what was asked for, before the command. */
StepState record_decision_state(const Job *job);
void record_decision_run(Job *job);
/* A decision that cannot be carried out: the job goes on without it. */
void job_refuse(Job *job, const GError *error);

/* "ask": its `state` and `run` are in two-phase.h and single-phase.h. What QEMU refuses is no decision any
 * more. */
void ask_command(Job *job, const char *command, JsonObject *arguments);

/* "reach-pending": waits until QEMU holds the job there, or it has ended without that. */
StepState reach_pending_state(const Job *job);

/* For "check-users": disks, locks and overlays, as when the job was planned. */
void life_check_users(Job *job, JobLooked checked);

/* "finalize": its `run` is in two-phase.h and single-phase.h and comes to finalize_command(). */
StepState finalize_state(const Job *job);
/* `finalize`: job-finalize; else job-cancel. */
void finalize_command(Job *job, gboolean finalize);

/* "conclude": waits until the job has ended in QEMU. */
StepState conclude_state(const Job *job);

/* What the job came to is known, or what the stage did that it is at; and it is on stable storage. */
gboolean job_outcome_is_seen(const Job *job);
gboolean job_outcome_is_written(const Job *job);

/* "look": asks QEMU, then calls the driver's way to a result; its `run` is in two-phase.h, single-phase.h.
 */
StepState look_state(const Job *job);
void look_command(Job *job, JobLooked looked);
void set_result(Job *job, JobResult result);
/* Where QEMU's word for the end says that it was cancelled. */
gboolean job_was_cancelled(const Job *job);
void set_result_failed(Job *job);

/* "compare-images": after a crash, of the service or of QEMU, somebody may have moved or replaced an image.
 * That is said in the job's message, and nothing is deleted. */
StepState compare_images_state(const Job *job);
void compare_images_run(Job *job);

/* Has a step that failed wait for a while, by job->retry. */
void retry_later(Job *job, const GError *error);

/* "record-outcome": synced. */
StepState record_outcome_state(const Job *job);
void record_outcome_run(Job *job);

/* "tidy" is in nodes.h. */

/* "delete": the option `delete`; what cannot be removed is said in the job's message. */
StepState delete_state(const Job *job);
void delete_run(Job *job);

/* "record-domain": of a machine that is started from what is written down, which images its disk has now. */
StepState record_domain_state(const Job *job);
void record_domain_run(Job *job);

/* "close": where QEMU was there for this job alone, it ends, and lets go of the images. */
StepState close_state(const Job *job);
void close_run(Job *job);

/* "tell": the Completed signal. */
StepState tell_state(const Job *job);
void tell_run(Job *job);
