/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service.h"

#include <fcntl.h>

#include "base/error.h"
#include "log.h"
#include "options.h"
#include "request.h"

/* How long a GetDomain waits for what a slow QEMU has to tell. */
#define PATIENCE_MILLISECONDS 1000

static int append_version(sd_bus_message *reply, const void *object, Service *service)
{
        (void) object;
        (void) service;
        return sd_bus_message_append(reply, "s", BLOCKJOBD_VERSION);
}

static int append_capabilities(sd_bus_message *reply, const void *object, Service *service)
{
        (void) object;
        (void) service;
        return sd_bus_message_append(reply, "as", 11, "attach", "define", "shut-off-jobs", "active-commit",
                                     "commit", "copy", "pull", "backup", "snapshot", "resize",
                                     "external-jobs");
}

static int append_domains(sd_bus_message *reply, const void *object, Service *service)
{
        GPtrArray *domains = engine_domains(service->engine);
        int r = sd_bus_message_open_container(reply, 'a', "o");

        (void) object;
        for (guint i = 0; r >= 0 && i < domains->len; i++) {
                g_autofree char *path = domain_path(domains->pdata[i]);
                r = sd_bus_message_append(reply, "o", path);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int append_jobs(sd_bus_message *reply, const void *object, Service *service)
{
        GPtrArray *jobs = engine_jobs(service->engine);
        int r = sd_bus_message_open_container(reply, 'a', "o");

        (void) object;
        for (guint i = 0; r >= 0 && i < jobs->len; i++) {
                g_autofree char *path = job_path(jobs->pdata[i]);
                if (!((Job *) jobs->pdata[i])->concluded)
                        r = sd_bus_message_append(reply, "o", path);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

const Property manager_properties[] = {
        { "Version", "s", append_version },
        { "Capabilities", "as", append_capabilities },
        { "Domains", "ao", append_domains },
        { "Jobs", "ao", append_jobs },
        PROPERTY_TABLE_END,
};

static void on_attached(Domain *domain, const GError *error, gpointer data)
{
        Request *request = data;

        if (error) {
                request_fail(request, error);
                return;
        }
        log_event(LOG_NOTICE, MESSAGE_DOMAIN_ATTACHED, domain, NULL, NULL,
                  "domain '%s' attached: QEMU %s, process %u, %u disks", domain->name, domain->version,
                  domain->pid, domain->disks->len);
        request_reply_object(request, domain_path(domain));
}

void run_Manager_AttachDomain(Request *request)
{
        g_autoptr(GPtrArray) options = NULL;
        g_autoptr(GError) error = NULL;
        const char *name, *path;

        sd_bus_message_read(request->message, "ss", &name, &path);
        options = options_read(request->message, no_options, &error);
        if (!options)
                request_fail(request, error);
        else
                engine_attach(request->service->engine, name, path, -1, on_attached, request);
}

void run_Manager_AttachDomainFd(Request *request)
{
        g_autoptr(GPtrArray) options = NULL;
        g_autoptr(GError) error = NULL;
        const char *name;
        int fd;

        sd_bus_message_read(request->message, "sh", &name, &fd);
        options = options_read(request->message, no_options, &error);
        if (!options) {
                request_fail(request, error);
                return;
        }
        /* The message owns its descriptor, and the connection outlives the message. */
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                request_fail_new(request, BJ_ERROR_LIMIT_EXCEEDED, "the service has no descriptor left");
        else
                engine_attach(request->service->engine, name, NULL, fd, on_attached, request);
}

/* ---- domains of the service's own ---- */

static const OptionRule define_rules[] = { { "lenient", 'b' }, { .key = NULL } };

typedef struct {
        Request *request;
        GPtrArray *ignored; /* NULL: nothing is */
        gboolean starts;
} Define;

static void log_defined(const Define *define, const Domain *domain)
{
        g_autofree char *ignored = NULL;
        LogField fields[] = { { "BLOCKJOB_IGNORED", NULL }, { NULL, NULL } };

        if (define->ignored && define->ignored->len > 0) {
                g_ptr_array_add(define->ignored, NULL);
                fields[0].value = ignored = g_strjoinv("; ", (char **) define->ignored->pdata);
        }
        log_event(LOG_NOTICE, define->starts ? MESSAGE_DOMAIN_STARTED : MESSAGE_DOMAIN_DEFINED, domain, NULL,
                  fields, "domain '%s' %s: %u disks%s%s", domain->name,
                  define->starts ? "created and started" : "defined", domain->disks->len,
                  ignored ? "; left out: " : "", ignored ? ignored : "");
}

static void on_defined(Domain *domain, const GError *error, gpointer data)
{
        Define *define = data;

        if (error)
                request_fail(define->request, error);
        else {
                log_defined(define, domain);
                request_reply_object(define->request, domain_path(domain));
        }
        g_clear_pointer(&define->ignored, g_ptr_array_unref);
        g_free(define);
}

static void define(Request *request, gboolean starts)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) options = NULL;
        const char *xml;
        Define *data;

        sd_bus_message_read(request->message, "s", &xml);
        options = options_read(request->message, define_rules, &error);
        if (!options) {
                request_fail(request, error);
                return;
        }
        data = g_new(Define, 1);
        *data = (Define){ request,
                          options_flag(options, "lenient") ? g_ptr_array_new_with_free_func(g_free) : NULL,
                          starts };
        (starts ? engine_create : engine_define)(request->service->engine, xml, data->ignored, on_defined,
                                                 data);
}

void run_Manager_DefineDomain(Request *request)
{
        define(request, FALSE);
}

void run_Manager_CreateDomain(Request *request)
{
        define(request, TRUE);
}

static void reply_found(Request *request, const Domain *domain)
{
        if (domain->removed)
                request_fail_new(request, BJ_ERROR_NO_SUCH_DOMAIN, "domain '%s' was detached meanwhile",
                                 domain->name);
        else
                request_reply_object(request, domain_path(domain));
}

/* A GetDomain on whose behalf QEMU is asked. */
typedef struct {
        Request *request; /* NULL: replied to */
        guint patience;
} Find;

static gboolean on_patience_over(gpointer data)
{
        Find *find = data;
        Request *request = g_steal_pointer(&find->request);

        find->patience = 0;
        reply_found(request, request->domain);
        return G_SOURCE_REMOVE;
}

static void on_domain_looked(Domain *domain, const GError *error, gpointer data)
{
        g_autofree Find *find = data;

        /* What QEMU does not tell now is not known better by anybody; the domain is there all the same. */
        (void) error;
        g_clear_handle_id(&find->patience, g_source_remove);
        if (find->request)
                reply_found(find->request, domain);
}

void run_Manager_GetDomain(Request *request)
{
        g_autoptr(GError) error = NULL;
        const char *name;
        Domain *domain;
        Find *find;

        sd_bus_message_read(request->message, "s", &name);
        domain = engine_domain_by_name_or_uuid(request->service->engine, name, &error);
        if (!domain)
                request_fail(request, error);
        else if (!domain->host.qmp || domain->late_command)
                request_reply_object(request, domain_path(domain));
        else {
                find = g_new(Find, 1);
                *find = (Find){ request, g_timeout_add(PATIENCE_MILLISECONDS, on_patience_over, find) };
                request->domain = domain_ref(domain);
                /* QEMU sends no event for a disk or an overlay that somebody else adds. */
                domain_look_then(domain, on_domain_looked, find);
        }
}

void run_Manager_GetJob(Request *request)
{
        const char *id;
        Job *job;

        sd_bus_message_read(request->message, "s", &id);
        job = engine_job(request->service->engine, id);
        if (job)
                request_reply_object(request, job_path(job));
        else
                request_fail_new(request, BJ_ERROR_NO_SUCH_JOB, "there is no job '%s'", id);
}

static const char *const job_states[] = { "starting",   "running",   "paused",       "ready",
                                          "completing", "concluded", "disconnected", NULL };
static const OptionRule list_rules[] = {
        { "domain", 's' },
        { "state", 's', .values = job_states },
        { .key = NULL },
};

static int append_job(sd_bus_message *reply, const Job *job, Service *service)
{
        g_autofree char *path = job_path(job);
        int r = sd_bus_message_open_container(reply, 'a', "{sv}");

        if (r >= 0)
                r = sd_bus_message_append(reply, "{sv}", "Path", "o", path);
        if (r >= 0)
                r = properties_append_all(job_properties, reply, job, service);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

void run_Manager_ListJobs(Request *request)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) options = options_read(request->message, list_rules, &error);
        GPtrArray *jobs = engine_jobs(request->service->engine);
        sd_bus_message *reply = NULL;

        if (!options) {
                request_fail(request, error);
                return;
        }
        const char *domain = options_text(options, "domain"), *state = options_text(options, "state");
        if (sd_bus_message_new_method_return(request->message, &reply) < 0 ||
            sd_bus_message_open_container(reply, 'a', "a{sv}") < 0)
                g_error("out of memory");
        for (guint i = 0; i < jobs->len; i++) {
                const Job *job = jobs->pdata[i];

                if ((!domain || g_str_equal(domain, job->domain)) &&
                    (!state || g_str_equal(state, job_state_name(job->state))))
                        append_job(reply, job, request->service);
        }
        sd_bus_message_close_container(reply);
        request_reply_message(request, reply);
        sd_bus_message_unref(reply);
}

#define CONSTANT(name, type) \
        SD_BUS_PROPERTY(name, type, get_manager_property, 0, SD_BUS_VTABLE_PROPERTY_CONST)
#define CHANGING(name, type) \
        SD_BUS_PROPERTY(name, type, get_manager_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE)

const sd_bus_vtable manager_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("AttachDomain", SD_BUS_ARGS("s", name, "s", qmp_path, "a{sv}", options),
                                SD_BUS_RESULT("o", domain), request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("AttachDomainFd", SD_BUS_ARGS("s", name, "h", qmp, "a{sv}", options),
                                SD_BUS_RESULT("o", domain), request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("DefineDomain", SD_BUS_ARGS("s", xml, "a{sv}", options),
                                SD_BUS_RESULT("o", domain), request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("CreateDomain", SD_BUS_ARGS("s", xml, "a{sv}", options),
                                SD_BUS_RESULT("o", domain), request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("InspectImage", SD_BUS_ARGS("s", path, "a{sv}", options),
                                SD_BUS_RESULT("aa{sv}", chain), request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetDomain", SD_BUS_ARGS("s", name_or_uuid), SD_BUS_RESULT("o", domain),
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetJob", SD_BUS_ARGS("s", id), SD_BUS_RESULT("o", job), request_dispatch,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListJobs", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("aa{sv}", jobs),
                                request_dispatch, SD_BUS_VTABLE_UNPRIVILEGED),
        CONSTANT("Version", "s"),
        CONSTANT("Capabilities", "as"),
        CHANGING("Domains", "ao"),
        CHANGING("Jobs", "ao"),
        SD_BUS_SIGNAL_WITH_ARGS("DomainAdded", SD_BUS_ARGS("s", name, "o", domain), 0),
        SD_BUS_SIGNAL_WITH_ARGS("DomainRemoved", SD_BUS_ARGS("s", name, "o", domain), 0),
        SD_BUS_SIGNAL_WITH_ARGS("JobNew", SD_BUS_ARGS("s", id, "o", job), 0),
        SD_BUS_SIGNAL_WITH_ARGS("JobRemoved", SD_BUS_ARGS("s", id, "o", job, "s", result), 0),
        SD_BUS_VTABLE_END,
};
