/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service.h"

#include "base/error.h"
#include "log.h"
#include "options.h"
#include "request.h"

#define TEXT(function, expression)                                                       \
        static int function(sd_bus_message *reply, const void *object, Service *service) \
        {                                                                                \
                const Domain *domain = object;                                           \
                (void) service;                                                          \
                return sd_bus_message_append(reply, "s", expression);                    \
        }

TEXT(append_name, domain->name)
TEXT(append_uuid, domain->uuid)
TEXT(append_state, domain_state_name(domain->state))
TEXT(append_reason, domain->reason)
TEXT(append_version, domain->version)

static int append_origin(sd_bus_message *reply, const void *object, Service *service)
{
        const Domain *domain = object;

        (void) service;
        return sd_bus_message_append(reply, "s",
                                     !domain->definition  ? "attached"
                                     : domain->persistent ? "defined"
                                                          : "transient");
}

static int append_persistent(sd_bus_message *reply, const void *object, Service *service)
{
        const Domain *domain = object;

        (void) service;
        return sd_bus_message_append(reply, "b", domain->persistent);
}

static int append_pid(sd_bus_message *reply, const void *object, Service *service)
{
        const Domain *domain = object;

        (void) service;
        return sd_bus_message_append(reply, "u", domain->gone ? 0 : domain->pid);
}

static int append_capabilities(sd_bus_message *reply, const void *object, Service *service)
{
        const Domain *domain = object;
        static char *none[] = { NULL };

        (void) service;
        return sd_bus_message_append_strv(reply, domain->host.capabilities ? domain->host.capabilities->names
                                                                           : none);
}

static int append_disks(sd_bus_message *reply, const void *object, Service *service)
{
        const Domain *domain = object;
        int r = sd_bus_message_open_container(reply, 'a', "o");

        (void) service;
        for (guint i = 0; r >= 0 && i < domain->disks->len; i++) {
                g_autofree char *path = disk_path(domain->disks->pdata[i]);
                r = sd_bus_message_append(reply, "o", path);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int append_jobs_of(sd_bus_message *reply, const Domain *domain)
{
        int r = 0;

        for (guint i = 0; r >= 0 && i < domain->jobs->len; i++) {
                g_autofree char *path = job_path(domain->jobs->pdata[i]);
                if (((Job *) domain->jobs->pdata[i])->announced)
                        r = sd_bus_message_append(reply, "o", path);
        }
        return r;
}

static int append_jobs(sd_bus_message *reply, const void *object, Service *service)
{
        const Domain *domain = object;
        int r = sd_bus_message_open_container(reply, 'a', "o");

        (void) service;
        if (r >= 0)
                r = append_jobs_of(reply, domain);
        for (guint i = 0; r >= 0 && i < domain->storages->len; i++)
                r = append_jobs_of(reply, domain->storages->pdata[i]);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

const Property domain_properties[] = {
        { "Name", "s", append_name },
        { "Uuid", "s", append_uuid },
        { "State", "s", append_state },
        { "StateReason", "s", append_reason },
        { "Origin", "s", append_origin },
        { "Persistent", "b", append_persistent },
        { "Pid", "u", append_pid },
        { "QemuVersion", "s", append_version },
        { "Capabilities", "as", append_capabilities },
        { "Disks", "ao", append_disks },
        { "Jobs", "ao", append_jobs },
        PROPERTY_TABLE_END,
};

static const OptionRule force_rules[] = { { "force", 'b' }, { .key = NULL } };

static void on_detached(Domain *domain, const GError *error, gpointer data)
{
        Request *request = data;

        if (error) {
                request_fail(request, error);
                return;
        }
        log_event(LOG_NOTICE, MESSAGE_DOMAIN_DETACHED, domain, NULL, NULL, "domain '%s' detached",
                  domain->name);
        request_reply(request);
}

/* The domain, where the options are right and it is there; else the request has ended. */
static Domain *domain_with_options(Request *request, const OptionRule *rules, GPtrArray **ret_options)
{
        g_autoptr(GError) error = NULL;

        *ret_options = options_read(request->message, rules, &error);
        if (*ret_options)
                return request_domain(request);
        request_fail(request, error);
        return NULL;
}

void run_Domain_Detach(Request *request)
{
        g_autoptr(GPtrArray) options = NULL;
        Domain *domain = domain_with_options(request, force_rules, &options);

        if (domain)
                engine_detach(request->service->engine, domain, options_flag(options, "force"), on_detached,
                              request);
}

static void on_done(Domain *domain, const GError *error, gpointer data)
{
        Request *request = data;

        (void) domain;
        if (error)
                request_fail(request, error);
        else
                request_reply(request);
}

static Domain *domain_without_options(Request *request)
{
        g_autoptr(GPtrArray) options = NULL;

        return domain_with_options(request, no_options, &options);
}

static void on_started(Domain *domain, const GError *error, gpointer data)
{
        if (!error)
                log_event(LOG_NOTICE, MESSAGE_DOMAIN_STARTED, domain, NULL, NULL,
                          "domain '%s' started: QEMU %s, process %u", domain->name, domain->version,
                          domain->pid);
        on_done(domain, error, data);
}

void run_Domain_Start(Request *request)
{
        g_autoptr(GPtrArray) options = NULL;
        Domain *domain = domain_with_options(request, force_rules, &options);

        if (domain)
                engine_start_domain(request->service->engine, domain, options_flag(options, "force"),
                                    on_started, request);
}

void run_Domain_Shutdown(Request *request)
{
        Domain *domain = domain_without_options(request);

        if (domain && request_ask(request, domain))
                domain_shutdown(domain, on_done, request);
}

void run_Domain_Destroy(Request *request)
{
        Domain *domain = domain_without_options(request);

        if (domain)
                engine_destroy(domain, on_done, request);
}

static void on_undefined(Domain *domain, const GError *error, gpointer data)
{
        Request *request = data;

        if (!error)
                log_event(LOG_NOTICE, MESSAGE_DOMAIN_UNDEFINED, NULL, NULL, NULL,
                          "the definition of the domain at %s was removed",
                          sd_bus_message_get_path(request->message));
        on_done(domain, error, data);
}

void run_Domain_Undefine(Request *request)
{
        Domain *domain = domain_without_options(request);

        if (domain)
                engine_undefine(request->service->engine, domain, on_undefined, request);
}

static const OptionRule xml_rules[] = { { "inactive", 'b' }, { .key = NULL } };

void run_Domain_GetXml(Request *request)
{
        g_autoptr(GPtrArray) options = NULL;
        Domain *domain = domain_with_options(request, xml_rules, &options);
        g_autofree char *xml = NULL;
        sd_bus_message *reply = NULL;

        if (!domain)
                return;
        if (!domain->definition) {
                request_fail_new(request, BJ_ERROR_INVALID_STATE,
                                 "domain '%s' was attached: whoever started its QEMU has its definition",
                                 domain->name);
                return;
        }
        xml = domain_describe(domain, options_flag(options, "inactive"));
        if (sd_bus_message_new_method_return(request->message, &reply) < 0 ||
            sd_bus_message_append(reply, "s", xml) < 0)
                g_error("out of memory");
        request_reply_message(request, reply);
        sd_bus_message_unref(reply);
}

void run_Domain_Suspend(Request *request)
{
        Domain *domain = request_domain(request);

        if (domain && request_ask(request, domain))
                domain_suspend(domain, on_done, request);
}

void run_Domain_Resume(Request *request)
{
        Domain *domain = request_domain(request);

        if (domain && request_ask(request, domain))
                domain_resume(domain, on_done, request);
}

#define CONSTANT(name, type) \
        SD_BUS_PROPERTY(name, type, get_domain_property, 0, SD_BUS_VTABLE_PROPERTY_CONST)
#define CHANGING(name, type) \
        SD_BUS_PROPERTY(name, type, get_domain_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE)

const sd_bus_vtable domain_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Detach", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Start", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Shutdown", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT,
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Destroy", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Undefine", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT,
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetXml", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("s", xml),
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Suspend", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Resume", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        CONSTANT("Name", "s"),
        CONSTANT("Uuid", "s"),
        CHANGING("State", "s"),
        CHANGING("StateReason", "s"),
        CONSTANT("Origin", "s"),
        CONSTANT("Persistent", "b"),
        CHANGING("Pid", "u"),
        CHANGING("QemuVersion", "s"),
        CHANGING("Capabilities", "as"),
        CHANGING("Disks", "ao"),
        CHANGING("Jobs", "ao"),
        SD_BUS_VTABLE_END,
};
