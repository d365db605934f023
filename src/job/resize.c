/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/resize.h"

#include "base/error.h"
#include "base/json.h"
#include "job/life.h"
#include "job/files.h"
#include "job/plan.h"

static gboolean check(const Job *job, GError **error)
{
        guint64 size = options_number(job->options, "size");

        if (size > 0 && size % 512 == 0 && size <= G_MAXINT64)
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                    "size %" G_GUINT64_FORMAT " is no multiple of 512 bytes, or out of range", size);
        return FALSE;
}

static void on_overlays_checked(Job *job, const GError *error)
{
        if (error) {
                job_start_failed(job, error);
                return;
        }
        job->target_node = g_strdup(job->source_node);
        job_step_end(job);
}

/* What an overlay shows stays as it is when what it stands on grows. */
static void on_examined(Job *job, const GError *error)
{
        if (error || !options_flag(job->options, "shrink"))
                on_overlays_checked(job, error);
        else
                plan_check_overlays(job, files_names(job->images), on_overlays_checked);
}

static void on_found(Job *job, const Chain *chain, int top, int base)
{
        const Layer *active = chain_layer(chain, 0);
        guint64 size = options_number(job->options, "size");

        (void) top;
        (void) base;
        if (active->read_only)
                job_start_failed_new(job, BJ_ERROR_INVALID_STATE, "disk '%s' is read-only", job->disk);
        else if (size < active->virtual_size && !options_flag(job->options, "shrink"))
                job_start_failed_new(job, BJ_ERROR_INVALID_ARGUMENT,
                                     "disk '%s' has %" G_GUINT64_FORMAT
                                     " bytes: to make it %" G_GUINT64_FORMAT
                                     " cuts off what is behind that, and needs the option 'shrink'",
                                     job->disk, active->virtual_size, size);
        else if (plan_take(job, chain, 0, 0)) {
                GPtrArray *changed = g_ptr_array_new_with_free_func(g_free);

                g_ptr_array_add(changed, g_strdup(active->source));
                files_examine(job, g_ptr_array_new(), changed, plan_uses(job), on_examined);
        }
}

static void plan_run(Job *job)
{
        plan_find(job, on_found);
}

static StepState resize_state(const Job *job)
{
        return job->checked ? STEP_DONE : STEP_DUE;
}

static void on_resized(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        job->checked = error == NULL;
        if (error)
                job_start_failed_new(job,
                                     g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU)
                                             ? bj_error_of_qemu(error->message)
                                             : error->code,
                                     "disk '%s': %s", job->disk, error->message);
        else
                job_step_end(job);
}

/* Through the filters above it, which have the size of what they stand on. */
static void resize_run(Job *job)
{
        if (!job->host->qmp)
                job_start_failed_new(job, BJ_ERROR_DISCONNECTED,
                                     "the connection to the QEMU of domain '%s' was lost", job->domain);
        else
                job_execute(job, "block_resize",
                            json_make("s:node-name", job->root_node, "i:size",
                                      (gint64) options_number(job->options, "size"), NULL),
                            on_resized);
}

static StepState see_state(const Job *job)
{
        return job->settled ? STEP_DONE : STEP_DUE;
}

static void on_looked(Job *job, const GError *error)
{
        (void) error;
        job->settled = TRUE;
        job_step_end(job);
}

static void see_run(Job *job)
{
        job->host->look(job->host, job, on_looked);
}

static const JobStep steps[] = {
        { "plan", plan_state, plan_run },         { "resize", resize_state, resize_run },
        { "look", see_state, see_run },           { "close", close_state, close_run },
        { "answer", give_up_state, give_up_run }, { NULL, NULL, NULL },
};

const JobDriver resize_driver = {
        .name = "resize",
        .type = "resize",
        .kind = "resize",
        .silent = TRUE,
        .steps = steps,
        .check = check,
};
