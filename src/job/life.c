/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/life.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "base/test-point.h"
#include "job/files.h"
#include "job/nodes.h"
#include "job/plan.h"
#include "job/stages.h"

#define RETRY_MILLISECONDS 1000

gboolean job_is_connected(const Job *job)
{
        return job->synced && job->host->qmp;
}

/* In QEMU's job list the job has come to its end, or it is not there any more. */
gboolean job_has_ended(const Job *job)
{
        return job->gone ||
               (job_is_connected(job) && (job->status == STATUS_CONCLUDED || job->status == STATUS_ABSENT));
}

gboolean job_is_past_ready(const Job *job)
{
        return job_has_ended(job) || (job_is_connected(job) && job->status >= STATUS_WAITING);
}

gboolean job_is_pending(const Job *job)
{
        return !job_has_ended(job) && job->status == STATUS_PENDING;
}

StepState record_intent_state(const Job *job)
{
        return job->written.exists ? STEP_DONE : STEP_DUE;
}

void start_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        if (error)
                job_start_failed(job, error);
        else
                job_step_end(job);
}

void record_intent_run(Job *job)
{
        job_write(job, JOURNAL_SYNCED, start_recorded);
}

StepState begin_state(const Job *job)
{
        if (job->record.accepted || job->started || job->announced)
                return STEP_DONE;
        return job->gone || job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

void begin_run(Job *job)
{
        job_start_failed_new(job, job->gone ? BJ_ERROR_DISCONNECTED : BJ_ERROR_FAILED,
                             job->gone ? "QEMU went away before it took the job" : "the job never began");
}

StepState start_state(const Job *job)
{
        if (job->record.accepted || job_outcome_is_seen(job) || (job->gone && job->announced))
                return STEP_DONE;
        return job->gone || job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

JsonObject *start_arguments(const Job *job)
{
        guint64 speed = job->stage ? job->speed : options_number(job->options, "speed");

        return json_make("s:job-id", job->qemu_id, "i:speed", (gint64) speed, "s:filter-node-name",
                         job->filter, "b:auto-finalize", FALSE, "b:auto-dismiss",
                         job->driver->dismisses_itself, NULL);
}

void start_text(const Job *job, JsonObject *arguments, const char *option)
{
        const char *text = options_text(job->options, option);

        if (text)
                json_object_set_string_member(arguments, option, text);
}

void start_number(const Job *job, JsonObject *arguments, const char *argument, const char *option)
{
        if (options_number(job->options, option))
                json_object_set_int_member(arguments, argument,
                                           (gint64) options_number(job->options, option));
}

static void on_started(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        if (!error)
                job->record.accepted = TRUE;
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU)) {
                int code = bj_error_of_qemu(error->message);

                if (job->announced) {
                        set_result(job, RESULT_FAILED);
                        job_set_error(job, code, "%s", error->message);
                        job_step_end(job);
                        return;
                }
                /* Of a lock QEMU does not say on what. */
                if (code == BJ_ERROR_IMAGE_IN_USE)
                        job_start_failed_new(job, code, "'%s' is in use by somebody else: %s", job->target,
                                             error->message);
                else
                        job_start_failed_new(job, code, "%s", error->message);
        } else
                job_step_end(job);
}

void start_command(Job *job, const char *command, JsonObject *arguments)
{
        if (!job->gone && (job->started || job->announced)) {
                job_execute(job, command, arguments, on_started);
                return;
        }
        /* QEMU went away meanwhile, or the caller was told that it takes too long. */
        json_object_unref(arguments);
        begin_run(job);
}

StepState record_accepted_state(const Job *job)
{
        /* A later stage may never have come to it. */
        return job->written.accepted || (job->announced && !job->record.accepted) ? STEP_DONE : STEP_DUE;
}

void job_warn(Job *job, const GError *error)
{
        if (job->host)
                job->host->observer->warning(job, error->message, job->host->observer_data);
}

static void on_accepted_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        /* The intent is on disk and QEMU runs the job: recovery finds it there. */
        if (error) {
                job_warn(job, error);
                job->written.accepted = TRUE;
        }
        job_step_end(job);
}

/* From now on QEMU changes what they stand on. */
static void warn_of_spoiled(Job *job)
{
        for (guint i = 0; job->spoiled && i < job->spoiled->len; i++) {
                g_autofree char *text =
                        g_strdup_printf("'%s' becomes invalid: it stands on an image that the job changes",
                                        (char *) job->spoiled->pdata[i]);

                job->host->observer->warning(job, text, job->host->observer_data);
        }
        if (job->spoiled && job->spoiled->len > 0)
                job->host->spoiled(job->host, g_steal_pointer(&job->spoiled), job->target);
}

void record_accepted_run(Job *job)
{
        if (job->image && job->image->inode)
                files_note_image(job, job->target, job->image->device, job->image->inode);
        /* With a descriptor that QEMU has by now. */
        g_clear_pointer(&job->image, new_image_free);
        warn_of_spoiled(job);
        job_write(job, JOURNAL_LATE, on_accepted_recorded);
}

StepState announce_state(const Job *job)
{
        if (job->announced)
                return STEP_DONE;
        return job->host->may_tell ? STEP_DUE : STEP_WAIT;
}

void announce_run(Job *job)
{
        job->announced = TRUE;
        job_update_state(job);
        job->host->observer->announced(job, job->host->observer_data);
        if (job->started)
                job->started(job, NULL, job->started_data);
        job->started = NULL;
        job_step_end(job);
}

StepState record_decision_state(const Job *job)
{
        return job->record.decision == job->written.decision || job_is_past_ready(job) ? STEP_DONE
                                                                                       : STEP_DUE;
}

void job_refuse(Job *job, const GError *error)
{
        job->record.decision = DECISION_NONE;
        /* Until the next decision somebody else may come. */
        job->users_checked = FALSE;
        g_clear_error(&job->refusal);
        job->refusal = g_error_copy(error);
        job->host->observer->refused(job, error, job->host->observer_data);
}

static void on_decision_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        if (error && job->writing.decision == DECISION_PIVOT) {
                /* Where this cannot be written, the record at PENDING cannot be either. */
                if (job->record.decision == DECISION_PIVOT)
                        job_refuse(job, error);
        } else if (error) {
                /* Leaving the source as the disk needs no record. */
                job_warn(job, error);
                job->written.decision = job->writing.decision;
        }
        job_step_end(job);
}

void record_decision_run(Job *job)
{
        /* What its options say is on stable storage since the start. */
        gboolean is_news = !job->driver->two_phase || job->record.decision != job_automatic(job);

        job->decision_time = g_get_real_time();
        job_write(job, is_news ? JOURNAL_SYNCED : JOURNAL_LATE, on_decision_recorded);
}

static void on_asked(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU) && !job_is_past_ready(job)) {
                /* Somebody may have decided otherwise meanwhile; then that is asked next. */
                gboolean still_wanted = job->record.decision == job->asked;

                job->asked = DECISION_NONE;
                if (still_wanted)
                        job_refuse(job, error);
        }
        job_step_end(job);
}

void ask_command(Job *job, const char *command, JsonObject *arguments)
{
        job_execute(job, command, arguments, on_asked);
}

StepState reach_pending_state(const Job *job)
{
        return job_has_ended(job) || (job_is_connected(job) && job->status == STATUS_PENDING) ? STEP_DONE
                                                                                              : STEP_WAIT;
}

/* What the job changes or makes invalid, and where it writes. */
static GPtrArray *images_at_stake(const Job *job)
{
        GPtrArray *paths = files_names(job->images);

        if (job->target && *job->target == '/' &&
            !g_ptr_array_find_with_equal_func(paths, job->target, g_str_equal, NULL))
                g_ptr_array_add(paths, g_strdup(job->target));
        return paths;
}

static void on_disks_checked(Job *job, const GError *error)
{
        JobLooked checked = job->users_done;

        if (error || job->driver->keeps_contents)
                checked(job, error);
        else
                plan_check_overlays(job, images_at_stake(job), checked);
}

void life_check_users(Job *job, JobLooked checked)
{
        job->users_done = checked;
        files_check_users(job, images_at_stake(job), FALSE, plan_uses(job), on_disks_checked);
}

StepState finalize_state(const Job *job)
{
        if (job_has_ended(job) || (job_is_connected(job) && job->status != STATUS_PENDING))
                return STEP_DONE;
        return job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

static void on_finalize_looked(Job *job, const GError *error)
{
        (void) error;
        job_step_end(job);
}

static void on_finalized(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;

        (void) result;
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU))
                job->host->look(job->host, job, on_finalize_looked);
        else
                job_step_end(job);
}

void finalize_command(Job *job, gboolean finalize)
{
        job_execute(job, finalize ? "job-finalize" : "job-cancel", json_make("s:id", job->qemu_id, NULL),
                    on_finalized);
}

StepState conclude_state(const Job *job)
{
        return job_has_ended(job) ? STEP_DONE : STEP_WAIT;
}

gboolean job_outcome_is_seen(const Job *job)
{
        return job->record.result != RESULT_NONE || job->record.stage_over;
}

gboolean job_outcome_is_written(const Job *job)
{
        return job->written.result != RESULT_NONE ||
               (job->record.result == RESULT_NONE && job->written.stage_over);
}

StepState look_state(const Job *job)
{
        if (job_outcome_is_seen(job))
                return STEP_DONE;
        return job->gone || job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

void look_command(Job *job, JobLooked looked)
{
        if (job->gone)
                looked(job, NULL);
        else
                job->host->look(job->host, job, looked);
}

void set_result(Job *job, JobResult result)
{
        job->record.result = result;
        job->record.stage_over = FALSE;
        job->end_time = g_get_real_time();
        if (job->refusal && result != RESULT_COMPLETED)
                job_set_error(job, job->refusal->code, "the %s was given up: %s",
                              job->driver->two_phase ? "pivot" : "end of the job", job->refusal->message);
}

gboolean job_was_cancelled(const Job *job)
{
        return g_strcmp0(job->qemu_error, g_strerror(ECANCELED)) == 0 ||
               g_strcmp0(job->qemu_error, "Operation canceled") == 0;
}

void set_result_failed(Job *job)
{
        set_result(job, RESULT_FAILED);
        job_set_error(job, bj_error_of_qemu(job->qemu_error), "%s", job->qemu_error);
}

StepState compare_images_state(const Job *job)
{
        return (job->recovered || job->gone) && job->images && !job->compared && job_outcome_is_seen(job) &&
                               !job_outcome_is_written(job)
                       ? STEP_DUE
                       : STEP_DONE;
}

static void on_images_compared(Job *job, const GError *error)
{
        job->compared = TRUE;
        if (error) {
                g_autofree char *before = g_strdup(job->error_message);

                job_set_error(job, job->error_code, "%s%s%s", before ? before : "", before ? "; " : "",
                              error->message);
                job_warn(job, error);
                if (!job->left_behind)
                        job->left_behind = g_strdup(error->message);
        }
        job_step_end(job);
}

void compare_images_run(Job *job)
{
        files_check_images(job, on_images_compared);
}

StepState record_outcome_state(const Job *job)
{
        if (job_outcome_is_written(job))
                return STEP_DONE;
        return job->retry ? STEP_WAIT : STEP_DUE;
}

static gboolean on_retry(gpointer data)
{
        Job *job = data;

        job->retry = 0;
        job_advance(job);
        return G_SOURCE_REMOVE;
}

void retry_later(Job *job, const GError *error)
{
        job_warn(job, error);
        job->retry = g_timeout_add(RETRY_MILLISECONDS, on_retry, job);
}

/* The layers that a commit has merged stay as files, unless they are removed. */
static void note_merged(Job *job)
{
        gboolean done = job->record.result == RESULT_COMPLETED || job->record.stage_over;

        if (done && job->stale && !options_flag(job->options, "delete") &&
            !options_flag(job->options, "keep-top"))
                job->host->spoiled(job->host, files_names(job->stale), job->target);
}

static void on_outcome_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        /* An outcome is not told before it is on stable storage. */
        if (error)
                retry_later(job, error);
        else
                note_merged(job);
        job_step_end(job);
}

void record_outcome_run(Job *job)
{
        nodes_list_unused(job);
        stages_say_how_far(job);
        job_write(job, JOURNAL_SYNCED, on_outcome_recorded);
}

StepState delete_state(const Job *job)
{
        return (job->record.result == RESULT_COMPLETED || job->record.stage_over) &&
                               options_flag(job->options, "delete") && job->stale && !job->deleted &&
                               !job->written.told
                       ? STEP_DUE
                       : STEP_DONE;
}

static void on_deleted(Job *job, const GError *error)
{
        job->deleted = TRUE;
        if (error) {
                job_set_error(job, -1, "%s", error->message);
                job_warn(job, error);
        }
        job_step_end(job);
}

static void on_delete_checked(Job *job, const GError *error)
{
        g_autoptr(GError) nothing = NULL;

        if (!error) {
                files_remove_stale(job, on_deleted);
                return;
        }
        g_set_error(&nothing, BJ_ERROR, error->code, "nothing was deleted: %s", error->message);
        on_deleted(job, nothing);
}

static void on_delete_disks_checked(Job *job, const GError *error)
{
        if (error)
                on_delete_checked(job, error);
        else
                plan_check_overlays(job, files_names(job->stale), on_delete_checked);
}

/* What the job made invalid can be read all the same, by somebody who has begun to since it was planned. */
void delete_run(Job *job)
{
        g_autoptr(GError) error = NULL;

        if (job->left_behind) {
                g_set_error(&error, BJ_ERROR, BJ_ERROR_FAILED, "%s", job->left_behind);
                on_delete_checked(job, error);
        } else if (options_flag(job->options, "force"))
                on_delete_checked(job, NULL);
        else
                files_check_users(job, files_names(job->stale), TRUE, plan_uses(job),
                                  on_delete_disks_checked);
}

StepState record_domain_state(const Job *job)
{
        if (job->domain_recorded || job->written.told || (!job->driver->silent && !job->host->is_defined))
                return STEP_DONE;
        return job->retry ? STEP_WAIT : STEP_DUE;
}

static void on_domain_recorded(Job *job, const GError *error)
{
        /* Until it is, the job's own record is the one that says it. */
        if (error)
                retry_later(job, error);
        else
                job->domain_recorded = TRUE;
        job_step_end(job);
}

void record_domain_run(Job *job)
{
        job->host->save(job->host, job, on_domain_recorded);
}

StepState close_state(const Job *job)
{
        return job->host->close && !job->gone ? STEP_DUE : STEP_DONE;
}

static void on_closed(Job *job, const GError *error)
{
        if (error)
                job_warn(job, error);
        job_step_end(job);
}

void close_run(Job *job)
{
        job->host->close(job->host, job, on_closed);
}

StepState tell_state(const Job *job)
{
        if (job->concluded)
                return STEP_DONE;
        return job->host->may_tell ? STEP_DUE : STEP_WAIT;
}

static void on_end_recorded(const GError *error, gpointer data)
{
        Job *job = data;

        if (!job->host) {
                /* The domain was taken away meanwhile: told when the job is adopted. */
                job_step_end(job);
                return;
        }
        if (error)
                job_warn(job, error);
        job->concluded = TRUE;
        job_update_state(job);
        job_changed(job, JOB_CHANGED_RESULT | JOB_CHANGED_END |
                                 (job->error_code >= 0 || job->error_message ? JOB_CHANGED_ERROR : 0));
        job->host->observer->concluded(job, job->host->observer_data);
        job_step_end(job);
}

void tell_run(Job *job)
{
        job_write(job, JOURNAL_LATE, on_end_recorded);
}

void job_told(Job *job)
{
        JsonObject *mark;

        if (job->concluded)
                job->record.told = job->written.told = TRUE;
        mark = job->concluded ? json_make("b:told", TRUE, NULL)
                              : json_make("i:ready-time", job->ready_time, NULL);
        if (!journal_mark(job->host->journal, JOURNAL_JOBS, job->id, mark))
                journal_write(job->host->journal, JOURNAL_JOBS, job->id, job_to_json(job), JOURNAL_LATE,
                              NULL, NULL);
        test_point(job->concluded ? "told" : "told-ready");
}
