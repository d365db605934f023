/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/target.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "job/life.h"
#include "job/nodes.h"

/* How far an image has come. */
enum { DESCRIPTOR = 1, FILE_CREATED, FILE_OPEN, FORMATTED, OPEN, CHECKED, SYNCED };

static char *file_node(const Job *job)
{
        return g_strdup_printf("bj-%s-f", job->id);
}

/* ---- the steps ---- */

static StepState state_of(const Job *job, guint step)
{
        return !job->image || job->record.accepted || job->image->done >= step ? STEP_DONE : STEP_DUE;
}

static void step_over(Job *job, guint step)
{
        job->image->done = step;
        job_step_end(job);
}

/* Whether the step can go to QEMU; else the start has failed. */
static gboolean can_ask(Job *job)
{
        if (job_is_connected(job))
                return TRUE;
        job_start_failed_new(job, BJ_ERROR_DISCONNECTED, "there is no connection to the QEMU of domain '%s'",
                             job->domain);
        return FALSE;
}

static void fail(Job *job, const GError *error)
{
        job_start_failed_new(job,
                             g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU)
                                     ? bj_error_of_qemu(error->message)
                                     : error->code,
                             "target '%s': %s", job->target, error->message);
}

/* For replies of a command that is all of a step. */
#define STEP_REPLY(function, step)                                                 \
        static void function(JsonNode *result, const GError *error, gpointer data) \
        {                                                                          \
                (void) result;                                                     \
                if (error)                                                         \
                        fail(data, error);                                         \
                else                                                               \
                        step_over(data, step);                                     \
        }

/* ---- descriptors ---- */

StepState pass_descriptor_state(const Job *job)
{
        return state_of(job, DESCRIPTOR);
}

static void on_passed(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        if (error) {
                fail(job, error);
                return;
        }
        job->host->passed(job->host, job->fdset, job->target);
        step_over(job, DESCRIPTOR);
}

void pass_descriptor_run(Job *job)
{
        if (job->image->fd < 0)
                step_over(job, DESCRIPTOR);
        else if (can_ask(job))
                qmp_execute_fd(job->host->qmp, "add-fd",
                               json_make("i:fdset-id", job->fdset, "s:opaque", job->target, NULL),
                               job->image->fd, on_passed, job);
}

/* ---- creating: a job of QEMU's own, but a part of this one ---- */

static void on_identified(Job *job, const GError *error)
{
        (void) error;
        step_over(job, FILE_CREATED);
}

static void on_part_dismissed(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;
        g_autoptr(GError) failure = g_steal_pointer(&job->part_error);

        (void) result;
        if (failure)
                fail(job, failure);
        else if (error)
                fail(job, error);
        else {
                if (job->image->done < FILE_CREATED) {
                        job->image->created = TRUE;
                        files_identify_created(job, on_identified);
                } else
                        step_over(job, FORMATTED);
        }
}

static void on_part_queried(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;
        JsonArray *jobs = !error && JSON_NODE_HOLDS_ARRAY(result) ? json_node_get_array(result) : NULL;

        if (error) {
                fail(job, error);
                return;
        }
        for (guint i = 0; jobs && i < json_array_get_length(jobs); i++) {
                JsonObject *entry = json_element(jobs, i);
                const char *text = json_string(entry, "error");

                if (g_strcmp0(json_string(entry, "id"), job->part_id) == 0 && text)
                        job->part_error = g_error_new_literal(BJ_ERROR, BJ_ERROR_QEMU, text);
        }
        job_execute(job, "job-dismiss", json_make("s:id", job->part_id, NULL), on_part_dismissed);
}

static void on_part_over(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        if (error)
                fail(job, error);
        else if (can_ask(job))
                job_execute(job, "query-jobs", NULL, on_part_queried);
}

static void on_part_started(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        if (error) {
                job_part_ended(job);
                fail(job, error);
        } else if (job->part_over)
                on_part_over(NULL, NULL, job);
        else
                job->part_done = on_part_over;
}

static void start_part(Job *job, JsonObject *options)
{
        if (!can_ask(job)) {
                json_object_unref(options);
                return;
        }
        job->part_over = FALSE;
        job->part_under_way = TRUE;
        job_execute(job, "blockdev-create", json_make("s:job-id", job->part_id, "o:options", options, NULL),
                    on_part_started);
}

StepState create_file_state(const Job *job)
{
        return state_of(job, FILE_CREATED);
}

void create_file_run(Job *job)
{
        NewImage *image = job->image;

        job->part_id = g_strdup_printf("bj-create-%s", job->id);
        if (!image->fresh) {
                step_over(job, FILE_CREATED);
                return;
        }
        start_part(job, json_make("s:driver", "file", "s:filename", job->target, "i:size",
                                  (gint64) (target_is_raw(image) ? image->size : 0), NULL));
}

StepState open_file_state(const Job *job)
{
        return state_of(job, FILE_OPEN);
}

STEP_REPLY(on_file_open, FILE_OPEN)

static gboolean is_local(const NewImage *image)
{
        return strcmp(image->driver, "file") == 0 || strcmp(image->driver, "host_device") == 0;
}

static JsonObject *cache_options(gboolean direct)
{
        return json_make("b:direct", direct, "b:no-flush", FALSE, NULL);
}

void open_file_run(Job *job)
{
        NewImage *image = job->image;
        g_autofree char *name = file_node(job);
        g_autofree char *descriptor =
                image->fd >= 0 ? g_strdup_printf("/dev/fdset/%d", (int) job->fdset) : NULL;
        JsonObject *options;

        if (!can_ask(job))
                return;
        options = image->protocol ? g_steal_pointer(&image->protocol)
                                  : json_make("s:driver", image->driver, "s:filename",
                                              descriptor ? descriptor : job->target, NULL);
        json_object_set_string_member(options, "node-name", name);
        json_object_set_string_member(options, "discard", "unmap");
        /* Open for writing only as long as somebody writes: a layer that others stand on later is not
         * locked. */
        if (image->fd < 0 && is_local(image))
                json_object_set_boolean_member(options, "auto-read-only", TRUE);
        json_object_set_object_member(options, "cache", cache_options(image->direct));
        job_execute(job, "blockdev-add", options, on_file_open);
}

StepState create_format_state(const Job *job)
{
        return state_of(job, FORMATTED);
}

STEP_REPLY(on_resized, FORMATTED)

void create_format_run(Job *job)
{
        NewImage *image = job->image;
        g_autofree char *name = file_node(job);
        JsonObject *options;

        if (image->reuse || (target_is_raw(image) && (image->fd < 0 || image->fixed))) {
                step_over(job, FORMATTED);
                return;
        }
        if (target_is_raw(image)) {
                if (can_ask(job))
                        job_execute(job, "block_resize",
                                    json_make("s:node-name", name, "i:size", (gint64) image->size, NULL),
                                    on_resized);
                return;
        }
        options = json_make("s:driver", image->format, "s:file", name, "i:size", (gint64) image->size,
                            "s:backing-file", image->backing, "s:backing-fmt", image->backing_format, NULL);
        if (image->cluster_size)
                json_object_set_int_member(options, "cluster-size", (gint64) image->cluster_size);
        if (image->extended_l2)
                json_object_set_boolean_member(options, "extended-l2", TRUE);
        start_part(job, options);
}

StepState open_format_state(const Job *job)
{
        return state_of(job, OPEN);
}

STEP_REPLY(on_open, OPEN)

JsonObject *target_options(const Job *job, gboolean direct)
{
        g_autofree char *name = file_node(job);

        return json_make("s:driver", job->target_format, "s:node-name", job->target_node, "s:file", name,
                         "s:discard", "unmap", "o:cache", cache_options(direct), NULL);
}

void open_format_run(Job *job)
{
        JsonObject *options;

        if (!can_ask(job))
                return;
        options = target_options(job, job->image->direct);
        if (!target_is_raw(job->image))
                json_object_set_null_member(options, "backing");
        job_execute(job, "blockdev-add", options, on_open);
}

/* ---- checking ---- */

StepState check_target_state(const Job *job)
{
        return state_of(job, CHECKED);
}

STEP_REPLY(on_cut_to_size, CHECKED)

static void on_check_looked(Job *job, const GError *error)
{
        NewImage *image = job->image;
        const GraphNode *node = error ? NULL : graph_node(job->host->graph, job->target_node);

        if (error)
                fail(job, error);
        else if (!node)
                job_start_failed_new(job, BJ_ERROR_FAILED, "target '%s' is not open in QEMU", job->target);
        else if (node->virtual_size == image->size)
                step_over(job, CHECKED);
        else if (target_is_raw(image) && image->fixed && node->virtual_size > image->size && can_ask(job)) {
                JsonObject *options = target_options(job, image->direct);

                json_object_set_int_member(options, "size", (gint64) image->size);
                job_execute(job, "blockdev-reopen", nodes_reopen_options(options), on_cut_to_size);
        } else
                job_start_failed_new(job, BJ_ERROR_INVALID_ARGUMENT,
                                     "target '%s' has %" G_GUINT64_FORMAT
                                     " bytes, and '%s' has %" G_GUINT64_FORMAT,
                                     job->target, node->virtual_size, job->active, image->size);
}

void check_target_run(Job *job)
{
        /* Also of what was made here: from now on its nodes are known. */
        if (can_ask(job))
                job->host->look(job->host, job, on_check_looked);
}

StepState sync_target_state(const Job *job)
{
        return state_of(job, SYNCED);
}

static void on_synced(Job *job, const GError *error)
{
        if (error)
                job_start_failed(job, error);
        else
                step_over(job, SYNCED);
}

void sync_target_run(Job *job)
{
        if (job->image->fresh)
                files_sync_directory(job, job->target, on_synced);
        else
                step_over(job, SYNCED);
}

/* ---- undoing ---- */

StepState remove_target_state(const Job *job)
{
        if (job->tidied || job->gone || !job->target_node)
                return STEP_DONE;
        return job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

static void on_removed(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        (void) error;
        if (--job->under_way > 0)
                return;
        job->tidied = TRUE;
        job_step_end(job);
}

static void remove_command(Job *job, const char *command, JsonObject *arguments)
{
        job->under_way++;
        job_execute(job, command, arguments, on_removed);
}

/* What is there is not known for certain: asked for all of it, QEMU refuses what is not there. */
void remove_target_run(Job *job)
{
        g_autofree char *name = file_node(job), *part = g_strdup_printf("bj-create-%s", job->id);

        job->under_way = 0;
        remove_command(job, "job-dismiss", json_make("s:id", part, NULL));
        remove_command(job, "blockdev-del", json_make("s:node-name", job->target_node, NULL));
        remove_command(job, "blockdev-del", json_make("s:node-name", name, NULL));
        if (job->fdset)
                remove_command(job, "remove-fd", json_make("i:fdset-id", job->fdset, NULL));
}

StepState remove_file_state(const Job *job)
{
        return job->image && job->image->created && !job->deleted ? STEP_DUE : STEP_DONE;
}

static void on_file_removed(Job *job, const GError *error)
{
        (void) error;
        job->deleted = TRUE;
        job_step_end(job);
}

void remove_file_run(Job *job)
{
        files_remove_created(job, on_file_removed);
}

const JobStep target_undo[] = {
        { "remove-target", remove_target_state, remove_target_run },
        { "remove-file", remove_file_state, remove_file_run },
        { "close", close_state, close_run },
        { "give-up", give_up_state, give_up_run },
        { NULL, NULL, NULL },
};

void target_leave(Job *job)
{
        nodes_leave(job, job->target_node);
}
