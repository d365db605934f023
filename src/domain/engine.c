/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine.h"

#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/test-point.h"
#include "domain/engine-private.h"
#include "job/resize.h"

Engine *engine_new(Journal *journal, Surroundings *surroundings, const EngineObserver *observer,
                   gpointer data)
{
        Engine *engine = g_new0(Engine, 1);

        engine->journal = journal;
        engine->surroundings = surroundings;
        engine->observer = observer;
        engine->data = data;
        engine->capability_cache = capability_cache_new();
        engine->domains = g_ptr_array_new_with_free_func((GDestroyNotify) domain_unref);
        engine->detached = g_ptr_array_new_with_free_func((GDestroyNotify) domain_unref);
        engine->storages = g_ptr_array_new_with_free_func((GDestroyNotify) domain_unref);
        engine->jobs = g_ptr_array_new_with_free_func((GDestroyNotify) job_unref);
        engine->attaching = g_ptr_array_new();
        engine->stale = stale_list_new();
        engine->by_name = g_hash_table_new(g_str_hash, g_str_equal);
        engine->by_id = g_hash_table_new(g_str_hash, g_str_equal);
        return engine;
}

/* Who waits is told; the jobs go on in QEMU, and the next start goes on with them. */
static void let_go(Domain *domain)
{
        g_autoptr(Domain) self = domain_ref(domain);
        g_autoptr(GPtrArray) jobs = domain_copy_jobs(domain);
        g_autoptr(GError) error = g_error_new(BJ_ERROR, BJ_ERROR_DISCONNECTED, "the service is stopping");

        for (guint i = 0; i < jobs->len; i++) {
                Job *job = jobs->pdata[i];

                job_start_is_late(job, error);
                job->dropped = TRUE;
        }
        domain_end_attach(domain, error);
        domain_drop_connection(domain);
}

void engine_stop(Engine *engine)
{
        g_clear_pointer(&engine->index, image_index_free);
        while (engine->attaching->len > 0)
                let_go(g_ptr_array_remove_index(engine->attaching, 0));
        for (guint i = 0; i < engine->domains->len; i++)
                let_go(engine->domains->pdata[i]);
        for (guint i = 0; i < engine->detached->len; i++)
                let_go(engine->detached->pdata[i]);
        for (guint i = 0; i < engine->storages->len; i++)
                let_go(engine->storages->pdata[i]);
}

void engine_free(Engine *engine)
{
        if (!engine)
                return;
        g_clear_handle_id(&engine->expiry, g_source_remove);
        g_clear_handle_id(&engine->start_check, g_source_remove);
        g_ptr_array_unref(engine->attaching);
        g_ptr_array_unref(engine->stale);
        g_hash_table_unref(engine->by_name);
        g_hash_table_unref(engine->by_id);
        g_ptr_array_unref(engine->jobs);
        g_ptr_array_unref(engine->storages);
        g_ptr_array_unref(engine->detached);
        g_ptr_array_unref(engine->domains);
        g_hash_table_unref(engine->capability_cache);
        journal_close(engine->journal);
        surroundings_free(engine->surroundings);
        g_free(engine);
}

/* ---- attach and detach ---- */

typedef struct {
        Engine *engine;
        DomainDone done;
        gpointer data;
} Attach;

static gboolean name_is_good(const char *name)
{
        gsize length = strlen(name);

        return length >= 1 && length <= 128 && g_ascii_isalnum(name[0]) &&
               strspn(name, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "._-") == length;
}

static gboolean check_attach(Engine *engine, const char *name, const char *path, GError **error)
{
        Domain *taken = engine_domain(engine, name);

        if (!name_is_good(name)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "'%s' is no domain name: 1 to 128 of [A-Za-z0-9._-], a letter or digit first",
                            name);
                return FALSE;
        }
        if (path && *path != '/') {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "QMP socket '%s' is no absolute path", path);
                return FALSE;
        }
        for (guint i = 0; i < engine->attaching->len; i++)
                if (strcmp(((Domain *) engine->attaching->pdata[i])->name, name) == 0)
                        taken = engine->attaching->pdata[i];
        if (taken && (taken->definition || !taken->gone) &&
            (taken->definition || taken->path || taken->host.qmp || path)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_EXISTS, "there is a domain '%s' already", name);
                return FALSE;
        }
        for (guint i = 0; path && i < engine->domains->len; i++) {
                const Domain *other = engine->domains->pdata[i];

                if (!other->gone && g_strcmp0(other->path, path) == 0) {
                        g_set_error(error, BJ_ERROR, BJ_ERROR_EXISTS,
                                    "'%s' is attached already, as domain '%s'", path, other->name);
                        return FALSE;
                }
        }
        return engine_check_room(engine, error);
}

static void attach_end(Attach *attach, Domain *domain, const GError *error)
{
        g_ptr_array_remove_fast(attach->engine->attaching, domain);
        attach->done(domain, error, attach->data);
        g_free(attach);
}

static void on_attach_saved(Domain *domain, const GError *error, gpointer data)
{
        Attach *attach = data;
        Engine *engine = attach->engine;

        test_point("attach-show");
        if (error) {
                domain_remove(domain);
                attach_end(attach, domain, error);
                domain_unref(domain);
                return;
        }
        g_hash_table_insert(engine->by_name, domain->name, domain);
        g_ptr_array_add(engine->domains, domain);
        engine->observer->domain_added(domain, engine->data);
        attach_end(attach, domain, NULL);
        test_point("attach-adopt");
        /* Jobs of an earlier time with this domain, and of somebody else. */
        engine_adopt_jobs(engine, domain);
        domain->shown = TRUE;
        domain_find_external_jobs(domain);
}

static void on_attached(Domain *domain, const GError *error, gpointer data)
{
        Attach *attach = data;
        Domain *old, *detached;

        if (error) {
                domain_remove(domain);
                attach_end(attach, domain, error);
                domain_unref(domain);
                return;
        }
        old = engine_domain(attach->engine, domain->name);
        if (old)
                engine_remove_domain(attach->engine, old);
        detached = engine_detached_domain(attach->engine, domain->name);
        if (detached)
                engine_forget_detached(attach->engine, detached);
        test_point("attach-record");
        domain_save_then(domain, on_attach_saved, attach);
}

void engine_attach(Engine *engine, const char *name, const char *path, int fd, DomainDone done,
                   gpointer data)
{
        g_autoptr(GError) error = NULL;
        Attach *attach;
        Domain *domain;

        if (!check_attach(engine, name, path, &error)) {
                if (fd >= 0)
                        close(fd);
                done(NULL, error, data);
                return;
        }
        attach = g_new(Attach, 1);
        *attach = (Attach){ engine, done, data };
        domain = domain_new(name, engine->journal, engine->capability_cache);
        domain->path = g_strdup(path);
        engine_watch_domain(engine, domain);
        g_ptr_array_add(engine->attaching, domain);
        test_point("attach-connect");
        domain_attach(domain, fd, on_attached, attach);
}

static gboolean check_detach(const Domain *domain, gboolean force, GError **error)
{
        if (domain->maps->len > 0) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_JOB_ACTIVE,
                            "a map of a disk of domain '%s' is being made: wait for that", domain->name);
                return FALSE;
        }
        for (guint i = 0; i < domain->jobs->len; i++) {
                const Job *job = domain->jobs->pdata[i];

                if (!force) {
                        g_set_error(
                                error, BJ_ERROR, BJ_ERROR_JOB_ACTIVE,
                                "job '%s' runs on disk '%s' of domain '%s': end it, or detach with 'force'",
                                job->id, job->disk, domain->name);
                        return FALSE;
                }
                if (!job->announced || job->state == JOB_COMPLETING) {
                        g_set_error(error, BJ_ERROR, BJ_ERROR_JOB_ACTIVE,
                                    "job '%s' on disk '%s' of domain '%s' is just %s: wait for that",
                                    job->id, job->disk, domain->name,
                                    job->announced ? "ending" : "starting");
                        return FALSE;
                }
        }
        return TRUE;
}

typedef struct {
        Domain *domain;
        DomainDone done;
        gpointer data;
} Detach;

static void on_detach_recorded(const GError *error, gpointer data)
{
        Detach *detach = data;

        test_point("detach-answer");
        detach->done(detach->domain, error, detach->data);
        domain_unref(detach->domain);
        g_free(detach);
}

static void on_detach_saved(Domain *domain, const GError *error, gpointer data)
{
        (void) domain;
        on_detach_recorded(error, data);
}

void engine_detach(Engine *engine, Domain *domain, gboolean force, DomainDone done, gpointer data)
{
        g_autoptr(GError) error = NULL;
        Detach *detach;

        if (domain->definition)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_INVALID_STATE,
                            "domain '%s' is the service's own: Destroy or Undefine it", domain->name);
        if (error || !check_detach(domain, force, &error)) {
                done(domain, error, data);
                return;
        }
        detach = g_new(Detach, 1);
        *detach = (Detach){ domain_ref(domain), done, data };
        test_point("detach-record");
        if (domain->jobs->len > 0) {
                g_ptr_array_add(engine->detached, domain_ref(domain));
                engine_hide_domain(engine, domain);
                domain_detach(domain);
                domain_save_then(domain, on_detach_saved, detach);
        } else {
                journal_remove(engine->journal, JOURNAL_DOMAINS, domain->name, on_detach_recorded, detach);
                engine_remove_domain(engine, domain);
        }
}

/* ---- jobs ---- */

static gboolean check_start(const Disk *disk, const JobDriver *driver, const Options *options,
                            GError **error)
{
        const Domain *domain = disk->domain;

        if (options_flag(options, "resume") && !domain->persistent)
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "option 'resume': domain '%s' is not started again by this service, it is %s",
                            domain->name, domain->definition ? "transient" : "attached");
        else if (domain->gone && domain->starting)
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "domain '%s' is being started",
                            domain->name);
        else if (domain->gone && !(domain->definition && domain->persistent))
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "domain '%s' is %s", domain->name,
                            domain_state_name(domain->state));
        else if (disk->job && disk->job->driver->external)
                g_set_error(error, BJ_ERROR, BJ_ERROR_JOB_ACTIVE,
                            "disk '%s' of domain '%s' is busy with job '%s' (QEMU's '%s'), which somebody "
                            "else started",
                            disk->target, domain->name, disk->job->id, disk->job->qemu_id);
        else if (disk->job)
                g_set_error(error, BJ_ERROR, BJ_ERROR_JOB_ACTIVE,
                            "disk '%s' of domain '%s' is busy with %s '%s'", disk->target, domain->name,
                            disk->job->driver->silent ? disk->job->driver->type : "job", disk->job->id);
        else if (driver == &resize_driver && domain->maps->len > 0)
                g_set_error(error, BJ_ERROR, BJ_ERROR_JOB_ACTIVE,
                            "a map of a disk of domain '%s' is being made, which holds its size: call again",
                            domain->name);
        else if (domain->jobs->len >= JOBS_PER_DOMAIN_MAX)
                g_set_error(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED, "domain '%s' has %d jobs already",
                            domain->name, JOBS_PER_DOMAIN_MAX);
        else
                return TRUE;
        return FALSE;
}

void engine_start_job(Disk *disk, const JobDriver *driver, Options *options, const char *target, int fd,
                      guint32 uid, JobStarted started, gpointer data)
{
        Domain *domain = disk->domain;
        gboolean off = domain->gone && domain->definition;
        g_autoptr(Job) job = job_new(driver, domain->name, disk->target, off ? disk->target : disk->device);
        g_autoptr(GError) error = NULL;

        job->options = options;
        if (target || fd >= 0)
                job_set_target(job, target, fd);
        if (!check_start(disk, driver, options, &error) || (driver->check && !driver->check(job, &error))) {
                started(NULL, error, data);
                return;
        }
        job->started_by = uid;
        job->speed = options_number(job->options, "speed");
        job->started = started;
        job->started_data = data;
        if (off) {
                engine_start_storage_job(disk->domain->observer_data, disk, job);
                return;
        }
        job->instance = g_strdup(domain->instance);
        /* Its place on the disk is taken before QEMU is asked, so that two callers cannot both be first. */
        domain_add_job(domain, job);
        job->synced = domain->host.qmp != NULL;
        job_advance(job);
}

typedef struct {
        Engine *engine;
        Job *job;
        JobDone done;
        gpointer data;
} Dismiss;

static void dismiss_end(const GError *error, gpointer data)
{
        Dismiss *dismiss = data;

        test_point("dismiss-answer");
        dismiss->done(dismiss->job, error, dismiss->data);
        job_unref(dismiss->job);
        g_free(dismiss);
}

static void on_dismiss_saved(Domain *domain, const GError *error, gpointer data)
{
        Dismiss *dismiss = data;

        (void) domain;
        if (error)
                dismiss_end(error, dismiss);
        else if (engine_job(dismiss->engine, dismiss->job->id) != dismiss->job)
                dismiss_end(NULL, dismiss); /* somebody else was faster */
        else
                engine_remove_job(dismiss->engine, dismiss->job, dismiss_end, dismiss);
}

void engine_dismiss(Engine *engine, Job *job, JobDone done, gpointer data)
{
        Domain *domain = engine_domain(engine, job->domain);
        g_autoptr(GError) error = NULL;
        Dismiss *dismiss;

        if (!job->concluded) {
                g_set_error(&error, BJ_ERROR, BJ_ERROR_INVALID_STATE,
                            "job '%s' is %s: only a finished job can be dismissed", job->id,
                            job_state_name(job->state));
                done(job, error, data);
                return;
        }
        dismiss = g_new(Dismiss, 1);
        *dismiss = (Dismiss){ engine, job_ref(job), done, data };
        test_point("dismiss-record");
        /* The job's record may be the only one that says which image is the disk. */
        if (domain && domain->unsaved)
                domain_save_then(domain, on_dismiss_saved, dismiss);
        else
                on_dismiss_saved(domain, NULL, dismiss);
}
