/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/single-phase.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "job/nodes.h"
#include "job/stages.h"

StepState ask_cancel_state(const Job *job)
{
        if (job_is_past_ready(job) || job->record.decision != DECISION_CANCEL ||
            job->asked == DECISION_CANCEL)
                return STEP_DONE;
        return job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

void ask_cancel_run(Job *job)
{
        job->asked = DECISION_CANCEL;
        ask_command(job, "job-cancel", json_make("s:id", job->qemu_id, NULL));
}

StepState at_pending_state(const Job *job, gboolean done)
{
        if (done || !job_is_pending(job) || job->refusal || job->record.decision == DECISION_CANCEL)
                return STEP_DONE;
        return job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

static void note_refusal(Job *job, const GError *error)
{
        if (!error || job->refusal)
                return;
        job->refusal = g_error_copy(error);
}

StepState check_pending_state(const Job *job)
{
        return at_pending_state(job, job->checked || !job->header_node);
}

static void on_probed(Job *job, const GError *error)
{
        if (!g_error_matches(error, BJ_ERROR, BJ_ERROR_DISCONNECTED)) {
                note_refusal(job, error);
                job->checked = TRUE;
        }
        job_step_end(job);
}

void check_pending_run(Job *job)
{
        nodes_probe(job, job->header_node, on_probed);
}

StepState check_users_state(const Job *job)
{
        return at_pending_state(job, job->users_checked || options_flag(job->options, "force"));
}

static void on_users_checked(Job *job, const GError *error)
{
        note_refusal(job, error);
        job->users_checked = TRUE;
        job_step_end(job);
}

void check_users_run(Job *job)
{
        life_check_users(job, on_users_checked);
}

StepState flush_state(const Job *job)
{
        return at_pending_state(job, job->flushed);
}

static void on_flushed(Job *job, const GError *error)
{
        if (!g_error_matches(error, BJ_ERROR, BJ_ERROR_DISCONNECTED)) {
                note_refusal(job, error);
                job->flushed = TRUE;
        }
        job_step_end(job);
}

void flush_run(Job *job)
{
        nodes_flush(job, job->target_node, on_flushed);
}

void finalize_single_run(Job *job)
{
        finalize_command(job, job->flushed && !job->refusal && job->record.decision != DECISION_CANCEL);
}

gboolean single_phase_is_in_graph(const Job *job)
{
        GraphNode *header = graph_node(job->host->graph, job->header_node);
        GraphNode *below = header ? graph_skip_filters(graph_child(header, "backing")) : NULL;
        GraphNode *end = graph_skip_filters(graph_node(job->host->graph, job->end_node));

        return header && below == end;
}

static void set_lost(Job *job)
{
        set_result(job, RESULT_LOST);
        job_set_error(job, BJ_ERROR_DISCONNECTED,
                      "QEMU went away before the job could conclude: '%s' is still the disk", job->active);
}

/* Where QEMU keeps the job, or an event told of its end, QEMU's word counts; else the graph. */
static void set_result_by_qemu(Job *job)
{
        gboolean told = job->status != STATUS_ABSENT || job->end_seen;
        gboolean done = told ? !job->qemu_error : job->driver->is_in_graph && job->driver->is_in_graph(job);

        if (done && stages_are_left(job))
                job->record.stage_over = TRUE;
        else if (done)
                set_result(job, RESULT_COMPLETED);
        else if (job->refusal)
                set_result(job, RESULT_FAILED);
        else if (job_was_cancelled(job) || job->record.decision == DECISION_CANCEL)
                set_result(job, RESULT_CANCELLED);
        else if (job->qemu_error)
                set_result_failed(job);
        else {
                set_result(job, RESULT_FAILED);
                job_set_error(job, BJ_ERROR_FAILED,
                              "the job ended in QEMU while nobody looked, without having done its work: "
                              "'%s' is still "
                              "the disk",
                              job->active);
        }
}

static void on_looked(Job *job, const GError *error)
{
        if (job->gone)
                set_lost(job);
        else if (!error && job_has_ended(job))
                set_result_by_qemu(job);
        job_step_end(job);
}

void look_single_run(Job *job)
{
        look_command(job, on_looked);
}

StepState flush_outcome_state(const Job *job)
{
        gboolean done = job->record.result == RESULT_COMPLETED || job->record.stage_over;

        if (!done || job_outcome_is_written(job) || job->settled)
                return STEP_DONE;
        return job->gone || job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

static void on_outcome_flushed(Job *job, const GError *error)
{
        if (!g_error_matches(error, BJ_ERROR, BJ_ERROR_DISCONNECTED))
                job->settled = TRUE;
        if (job->settled && error) {
                set_result(job, RESULT_FAILED);
                job_set_error(job, error->code, "the result may not be on stable storage: %s",
                              error->message);
        }
        job_step_end(job);
}

void flush_outcome_run(Job *job)
{
        const char *node = job->header_node ? job->header_node : job->target_node;

        if (job->gone) {
                set_lost(job);
                job_step_end(job);
        } else if (graph_node(job->host->graph, node))
                nodes_flush(job, node, on_outcome_flushed);
        else
                on_outcome_flushed(job, NULL);
}
