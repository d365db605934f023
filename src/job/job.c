/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/job.h"

#include <stdarg.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/boot.h"
#include "base/error.h"
#include "base/json.h"
#include "job/stages.h"

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

gboolean job_is_of_this_boot(const Job *job)
{
        const char *boot = boot_id();

        return g_str_has_prefix(job->instance, boot) && job->instance[strlen(boot)] == '/';
}

gboolean job_id_is_good(const char *id)
{
        return g_ascii_isalpha(*id) && id[strspn(id, G_CSET_a_2_z G_CSET_DIGITS)] == '\0';
}

const char *job_id_in(const char *qemu_id)
{
        const char *dash = g_str_has_prefix(qemu_id, "bj-") ? strrchr(qemu_id, '-') : NULL;

        return dash && job_id_is_good(dash + 1) ? dash + 1 : NULL;
}

char *job_make_qemu_id(const Job *job)
{
        g_autofree char *disk = g_strdup(job->disk);
        g_autofree char *stage =
                job->stage ? g_strdup_printf(".%" G_GUINT64_FORMAT, job->stage) : g_strdup("");

        /* QEMU's job ids take fewer characters than names of disks have. */
        g_strcanon(disk, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "._-", '_');
        return g_strdup_printf("bj-%s%s-%s-%s", job->driver->kind, stage, disk, job->id);
}

Job *job_new(const JobDriver *driver, const char *domain, const char *disk, const char *device)
{
        Job *job = g_new0(Job, 1);

        g_ref_count_init(&job->references);
        job->driver = driver;
        job->id = make_id();
        job->domain = g_strdup(domain);
        job->disk = g_strdup(disk);
        job->device = g_strdup(device);
        job->qemu_id = job_make_qemu_id(job);
        job->filter = g_strdup_printf("bj-%s", job->id);
        job->mode = g_strdup(driver->mode ? driver->mode : "");
        job->error_code = -1;
        job->start_time = g_get_real_time();
        return job;
}

void job_set_target(Job *job, const char *target, int fd)
{
        g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
        g_autofree char *path = fd >= 0 ? g_file_read_link(link, NULL) : NULL;

        job->target = g_strdup(target ? target : path ? path : "a descriptor");
        job->image = g_new0(NewImage, 1);
        job->image->fd = fd;
        /* A number of ours, so that it stands in the record before QEMU has it; QEMU's own begin at 0. */
        if (fd >= 0)
                job->fdset = g_random_int_range(1 << 20, G_MAXINT32);
}

void new_image_free(NewImage *image)
{
        if (!image)
                return;
        if (image->fd >= 0)
                close(image->fd);
        g_clear_pointer(&image->protocol, json_object_unref);
        char *owned[] = { image->driver, image->format, image->backing, image->backing_format };
        for (guint i = 0; i < G_N_ELEMENTS(owned); i++)
                g_free(owned[i]);
        g_free(image);
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
        g_clear_pointer(&job->stale, g_ptr_array_unref);
        g_clear_pointer(&job->spoiled, g_ptr_array_unref);
        g_clear_pointer(&job->images, g_ptr_array_unref);
        g_clear_pointer(&job->unused, g_ptr_array_unref);
        g_clear_pointer(&job->image, new_image_free);
        GError **errors[] = { &job->refusal, &job->start_error, &job->part_error };
        for (guint i = 0; i < G_N_ELEMENTS(errors); i++)
                g_clear_error(errors[i]);
        char *owned[] = { job->id,
                          job->domain,
                          job->disk,
                          job->device,
                          job->qemu_id,
                          job->filter,
                          job->source,
                          job->target,
                          job->source_node,
                          job->target_node,
                          job->end_node,
                          job->header_node,
                          job->range_node,
                          job->active,
                          job->below,
                          job->backing,
                          job->source_format,
                          job->target_format,
                          job->instance,
                          job->mode,
                          job->qemu_error,
                          job->error_message,
                          job->root_node,
                          job->left_behind,
                          job->backing_format,
                          job->part_id };
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
        return job->driver->two_phase && job->ready_time != 0;
}

JobDecision job_automatic(const Job *job)
{
        const char *given = options_text(job->options, "auto");

        if (!given && job->host->is_shut_off)
                given = job->driver->automatic;
        if (!given)
                return DECISION_NONE;
        return strcmp(given, "pivot") == 0 ? DECISION_PIVOT : DECISION_KEEP;
}

const char *job_disk_image(const Job *job)
{
        /* Only a pivot moves the disk. */
        if (job->driver->two_phase &&
            (job->record.result == RESULT_COMPLETED || job->record.result == RESULT_PIVOTED))
                return job->target;
        return job->active;
}

double job_progress(const Job *job)
{
        if (job->total == 0)
                return job_is_ready(job) ? 1.0 : 0.0;
        return CLAMP((double) job->current / (double) job->total, 0.0, 1.0);
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
        if (!job->record.accepted && !job->announced)
                return JOB_STARTING;
        if (job->gone || job->record.result != RESULT_NONE)
                return JOB_COMPLETING;
        if (!job->host || !job->synced)
                return JOB_DISCONNECTED;
        if ((job->status >= STATUS_WAITING || job->status == STATUS_ABSENT) &&
            (job->record.decision != DECISION_NONE || !stages_are_between(job)))
                return JOB_COMPLETING;
        /* Also when QEMU pauses it on the way to its end, for want of room say: somebody has to resume it.
         */
        if (shows_pause(job) || stages_are_held(job))
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
