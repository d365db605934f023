/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>

#include "map.h"
#include "output.h"
#include "show.h"
#include "units.h"
#include "values.h"
#include "verb.h"

/* Commands that look and change nothing. */

typedef struct {
        Table *table;
        GVariantBuilder all;
} List;

static void add_domain(const char *path, GVariant *domain, gpointer data)
{
        List *list = data;
        g_autofree const char **disks = NULL, **jobs = NULL;
        g_autofree char *disk_count = NULL, *job_count = NULL;

        (void) path;
        g_variant_builder_add_value(&list->all, domain);
        g_variant_lookup(domain, "Disks", "^a&o", &disks);
        g_variant_lookup(domain, "Jobs", "^a&o", &jobs);
        disk_count = g_strdup_printf("%u", disks ? g_strv_length((GStrv) disks) : 0);
        job_count = g_strdup_printf("%u", jobs ? g_strv_length((GStrv) jobs) : 0);
        table_add(list->table,
                  (const char *const[]){ value_text(domain, "Name"), value_text(domain, "State"),
                                         value_text(domain, "Origin"), value_text(domain, "QemuVersion"),
                                         disk_count, job_count, NULL });
}

static Status run_list(Client *client, char **arguments, GError **error)
{
        static const char *const titles[] = { "DOMAIN", "STATE", "ORIGIN", "QEMU", ">DISKS", ">JOBS", NULL };
        g_autoptr(Table) table = table_new(titles);
        g_autoptr(GVariant) objects = client_objects(client, error);
        g_autoptr(GVariant) value = NULL;
        List list = { .table = table };

        (void) arguments;
        if (!objects)
                return STATUS_ERROR;
        g_variant_builder_init(&list.all, G_VARIANT_TYPE("aa{sv}"));
        objects_each(objects, BLOCKJOBD_DOMAIN, add_domain, &list);
        value = g_variant_ref_sink(g_variant_builder_end(&list.all));
        if (output_json(client, value))
                return STATUS_DONE;
        output_begin_paged(client);
        table_print(table);
        return STATUS_DONE;
}

static char *job_state;

static const GOptionEntry jobs_options[] = {
        { "state", 0, 0, G_OPTION_ARG_STRING, &job_state, "Only those in this state: running, ready, …",
          "STATE" },
        { 0 },
};

static void add_job(Table *table, GVariant *job)
{
        const char *result = value_text(job, "Result");
        g_autofree char *disk = disk_name_of(value_text(job, "Disk"));
        g_autofree char *started = units_format_time(value_number(job, "StartTime"));
        g_autofree char *progress_text = NULL;
        double progress = 0;

        g_variant_lookup(job, "Progress", "d", &progress);
        progress_text = g_strdup_printf("%.0f %%", progress * 100);
        table_add(table, (const char *const[]){ value_text(job, "Id"), disk, value_text(job, "Type"),
                                                *result ? result : value_text(job, "State"), progress_text,
                                                started, value_text(job, "Target"), NULL });
        if (*result == '\0')
                table_style_row(table, STYLE_BOLD);
}

static Status run_jobs(Client *client, char **arguments, GError **error)
{
        static const char *const titles[] = { "JOB",   "DISK",    "TYPE",   "STATE",
                                              ">DONE", "STARTED", "TARGET", NULL };
        g_autoptr(Table) table = table_new(titles);
        g_auto(GVariantDict) options = G_VARIANT_DICT_INIT(NULL);
        g_autoptr(GVariant) reply = NULL, jobs = NULL;

        if (arguments[0])
                g_variant_dict_insert(&options, "domain", "s", arguments[0]);
        if (job_state)
                g_variant_dict_insert(&options, "state", "s", job_state);
        reply = client_call(client, BLOCKJOBD_ROOT, BLOCKJOBD_MANAGER, "ListJobs",
                            g_variant_new("(@a{sv})", g_variant_dict_end(&options)), NULL, error);
        if (!reply)
                return STATUS_ERROR;
        jobs = g_variant_get_child_value(reply, 0);
        if (output_json(client, jobs))
                return STATUS_DONE;
        for (gsize i = 0; i < g_variant_n_children(jobs); i++) {
                g_autoptr(GVariant) job = g_variant_get_child_value(jobs, i);

                add_job(table, job);
        }
        output_begin_paged(client);
        table_print(table);
        return STATUS_DONE;
}

static gboolean inactive;

static const GOptionEntry xml_options[] = {
        { "inactive", 0, 0, G_OPTION_ARG_NONE, &inactive, "As the next start will have it", NULL },
        { 0 },
};

static Status run_xml(Client *client, char **arguments, GError **error)
{
        g_autofree char *path = client_domain_path(client, arguments[0], error);
        g_auto(GVariantDict) options = G_VARIANT_DICT_INIT(NULL);
        g_autoptr(GVariant) reply = NULL, xml = NULL;

        if (!path)
                return STATUS_ERROR;
        if (inactive)
                g_variant_dict_insert(&options, "inactive", "b", TRUE);
        reply = client_call(client, path, BLOCKJOBD_DOMAIN, "GetXml",
                            g_variant_new("(@a{sv})", g_variant_dict_end(&options)), NULL, error);
        if (!reply)
                return STATUS_ERROR;
        xml = g_variant_get_child_value(reply, 0);
        if (output_json(client, xml))
                return STATUS_DONE;
        output_begin_paged(client);
        fputs(g_variant_get_string(xml, NULL), stdout);
        return STATUS_DONE;
}

char *inspect_format;

static const GOptionEntry inspect_options[] = {
        { "format", 0, 0, G_OPTION_ARG_STRING, &inspect_format, "What the image is: qcow2, raw", "FORMAT" },
        { 0 },
};

const Verb verbs_look[] = {
        { "list", "", "Domains, their state, disks and jobs", 0, 0, NULL, run_list },
        { "show", "DOMAIN[/DISK]", "The chain of each disk, as a tree, and who uses it", 1, 1, NULL,
          run_show },
        { "jobs", "[DOMAIN]", "Jobs, those that are over too", 0, 1, jobs_options, run_jobs },
        { "inspect", "IMAGE", "An image and what it stands on, whoever uses it", 1, 1, inspect_options,
          run_inspect },
        { "map", "DOMAIN/DISK", "Which layer of the chain holds what", 1, 1, map_options, run_map },
        { "xml", "DOMAIN", "The definition of a domain", 1, 1, xml_options, run_xml },
        { 0 },
};
