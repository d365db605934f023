/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/domain.h"

#include <string.h>
#include <unistd.h>

static const char *const state_names[] = {
        [DOMAIN_RUNNING] = "running",           [DOMAIN_PAUSED] = "paused",
        [DOMAIN_SHUTOFF] = "shutoff",           [DOMAIN_CRASHED] = "crashed",
        [DOMAIN_DISCONNECTED] = "disconnected",
};

const char *domain_state_name(DomainState state)
{
        return state_names[state];
}

Domain *domain_new(const char *name, Journal *journal, GHashTable *capability_cache)
{
        static guint serial;
        Domain *domain = g_new0(Domain, 1);

        domain->serial = ++serial;
        g_ref_count_init(&domain->references);
        domain->host.journal = journal;
        domain->capability_cache = g_hash_table_ref(capability_cache);
        domain->name = g_strdup(name);
        domain->uuid = g_strdup("");
        domain->version = g_strdup("");
        domain->instance = g_strdup("");
        domain->reason = g_strdup("");
        domain->state = DOMAIN_DISCONNECTED;
        domain->streams_possible = TRUE;
        domain->disks = g_ptr_array_new_with_free_func((GDestroyNotify) disk_free);
        domain->paths = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
        domain->begun = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        domain->jobs = g_ptr_array_new_with_free_func((GDestroyNotify) job_unref);
        domain->storages = g_ptr_array_new();
        domain->closing = g_ptr_array_new_with_free_func(g_free);
        domain->stopping = g_ptr_array_new_with_free_func(g_free);
        domain->maps = g_ptr_array_new();
        domain->pidfd = -1;
        return domain;
}

Domain *domain_ref(Domain *domain)
{
        g_ref_count_inc(&domain->references);
        return domain;
}

void domain_unref(Domain *domain)
{
        if (!domain || !g_ref_count_dec(&domain->references))
                return;
        g_assert(!domain->connection); /* domain_remove() came first */
        g_clear_pointer(&domain->pid_watch, fd_watch_free);
        g_clear_handle_id(&domain->save_retry, g_source_remove);
        g_clear_handle_id(&domain->kill_timer, g_source_remove);
        if (domain->pidfd >= 0)
                close(domain->pidfd);
        g_ptr_array_unref(domain->disks);
        g_ptr_array_unref(domain->jobs);
        g_ptr_array_unref(domain->storages);
        g_ptr_array_unref(domain->closing);
        g_ptr_array_unref(domain->maps);
        g_ptr_array_unref(domain->stopping);
        domain_unref(domain->of);
        definition_free(domain->definition);
        g_hash_table_unref(domain->paths);
        g_hash_table_unref(domain->begun);
        g_clear_pointer(&domain->look_next, g_array_unref);
        g_clear_pointer(&domain->save_waiters, g_array_unref);
        g_clear_pointer(&domain->jobs_seen, json_node_unref);
        graph_free(domain->host.graph);
        capabilities_unref(domain->host.capabilities);
        g_hash_table_unref(domain->capability_cache);
        char *owned[] = { domain->name,      domain->uuid,         domain->path,
                          domain->instance,  domain->version,      domain->reason,
                          domain->run_state, domain->late_command, domain->shutdown_reason };
        for (guint i = 0; i < G_N_ELEMENTS(owned); i++)
                g_free(owned[i]);
        g_free(domain);
}

Domain *domain_shown(Domain *domain)
{
        return domain->of ? domain->of : domain;
}

Job *domain_job_by_qemu_id(Domain *domain, const char *id)
{
        for (guint i = 0; id && i < domain->jobs->len; i++) {
                Job *job = domain->jobs->pdata[i];
                if (strcmp(job->qemu_id, id) == 0)
                        return job;
        }
        return NULL;
}

Job *domain_job_by_part_id(Domain *domain, const char *id)
{
        for (guint i = 0; id && i < domain->jobs->len; i++) {
                Job *job = domain->jobs->pdata[i];
                if (g_strcmp0(job->part_id, id) == 0)
                        return job;
        }
        return NULL;
}

void domain_add_job(Domain *domain, Job *job)
{
        Disk *disk = domain_disk(domain, job->disk);

        g_ptr_array_add(domain->jobs, job_ref(job));
        job_set_host(job, &domain->host);
        if (disk)
                disk_set_job(disk, job);
}

void domain_drop_job(Domain *domain, Job *job)
{
        for (guint i = 0; i < domain->disks->len; i++)
                if (((Disk *) domain->disks->pdata[i])->job == job)
                        disk_set_job(domain->disks->pdata[i], NULL);
        g_ptr_array_remove(domain->jobs, job);
        domain_map_job_is_gone(domain);
}

GPtrArray *domain_copy_jobs(Domain *domain)
{
        GPtrArray *jobs = g_ptr_array_new_with_free_func((GDestroyNotify) job_unref);

        for (guint i = 0; i < domain->jobs->len; i++)
                g_ptr_array_add(jobs, job_ref(domain->jobs->pdata[i]));
        return jobs;
}

/* QEMU's run states, as a domain's. */
static DomainState state_of_run_state(const char *run_state)
{
        if (!run_state || strcmp(run_state, "running") == 0)
                return DOMAIN_RUNNING;
        if (strcmp(run_state, "guest-panicked") == 0 || strcmp(run_state, "internal-error") == 0)
                return DOMAIN_CRASHED;
        return DOMAIN_PAUSED;
}

void domain_set_state(Domain *domain, DomainState state, const char *reason)
{
        guint changes = (state != domain->state ? DOMAIN_CHANGED_STATE : 0) |
                        (strcmp(reason, domain->reason) != 0 ? DOMAIN_CHANGED_REASON : 0);
        g_autofree char *old = domain->reason;

        domain->state = state;
        domain->reason = g_strdup(reason);
        if (changes)
                domain->observer->changed(domain, changes, domain->observer_data);
}

void domain_update_state(Domain *domain)
{
        g_autofree char *text = NULL;

        if (domain->gone)
                return; /* said when it went */
        if (!domain->host.qmp)
                domain_set_state(domain, DOMAIN_DISCONNECTED,
                                 domain->state == DOMAIN_DISCONNECTED ? domain->reason
                                                                      : "the connection was lost");
        else if (domain->late_command) {
                text = g_strdup_printf("QEMU does not answer '%s'", domain->late_command);
                domain_set_state(domain, domain->state, text);
        } else
                domain_set_state(domain, state_of_run_state(domain->run_state),
                                 domain->run_state ? domain->run_state : "");
}
