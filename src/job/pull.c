/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/pull.h"

#include "base/error.h"
#include "base/json.h"
#include "job/files.h"
#include "job/nodes.h"
#include "job/plan.h"
#include "job/single-phase.h"

static gboolean check(const Job *job, GError **error)
{
        static const char *const of_base[] = { "relative", "backing" };

        for (guint i = 0; i < G_N_ELEMENTS(of_base); i++) {
                if (!options_given(job->options, of_base[i]) || options_text(job->options, "base"))
                        continue;
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "option '%s' needs 'base': without it no backing file is left", of_base[i]);
                return FALSE;
        }
        return plan_check_backing(job, error);
}

/* ---- plan: which layer is filled, and down to where ---- */

static void on_backing_planned(Job *job, const GError *error)
{
        if (error)
                job_start_failed(job, error);
        else
                plan_header(job, job->header_node);
}

static void on_examined(Job *job, const GError *error)
{
        if (!error && *job->end_node)
                plan_backing(job, TRUE, on_backing_planned);
        else
                on_backing_planned(job, error);
}

static void on_found(Job *job, const Chain *chain, int top_depth, int base_depth)
{
        g_autoptr(GPtrArray) changed = g_ptr_array_new_with_free_func(g_free);
        guint filled = top_depth < 0 ? 0 : (guint) top_depth;
        const Layer *top = chain_layer(chain, filled), *below = chain_layer(chain, filled + 1);
        const Layer *base = base_depth < 0 ? NULL : chain_layer(chain, (guint) base_depth);

        if (!below) {
                job_start_failed_new(
                        job, BJ_ERROR_INVALID_ARGUMENT,
                        "'%s' has no backing image to pull from: it is the lowest layer of '%s'",
                        top->source, job->disk);
                return;
        }
        if (base && (guint) base_depth <= filled) {
                job_start_failed_new(job, BJ_ERROR_INVALID_ARGUMENT,
                                     "base '%s' is not below '%s', which is to be filled", base->source,
                                     top->source);
                return;
        }
        if ((base && !plan_format_can_be_recorded(job, base)) ||
            !plan_take(job, chain, filled + 1, base ? (guint) base_depth : chain->layers->len - 1))
                return;
        job->header_node = g_strdup(top->node);
        job->end_node = g_strdup(base ? base->node : "");
        job->target = g_strdup(top->source);
        job->target_format = g_strdup(top->format);
        /* It may be a filter, which goes as well. */
        g_free(job->source_node);
        job->source_node = g_strdup(graph_child(graph_node(job->host->graph, top->node), "backing")->name);
        job->target_was_read_only = top->read_only;
        g_ptr_array_add(changed, g_strdup(top->source));
        files_examine(job, g_ptr_array_new(), g_steal_pointer(&changed), plan_uses(job), on_examined);
}

static void plan_run(Job *job)
{
        plan_find(job, on_found);
}

/* ---- start: QEMU's command ---- */

static void start_run(Job *job)
{
        JsonObject *arguments = start_arguments(job);

        json_object_set_string_member(arguments, "device", job->target_node);
        if (*job->end_node) {
                json_object_set_string_member(arguments, "base-node", job->end_node);
                plan_set_backing(job, arguments);
        }
        start_text(job, arguments, "on-error");
        start_command(job, "block-stream", arguments);
}

static void leave(Job *job)
{
        if (job->driver->is_in_graph(job))
                nodes_leave_source(job);
}

static void tidy(Job *job)
{
        if (job->target_was_read_only)
                nodes_reopen_read_only(job, job->target_node);
}

static const JobStep steps[] = {
        { "plan", plan_state, plan_run },
        { "record-intent", record_intent_state, record_intent_run },
        { "begin", begin_state, begin_run },
        { "start", start_state, start_run },
        { "record-accepted", record_accepted_state, record_accepted_run },
        { "announce", announce_state, announce_run },
        { "record-decision", record_decision_state, record_decision_run },
        { "ask", ask_cancel_state, ask_cancel_run },
        { "reach-pending", reach_pending_state, NULL },
        { "check-pending", check_pending_state, check_pending_run },
        { "check-users", check_users_state, check_users_run },
        { "flush", flush_state, flush_run },
        { "finalize", finalize_state, finalize_single_run },
        { "conclude", conclude_state, NULL },
        { "look", look_state, look_single_run },
        { "flush-outcome", flush_outcome_state, flush_outcome_run },
        { "compare-images", compare_images_state, compare_images_run },
        { "record-outcome", record_outcome_state, record_outcome_run },
        { "tidy", nodes_tidy_state, nodes_tidy_run },
        { "record-domain", record_domain_state, record_domain_run },
        { "close", close_state, close_run },
        { "tell", tell_state, tell_run },
        { NULL, NULL, NULL },
};

const JobDriver pull_driver = {
        .name = "pull",
        .type = "pull",
        .kind = "pull",
        .dismisses_itself = TRUE,
        .keeps_contents = TRUE,
        .steps = steps,
        .check = check,
        .is_in_graph = single_phase_is_in_graph,
        .leave = leave,
        .tidy = tidy,
};
