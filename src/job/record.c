/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "base/json.h"
#include "job/files.h"
#include "job/job.h"
#include "job/stages.h"

/* These stand in records: never rename one. */
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

/* The members of a record, by what they are in the struct. */
static const struct {
        const char *key;
        gsize offset;
        gboolean optional;
} texts[] = {
        { "id", G_STRUCT_OFFSET(Job, id) },
        { "domain", G_STRUCT_OFFSET(Job, domain) },
        { "disk", G_STRUCT_OFFSET(Job, disk) },
        { "device", G_STRUCT_OFFSET(Job, device) },
        { "qemu-job-id", G_STRUCT_OFFSET(Job, qemu_id) },
        { "filter-node", G_STRUCT_OFFSET(Job, filter) },
        { "source-node", G_STRUCT_OFFSET(Job, source_node) },
        { "target-node", G_STRUCT_OFFSET(Job, target_node) },
        { "end-node", G_STRUCT_OFFSET(Job, end_node), TRUE },
        { "header-node", G_STRUCT_OFFSET(Job, header_node), TRUE },
        { "range-node", G_STRUCT_OFFSET(Job, range_node), TRUE },
        { "root-node", G_STRUCT_OFFSET(Job, root_node), TRUE },
        { "source", G_STRUCT_OFFSET(Job, source) },
        { "target", G_STRUCT_OFFSET(Job, target) },
        { "active", G_STRUCT_OFFSET(Job, active), TRUE },
        { "below", G_STRUCT_OFFSET(Job, below), TRUE },
        { "source-format", G_STRUCT_OFFSET(Job, source_format), TRUE },
        { "target-format", G_STRUCT_OFFSET(Job, target_format), TRUE },
        { "backing", G_STRUCT_OFFSET(Job, backing), TRUE },
        { "backing-format", G_STRUCT_OFFSET(Job, backing_format), TRUE },
        { "instance", G_STRUCT_OFFSET(Job, instance) },
        { "mode", G_STRUCT_OFFSET(Job, mode), TRUE },
        { "error-message", G_STRUCT_OFFSET(Job, error_message), TRUE },
};
/* 64 bits each. */
static const struct {
        const char *key;
        gsize offset;
} numbers[] = {
        { "start-time", G_STRUCT_OFFSET(Job, start_time) },
        { "ready-time", G_STRUCT_OFFSET(Job, ready_time) },
        { "end-time", G_STRUCT_OFFSET(Job, end_time) },
        { "decision-time", G_STRUCT_OFFSET(Job, decision_time) },
        { "hold-start", G_STRUCT_OFFSET(Job, hold_start) },
        { "hold", G_STRUCT_OFFSET(Job, hold) },
        { "current", G_STRUCT_OFFSET(Job, current) },
        { "total", G_STRUCT_OFFSET(Job, total) },
        { "speed", G_STRUCT_OFFSET(Job, speed) },
        { "fdset", G_STRUCT_OFFSET(Job, fdset) },
        { "estimate", G_STRUCT_OFFSET(Job, estimate) },
        { "stage", G_STRUCT_OFFSET(Job, stage) },
        { "stages", G_STRUCT_OFFSET(Job, stages) },
        { "stages-copied", G_STRUCT_OFFSET(Job, stages_copied) },
};

static char **text_of(const Job *job, guint i)
{
        return G_STRUCT_MEMBER_P(job, texts[i].offset);
}

static gint64 *number_of(const Job *job, guint i)
{
        return G_STRUCT_MEMBER_P(job, numbers[i].offset);
}

static JsonArray *names_to_json(const GPtrArray *names)
{
        JsonArray *array = json_array_new();

        for (guint i = 0; i < names->len; i++)
                json_array_add_string_element(array, names->pdata[i]);
        return array;
}

static GPtrArray *names_from_json(JsonArray *array)
{
        GPtrArray *names = g_ptr_array_new_with_free_func(g_free);

        for (guint i = 0; i < json_array_get_length(array); i++) {
                const char *name = json_node_get_string(json_array_get_element(array, i));
                if (name)
                        g_ptr_array_add(names, g_strdup(name));
        }
        return names;
}

JsonObject *job_to_json(const Job *job)
{
        JsonObject *record = json_make(
                "s:type", job->driver->name, "b:target-was-read-only", job->target_was_read_only,
                "o:options", options_to_json(job->options), "i:started-by", (gint64) job->started_by,
                "b:accepted", job->record.accepted, "b:stage-over", job->record.stage_over, "s:decision",
                decision_names[job->record.decision], "s:disk-is", disk_names[job->record.disk_is],
                "s:result", job_result_name(job->record.result), "i:error-code", (gint64) job->error_code,
                "b:told", job->record.told, "b:orphan", job->orphan, "b:held", stages_are_held(job), NULL);

        for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
                if (*text_of(job, i))
                        json_object_set_string_member(record, texts[i].key, *text_of(job, i));
        for (guint i = 0; i < G_N_ELEMENTS(numbers); i++)
                json_object_set_int_member(record, numbers[i].key, *number_of(job, i));
        if (job->stale)
                json_object_set_array_member(record, "stale", files_to_json(job->stale));
        if (job->images)
                json_object_set_array_member(record, "images", files_to_json(job->images));
        if (job->unused)
                json_object_set_array_member(record, "unused", names_to_json(job->unused));
        return record;
}

static const JobDriver *find_driver(const JobDriver *const *drivers, const char *name)
{
        for (; *drivers; drivers++)
                if (g_strcmp0((*drivers)->name, name) == 0)
                        return *drivers;
        return NULL;
}

static int index_of(const char *const *names, guint n, const char *name)
{
        for (guint i = 0; i < n; i++)
                if (g_strcmp0(names[i], name) == 0)
                        return (int) i;
        return -1;
}

static int result_of(const char *name)
{
        for (int i = RESULT_NONE; i < N_RESULTS; i++)
                if (g_strcmp0(job_result_name((JobResult) i), name) == 0)
                        return i;
        return -1;
}

Job *job_from_json(const char *id, JsonObject *record, const JobDriver *const *drivers)
{
        const JobDriver *driver = find_driver(drivers, json_string(record, "type"));
        int decision =
                index_of(decision_names, G_N_ELEMENTS(decision_names), json_string(record, "decision"));
        int disk_is = index_of(disk_names, G_N_ELEMENTS(disk_names), json_string(record, "disk-is"));
        int result = result_of(json_string(record, "result"));

        for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
                if (!texts[i].optional && !json_string(record, texts[i].key))
                        return NULL;
        if (!driver || decision < 0 || disk_is < 0 || result < 0 ||
            strcmp(json_string(record, "id"), id) != 0 || !job_id_is_good(id) ||
            (!driver->external && !g_str_has_suffix(json_string(record, "qemu-job-id"), id)))
                return NULL;

        Job *job = g_new0(Job, 1);
        g_ref_count_init(&job->references);
        job->driver = driver;
        for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
                *text_of(job, i) = g_strdup(json_string(record, texts[i].key));
        for (guint i = 0; i < G_N_ELEMENTS(numbers); i++)
                *number_of(job, i) = json_integer(record, numbers[i].key);
        if (!job->mode)
                job->mode = g_strdup("");
        if (!job->active)
                job->active = g_strdup(job->source);
        if (json_array(record, "stale"))
                job->stale = files_from_json(json_array(record, "stale"));
        if (json_array(record, "images"))
                job->images = files_from_json(json_array(record, "images"));
        if (json_array(record, "unused"))
                job->unused = names_from_json(json_array(record, "unused"));
        job->recovered = TRUE;
        job->target_was_read_only = json_boolean(record, "target-was-read-only");
        job->orphan = json_boolean(record, "orphan");
        job->options = options_from_json(json_object(record, "options"));
        job->started_by = (guint32) json_integer(record, "started-by");
        job->error_code =
                json_object_has_member(record, "error-code") ? (int) json_integer(record, "error-code") : -1;
        job->record = (struct JobRecord){
                .exists = TRUE,
                .accepted = json_boolean(record, "accepted"),
                .told = json_boolean(record, "told"),
                .stage_over = json_boolean(record, "stage-over"),
                .decision = (JobDecision) decision,
                .disk_is = (JobDisk) disk_is,
                .result = (JobResult) result,
        };
        job->paused_by_user = json_boolean(record, "held");
        job->written = job->record;
        job->concluded = job->tidied = job->record.told;
        job->announced = job->record.accepted || job->stage > 0;
        job->state = job->concluded ? JOB_CONCLUDED : JOB_DISCONNECTED;
        return job;
}
