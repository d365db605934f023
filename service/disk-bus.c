/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"
#include "job/backup.h"
#include "job/commit.h"
#include "job/copy.h"
#include "job/pull.h"
#include "job/resize.h"
#include "job/snapshot.h"
#include "log.h"
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

/* ---- methods: the options of each, as data ---- */

static const char *const auto_values[] = { "pivot", "keep", NULL };
static const char *const on_error_values[] = { "report", "ignore", "stop", "enospc", NULL };
static const char *const format_values[] = { "qcow2", "raw", NULL };
static const char *const overlay_format_values[] = { "qcow2", NULL };
static const char *const mode_values[] = { "background", "write-blocking", NULL };
static const char *const sync_values[] = { "full", "top", NULL };

static const OptionRule commit_rules[] = {
        { "base", 's' },
        { "top", 's' },
        { "shallow", 'b' },
        { "active", 'b' },
        { "auto", 's', .values = auto_values },
        { "delete", 'b' },
        { "keep-top", 'b' },
        { "restartable", 'b' },
        { "relative", 'b' },
        { "backing", 's' },
        { "speed", 't', .maximum = G_MAXINT64 },
        { "on-error", 's', .values = on_error_values },
        { "force", 'b' },
        { .key = NULL },
};

#define COPY_RULES                                                                              \
        { "format", 's', .values = format_values }, { "shallow", 'b' },                         \
                { "auto", 's', .values = auto_values }, { "mode", 's', .values = mode_values }, \
                { "speed", 't', .maximum = G_MAXINT64 }, { "granularity", 'u' },                \
                { "buffer", 't', .maximum = G_MAXINT64 },                                       \
                { "on-source-error", 's', .values = on_error_values },                          \
                { "on-target-error", 's', .values = on_error_values },                          \
        {                                                                                       \
                "relative", 'b'                                                                 \
        }
static const OptionRule copy_rules[] = {
        COPY_RULES, { "reuse", 'b' }, { "resume", 'b' }, { "force", 'b' }, { .key = NULL }
};
static const OptionRule copy_to_descriptor_rules[] = { COPY_RULES, { .key = NULL } };

static const OptionRule pull_rules[] = {
        { "force", 'b' },
        { "base", 's' },
        { "top", 's' },
        { "relative", 'b' },
        { "backing", 's' },
        { "speed", 't', .maximum = G_MAXINT64 },
        { "on-error", 's', .values = on_error_values },
        { .key = NULL },
};

/* BackupToFd takes all of it: the contract names no exception. */
static const OptionRule backup_rules[] = {
        { "force", 'b' },
        { "format", 's', .values = format_values },
        { "reuse", 'b' },
        { "sync", 's', .values = sync_values },
        { "compress", 'b' },
        { "speed", 't', .maximum = G_MAXINT64 },
        { "on-source-error", 's', .values = on_error_values },
        { "on-target-error", 's', .values = on_error_values },
        { .key = NULL },
};

static const OptionRule snapshot_rules[] = {
        { "force", 'b' }, { "format", 's', .values = overlay_format_values },
        { "reuse", 'b' }, { "relative", 'b' },
        { .key = NULL },
};

static const OptionRule resize_rules[] = { { "shrink", 'b' }, { "force", 'b' }, { .key = NULL } };

static void on_started(Job *job, const GError *error, gpointer data)
{
        Request *request = data;

        if (error)
                request_fail(request, error);
        else
                request_reply_object(request, job_path(job));
}

static void log_force(const Request *request, const Disk *disk, const JobDriver *driver)
{
        log_event(LOG_WARNING, MESSAGE_NONE, disk->domain, NULL, NULL,
                  "domain '%s': uid %u asks for a %s of disk '%s' with the option 'force': it is not looked "
                  "at who else uses the images, nor whether there is room",
                  disk->domain->name, request->uid, driver->type, disk->target);
}

/* What comes before the options in the message has been read: `target` or a copy of `fd`, which is taken, or
 * neither. `name` and `number` add one more option that is an argument on the bus; NULL = none. */
static void start(Request *request, const JobDriver *driver, const OptionRule *rules, const char *target,
                  int fd, const char *name, guint64 number)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) options = options_read(request->message, rules, &error);
        Disk *disk = options ? request_disk(request) : NULL;

        if (!options)
                request_fail(request, error);
        if (!disk || (options_flag(options, "force") && !request_has_also(request, ACTION_MANAGE_JOB)) ||
            !request_ask(request, disk->domain)) {
                if (fd >= 0)
                        close(fd);
                return;
        }
        if (options_flag(options, "force"))
                log_force(request, disk, driver);
        if (name)
                options_add(options, name, 't', NULL, number);
        engine_start_job(disk, driver, g_steal_pointer(&options), target, fd, request->uid,
                         driver->silent ? request_job_done : on_started, request);
}

static void start_with_target(Request *request, const JobDriver *driver, const OptionRule *rules)
{
        const char *target = NULL;

        sd_bus_message_read(request->message, "s", &target);
        start(request, driver, rules, target, -1, NULL, 0);
}

static void start_with_descriptor(Request *request, const JobDriver *driver, const OptionRule *rules)
{
        int fd = -1;

        /* The message owns what it holds. */
        sd_bus_message_read(request->message, "h", &fd);
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                request_fail_new(request, BJ_ERROR_LIMIT_EXCEEDED, "no descriptors left: %s",
                                 g_strerror(errno));
        else
                start(request, driver, rules, NULL, fd, NULL, 0);
}

void run_Disk_Commit(Request *request)
{
        start(request, &active_commit_driver, commit_rules, NULL, -1, NULL, 0);
}

void run_Disk_Copy(Request *request)
{
        start_with_target(request, &copy_driver, copy_rules);
}

void run_Disk_CopyToFd(Request *request)
{
        start_with_descriptor(request, &copy_driver, copy_to_descriptor_rules);
}

void run_Disk_Pull(Request *request)
{
        start(request, &pull_driver, pull_rules, NULL, -1, NULL, 0);
}

void run_Disk_Backup(Request *request)
{
        start_with_target(request, &backup_driver, backup_rules);
}

void run_Disk_BackupToFd(Request *request)
{
        start_with_descriptor(request, &backup_driver, backup_rules);
}

void run_Disk_Snapshot(Request *request)
{
        start_with_target(request, &snapshot_driver, snapshot_rules);
}

void run_Disk_Resize(Request *request)
{
        uint64_t size = 0;

        sd_bus_message_read(request->message, "t", &size);
        start(request, &resize_driver, resize_rules, NULL, -1, "size", size);
}

#define CONSTANT(name, type) SD_BUS_PROPERTY(name, type, get_disk_property, 0, SD_BUS_VTABLE_PROPERTY_CONST)
#define CHANGING(name, type) \
        SD_BUS_PROPERTY(name, type, get_disk_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE)

const sd_bus_vtable disk_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Commit", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("o", job),
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Copy", SD_BUS_ARGS("s", target, "a{sv}", options), SD_BUS_RESULT("o", job),
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("CopyToFd", SD_BUS_ARGS("h", target, "a{sv}", options),
                                SD_BUS_RESULT("o", job), request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Pull", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("o", job),
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Backup", SD_BUS_ARGS("s", target, "a{sv}", options),
                                SD_BUS_RESULT("o", job), request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("BackupToFd", SD_BUS_ARGS("h", target, "a{sv}", options),
                                SD_BUS_RESULT("o", job), request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Snapshot", SD_BUS_ARGS("s", overlay, "a{sv}", options), SD_BUS_NO_RESULT,
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Resize", SD_BUS_ARGS("t", size, "a{sv}", options), SD_BUS_NO_RESULT,
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Map", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("a(tttu)", ranges),
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_SIGNAL_WITH_ARGS("MirrorDropped", SD_BUS_ARGS("s", target, "s", destination), 0),
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
