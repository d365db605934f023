/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service.h"

#include <stdlib.h>
#include <string.h>

#define DOMAIN_PREFIX ROOT_PATH "/domain"
#define JOB_PREFIX ROOT_PATH "/job"

Service *service_of(sd_bus *bus)
{
        return sd_bus_slot_get_userdata(sd_bus_get_current_slot(bus));
}

static char *encode(const char *prefix, const char *name)
{
        char *path = NULL;

        if (sd_bus_path_encode(prefix, name, &path) < 0)
                g_error("out of memory");
        return path;
}

static char *encode_disk(const char *domain, const char *target)
{
        char *path = NULL;

        if (sd_bus_path_encode_many(&path, DOMAIN_PREFIX "/%/disk/%", domain, target) < 0)
                g_error("out of memory");
        return path;
}

char *domain_path(const Domain *domain)
{
        return encode(DOMAIN_PREFIX, domain->name);
}

char *disk_path(const Disk *disk)
{
        return encode_disk(disk->domain->name, disk->target);
}

char *job_domain_path(const Job *job)
{
        return encode(DOMAIN_PREFIX, job->domain);
}

char *job_disk_path(const Job *job)
{
        return encode_disk(job->domain, job->disk);
}

char *job_path(const Job *job)
{
        return encode(JOB_PREFIX, job->id);
}

/* Only the canonical spelling of a path names its object, or one object would have many names. */
static gboolean is_path(char *canonical, const char *path)
{
        gboolean same = strcmp(canonical, path) == 0;

        free(canonical);
        return same;
}

Domain *domain_at(Service *service, const char *path)
{
        g_autofree char *name = NULL;
        Domain *domain;

        if (sd_bus_path_decode(path, DOMAIN_PREFIX, &name) <= 0)
                return NULL;
        domain = engine_domain(service->engine, name);
        return domain && is_path(domain_path(domain), path) ? domain : NULL;
}

Disk *disk_at(Service *service, const char *path)
{
        g_autofree char *name = NULL, *target = NULL;
        Domain *domain;
        Disk *disk;

        if (sd_bus_path_decode_many(path, DOMAIN_PREFIX "/%/disk/%", &name, &target) <= 0)
                return NULL;
        domain = engine_domain(service->engine, name);
        disk = domain ? domain_disk(domain, target) : NULL;
        return disk && is_path(disk_path(disk), path) ? disk : NULL;
}

Job *job_at(Service *service, const char *path)
{
        g_autofree char *id = NULL;
        Job *job;

        if (sd_bus_path_decode(path, JOB_PREFIX, &id) <= 0)
                return NULL;
        job = engine_job(service->engine, id);
        return job && is_path(job_path(job), path) ? job : NULL;
}

static int find_domain(sd_bus *bus, const char *path, const char *interface, void *data, void **ret_found,
                       sd_bus_error *error)
{
        (void) bus;
        (void) interface;
        (void) error;
        *ret_found = domain_at(data, path);
        return *ret_found != NULL;
}

static int find_disk(sd_bus *bus, const char *path, const char *interface, void *data, void **ret_found,
                     sd_bus_error *error)
{
        (void) bus;
        (void) interface;
        (void) error;
        *ret_found = disk_at(data, path);
        return *ret_found != NULL;
}

static int find_job(sd_bus *bus, const char *path, const char *interface, void *data, void **ret_found,
                    sd_bus_error *error)
{
        (void) bus;
        (void) interface;
        (void) error;
        *ret_found = job_at(data, path);
        return *ret_found != NULL;
}

/* sd-bus frees the list with free(3), as it does what sd_bus_path_encode() made. */
static char **new_list(guint length)
{
        return calloc(length + 1, sizeof(char *));
}

static int list_domains_and_disks(sd_bus *bus, const char *prefix, void *data, char ***ret_nodes,
                                  sd_bus_error *error)
{
        Service *service = data;
        GPtrArray *domains = engine_domains(service->engine);
        guint length = domains->len, n = 0;
        char **nodes;

        (void) bus;
        (void) prefix;
        (void) error;
        for (guint i = 0; i < domains->len; i++)
                length += ((Domain *) domains->pdata[i])->disks->len;
        nodes = new_list(length);
        for (guint i = 0; i < domains->len; i++) {
                const Domain *domain = domains->pdata[i];

                nodes[n++] = domain_path(domain);
                for (guint j = 0; j < domain->disks->len; j++)
                        nodes[n++] = disk_path(domain->disks->pdata[j]);
        }
        *ret_nodes = nodes;
        return 0;
}

static int list_jobs(sd_bus *bus, const char *prefix, void *data, char ***ret_nodes, sd_bus_error *error)
{
        Service *service = data;
        GPtrArray *jobs = engine_jobs(service->engine);
        char **nodes = new_list(jobs->len);

        (void) bus;
        (void) prefix;
        (void) error;
        for (guint i = 0; i < jobs->len; i++)
                nodes[i] = job_path(jobs->pdata[i]);
        *ret_nodes = nodes;
        return 0;
}

int tree_register(Service *service)
{
        static const struct {
                const char *prefix, *interface;
                const sd_bus_vtable *vtable;
                sd_bus_object_find_t find;
        } fallbacks[] = {
                { DOMAIN_PREFIX, INTERFACE("Domain"), domain_vtable, find_domain },
                { DOMAIN_PREFIX, INTERFACE("Disk"), disk_vtable, find_disk },
                { JOB_PREFIX, INTERFACE("Job"), job_vtable, find_job },
        };
        int r = sd_bus_add_object_vtable(service->bus, NULL, ROOT_PATH, INTERFACE("Manager"), manager_vtable,
                                         service);

        for (guint i = 0; r >= 0 && i < G_N_ELEMENTS(fallbacks); i++)
                r = sd_bus_add_fallback_vtable(service->bus, NULL, fallbacks[i].prefix,
                                               fallbacks[i].interface, fallbacks[i].vtable,
                                               fallbacks[i].find, service);
        if (r >= 0)
                r = sd_bus_add_node_enumerator(service->bus, NULL, DOMAIN_PREFIX, list_domains_and_disks,
                                               service);
        if (r >= 0)
                r = sd_bus_add_node_enumerator(service->bus, NULL, JOB_PREFIX, list_jobs, service);
        if (r >= 0)
                r = sd_bus_add_object_manager(service->bus, NULL, ROOT_PATH);
        return r;
}
