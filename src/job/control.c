/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/job.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "job/life.h"
#include "job/stages.h"

static gboolean check_active(const Job *job, GError **error)
{
        if (job->record.result != RESULT_NONE || job->gone) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_NOT_ACTIVE, "job '%s' has ended%s%s", job->id,
                            job->record.result ? ": " : "", job_result_name(job->record.result));
                return FALSE;
        }
        if (!job->host || !job->synced || !job->host->qmp) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_DISCONNECTED,
                            "there is no connection to the QEMU of job '%s' (domain '%s')", job->id,
                            job->domain);
                return FALSE;
        }
        return TRUE;
}

/* Once the record that names the target is on its way to the disk, there is no way back. */
static gboolean target_is_recorded(const Job *job)
{
        return job->record.disk_is == DISK_IS_TARGET;
}

gboolean job_pivot(Job *job, GError **error)
{
        if (!check_active(job, error))
                return FALSE;
        if (job->driver->external) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED,
                            "job '%s' was started by somebody else (QEMU's '%s'): who started it has to end "
                            "it, here "
                            "it can be aborted",
                            job->id, job->qemu_id);
                return FALSE;
        }
        if (!job->driver->two_phase && strcmp(job->driver->type, "active-commit") != 0) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_NOT_READY,
                            "job '%s' is a %s: it has no second phase and ends by itself", job->id,
                            job->driver->type);
                return FALSE;
        }
        if (!job_is_ready(job)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_NOT_READY,
                            "job '%s' is not ready for a pivot yet (%.0f %%): wait for its Ready signal",
                            job->id, job_progress(job) * 100);
                return FALSE;
        }
        if (job->record.decision == DECISION_KEEP || job->record.decision == DECISION_CANCEL) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "job '%s' is being aborted", job->id);
                return FALSE;
        }
        job->record.decision = DECISION_PIVOT;
        g_clear_error(&job->refusal);
        job_advance(job);
        return TRUE;
}

gboolean job_abort(Job *job, gboolean force, GError **error)
{
        if (!check_active(job, error))
                return FALSE;
        if (target_is_recorded(job)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_STATE,
                            "the pivot of job '%s' is decided and recorded: '%s' is the disk", job->id,
                            job->target);
                return FALSE;
        }
        g_clear_error(&job->refusal);
        if (force || !job_is_ready(job))
                job->record.decision = DECISION_CANCEL;
        else if (job->record.decision != DECISION_CANCEL)
                job->record.decision = DECISION_KEEP;
        job_advance(job);
        return TRUE;
}

/* A command on behalf of a caller, beside the steps of the job's life. */
typedef struct {
        Job *job;
        guint64 speed;
        gboolean pause;
        char *mode;
        JobDone done;
        gpointer data;
} Control;

static Control *control_new(Job *job, JobDone done, gpointer data)
{
        Control *control = g_new0(Control, 1);

        control->job = job_ref(job);
        control->done = done;
        control->data = data;
        return control;
}

/* The events that came before the refusal tell what is behind it: the job came to its end meanwhile. */
static void explain(const Job *job, GError **error)
{
        gboolean has_ended = job->status == STATUS_CONCLUDED || job->status == STATUS_ABSENT;

        if (!g_error_matches(*error, BJ_ERROR, BJ_ERROR_QEMU) || job->status == STATUS_RUNNING ||
            job->status == STATUS_PAUSED || job->status == STATUS_READY || job->status == STATUS_STANDBY)
                return;
        (*error)->code = has_ended ? BJ_ERROR_NOT_ACTIVE : BJ_ERROR_INVALID_STATE;
        g_prefix_error(error, "job '%s' %s: ", job->id, has_ended ? "has ended" : "is at its end");
}

static void control_end(Control *control, const GError *refusal)
{
        g_autoptr(GError) error = refusal ? g_error_copy(refusal) : NULL;

        if (error)
                explain(control->job, &error);
        control->done(control->job, error, control->data);
        job_unref(control->job);
        g_free(control->mode);
        g_free(control);
}

static void fail(Job *job, GError *error, JobDone done, gpointer data)
{
        done(job, error, data);
        g_error_free(error);
}

/* QEMU was done with a layer when it came there. */
static gboolean came_too_late(const Job *job, const GError *error)
{
        return g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU) && stages_keep_orders(job);
}

static void speed_is(Job *job, guint64 speed)
{
        if (job->speed == speed)
                return;
        job->speed = speed;
        job_changed(job, JOB_CHANGED_SPEED);
}

static void on_speed_set(JsonNode *result, const GError *error, gpointer data)
{
        Control *control = data;
        gboolean later = came_too_late(control->job, error);

        (void) result;
        if (!error || later)
                speed_is(control->job, control->speed);
        if (later)
                stages_keep(control->job);
        control_end(control, later ? NULL : error);
}

void job_set_speed(Job *job, guint64 speed, JobDone done, gpointer data)
{
        GError *error = NULL;

        if (!check_active(job, &error)) {
                fail(job, error, done, data);
                return;
        }
        if (speed > G_MAXINT64) {
                fail(job,
                     g_error_new(BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                                 "speed %" G_GUINT64_FORMAT
                                 " is out of range: 0 (no limit) to %" G_GINT64_FORMAT " bytes per second",
                                 speed, G_MAXINT64),
                     done, data);
                return;
        }
        if (stages_keep_orders(job)) {
                speed_is(job, speed);
                stages_keep(job);
                done(job, NULL, data);
                return;
        }
        Control *control = control_new(job, done, data);
        control->speed = speed;
        qmp_execute(job->host->qmp, "block-job-set-speed",
                    json_make("s:device", job->qemu_id, "i:speed", (gint64) speed, NULL), on_speed_set,
                    control);
}

/* Somebody else was faster. */
static gboolean is_so_already(const GError *error)
{
        return g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU) &&
               (strstr(error->message, "already paused") || strstr(error->message, "not paused"));
}

static void on_paused_or_resumed(JsonNode *result, const GError *refusal, gpointer data)
{
        Control *control = data;
        Job *job = control->job;
        const GError *error = is_so_already(refusal) ? NULL : refusal;
        gboolean later = came_too_late(job, error);

        (void) result;
        job->paused_by_user = error && !later ? !control->pause : control->pause;
        if (later)
                stages_keep(job);
        else if (!error && !control->pause)
                job_seen_resumed(job);
        job_update_state(job);
        control_end(control, later ? NULL : error);
}

static void pause_or_resume(Job *job, gboolean pause, JobDone done, gpointer data)
{
        GError *error = NULL;

        if (!check_active(job, &error)) {
                fail(job, error, done, data);
                return;
        }
        if (pause && (job->state == JOB_COMPLETING || job->state == JOB_STARTING)) {
                fail(job,
                     g_error_new(BJ_ERROR, BJ_ERROR_INVALID_STATE, "job '%s' is %s, it cannot be paused",
                                 job->id, job_state_name(job->state)),
                     done, data);
                return;
        }
        if (pause == (job->state == JOB_PAUSED)) {
                done(job, NULL, data);
                return;
        }
        if (stages_keep_orders(job)) {
                job->paused_by_user = pause;
                stages_keep(job);
                done(job, NULL, data);
                return;
        }
        Control *control = control_new(job, done, data);
        control->pause = job->paused_by_user = pause;
        qmp_execute(job->host->qmp, pause ? "job-pause" : "job-resume",
                    json_make("s:id", job->qemu_id, NULL), on_paused_or_resumed, control);
}

void job_pause(Job *job, JobDone done, gpointer data)
{
        pause_or_resume(job, TRUE, done, data);
}

void job_resume(Job *job, JobDone done, gpointer data)
{
        pause_or_resume(job, FALSE, done, data);
}

static void on_mode_recorded(const GError *error, gpointer data)
{
        Control *control = data;

        /* It holds as long as the service runs. */
        if (error)
                job_warn(control->job, error);
        control_end(control, NULL);
}

/* QEMU does not say later which one it is. */
static void on_mode_set(JsonNode *result, const GError *error, gpointer data)
{
        Control *control = data;
        Job *job = control->job;

        (void) result;
        if (error || strcmp(job->mode, control->mode) == 0) {
                control_end(control, error);
                return;
        }
        g_free(job->mode);
        job->mode = g_steal_pointer(&control->mode);
        job_changed(job, JOB_CHANGED_MODE);
        journal_write(job->host->journal, JOURNAL_JOBS, job->id, job_to_json(job), JOURNAL_LATE,
                      on_mode_recorded, control);
}

static gboolean check_mode(const Job *job, const char *mode, GError **error)
{
        if (strcmp(mode, "write-blocking") != 0)
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "mode '%s': the only mode that a running job can change to is 'write-blocking'",
                            mode);
        else if (!check_active(job, error))
                return FALSE;
        else if (strcmp(job->driver->type, "copy") != 0)
                g_set_error(error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED,
                            "QEMU has no write-blocking mode for a job of type '%s'", job->driver->type);
        else if (!job->host->capabilities->has[CAPABILITY_SET_MODE])
                g_set_error(error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED,
                            "the QEMU of job '%s' cannot change the mode of a running job: it lacks "
                            "block-job-change "
                            "(give the option 'mode' at the start)",
                            job->id);
        else
                return TRUE;
        return FALSE;
}

void job_set_mode(Job *job, const char *mode, JobDone done, gpointer data)
{
        GError *error = NULL;
        Control *control;

        if (!check_mode(job, mode, &error)) {
                fail(job, error, done, data);
                return;
        }
        if (strcmp(job->mode, mode) == 0) {
                done(job, NULL, data);
                return;
        }
        control = control_new(job, done, data);
        control->mode = g_strdup(mode);
        qmp_execute(job->host->qmp, "block-job-change",
                    json_make("s:id", job->qemu_id, "s:type", "mirror", "s:copy-mode", mode, NULL),
                    on_mode_set, control);
}
