/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/nodes.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "base/test-point.h"
#include "job/life.h"

JsonObject *nodes_reopen_options(JsonObject *node)
{
        JsonArray *nodes = json_array_new();

        json_array_add_object_element(nodes, node);
        return json_make("a:options", nodes, NULL);
}

/* ---- tidying up ---- */

StepState nodes_tidy_state(const Job *job)
{
        if (job->tidied || job->gone)
                return STEP_DONE;
        return job_is_connected(job) && !job->host->is_mapping ? STEP_DUE : STEP_WAIT;
}

static void leave_behind(Job *job, char *text)
{
        job->host->observer->warning(job, text, job->host->observer_data);
        if (!job->left_behind)
                job->left_behind = text;
        else
                g_free(text);
}

static void on_tidy_looked(Job *job, const GError *error)
{
        /* Something else holds the old layers, an export perhaps: the next job on the disk may be refused.
         */
        for (guint i = 0; !error && job->unused && i < job->unused->len; i++) {
                const GraphNode *node = graph_node(job->host->graph, job->unused->pdata[i]);

                if (!node || job->left_behind)
                        continue;
                leave_behind(job, g_strdup_printf("node '%s' ('%s') is still in use in QEMU", node->name,
                                                  graph_source(node)));
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

void nodes_command(Job *job, const char *command, JsonObject *arguments)
{
        job->under_way++;
        job_execute(job, command, arguments, on_tidy_reply);
}

/* A service that died here may have had a part of it done: each is removed that is still there. */
static void remove_unused(Job *job)
{
        int fdset;

        for (guint i = 0; job->unused && i < job->unused->len; i++) {
                const char *name = job->unused->pdata[i];

                if (sscanf(name, "/dev/fdset/%d", &fdset) == 1)
                        nodes_command(job, "remove-fd", json_make("i:fdset-id", (gint64) fdset, NULL));
                else if (graph_node(job->host->graph, name))
                        nodes_command(job, "blockdev-del", json_make("s:node-name", name, NULL));
        }
}

void nodes_tidy_run(Job *job)
{
        job->cut_off = job->look_again = FALSE;
        job->under_way = 1; /* the step itself, so that it ends once */
        if (job->status == STATUS_CONCLUDED)
                nodes_command(job, "job-dismiss", json_make("s:id", job->qemu_id, NULL));
        remove_unused(job);
        if (job->driver->tidy)
                job->driver->tidy(job);
        on_tidy_reply(NULL, NULL, job);
}

/* ---- what is to be removed ---- */

/* Nodes that QEMU named by itself go with their parents. */
static void leave_node(Job *job, const GraphNode *node)
{
        if (node->name[0] != '#')
                g_ptr_array_add(job->unused, g_strdup(node->name));
        /* A descriptor that a job passed to QEMU: it has a name of its own. */
        if (node->path != node->file && !graph_child(node, "file") &&
            g_str_has_prefix(node->file, "/dev/fdset/"))
                g_ptr_array_add(job->unused, g_strdup(node->file));
        for (guint i = 0; i < node->edges->len; i++) {
                const GraphEdge *edge = &g_array_index(node->edges, GraphEdge, i);

                if (strcmp(edge->name, "backing") != 0 && edge->child->parents == 1)
                        leave_node(job, edge->child);
        }
}

void nodes_leave(Job *job, const char *name)
{
        const GraphNode *node = graph_node(job->host->graph, name);

        if (node)
                leave_node(job, node);
}

void nodes_leave_source(Job *job)
{
        const GraphNode *node = graph_node(job->host->graph, job->source_node);

        /* What something else stands on is refused by QEMU, and stays. */
        while (node && g_strcmp0(node->name, job->end_node) != 0) {
                const GraphNode *below =
                        graph_is_filter(node) ? graph_filtered(node) : graph_child(node, "backing");

                /* What a filter stands on is a layer of its own. */
                if (graph_is_filter(node))
                        g_ptr_array_add(job->unused, g_strdup(node->name));
                else
                        leave_node(job, node);
                node = below;
        }
}

void nodes_list_unused(Job *job)
{
        if (job->unused)
                return;
        job->unused = g_ptr_array_new_with_free_func(g_free);
        if (job->driver->leave && !job->gone && job->host->graph)
                job->driver->leave(job);
}

/* QEMU 7.2 leaves a base writable, and so locked, after a commit that did not pivot. Options that are left
 * out of blockdev-reopen go back to their defaults; those that QEMU does not tell matter only to a writer.
 */
void nodes_reopen_read_only(Job *job, const char *name)
{
        const GraphNode *node = graph_node(job->host->graph, name);
        const GraphNode *file = node ? graph_child(node, "file") : NULL;
        JsonObject *options;

        if (!file || node->read_only || node->encrypted || !job->host->capabilities->has[CAPABILITY_REOPEN])
                return;
        options = json_make("s:driver", node->driver, "s:node-name", node->name, "b:read-only", TRUE,
                            "s:file", file->name, "s:detect-zeroes",
                            *node->detect_zeroes ? node->detect_zeroes : NULL, "o:cache",
                            json_make("b:direct", node->direct, "b:no-flush", node->no_flush, NULL), NULL);
        if (graph_child(node, "data-file"))
                json_object_set_string_member(options, "data-file", graph_child(node, "data-file")->name);
        if (graph_child(node, "backing"))
                json_object_set_string_member(options, "backing", graph_child(node, "backing")->name);
        nodes_command(job, "blockdev-reopen", nodes_reopen_options(options));
        job->look_again = TRUE; /* for the chain to say that it is read-only */
}

/* ---- one command after the other, beside the steps ---- */

typedef struct {
        Job *job;
        JobLooked done;
        char *node;
} Call;

static void call_end(Call *call, const GError *error)
{
        call->done(call->job, error);
        job_unref(call->job);
        g_free(call->node);
        g_free(call);
}

/* Between two steps the connection may have gone. */
static gboolean can_call(Job *job, JobLooked done)
{
        g_autoptr(GError) error = NULL;

        if (job->host && job->host->qmp)
                return TRUE;
        g_set_error(&error, BJ_ERROR, BJ_ERROR_DISCONNECTED,
                    "there is no connection to the QEMU of domain '%s'", job->domain);
        done(job, error);
        return FALSE;
}

static Call *call_new(Job *job, const char *node, JobLooked done)
{
        Call *call = g_new(Call, 1);

        *call = (Call){ job_ref(job), done, g_strdup(node) };
        return call;
}

static void on_flushed(JsonNode *result, const GError *error, gpointer data)
{
        Call *call = data;
        g_autoptr(GError) failure = NULL;

        (void) result;
        if (error && (!g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU) ||
                      g_str_has_prefix(error->message, "Error flushing") ||
                      g_str_has_prefix(error->message, "Failed to find") ||
                      g_str_has_prefix(error->message, "Cannot find")))
                failure = g_error_new(BJ_ERROR, error->code, "node '%s' could not be flushed: %s",
                                      call->node, error->message);
        call_end(call, failure);
}

/* QEMU has no command that flushes and tells whether it could. But it does both for each node of
 * blockdev-reopen before it looks at the new options. So it is asked for a reopen that cannot be: with
 * another driver. That ends in an error in any case, with nothing changed, and the error tells whether it
 * was the flush that failed. Tried on QEMU 7.2, 10.0 and 11.1. */
void nodes_flush(Job *job, const char *node, JobLooked flushed)
{
        if (test_omits("node-flush"))
                flushed(job, NULL);
        else if (can_call(job, flushed))
                qmp_execute(
                        job->host->qmp, "blockdev-reopen",
                        nodes_reopen_options(json_make("s:driver", "null-co", "s:node-name", node, NULL)),
                        on_flushed, call_new(job, node, flushed));
}

static void on_probe_removed(JsonNode *result, const GError *error, gpointer data)
{
        (void) result;
        (void) error;
        call_end(data, NULL);
}

static void on_probed(JsonNode *result, const GError *error, gpointer data)
{
        Call *call = data;
        g_autoptr(GError) failure = NULL;

        (void) result;
        /* A service that died here has left it. */
        if (!error || g_str_has_prefix(error->message, "Duplicate nodes")) {
                qmp_execute(call->job->host->qmp, "blockdev-del", json_make("s:node-name", call->node, NULL),
                            on_probe_removed, call);
                return;
        }
        failure = g_error_new(
                BJ_ERROR, error->code,
                "QEMU has to write another backing file into the header of an image, and cannot: %s",
                error->message);
        call_end(call, failure);
}

void nodes_probe(Job *job, const char *node, JobLooked probed)
{
        g_autofree char *name = g_strdup_printf("bj-%s-p", job->id);
        const GraphNode *file;

        if (!can_call(job, probed))
                return;
        file = graph_node(job->host->graph, node);
        /* What is open for writing has shown that it can be. */
        if (file && !file->read_only)
                file = NULL;
        while (file && graph_child(file, "file"))
                file = graph_child(file, "file");
        if (!file || (strcmp(file->driver, "file") != 0 && strcmp(file->driver, "host_device") != 0)) {
                probed(job, NULL);
                return;
        }
        /* Without a lock, since the file is open already; nothing is written. */
        qmp_execute(job->host->qmp, "blockdev-add",
                    json_make("s:driver", file->driver, "s:node-name", name, "s:filename", file->file,
                              "s:locking", "off", "b:read-only", FALSE, NULL),
                    on_probed, call_new(job, name, probed));
}
