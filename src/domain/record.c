/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/domain.h"

#include <string.h>

#include "base/json.h"

/* What outlives the service of a domain. */

static JsonObject *domain_to_json(const Domain *domain)
{
        JsonArray *disks = json_array_new();

        for (guint i = 0; i < domain->disks->len; i++) {
                const Disk *disk = domain->disks->pdata[i];
                json_array_add_object_element(disks,
                                              json_make("s:target", disk->target, "s:device", disk->device,
                                                        "a:chain", chain_to_json(disk->chain), NULL));
        }
        return json_make("s:name", domain->name, "s:uuid", domain->uuid, "s:path", domain->path, "i:pid",
                         (gint64) domain->pid, "s:instance", domain->instance, "s:qemu-version",
                         domain->version, "b:gone", domain->gone, "b:detached", domain->detached,
                         "b:crashed", domain->state == DOMAIN_CRASHED, "s:reason",
                         domain->gone ? domain->reason : "", "a:disks", disks, NULL);
}

Domain *domain_from_json(const char *name, JsonObject *record, Journal *journal,
                         GHashTable *capability_cache)
{
        static const char *const texts[] = { "name", "uuid", "instance", "qemu-version", "reason" };
        JsonArray *disks = json_array(record, "disks");

        for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
                if (!json_string(record, texts[i]))
                        return NULL;
        if (!disks || strcmp(json_string(record, "name"), name) != 0)
                return NULL;

        Domain *domain = domain_new(name, journal, capability_cache);
        g_free(domain->uuid), domain->uuid = g_strdup(json_string(record, "uuid"));
        g_free(domain->instance), domain->instance = g_strdup(json_string(record, "instance"));
        g_free(domain->version), domain->version = g_strdup(json_string(record, "qemu-version"));
        g_free(domain->reason), domain->reason = g_strdup(json_string(record, "reason"));
        domain->path = g_strdup(json_string(record, "path"));
        domain->pid = (guint32) json_integer(record, "pid");
        domain->gone = json_boolean(record, "gone");
        domain->detached = json_boolean(record, "detached");
        if (domain->gone)
                domain->state = json_boolean(record, "crashed") ? DOMAIN_CRASHED : DOMAIN_SHUTOFF;
        for (guint i = 0; i < json_array_get_length(disks); i++) {
                JsonObject *disk = json_element(disks, i);
                const char *target = json_string(disk, "target"), *device = json_string(disk, "device");

                if (target && device)
                        domain_add_disk(domain, target, device, chain_from_json(json_array(disk, "chain")));
        }
        return domain;
}

static void on_saved(const GError *error, gpointer data)
{
        g_autoptr(Domain) domain = data;

        domain->saving = FALSE;
        if (error && domain->observer)
                domain->observer->warning(domain, error->message, domain->observer_data);
        DomainDone saved = g_steal_pointer(&domain->saved);
        if (saved)
                saved(domain, error, domain->saved_data);
        if (domain->save_again)
                domain_save(domain);
}

void domain_save(Domain *domain)
{
        domain->save_again = domain->saving;
        if (domain->saving || domain->removed)
                return;
        domain->saving = TRUE;
        journal_write(domain->host.journal, JOURNAL_DOMAINS, domain->name, domain_to_json(domain),
                      JOURNAL_SYNCED, on_saved, domain_ref(domain));
}
