/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/stages.h"

#include <string.h>

#include "base/error.h"
#include "job/commit.h"
#include "job/plan.h"
#include "job/single-phase.h"

void stages_plan(Job *job, const Chain *chain, guint top, guint base)
{
        job->range_node = g_strdup(chain_layer(chain, top)->node);
        job->stages = base - top;
}

gboolean stages_are_left(const Job *job)
{
        return job->stage + 1 < job->stages;
}

gboolean stages_are_between(const Job *job)
{
        gboolean ended = job->status >= STATUS_WAITING || job->status == STATUS_ABSENT;

        if (job->stages == 0 || job->record.result != RESULT_NONE)
                return FALSE;
        return job->record.stage_over || (job->stage > 0 && !job->record.accepted) ||
               (ended && job->record.accepted && stages_are_left(job));
}

gboolean stages_keep_orders(const Job *job)
{
        return stages_are_between(job) && !(job->step && strcmp(job->step->name, "start") == 0);
}

gboolean stages_are_held(const Job *job)
{
        return job->paused_by_user && stages_keep_orders(job);
}

void stages_keep(Job *job)
{
        job->has_orders = TRUE;
        job_update_state(job);
        job_advance(job);
}

/* The next one is planned and recorded, and QEMU has not heard of it. */
static gboolean is_planned(const Job *job)
{
        return job->stage > 0 && !job->record.accepted && !job_outcome_is_seen(job);
}

/* With the orders nothing is written that is not to be on disk yet. */
static gboolean can_be_written(const Job *job)
{
        return !job_outcome_is_seen(job) || job_outcome_is_written(job);
}

StepState begin_layer_state(const Job *job)
{
        if (job->stages == 0 || !job->announced)
                return begin_state(job);
        if (job->has_orders && can_be_written(job))
                return STEP_DUE;
        if (!is_planned(job) || job->gone)
                return STEP_DONE;
        if (!job_is_connected(job))
                return STEP_WAIT;
        if (job->record.decision == DECISION_CANCEL)
                return STEP_DUE;
        return job->paused_by_user ? STEP_WAIT : STEP_DONE;
}

static void give_up(Job *job, JobResult result, int code, const char *why)
{
        if (job->record.stage_over)
                job->stage++;
        set_result(job, result);
        job_set_error(job, code, "%s", why);
        job_step_end(job);
}

static void on_orders_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        /* They hold as long as the service runs. */
        if (error)
                job_warn(job, error);
        job_step_end(job);
}

void begin_layer_run(Job *job)
{
        if (job->stages == 0 || !job->announced)
                begin_run(job);
        else if (job->has_orders) {
                job->has_orders = FALSE;
                job_write(job, JOURNAL_SYNCED, on_orders_recorded);
        } else
                give_up(job, RESULT_CANCELLED, -1, "the job was aborted");
}

void stages_say_how_far(Job *job)
{
        g_autofree char *before = g_strdup(job->error_message), *text = NULL;

        if (job->stages == 0 || job->record.result == RESULT_COMPLETED || job->record.result == RESULT_NONE)
                return;
        text = g_strdup_printf("%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " layers are in '%s' for good",
                               job->stage, job->stages, job->target);
        if (!before || !g_str_has_suffix(before, text))
                job_set_error(job, job->error_code, "%s%s%s", before ? before : "", before ? "; " : "",
                              text);
}

int stages_find_next(const Job *job, const Chain *chain, GError **error)
{
        gboolean found = FALSE;

        for (guint i = 0; i < chain->layers->len; i++) {
                const Layer *below = chain_layer(chain, i + 1);

                found = found || strcmp(chain_layer(chain, i)->node, job->range_node) == 0;
                if (found && below && strcmp(below->node, job->target_node) == 0)
                        return (int) i;
        }
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "the chain of '%s' changed meanwhile",
                    job->disk);
        return -1;
}

/* What is known of the layer that is done is of no more use. */
static void begin(Job *job)
{
        if (!job->header_node)
                job->driver = &active_commit_driver;
        job->stage++;
        job->stages_copied = job->current;
        g_free(job->qemu_id);
        job->qemu_id = job_make_qemu_id(job);
        job_changed(job, JOB_CHANGED_QEMU_ID);
        job->record.accepted = job->record.stage_over = FALSE;
        job->status = STATUS_ABSENT;
        job->asked = DECISION_NONE;
        job->users_checked = FALSE;
        job->end_seen = job->tidied = job->checked = job->flushed = job->settled = job->compared = FALSE;
        job->deleted = FALSE;
        g_clear_pointer(&job->qemu_error, g_free);
        g_clear_pointer(&job->unused, g_ptr_array_unref);
}

StepState next_layer_state(const Job *job)
{
        if (!job->record.stage_over || job->record.result != RESULT_NONE)
                return STEP_DONE;
        if (job->paused_by_user && job->record.decision != DECISION_CANCEL && !job->gone)
                return STEP_WAIT;
        return job->gone || job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

static void on_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        /* Without the record QEMU is not sent anything. */
        if (error)
                give_up(job, RESULT_FAILED, error->code, error->message);
        else
                job_step_end(job);
}

static void on_taken(Job *job, const GError *error)
{
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_DISCONNECTED))
                job_step_end(job); /* once more, where QEMU is still there */
        else if (error)
                give_up(job, RESULT_FAILED, error->code, error->message);
        else if (job->paused_by_user || job->record.decision == DECISION_CANCEL)
                job_step_end(job); /* asked for meanwhile */
        else {
                begin(job);
                job_write(job, JOURNAL_SYNCED, on_recorded);
        }
}

static void on_looked(Job *job, const GError *error)
{
        g_autoptr(GError) failure = NULL;
        g_autoptr(Chain) chain = NULL;
        int layer = -1;

        if (error || job->gone) {
                job_step_end(job); /* by what is known then */
                return;
        }
        chain = plan_chain(job, &failure);
        if (chain)
                layer = stages_find_next(job, chain, &failure);
        if (layer < 0)
                give_up(job, RESULT_FAILED, failure->code, failure->message);
        else
                commit_take_layer(job, chain, (guint) layer, on_taken);
}

void next_layer_run(Job *job)
{
        if (job->gone)
                give_up(job, RESULT_LOST, BJ_ERROR_DISCONNECTED,
                        "QEMU went away before the job could conclude");
        else if (job->record.decision == DECISION_CANCEL)
                give_up(job, RESULT_CANCELLED, -1, "the job was aborted");
        else
                job->host->look(job->host, job, on_looked);
}
