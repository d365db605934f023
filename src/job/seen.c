/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/job.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "job/stages.h"

static const char *const status_names[] = {
        [STATUS_CREATED] = "created", [STATUS_RUNNING] = "running",   [STATUS_PAUSED] = "paused",
        [STATUS_READY] = "ready",     [STATUS_STANDBY] = "standby",   [STATUS_WAITING] = "waiting",
        [STATUS_PENDING] = "pending", [STATUS_ABORTING] = "aborting", [STATUS_CONCLUDED] = "concluded",
        [STATUS_ABSENT] = "null",
};

static gboolean is_stopped(const Job *job)
{
        return job->status == STATUS_PAUSED || job->status == STATUS_STANDBY;
}

static void set_status(Job *job, const char *name)
{
        gboolean stopped = is_stopped(job);

        for (guint i = 0; i < G_N_ELEMENTS(status_names); i++)
                if (g_strcmp0(status_names[i], name) == 0)
                        job->status = (JobStatus) i;
        /* Whoever it was. */
        if (stopped && (job->status == STATUS_RUNNING || job->status == STATUS_READY))
                job->paused_by_user = FALSE;
}

static void set_qemu_error(Job *job, const char *error)
{
        if (!error)
                return;
        g_free(job->qemu_error);
        job->qemu_error = g_strdup(error);
}

static void set_hold(Job *job, gint64 until)
{
        if (!job->hold_start || job->hold || until <= job->hold_start)
                return;
        job->hold = until - job->hold_start;
        job_changed(job, JOB_CHANGED_HOLD);
}

static void set_progress(Job *job, guint64 current, guint64 total)
{
        double before = job_progress(job);
        guint changes;

        if (job->stages > 1) {
                guint64 left = job->stages - job->stage - 1;

                current += job->stages_copied;
                total += job->stages_copied + left * total;
        }
        changes = (job->current != current ? JOB_CHANGED_CURRENT : 0) |
                  (job->total != total ? JOB_CHANGED_TOTAL : 0);
        job->current = current;
        job->total = total;
        job_changed(job, changes | (job_progress(job) != before ? JOB_CHANGED_PROGRESS : 0));
}

void job_seen_status(Job *job, const char *status, gint64 when)
{
        set_status(job, status);
        /* From `waiting` on the source is drained: this is where guest writes begin to hang. */
        if (job->status == STATUS_WAITING && job->driver->two_phase && !job->hold_start)
                job->hold_start = when;
        if (job->status == STATUS_CONCLUDED)
                set_hold(job, when);
        if (!is_stopped(job))
                job->paused_seen = 0;
        /* How far it is comes right behind it, and is to be told before Ready. */
        if (job->status == STATUS_READY && job->driver->two_phase && !job->ready_time)
                job_update_state(job);
        else
                job_advance(job);
}

static void set_io_status(Job *job, gboolean no_space, gboolean failed)
{
        if (job->no_space == no_space && job->io_failed == failed)
                return;
        job->no_space = no_space;
        job->io_failed = failed;
        job_changed(job, JOB_CHANGED_IO_STATUS);
}

/* QEMU forgets the error then. */
void job_seen_resumed(Job *job)
{
        job->paused_seen = 0;
        set_io_status(job, FALSE, FALSE);
}

void job_seen_ready(Job *job, JsonObject *data)
{
        if (json_object_has_member(data, "len"))
                set_progress(job, (guint64) json_integer(data, "offset"),
                             (guint64) json_integer(data, "len"));
        job_advance(job);
}

void job_seen_ended(Job *job, JsonObject *data, const char *error, gint64 when)
{
        if (json_object_has_member(data, "len"))
                set_progress(job, (guint64) json_integer(data, "offset"),
                             (guint64) json_integer(data, "len"));
        set_qemu_error(job, error);
        set_hold(job, when);
        job->end_seen = TRUE;
}

void job_seen_query(Job *job, JsonObject *entry)
{
        if (!entry) {
                job->status = STATUS_ABSENT;
                return;
        }
        set_status(job, json_string(entry, "status"));
        /* It began to be held while nobody was there: no longer ago than it was asked for. */
        if (job->driver->two_phase && job->status == STATUS_PENDING && !job->hold_start)
                job->hold_start = job->decision_time;
        set_qemu_error(job, json_string(entry, "error"));
        set_progress(job, (guint64) json_integer(entry, "current-progress"),
                     (guint64) json_integer(entry, "total-progress"));
        /* The reply to its start was lost, but there it is. */
        job->record.accepted = TRUE;
}

void job_seen_block_query(Job *job, JsonObject *entry)
{
        const char *io_status = json_string(entry, "io-status");
        gboolean no_space = g_strcmp0(io_status, "nospace") == 0;
        gboolean failed = g_strcmp0(io_status, "failed") == 0;
        guint64 speed = (guint64) json_integer(entry, "speed");

        set_progress(job, (guint64) json_integer(entry, "offset"), (guint64) json_integer(entry, "len"));
        set_io_status(job, no_space, failed);
        /* What it says of a layer that is over is not what the next one is to have. */
        if (job->speed != speed && !stages_are_between(job)) {
                job->speed = speed;
                job_changed(job, JOB_CHANGED_SPEED);
        }
        set_status(job, json_string(entry, "status"));
        /* QEMU pauses jobs for a moment of its own accord; one that is seen twice is somebody's. */
        job->paused_seen = json_boolean(entry, "paused") ? job->paused_seen + 1 : 0;
        job_advance(job);
        job_update_state(job);
}

static void end_part(Job *job, const GError *error)
{
        QmpReply done = g_steal_pointer(&job->part_done);

        if (done)
                done(NULL, error, job);
}

void job_part_ended(Job *job)
{
        if (!job->part_under_way)
                return;
        job->part_under_way = FALSE;
        if (job->host)
                job->host->created(job->host);
}

void job_seen_part(Job *job, const char *status)
{
        if (g_strcmp0(status, "concluded") != 0)
                return;
        job->part_over = TRUE;
        job_part_ended(job);
        end_part(job, NULL);
}

void job_connection_lost(Job *job)
{
        g_autoptr(GError) error =
                g_error_new(BJ_ERROR, BJ_ERROR_DISCONNECTED,
                            "the connection to the QEMU of domain '%s' was lost", job->domain);

        job->synced = FALSE;
        job->asked = DECISION_NONE;
        job->paused_seen = 0;
        job_part_ended(job);
        end_part(job, error);
        job_update_state(job);
}

void job_qemu_gone(Job *job)
{
        job->gone = TRUE;
        job->status = STATUS_ABSENT;
        job_advance(job);
}
