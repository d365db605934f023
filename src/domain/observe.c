/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include <string.h>

#include "domain/tap.h"

/* Domains and jobs speak to the engine, which keeps its lists true and hands on what the world may know. A
 * domain is not known to the world before its attach has succeeded. */

static gboolean is_known(Engine *engine, const Domain *domain)
{
        return engine_domain(engine, domain->name) == domain;
}

/* The one that the world knows. */
static Domain *domain_of(const Job *job)
{
        return domain_shown((Domain *) job->host);
}

/* ---- from domains ---- */

static void on_domain_changed(Domain *domain, guint changes, gpointer data)
{
        Engine *engine = data;

        if (is_known(engine, domain))
                engine->observer->domain_changed(domain, changes, engine->data);
}

static void on_disk_added(Disk *disk, gpointer data)
{
        Engine *engine = data;

        if (is_known(engine, disk->domain))
                engine->observer->disk_added(disk, engine->data);
}

static void on_disk_removed(Disk *disk, gpointer data)
{
        Engine *engine = data;

        if (is_known(engine, disk->domain))
                engine->observer->disk_removed(disk, engine->data);
}

/* What a storage daemon's disk is made of, is what the domain's is made of. */
static void mirror(const Disk *disk)
{
        Disk *shown = domain_disk(disk->domain->of, disk->target);

        if (shown && disk->chain->layers->len > 0 && disk_set_chain(shown, chain_copy_below(disk->chain, 0)))
                domain_save(shown->domain);
}

static void on_disk_changed(Disk *disk, guint changes, gpointer data)
{
        Engine *engine = data;

        if (is_known(engine, disk->domain))
                engine->observer->disk_changed(disk, changes, engine->data);
        else if (disk->domain->of && changes & DISK_CHANGED_CHAIN)
                mirror(disk);
}

static void on_connection_lost(Domain *domain, const GError *error, gpointer data)
{
        Engine *engine = data;

        if (is_known(engine, domain))
                engine->observer->connection_lost(domain, error, engine->data);
}

static void on_connection_regained(Domain *domain, gpointer data)
{
        Engine *engine = data;

        if (is_known(engine, domain))
                engine->observer->connection_regained(domain, engine->data);
}

typedef struct {
        Engine *engine;
        Domain *domain;
} Removal;

static gboolean on_removal(gpointer data)
{
        g_autofree Removal *removal = data;
        g_autoptr(Domain) domain = removal->domain;

        if (domain->gone && !domain->removed && domain->jobs->len == 0 &&
            is_known(removal->engine, domain)) {
                journal_remove(removal->engine->journal, JOURNAL_DOMAINS, domain->name, NULL, NULL);
                engine_remove_domain(removal->engine, domain);
                engine_jobs_ended(domain);
        }
        return G_SOURCE_REMOVE;
}

/* A transient domain goes when its QEMU has ended and its jobs have told their ends: not at once, for
 * whoever tells of that goes on with it. */
void engine_remove_transient(Engine *engine, Domain *domain)
{
        Removal *removal;

        if (!domain->definition || domain->persistent || !domain->gone || !is_known(engine, domain))
                return;
        removal = g_new(Removal, 1);
        *removal = (Removal){ engine, domain_ref(domain) };
        g_idle_add(on_removal, removal);
}

static void on_gone(Domain *domain, gpointer data)
{
        Engine *engine = data;

        if (is_known(engine, domain))
                engine->observer->domain_gone(domain, engine->data);
        if (domain->definition)
                taps_remove(domain->definition);
        engine_remove_transient(engine, domain);
}

static void on_late(Domain *domain, const char *command, gpointer data)
{
        Engine *engine = data;

        if (is_known(engine, domain) || domain->of)
                engine->observer->domain_late(domain, command, engine->data);
}

static void on_domain_warning(Domain *domain, const char *text, gpointer data)
{
        Engine *engine = data;

        engine->observer->warning(domain, NULL, text, engine->data);
}

static const DomainObserver domain_observer = {
        .changed = on_domain_changed,
        .disk_added = on_disk_added,
        .disk_removed = on_disk_removed,
        .disk_changed = on_disk_changed,
        .connection_lost = on_connection_lost,
        .connection_regained = on_connection_regained,
        .gone = on_gone,
        .late = on_late,
        .warning = on_domain_warning,
};

/* ---- from jobs ---- */

static void tell_jobs_changed(Engine *engine, Domain *domain)
{
        engine->observer->jobs_changed(engine->data);
        on_domain_changed(domain, DOMAIN_CHANGED_JOBS, engine);
}

static void on_job_announced(Job *job, gpointer data)
{
        Engine *engine = data;
        Domain *domain = domain_of(job);
        Disk *disk = domain_disk(domain, job->disk);

        engine_add_job(engine, job);
        engine->observer->job_added(job, engine->data);
        tell_jobs_changed(engine, domain);
        if (disk)
                on_disk_changed(disk, DISK_CHANGED_JOB, engine);
        domain_schedule_poll(domain);
}

static void on_job_changed(Job *job, guint changes, gpointer data)
{
        Engine *engine = data;

        if (engine_job(engine, job->id) == job)
                engine->observer->job_changed(job, changes, engine->data);
}

static void on_job_ready(Job *job, gpointer data)
{
        Engine *engine = data;

        engine->observer->job_ready(job, engine->data);
}

static void on_job_decided(Job *job, gpointer data)
{
        Engine *engine = data;

        engine->observer->job_decided(job, engine->data);
}

static void on_job_refused(Job *job, const GError *error, gpointer data)
{
        Engine *engine = data;

        engine->observer->job_refused(job, error, engine->data);
}

static void on_job_concluded(Job *job, gpointer data)
{
        Engine *engine = data;
        Domain *domain = domain_of(job), *host = (Domain *) job->host;
        Disk *disk = domain_disk(domain, job->disk);

        /* With QEMU gone nobody but the record can say which image is the disk. */
        if (disk && job->record.result == RESULT_PIVOTED && disk_take_pivot(disk, job))
                domain_save(domain);
        domain_drop_job(host, job);
        if (host->of && disk)
                disk_set_job(disk, NULL);
        tell_jobs_changed(engine, domain);
        engine->observer->job_concluded(job, engine->data);
        engine_expire_finished(engine);
        engine_remove_transient(engine, domain);
        engine_jobs_ended(domain);
        if (host->of)
                engine_job_left_storage(engine, host, disk);
        else if (domain->gone && domain->definition && domain->persistent)
                engine_look_at_images(domain);
        if (domain->detached && domain->jobs->len == 0) {
                /* Nobody needs it any more; a job whose host is gone has nothing left to do. */
                journal_remove(engine->journal, JOURNAL_DOMAINS, domain->name, NULL, NULL);
                engine_forget_detached(engine, domain);
        }
}

static void on_job_warning(Job *job, const char *text, gpointer data)
{
        Engine *engine = data;

        engine->observer->warning(domain_of(job), job, text, engine->data);
}

static void on_job_dropped(Job *job, gpointer data)
{
        Domain *host = (Domain *) job->host;
        Disk *disk = domain_disk(domain_of(job), job->disk);

        domain_drop_job(host, job);
        if (!host->of)
                return;
        if (disk)
                disk_set_job(disk, NULL);
        engine_job_left_storage(data, host, disk);
}

static const JobObserver job_observer = {
        .announced = on_job_announced,
        .changed = on_job_changed,
        .ready = on_job_ready,
        .decided = on_job_decided,
        .refused = on_job_refused,
        .concluded = on_job_concluded,
        .warning = on_job_warning,
        .dropped = on_job_dropped,
};

static void image_use_free(gpointer data)
{
        ImageUse *use = data;

        g_free(use->path);
        g_free(use->user);
        g_free(use);
}

static void add_use(GPtrArray *uses, const char *path, char *user)
{
        ImageUse *use = g_new0(ImageUse, 1);

        use->path = g_strdup(path);
        use->user = user;
        g_ptr_array_add(uses, use);
}

/* What is going to be an image: of a job that can be undone. Of two that begin at once, the later one sees
 * the other. */
static void add_targets(GPtrArray *uses, const Domain *domain, const Job *job)
{
        for (guint i = 0; i < domain->jobs->len; i++) {
                const Job *other = domain->jobs->pdata[i];

                if (other != job && other->driver->undo && other->target &&
                    (other->start_time < job->start_time ||
                     (other->start_time == job->start_time && strcmp(other->id, job->id) < 0)))
                        add_use(uses, other->target,
                                g_strdup_printf("%s '%s' of disk '%s' of domain '%s'", other->driver->type,
                                                other->id, other->disk, domain->name));
        }
}

GPtrArray *engine_list_uses(Engine *engine, const Domain *without, const char *target)
{
        GPtrArray *uses = g_ptr_array_new_with_free_func(image_use_free);

        for (guint i = 0; i < engine->domains->len; i++) {
                const Domain *domain = engine->domains->pdata[i];

                for (guint j = 0; j < domain->disks->len; j++) {
                        const Disk *disk = domain->disks->pdata[j];

                        if (domain == without && strcmp(disk->target, target) == 0)
                                continue;
                        for (guint k = 0; k < disk->chain->layers->len; k++)
                                add_use(uses, chain_layer(disk->chain, k)->source,
                                        g_strdup_printf("disk '%s' of domain '%s'", disk->target,
                                                        domain->name));
                }
        }
        return uses;
}

/* Every layer of every disk but the job's own, and what other jobs make. */
static GPtrArray *list_images(JobHost *host, const Job *job)
{
        Engine *engine = host->observer_data;
        GPtrArray *uses = engine_list_uses(engine, domain_shown((Domain *) host), job->disk);

        for (guint i = 0; i < engine->domains->len; i++)
                add_targets(uses, engine->domains->pdata[i], job);
        for (guint i = 0; i < engine->storages->len; i++)
                add_targets(uses, engine->storages->pdata[i], job);
        return uses;
}

void engine_watch_domain(Engine *engine, Domain *domain)
{
        domain->observer = &domain_observer;
        domain->observer_data = engine;
        domain->host.look = domain_host_look;
        domain->host.created = domain_host_created;
        domain->host.save = domain_host_save;
        domain->host.passed = domain_host_passed;
        domain->host.images = list_images;
        domain->host.check_overlays = engine_check_overlays;
        domain->host.spoiled = engine_images_spoiled;
        domain->host.count_data = engine_count_data;
        domain->host.observer = &job_observer;
        domain->host.observer_data = engine;
        domain->host.may_tell = engine->may_tell;
}

/* ---- the list of jobs ---- */

void engine_add_job(Engine *engine, Job *job)
{
        g_ptr_array_add(engine->jobs, job_ref(job));
        g_hash_table_insert(engine->by_id, job->id, job);
}

void engine_remove_job(Engine *engine, Job *job, JournalDone done, gpointer data)
{
        engine->observer->job_removed(job, engine->data);
        journal_remove(engine->journal, JOURNAL_JOBS, job->id, done, data);
        g_hash_table_remove(engine->by_id, job->id);
        g_ptr_array_remove(engine->jobs, job);
}

static gboolean on_expiry(gpointer data)
{
        Engine *engine = data;

        engine->expiry = 0;
        engine_expire_finished(engine);
        return G_SOURCE_REMOVE;
}

/* The record of the job may be the only one that says which image is the disk. */
static gboolean is_needed(Engine *engine, const Job *job)
{
        const Domain *domain = engine_domain(engine, job->domain);

        return !job->concluded || job->step || (domain && domain->unsaved);
}

void engine_expire_finished(Engine *engine)
{
        const Surroundings *surroundings = engine->surroundings;
        gint64 now = g_get_real_time(), next = 0;
        g_autoptr(GHashTable) kept =
                g_hash_table_new(g_str_hash, g_str_equal); /* of each domain: how many */
        g_autoptr(GPtrArray) expired = g_ptr_array_new();

        for (guint i = engine->jobs->len; i-- > 0;) {
                Job *job = engine->jobs->pdata[i];
                gint64 end = job->end_time + (gint64) surroundings->keep_finished_seconds * G_USEC_PER_SEC;
                guint later = GPOINTER_TO_UINT(g_hash_table_lookup(kept, job->domain));

                if (!is_needed(engine, job) && (end <= now || later >= surroundings->keep_finished)) {
                        g_ptr_array_add(expired, job);
                        continue;
                }
                if (!job->concluded)
                        continue;
                g_hash_table_insert(kept, job->domain, GUINT_TO_POINTER(later + 1));
                if (next == 0 || end < next)
                        next = end;
        }
        for (guint i = expired->len; i-- > 0;)
                engine_remove_job(engine, expired->pdata[i], NULL, NULL);
        g_clear_handle_id(&engine->expiry, g_source_remove);
        if (next)
                engine->expiry = g_timeout_add_seconds((guint) (MAX(next - now, 0) / G_USEC_PER_SEC) + 1,
                                                       on_expiry, engine);
}
