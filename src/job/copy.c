/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/copy.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "job/nodes.h"
#include "job/plan.h"
#include "job/target.h"
#include "job/two-phase.h"

static gboolean check(const Job *job, GError **error)
{
        if (options_flag(job->options, "relative") && !options_flag(job->options, "shallow")) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "option 'relative' is for a shallow copy: a full one has no backing file");
                return FALSE;
        }
        return target_check(job, error);
}

/* ---- plan: the active layer, or all of the chain, into a node of ours ---- */

static void on_found(Job *job, const Chain *chain, int top, int base)
{
        const Layer *active = chain_layer(chain, 0), *backing = NULL;
        const GraphNode *node;

        (void) top;
        (void) base;
        /* A copy of the only layer is a copy of everything. */
        if (options_flag(job->options, "shallow"))
                backing = chain_layer(chain, 1);
        if (!plan_take(job, chain, 0, 0))
                return;
        node = graph_node(job->host->graph, active->node);
        job->end_node = g_strdup(backing ? graph_child(node, "backing")->name : "");
        job->below = g_strdup(backing ? backing->source : "");
        g_free(job->mode);
        job->mode = g_strdup(options_text(job->options, "mode") ? options_text(job->options, "mode")
                                                                : job->driver->mode);
        target_plan(job, chain, active, backing);
}

static void plan_run(Job *job)
{
        plan_find(job, on_found);
}

/* ---- check-chain: a prepared target stands on what its header names, be it the old chain or not ---- */

static StepState check_chain_state(const Job *job)
{
        return job->image && job->image->reuse && *job->end_node && !job->image->header_checked ? STEP_DUE
                                                                                                : STEP_DONE;
}

static char *chain_node(const Job *job)
{
        return g_strdup_printf("bj-%s-b", job->id);
}

static gboolean has_chain_of_its_own(const Job *job)
{
        g_autofree char *name = chain_node(job);

        return strcmp(job->end_node, name) == 0;
}

/* `error`: it is not the old chain. */
static void on_chain_checked(Job *job, const GError *error)
{
        const GraphNode *target = graph_node(job->host->graph, job->target_node);
        gboolean known = target && (strcmp(target->backing_format, "qcow2") == 0 ||
                                    strcmp(target->backing_format, "raw") == 0);

        job->image->header_checked = TRUE;
        if (!error) {
                job_step_end(job);
                return;
        }
        if (!target || !*target->backing) {
                job_start_failed_new(
                        job, BJ_ERROR_INVALID_ARGUMENT,
                        "the header of target '%s' names no backing file, and a shallow copy needs one",
                        job->target);
                return;
        }
        if (!known || *target->full_backing != '/') {
                job_start_failed_new(
                        job, BJ_ERROR_INVALID_ARGUMENT,
                        "the header of target '%s' names '%s' of the format '%s' as its backing file: that "
                        "has to be a local file with its format, 'qcow2' or 'raw'",
                        job->target, target->backing, target->backing_format);
                return;
        }
        g_free(job->end_node);
        job->end_node = chain_node(job);
        g_free(job->below);
        job->below = g_strdup("");
        job->backing = g_strdup(target->full_backing);
        job->backing_format = g_strdup(target->backing_format);
        /* Before QEMU has the job, since it goes on with it whatever becomes of the service. */
        job_write(job, JOURNAL_SYNCED, start_recorded);
}

static void check_chain_run(Job *job)
{
        const GraphNode *target = graph_node(job->host->graph, job->target_node);

        files_check_backing(job, job->target, target ? target->backing : "", job->below, on_chain_checked);
}

/* ---- start: QEMU's command ---- */

static void start_run(Job *job)
{
        JsonObject *arguments = start_arguments(job);

        json_object_set_string_member(arguments, "device", job->root_node);
        json_object_set_string_member(arguments, "target", job->target_node);
        json_object_set_string_member(arguments, "sync", *job->end_node ? "top" : "full");
        json_object_set_string_member(arguments, "copy-mode", job->mode);
        /* What stands above the disk, a throttle say, stays there. */
        if (strcmp(job->root_node, job->source_node) != 0)
                json_object_set_string_member(arguments, "replaces", job->source_node);
        start_number(job, arguments, "granularity", "granularity");
        start_number(job, arguments, "buf-size", "buffer");
        start_text(job, arguments, "on-source-error");
        start_text(job, arguments, "on-target-error");
        start_command(job, "blockdev-mirror", arguments);
}

/* ---- attach-chain: as late as can be, so that the chain may be filled from elsewhere until then ---- */

static StepState attach_chain_state(const Job *job)
{
        if (job_is_past_ready(job) || !*job->end_node || job->record.decision != DECISION_PIVOT ||
            job->checked)
                return STEP_DONE;
        return job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

static void refuse_attach(Job *job, const GError *error)
{
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU))
                job_refuse(job, error);
        job_step_end(job);
}

static void on_attached(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        job->checked = error == NULL;
        refuse_attach(job, error);
}

/* blockdev-snapshot, which would do as well, refuses a node that is a backing file already. */
static void attach(Job *job)
{
        const GraphNode *target = graph_node(job->host->graph, job->target_node);
        JsonObject *options = target_options(job, target && target->direct);

        json_object_set_string_member(options, "backing", job->end_node);
        job_execute(job, "blockdev-reopen", nodes_reopen_options(options), on_attached);
}

static void on_chain_open(JsonNode *result, const GError *error, gpointer data)
{
        (void) result;
        if (error)
                refuse_attach(data, error);
        else
                attach(data);
}

/* What is below the first file of a chain of its own is found by QEMU, by the headers. */
static void open_chain(Job *job)
{
        JsonObject *file = json_make("s:driver", "file", "s:filename", job->backing, "b:read-only", TRUE,
                                     "b:auto-read-only", TRUE, NULL);

        job_execute(job, "blockdev-add",
                    json_make("s:driver", job->backing_format, "s:node-name", job->end_node, "b:read-only",
                              TRUE, "o:file", file, NULL),
                    on_chain_open);
}

static void on_attach_looked(Job *job, const GError *error)
{
        const GraphNode *target = error ? NULL : graph_node(job->host->graph, job->target_node);

        if (!target || graph_child(target, "backing")) {
                job->checked = target != NULL;
                job_step_end(job);
        } else if (has_chain_of_its_own(job) && !graph_node(job->host->graph, job->end_node))
                open_chain(job);
        else
                attach(job);
}

static void attach_chain_run(Job *job)
{
        job->host->look(job->host, job, on_attach_looked);
}

/* ---- tidy: one of the two is nobody's any more ---- */

static void leave(Job *job)
{
        if (job->record.result == RESULT_COMPLETED)
                nodes_leave_source(job);
        else {
                target_leave(job);
                if (has_chain_of_its_own(job))
                        nodes_leave(job, job->end_node);
        }
}

static const JobStep steps[] = {
        { "plan", plan_state, plan_run },
        { "record-intent", record_intent_state, record_intent_run },
        { "begin", begin_state, begin_run },
        { "pass-descriptor", pass_descriptor_state, pass_descriptor_run },
        { "create-file", create_file_state, create_file_run },
        { "open-file", open_file_state, open_file_run },
        { "create-format", create_format_state, create_format_run },
        { "open-format", open_format_state, open_format_run },
        { "check-target", check_target_state, check_target_run },
        { "check-chain", check_chain_state, check_chain_run },
        { "sync-target", sync_target_state, sync_target_run },
        { "start", start_state, start_run },
        { "record-accepted", record_accepted_state, record_accepted_run },
        { "announce", announce_state, announce_run },
        { "say-ready", say_ready_state, say_ready_run },
        { "decide", decide_state, decide_run },
        { "record-decision", record_decision_state, record_decision_run },
        { "check-users", check_users_before_pivot_state, check_users_before_pivot_run },
        { "attach-chain", attach_chain_state, attach_chain_run },
        { "ask", ask_state, ask_run },
        { "reach-pending", reach_pending_state, NULL },
        { "record-target", record_target_state, record_target_run },
        { "finalize", finalize_state, finalize_pivot_run },
        { "conclude", conclude_state, NULL },
        { "look", look_state, look_two_phase_run },
        { "compare-images", compare_images_state, compare_images_run },
        { "record-outcome", record_outcome_state, record_outcome_run },
        { "tidy", nodes_tidy_state, nodes_tidy_run },
        { "record-domain", record_domain_state, record_domain_run },
        { "close", close_state, close_run },
        { "tell", tell_state, tell_run },
        { NULL, NULL, NULL },
};

const JobDriver copy_driver = {
        .name = "copy",
        .type = "copy",
        .kind = "copy",
        .mode = "background",
        .two_phase = TRUE,
        .automatic = "keep",
        .adds_layer = TRUE,
        .steps = steps,
        .undo = target_undo,
        .check = check,
        .is_in_graph = two_phase_is_in_graph,
        .leave = leave,
};
