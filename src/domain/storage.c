/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "base/test-point.h"
#include "domain/images.h"
#include "job/resize.h"

/* A disk of a domain that is shut off is worked on by a qemu-storage-daemon, which is started for the job
 * and ends with it. To its job it is what a running QEMU is: a Domain, but one that the world does not see.
 */

#define PROGRAM "qemu-storage-daemon"

typedef struct {
        Engine *engine;
        Disk *disk; /* of the domain that is shut off; it is there as long as its job is */
        Job *job;
        Account *account;
        gboolean has_export;
} StorageStart;

static void start_free(StorageStart *start)
{
        start->engine->starts--;
        job_unref(start->job);
        account_unref(start->account);
        g_free(start);
}

static void fail(StorageStart *start, const GError *error)
{
        g_autoptr(Job) job = job_ref(start->job);

        disk_set_job(start->disk, NULL);
        job_start_is_late(job, error);
        start_free(start);
}

void engine_forget_storage(Engine *engine, Domain *storage)
{
        g_autoptr(Domain) self = domain_ref(storage);
        g_autofree char *name = domain_record_name(storage);

        if (!g_ptr_array_remove(engine->storages, storage))
                return;
        g_ptr_array_remove(storage->of->storages, storage);
        journal_remove(engine->journal, JOURNAL_DOMAINS, name, NULL, NULL);
        engine_forget_host(engine, storage);
        domain_remove(storage);
}

static void on_ended(Domain *storage, const GError *error, gpointer data)
{
        (void) error;
        engine_forget_storage(data, storage);
}

static void ignore(Domain *domain, GPtrArray *chains, const GError *error, gpointer data)
{
        (void) domain;
        (void) chains;
        (void) error;
        (void) data;
}

void engine_look_at_images(Domain *domain)
{
        if (domain->definition)
                images_inspect(domain, NULL, ignore, NULL);
}

void engine_storage_is_over(Engine *engine, Domain *storage)
{
        engine_look_at_images(storage->of);
        engine_forget_storage(engine, storage);
}

void engine_job_left_storage(Engine *engine, Domain *storage, Disk *disk)
{
        if (storage->jobs->len > 0)
                return;
        /* Sizes, and that no node is there any more. */
        if (disk)
                engine_look_at_images(disk->domain);
        domain_close(storage, "its work is done", on_ended, engine);
}

typedef struct {
        Job *job;
        JobLooked closed;
} Closing;

static void on_closed(Domain *storage, const GError *error, gpointer data)
{
        Closing *closing = data;

        (void) storage;
        closing->closed(closing->job, error);
        job_unref(closing->job);
        g_free(closing);
}

static void close_host(JobHost *host, Job *job, JobLooked closed)
{
        Closing *closing = g_new(Closing, 1);

        *closing = (Closing){ job_ref(job), closed };
        domain_close((Domain *) host, "its work is done", on_closed, closing);
}

void engine_adopt_storage(Engine *engine, Domain *storage, Domain *of)
{
        storage->of = domain_ref(of);
        engine_watch_domain(engine, storage);
        storage->host.is_defined = storage->host.is_shut_off = TRUE;
        storage->host.close = close_host;
        g_ptr_array_add(engine->storages, storage);
        g_ptr_array_add(of->storages, storage);
}

static Domain *new_storage(Engine *engine, Disk *disk)
{
        Domain *of = disk->domain;
        Domain *storage = domain_new(of->name, engine->journal, engine->capability_cache);

        g_free(storage->uuid);
        storage->uuid = g_strdup(of->uuid);
        storage->gone = TRUE;
        domain_add_disk(storage, disk->target, disk->target, chain_new_closed());
        engine_adopt_storage(engine, storage, of);
        return storage;
}

static void on_storage_saved(Domain *storage, const GError *error, gpointer data)
{
        StorageStart *start = data;

        if (error) {
                domain_close(storage, "it could not be recorded", on_ended, start->engine);
                fail(start, error);
                return;
        }
        test_point("storage-job");
        domain_add_job(storage, start->job);
        start->job->synced = storage->host.qmp != NULL;
        start->job->gone = storage->gone;
        job_advance(start->job);
        start_free(start);
}

static void on_launched(Domain *storage, const GError *error, gpointer data)
{
        StorageStart *start = data;

        if (error) {
                engine_forget_storage(start->engine, storage);
                fail(start, error);
                return;
        }
        storage->starting = FALSE;
        start->job->instance = g_strdup(storage->instance);
        test_point("storage-record");
        domain_save_then(storage, on_storage_saved, start);
}

/* The export's socket is made by the daemon, in a directory of its own. */
static char *make_export_directory(Engine *engine, const Domain *storage, const Account *account,
                                   GError **error)
{
        g_autofree char *path = launch_path(engine->surroundings, storage, "export");
        g_autofree char *directory = g_path_get_dirname(path);

        if (g_mkdir_with_parents(directory, 0711) == 0 &&
            (geteuid() != 0 || chown(directory, account->uid, account->gid) == 0)) {
                unlink(path);
                return g_steal_pointer(&path);
        }
        g_set_error(error, BJ_ERROR, BJ_ERROR_FAILED, "cannot make '%s': %s", directory, g_strerror(errno));
        return NULL;
}

static guint index_of(const Domain *domain, const char *target)
{
        guint i = 0;

        while (strcmp(((DefinitionDisk *) domain->definition->disks->pdata[i])->target, target) != 0)
                i++;
        return i;
}

static void on_inspected(Domain *domain, GPtrArray *chains, const GError *error, gpointer data)
{
        StorageStart *start = data;
        g_autoptr(GError) failure = error ? g_error_copy(error) : NULL;
        g_autofree char *program = NULL, *export = NULL;
        guint index = index_of(domain, start->disk->target);
        GStrv command = NULL;
        Domain *storage;

        if (!failure && !chains->pdata[index])
                failure = g_error_new(BJ_ERROR, BJ_ERROR_INVALID_STATE, "disk '%s' has no medium",
                                      start->disk->target);
        if (!failure && engine_check_starts_allowed(start->engine, &failure) &&
            engine_check_images_free(start->engine, domain, start->disk, &failure))
                program = engine_find_program(NULL, PROGRAM, &failure);
        if (failure) {
                fail(start, failure);
                return;
        }
        storage = new_storage(start->engine, start->disk);
        if (start->has_export)
                export = make_export_directory(start->engine, storage, start->account, &failure);
        if (!failure)
                command =
                        definition_storage_command_line(domain->definition->disks->pdata[index],
                                                        chains->pdata[index], program, 0, export, &failure);
        if (failure) {
                engine_forget_storage(start->engine, storage);
                fail(start, failure);
                return;
        }
        domain_launch(storage, start->engine->surroundings, start->account, command, on_launched, start);
}

void engine_start_storage_job(Engine *engine, Disk *disk, Job *job)
{
        g_autoptr(GError) error = NULL;
        StorageStart *start = g_new0(StorageStart, 1);

        *start =
                (StorageStart){ engine, disk, job_ref(job), account_find(engine->surroundings->user, &error),
                                /* It would hold the size. */
                                job->driver != &resize_driver };
        engine->starts++;
        disk_set_job(disk, job);
        if (start->account)
                engine_check_starts_allowed(engine, &error);
        if (error) {
                fail(start, error);
                return;
        }
        test_point("storage-inspect");
        images_inspect_disk(disk, start->account, on_inspected, start);
}
