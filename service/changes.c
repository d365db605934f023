/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service.h"

#include <string.h>

typedef struct {
        const char *interface;
        GPtrArray *properties; /* names, static */
} Changes;

static void changes_free(gpointer data)
{
        Changes *changes = data;

        g_ptr_array_unref(changes->properties);
        g_free(changes);
}

static gboolean on_idle(gpointer data)
{
        Service *service = data;

        service->changes_idle = 0;
        changes_flush(service);
        return G_SOURCE_REMOVE;
}

static gboolean is_listed(const GPtrArray *names, const char *name)
{
        for (guint i = 0; i < names->len; i++)
                if (strcmp(names->pdata[i], name) == 0)
                        return TRUE;
        return FALSE;
}

void changes_add(Service *service, char *path, const char *interface, const char *const *properties)
{
        Changes *changes;

        if (!service->changes)
                service->changes = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, changes_free);
        changes = g_hash_table_lookup(service->changes, path);
        if (!changes) {
                changes = g_new(Changes, 1);
                *changes = (Changes){ interface, g_ptr_array_new() };
                g_hash_table_insert(service->changes, path, changes);
        } else
                g_free(path);
        for (; *properties; properties++)
                if (!is_listed(changes->properties, *properties))
                        g_ptr_array_add(changes->properties, (gpointer) *properties);
        if (!service->changes_idle)
                service->changes_idle = g_idle_add_full(G_PRIORITY_DEFAULT, on_idle, service, NULL);
}

void changes_flush(Service *service)
{
        g_autoptr(GHashTable) all = g_steal_pointer(&service->changes);
        GHashTableIter iterator;
        gpointer path, value;

        g_clear_handle_id(&service->changes_idle, g_source_remove);
        if (!all)
                return;
        g_hash_table_iter_init(&iterator, all);
        while (g_hash_table_iter_next(&iterator, &path, &value)) {
                Changes *changes = value;

                g_ptr_array_add(changes->properties, NULL);
                sd_bus_emit_properties_changed_strv(service->bus, path, changes->interface,
                                                    (char **) changes->properties->pdata);
        }
}

void changes_forget(Service *service, const char *path)
{
        if (service->changes)
                g_hash_table_remove(service->changes, path);
}
