/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/domain.h"

#include <string.h>

#include "base/json.h"

/* What outlives the service of a domain. */

#define SAVE_RETRY_MILLISECONDS 1000

static JsonObject *paths_to_json(const Domain *domain)
{
        JsonObject *paths = json_object_new();
        GHashTableIter iterator;
        gpointer name, path;

        g_hash_table_iter_init(&iterator, domain->paths);
        while (g_hash_table_iter_next(&iterator, &name, &path))
                json_object_set_string_member(paths, name, path);
        return paths;
}

static void paths_from_json(Domain *domain, JsonObject *paths)
{
        g_autoptr(GList) names = paths ? json_object_get_members(paths) : NULL;

        for (GList *name = names; name; name = name->next)
                if (json_string(paths, name->data))
                        g_hash_table_insert(domain->paths, g_strdup(name->data),
                                            g_strdup(json_string(paths, name->data)));
}

void domain_host_passed(JobHost *host, gint64 fdset, const char *path)
{
        Domain *domain = (Domain *) host;

        g_hash_table_insert(domain->paths, g_strdup_printf("/dev/fdset/%" G_GINT64_FORMAT, fdset),
                            g_strdup(path));
        domain_save(domain);
}

static JsonObject *disk_to_json(const Disk *disk)
{
        JsonObject *object = json_make("s:target", disk->target, "s:device", disk->device, "a:chain",
                                       chain_to_json(disk->chain), NULL);

        if (disk->copy)
                json_object_set_object_member(object, "copy",
                                              json_make("s:target", disk->copy->target, "o:options",
                                                        options_to_json(disk->copy->options), "i:uid",
                                                        (gint64) disk->copy->uid, NULL));
        return object;
}

static void disk_from_json(Domain *domain, JsonObject *object)
{
        const char *target = json_string(object, "target"), *device = json_string(object, "device");
        JsonObject *copy = json_object(object, "copy");
        Disk *disk;

        if (!target || !device)
                return;
        disk = domain_add_disk(domain, target, device, chain_from_json(json_array(object, "chain")));
        if (copy && json_string(copy, "target")) {
                g_autoptr(GPtrArray) options = options_from_json(json_object(copy, "options"));
                disk_set_copy(disk, json_string(copy, "target"), options,
                              (guint32) json_integer(copy, "uid"));
        }
}

static JsonObject *domain_to_json(const Domain *domain)
{
        JsonArray *disks = json_array_new();

        for (guint i = 0; i < domain->disks->len; i++)
                json_array_add_object_element(disks, disk_to_json(domain->disks->pdata[i]));
        return json_make("s:name", domain->name, "s:uuid", domain->uuid, "s:path", domain->path, "i:pid",
                         (gint64) domain->pid, "s:instance", domain->instance, "s:qemu-version",
                         domain->version, "b:gone", domain->gone, "b:detached", domain->detached,
                         "b:crashed", domain->state == DOMAIN_CRASHED, "s:reason",
                         domain->gone ? domain->reason : "", "o:paths", paths_to_json(domain), "a:disks",
                         disks, "s:xml", domain->definition ? domain->definition->xml : NULL, "b:persistent",
                         domain->persistent, "b:starting", domain->starting, "b:storage", domain->of != NULL,
                         NULL);
}

/* A storage daemon's stands beside that of its domain, under a name that no domain can have. */
char *domain_record_name(const Domain *domain)
{
        const Disk *disk = domain->of ? domain->disks->pdata[0] : NULL;

        return disk ? g_strdup_printf("%s+%s", domain->name, disk->target) : g_strdup(domain->name);
}

static gboolean is_record_of(JsonObject *record, const char *file)
{
        const char *name = json_string(record, "name");

        if (!json_boolean(record, "storage"))
                return strcmp(name, file) == 0;
        return g_str_has_prefix(file, name) && file[strlen(name)] == '+';
}

Domain *domain_from_json(const char *name, JsonObject *record, Journal *journal,
                         GHashTable *capability_cache)
{
        static const char *const texts[] = { "name", "uuid", "instance", "qemu-version", "reason" };
        JsonArray *disks = json_array(record, "disks");
        g_autoptr(Definition) definition = NULL;

        for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
                if (!json_string(record, texts[i]))
                        return NULL;
        if (!disks || !is_record_of(record, name))
                return NULL;
        if (json_object_has_member(record, "xml") && !json_object_get_null_member(record, "xml") &&
            !json_string(record, "xml"))
                return NULL;
        if (json_string(record, "xml") &&
            !(definition = definition_parse(json_string(record, "xml"), NULL, NULL)))
                return NULL;

        Domain *domain = domain_new(json_string(record, "name"), journal, capability_cache);
        domain->definition = g_steal_pointer(&definition);
        g_free(domain->uuid), domain->uuid = g_strdup(json_string(record, "uuid"));
        g_free(domain->instance), domain->instance = g_strdup(json_string(record, "instance"));
        g_free(domain->version), domain->version = g_strdup(json_string(record, "qemu-version"));
        g_free(domain->reason), domain->reason = g_strdup(json_string(record, "reason"));
        domain->path = g_strdup(json_string(record, "path"));
        domain->pid = (guint32) json_integer(record, "pid");
        if (domain->definition || json_boolean(record, "storage"))
                domain->launched = domain->pid;
        paths_from_json(domain, json_object(record, "paths"));
        domain->gone = json_boolean(record, "gone");
        domain->detached = json_boolean(record, "detached");
        if (domain->gone)
                domain->state = json_boolean(record, "crashed") ? DOMAIN_CRASHED : DOMAIN_SHUTOFF;
        domain->persistent = json_boolean(record, "persistent");
        domain->starting = json_boolean(record, "starting") && !domain->gone;
        for (guint i = 0; i < json_array_get_length(disks); i++)
                disk_from_json(domain, json_element(disks, i));
        return domain;
}

/* ---- writing it ---- */

/* Who waits until the domain is written down as it is now. */
typedef struct {
        DomainDone saved;
        gpointer data;
} Saver;

typedef struct {
        Domain *domain;
        GArray *savers;
} Save;

static gboolean on_save_retry(gpointer data)
{
        Domain *domain = data;

        domain->save_retry = 0;
        domain_save(domain);
        return G_SOURCE_REMOVE;
}

static void on_saved(const GError *error, gpointer data)
{
        Save *save = data;
        g_autoptr(Domain) domain = save->domain;
        g_autoptr(GArray) savers = save->savers;

        g_free(save);

        domain->saving = FALSE;
        domain->unsaved = error || domain->save_again;
        if (error && domain->observer)
                domain->observer->warning(domain, error->message, domain->observer_data);
        for (guint i = 0; savers && i < savers->len; i++) {
                const Saver *saver = &g_array_index(savers, Saver, i);
                saver->saved(domain, error, saver->data);
        }
        if (domain->save_again)
                domain_save(domain);
        else if (domain->unsaved && !domain->saving && !domain->removed && !domain->save_retry)
                domain->save_retry = g_timeout_add(SAVE_RETRY_MILLISECONDS, on_save_retry, domain);
}

void domain_save(Domain *domain)
{
        domain->save_again = domain->saving;
        if (domain->saving || domain->removed)
                return;
        g_clear_handle_id(&domain->save_retry, g_source_remove);
        domain->saving = domain->unsaved = TRUE;
        Save *save = g_new(Save, 1);
        g_autofree char *name = domain_record_name(domain);
        *save = (Save){ domain_ref(domain), g_steal_pointer(&domain->save_waiters) };
        journal_write(domain->host.journal, JOURNAL_DOMAINS, name, domain_to_json(domain), JOURNAL_SYNCED,
                      on_saved, save);
}

void domain_save_then(Domain *domain, DomainDone saved, gpointer data)
{
        Saver saver = { saved, data };

        if (domain->removed) {
                saved(domain, NULL, data); /* there is nothing more to be known of it */
                return;
        }
        if (!domain->save_waiters)
                domain->save_waiters = g_array_new(FALSE, FALSE, sizeof(Saver));
        g_array_append_val(domain->save_waiters, saver);
        domain_save(domain);
}

typedef struct {
        Job *job;
        JobLooked saved;
} JobSaver;

static void on_saved_for_job(Domain *domain, const GError *error, gpointer data)
{
        JobSaver *saver = data;

        (void) domain;
        saver->saved(saver->job, error);
        job_unref(saver->job);
        g_free(saver);
}

void domain_host_save(JobHost *host, Job *job, JobLooked saved)
{
        Domain *domain = domain_shown((Domain *) host);
        Disk *disk = domain_disk(domain, job->disk);
        JobSaver *saver = g_new(JobSaver, 1);

        /* What was written of a storage daemon may be newer than what was of its domain. */
        if (disk && domain != (Domain *) host && !job->gone) {
                const Disk *seen = domain_disk((Domain *) host, job->disk);

                if (seen && seen->chain->layers->len > 0)
                        disk_set_chain(disk, chain_copy_below(seen->chain, 0));
        }
        /* With QEMU gone nobody but the job's record can say it, however it was seen to end before. */
        if (disk && job->gone && (job->driver->two_phase || job->driver->adds_layer) &&
            (job->record.result == RESULT_COMPLETED || job->record.result == RESULT_PIVOTED))
                disk_take_pivot(disk, job);
        if (disk && options_flag(job->options, "resume"))
                disk_set_copy(disk, job->record.result == RESULT_LOST ? job->target : NULL, job->options,
                              job->started_by);
        *saver = (JobSaver){ job_ref(job), saved };
        domain_save_then(domain, on_saved_for_job, saver);
}
