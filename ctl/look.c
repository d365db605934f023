/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>

#include "output.h"
#include "verb.h"

/* Commands that look and change nothing. */

static void add_domain(Table *table, GVariant *domain)
{
        const char *name = "", *state = "", *origin = "", *version = "";
        g_autofree const char **disks = NULL, **jobs = NULL;
        g_autofree char *disk_count = NULL, *job_count = NULL;

        g_variant_lookup(domain, "Name", "&s", &name);
        g_variant_lookup(domain, "State", "&s", &state);
        g_variant_lookup(domain, "Origin", "&s", &origin);
        g_variant_lookup(domain, "QemuVersion", "&s", &version);
        g_variant_lookup(domain, "Disks", "^a&o", &disks);
        g_variant_lookup(domain, "Jobs", "^a&o", &jobs);
        disk_count = g_strdup_printf("%u", disks ? g_strv_length((GStrv) disks) : 0);
        job_count = g_strdup_printf("%u", jobs ? g_strv_length((GStrv) jobs) : 0);
        table_add(table, (const char *const[]){ name, state, origin, version, disk_count, job_count, NULL });
}

static Status run_list(Client *client, char **arguments, GError **error)
{
        static const char *const titles[] = { "DOMAIN", "STATE", "ORIGIN", "QEMU", ">DISKS", ">JOBS", NULL };
        g_autoptr(Table) table = table_new(titles);
        g_auto(GVariantBuilder) all = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));
        g_autoptr(GVariant) objects = client_objects(client, error);
        g_autoptr(GVariant) value = NULL;
        GVariantIter iter;
        GVariant *interfaces;

        (void) arguments;
        if (!objects)
                return STATUS_ERROR;
        g_variant_iter_init(&iter, objects);
        while (g_variant_iter_loop(&iter, "{&o@a{sa{sv}}}", NULL, &interfaces)) {
                g_autoptr(GVariant) domain =
                        g_variant_lookup_value(interfaces, BLOCKJOBD_DOMAIN, G_VARIANT_TYPE_VARDICT);

                if (!domain)
                        continue;
                g_variant_builder_add_value(&all, domain);
                add_domain(table, domain);
        }
        value = g_variant_ref_sink(g_variant_builder_end(&all));
        if (output_json(client, value))
                return STATUS_DONE;
        output_begin_paged(client);
        table_print(table);
        return STATUS_DONE;
}

const Verb verbs_look[] = {
        { "list", "", "Domains, their state, disks and jobs", 0, 0, NULL, run_list },
        { 0 },
};
