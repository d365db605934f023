/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <string.h>

#include "values.h"

/* What a user types for things on the bus, and back. */

char *client_domain_path(Client *client, const char *domain, GError **error)
{
        g_autoptr(GVariant) reply = client_call(client, BLOCKJOBD_ROOT, BLOCKJOBD_MANAGER, "GetDomain",
                                                g_variant_new("(s)", domain), NULL, error);
        char *path = NULL;

        if (reply)
                g_variant_get(reply, "(o)", &path);
        return path;
}

/* An empty drive is nothing that anybody means. */
static gboolean has_medium(Client *client, const char *disk)
{
        g_autoptr(GVariant) properties = client_properties(client, disk, BLOCKJOBD_DISK, NULL);

        return properties && *value_text(properties, "Source");
}

/* The disk of a domain that has one only. */
static char *only_disk(Client *client, const char *domain, const char *domain_path, GError **error)
{
        g_autoptr(GVariant) properties = client_properties(client, domain_path, BLOCKJOBD_DOMAIN, error);
        g_autofree const char **disks = NULL;
        g_autoptr(GString) targets = g_string_new(NULL);
        const char *only = NULL;
        guint count = 0;

        if (!properties)
                return NULL;
        g_variant_lookup(properties, "Disks", "^a&o", &disks);
        for (const char **disk = disks; disk && *disk; disk++) {
                g_autofree char *name = disk_name_of(*disk);

                if (!has_medium(client, *disk))
                        continue;
                only = *disk;
                count++;
                g_string_append_printf(targets, " %s", name);
        }
        if (count == 1)
                return g_strdup(only);
        g_set_error(error, CLIENT_ERROR, STATUS_USAGE,
                    count > 1 ? "domain '%s' has several disks, say which:%s" : "domain '%s' has no disk%s",
                    domain, targets->str);
        return NULL;
}

char *client_disk_path(Client *client, const char *disk, GError **error)
{
        const char *slash = strchr(disk, '/');
        g_autofree char *domain = slash ? g_strndup(disk, (gsize) (slash - disk)) : g_strdup(disk);
        g_autofree char *domain_path = client_domain_path(client, domain, error);
        g_autofree char *prefix = NULL;
        char *path = NULL;

        if (!domain_path)
                return NULL;
        if (!slash)
                return only_disk(client, domain, domain_path, error);
        prefix = g_strconcat(domain_path, "/disk", NULL);
        if (sd_bus_path_encode(prefix, slash + 1, &path) < 0)
                g_set_error(error, CLIENT_ERROR, STATUS_USAGE, "'%s' names no disk", disk);
        return path;
}

static char *job_of_disk(Client *client, const char *disk, GError **error)
{
        g_autofree char *disk_path = client_disk_path(client, disk, error);
        g_autoptr(GVariant) properties =
                disk_path ? client_properties(client, disk_path, BLOCKJOBD_DISK, error) : NULL;
        g_autofree char *jobs = NULL;
        char *job = NULL;

        if (!properties)
                return NULL;
        g_variant_lookup(properties, "Job", "o", &job);
        if (job && strcmp(job, "/") != 0)
                return job;
        g_free(job);
        jobs = client_command(client, "jobs");
        g_set_error(error, CLIENT_ERROR, STATUS_ERROR,
                    "no job runs on '%s'\n  %s lists those that are over, too; name one by its id", disk,
                    jobs);
        return NULL;
}

char *client_job_path(Client *client, const char *job, GError **error)
{
        g_autoptr(GVariant) reply = NULL;
        char *path = NULL;

        if (strchr(job, '/'))
                return job_of_disk(client, job, error);
        reply = client_call(client, BLOCKJOBD_ROOT, BLOCKJOBD_MANAGER, "GetJob", g_variant_new("(s)", job),
                            NULL, error);
        if (reply)
                g_variant_get(reply, "(o)", &path);
        return path;
}

char *disk_name_of(const char *path)
{
        g_auto(GStrv) parts = g_strsplit(path, "/disk/", 2);
        g_autofree char *domain = last_name_of(parts[0]);
        g_autofree char *disk = parts[0] && parts[1] ? last_name_of(path) : NULL;

        return disk ? g_strdup_printf("%s/%s", domain, disk) : g_steal_pointer(&domain);
}

char *last_name_of(const char *path)
{
        const char *slash = strrchr(path, '/');
        g_autofree char *prefix = slash ? g_strndup(path, (gsize) (slash - path)) : NULL;
        char *name = NULL;

        if (!prefix || sd_bus_path_decode(path, prefix, &name) <= 0)
                return g_strdup(slash ? slash + 1 : path);
        return name;
}

char *client_file(const Client *client, const char *file)
{
        g_autofree char *here = NULL;

        if (client->transport != TRANSPORT_LOCAL || g_path_is_absolute(file))
                return g_strdup(file);
        here = g_get_current_dir();
        /* The bus takes no other name; this one is refused there, and named. */
        return g_utf8_validate(here, -1, NULL) ? g_build_filename(here, file, NULL) : g_strdup(file);
}
