/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service.h"

#include "options.h"
#include "request.h"

static const Layer *active_layer(const Disk *disk)
{
        static const Layer none = { (char *) "", (char *) "", (char *) "", (char *) "", 0, 0, FALSE };

        return chain_layer(disk->chain, 0) ? chain_layer(disk->chain, 0) : &none;
}

#define VALUE(function, type, expression)                                                \
        static int function(sd_bus_message *reply, const void *object, Service *service) \
        {                                                                                \
                const Disk *disk = object;                                               \
                (void) service;                                                          \
                return sd_bus_message_append(reply, type, expression);                   \
        }

VALUE(append_target, "s", disk->target)
VALUE(append_device, "s", disk->device[0] == '/' ? disk->device : "")
VALUE(append_node_name, "s", disk->chain->root)
VALUE(append_source, "s", active_layer(disk)->source)
VALUE(append_format, "s", active_layer(disk)->format)
VALUE(append_capacity, "t", active_layer(disk)->virtual_size)
VALUE(append_read_only, "b", active_layer(disk)->read_only)

static int append_domain(sd_bus_message *reply, const void *object, Service *service)
{
        const Disk *disk = object;
        g_autofree char *path = domain_path(disk->domain);

        (void) service;
        return sd_bus_message_append(reply, "o", path);
}

static int append_chain(sd_bus_message *reply, const void *object, Service *service)
{
        const Disk *disk = object;
        int r = sd_bus_message_open_container(reply, 'a', "a{sv}");

        (void) service;
        for (guint i = 0; r >= 0 && i < disk->chain->layers->len; i++) {
                const Layer *layer = chain_layer(disk->chain, i);

                r = sd_bus_message_append(reply, "a{sv}", 8, "depth", "u", i, "node-name", "s", layer->node,
                                          "source", "s", layer->source, "format", "s", layer->format,
                                          "virtual-size", "t", layer->virtual_size, "allocated", "t",
                                          layer->allocated, "backing", "s", layer->backing, "read-only", "b",
                                          layer->read_only);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int append_filters(sd_bus_message *reply, const void *object, Service *service)
{
        const Disk *disk = object;

        (void) service;
        return sd_bus_message_append_strv(reply, disk->chain->filters);
}

static int append_job(sd_bus_message *reply, const void *object, Service *service)
{
        const Disk *disk = object;
        g_autofree char *path = disk->job && disk->job->announced ? job_path(disk->job) : NULL;

        (void) service;
        return sd_bus_message_append(reply, "o", path ? path : "/");
}

const Property disk_properties[] = {
        { "Domain", "o", append_domain },     { "Target", "s", append_target },
        { "Device", "s", append_device },     { "NodeName", "s", append_node_name },
        { "Source", "s", append_source },     { "Format", "s", append_format },
        { "Capacity", "t", append_capacity }, { "ReadOnly", "b", append_read_only },
        { "Chain", "aa{sv}", append_chain },  { "Filters", "as", append_filters },
        { "Job", "o", append_job },           PROPERTY_TABLE_END,
};

static const char *const auto_values[] = { "pivot", "keep", NULL };
static const char *const on_error_values[] = { "report", "ignore", "stop", "enospc", NULL };

static const OptionRule commit_rules[] = {
        { "base", 's' },
        { "top", 's' },
        { "shallow", 'b' },
        { "active", 'b' },
        { "auto", 's', .values = auto_values },
        { "delete", 'b' },
        { "relative", 'b' },
        { "backing", 's' },
        { "speed", 't', .maximum = G_MAXINT64 },
        { "on-error", 's', .values = on_error_values },
        { "force", 'b' },
        { .key = NULL },
};

static void on_started(Job *job, const GError *error, gpointer data)
{
        Request *request = data;

        if (error)
                request_fail(request, error);
        else
                request_reply_object(request, job_path(job));
}

void run_Disk_Commit(Request *request)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) options = options_read(request->message, commit_rules, &error);
        Disk *disk = options ? request_disk(request) : NULL;

        if (!options)
                request_fail(request, error);
        else if (disk && request_ask(request, disk->domain))
                engine_commit(disk, g_steal_pointer(&options), request->uid, on_started, request);
}

#define CONSTANT(name, type) SD_BUS_PROPERTY(name, type, get_disk_property, 0, SD_BUS_VTABLE_PROPERTY_CONST)
#define CHANGING(name, type) \
        SD_BUS_PROPERTY(name, type, get_disk_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE)

const sd_bus_vtable disk_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Commit", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("o", job),
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        CONSTANT("Domain", "o"),
        CONSTANT("Target", "s"),
        CONSTANT("Device", "s"),
        CHANGING("NodeName", "s"),
        CHANGING("Source", "s"),
        CHANGING("Format", "s"),
        CHANGING("Capacity", "t"),
        CHANGING("ReadOnly", "b"),
        CHANGING("Chain", "aa{sv}"),
        CHANGING("Filters", "as"),
        CHANGING("Job", "o"),
        SD_BUS_VTABLE_END,
};
