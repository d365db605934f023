/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include "base/error.h"
#include "service.h"

#define SYSTEMD "org.freedesktop.systemd1"
#define SYSTEMD_PATH "/org/freedesktop/systemd1"
#define SYSTEMD_MANAGER SYSTEMD ".Manager"

typedef struct {
        sd_bus *bus;
        char *unit, *job;
        sd_bus_slot *match; /* JobRemoved */
        Launched launched;
        gpointer data;
} Unit;

static void unit_free(Unit *unit)
{
        sd_bus_slot_unref(unit->match);
        g_free(unit->unit);
        g_free(unit->job);
        g_free(unit);
}

static void end(Unit *unit, guint32 pid, const char *why)
{
        g_autoptr(GError) error = why ? g_error_new(BJ_ERROR, BJ_ERROR_FAILED,
                                                    "systemd did not start '%s': %s", unit->unit, why)
                                      : NULL;

        unit->launched(pid, error, unit->data);
        unit_free(unit);
}

static int on_pid(sd_bus_message *reply, void *data, sd_bus_error *error)
{
        const sd_bus_error *failure = sd_bus_message_get_error(reply);
        uint32_t pid = 0;

        (void) error;
        /* One that is over already has no unit, and what it said is in its log. */
        if (!failure)
                sd_bus_message_read(reply, "v", "u", &pid);
        end(data, pid, pid == 0 ? "it has ended at once" : NULL);
        return 0;
}

static int on_unit(sd_bus_message *reply, void *data, sd_bus_error *error)
{
        Unit *unit = data;
        const char *path = NULL;

        (void) error;
        if (sd_bus_message_get_error(reply) || sd_bus_message_read(reply, "o", &path) < 0 ||
            sd_bus_call_method_async(unit->bus, NULL, SYSTEMD, path, "org.freedesktop.DBus.Properties",
                                     "Get", on_pid, unit, "ss", SYSTEMD ".Service", "MainPID") < 0)
                end(unit, 0, "it has ended at once");
        return 0;
}

static int on_job_removed(sd_bus_message *signal, void *data, sd_bus_error *error)
{
        Unit *unit = data;
        const char *job = NULL, *name, *result;

        (void) error;
        if (sd_bus_message_read(signal, "uoss", NULL, &job, &name, &result) < 0 ||
            g_strcmp0(job, unit->job) != 0)
                return 0;
        unit->match = sd_bus_slot_unref(unit->match);
        if (!g_str_equal(result, "done"))
                end(unit, 0, result);
        else if (sd_bus_call_method_async(unit->bus, NULL, SYSTEMD, SYSTEMD_PATH, SYSTEMD_MANAGER, "GetUnit",
                                          on_unit, unit, "s", unit->unit) < 0)
                end(unit, 0, "the bus takes no more calls");
        return 0;
}

static int on_started(sd_bus_message *reply, void *data, sd_bus_error *error)
{
        Unit *unit = data;
        const sd_bus_error *failure = sd_bus_message_get_error(reply);
        const char *job = NULL;

        (void) error;
        if (failure)
                end(unit, 0, failure->message);
        else if (sd_bus_message_read(reply, "o", &job) < 0)
                end(unit, 0, "it answered in an unknown form");
        else
                unit->job = g_strdup(job); /* JobRemoved of it comes behind this */
        return 0;
}

static int append_command(sd_bus_message *call, char *const *command)
{
        int r = sd_bus_message_open_container(call, 'r', "sv");

        if (r >= 0)
                r = sd_bus_message_append(call, "s", "ExecStart");
        if (r >= 0)
                r = sd_bus_message_open_container(call, 'v', "a(sasb)");
        if (r >= 0)
                r = sd_bus_message_open_container(call, 'a', "(sasb)");
        if (r >= 0)
                r = sd_bus_message_open_container(call, 'r', "sasb");
        if (r >= 0)
                r = sd_bus_message_append(call, "s", command[0]);
        if (r >= 0)
                r = sd_bus_message_append_strv(call, (char **) command);
        if (r >= 0)
                r = sd_bus_message_append(call, "b", FALSE);
        for (int i = 0; r >= 0 && i < 4; i++)
                r = sd_bus_message_close_container(call);
        return r;
}

static int append_properties(sd_bus_message *call, const LaunchRequest *request)
{
        int r = sd_bus_message_open_container(call, 'a', "(sv)");

        if (r >= 0)
                r = sd_bus_message_append(
                        call, "(sv)(sv)(sv)(sv)(sv)(sv)(sv)(sv)(sv)(sv)", "Description", "s",
                        request->description, "Type", "s", "exec", "User", "s", request->account->name,
                        "Slice", "s", "machine.slice", "CollectMode", "s", "inactive-or-failed",
                        "NoNewPrivileges", "b", TRUE, "OOMPolicy", "s", "continue",
                        "StandardInputFileDescriptor", "h", request->input, "StandardOutputFileDescriptor",
                        "h", request->output, "StandardErrorFileDescriptor", "h", request->output);
        if (r >= 0)
                r = append_command(call, request->command);
        return r < 0 ? r : sd_bus_message_close_container(call);
}

void unit_launch(const LaunchRequest *request, Launched launched, gpointer data, gpointer service)
{
        sd_bus *bus = ((Service *) service)->bus;
        sd_bus_message *call = NULL;
        Unit *unit = g_new0(Unit, 1);
        int r;

        *unit = (Unit){ .bus = bus,
                        .unit = g_strconcat(request->unit, ".service", NULL),
                        .launched = launched,
                        .data = data };
        r = sd_bus_call_method_async(bus, NULL, SYSTEMD, SYSTEMD_PATH, SYSTEMD_MANAGER, "Subscribe", NULL,
                                     NULL, NULL);
        if (r >= 0)
                r = sd_bus_match_signal_async(bus, &unit->match, SYSTEMD, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                              "JobRemoved", on_job_removed, NULL, unit);
        if (r >= 0)
                r = sd_bus_message_new_method_call(bus, &call, SYSTEMD, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                                   "StartTransientUnit");
        if (r >= 0)
                r = sd_bus_message_append(call, "ss", unit->unit, "fail");
        if (r >= 0)
                r = append_properties(call, request);
        if (r >= 0)
                r = sd_bus_message_append(call, "a(sa(sv))", 0);
        if (r >= 0)
                r = sd_bus_call_async(bus, NULL, call, on_started, unit, 0);
        sd_bus_message_unref(call);
        if (r < 0)
                end(unit, 0, g_strerror(-r));
}
