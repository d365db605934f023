/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/map.h"

#include "base/error.h"
#include "domain/engine-private.h"

#define ATTEMPTS 3

/* One of a disk that no QEMU had open when it began. */
typedef struct {
        Engine *engine;
        Domain *domain;
        char *target;
        Chain *chain;
        MapPart part;
        guint attempts;
        MapDone done;
        gpointer data;
} Unopened;

static void unopened_free(Unopened *unopened)
{
        unopened->engine->starts--;
        chain_free(unopened->chain);
        domain_unref(unopened->domain);
        g_free(unopened->target);
        g_free(unopened);
}

static void begin(Unopened *unopened);

/* Somebody may have begun to write meanwhile. */
static gboolean is_as_it_was(const Unopened *unopened)
{
        const Disk *disk = domain_disk(unopened->domain, unopened->target);

        return disk && unopened->domain->gone && !unopened->domain->starting && !disk->job &&
               chain_same_images(disk->chain, unopened->chain);
}

static void on_closed_mapped(GArray *ranges, const GError *error, gpointer data)
{
        Unopened *unopened = data;

        if (!error && !is_as_it_was(unopened) && ++unopened->attempts < ATTEMPTS) {
                begin(unopened);
                return;
        }
        unopened->done(ranges, error, unopened->data);
        unopened_free(unopened);
}

static void on_opened_mapped(GArray *ranges, const GError *error, gpointer data)
{
        Unopened *unopened = data;

        unopened->done(ranges, error, unopened->data);
        unopened_free(unopened);
}

static void begin(Unopened *unopened)
{
        Disk *disk = domain_disk(unopened->domain, unopened->target);
        g_autoptr(GError) error = NULL;

        if (disk && !unopened->domain->removed && unopened->domain->gone && !disk->job) {
                chain_free(unopened->chain);
                unopened->chain = chain_copy_below(disk->chain, 0);
                disk_map_closed(disk, unopened->engine->surroundings, &unopened->part, on_closed_mapped,
                                unopened);
        } else if (disk && !unopened->domain->removed)
                disk_map(disk, &unopened->part, on_opened_mapped, unopened);
        else {
                error = g_error_new(BJ_ERROR, BJ_ERROR_NO_SUCH_DISK, "disk '%s' of domain '%s' is gone",
                                    unopened->target, unopened->domain->name);
                on_opened_mapped(NULL, error, unopened);
        }
}

static void map_unopened(Engine *engine, Disk *disk, const MapPart *part, MapDone done, gpointer data)
{
        Unopened *unopened = g_new0(Unopened, 1);

        *unopened = (Unopened){ .engine = engine,
                                .domain = domain_ref(disk->domain),
                                .target = g_strdup(disk->target),
                                .part = *part,
                                .done = done,
                                .data = data };
        engine->starts++; /* a program of its own is started as well */
        begin(unopened);
}

void disk_map(Disk *disk, const MapPart *part, MapDone done, gpointer data)
{
        Domain *domain = disk->domain;
        Engine *engine = domain->observer_data;
        Domain *storage = engine_storage(engine, domain->name, disk->target);
        g_autofree char *server = NULL;
        g_autoptr(GError) error = NULL;

        if (engine->stopping)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_DISCONNECTED, "the service is stopping");
        else if (domain->gone && domain->starting)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "domain '%s' is being started",
                            domain->name);
        else if (domain->gone && !(domain->definition && domain->persistent))
                g_set_error(&error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "domain '%s' is %s", domain->name,
                            domain_state_name(domain->state));
        else if (domain->gone && disk->job && !(storage && storage->host.qmp && storage->jobs->len > 0))
                g_set_error(&error, BJ_ERROR, BJ_ERROR_JOB_ACTIVE,
                            "%s '%s' on disk '%s' of domain '%s' is just starting or ending: call again",
                            disk->job->driver->silent ? disk->job->driver->type : "job", disk->job->id,
                            disk->target, domain->name);
        if (error)
                done(NULL, error, data);
        else if (domain->gone && disk->job) {
                server = launch_path(engine->surroundings, storage, "export");
                domain_map(storage, disk->target, server, NULL, part, done, data);
        } else if (domain->gone)
                map_unopened(engine, disk, part, done, data);
        else
                domain_map(domain, disk->target, NULL, engine->surroundings->runtime_directory, part, done,
                           data);
}
