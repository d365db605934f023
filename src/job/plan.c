/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/plan.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "image/locks.h"
#include "job/files.h"
#include "job/nodes.h"

StepState plan_state(const Job *job)
{
        return job->target_node ? STEP_DONE : STEP_DUE;
}

typedef struct {
        Job *job;
        Chain *chain;
        int top, base;
        const char *option; /* that is being found */
        PlanFound found;
} Plan;

static void plan_free(Plan *plan)
{
        job_unref(plan->job);
        chain_free(plan->chain);
        g_free(plan);
}

static void plan_fail(Plan *plan, const GError *error)
{
        job_start_failed(plan->job, error);
        plan_free(plan);
}

Chain *plan_chain(const Job *job, GError **error)
{
        const GraphRoot *root = graph_root(job->host->graph, job->device);

        if (!root || !root->node) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "disk '%s' has no medium", job->disk);
                return NULL;
        }
        return chain_new(root, error);
}

static void find_next(Plan *plan);

static void on_found(GObject *source, GAsyncResult *result, gpointer data)
{
        Plan *plan = data;
        g_autoptr(GError) error = NULL;
        int depth = chain_find_finish(result, &error);

        (void) source;
        if (error) {
                g_prefix_error(&error, "option '%s': ", plan->option);
                plan_fail(plan, error);
                return;
        }
        *(strcmp(plan->option, "top") == 0 ? &plan->top : &plan->base) = depth;
        find_next(plan);
}

static void find(Plan *plan, const char *option)
{
        plan->option = option;
        chain_find_async(plan->chain, plan->job->disk, options_text(plan->job->options, option), on_found,
                         plan);
}

static void find_next(Plan *plan)
{
        Job *job = plan->job;
        g_autoptr(GError) error = NULL;
        g_autoptr(Chain) now = NULL;

        if (plan->top < 0 && options_text(job->options, "top")) {
                find(plan, "top");
                return;
        }
        if (plan->base < 0 && options_text(job->options, "base")) {
                find(plan, "base");
                return;
        }
        now = job->host && job->host->graph ? plan_chain(job, &error) : NULL;
        if (!now && !error)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_DISCONNECTED, "domain '%s' was let go of meanwhile",
                            job->domain);
        else if (now && !chain_same_nodes(now, plan->chain))
                g_set_error(&error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "the chain of '%s' changed meanwhile",
                            job->disk);
        if (error) {
                plan_fail(plan, error);
                return;
        }
        plan->found(job, now, plan->top, plan->base);
        plan_free(plan);
}

static void on_looked(Job *job, const GError *look_error)
{
        Plan *plan = job->plan;
        g_autoptr(GError) error = look_error ? g_error_copy(look_error) : NULL;

        job->plan = NULL;
        if (!error && job->host->graph->stream)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_JOB_ACTIVE,
                            "QEMU's job '%s' of domain '%s', a block-stream of somebody else, is at work, "
                            "or over and "
                            "not dismissed: this QEMU may crash when it is asked for its nodes meanwhile",
                            job->host->graph->stream, job->domain);
        if (!error)
                plan->chain = plan_chain(job, &error);
        if (error)
                plan_fail(plan, error);
        else
                find_next(plan);
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

/* An image that it is to make has none. */
static gboolean will_look_for_users(const Job *job)
{
        gboolean is_there = !job->image || job->image->fd >= 0 || options_flag(job->options, "reuse");

        return is_there && !options_flag(job->options, "force");
}

void plan_find(Job *job, PlanFound found)
{
        Plan *plan;

        if (!job->host->qmp) {
                job_start_failed_new(job, BJ_ERROR_DISCONNECTED,
                                     "there is no connection to the QEMU of domain '%s'", job->domain);
                return;
        }
        plan = g_new0(Plan, 1);
        *plan = (Plan){ .job = job_ref(job), .top = -1, .base = -1, .found = found };
        job->plan = plan;
        if (will_look_for_users(job))
                lock_holders_soon();
        flush_active_layer(job);
        job->host->look(job->host, job, on_looked);
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

gboolean plan_take(Job *job, const Chain *chain, guint source_depth, guint deepest)
{
        const char *other_job = busy_with(job, chain, deepest);

        if (other_job) {
                job_start_failed_new(
                        job, BJ_ERROR_JOB_ACTIVE,
                        "disk '%s' of domain '%s' is busy with QEMU's job '%s', which somebody else started",
                        job->disk, job->domain, other_job);
                return FALSE;
        }
        job->root_node = g_strdup(chain->root);
        job->active = g_strdup(chain_layer(chain, 0)->source);
        job->source = g_strdup(chain_layer(chain, source_depth)->source);
        job->source_node = g_strdup(chain_layer(chain, source_depth)->node);
        job->source_format = g_strdup(chain_layer(chain, source_depth)->format);
        return TRUE;
}

GPtrArray *plan_uses(const Job *job)
{
        return !job->host || options_flag(job->options, "force") ? NULL : job->host->images(job->host, job);
}

void plan_check_overlays(Job *job, GPtrArray *changed, JobLooked checked)
{
        if (job->host) {
                job->host->check_overlays(job->host, job, changed, checked);
                return;
        }
        g_ptr_array_unref(changed);
        checked(job, NULL);
}

gboolean plan_format_can_be_recorded(Job *job, const Layer *layer)
{
        const GraphNode *node = graph_node(job->host->graph, layer->node);

        if (!node || graph_child(node, "file") ||
            job->host->capabilities->has[CAPABILITY_BACKING_MASK_PROTOCOL])
                return TRUE;
        job_start_failed_new(job, BJ_ERROR_NOT_SUPPORTED,
                             "'%s' is open in QEMU without a format node, and this QEMU lacks "
                             "backing-mask-protocol: it would record '%s' as its format",
                             layer->source, node->driver);
        return FALSE;
}

void plan_backing(Job *job, gboolean as_wanted, JobLooked done)
{
        const GraphNode *header = graph_node(job->host->graph, job->header_node);
        const GraphNode *base = graph_node(job->host->graph, job->end_node);
        const char *given = as_wanted ? options_text(job->options, "backing") : NULL;
        g_autoptr(GError) error = NULL;

        if (!header || !base) {
                g_set_error(&error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "the chain of '%s' changed meanwhile",
                            job->disk);
                done(job, error);
        } else if (options_flag(job->options, "relative"))
                files_relate(job, graph_source(header), graph_source(base), done);
        else {
                g_free(job->backing);
                job->backing = g_strdup(given ? given : graph_source(base));
                done(job, NULL);
        }
}

gboolean plan_check_backing(const Job *job, GError **error)
{
        const char *backing = options_text(job->options, "backing");

        if (backing && options_flag(job->options, "relative")) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "options 'relative' and 'backing' exclude each other");
                return FALSE;
        }
        if (backing && strlen(backing) > HEADER_BACKING_MAX) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "option 'backing': %" G_GSIZE_FORMAT
                            " bytes are more than the %d that a header takes",
                            strlen(backing), HEADER_BACKING_MAX);
                return FALSE;
        }
        return TRUE;
}

/* The name shares the header's only cluster with the fixed part and QEMU's extensions. */
static gboolean header_has_room(const Job *job, const GraphNode *header, GError **error)
{
        const GraphNode *data = graph_child(header, "data-file");
        gsize length = strlen(job->backing), others = HEADER_OTHERS + (data ? strlen(data->file) : 0);
        guint64 room = header->cluster_size ? header->cluster_size : G_MAXUINT64;

        if (length <= HEADER_BACKING_MAX && others + length <= room)
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                    "a backing file name of %" G_GSIZE_FORMAT " bytes does not fit into the header of '%s'",
                    length, graph_source(header));
        return FALSE;
}

static void on_probed(Job *job, const GError *error)
{
        if (error) {
                g_clear_pointer(&job->target_node, g_free);
                job_start_failed_new(job,
                                     error->code == BJ_ERROR_QEMU ? BJ_ERROR_INVALID_STATE : error->code,
                                     "%s", error->message);
        } else
                job_step_end(job);
}

void plan_check_header(Job *job, JobLooked done)
{
        const GraphNode *header = graph_node(job->host->graph, job->header_node);
        g_autoptr(GError) error = NULL;

        if (job->backing && header && !header_has_room(job, header, &error))
                done(job, error);
        else
                nodes_probe(job, job->header_node, done);
}

void plan_header(Job *job, const char *target_node)
{
        job->target_node = g_strdup(target_node);
        plan_check_header(job, on_probed);
}

void plan_set_backing(const Job *job, JsonObject *arguments)
{
        json_object_set_string_member(arguments, "backing-file", job->backing);
        if (job->host->capabilities->has[CAPABILITY_BACKING_MASK_PROTOCOL])
                json_object_set_boolean_member(arguments, "backing-mask-protocol", TRUE);
}
