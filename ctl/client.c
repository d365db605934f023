/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <errno.h>
#include <string.h>

#include "agent.h"
#include "hint.h"
#include "variant.h"

G_DEFINE_QUARK(blockjobctl - client - error, client_error)

static int open_bus(Client *client)
{
        switch (client->transport) {
        case TRANSPORT_HOST:
                return sd_bus_open_system_remote(&client->bus, client->where);
        case TRANSPORT_MACHINE:
                return sd_bus_open_system_machine(&client->bus, client->where);
        default:
                return sd_bus_open_system(&client->bus);
        }
}

gboolean client_connect(Client *client, GError **error)
{
        int r = open_bus(client);

        if (r >= 0)
                r = sd_bus_set_allow_interactive_authorization(client->bus, client->ask_password);
        /* A pivot replies when the outcome is on stable storage, however long that takes. */
        if (r >= 0)
                r = sd_bus_set_method_call_timeout(client->bus, G_MAXUINT64);
        if (r >= 0)
                return TRUE;
        g_set_error(error, CLIENT_ERROR, STATUS_NO_SERVICE, "cannot connect to the system bus%s%s: %s",
                    client->where ? " of " : "", client->where ? client->where : "", g_strerror(-r));
        return FALSE;
}

void client_close(Client *client)
{
        agent_close();
        g_clear_pointer(&client->bus, sd_bus_flush_close_unref);
}

static Status status_of(const char *name)
{
        static const struct {
                const char *name;
                Status status;
        } statuses[] = {
                { SD_BUS_ERROR_ACCESS_DENIED, STATUS_REFUSED },
                { SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED, STATUS_REFUSED },
                { SD_BUS_ERROR_SERVICE_UNKNOWN, STATUS_NO_SERVICE },
                { SD_BUS_ERROR_NAME_HAS_NO_OWNER, STATUS_NO_SERVICE },
                { SD_BUS_ERROR_NO_REPLY, STATUS_NO_SERVICE },
                { SD_BUS_ERROR_DISCONNECTED, STATUS_NO_SERVICE },
        };

        for (gsize i = 0; i < G_N_ELEMENTS(statuses); i++)
                if (strcmp(name, statuses[i].name) == 0)
                        return statuses[i].status;
        /* The service could not be started: Spawn.*, or systemd's own. */
        return g_str_has_prefix(name, "org.freedesktop.DBus.Error.Spawn.") ||
                               g_str_has_prefix(name, "org.freedesktop.systemd1.")
                       ? STATUS_NO_SERVICE
                       : STATUS_ERROR;
}

void client_take_error(const Client *client, const sd_bus_error *bus_error, int r, char **name,
                       GError **error)
{
        const char *error_name = bus_error && bus_error->name ? bus_error->name : "";
        const char *message =
                bus_error && bus_error->message && *bus_error->message ? bus_error->message : g_strerror(-r);
        Status status = *error_name ? status_of(error_name) : STATUS_ERROR;
        g_autofree char *text = NULL;

        if (r == -ECONNRESET || r == -ENOTCONN)
                status = STATUS_NO_SERVICE;
        if (name)
                *name = g_strdup(error_name);
        text = hint_explain(client, error_name, message);
        g_set_error_literal(error, CLIENT_ERROR, (int) status, text);
}

char *client_command_start(const Client *client)
{
        static const char *const options[] = {
                [TRANSPORT_HOST] = " --host ", [TRANSPORT_MACHINE] = " --machine "
        };
        g_autofree char *where = client->where ? g_shell_quote(client->where) : NULL;

        return g_strconcat("blockjobctl", where ? options[client->transport] : "", where ? where : "", " ",
                           NULL);
}

char *client_command(const Client *client, const char *format, ...)
{
        g_autofree char *start = client_command_start(client), *rest = NULL;
        va_list arguments;

        va_start(arguments, format);
        rest = g_strdup_vprintf(format, arguments);
        va_end(arguments);
        return g_strconcat(start, rest, NULL);
}

/* What the service answers from what it holds; more than that means that it hangs. */
#define READ_TIMEOUT (30 * G_USEC_PER_SEC)

/* What nobody is asked a password for. */
static gboolean is_free(const char *interface, const char *member)
{
        static const char *const members[] = { "GetDomain", "GetJob", "ListJobs", NULL };

        return g_str_has_prefix(interface, "org.freedesktop.DBus.") || g_strv_contains(members, member);
}

int client_new_call(Client *client, const char *path, const char *interface, const char *member,
                    GVariant *tuple, sd_bus_message **call)
{
        int r = sd_bus_message_new_method_call(client->bus, call, BLOCKJOBD, path, interface, member);

        /* One call may be silent on a connection whose others ask. */
        if (r >= 0)
                r = sd_bus_message_set_allow_interactive_authorization(*call, client->ask_password);
        if (!is_free(interface, member))
                agent_open(client);
        return r < 0 ? r : variant_to_message(*call, tuple);
}

GVariant *client_call(Client *client, const char *path, const char *interface, const char *member,
                      GVariant *parameters, char **name, GError **error)
{
        g_autoptr(GVariant) tuple = g_variant_ref_sink(parameters ? parameters : g_variant_new("()"));
        g_autoptr(sd_bus_message) call = NULL;
        g_autoptr(sd_bus_message) reply = NULL;
        sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        guint64 patience = client->patience ? client->patience : READ_TIMEOUT;
        GVariant *value = NULL;
        int r = client_new_call(client, path, interface, member, tuple, &call);

        if (r >= 0)
                r = sd_bus_call(client->bus, call, is_free(interface, member) ? patience : 0, &bus_error,
                                &reply);
        if (r >= 0)
                r = variant_from_message(reply, &value);
        if (r < 0)
                client_take_error(client, &bus_error, r, name, error);
        sd_bus_error_free(&bus_error);
        return value;
}

GVariant *client_properties(Client *client, const char *path, const char *interface, GError **error)
{
        g_autoptr(GVariant) reply = client_call(client, path, "org.freedesktop.DBus.Properties", "GetAll",
                                                g_variant_new("(s)", interface), NULL, error);

        return reply ? g_variant_get_child_value(reply, 0) : NULL;
}

GVariant *client_objects(Client *client, GError **error)
{
        g_autoptr(GVariant) reply = client_call(client, BLOCKJOBD_ROOT, "org.freedesktop.DBus.ObjectManager",
                                                "GetManagedObjects", NULL, NULL, error);

        return reply ? g_variant_get_child_value(reply, 0) : NULL;
}

void objects_each(GVariant *objects, const char *interface, ObjectFound found, gpointer data)
{
        GVariantIter iter;
        const char *path;
        GVariant *interfaces;

        g_variant_iter_init(&iter, objects);
        while (g_variant_iter_loop(&iter, "{&o@a{sa{sv}}}", &path, &interfaces)) {
                g_autoptr(GVariant) properties =
                        g_variant_lookup_value(interfaces, interface, G_VARIANT_TYPE_VARDICT);

                if (properties)
                        found(path, properties, data);
        }
}
