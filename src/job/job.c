/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/job.h"

#include <stdarg.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/json.h"

/* Of QEMU's words, which go into records and signals. */
#define ERROR_MAX 4096

static const char *const state_names[] = {
        [JOB_STARTING] = "starting",
        [JOB_RUNNING] = "running",
        [JOB_PAUSED] = "paused",
        [JOB_READY] = "ready",
        [JOB_COMPLETING] = "completing",
        [JOB_CONCLUDED] = "concluded",
        [JOB_DISCONNECTED] = "disconnected",
};

/* These stand in records too: never rename one. */
static const char *const result_names[] = {
        [RESULT_NONE] = "",           [RESULT_COMPLETED] = "completed",
        [RESULT_KEPT] = "kept",       [RESULT_CANCELLED] = "cancelled",
        [RESULT_FAILED] = "failed",   [RESULT_LOST] = "lost",
        [RESULT_PIVOTED] = "pivoted",
};
static const char *const decision_names[] = {
        [DECISION_NONE] = "",
        [DECISION_PIVOT] = "pivot",
        [DECISION_KEEP] = "keep",
        [DECISION_CANCEL] = "cancel",
};
static const char *const disk_names[] = {
        [DISK_IS_OPEN] = "",
        [DISK_IS_SOURCE] = "source",
        [DISK_IS_TARGET] = "target",
};

static int index_of(const char *const *names, guint n, const char *name)
{
        for (guint i = 0; i < n; i++)
                if (g_strcmp0(names[i], name) == 0)
                        return (int) i;
        return -1;
}

const char *job_state_name(JobState state)
{
        return state_names[state];
}

const char *job_result_name(JobResult result)
{
        return result_names[result];
}

/* 75 random bits as [a-z][a-z0-9]*: never used twice, whatever restarts in between, and a path element that
 * needs no escaping. */
static char *make_id(void)
{
        static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
        guint8 bytes[15];
        char *id = g_new0(char, sizeof(bytes) + 1);

        if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
                g_error("no random numbers to be had");
        for (guint i = 0; i < sizeof(bytes); i++)
                id[i] = alphabet[bytes[i] % (i == 0 ? 26 : 32)];
        return id;
}

Job *job_new(const JobDriver *driver, const char *domain, const char *disk, const char *device)
{
        Job *job = g_new0(Job, 1);
        g_autofree char *id_disk = g_strdup(disk);

        g_ref_count_init(&job->references);
        job->driver = driver;
        job->id = make_id();
        job->domain = g_strdup(domain);
        job->disk = g_strdup(disk);
        job->device = g_strdup(device);
        /* QEMU's job ids take fewer characters than names of disks have. */
        g_strcanon(id_disk, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "._-", '_');
        job->qemu_id = g_strdup_printf("bj-%s-%s-%s", driver->kind, id_disk, job->id);
        job->filter = g_strdup_printf("bj-%s", job->id);
        job->error_code = -1;
        job->start_time = g_get_real_time();
        return job;
}

Job *job_ref(Job *job)
{
        g_ref_count_inc(&job->references);
        return job;
}

void job_unref(Job *job)
{
        if (!job || !g_ref_count_dec(&job->references))
                return;
        g_clear_handle_id(&job->retry, g_source_remove);
        g_clear_pointer(&job->options, g_ptr_array_unref);
        g_clear_error(&job->refusal);
        char *owned[] = { job->id,       job->domain,     job->disk,          job->device,   job->qemu_id,
                          job->filter,   job->top_node,   job->base_node,     job->source,   job->target,
                          job->instance, job->qemu_error, job->error_message, job->root_node };
        for (guint i = 0; i < G_N_ELEMENTS(owned); i++)
                g_free(owned[i]);
        g_free(job);
}

void job_set_host(Job *job, JobHost *host)
{
        job->host = host;
        if (!host)
                job->synced = FALSE;
        job_update_state(job);
}

gboolean job_is_ready(const Job *job)
{
        return job->ready_time != 0;
}

double job_progress(const Job *job)
{
        if (job->total == 0)
                return job_is_ready(job) ? 1.0 : 0.0;
        return CLAMP((double) job->current / (double) job->total, 0.0, 1.0);
}

JsonObject *job_to_json(const Job *job)
{
        return json_make(
                "s:id", job->id, "s:type", job->driver->type, "s:domain", job->domain, "s:disk", job->disk,
                "s:device", job->device, "s:qemu-job-id", job->qemu_id, "s:filter-node", job->filter,
                "s:top-node", job->top_node, "s:base-node", job->base_node, "s:source", job->source,
                "s:target", job->target, "b:base-was-read-only", job->base_was_read_only, "s:instance",
                job->instance, "o:options", options_to_json(job->options), "i:started-by",
                (gint64) job->started_by, "i:start-time", job->start_time, "b:accepted",
                job->record.accepted, "s:decision", decision_names[job->record.decision], "s:disk-is",
                disk_names[job->record.disk_is], "i:hold-start", job->hold_start, "i:hold", job->hold,
                "i:ready-time", job->ready_time, "i:end-time", job->end_time, "s:result",
                result_names[job->record.result], "i:error-code", (gint64) job->error_code,
                "s:error-message", job->error_message, "i:current", (gint64) job->current, "i:total",
                (gint64) job->total, "i:speed", (gint64) job->speed, "b:told", job->record.told, NULL);
}

static const JobDriver *find_driver(const JobDriver *const *drivers, const char *type)
{
        for (; *drivers; drivers++)
                if (g_strcmp0((*drivers)->type, type) == 0)
                        return *drivers;
        return NULL;
}

Job *job_from_json(const char *id, JsonObject *record, const JobDriver *const *drivers)
{
        const JobDriver *driver = find_driver(drivers, json_string(record, "type"));
        int decision =
                index_of(decision_names, G_N_ELEMENTS(decision_names), json_string(record, "decision"));
        int disk_is = index_of(disk_names, G_N_ELEMENTS(disk_names), json_string(record, "disk-is"));
        int result = index_of(result_names, G_N_ELEMENTS(result_names), json_string(record, "result"));
        static const char *const texts[] = { "domain",   "disk",      "device", "qemu-job-id", "filter-node",
                                             "top-node", "base-node", "source", "target",      "instance" };

        for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
                if (!json_string(record, texts[i]))
                        return NULL;
        if (!driver || decision < 0 || disk_is < 0 || result < 0 ||
            g_strcmp0(json_string(record, "id"), id) != 0)
                return NULL;

        Job *job = g_new0(Job, 1);
        g_ref_count_init(&job->references);
        job->driver = driver;
        job->id = g_strdup(id);
        job->domain = g_strdup(json_string(record, "domain"));
        job->disk = g_strdup(json_string(record, "disk"));
        job->device = g_strdup(json_string(record, "device"));
        job->qemu_id = g_strdup(json_string(record, "qemu-job-id"));
        job->filter = g_strdup(json_string(record, "filter-node"));
        job->top_node = g_strdup(json_string(record, "top-node"));
        job->base_node = g_strdup(json_string(record, "base-node"));
        job->source = g_strdup(json_string(record, "source"));
        job->target = g_strdup(json_string(record, "target"));
        job->instance = g_strdup(json_string(record, "instance"));
        job->base_was_read_only = json_boolean(record, "base-was-read-only");
        job->options = options_from_json(json_object(record, "options"));
        job->started_by = (guint32) json_integer(record, "started-by");
        job->start_time = json_integer(record, "start-time");
        job->ready_time = json_integer(record, "ready-time");
        job->end_time = json_integer(record, "end-time");
        job->hold_start = json_integer(record, "hold-start");
        job->hold = json_integer(record, "hold");
        job->current = (guint64) json_integer(record, "current");
        job->total = (guint64) json_integer(record, "total");
        job->speed = (guint64) json_integer(record, "speed");
        job->error_code =
                json_object_has_member(record, "error-code") ? (int) json_integer(record, "error-code") : -1;
        job->error_message = g_strdup(json_string(record, "error-message"));
        job->record = (struct JobRecord){
                .exists = TRUE,
                .accepted = json_boolean(record, "accepted"),
                .told = json_boolean(record, "told"),
                .decision = (JobDecision) decision,
                .disk_is = (JobDisk) disk_is,
                .result = (JobResult) result,
        };
        job->written = job->record;
        job->concluded = job->tidied = job->record.told;
        job->announced = job->record.accepted;
        job->state = job->concluded ? JOB_CONCLUDED : JOB_DISCONNECTED;
        return job;
}

void job_changed(Job *job, guint changes)
{
        if (changes && job->announced && job->host)
                job->host->observer->changed(job, changes, job->host->observer_data);
}

static gboolean shows_pause(const Job *job)
{
        return (job->status == STATUS_PAUSED || job->status == STATUS_STANDBY) &&
               (job->paused_by_user || job->io_failed || job->no_space || job->paused_seen > 1);
}

static JobState derive_state(const Job *job)
{
        if (job->concluded)
                return JOB_CONCLUDED;
        if (!job->record.accepted)
                return JOB_STARTING;
        if (job->gone || job->record.result != RESULT_NONE)
                return JOB_COMPLETING;
        if (!job->host || !job->synced)
                return JOB_DISCONNECTED;
        if (job->status >= STATUS_WAITING || job->status == STATUS_ABSENT)
                return JOB_COMPLETING;
        /* Also when QEMU pauses it on the way to its end, for want of room say: somebody has to resume it.
         */
        if (shows_pause(job))
                return JOB_PAUSED;
        if (job->record.decision != DECISION_NONE)
                return JOB_COMPLETING;
        return job_is_ready(job) ? JOB_READY : JOB_RUNNING;
}

void job_update_state(Job *job)
{
        JobState state = derive_state(job);

        if (state == job->state)
                return;
        job->state = state;
        job_changed(job, JOB_CHANGED_STATE);
}

void job_set_error(Job *job, int code, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        g_autofree char *text = g_strdup_vprintf(format, arguments);
        if (strlen(text) > ERROR_MAX)
                text[ERROR_MAX] = '\0';
        g_free(job->error_message);
        job->error_message = g_utf8_make_valid(text, -1);
        job->error_code = code;
        va_end(arguments);
}
