/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include <string.h>

#include "base/error.h"

/* Which domains and jobs there are. */

GPtrArray *engine_domains(Engine *engine)
{
        return engine->domains;
}

GPtrArray *engine_jobs(Engine *engine)
{
        return engine->jobs;
}

Domain *engine_domain(Engine *engine, const char *name)
{
        return g_hash_table_lookup(engine->by_name, name);
}

Domain *engine_domain_by_name_or_uuid(Engine *engine, const char *name_or_uuid, GError **error)
{
        Domain *found = engine_domain(engine, name_or_uuid);

        if (found)
                return found;
        for (guint i = 0; *name_or_uuid && i < engine->domains->len; i++) {
                Domain *domain = engine->domains->pdata[i];

                if (g_ascii_strcasecmp(domain->uuid, name_or_uuid) != 0)
                        continue;
                if (found) {
                        g_set_error(error, BJ_ERROR, BJ_ERROR_AMBIGUOUS,
                                    "domains '%s' and '%s' have the UUID %s", found->name, domain->name,
                                    name_or_uuid);
                        return NULL;
                }
                found = domain;
        }
        if (!found)
                g_set_error(error, BJ_ERROR, BJ_ERROR_NO_SUCH_DOMAIN, "there is no domain '%s'",
                            name_or_uuid);
        return found;
}

Job *engine_job(Engine *engine, const char *id)
{
        return g_hash_table_lookup(engine->by_id, id);
}

gboolean engine_is_calm(const Engine *engine)
{
        if (engine->starts > 0)
                return FALSE;
        for (guint i = 0; i < engine->domains->len; i++)
                if (((Domain *) engine->domains->pdata[i])->maps->len > 0)
                        return FALSE;
        for (guint i = 0; i < engine->jobs->len; i++) {
                const Job *job = engine->jobs->pdata[i];

                if (!job->driver->external && job->synced && !job->gone && job->status >= STATUS_WAITING &&
                    job->status <= STATUS_ABORTING)
                        return FALSE;
        }
        return TRUE;
}

gboolean engine_check_room(const Engine *engine, GError **error)
{
        if (engine->domains->len + engine->attaching->len < DOMAINS_MAX)
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED, "there are %d domains already", DOMAINS_MAX);
        return FALSE;
}

void engine_forget_host(Engine *engine, Domain *domain)
{
        for (guint i = 0; i < engine->jobs->len; i++)
                if (((Job *) engine->jobs->pdata[i])->host == &domain->host)
                        job_set_host(engine->jobs->pdata[i], NULL);
}

void engine_hide_domain(Engine *engine, Domain *domain)
{
        engine->observer->domain_removed(domain, engine->data);
        g_hash_table_remove(engine->by_name, domain->name);
        g_ptr_array_remove(engine->domains, domain);
}

void engine_remove_domain(Engine *engine, Domain *domain)
{
        g_autoptr(Domain) self = domain_ref(domain);

        engine_hide_domain(engine, domain);
        engine_forget_host(engine, domain);
        domain_remove(domain);
}

Domain *engine_detached_domain(Engine *engine, const char *name)
{
        for (guint i = 0; i < engine->detached->len; i++) {
                Domain *domain = engine->detached->pdata[i];
                if (strcmp(domain->name, name) == 0)
                        return domain;
        }
        return NULL;
}

Domain *engine_storage(Engine *engine, const char *name, const char *target)
{
        for (guint i = 0; i < engine->storages->len; i++) {
                Domain *storage = engine->storages->pdata[i];
                if (strcmp(storage->name, name) == 0 && domain_disk(storage, target))
                        return storage;
        }
        return NULL;
}

void engine_forget_detached(Engine *engine, Domain *domain)
{
        g_autoptr(Domain) self = domain_ref(domain);

        g_ptr_array_remove(engine->detached, domain);
        engine_forget_host(engine, domain);
        domain_remove(domain);
}
