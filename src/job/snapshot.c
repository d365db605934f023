/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/snapshot.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "job/life.h"
#include "job/nodes.h"
#include "job/plan.h"
#include "job/target.h"
#include "job/two-phase.h"

/* From the record on there is no way back. */
static gboolean overlay_is_recorded(const Job *job)
{
        return job->written.disk_is == DISK_IS_TARGET;
}

static gboolean check(const Job *job, GError **error)
{
        if (*job->target == '/')
                return target_check(job, error);
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "overlay '%s' is no absolute path",
                    job->target);
        return FALSE;
}

/* ---- plan ---- */

static void on_found(Job *job, const Chain *chain, int top, int base)
{
        const Layer *active = chain_layer(chain, 0);

        (void) top;
        (void) base;
        if (active->read_only) {
                job_start_failed_new(job, BJ_ERROR_INVALID_STATE, "disk '%s' is read-only", job->disk);
                return;
        }
        if (chain->layers->len == CHAIN_DEPTH_MAX) {
                job_start_failed_new(job, BJ_ERROR_LIMIT_EXCEEDED, "the chain of '%s' has %d layers already",
                                     job->disk, CHAIN_DEPTH_MAX);
                return;
        }
        if (!plan_take(job, chain, 0, 0))
                return;
        job->below = g_strdup(active->source);
        job->end_node = g_strdup(active->node);
        target_plan(job, chain, active, active);
}

static void plan_run(Job *job)
{
        plan_find(job, on_found);
}

/* ---- check-overlay: when the machine is started the next time, the chain is found by its header ---- */

static StepState check_overlay_state(const Job *job)
{
        return job->image && job->image->reuse && !job->image->header_checked ? STEP_DUE : STEP_DONE;
}

static void on_overlay_checked(Job *job, const GError *error)
{
        job->image->header_checked = TRUE;
        if (error)
                job_start_failed(job, error);
        else
                job_step_end(job);
}

static void check_overlay_run(Job *job)
{
        const GraphNode *overlay = graph_node(job->host->graph, job->target_node);

        files_check_backing(job, job->target, overlay ? overlay->backing : "", job->source,
                            on_overlay_checked);
}

static StepState begin_snapshot_state(const Job *job)
{
        return overlay_is_recorded(job) ? STEP_DONE : begin_state(job);
}

static StepState record_overlay_state(const Job *job)
{
        return overlay_is_recorded(job) ? STEP_DONE : STEP_DUE;
}

static void record_overlay_run(Job *job)
{
        job->record.disk_is = DISK_IS_TARGET;
        job_write(job, JOURNAL_SYNCED, start_recorded);
}

/* ---- snapshot: QEMU's command ---- */

static StepState snapshot_state(const Job *job)
{
        if (job->gone || job->record.result != RESULT_NONE)
                return STEP_DONE;
        if (!job_is_connected(job))
                return STEP_WAIT;
        return job->checked || two_phase_is_in_graph(job) ? STEP_DONE : STEP_DUE;
}

static void on_snapshot(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        job->checked = error == NULL;
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU))
                job_start_failed_new(job, bj_error_of_qemu(error->message), "snapshot of '%s': %s",
                                     job->disk, error->message);
        else
                job_step_end(job);
}

static void snapshot_run(Job *job)
{
        job_execute(job, "blockdev-snapshot",
                    json_make("s:node", job->source_node, "s:overlay", job->target_node, NULL), on_snapshot);
}

/* ---- look: the outcome, from QEMU's graph; by the record where QEMU is gone ---- */

static void on_looked(Job *job, const GError *error)
{
        if (job->gone)
                set_result(job, RESULT_PIVOTED);
        else if (!error && two_phase_is_in_graph(job))
                set_result(job, RESULT_COMPLETED);
        else if (!error) {
                job_start_failed_new(job, BJ_ERROR_FAILED, "'%s' did not become the disk", job->target);
                return;
        }
        job_step_end(job);
}

static void look_run(Job *job)
{
        look_command(job, on_looked);
}

/* ---- tidy: nobody writes into the layer below any more ---- */

static void tidy(Job *job)
{
        nodes_reopen_read_only(job, job->source_node);
}

static void answer_run(Job *job)
{
        g_autoptr(GError) error = NULL;

        if (job->record.result == RESULT_PIVOTED)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_DISCONNECTED,
                            "QEMU went away after the snapshot was recorded: '%s' is the disk", job->target);
        job_drop(job, error);
}

static const JobStep steps[] = {
        { "plan", plan_state, plan_run },
        { "record-intent", record_intent_state, record_intent_run },
        { "begin", begin_snapshot_state, begin_run },
        { "create-file", create_file_state, create_file_run },
        { "open-file", open_file_state, open_file_run },
        { "create-format", create_format_state, create_format_run },
        { "open-format", open_format_state, open_format_run },
        { "check-target", check_target_state, check_target_run },
        { "check-overlay", check_overlay_state, check_overlay_run },
        { "sync-target", sync_target_state, sync_target_run },
        { "record-target", record_overlay_state, record_overlay_run },
        { "snapshot", snapshot_state, snapshot_run },
        { "look", look_state, look_run },
        { "record-outcome", record_outcome_state, record_outcome_run },
        { "tidy", nodes_tidy_state, nodes_tidy_run },
        { "record-domain", record_domain_state, record_domain_run },
        { "close", close_state, close_run },
        { "answer", give_up_state, answer_run },
        { NULL, NULL, NULL },
};

/* ---- undo: the record before the file that it names ---- */

static StepState record_source_state(const Job *job)
{
        return overlay_is_recorded(job) ? STEP_DUE : STEP_DONE;
}

static void on_source_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        if (error) {
                /* Then the overlay stays: it shows what the layer below shows. */
                job_warn(job, error);
                job->deleted = TRUE;
                job->written.disk_is = DISK_IS_SOURCE;
        }
        job_step_end(job);
}

static void record_source_run(Job *job)
{
        job->record.disk_is = DISK_IS_SOURCE;
        job_write(job, JOURNAL_SYNCED, on_source_recorded);
}

static const JobStep undo[] = {
        { "record-source", record_source_state, record_source_run },
        { "remove-target", remove_target_state, remove_target_run },
        { "remove-file", remove_file_state, remove_file_run },
        { "close", close_state, close_run },
        { "give-up", give_up_state, give_up_run },
        { NULL, NULL, NULL },
};

const JobDriver snapshot_driver = {
        .name = "snapshot",
        .type = "snapshot",
        .kind = "snapshot",
        .silent = TRUE,
        .adds_layer = TRUE,
        .steps = steps,
        .undo = undo,
        .check = check,
        .is_in_graph = two_phase_is_in_graph,
        .tidy = tidy,
};
