/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/commit.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "job/two-phase.h"

/* Accepted by the contract, not built yet: refused, never ignored. */
static const char *const not_built[] = { "delete", "relative", "backing", "force" };

gboolean commit_check_options(const Options *options, const char *disk, GError **error)
{
        const char *top = options_text(options, "top");

        for (guint i = 0; i < G_N_ELEMENTS(not_built); i++) {
                if (!options_flag(options, not_built[i]) && !options_text(options, not_built[i]))
                        continue;
                g_set_error(error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED,
                            "option '%s': not built yet in this version of blockjobd", not_built[i]);
                return FALSE;
        }
        if (!top && !options_flag(options, "active") && !options_text(options, "auto")) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "commit of '%s' active layer requires the active option", disk);
                return FALSE;
        }
        if (options_flag(options, "shallow") && options_text(options, "base")) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "options 'shallow' and 'base' exclude each other");
                return FALSE;
        }
        return TRUE;
}

/* ---- plan: which node into which ---- */

static StepState plan_state(const Job *job)
{
        return job->base_node ? STEP_DONE : STEP_DUE;
}

static void plan_failed(Job *job, int code, const char *format, ...) G_GNUC_PRINTF(3, 4);
static void plan_failed(Job *job, int code, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        g_autoptr(GError) error = g_error_new_valist(BJ_ERROR, code, format, arguments);
        va_end(arguments);
        job_start_failed(job, error);
}

static Chain *chain_of_device(const Job *job, GError **error)
{
        const GraphRoot *root = graph_root(job->host->graph, job->device);

        if (!root || !root->node) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "disk '%s' has no medium", job->disk);
                return NULL;
        }
        return chain_new(root, error);
}

/* QEMU would say "Need a root block node" of a node that has a job above it. */
static const char *busy_with(const Job *job, const Chain *chain, guint depth)
{
        const char *busy = NULL;

        for (guint i = 0; i <= depth && !busy; i++) {
                const GraphNode *node = graph_node(job->host->graph, chain_layer(chain, i)->node);
                busy = node ? node->job : NULL;
        }
        return busy;
}

static void plan_into(Job *job, const Chain *chain, guint depth)
{
        const Layer *top = chain_layer(chain, 0), *base = chain_layer(chain, depth);
        const char *other_job = busy_with(job, chain, depth);

        if (depth == 0) {
                plan_failed(job, BJ_ERROR_INVALID_ARGUMENT,
                            "base '%s' is the active layer of '%s' itself: name a layer below it",
                            top->source, job->disk);
                return;
        }
        if (top->virtual_size < base->virtual_size) {
                plan_failed(job, BJ_ERROR_INVALID_ARGUMENT,
                            "'%s' (%" G_GUINT64_FORMAT
                            " bytes) is smaller than base '%s' (%" G_GUINT64_FORMAT
                            " bytes): the guest's disk would change its size; resize it first",
                            top->source, top->virtual_size, base->source, base->virtual_size);
                return;
        }
        if (other_job) {
                plan_failed(
                        job, BJ_ERROR_JOB_ACTIVE,
                        "disk '%s' of domain '%s' is busy with QEMU's job '%s', which somebody else started",
                        job->disk, job->domain, other_job);
                return;
        }
        job->top_node = g_strdup(top->node);
        job->base_node = g_strdup(base->node);
        job->root_node = g_strdup(chain->root);
        job->source = g_strdup(top->source);
        job->target = g_strdup(base->source);
        job->base_was_read_only = base->read_only;
        job_step_end(job);
}

static void on_base_found(GObject *source, GAsyncResult *result, gpointer data)
{
        g_autoptr(Job) job = data;
        g_autoptr(GError) error = NULL;
        g_autoptr(Chain) chain = NULL;
        int depth = chain_find_finish(result, &error);

        (void) source;
        if (depth >= 0)
                chain = chain_of_device(job, &error);
        else
                g_prefix_error(&error, "option 'base': ");
        if (error)
                job_start_failed(job, error);
        else if ((guint) depth >= chain->layers->len)
                plan_failed(job, BJ_ERROR_INVALID_STATE, "the chain of '%s' changed meanwhile", job->disk);
        else
                plan_into(job, chain, (guint) depth);
}

static void plan_base(Job *job, const Chain *chain)
{
        const char *base = options_text(job->options, "base");

        if (base)
                chain_find_async(chain, job->disk, base, on_base_found, job_ref(job));
        else
                plan_into(job, chain, options_flag(job->options, "shallow") ? 1 : chain->layers->len - 1);
}

static void on_top_found(GObject *source, GAsyncResult *result, gpointer data)
{
        g_autoptr(Job) job = data;
        g_autoptr(GError) error = NULL;
        g_autoptr(Chain) chain = NULL;
        int depth = chain_find_finish(result, &error);
        gboolean active = options_flag(job->options, "active");

        (void) source;
        if (depth >= 0)
                chain = chain_of_device(job, &error);
        else
                g_prefix_error(&error, "option 'top': ");
        if (error)
                job_start_failed(job, error);
        else if (depth > 0 && active)
                plan_failed(job, BJ_ERROR_INVALID_ARGUMENT,
                            "option 'active': top '%s' is not the active layer of '%s'",
                            options_text(job->options, "top"), job->disk);
        else if (depth > 0)
                plan_failed(job, BJ_ERROR_NOT_SUPPORTED,
                            "option 'top': commit of a layer below the active one is not built yet in this "
                            "version of blockjobd");
        else if (!active && !options_text(job->options, "auto"))
                plan_failed(job, BJ_ERROR_INVALID_ARGUMENT,
                            "commit of '%s' active layer requires the active option", job->disk);
        else
                plan_base(job, chain);
}

static void on_plan_looked(Job *job, const GError *look_error)
{
        g_autoptr(GError) error = look_error ? g_error_copy(look_error) : NULL;
        g_autoptr(Chain) chain = error ? NULL : chain_of_device(job, &error);
        const char *top = options_text(job->options, "top");

        if (error) {
                job_start_failed(job, error);
                return;
        }
        if (chain->layers->len < 2) {
                plan_failed(job, BJ_ERROR_INVALID_ARGUMENT,
                            "disk '%s' has no backing image to commit into: '%s' is its only layer",
                            job->disk, chain_layer(chain, 0)->source);
                return;
        }
        if (top)
                chain_find_async(chain, job->disk, top, on_top_found, job_ref(job));
        else
                plan_base(job, chain);
}

static void on_flushed(JsonNode *result, const GError *error, gpointer data)
{
        (void) result;
        (void) error;
        (void) data;
}

/* What the guest has written is brought into the images first, metadata too, so that the sizes that are
 * looked at are those of the files, and that what was written before the call outlives a crash of QEMU
 * during the job. QEMU has no command of QMP's own for it. */
static void flush_active_layer(Job *job)
{
        const GraphRoot *root = job->host->graph ? graph_root(job->host->graph, job->device) : NULL;
        g_autofree char *line = NULL;

        if (!root || !root->node || !job->host->capabilities->has[CAPABILITY_FLUSH])
                return;
        line = g_strdup_printf("qemu-io %s flush", root->node->name);
        job_execute(job, "human-monitor-command", json_make("s:command-line", line, NULL), on_flushed);
}

static void plan_run(Job *job)
{
        if (job->host->qmp) {
                flush_active_layer(job);
                job->host->look(job->host, job, on_plan_looked);
        } else
                plan_failed(job, BJ_ERROR_DISCONNECTED, "there is no connection to the QEMU of domain '%s'",
                            job->domain);
}

/* ---- start: QEMU's command ---- */

static StepState start_state(const Job *job)
{
        if (job->record.accepted)
                return STEP_DONE;
        return job->gone || (job->synced && job->host->qmp) ? STEP_DUE : STEP_WAIT;
}

static void on_started(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        if (!error)
                job->record.accepted = TRUE;
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU))
                job_start_failed(job, error);
        else
                job_step_end(job);
}

static void start_run(Job *job)
{
        const char *on_error = options_text(job->options, "on-error");

        if (job->gone) {
                plan_failed(job, BJ_ERROR_DISCONNECTED, "QEMU went away before it took the job");
                return;
        }
        if (!job->started) {
                /* The service died before QEMU got the command, or the caller was told that it takes too
                 * long: nobody waits for this job. */
                plan_failed(job, BJ_ERROR_FAILED, "the job never began");
                return;
        }
        job_execute(job, "block-commit",
                    json_make("s:job-id", job->qemu_id, "s:device", job->root_node, "s:top-node",
                              job->top_node, "s:base-node", job->base_node, "i:speed",
                              (gint64) options_number(job->options, "speed"), "s:on-error",
                              on_error ? on_error : "report", "s:filter-node-name", job->filter,
                              "b:auto-finalize", FALSE, "b:auto-dismiss", FALSE, NULL),
                    on_started);
}

/* ---- tidy: what QEMU still holds of it ---- */

static void on_tidy_looked(Job *job, const GError *error)
{
        /* Something else holds the old layers, an export perhaps: the next job on the disk may be refused.
         */
        if (!error && job->record.result == RESULT_COMPLETED &&
            graph_node(job->host->graph, job->top_node)) {
                g_autofree char *text = g_strdup_printf("node '%s' (%s) could not be removed from QEMU",
                                                        job->top_node, job->source);
                job->host->observer->warning(job, text, job->host->observer_data);
        }
        job->tidied = error == NULL;
        job_step_end(job);
}

static void on_tidy_reply(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        /* A node that went with its parent already is an error too; what counts is looked at afterwards. */
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_DISCONNECTED))
                job->cut_off = TRUE;
        else if (error)
                job->look_again = TRUE;
        if (--job->under_way > 0)
                return;
        if (job->cut_off)
                job_step_end(job);
        else if (job->look_again)
                job->host->look(job->host, job, on_tidy_looked);
        else {
                job->tidied = TRUE;
                job_step_end(job);
        }
}

static void tidy_command(Job *job, const char *command, JsonObject *arguments)
{
        job->under_way++;
        job_execute(job, command, arguments, on_tidy_reply);
}

/* The node and what it alone stores its data in. Nodes that QEMU named by itself go with their parents. */
static void remove_node(Job *job, const GraphNode *node)
{
        if (node->name[0] != '#')
                tidy_command(job, "blockdev-del", json_make("s:node-name", node->name, NULL));
        for (guint i = 0; i < node->edges->len; i++) {
                const GraphEdge *edge = &g_array_index(node->edges, GraphEdge, i);

                if (strcmp(edge->name, "backing") != 0 && edge->child->parents == 1)
                        remove_node(job, edge->child);
        }
}

/* As long as they are there, base is no root node and the next job on the disk is refused. */
static void remove_layers_above_base(Job *job)
{
        const GraphNode *node = graph_node(job->host->graph, job->top_node);

        while (node && strcmp(node->name, job->base_node) != 0) {
                const GraphNode *below =
                        graph_is_filter(node) ? graph_filtered(node) : graph_child(node, "backing");

                remove_node(job, node);
                node = below;
        }
}

/* QEMU 7.2 leaves the base writable, and so locked, after a commit that did not pivot. Options that are left
 * out of blockdev-reopen go back to their defaults; those that QEMU does not tell matter only to a writer.
 */
static void reopen_base_read_only(Job *job)
{
        const GraphNode *base = graph_node(job->host->graph, job->base_node);
        const GraphNode *file = base ? graph_child(base, "file") : NULL;
        JsonArray *nodes;
        JsonObject *node;

        if (!job->base_was_read_only || !file || base->read_only || base->encrypted ||
            !job->host->capabilities->has[CAPABILITY_REOPEN])
                return;
        node = json_make("s:driver", base->driver, "s:node-name", base->name, "b:read-only", TRUE, "s:file",
                         file->name, "s:detect-zeroes", *base->detect_zeroes ? base->detect_zeroes : NULL,
                         "o:cache", json_make("b:direct", base->direct, "b:no-flush", base->no_flush, NULL),
                         NULL);
        if (graph_child(base, "data-file"))
                json_object_set_string_member(node, "data-file", graph_child(base, "data-file")->name);
        if (graph_child(base, "backing"))
                json_object_set_string_member(node, "backing", graph_child(base, "backing")->name);
        nodes = json_array_new();
        json_array_add_object_element(nodes, node);
        tidy_command(job, "blockdev-reopen", json_make("a:options", nodes, NULL));
        job->look_again = TRUE; /* for the chain to say that it is read-only */
}

static void tidy_run(Job *job)
{
        job->cut_off = job->look_again = FALSE;
        job->under_way = 1; /* the step itself, so that it ends once */
        if (job->status == STATUS_CONCLUDED)
                tidy_command(job, "job-dismiss", json_make("s:id", job->qemu_id, NULL));
        if (job->record.result == RESULT_COMPLETED)
                remove_layers_above_base(job);
        else
                reopen_base_read_only(job);
        on_tidy_reply(NULL, NULL, job);
}

static const JobStep steps[] = {
        { "plan", plan_state, plan_run },
        { "record-intent", record_intent_state, record_intent_run },
        { "start", start_state, start_run },
        { "record-accepted", record_accepted_state, record_accepted_run },
        { "announce", announce_state, announce_run },
        { "say-ready", say_ready_state, say_ready_run },
        { "decide", decide_state, decide_run },
        { "record-decision", record_decision_state, record_decision_run },
        { "ask", ask_state, ask_run },
        { "reach-pending", reach_pending_state, NULL },
        { "record-target", record_target_state, record_target_run },
        { "finalize", finalize_state, finalize_run },
        { "conclude", conclude_state, NULL },
        { "look", look_state, look_run },
        { "record-outcome", record_outcome_state, record_outcome_run },
        { "tidy", tidy_state, tidy_run },
        { "tell", tell_state, tell_run },
        { NULL, NULL, NULL },
};

const JobDriver active_commit_driver = { "active-commit", "commit", steps };
