/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/two-phase.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"

StepState say_ready_state(const Job *job)
{
        if (job->ready_time || !job_is_connected(job) || job->record.decision == DECISION_CANCEL ||
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
        job_step_end(job);
}

StepState decide_state(const Job *job)
{
        if (job->record.decision != DECISION_NONE || job_is_past_ready(job))
                return STEP_DONE;
        return job_is_ready(job) && job_automatic(job) != DECISION_NONE && !job->refusal ? STEP_DUE
                                                                                         : STEP_WAIT;
}

void decide_run(Job *job)
{
        job->record.decision = job_automatic(job);
        job_step_end(job);
}

StepState check_users_before_pivot_state(const Job *job)
{
        if (job->record.decision != DECISION_PIVOT || job->users_checked || job_is_past_ready(job) ||
            job->asked != DECISION_NONE || options_flag(job->options, "force"))
                return STEP_DONE;
        return job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

static void on_users_checked(Job *job, const GError *error)
{
        if (!error)
                job->users_checked = TRUE;
        else if (job->record.decision == DECISION_PIVOT)
                job_refuse(job, error);
        job_step_end(job);
}

void check_users_before_pivot_run(Job *job)
{
        life_check_users(job, on_users_checked);
}

StepState ask_state(const Job *job)
{
        if (job_is_past_ready(job) || job->record.decision == DECISION_NONE)
                return STEP_DONE;
        if (!job_is_connected(job))
                return STEP_WAIT;
        /* What was asked to complete comes to PENDING by itself and can still be kept there. */
        if (job->asked == job->record.decision || job->asked == DECISION_CANCEL ||
            (job->asked == DECISION_PIVOT && job->record.decision == DECISION_KEEP))
                return STEP_DONE;
        return STEP_DUE;
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
                ask_command(job, "job-complete", json_make("s:id", job->qemu_id, NULL));
        else if (decision == DECISION_KEEP)
                ask_command(job, "block-job-cancel", json_make("s:device", job->qemu_id, NULL));
        else
                ask_command(job, "job-cancel", json_make("s:id", job->qemu_id, NULL));
}

StepState record_target_state(const Job *job)
{
        if (job_has_ended(job) || job->status != STATUS_PENDING || job->written.disk_is != DISK_IS_OPEN)
                return STEP_DONE;
        /* Without a connection somebody may have ended the job meanwhile, and the guest may be writing. */
        return job_is_connected(job) ? STEP_DUE : STEP_WAIT;
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
                job_warn(job, error);
                job->written.disk_is = DISK_IS_SOURCE;
        }
        job_step_end(job);
}

void record_target_run(Job *job)
{
        gboolean pivot = job->record.decision == DECISION_PIVOT && job->record.disk_is != DISK_IS_SOURCE;

        job->record.disk_is = pivot ? DISK_IS_TARGET : DISK_IS_SOURCE;
        job_write(job, pivot ? JOURNAL_SYNCED : JOURNAL_LATE, on_target_recorded);
}

void finalize_pivot_run(Job *job)
{
        gboolean pivot = job->written.disk_is == DISK_IS_TARGET;

        finalize_command(job, pivot);
        /* Said behind the command: until QEMU has it, the guest is held. */
        if (pivot)
                job->host->observer->decided(job, job->host->observer_data);
}

gboolean two_phase_is_in_graph(const Job *job)
{
        const GraphRoot *root = graph_root(job->host->graph, job->device);
        GraphNode *active = root ? graph_skip_filters(root->node) : NULL;

        /* A device that was unplugged since shows nothing; finalizing without an error is then the proof. */
        if (!active)
                return job->written.disk_is == DISK_IS_TARGET && !job->qemu_error;
        return strcmp(active->name, job->target_node) == 0;
}

static void set_result_by_record(Job *job)
{
        /* What QEMU said last counts for more: after an error the guest went on with the source. */
        if (job->written.disk_is == DISK_IS_TARGET && !job->qemu_error) {
                set_result(job, RESULT_PIVOTED);
                job_set_error(job, -1, "QEMU went away after the pivot was recorded: '%s' is the disk",
                              job->target);
        } else {
                job->record.disk_is = DISK_IS_SOURCE;
                set_result(job, RESULT_LOST);
                job_set_error(job, BJ_ERROR_DISCONNECTED,
                              "QEMU went away before the job could conclude: '%s' is still the disk",
                              job->source);
        }
}

static void set_result_by_graph(Job *job)
{
        if (job->driver->is_in_graph(job))
                set_result(job, RESULT_COMPLETED);
        else if (job->written.disk_is == DISK_IS_SOURCE && job->record.decision != DECISION_CANCEL)
                set_result(job, RESULT_KEPT);
        else if (job_was_cancelled(job) || job->record.decision == DECISION_CANCEL)
                set_result(job, RESULT_CANCELLED);
        else if (job->qemu_error)
                set_result_failed(job);
        else if (job->status == STATUS_ABSENT) {
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
        else if (!error && job_has_ended(job))
                set_result_by_graph(job);
        job_step_end(job);
}

void look_two_phase_run(Job *job)
{
        look_command(job, on_looked);
}
