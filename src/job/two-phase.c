/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/two-phase.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"

#define RETRY_MILLISECONDS 1000

static gboolean connected(const Job *job)
{
        return job->synced && job->host->qmp;
}

/* In QEMU's job list the job has come to its end, or it is not there any more. */
static gboolean ended(const Job *job)
{
        return job->gone ||
               (connected(job) && (job->status == STATUS_CONCLUDED || job->status == STATUS_ABSENT));
}

static gboolean past_ready(const Job *job)
{
        return ended(job) || (connected(job) && job->status >= STATUS_WAITING);
}

StepState record_intent_state(const Job *job)
{
        return job->written.exists ? STEP_DONE : STEP_DUE;
}

static void on_intent_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        if (error)
                job_start_failed(job, error);
        else
                job_step_end(job);
}

void record_intent_run(Job *job)
{
        job_write(job, JOURNAL_SYNCED, on_intent_recorded);
}

StepState record_accepted_state(const Job *job)
{
        return job->written.accepted ? STEP_DONE : STEP_DUE;
}

static void warn(Job *job, const GError *error)
{
        if (job->host)
                job->host->observer->warning(job, error->message, job->host->observer_data);
}

static void on_accepted_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        /* The intent is on disk and QEMU runs the job: recovery finds it there. */
        if (error) {
                warn(job, error);
                job->written.accepted = TRUE;
        }
        job_step_end(job);
}

void record_accepted_run(Job *job)
{
        job_write(job, JOURNAL_RENAMED, on_accepted_recorded);
}

StepState announce_state(const Job *job)
{
        if (job->announced)
                return STEP_DONE;
        return job->host->may_tell ? STEP_DUE : STEP_WAIT;
}

void announce_run(Job *job)
{
        job->announced = TRUE;
        job_update_state(job);
        job->host->observer->announced(job, job->host->observer_data);
        if (job->started)
                job->started(job, NULL, job->started_data);
        job->started = NULL;
        job_step_end(job);
}

StepState say_ready_state(const Job *job)
{
        if (job->ready_time || !connected(job) || job->record.decision == DECISION_CANCEL ||
            (job->status != STATUS_READY && job->status != STATUS_STANDBY))
                return STEP_DONE;
        return job->host->may_tell ? STEP_DUE : STEP_WAIT;
}

void say_ready_run(Job *job)
{
        double before = job_progress(job);

        job->ready_time = g_get_real_time();
        job_update_state(job);
        job_changed(job, JOB_CHANGED_READY | (job_progress(job) != before ? JOB_CHANGED_PROGRESS : 0));
        job->host->observer->ready(job, job->host->observer_data);
        /* For ReadyTime after a restart; where a decision follows at once, its record has it. */
        if (!options_text(job->options, "auto"))
                journal_write(job->host->journal, JOURNAL_JOBS, job->id, job_to_json(job), JOURNAL_RENAMED,
                              NULL, NULL);
        job_step_end(job);
}

StepState decide_state(const Job *job)
{
        if (job->record.decision != DECISION_NONE || past_ready(job))
                return STEP_DONE;
        return job_is_ready(job) && options_text(job->options, "auto") && !job->refusal ? STEP_DUE
                                                                                        : STEP_WAIT;
}

void decide_run(Job *job)
{
        job->record.decision =
                strcmp(options_text(job->options, "auto"), "pivot") == 0 ? DECISION_PIVOT : DECISION_KEEP;
        job_step_end(job);
}

StepState record_decision_state(const Job *job)
{
        return job->record.decision == job->written.decision || past_ready(job) ? STEP_DONE : STEP_DUE;
}

static void refuse(Job *job, const GError *error)
{
        job->record.decision = DECISION_NONE;
        g_clear_error(&job->refusal);
        job->refusal = g_error_copy(error);
        job->host->observer->refused(job, error, job->host->observer_data);
}

static void on_decision_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        if (error && job->writing.decision == DECISION_PIVOT) {
                /* Where this cannot be written, the record at PENDING cannot be either. */
                if (job->record.decision == DECISION_PIVOT)
                        refuse(job, error);
        } else if (error) {
                /* Leaving the source as the disk needs no record. */
                warn(job, error);
                job->written.decision = job->writing.decision;
        }
        job_step_end(job);
}

void record_decision_run(Job *job)
{
        job_write(job, JOURNAL_SYNCED, on_decision_recorded);
}

StepState ask_state(const Job *job)
{
        if (past_ready(job) || job->record.decision == DECISION_NONE)
                return STEP_DONE;
        if (!connected(job))
                return STEP_WAIT;
        /* What was asked to complete comes to PENDING by itself and can still be kept there. */
        if (job->asked == job->record.decision || job->asked == DECISION_CANCEL ||
            (job->asked == DECISION_PIVOT && job->record.decision == DECISION_KEEP))
                return STEP_DONE;
        return STEP_DUE;
}

static void on_asked(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU) && !past_ready(job)) {
                job->asked = DECISION_NONE;
                refuse(job, error);
        }
        job_step_end(job);
}

void ask_run(Job *job)
{
        JobDecision decision = job->record.decision;

        job->asked = decision;
        /* A paused job takes no soft cancel and does not complete. */
        if (decision != DECISION_CANCEL && (job->status == STATUS_STANDBY || job->paused_by_user)) {
                job->paused_by_user = FALSE;
                qmp_execute(job->host->qmp, "job-resume", json_make("s:id", job->qemu_id, NULL), NULL, NULL);
        }
        if (decision == DECISION_PIVOT)
                job_execute(job, "job-complete", json_make("s:id", job->qemu_id, NULL), on_asked);
        else if (decision == DECISION_KEEP)
                job_execute(job, "block-job-cancel", json_make("s:device", job->qemu_id, NULL), on_asked);
        else
                job_execute(job, "job-cancel", json_make("s:id", job->qemu_id, NULL), on_asked);
}

StepState reach_pending_state(const Job *job)
{
        return ended(job) || (connected(job) && job->status == STATUS_PENDING) ? STEP_DONE : STEP_WAIT;
}

StepState record_target_state(const Job *job)
{
        if (ended(job) || job->status != STATUS_PENDING || job->written.disk_is != DISK_IS_OPEN)
                return STEP_DONE;
        /* Without a connection somebody may have ended the job meanwhile, and the guest may be writing. */
        return connected(job) ? STEP_DUE : STEP_WAIT;
}

static void on_target_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        if (error && job->record.disk_is == DISK_IS_TARGET) {
                g_clear_error(&job->refusal);
                job->refusal = g_error_copy(error);
                job->record.decision = DECISION_KEEP;
                job->record.disk_is = DISK_IS_SOURCE;
        } else if (error) {
                /* The source stays the disk with or without this record. */
                warn(job, error);
                job->written.disk_is = DISK_IS_SOURCE;
        }
        job_step_end(job);
}

void record_target_run(Job *job)
{
        gboolean pivot = job->record.decision == DECISION_PIVOT && job->record.disk_is != DISK_IS_SOURCE;

        job->record.disk_is = pivot ? DISK_IS_TARGET : DISK_IS_SOURCE;
        job_write(job, pivot ? JOURNAL_SYNCED : JOURNAL_RENAMED, on_target_recorded);
}

StepState finalize_state(const Job *job)
{
        if (ended(job) || (connected(job) && job->status != STATUS_PENDING))
                return STEP_DONE;
        return connected(job) ? STEP_DUE : STEP_WAIT;
}

static void on_finalize_looked(Job *job, const GError *error)
{
        (void) error;
        job_step_end(job);
}

static void on_finalized(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU))
                job->host->look(job->host, job, on_finalize_looked);
        else
                job_step_end(job);
}

void finalize_run(Job *job)
{
        gboolean pivot = job->written.disk_is == DISK_IS_TARGET;

        job_execute(job, pivot ? "job-finalize" : "job-cancel", json_make("s:id", job->qemu_id, NULL),
                    on_finalized);
        /* Said behind the command: until QEMU has it, the guest is held. */
        if (pivot)
                job->host->observer->decided(job, job->host->observer_data);
}

StepState conclude_state(const Job *job)
{
        return ended(job) ? STEP_DONE : STEP_WAIT;
}

StepState look_state(const Job *job)
{
        if (job->record.result != RESULT_NONE)
                return STEP_DONE;
        return job->gone || connected(job) ? STEP_DUE : STEP_WAIT;
}

static void set_result(Job *job, JobResult result)
{
        job->record.result = result;
        job->end_time = g_get_real_time();
        if (job->refusal && result != RESULT_COMPLETED)
                job_set_error(job, job->refusal->code, "the pivot was given up: %s", job->refusal->message);
}

static gboolean has_pivoted(const Job *job)
{
        const GraphRoot *root = graph_root(job->host->graph, job->device);
        GraphNode *active = root ? graph_skip_filters(root->node) : NULL;

        /* A device that was unplugged since shows nothing; finalizing without an error is then the proof. */
        if (!active)
                return job->written.disk_is == DISK_IS_TARGET && !job->qemu_error;
        return strcmp(active->name, job->base_node) == 0;
}

static void set_result_by_record(Job *job)
{
        if (job->written.disk_is == DISK_IS_TARGET) {
                set_result(job, RESULT_PIVOTED);
                job_set_error(job, -1, "QEMU went away after the pivot was recorded: '%s' is the disk",
                              job->target);
        } else {
                set_result(job, RESULT_LOST);
                job_set_error(job, BJ_ERROR_DISCONNECTED,
                              "QEMU went away before the job could conclude: '%s' is still the disk",
                              job->source);
        }
}

static void set_result_by_graph(Job *job)
{
        gboolean cancelled = g_strcmp0(job->qemu_error, g_strerror(ECANCELED)) == 0 ||
                             g_strcmp0(job->qemu_error, "Operation canceled") == 0;

        if (has_pivoted(job))
                set_result(job, RESULT_COMPLETED);
        else if (job->written.disk_is == DISK_IS_SOURCE && job->record.decision != DECISION_CANCEL)
                set_result(job, RESULT_KEPT);
        else if (cancelled || job->record.decision == DECISION_CANCEL)
                set_result(job, RESULT_CANCELLED);
        else if (job->qemu_error) {
                set_result(job, RESULT_FAILED);
                job_set_error(
                        job, strstr(job->qemu_error, g_strerror(ENOSPC)) ? BJ_ERROR_NO_SPACE : BJ_ERROR_QEMU,
                        "%s", job->qemu_error);
        } else if (job->status == STATUS_ABSENT) {
                set_result(job, RESULT_FAILED);
                job_set_error(job, BJ_ERROR_FAILED,
                              "somebody else ended the job in QEMU; '%s' is still the disk", job->source);
        } else
                set_result(job, RESULT_KEPT);
}

static void on_looked(Job *job, const GError *error)
{
        if (job->gone)
                set_result_by_record(job);
        else if (!error && ended(job))
                set_result_by_graph(job);
        job_step_end(job);
}

void look_run(Job *job)
{
        if (job->gone)
                on_looked(job, NULL);
        else
                job->host->look(job->host, job, on_looked);
}

StepState record_outcome_state(const Job *job)
{
        if (job->written.result != RESULT_NONE)
                return STEP_DONE;
        return job->retry ? STEP_WAIT : STEP_DUE;
}

static gboolean on_retry(gpointer data)
{
        Job *job = data;

        job->retry = 0;
        job_advance(job);
        return G_SOURCE_REMOVE;
}

static void on_outcome_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        /* An outcome is not told before it is on stable storage. */
        if (error) {
                warn(job, error);
                job->retry = g_timeout_add(RETRY_MILLISECONDS, on_retry, job);
        }
        job_step_end(job);
}

void record_outcome_run(Job *job)
{
        job_write(job, JOURNAL_SYNCED, on_outcome_recorded);
}

StepState tidy_state(const Job *job)
{
        if (job->tidied || job->gone)
                return STEP_DONE;
        return connected(job) ? STEP_DUE : STEP_WAIT;
}

StepState tell_state(const Job *job)
{
        if (job->concluded)
                return STEP_DONE;
        return job->host->may_tell ? STEP_DUE : STEP_WAIT;
}

static void on_told_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        if (!job->host) {
                /* The domain was taken away meanwhile: told when the job is adopted. */
                job->record.told = FALSE;
                job_step_end(job);
                return;
        }
        if (error)
                warn(job, error);
        job->concluded = TRUE;
        job_update_state(job);
        job_changed(job, JOB_CHANGED_RESULT | JOB_CHANGED_END |
                                 (job->error_code >= 0 || job->error_message ? JOB_CHANGED_ERROR : 0));
        job->host->observer->concluded(job, job->host->observer_data);
        job_step_end(job);
}

/* Written first, then sent: who hears of an end may well stop the service that very moment, and its next
 * start must not tell it again. */
void tell_run(Job *job)
{
        job->record.told = TRUE;
        job_write(job, JOURNAL_RENAMED, on_told_recorded);
}
