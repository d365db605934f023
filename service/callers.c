/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "callers.h"

static int on_uid(sd_bus_message *reply, void *data, sd_bus_error *error)
{
        Caller *caller = data;
        g_autoptr(GPtrArray) pending = g_steal_pointer(&caller->pending);
        uint32_t uid;

        (void) error;
        caller->pending = g_ptr_array_new();
        caller->uid_query = sd_bus_slot_unref(caller->uid_query);
        caller->service->nameless -= pending->len;
        /* An uid that is not known is nobody's: deny. The caller is asked about anew with its next call. */
        if (!sd_bus_message_is_method_error(reply, NULL) && sd_bus_message_read(reply, "u", &uid) >= 0) {
                caller->uid = uid;
                caller->uid_known = TRUE;
        }
        for (guint i = 0; i < pending->len; i++)
                caller->handlers->known(pending->pdata[i]);
        return 0;
}

static int on_name_lost(sd_bus_message *message, void *data, sd_bus_error *error)
{
        Service *service = data;
        const char *name;

        (void) error;
        if (sd_bus_message_read(message, "s", &name) >= 0)
                g_hash_table_remove(service->callers, name);
        if (g_hash_table_size(service->callers) == 0)
                service->callers_match = sd_bus_slot_unref(service->callers_match);
        return 0;
}

/* sd-bus closes the connection where a match is refused and nobody is told of it. */
static int on_match(sd_bus_message *reply, void *data, sd_bus_error *error)
{
        (void) data;
        (void) error;
        if (sd_bus_message_is_method_error(reply, NULL))
                g_warning("it will not be noticed when callers go away: %s",
                          sd_bus_message_get_error(reply)->message);
        return 0;
}

/* One for all, of which the bus allows a connection 512; none while nobody has called. */
static void watch_callers(Service *service)
{
        if (!service->callers_match)
                sd_bus_add_match_async(service->bus, &service->callers_match,
                                       "type='signal',sender='org.freedesktop.DBus',"
                                       "member='NameOwnerChanged',arg2=''",
                                       on_name_lost, on_match, service);
}

Caller *caller_of(Service *service, const char *sender, const CallerHandlers *handlers)
{
        Caller *caller = g_hash_table_lookup(service->callers, sender);

        if (!caller) {
                caller = g_new0(Caller, 1);
                caller->service = service;
                caller->handlers = handlers;
                caller->name = g_strdup(sender);
                caller->pending = g_ptr_array_new();
                g_hash_table_insert(service->callers, caller->name, caller);
                watch_callers(service);
        }
        /* Behind the match, so that a caller that goes away in between is noticed one way or the other. */
        if (!caller->uid_known && !caller->uid_query &&
            sd_bus_call_method_async(service->bus, &caller->uid_query, "org.freedesktop.DBus",
                                     "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                     "GetConnectionUnixUser", on_uid, caller, "s", sender) < 0)
                return NULL;
        return caller;
}

void caller_free(Caller *caller)
{
        g_autoptr(GPtrArray) pending = g_steal_pointer(&caller->pending);

        sd_bus_slot_unref(caller->uid_query);
        if (!caller->uid_known)
                caller->service->nameless -= pending->len;
        for (guint i = 0; i < pending->len; i++)
                caller->handlers->gone(pending->pdata[i]);
        g_free(caller->name);
        g_free(caller);
}
