/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include <string.h>

#include "base/error.h"
#include "base/test-point.h"
#include "domain/images.h"

/* Domains of the service's own come to be and go. */

typedef struct {
        Engine *engine;
        DomainDone done;
        gpointer data;
} Define;

static void end(Define *define, Domain *domain, const GError *error)
{
        g_ptr_array_remove_fast(define->engine->attaching, domain);
        define->done(domain, error, define->data);
        g_free(define);
}

static gboolean is_free(Engine *engine, const Definition *definition, GError **error)
{
        const char *name = definition->name, *uuid = definition->uuid;

        if (engine_domain(engine, name) || engine_detached_domain(engine, name)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_EXISTS, "there is a domain '%s' already", name);
                return FALSE;
        }
        for (guint i = 0; i < engine->attaching->len; i++) {
                const Domain *other = engine->attaching->pdata[i];

                if (strcmp(other->name, name) == 0 || g_ascii_strcasecmp(other->uuid, uuid) == 0) {
                        g_set_error(error, BJ_ERROR, BJ_ERROR_EXISTS, "domain '%s' is just coming to be",
                                    other->name);
                        return FALSE;
                }
        }
        for (guint i = 0; i < engine->domains->len; i++) {
                const Domain *other = engine->domains->pdata[i];

                if (g_ascii_strcasecmp(other->uuid, uuid) == 0) {
                        g_set_error(error, BJ_ERROR, BJ_ERROR_EXISTS, "domain '%s' has the UUID %s already",
                                    other->name, uuid);
                        return FALSE;
                }
        }
        for (guint i = 0; i < engine->storages->len; i++) {
                const Domain *storage = engine->storages->pdata[i];

                if (strcmp(storage->name, name) == 0) {
                        g_set_error(error, BJ_ERROR, BJ_ERROR_EXISTS,
                                    "a job of an earlier domain '%s' still works on its disk", name);
                        return FALSE;
                }
        }
        return engine_check_room(engine, error);
}

/* What its XML says of its images, until they are looked at. */
static Chain *chain_of_definition(const DefinitionDisk *disk)
{
        Chain *chain = chain_new_closed();

        for (guint i = 0; *disk->image.source && i <= (disk->backing ? disk->backing->len : 0); i++) {
                const ImageName *image = i == 0 ? &disk->image : disk->backing->pdata[i - 1];
                const Layer layer = { (char *) "",
                                      image->source,
                                      image->format,
                                      (char *) "",
                                      0,
                                      0,
                                      i > 0 || disk->read_only || disk->cdrom };

                chain_add(chain, &layer);
        }
        return chain;
}

/* As the graph names it. */
static char *device_of(const DefinitionDisk *disk)
{
        g_autofree char *path = definition_device_path(disk);

        return *path == '/' ? g_steal_pointer(&path) : g_strconcat("/machine/peripheral/", path, NULL);
}

static Domain *domain_of_definition(Engine *engine, Definition *definition)
{
        Domain *domain = domain_new(definition->name, engine->journal, engine->capability_cache);

        domain->definition = definition;
        g_free(domain->uuid);
        domain->uuid = g_strdup(definition->uuid);
        domain->gone = TRUE;
        domain->state = DOMAIN_SHUTOFF;
        domain->host.is_defined = TRUE;
        for (guint i = 0; i < definition->disks->len; i++) {
                const DefinitionDisk *disk = definition->disks->pdata[i];
                g_autofree char *device = device_of(disk);

                domain_add_disk(domain, disk->target, device, chain_of_definition(disk));
        }
        engine_watch_domain(engine, domain);
        return domain;
}

static Domain *begin(Engine *engine, const char *xml, GPtrArray *ignored, GError **error)
{
        g_autoptr(Definition) definition = definition_parse(xml, ignored, error);
        Domain *domain;

        if (!definition || !is_free(engine, definition, error))
                return NULL;
        domain = domain_of_definition(engine, g_steal_pointer(&definition));
        g_ptr_array_add(engine->attaching, domain);
        return domain;
}

static void show(Engine *engine, Domain *domain)
{
        g_hash_table_insert(engine->by_name, domain->name, domain);
        g_ptr_array_add(engine->domains, domain);
        domain->shown = TRUE;
        engine->observer->domain_added(domain, engine->data);
}

static void on_define_saved(Domain *domain, const GError *error, gpointer data)
{
        Define *define = data;

        test_point("define-show");
        if (error)
                domain_remove(domain);
        else
                show(define->engine, domain);
        end(define, domain, error);
        if (error)
                domain_unref(domain);
}

static void on_define_looked(Domain *domain, GPtrArray *chains, const GError *error, gpointer data)
{
        (void) chains;
        (void) error;
        test_point("define-record");
        domain_save_then(domain, on_define_saved, data);
}

static void on_create_started(Domain *domain, const GError *error, gpointer data)
{
        Define *define = data;

        if (error) {
                journal_remove(define->engine->journal, JOURNAL_DOMAINS, domain->name, NULL, NULL);
                domain_remove(domain);
        } else
                show(define->engine, domain);
        end(define, domain, error);
        if (error)
                domain_unref(domain);
}

static void define(Engine *engine, const char *xml, GPtrArray *ignored, gboolean persistent, DomainDone done,
                   gpointer data)
{
        g_autoptr(GError) error = NULL;
        Domain *domain = begin(engine, xml, ignored, &error);
        Define *waiting;

        if (!domain) {
                done(NULL, error, data);
                return;
        }
        waiting = g_new(Define, 1);
        *waiting = (Define){ engine, done, data };
        domain->persistent = persistent;
        if (persistent)
                images_inspect(domain, NULL, on_define_looked, waiting);
        else
                engine_start_domain(engine, domain, FALSE, on_create_started, waiting);
}

void engine_define(Engine *engine, const char *xml, GPtrArray *ignored, DomainDone done, gpointer data)
{
        define(engine, xml, ignored, TRUE, done, data);
}

void engine_create(Engine *engine, const char *xml, GPtrArray *ignored, DomainDone done, gpointer data)
{
        define(engine, xml, ignored, FALSE, done, data);
}

gboolean engine_check_own(const Domain *domain, const char *what, GError **error)
{
        if (domain->definition)
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_STATE,
                    "domain '%s' was attached: whoever started its QEMU %s", domain->name, what);
        return FALSE;
}

static void on_undefined(const GError *error, gpointer data)
{
        Define *define = data;

        test_point("undefine-answer");
        define->done(NULL, error, define->data);
        g_free(define);
}

gboolean engine_check_idle(const Domain *domain, GError **error)
{
        for (guint i = 0; i < domain->disks->len; i++) {
                const Disk *disk = domain->disks->pdata[i];

                if (!disk->job)
                        continue;
                g_set_error(error, BJ_ERROR, BJ_ERROR_JOB_ACTIVE,
                            "job '%s' works on disk '%s' of domain '%s': wait for its end, or abort it",
                            disk->job->id, disk->target, domain->name);
                return FALSE;
        }
        return TRUE;
}

void engine_undefine(Engine *engine, Domain *domain, DomainDone done, gpointer data)
{
        g_autoptr(GError) error = NULL;
        Define *define;

        if (engine_check_own(domain, "knows its definition", &error) && engine_check_idle(domain, &error) &&
            (!domain->gone || domain->starting))
                g_set_error(&error, BJ_ERROR, BJ_ERROR_INVALID_STATE,
                            "domain '%s' is %s: it can be undefined when it is shut off", domain->name,
                            domain->starting ? "being started" : domain_state_name(domain->state));
        if (error) {
                done(domain, error, data);
                return;
        }
        define = g_new(Define, 1);
        *define = (Define){ engine, done, data };
        test_point("undefine-record");
        journal_remove(engine->journal, JOURNAL_DOMAINS, domain->name, on_undefined, define);
        engine_remove_domain(engine, domain);
}
