/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/commit.h"

#include <string.h>

#include <gio/gio.h>

#include "base/error.h"
#include "base/json.h"
#include "job/files.h"
#include "job/nodes.h"
#include "job/plan.h"
#include "job/room.h"
#include "job/single-phase.h"
#include "job/stages.h"
#include "job/two-phase.h"

/* Of a commit below the active layer only: nobody's header is rewritten by a pivot. */
static const char *const of_header[] = { "relative", "backing", "keep-top" };

static gboolean refuse_pair(const Options *options, const char *one, const char *other, GError **error)
{
        if (!options_given(options, one) || !options_given(options, other))
                return FALSE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "options '%s' and '%s' exclude each other",
                    one, other);
        return TRUE;
}

static void set_needs_active(const Job *job, GError **error)
{
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                    "commit of '%s' active layer requires the active option", job->disk);
}

static gboolean check(const Job *job, GError **error)
{
        const Options *options = job->options;

        if (!options_text(options, "top") && !options_flag(options, "active") &&
            !options_text(options, "auto")) {
                set_needs_active(job, error);
                return FALSE;
        }
        return !refuse_pair(options, "shallow", "base", error) &&
               !refuse_pair(options, "keep-top", "delete", error) &&
               !refuse_pair(options, "keep-top", "restartable", error) && plan_check_backing(job, error);
}

/* ---- plan: which node into which ---- */

/* Answers FALSE, and has failed the start, where the options do not go with the layer that `top` names. */
static gboolean check_top(Job *job, const Chain *chain, guint top)
{
        const Options *options = job->options;
        gboolean active = options_flag(options, "active"), automatic = options_text(options, "auto") != NULL;

        if (top > 0 && (active || automatic)) {
                job_start_failed_new(job, BJ_ERROR_INVALID_ARGUMENT,
                                     "option '%s': top '%s' is not the active layer of '%s'",
                                     active ? "active" : "auto", chain_layer(chain, top)->source, job->disk);
                return FALSE;
        }
        if (top == 0 && !active && !automatic) {
                g_autoptr(GError) error = NULL;
                set_needs_active(job, &error);
                job_start_failed(job, error);
                return FALSE;
        }
        for (guint i = 0; top == 0 && i < G_N_ELEMENTS(of_header); i++) {
                if (!options_given(options, of_header[i]))
                        continue;
                job_start_failed_new(
                        job, BJ_ERROR_INVALID_ARGUMENT,
                        "option '%s' is for a commit below the active layer: no header is rewritten "
                        "when '%s' itself is committed",
                        of_header[i], chain_layer(chain, 0)->source);
                return FALSE;
        }
        return TRUE;
}

static gboolean check_base(Job *job, const Chain *chain, guint top_depth, guint base_depth)
{
        const Layer *top = chain_layer(chain, top_depth), *base = chain_layer(chain, base_depth);
        const GraphNode *node;

        if (base_depth <= top_depth) {
                job_start_failed_new(
                        job, BJ_ERROR_INVALID_ARGUMENT, "base '%s' is not below top '%s' of '%s': %s",
                        base->source, top->source, job->disk,
                        base_depth == top_depth ? "name a layer below it" : "they are the wrong way round");
                return FALSE;
        }
        if (top->virtual_size < base->virtual_size) {
                job_start_failed_new(job, BJ_ERROR_INVALID_ARGUMENT,
                                     "'%s' (%" G_GUINT64_FORMAT
                                     " bytes) is smaller than base '%s' (%" G_GUINT64_FORMAT
                                     " bytes): the guest's disk would change its size; resize it first",
                                     top->source, top->virtual_size, base->source, base->virtual_size);
                return FALSE;
        }
        /* QEMU makes base as large as top; a block device that is the image itself cannot grow. */
        node = graph_node(job->host->graph, base->node);
        if (node && graph_child(node, "file"))
                node = strcmp(node->driver, "raw") == 0 ? graph_child(node, "file") : NULL;
        if (node && strcmp(node->driver, "host_device") == 0 && base->virtual_size < top->virtual_size) {
                job_start_failed_new(job, BJ_ERROR_INVALID_ARGUMENT,
                                     "base '%s' is a block device of %" G_GUINT64_FORMAT
                                     " bytes and cannot become as large as '%s' (%" G_GUINT64_FORMAT
                                     " bytes)",
                                     base->source, base->virtual_size, top->source, top->virtual_size);
                return FALSE;
        }
        return TRUE;
}

/* Each is committed by itself into a base that has grown with the one before. */
static gboolean check_layers(Job *job, const Chain *chain, guint top, guint base)
{
        for (guint i = top + 1; i < base; i++)
                if (!check_base(job, chain, i, i + 1))
                        return FALSE;
        return check_base(job, chain, top, top + 1);
}

static void on_backing_planned(Job *job, const GError *error)
{
        if (error)
                job_start_failed(job, error);
        else
                plan_header(job, job->end_node);
}

static void on_room_checked(Job *job, const GError *error)
{
        if (error)
                job_start_failed(job, error);
        else if (job->header_node)
                plan_backing(job, job->stages == 0, on_backing_planned);
        else {
                job->target_node = g_strdup(job->end_node);
                job_step_end(job);
        }
}

static void on_overlays_checked(Job *job, const GError *error)
{
        if (error)
                job_start_failed(job, error);
        else
                room_check(job, job->target, on_room_checked);
}

static void on_examined(Job *job, const GError *error)
{
        if (error)
                job_start_failed(job, error);
        else
                plan_check_overlays(job, files_names(job->images), on_overlays_checked);
}

/* Base is changed under everybody who stands on it, and what was above it up to top is no longer valid; the
 * layers from `stale` down to base can be deleted when that is done. */
static void examine(Job *job, const Chain *chain, guint top, guint stale, guint base, JobLooked examined)
{
        GPtrArray *unused = g_ptr_array_new_with_free_func(g_free);
        GPtrArray *changed = g_ptr_array_new_with_free_func(g_free);

        for (guint i = top; i <= base; i++) {
                if (i >= stale && i < base)
                        g_ptr_array_add(unused, g_strdup(chain_layer(chain, i)->source));
                g_ptr_array_add(changed, g_strdup(chain_layer(chain, i)->source));
        }
        files_examine(job, unused, changed, plan_uses(job), examined);
}

/* The nodes of a commit of the layers from `top` down to `base`. */
static void take(Job *job, const Chain *chain, guint top, guint base)
{
        const Layer *header = top > 0 ? chain_layer(chain, top - 1) : NULL;

        g_free(job->header_node), job->header_node = g_strdup(header ? header->node : NULL);
        g_free(job->source_node);
        /* A filter that stands between the two goes as well: with the layer below it as top QEMU would not
         * rewrite the header. */
        job->source_node =
                g_strdup(header ? graph_child(graph_node(job->host->graph, header->node), "backing")->name
                                : chain_layer(chain, top)->node);
        g_free(job->end_node), job->end_node = g_strdup(chain_layer(chain, base)->node);
        if (!header)
                job->below = g_strdup(chain_layer(chain, base)->source);
}

typedef struct {
        Job *job;
        gboolean last;
        JobLooked taken;
} Taking;

static void taking_end(Job *job, const GError *error)
{
        g_autofree Taking *taking = g_steal_pointer(&job->plan);

        taking->taken(job, error);
        job_unref(taking->job);
}

static void on_layer_backing_planned(Job *job, const GError *error)
{
        if (error)
                taking_end(job, error);
        else
                plan_check_header(job, taking_end);
}

static void on_layer_overlays_checked(Job *job, const GError *error)
{
        const Taking *taking = job->plan;

        if (error || !job->header_node)
                taking_end(job, error);
        else
                /* A layer that is to be merged itself is not meant by the option `backing`. */
                plan_backing(job, taking->last, on_layer_backing_planned);
}

static void on_layer_examined(Job *job, const GError *error)
{
        if (error)
                taking_end(job, error);
        else
                plan_check_overlays(job, files_names(job->images), on_layer_overlays_checked);
}

void commit_take_layer(Job *job, const Chain *chain, guint layer, JobLooked taken)
{
        Taking *taking = g_new(Taking, 1);

        *taking = (Taking){ job_ref(job), strcmp(chain_layer(chain, layer)->node, job->range_node) == 0,
                            taken };
        job->plan = taking;
        g_free(job->root_node), job->root_node = g_strdup(chain->root);
        take(job, chain, layer, layer + 1);
        examine(job, chain, layer, layer, layer + 1, on_layer_examined);
}

static void on_found(Job *job, const Chain *chain, int top_depth, int base_depth)
{
        guint top = top_depth < 0 ? 0 : (guint) top_depth, base = chain->layers->len - 1, first;
        const Layer *below;

        if (!check_top(job, chain, top))
                return;
        if (!chain_layer(chain, top + 1)) {
                job_start_failed_new(job, BJ_ERROR_INVALID_ARGUMENT,
                                     "disk '%s' has no backing image to commit into: '%s' is its %s layer",
                                     job->disk, chain_layer(chain, top)->source, top ? "lowest" : "only");
                return;
        }
        if (base_depth >= 0)
                base = (guint) base_depth;
        else if (options_flag(job->options, "shallow"))
                base = top + 1;
        if (!check_base(job, chain, top, base))
                return;
        first = top;
        if (options_flag(job->options, "restartable") && base - top > 1) {
                if (!check_layers(job, chain, top, base))
                        return;
                stages_plan(job, chain, top, base);
                first = base - 1;
        }
        below = chain_layer(chain, base);
        if (top > 0) {
                job->driver = &commit_driver;
                g_free(job->mode);
                job->mode = g_strdup("");
        } else if (job->stages)
                job->driver = &restartable_active_commit_driver;
        if (first > 0 && !plan_format_can_be_recorded(job, below))
                return;
        if (!plan_take(job, chain, top, base))
                return;
        take(job, chain, first, base);
        job->target = g_strdup(below->source);
        job->target_format = g_strdup(below->format);
        job->target_was_read_only = below->read_only;
        room_estimate(job, chain, top, base, below->allocated);
        examine(job, chain, top, first, base, on_examined);
}

static void plan_run(Job *job)
{
        plan_find(job, on_found);
}

/* ---- start: QEMU's command ---- */

static void start_run(Job *job)
{
        JsonObject *arguments = start_arguments(job);

        json_object_set_string_member(arguments, "device", job->root_node);
        json_object_set_string_member(arguments, "top-node", job->source_node);
        json_object_set_string_member(arguments, "base-node", job->target_node);
        if (job->header_node)
                plan_set_backing(job, arguments);
        start_text(job, arguments, "on-error");
        start_command(job, "block-commit", arguments);
}

/* ---- tidy: as long as the merged layers are there, the next job on the disk is refused ---- */

static void leave(Job *job)
{
        if (job->driver->is_in_graph(job))
                nodes_leave_source(job);
}

static void tidy(Job *job)
{
        if (job->target_was_read_only && (job->record.result != RESULT_COMPLETED || !job->driver->two_phase))
                nodes_reopen_read_only(job, job->target_node);
}

/* ---- keep-top: another chain may stand on top, which is right as long as it finds what is below it ---- */

static StepState keep_top_state(const Job *job)
{
        return job->record.result == RESULT_COMPLETED && options_flag(job->options, "keep-top") &&
                               !job->deleted && !job->written.told
                       ? STEP_DUE
                       : STEP_DONE;
}

static void end_keep_top(Job *job, const char *why)
{
        job->deleted = TRUE;
        if (why) {
                job_set_error(job, -1, "'%s' was not made to name '%s' as its backing file: %s", job->source,
                              job->target, why);
                job->host->observer->warning(job, job->error_message, job->host->observer_data);
        }
        job_step_end(job);
}

static void on_rebased(GObject *source, GAsyncResult *result, gpointer data)
{
        g_autoptr(Job) job = data;
        g_autofree char *output = NULL;
        g_autoptr(GError) error = NULL;
        GSubprocess *process = G_SUBPROCESS(source);

        if (!g_subprocess_communicate_utf8_finish(process, result, &output, NULL, &error))
                end_keep_top(job, error->message);
        else if (!g_subprocess_get_successful(process))
                end_keep_top(job, output && *output ? g_strchomp(output) : "qemu-img failed");
        else
                end_keep_top(job, NULL);
}

static void on_related(Job *job, const GError *error)
{
        g_autoptr(GError) failure = NULL;
        g_autoptr(GSubprocess) process = NULL;

        if (error) {
                end_keep_top(job, error->message);
                return;
        }
        /* QEMU rewrites headers only of chains that it has open, and to that of a format which is not top's
         * own it gives a wrong format: change-backing-file, 7.2 to 11.1. */
        process = g_subprocess_new(G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_MERGE,
                                   &failure, "qemu-img", "rebase", "-u", "-f", job->source_format, "-b",
                                   job->backing, "-F", job->target_format, "--", job->source, NULL);
        if (process)
                g_subprocess_communicate_utf8_async(process, NULL, NULL, on_rebased, job_ref(job));
        else
                end_keep_top(job, failure->message);
}

static void keep_top_run(Job *job)
{
        if (job->left_behind)
                end_keep_top(job, job->left_behind);
        else if (options_flag(job->options, "relative"))
                files_relate(job, job->source, job->target, on_related);
        else
                on_related(job, NULL);
}

static const JobStep active_steps[] = {
        { "plan", plan_state, plan_run },
        { "record-intent", record_intent_state, record_intent_run },
        { "begin", begin_layer_state, begin_layer_run },
        { "start", start_state, start_run },
        { "record-accepted", record_accepted_state, record_accepted_run },
        { "announce", announce_state, announce_run },
        { "say-ready", say_ready_state, say_ready_run },
        { "decide", decide_state, decide_run },
        { "record-decision", record_decision_state, record_decision_run },
        { "check-users", check_users_before_pivot_state, check_users_before_pivot_run },
        { "ask", ask_state, ask_run },
        { "reach-pending", reach_pending_state, NULL },
        { "record-target", record_target_state, record_target_run },
        { "finalize", finalize_state, finalize_pivot_run },
        { "conclude", conclude_state, NULL },
        { "look", look_state, look_two_phase_run },
        { "compare-images", compare_images_state, compare_images_run },
        { "record-outcome", record_outcome_state, record_outcome_run },
        { "tidy", nodes_tidy_state, nodes_tidy_run },
        { "delete", delete_state, delete_run },
        { "record-domain", record_domain_state, record_domain_run },
        { "close", close_state, close_run },
        { "tell", tell_state, tell_run },
        { NULL, NULL, NULL },
};

/* Of a restartable one they begin again for each layer; the last of an active commit has its own. */
static const JobStep steps[] = {
        { "plan", plan_state, plan_run },
        { "record-intent", record_intent_state, record_intent_run },
        { "begin", begin_layer_state, begin_layer_run },
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
        { "delete", delete_state, delete_run },
        { "next-layer", next_layer_state, next_layer_run },
        { "keep-top", keep_top_state, keep_top_run },
        { "record-domain", record_domain_state, record_domain_run },
        { "close", close_state, close_run },
        { "tell", tell_state, tell_run },
        { NULL, NULL, NULL },
};

const JobDriver active_commit_driver = {
        .name = "active-commit",
        .type = "active-commit",
        .kind = "commit",
        .mode = "background",
        .two_phase = TRUE,
        .automatic = "pivot",
        .steps = active_steps,
        .check = check,
        .is_in_graph = two_phase_is_in_graph,
        .leave = leave,
        .tidy = tidy,
};

const JobDriver commit_driver = {
        .name = "commit",
        .type = "commit",
        .kind = "commit",
        .steps = steps,
        .check = check,
        .is_in_graph = single_phase_is_in_graph,
        .leave = leave,
        .tidy = tidy,
};

const JobDriver restartable_active_commit_driver = {
        .name = "restartable-active-commit",
        .type = "active-commit",
        .kind = "commit",
        .steps = steps,
        .check = check,
        .is_in_graph = single_phase_is_in_graph,
        .leave = leave,
        .tidy = tidy,
};
