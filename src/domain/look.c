/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/domain.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"

#define POLL_RUNNING_MILLISECONDS 500
#define POLL_READY_MILLISECONDS 1000
#define BEGUN_MAX 64

/* ---- a look: everything that QEMU tells, in one pipelined round ---- */

typedef struct {
        Job *job; /* or NULL */
        JobLooked job_looked;
        DomainDone done;
        gpointer data;
} Waiter;

struct Look {
        Domain *domain;
        GArray *waiters;
        JsonNode *block, *nodes;
        GError *error;                  /* the first one */
        gboolean careful;               /* the jobs are seen before QEMU is asked for its graph */
        gboolean graph_is_out_of_reach; /* and because of what was seen it is not */
        char *stream; /* because of which what is known of the nodes is from an earlier look */
};

static void start(Domain *domain);

/* QEMU 7.2 dies (qcow2_get_specific_info) when it is asked for its nodes while it creates a qcow2 image: for
 * a moment that is a node without a version. */
static gboolean is_creating(const Domain *domain)
{
        for (guint i = 0; i < domain->jobs->len; i++)
                if (((Job *) domain->jobs->pdata[i])->part_under_way)
                        return TRUE;
        return FALSE;
}

static void start_next(Domain *domain)
{
        if (domain->look_next && !domain->look && !(domain->host.qmp && is_creating(domain)))
                start(domain);
}

/* Which process it is cannot be seen from another PID namespace. A QEMU that has neither the job nor any of
 * its nodes is not the one that had them. */
static void tell_apart(Domain *domain, GPtrArray *jobs)
{
        for (guint i = 0; domain->pid == 0 && i < jobs->len; i++) {
                Job *job = jobs->pdata[i];

                if (!job->driver->external && job->record.accepted && job->status == STATUS_ABSENT &&
                    !graph_node(domain->host.graph, job->source_node) &&
                    !graph_node(domain->host.graph, job->target_node))
                        job->gone = TRUE;
        }
}

static void finish(struct Look *look)
{
        g_autoptr(Domain) domain = domain_ref(look->domain);

        domain->look = NULL;
        if ((!look->error || look->graph_is_out_of_reach) && !domain->removed) {
                g_autoptr(GPtrArray) jobs = domain_copy_jobs(domain);

                if (!look->error && domain_update_disks(domain))
                        domain_save(domain);
                if (!look->error)
                        tell_apart(domain, jobs);
                /* Without a graph nothing can be said of a job but of somebody else's. */
                for (guint i = 0; i < jobs->len; i++)
                        if (!look->error || ((Job *) jobs->pdata[i])->driver->external)
                                ((Job *) jobs->pdata[i])->synced = TRUE;
                for (guint i = 0; i < jobs->len; i++)
                        job_advance(jobs->pdata[i]);
                if (!look->error && domain->shown)
                        domain_find_external_jobs(domain);
        }
        for (guint i = 0; i < look->waiters->len; i++) {
                Waiter *waiter = &g_array_index(look->waiters, Waiter, i);

                if (waiter->job) {
                        waiter->job_looked(waiter->job, look->error);
                        job_unref(waiter->job);
                } else
                        waiter->done(domain, look->error, waiter->data);
        }
        g_array_unref(look->waiters);
        g_clear_pointer(&look->block, json_node_unref);
        g_clear_pointer(&look->nodes, json_node_unref);
        g_clear_error(&look->error);
        g_free(look->stream);
        domain_unref(look->domain);
        g_free(look);
        start_next(domain);
}

static void note_error(struct Look *look, const GError *error)
{
        if (error && !look->error)
                look->error = g_error_copy(error);
}

static void set_run_state(Domain *domain, JsonNode *result)
{
        if (!result || !JSON_NODE_HOLDS_OBJECT(result))
                return;
        g_free(domain->run_state);
        domain->run_state = g_strdup(json_string(json_node_get_object(result), "status"));
        domain_update_state(domain);
}

static void on_status(JsonNode *result, const GError *error, gpointer data)
{
        struct Look *look = data;

        note_error(look, error);
        set_run_state(look->domain, result);
}

static JsonObject *find_entry(JsonNode *result, const char *member, const char *id)
{
        JsonArray *array = JSON_NODE_HOLDS_ARRAY(result) ? json_node_get_array(result) : NULL;

        for (guint i = 0; array && i < json_array_get_length(array); i++)
                if (g_strcmp0(json_string(json_element(array, i), member), id) == 0)
                        return json_element(array, i);
        return NULL;
}

/* QEMU 7.2 crashes when it is asked for its nodes while it keeps a block-stream that is over; 10.0 does not.
 * One of ours is never kept. Somebody else's may come to its end at any moment, so that as long as there is
 * one the nodes are taken from what was seen before. */
static void heed_streams(struct Look *look, JsonNode *result)
{
        Domain *domain = look->domain;
        JsonArray *jobs = JSON_NODE_HOLDS_ARRAY(result) ? json_node_get_array(result) : NULL;

        domain->streams_possible = FALSE;
        for (guint i = 0; jobs && i < json_array_get_length(jobs); i++) {
                JsonObject *entry = json_element(jobs, i);
                const char *id = json_string(entry, "id");
                const Job *job = domain_job_by_qemu_id(domain, id);

                if (g_strcmp0(json_string(entry, "type"), "stream") != 0 || (job && !job->driver->external))
                        continue;
                domain->streams_possible = TRUE;
                if (domain->host.graph && !look->stream)
                        look->stream = g_strdup(id);
                if (look->stream || look->error || g_strcmp0(json_string(entry, "status"), "concluded") != 0)
                        continue;
                look->graph_is_out_of_reach = TRUE;
                look->error = g_error_new(
                        BJ_ERROR, BJ_ERROR_JOB_ACTIVE,
                        "QEMU of domain '%s' keeps its job '%s', which is over, until somebody dismisses "
                        "it: as long as it does so it cannot be asked for its graph without danger",
                        domain->name, id);
        }
}

static void ask_graph(struct Look *look);

static void on_jobs(JsonNode *result, const GError *error, gpointer data)
{
        struct Look *look = data;

        note_error(look, error);
        g_clear_pointer(&look->domain->jobs_seen, json_node_unref);
        look->domain->jobs_seen = error ? NULL : json_node_ref(result);
        for (guint i = 0; !error && i < look->domain->jobs->len; i++) {
                Job *job = look->domain->jobs->pdata[i];
                job_seen_query(job, find_entry(result, "id", job->qemu_id));
        }
        if (!look->careful)
                return;
        if (!error)
                heed_streams(look, result);
        if (look->error || !look->domain->host.qmp)
                finish(look);
        else
                ask_graph(look);
}

static void on_block(JsonNode *result, const GError *error, gpointer data)
{
        struct Look *look = data;

        note_error(look, error);
        look->block = result ? json_node_ref(result) : NULL;
}

static void on_exports(JsonNode *result, const GError *error, gpointer data)
{
        struct Look *look = data;
        const Disk *disk = look->domain->disks->len > 0 ? look->domain->disks->pdata[0] : NULL;

        note_error(look, error);
        if (result && disk)
                look->block = graph_devices_of_exports(result, disk->target);
}

static void on_nodes(JsonNode *result, const GError *error, gpointer data)
{
        struct Look *look = data;

        note_error(look, error);
        look->nodes = result ? json_node_ref(result) : NULL;
}

static void on_graph(JsonNode *result, const GError *error, gpointer data)
{
        struct Look *look = data;
        Graph *graph = NULL;

        note_error(look, error);
        if (!look->error)
                graph = look->stream ? graph_renew(look->domain->host.graph, look->block, result,
                                                   look->stream, &look->error)
                                     : graph_new(look->block, look->nodes, result, look->domain->paths,
                                                 &look->error);
        if (graph) {
                graph_free(look->domain->host.graph);
                look->domain->host.graph = graph;
        }
        finish(look);
}

/* Jobs do not care, and QEMU reads its commands slowly, a byte at a turn of its main loop. */
static gboolean wants_run_state(const struct Look *look)
{
        for (guint i = 0; i < look->waiters->len; i++)
                if (!g_array_index(look->waiters, Waiter, i).job)
                        return TRUE;
        return FALSE;
}

static void ask_graph(struct Look *look)
{
        QmpConnection *qmp = look->domain->host.qmp;

        /* A storage daemon has no devices, but an export follows what jobs do to its node as a device does.
         */
        if (look->domain->of)
                qmp_execute(qmp, "query-block-exports", NULL, on_exports, look);
        else
                qmp_execute(qmp, "query-block", NULL, on_block, look);
        if (!look->stream)
                qmp_execute(qmp, "query-named-block-nodes", json_make("b:flat", TRUE, NULL), on_nodes, look);
        qmp_execute(qmp, "x-debug-query-block-graph", NULL, on_graph, look);
}

static void start(Domain *domain)
{
        struct Look *look = g_new0(struct Look, 1);
        QmpConnection *qmp = domain->host.qmp;

        look->domain = domain_ref(domain);
        look->waiters = g_steal_pointer(&domain->look_next);
        domain->look = look;
        if (!qmp) {
                look->error = g_error_new(BJ_ERROR, BJ_ERROR_DISCONNECTED,
                                          "there is no connection to the QEMU of domain '%s'", domain->name);
                finish(look);
                return;
        }
        /* Jobs before the graph: a job that is seen concluded has left its mark in the graph seen after it.
         * The replies come in this order, and events stand between them where they belong. */
        if (wants_run_state(look) && domain->host.capabilities->has[CAPABILITY_RUN_STATE])
                qmp_execute(qmp, "query-status", NULL, on_status, look);
        look->careful = domain->streams_possible && !domain->host.capabilities->has[CAPABILITY_SET_ACTIVE];
        qmp_execute(qmp, "query-jobs", NULL, on_jobs, look);
        if (!look->careful)
                ask_graph(look);
}

static void add_waiter(Domain *domain, Waiter waiter)
{
        if (!domain->look_next)
                domain->look_next = g_array_new(FALSE, FALSE, sizeof(Waiter));
        g_array_append_val(domain->look_next, waiter);
        start_next(domain);
}

void domain_host_created(JobHost *host)
{
        start_next((Domain *) host);
}

void domain_look(Domain *domain, Job *job, JobLooked looked)
{
        add_waiter(domain, (Waiter){ .job = job_ref(job), .job_looked = looked });
}

void domain_host_look(JobHost *host, Job *job, JobLooked looked)
{
        domain_look((Domain *) host, job, looked);
}

void domain_look_then(Domain *domain, DomainDone done, gpointer data)
{
        add_waiter(domain, (Waiter){ .done = done, .data = data });
}

/* ---- events ---- */

static void ignore_look(Domain *domain, const GError *error, gpointer data)
{
        (void) domain;
        (void) error;
        (void) data;
}

static void query_status(Domain *domain);

static void on_queried_status(JsonNode *result, const GError *error, gpointer data)
{
        g_autoptr(Domain) domain = data;
        gboolean again = domain->status == STATUS_ASKED_IN_VAIN;

        (void) error;
        domain->status = STATUS_NOT_ASKED;
        set_run_state(domain, result);
        if (again)
                query_status(domain);
}

/* One question at a time, however many events come: a QEMU that does not read is not to fill our memory. */
static void query_status(Domain *domain)
{
        if (!domain->host.qmp || !domain->host.capabilities->has[CAPABILITY_RUN_STATE])
                return;
        if (domain->status != STATUS_NOT_ASKED) {
                domain->status = STATUS_ASKED_IN_VAIN;
                return;
        }
        domain->status = STATUS_ASKED;
        qmp_execute(domain->host.qmp, "query-status", NULL, on_queried_status, domain_ref(domain));
}

/* Whoever waits for the next look will do as well. */
static void look_soon(Domain *domain)
{
        if (!domain->look_next)
                domain_look_then(domain, ignore_look, NULL);
}

static void on_block_jobs(JsonNode *result, const GError *error, gpointer data)
{
        g_autoptr(Domain) domain = data;

        domain->poll_under_way = FALSE;
        for (guint i = 0; !error && i < domain->jobs->len; i++) {
                g_autoptr(Job) job = job_ref(domain->jobs->pdata[i]);
                JsonObject *entry = find_entry(result, "device", job->qemu_id);

                if (entry)
                        job_seen_block_query(job, entry);
        }
        domain_schedule_poll(domain);
}

static void query_block_jobs(Domain *domain)
{
        if (!domain->host.qmp || domain->poll_under_way)
                return;
        domain->poll_under_way = TRUE;
        qmp_execute(domain->host.qmp, "query-block-jobs", NULL, on_block_jobs, domain_ref(domain));
}

static gboolean on_poll(gpointer data)
{
        Domain *domain = data;

        domain->poll = 0;
        query_block_jobs(domain);
        return G_SOURCE_REMOVE;
}

void domain_schedule_poll(Domain *domain)
{
        guint interval = 0;

        for (guint i = 0; i < domain->jobs->len; i++) {
                const Job *job = domain->jobs->pdata[i];

                if (!job->record.accepted || !job->synced || job->record.result != RESULT_NONE)
                        continue;
                if (job->state != JOB_READY || interval == POLL_RUNNING_MILLISECONDS)
                        interval = POLL_RUNNING_MILLISECONDS;
                else
                        interval = POLL_READY_MILLISECONDS;
        }
        if (interval == 0 || !domain->host.qmp) {
                g_clear_handle_id(&domain->poll, g_source_remove);
                return;
        }
        if (!domain->poll && !domain->poll_under_way)
                domain->poll = g_timeout_add(interval, on_poll, domain);
}

static void handle_status_event(Domain *domain, JsonObject *data, gint64 when)
{
        const char *id = json_string(data, "id"), *status = json_string(data, "status");
        g_autoptr(Job) job = domain_job_by_qemu_id(domain, id);

        if (g_strcmp0(status, "created") == 0 || g_strcmp0(status, "concluded") == 0 ||
            g_strcmp0(status, "null") == 0)
                domain->job_events++;
        if (g_strcmp0(status, "concluded") == 0)
                domain_map_job_ends(domain);
        if (job) {
                job_ref(job);
                job_seen_status(job, status, when);
                domain_schedule_poll(domain);
        } else if ((job = domain_job_by_part_id(domain, id))) {
                job_ref(job);
                job_seen_part(job, status);
        } else if (id && (g_strcmp0(status, "null") == 0 || g_strcmp0(status, "created") == 0)) {
                /* Somebody else's job: it is to be shown, or it is over and may have changed the graph. */
                domain->streams_possible = TRUE;
                if (*status == 'c' && g_hash_table_size(domain->begun) < BEGUN_MAX)
                        g_hash_table_add(domain->begun, g_strdup(id));
                else
                        g_hash_table_remove(domain->begun, id);
                look_soon(domain);
        }
}

static void handle_end_event(Domain *domain, JsonObject *data, gint64 when)
{
        g_autoptr(Job) job = domain_job_by_qemu_id(domain, json_string(data, "device"));

        if (job)
                job_seen_ended(job_ref(job), data, json_string(data, "error"), when);
}

static void handle_ready_event(Domain *domain, JsonObject *data, gint64 when)
{
        g_autoptr(Job) job = domain_job_by_qemu_id(domain, json_string(data, "device"));

        (void) when;
        if (job)
                job_seen_ready(job_ref(job), data);
}

static void handle_cancelled_event(Domain *domain, JsonObject *data, gint64 when)
{
        g_autoptr(Job) job = domain_job_by_qemu_id(domain, json_string(data, "device"));

        if (job)
                job_seen_ended(job_ref(job), data, g_strerror(ECANCELED), when);
}

static void handle_error_event(Domain *domain, JsonObject *data, gint64 when)
{
        (void) data;
        (void) when;
        /* The event says neither what nor whether it paused the job. */
        query_block_jobs(domain);
}

static void handle_run_state_event(Domain *domain, JsonObject *data, gint64 when)
{
        (void) data;
        (void) when;
        query_status(domain);
}

static void handle_resume_event(Domain *domain, JsonObject *data, gint64 when)
{
        (void) data;
        (void) when;
        /* A QEMU that stays after the guest's shutdown can be started anew. */
        g_clear_pointer(&domain->shutdown_reason, g_free);
        query_status(domain);
}

static void handle_shutdown_event(Domain *domain, JsonObject *data, gint64 when)
{
        (void) when;
        /* What asked for the end has said why; QEMU knows of a signal only. */
        if (domain->closing->len > 0)
                return;
        g_free(domain->shutdown_reason);
        domain->shutdown_reason = g_strdup(json_string(data, "reason") ?: "shutdown");
}

static void handle_graph_event(Domain *domain, JsonObject *data, gint64 when)
{
        (void) data;
        (void) when;
        look_soon(domain);
}

static void handle_export_event(Domain *domain, JsonObject *data, gint64 when)
{
        domain_map_export_is_gone(domain, json_string(data, "id"));
        handle_graph_event(domain, data, when);
}

static const struct {
        const char *name;
        void (*handle)(Domain *domain, JsonObject *data, gint64 when);
} events[] = {
        { "JOB_STATUS_CHANGE", handle_status_event },
        { "BLOCK_JOB_COMPLETED", handle_end_event },
        { "BLOCK_JOB_CANCELLED", handle_cancelled_event },
        { "BLOCK_JOB_READY", handle_ready_event },
        { "BLOCK_JOB_ERROR", handle_error_event },
        { "STOP", handle_run_state_event },
        { "RESUME", handle_resume_event },
        { "SUSPEND", handle_run_state_event },
        { "WAKEUP", handle_run_state_event },
        { "GUEST_PANICKED", handle_run_state_event },
        { "RESET", handle_run_state_event },
        { "SHUTDOWN", handle_shutdown_event },
        { "DEVICE_DELETED", handle_graph_event },
        { "DEVICE_TRAY_MOVED", handle_graph_event },
        { "BLOCK_EXPORT_DELETED", handle_export_event },
};

void domain_handle_event(Domain *domain, const char *event, JsonObject *data, gint64 when)
{
        for (guint i = 0; i < G_N_ELEMENTS(events); i++)
                if (strcmp(events[i].name, event) == 0)
                        events[i].handle(domain, data, when);
}
