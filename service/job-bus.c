/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service.h"

#include "errors.h"
#include "options.h"
#include "request.h"

#define VALUE(function, type, expression)                                                \
        static int function(sd_bus_message *reply, const void *object, Service *service) \
        {                                                                                \
                const Job *job = object;                                                 \
                (void) service;                                                          \
                return sd_bus_message_append(reply, type, expression);                   \
        }

VALUE(append_id, "s", job->id)
VALUE(append_type, "s", job->driver->type)
VALUE(append_state, "s", job_state_name(job->state))
/* Recorded before it is told; nobody is to see it before all of it is true. */
VALUE(append_result, "s", job_result_name(job->concluded ? job->record.result : RESULT_NONE))
VALUE(append_disk_target, "s", job->disk)
VALUE(append_qemu_job_id, "s", job->qemu_id)
VALUE(append_ready, "b", job_is_ready(job))
VALUE(append_current, "t", job->current)
VALUE(append_total, "t", job->total)
VALUE(append_progress, "d", job_progress(job))
VALUE(append_speed, "t", job->speed)
VALUE(append_io_status, "s", job->no_space ? "nospace" : job->io_failed ? "failed" : "ok")
VALUE(append_source, "s", job->source)
VALUE(append_target, "s", job->target)
VALUE(append_started_by, "u", job->started_by)
VALUE(append_start_time, "t", job->start_time)
VALUE(append_ready_time, "t", job->ready_time)
VALUE(append_end_time, "t", job->concluded ? job->end_time : (gint64) 0)
VALUE(append_guest_hold, "t", job->hold)
VALUE(append_estimate, "t", job->estimate)
VALUE(append_origin, "s", job->driver->external ? "external" : "blockjobd")
VALUE(append_mode, "s", job->mode)

/* By name, also while that domain is not attached: it may come back. */
static int append_domain(sd_bus_message *reply, const void *object, Service *service)
{
        g_autofree char *path = job_domain_path(object);

        (void) service;
        return sd_bus_message_append(reply, "o", path);
}

static int append_disk(sd_bus_message *reply, const void *object, Service *service)
{
        const Job *job = object;
        g_autofree char *path = *job->disk ? job_disk_path(job) : NULL;

        (void) service;
        return sd_bus_message_append(reply, "o", path ? path : "/");
}

static int append_error(sd_bus_message *reply, const void *object, Service *service)
{
        const Job *job = object;
        g_autofree char *name = error_bus_name_of_code(job->error_code);

        (void) service;
        return sd_bus_message_append(reply, "(ss)", job->concluded ? name : "",
                                     job->concluded && job->error_message ? job->error_message : "");
}

static int append_options(sd_bus_message *reply, const void *object, Service *service)
{
        const Job *job = object;
        int r = sd_bus_message_open_container(reply, 'a', "{sv}");

        (void) service;
        for (guint i = 0; r >= 0 && i < job->options->len; i++) {
                const Option *option = job->options->pdata[i];
                const char signature[] = { option->type, '\0' };

                if (option->type == 's')
                        r = sd_bus_message_append(reply, "{sv}", option->key, signature, option->text);
                else if (option->type == 't')
                        r = sd_bus_message_append(reply, "{sv}", option->key, signature, option->number);
                else
                        r = sd_bus_message_append(reply, "{sv}", option->key, signature,
                                                  (guint32) option->number);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

const Property job_properties[] = {
        { "Id", "s", append_id },
        { "Type", "s", append_type },
        { "State", "s", append_state },
        { "Result", "s", append_result },
        { "Domain", "o", append_domain },
        { "Disk", "o", append_disk },
        { "DiskTarget", "s", append_disk_target },
        { "Origin", "s", append_origin },
        { "QemuJobId", "s", append_qemu_job_id },
        { "Ready", "b", append_ready },
        { "Current", "t", append_current },
        { "Total", "t", append_total },
        { "Progress", "d", append_progress },
        { "Speed", "t", append_speed },
        { "Mode", "s", append_mode },
        { "IoStatus", "s", append_io_status },
        { "Source", "s", append_source },
        { "Target", "s", append_target },
        { "StartedBy", "u", append_started_by },
        { "StartTime", "t", append_start_time },
        { "ReadyTime", "t", append_ready_time },
        { "EndTime", "t", append_end_time },
        { "Estimate", "t", append_estimate },
        { "GuestHold", "t", append_guest_hold },
        { "Error", "(ss)", append_error },
        { "Options", "a{sv}", append_options },
        PROPERTY_TABLE_END,
};

/* A job without a host has no QEMU to ask; its own checks say so. */
static gboolean may_ask(Request *request, const Job *job)
{
        return !job->host || request_ask(request, (Domain *) job->host);
}

static const OptionRule abort_rules[] = { { "force", 'b' }, { "async", 'b' }, { .key = NULL } };
static const OptionRule pivot_rules[] = { { "async", 'b' }, { .key = NULL } };

static void end_job(Request *request, const OptionRule *rules)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) options = options_read(request->message, rules, &error);
        g_autoptr(Job) job = options ? request_job(request) : NULL;
        gboolean done;

        if (!options)
                request_fail(request, error);
        if (!job)
                return;
        job_ref(job);
        if (!may_ask(request, job))
                return;
        done = rules == pivot_rules ? job_pivot(job, &error)
                                    : job_abort(job, options_flag(options, "force"), &error);
        if (!done)
                request_fail(request, error);
        else if (options_flag(options, "async"))
                request_reply(request);
        else
                request_wait(request, job);
}

void run_Job_Abort(Request *request)
{
        end_job(request, abort_rules);
}

void run_Job_Pivot(Request *request)
{
        end_job(request, pivot_rules);
}

void run_Job_SetSpeed(Request *request)
{
        Job *job = request_job(request);
        uint64_t speed;

        if (!job || !may_ask(request, job))
                return;
        sd_bus_message_read(request->message, "t", &speed);
        job_set_speed(job, speed, request_job_done, request);
}

void run_Job_Pause(Request *request)
{
        Job *job = request_job(request);

        if (job && may_ask(request, job))
                job_pause(job, request_job_done, request);
}

void run_Job_Resume(Request *request)
{
        Job *job = request_job(request);

        if (job && may_ask(request, job))
                job_resume(job, request_job_done, request);
}

void run_Job_SetMode(Request *request)
{
        Job *job = request_job(request);
        const char *mode;

        if (!job || !may_ask(request, job))
                return;
        sd_bus_message_read(request->message, "s", &mode);
        job_set_mode(job, mode, request_job_done, request);
}

void run_Job_Dismiss(Request *request)
{
        Job *job = request_job(request);

        if (job)
                engine_dismiss(request->service->engine, job, request_job_done, request);
}

#define CONSTANT(name, type) SD_BUS_PROPERTY(name, type, get_job_property, 0, SD_BUS_VTABLE_PROPERTY_CONST)
#define CHANGING(name, type) \
        SD_BUS_PROPERTY(name, type, get_job_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE)

const sd_bus_vtable job_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Abort", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Pivot", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("SetSpeed", SD_BUS_ARGS("t", bytes_per_second), SD_BUS_NO_RESULT,
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Pause", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Resume", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("SetMode", SD_BUS_ARGS("s", mode), SD_BUS_NO_RESULT, request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Dismiss", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        CONSTANT("Id", "s"),
        CONSTANT("Type", "s"),
        CHANGING("State", "s"),
        CHANGING("Result", "s"),
        CONSTANT("Domain", "o"),
        CONSTANT("Disk", "o"),
        CONSTANT("DiskTarget", "s"),
        CONSTANT("Origin", "s"),
        CHANGING("QemuJobId", "s"),
        CHANGING("Ready", "b"),
        CHANGING("Current", "t"),
        CHANGING("Total", "t"),
        CHANGING("Progress", "d"),
        CHANGING("Speed", "t"),
        CHANGING("Mode", "s"),
        CHANGING("IoStatus", "s"),
        CONSTANT("Source", "s"),
        CONSTANT("Target", "s"),
        CONSTANT("StartedBy", "u"),
        CONSTANT("StartTime", "t"),
        CONSTANT("Estimate", "t"),
        CHANGING("ReadyTime", "t"),
        CHANGING("EndTime", "t"),
        CHANGING("GuestHold", "t"),
        CHANGING("Error", "(ss)"),
        CONSTANT("Options", "a{sv}"),
        SD_BUS_SIGNAL_WITH_ARGS("Ready", SD_BUS_NO_ARGS, 0),
        SD_BUS_SIGNAL_WITH_ARGS("Completed", SD_BUS_ARGS("s", result, "s", error_name, "s", message), 0),
        SD_BUS_VTABLE_END,
};
