/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "job/backup.h"
#include "job/commit.h"
#include "job/copy.h"
#include "job/external.h"
#include "job/pull.h"
#include "job/snapshot.h"

/* Going on after a start: records, then QEMU, then the world. */

#define START_DEADLINE_SECONDS 3
#define START_CHECK_MILLISECONDS 2

/* The job types whose records are read again. */
static const JobDriver *const drivers[] = {
        &active_commit_driver,
        &commit_driver,
        &restartable_active_commit_driver,
        &copy_driver,
        &pull_driver,
        &backup_driver,
        &snapshot_driver,
        &external_drivers[EXTERNAL_ACTIVE_COMMIT],
        &external_drivers[EXTERNAL_COMMIT],
        &external_drivers[EXTERNAL_COPY],
        &external_drivers[EXTERNAL_PULL],
        &external_drivers[EXTERNAL_BACKUP],
        NULL,
};

static gboolean read_domain(const char *name, JsonObject *record, gpointer data)
{
        Engine *engine = data;
        Domain *domain = domain_from_json(name, record, engine->journal, engine->capability_cache);

        if (!domain)
                return FALSE;
        if (json_boolean(record, "storage")) {
                g_ptr_array_add(engine->attaching, domain); /* until its domain is there */
                return TRUE;
        }
        engine_watch_domain(engine, domain);
        domain->host.is_defined = domain->definition != NULL;
        if (domain->detached) {
                g_ptr_array_add(engine->detached, domain);
                return TRUE;
        }
        domain->shown = TRUE;
        g_ptr_array_add(engine->domains, domain);
        g_hash_table_insert(engine->by_name, domain->name, domain);
        return TRUE;
}

static gboolean read_job(const char *id, JsonObject *record, gpointer data)
{
        Engine *engine = data;
        g_autoptr(Job) job = job_from_json(id, record, drivers);

        if (!job)
                return FALSE;
        g_ptr_array_add(engine->jobs, g_steal_pointer(&job));
        return TRUE;
}

static gboolean read_images(const char *name, JsonObject *record, gpointer data)
{
        Engine *engine = data;

        (void) name;
        return stale_from_json(engine->stale, record);
}

static void on_damaged(const char *path, const char *why, gpointer data)
{
        Engine *engine = data;

        engine->observer->record_set_aside(path, why, engine->data);
}

static int by_start_time(gconstpointer a, gconstpointer b)
{
        const Job *first = *(Job *const *) a, *second = *(Job *const *) b;

        return first->start_time < second->start_time ? -1 : first->start_time > second->start_time;
}

/* Gives an unfinished job back to its domain; answers FALSE for one that never came to be. */
static gboolean place_job(Engine *engine, Job *job)
{
        Domain *domain = engine_domain(engine, job->domain), *storage;

        if (job->concluded)
                return TRUE;
        if (!domain)
                domain = engine_detached_domain(engine, job->domain);
        storage = engine_storage(engine, job->domain, job->disk);
        if (storage && strcmp(job->instance, storage->instance) == 0) {
                Disk *disk = domain_disk(storage->of, job->disk);

                domain = storage;
                if (disk)
                        disk_set_job(disk, job);
        }
        if (domain)
                domain_add_job(domain, job);
        /* That it was accepted is not synced: whether somebody was told of it before the machine went down
         * cannot be known. */
        if (!job->driver->silent && !job_is_of_this_boot(job))
                job->record.accepted = job->announced = TRUE;
        if (job->announced)
                return TRUE;
        /* Nobody was told of it. Its domain finds out whether QEMU runs it. */
        if (!domain)
                journal_remove(engine->journal, JOURNAL_JOBS, job->id, NULL, NULL);
        return FALSE;
}

/* The domain's record may be older than a pivot that its job's record tells of. */
static void apply_pivot(Engine *engine, const Job *job)
{
        Domain *domain = engine_domain(engine, job->domain);
        Disk *disk = domain ? domain_disk(domain, job->disk) : NULL;

        if (disk && job->driver->two_phase && !job->driver->external &&
            (job->record.result == RESULT_COMPLETED || job->record.result == RESULT_PIVOTED) &&
            (strcmp(job->instance, domain->instance) == 0 || (domain->definition && !job->record.told)) &&
            disk_take_pivot(disk, job))
                domain_save(domain);
}

static gboolean is_domain_settled(const Domain *domain)
{
        /* Gone, connected and looked at, or found without an answer. */
        if (!domain->gone &&
            (domain->closing->len > 0 ||
             (!domain->retry && (domain->look || (domain->connection && !domain->host.qmp)))))
                return FALSE;
        for (guint i = 0; i < domain->jobs->len; i++)
                if (((Job *) domain->jobs->pdata[i])->step)
                        return FALSE;
        return TRUE;
}

static gboolean are_settled(const GPtrArray *domains)
{
        for (guint i = 0; i < domains->len; i++)
                if (!is_domain_settled(domains->pdata[i]))
                        return FALSE;
        return TRUE;
}

static gboolean is_settled(const Engine *engine)
{
        return are_settled(engine->domains) && are_settled(engine->storages) && engine_is_calm(engine);
}

/* ---- QEMUs whose start was cut off ---- */

static void on_interrupted_ended(Domain *domain, const GError *error, gpointer data)
{
        (void) error;
        if (domain->of)
                engine_storage_is_over(data, domain);
}

static void on_interrupted_found(Domain *domain, const GError *error, gpointer data)
{
        /* It may be slow, and holds its images in any case. */
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_TIMEOUT)) {
                domain_attach_again(domain, on_interrupted_found, data);
                return;
        }
        /* QEMU's word for a guest that has not run yet. */
        if (!error && !domain->of && g_strcmp0(domain->run_state, "prelaunch") != 0) {
                domain->starting = FALSE;
                domain_save(domain);
                return;
        }
        domain_close(domain, "the start was interrupted", on_interrupted_ended, data);
}

static void recover_domain(Engine *engine, Domain *domain)
{
        g_autoptr(Domain) self = domain_ref(domain); /* a storage daemon's may go with its last job */
        gboolean idle_storage = domain->of && domain->jobs->len == 0;

        if (!domain->gone && (domain->starting || idle_storage)) {
                domain_attach(domain, -1, on_interrupted_found, engine);
                return;
        }
        domain_recover(domain);
        if (domain->gone && idle_storage)
                engine_storage_is_over(engine, domain);
        else
                engine_remove_transient(engine, domain);
}

/* Its domain's record was damaged, and nothing that is written may take its place. */
static Domain *stand_in_of(Engine *engine, const Domain *storage)
{
        Domain *domain = domain_new(storage->name, engine->journal, engine->capability_cache);

        engine_watch_domain(engine, domain);
        domain->gone = domain->removed = TRUE;
        return domain;
}

static void place_storages(Engine *engine)
{
        while (engine->attaching->len > 0) {
                Domain *storage = g_ptr_array_remove_index(engine->attaching, 0);
                Domain *known = engine_domain(engine, storage->name);
                g_autoptr(Domain) of =
                        known && known->definition ? domain_ref(known) : stand_in_of(engine, storage);

                engine_adopt_storage(engine, storage, of);
        }
}

static gboolean on_start_check(gpointer data)
{
        Engine *engine = data;

        if (!is_settled(engine) && g_get_monotonic_time() < engine->start_deadline)
                return G_SOURCE_CONTINUE;
        engine->start_check = 0;
        engine->started(engine->started_data);
        return G_SOURCE_REMOVE;
}

void engine_start(Engine *engine, gboolean only_jobs, void (*done)(gpointer data), gpointer data)
{
        if (!only_jobs)
                engine->index = image_index_new(
                        (const char *const *) engine->surroundings->image_directories, NULL, NULL);
        journal_read(engine->journal, JOURNAL_DOMAINS, read_domain, on_damaged, engine);
        journal_read(engine->journal, JOURNAL_JOBS, read_job, on_damaged, engine);
        journal_read(engine->journal, JOURNAL_STALE, read_images, on_damaged, engine);
        place_storages(engine);
        g_ptr_array_sort(engine->jobs, by_start_time);
        for (guint i = 0; i < engine->jobs->len;) {
                Job *job = engine->jobs->pdata[i];

                if (!place_job(engine, job)) {
                        g_ptr_array_remove_index(engine->jobs, i);
                        continue;
                }
                g_hash_table_insert(engine->by_id, job->id, job);
                apply_pivot(engine, job);
                i++;
        }
        engine_expire_finished(engine);

        engine->started = done;
        engine->started_data = data;
        engine->start_deadline = g_get_monotonic_time() + START_DEADLINE_SECONDS * G_USEC_PER_SEC;
        engine->start_check = g_timeout_add(START_CHECK_MILLISECONDS, on_start_check, engine);
        for (guint i = 0; i < engine->domains->len; i++) {
                Domain *domain = engine->domains->pdata[i];
                if (!only_jobs || domain->jobs->len > 0)
                        recover_domain(engine, domain);
        }
        for (guint i = engine->storages->len; i-- > 0;)
                recover_domain(engine, engine->storages->pdata[i]);
        for (guint i = 0; i < engine->detached->len; i++)
                domain_recover(engine->detached->pdata[i]);
}

static void let_jobs_tell(Domain *domain)
{
        g_autoptr(GPtrArray) jobs = domain_copy_jobs(domain);

        domain->host.may_tell = TRUE;
        for (guint i = 0; i < jobs->len; i++)
                job_advance(jobs->pdata[i]);
}

void engine_may_tell(Engine *engine)
{
        engine->may_tell = TRUE;
        for (guint i = 0; i < engine->domains->len; i++)
                let_jobs_tell(engine->domains->pdata[i]);
        for (guint i = 0; i < engine->detached->len; i++)
                let_jobs_tell(engine->detached->pdata[i]);
        for (guint i = engine->storages->len; i-- > 0;)
                let_jobs_tell(engine->storages->pdata[i]);
}

static void on_adopt_looked(Domain *domain, const GError *error, gpointer data)
{
        (void) error;
        (void) data;
        domain_schedule_poll(domain);
}

void engine_adopt_jobs(Engine *engine, Domain *domain)
{
        gboolean found = FALSE;

        for (guint i = 0; i < engine->jobs->len; i++) {
                g_autoptr(Job) job = job_ref(engine->jobs->pdata[i]);

                if (job->concluded || job->host || strcmp(job->domain, domain->name) != 0)
                        continue;
                domain_add_job(domain, job);
                if (strcmp(job->instance, domain->instance) == 0)
                        found = TRUE;
                else
                        job_qemu_gone(job);
        }
        if (found)
                domain_look_then(domain, on_adopt_looked, NULL);
}
