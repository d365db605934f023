/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/map.h"

#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "base/test-point.h"

/* The active layer is exported, read-only, and asked by a client of our own. QEMU has at most one NBD
 * server, on which nobody else can be told to be: it is started for the map, on a socket that has no name
 * any more when QEMU gets it. A node that stands for nothing, "bj-map", is made before and removed after all
 * the rest. Where a service finds it that has just connected, an earlier one was cut off in between, and
 * what is left of its map is removed. */

#define ATTEMPTS 3
#define BLOCKED_SECONDS 10 /* how long it waits for the end of a job */
#define END_SECONDS 5      /* how long a caller waits for the end of the export, when all is known */

struct Mapping {
        Domain *domain;
        char *target, *server, *directory;
        MapPart part;
        MapDone done; /* NULL: nobody is to be told any more */
        gpointer data;

        guint attempts;
        guint job_events; /* of the domain, when it began */
        char *nodes;      /* of the disk, when it began */
        char *node;       /* its active layer */
        GArray *levels;   /* guint32: the depth in the disk's chain, of each level below `node` */
        gboolean told;    /* the caller, before the end */
        gboolean blocked; /* by the end of a job */
        gboolean moved;   /* the levels were others in between */
        GArray *ranges;
        GError *error;

        /* what there is in QEMU */
        gboolean marked, passed, serving, exported;
        gboolean ending;      /* it is being removed */
        gboolean waits;       /* for the end of the export */
        int listener, client; /* -1 = none */
        NbdMap *nbd;
        guint timer;
};

static void begin(struct Mapping *mapping);
static void end(struct Mapping *mapping);

static void close_descriptor(int *fd)
{
        if (*fd >= 0)
                close(*fd);
        *fd = -1;
}

static void reset(struct Mapping *mapping)
{
        g_clear_handle_id(&mapping->timer, g_source_remove);
        g_clear_pointer(&mapping->nbd, nbd_map_free);
        g_clear_pointer(&mapping->nodes, g_free);
        g_clear_pointer(&mapping->node, g_free);
        g_clear_pointer(&mapping->ranges, g_array_unref);
        g_clear_pointer(&mapping->levels, g_array_unref);
        close_descriptor(&mapping->listener);
        close_descriptor(&mapping->client);
        mapping->moved = mapping->ending = mapping->waits = mapping->blocked = FALSE;
        mapping->marked = mapping->passed = mapping->serving = mapping->exported = FALSE;
}

static void mapping_free(struct Mapping *mapping)
{
        reset(mapping);
        g_clear_error(&mapping->error);
        domain_unref(mapping->domain);
        g_free(mapping->target);
        g_free(mapping->server);
        g_free(mapping->directory);
        g_free(mapping);
}

static struct Mapping *mapping_new(Domain *domain, const char *target)
{
        struct Mapping *mapping = g_new0(struct Mapping, 1);

        mapping->domain = domain_ref(domain);
        mapping->target = g_strdup(target);
        mapping->listener = mapping->client = -1;
        return mapping;
}

static void tell(struct Mapping *mapping)
{
        MapDone done = mapping->done;

        mapping->done = NULL;
        mapping->told |= done != NULL;
        if (done)
                done(mapping->error ? NULL : mapping->ranges, mapping->error, mapping->data);
}

/* Those whose last steps wait for it. */
static void let_jobs_go_on(Domain *domain)
{
        g_autoptr(GPtrArray) jobs = domain_copy_jobs(domain);

        domain->host.is_mapping = FALSE;
        for (guint i = 0; i < jobs->len; i++)
                job_advance(jobs->pdata[i]);
}

static void next(Domain *domain)
{
        if (domain->maps->len > 0)
                begin(domain->maps->pdata[0]);
}

static void finish(struct Mapping *mapping)
{
        g_autoptr(Domain) domain = domain_ref(mapping->domain);

        let_jobs_go_on(domain);
        if (!mapping->error && mapping->moved && !mapping->told) {
                if (++mapping->attempts < ATTEMPTS) {
                        begin(mapping);
                        return;
                }
                mapping->error =
                        g_error_new(BJ_ERROR, BJ_ERROR_JOB_ACTIVE,
                                    "the chain of disk '%s' of domain '%s' changes all the time: call "
                                    "again",
                                    mapping->target, domain->name);
        }
        tell(mapping);
        g_ptr_array_remove_index(domain->maps, 0);
        mapping_free(mapping);
        next(domain);
}

/* ---- the end: what was made is removed, the last thing first ---- */

static void take_error(struct Mapping *mapping, const GError *error)
{
        if (error && !mapping->error)
                mapping->error = g_error_copy(error);
}

static void on_export_left(JsonNode *result, const GError *error, gpointer data)
{
        struct Mapping *mapping = data;

        (void) result;
        /* One that is not there is not told of either. */
        if (error)
                mapping->exported = FALSE;
        mapping->waits = mapping->exported;
        if (!mapping->waits || !mapping->domain->host.qmp)
                end(mapping);
}

static void on_removed(JsonNode *result, const GError *error, gpointer data)
{
        (void) result;
        (void) error;
        end(data);
}

static guint count_nbd_exports(JsonNode *exports)
{
        JsonArray *array = exports && JSON_NODE_HOLDS_ARRAY(exports) ? json_node_get_array(exports) : NULL;
        guint count = 0;

        for (guint i = 0; array && i < json_array_get_length(array); i++)
                count += g_strcmp0(json_string(json_element(array, i), "type"), "nbd") == 0;
        return count;
}

/* The server goes with all its exports, which are to be none of anybody else's. */
static void on_exports_left(JsonNode *result, const GError *error, gpointer data)
{
        struct Mapping *mapping = data;

        if (!error && count_nbd_exports(result) == 0 && mapping->domain->host.qmp)
                qmp_execute(mapping->domain->host.qmp, "nbd-server-stop", NULL, on_removed, mapping);
        else
                end(mapping);
}

static gboolean on_slow_end(gpointer data)
{
        struct Mapping *mapping = data;

        mapping->timer = 0;
        tell(mapping);
        return G_SOURCE_REMOVE;
}

static void end(struct Mapping *mapping)
{
        QmpConnection *qmp = mapping->domain->host.qmp;

        mapping->ending = TRUE;
        g_clear_pointer(&mapping->nbd, nbd_map_free);
        close_descriptor(&mapping->listener);
        close_descriptor(&mapping->client);
        if (!qmp)
                finish(mapping);
        else if (mapping->exported) {
                test_point("map-unexport");
                if (!mapping->timer)
                        mapping->timer = g_timeout_add_seconds(END_SECONDS, on_slow_end, mapping);
                qmp_execute(qmp, "block-export-del", json_make("s:id", MAP_ID, "s:mode", "hard", NULL),
                            on_export_left, mapping);
        } else if (mapping->passed) {
                mapping->passed = FALSE;
                qmp_execute(qmp, "closefd", json_make("s:fdname", MAP_ID, NULL), on_removed, mapping);
        } else if (mapping->serving) {
                test_point("map-stop-server");
                mapping->serving = FALSE;
                qmp_execute(qmp, "query-block-exports", NULL, on_exports_left, mapping);
        } else if (mapping->marked) {
                test_point("map-unmark");
                mapping->marked = FALSE;
                qmp_execute(qmp, "blockdev-del", json_make("s:node-name", MAP_ID, NULL), on_removed,
                            mapping);
        } else
                finish(mapping);
}

static void fail(struct Mapping *mapping, const GError *error)
{
        take_error(mapping, error);
        /* What hangs in QEMU is removed when it does not any more; nobody waits for that. */
        if (g_error_matches(mapping->error, BJ_ERROR, BJ_ERROR_TIMEOUT))
                tell(mapping);
        end(mapping);
}

static void fail_new(struct Mapping *mapping, int code, const char *format, ...) G_GNUC_PRINTF(3, 4);

static void fail_new(struct Mapping *mapping, int code, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        g_autoptr(GError) error = g_error_new_valist(BJ_ERROR, code, format, arguments);
        va_end(arguments);
        fail(mapping, error);
}

/* ---- the ranges ---- */

static void on_looked_again(Domain *domain, const GError *error, gpointer data)
{
        struct Mapping *mapping = data;
        const Disk *disk = domain_disk(domain, mapping->target);
        g_autofree char *nodes = disk && !error ? map_list_nodes(domain, disk) : NULL;

        take_error(mapping, error);
        mapping->moved =
                !nodes || strcmp(nodes, mapping->nodes) != 0 || domain->job_events != mapping->job_events;
        end(mapping);
}

static void on_mapped(GArray *ranges, const GError *error, gpointer data)
{
        struct Mapping *mapping = data;

        if (error)
                fail(mapping, error);
        else {
                test_point("map-mapped");
                mapping->ranges = map_depths(ranges, mapping->levels);
                if (!mapping->ranges) /* it was the first to hear that the levels are others */
                        mapping->job_events--;
                g_clear_pointer(&mapping->nbd, nbd_map_free);
                domain_look_then(mapping->domain, on_looked_again, mapping);
        }
}

/* ---- the beginning ---- */

static gboolean goes_on(struct Mapping *mapping, const char *what, const GError *error)
{
        if (!error && !mapping->error)
                return TRUE;
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_QEMU))
                fail_new(mapping, bj_error_of_qemu(error->message), "map of disk '%s': %s: %s",
                         mapping->target, what, error->message);
        else
                fail(mapping, error);
        return FALSE;
}

/* While a commit writes below layers that it goes through, QEMU lets nobody else begin to read through them.
 */
static gboolean is_kept_by_a_job(struct Mapping *mapping, const GError *error)
{
        const Disk *disk = domain_disk(mapping->domain, mapping->target);

        if (!error || mapping->error || !disk || !disk->job ||
            !strstr(error->message, "Permission conflict"))
                return FALSE;
        fail_new(
                mapping, BJ_ERROR_JOB_ACTIVE,
                "map of disk '%s': %s '%s' changes an image below others of the chain, and QEMU lets nobody "
                "read through these until it has ended",
                mapping->target, disk->job->driver->type, disk->job->id);
        return TRUE;
}

static void on_exported(JsonNode *result, const GError *error, gpointer data)
{
        struct Mapping *mapping = data;

        (void) result;
        mapping->exported = error == NULL;
        if (is_kept_by_a_job(mapping, error) || !goes_on(mapping, "block-export-add", error))
                return;
        test_point("map-exported");
        mapping->nbd = nbd_map_new(g_steal_fd(&mapping->client), MAP_ID, &mapping->part, on_mapped, mapping);
}

static void make_export(struct Mapping *mapping)
{
        qmp_execute(mapping->domain->host.qmp, "block-export-add",
                    json_make("s:type", "nbd", "s:id", MAP_ID, "s:name", MAP_ID, "s:node-name",
                              mapping->node, "b:writable", FALSE, "b:allocation-depth", TRUE, NULL),
                    on_exported, mapping);
}

static void on_serving(JsonNode *result, const GError *error, gpointer data)
{
        struct Mapping *mapping = data;

        (void) result;
        mapping->serving = error == NULL;
        mapping->passed = error != NULL;
        if (error && strstr(error->message, "already running"))
                fail_new(mapping, BJ_ERROR_NOT_SUPPORTED,
                         "the QEMU of domain '%s' runs an NBD server for somebody else, and has one at "
                         "most: a map "
                         "of its disks needs it",
                         mapping->domain->name);
        else if (goes_on(mapping, "nbd-server-start", error)) {
                test_point("map-export");
                make_export(mapping);
        }
}

static void on_passed(JsonNode *result, const GError *error, gpointer data)
{
        struct Mapping *mapping = data;

        (void) result;
        mapping->passed = error == NULL;
        close_descriptor(&mapping->listener);
        if (!goes_on(mapping, "getfd", error))
                return;
        test_point("map-serve");
        qmp_execute(mapping->domain->host.qmp, "nbd-server-start",
                    json_make("o:addr",
                              json_make("s:type", "fd", "o:data", json_make("s:str", MAP_ID, NULL), NULL),
                              "i:max-connections", (gint64) 1, NULL),
                    on_serving, mapping);
}

static void on_marked(JsonNode *result, const GError *error, gpointer data)
{
        struct Mapping *mapping = data;
        g_autoptr(GError) failure = NULL;

        (void) result;
        mapping->marked = error == NULL;
        if (!goes_on(mapping, "blockdev-add", error))
                return;
        test_point("map-pass");
        if (!nbd_prepare(mapping->directory, &mapping->listener, &mapping->client, &failure))
                fail(mapping, failure);
        else
                qmp_execute_fd(mapping->domain->host.qmp, "getfd", json_make("s:fdname", MAP_ID, NULL),
                               mapping->listener, on_passed, mapping);
}

/* It goes without saying that its server is somebody else's. */
static void on_exports(JsonNode *result, const GError *error, gpointer data)
{
        struct Mapping *mapping = data;

        if (!goes_on(mapping, "query-block-exports", error))
                return;
        if (count_nbd_exports(result) > 0)
                fail_new(mapping, BJ_ERROR_NOT_SUPPORTED,
                         "the QEMU of domain '%s' has NBD exports of somebody else's, and one NBD server at "
                         "most: a "
                         "map of its disks needs that",
                         mapping->domain->name);
        else {
                test_point("map-mark");
                qmp_execute(
                        mapping->domain->host.qmp, "blockdev-add",
                        json_make("s:driver", "null-co", "s:node-name", MAP_ID, "b:read-only", TRUE, NULL),
                        on_marked, mapping);
        }
}

static void on_looked(Domain *domain, const GError *error, gpointer data)
{
        struct Mapping *mapping = data;
        const Disk *disk = domain_disk(domain, mapping->target);
        const Layer *active = disk ? chain_layer(disk->chain, 0) : NULL;
        g_autoptr(GError) failure = NULL;

        if (!goes_on(mapping, "look", error))
                return;
        if (!disk) {
                fail_new(mapping, BJ_ERROR_NO_SUCH_DISK, "disk '%s' of domain '%s' is gone", mapping->target,
                         domain->name);
                return;
        }
        if (!active) {
                fail_new(mapping, BJ_ERROR_INVALID_STATE, "disk '%s' has no medium", mapping->target);
                return;
        }
        mapping->job_events = domain->job_events;
        mapping->nodes = map_list_nodes(domain, disk);
        mapping->node = g_strdup(active->node);
        mapping->levels = map_levels(domain, disk);
        if (!mapping->server)
                qmp_execute(domain->host.qmp, "query-block-exports", NULL, on_exports, mapping);
        else if ((mapping->client = nbd_connect(mapping->server, &failure)) >= 0)
                make_export(mapping);
        else
                fail(mapping, failure);
}

/* It is about to take nodes away that an export would hold, or QEMU holds the disk for it. */
static const Job *ending_job(const Domain *domain)
{
        for (guint i = 0; i < domain->jobs->len; i++) {
                const Job *job = domain->jobs->pdata[i];

                if (!job->driver->external &&
                    (job->status >= STATUS_WAITING || job->record.result != RESULT_NONE))
                        return job;
        }
        return NULL;
}

static gboolean on_blocked_long(gpointer data)
{
        struct Mapping *mapping = data;
        const Job *job = ending_job(mapping->domain);

        mapping->timer = 0;
        mapping->blocked = FALSE;
        fail_new(mapping, BJ_ERROR_JOB_ACTIVE,
                 "job '%s' in domain '%s' is ending, and takes its time: call again", job ? job->id : "",
                 mapping->domain->name);
        return G_SOURCE_REMOVE;
}

static void begin(struct Mapping *mapping)
{
        reset(mapping);
        if (mapping->error)
                finish(mapping);
        else if (mapping->domain->host.qmp && ending_job(mapping->domain)) {
                mapping->blocked = TRUE;
                mapping->timer = g_timeout_add_seconds(BLOCKED_SECONDS, on_blocked_long, mapping);
        } else {
                mapping->domain->host.is_mapping = TRUE;
                domain_look_then(mapping->domain, on_looked, mapping);
        }
}

void domain_map(Domain *domain, const char *target, const char *server, const char *directory,
                const MapPart *part, MapDone done, gpointer data)
{
        const struct Mapping *first = domain->maps->len > 0 ? domain->maps->pdata[0] : NULL;
        g_autoptr(GError) error = NULL;
        struct Mapping *mapping;

        if (first && first->told)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_TIMEOUT,
                            "an earlier map of disk '%s' of domain '%s' has not ended in QEMU yet",
                            first->target, domain->name);
        else if (domain->maps->len >= MAPS_PER_DOMAIN_MAX)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED,
                            "%d maps of disks of domain '%s' are waited for already", MAPS_PER_DOMAIN_MAX,
                            domain->name);
        if (error) {
                done(NULL, error, data);
                return;
        }
        mapping = mapping_new(domain, target);
        mapping->server = g_strdup(server);
        mapping->directory = g_strdup(directory);
        mapping->part = *part;
        mapping->done = done;
        mapping->data = data;
        g_ptr_array_add(domain->maps, mapping);
        if (domain->maps->len == 1)
                begin(mapping);
}

/* ---- what happens meanwhile ---- */

void domain_map_export_is_gone(Domain *domain, const char *id)
{
        struct Mapping *mapping = domain->maps->len > 0 ? domain->maps->pdata[0] : NULL;

        if (!mapping || g_strcmp0(id, MAP_ID) != 0)
                return;
        mapping->exported = FALSE;
        if (mapping->waits) {
                mapping->waits = FALSE;
                end(mapping);
        }
}

/* Whatever waits for a reply gets one. */
static void wake(struct Mapping *mapping)
{
        if (mapping->nbd || mapping->waits || mapping->blocked) {
                mapping->waits = mapping->blocked = FALSE;
                end(mapping);
        }
}

void domain_map_job_is_gone(Domain *domain)
{
        struct Mapping *first = domain->maps->len > 0 ? domain->maps->pdata[0] : NULL;

        if (first && first->blocked && !ending_job(domain))
                begin(first);
}

void domain_map_job_ends(Domain *domain)
{
        struct Mapping *first = domain->maps->len > 0 ? domain->maps->pdata[0] : NULL;

        if (!first || !first->nbd)
                return;
        first->moved = TRUE;
        end(first);
}

void domain_map_connection_is_lost(Domain *domain)
{
        g_autoptr(GError) error =
                g_error_new(BJ_ERROR, BJ_ERROR_DISCONNECTED,
                            "the connection to the QEMU of domain '%s' was lost", domain->name);

        domain_end_maps(domain, error);
}

void domain_end_maps(Domain *domain, const GError *error)
{
        struct Mapping *first = domain->maps->len > 0 ? domain->maps->pdata[0] : NULL;

        for (guint i = 0; i < domain->maps->len; i++)
                if (i > 0 || !first->ending)
                        take_error(domain->maps->pdata[i], error);
        if (first && (!first->ending || !domain->host.qmp))
                wake(first);
}

void domain_clear_maps(Domain *domain, gboolean is_new)
{
        struct Mapping *mapping;

        if (domain->maps->len > 0 || !((domain->of && !is_new) || graph_node(domain->host.graph, MAP_ID)))
                return;
        mapping = mapping_new(domain, "");
        mapping->exported = TRUE;
        mapping->serving = mapping->marked = !domain->of;
        g_ptr_array_add(domain->maps, mapping);
        end(mapping);
}
