/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "request.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "authority.h"
#include "authorization-table.h"
#include "base/error.h"
#include "errors.h"
#include "log.h"

static const char *const action_names[] = {
#define X(action, name) [action] = name,
        ACTIONS(X)
#undef X
};

static const struct Method {
        const char *interface, *member;
        Action action;
        void (*run)(Request *request);
} methods[] = {
#define X(interface, member, action) \
        { BUS_NAME "." #interface, #member, action, run_##interface##_##member },
        AUTHORIZATION_TABLE(X)
#undef X
};

static const struct Method *find_method(sd_bus_message *message)
{
        for (guint i = 0; i < G_N_ELEMENTS(methods); i++)
                if (sd_bus_message_is_method_call(message, methods[i].interface, methods[i].member) > 0)
                        return &methods[i];
        return NULL;
}

static void go_on(gpointer request);
static void drop(gpointer request);

static const CallerHandlers caller_handlers = { go_on, drop };

static void request_free(Request *request)
{
        Caller *caller = g_hash_table_lookup(request->service->callers, request->sender);

        if (caller)
                caller->requests--;
        g_ptr_array_remove_fast(request->service->asking, request);
        domain_unref(request->domain);
        job_unref(request->job);
        g_free(request->about);
        g_object_unref(request->cancellable);
        sd_bus_message_unref(request->message);
        g_free(request->sender);
        g_free(request);
}

/* ---- may they ---- */

static void run(Request *request)
{
        sd_bus_message_rewind(request->message, 1);
        request->method->run(request);
}

/* Polkit rules see what it is about. */
typedef struct {
        const char *pairs[15];
        char number[16];
} Details;

/* What a method of a disk starts, and whether its first argument is the image that it writes. */
static const struct {
        void (*run)(Request *request);
        const char *job_type;
        gboolean has_target;
} disk_methods[] = {
        { run_Disk_Commit, "active-commit" },
        { run_Disk_Copy, "copy", TRUE },
        { run_Disk_CopyToFd, "copy" },
        { run_Disk_Pull, "pull" },
        { run_Disk_Backup, "backup", TRUE },
        { run_Disk_BackupToFd, "backup" },
        { run_Disk_Snapshot, "snapshot", TRUE },
        { run_Disk_Resize, "resize" },
        { run_Disk_Map, "map" },
};

/* What somebody is asked where there is no domain yet that the action's own words could name. */
static const struct {
        void (*run)(Request *request);
        const char *question;
} questions[] = {
        { run_Manager_DefineDomain, "Authentication is required to define a virtual machine" },
        { run_Manager_CreateDomain, "Authentication is required to create a virtual machine" },
        { run_Manager_InspectImage, "Authentication is required to look at the image $(target)" },
};

static const char *question_of(const Request *request)
{
        for (guint i = 0; i < G_N_ELEMENTS(questions); i++)
                if (request->method->run == questions[i].run)
                        return questions[i].question;
        return NULL;
}

/* Fills in `target` where the method has one. */
static const char *job_type_of(const Request *request, const char **target)
{
        for (guint i = 0; i < G_N_ELEMENTS(disk_methods); i++) {
                if (request->method->run != disk_methods[i].run)
                        continue;
                if (disk_methods[i].has_target)
                        sd_bus_message_read(request->message, "s", target);
                return disk_methods[i].job_type;
        }
        return NULL;
}

/* Answers the domain, NULL where there is none. */
static const Domain *fill_details(Request *request, Details *details)
{
        const char *path = sd_bus_message_get_path(request->message);
        Job *job = job_at(request->service, path);
        Disk *disk = job ? NULL : disk_at(request->service, path);
        const Domain *domain = job    ? engine_domain(request->service->engine, job->domain)
                               : disk ? disk->domain
                                      : domain_at(request->service, path);
        const char *name = domain ? domain->name : job ? job->domain : NULL;
        const char *target = job ? job->target : NULL;
        const char *job_type = job ? job->driver->type : job_type_of(request, &target);
        guint n = 0;

        *details = (Details){ 0 };
        if (request->method->run == run_Manager_AttachDomain ||
            request->method->run == run_Manager_AttachDomainFd)
                sd_bus_message_read(request->message, "s", &name);
        if (request->method->run == run_Manager_InspectImage)
                sd_bus_message_read(request->message, "s", &target);
        if (job)
                g_snprintf(details->number, sizeof(details->number), "%u", job->started_by);
        const char *const all[] = {
                "domain_name",    name,
                "domain_uuid",    domain ? domain->uuid : NULL,
                "disk",           job ? job->disk : disk ? disk->target : NULL,
                "job_type",       job_type,
                "target",         target,
                "started_by_uid", job ? details->number : NULL,
                "polkit.message", question_of(request),
        };
        for (guint i = 0; i < G_N_ELEMENTS(all); i += 2) {
                if (!all[i + 1])
                        continue;
                details->pairs[n++] = all[i];
                details->pairs[n++] = all[i + 1];
        }
        return domain;
}

/* The very thing that a question is about, so that a yes for one machine is not used for another that has
 * come to its name in the meantime. */
static char *describe(Request *request, Details *details)
{
        const Domain *domain = fill_details(request, details);
        g_autofree char *pairs = g_strjoinv("\n", (char **) details->pairs);

        return g_strdup_printf("%s\n%s\n%u", pairs, domain ? domain->instance : "",
                               domain && domain->definition ? domain->serial : 0);
}

static gboolean is_still_about_the_same(Request *request)
{
        Details details;
        g_autofree char *now = NULL;

        sd_bus_message_rewind(request->message, 1);
        now = describe(request, &details);
        return strcmp(now, request->about) == 0;
}

static Action action_of(const Request *request)
{
        Job *job = job_at(request->service, sd_bus_message_get_path(request->message));

        if (request->also != ACTION_NONE)
                return request->also;
        if (request->method->action == ACTION_MANAGE_JOB && job && job->started_by == request->uid)
                return ACTION_MANAGE_OWN_JOB;
        return request->method->action;
}

static void log_authorization(Request *request, MessageId message, const char *what)
{
        g_autofree char *uid = g_strdup_printf("%u", request->uid);
        g_autofree char *method = g_strdup_printf("%s.%s", request->method->interface + strlen(BUS_NAME "."),
                                                  request->method->member);
        const char *action = action_names[action_of(request)];
        const LogField fields[] = {
                { "BLOCKJOB_CALLER_UID", uid },
                { "BLOCKJOB_ACTION", action },
                { "BLOCKJOB_METHOD", method },
                { "BLOCKJOB_SENDER", request->sender },
                { NULL, NULL },
        };

        log_event(LOG_NOTICE, message, NULL, NULL, fields, "%s on %s by uid %u (%s): %s", method,
                  sd_bus_message_get_path(request->message), request->uid, action, what);
}

static void deny(Request *request, const char *name, const char *why)
{
        log_authorization(request, MESSAGE_AUTHORIZATION_DENIED, why);
        sd_bus_reply_method_errorf(request->message, name, "%s needs the authorization %s: %s",
                                   request->method->member, action_names[action_of(request)], why);
        request_free(request);
}

static void on_answer(AuthorityAnswer answer, gpointer data)
{
        Request *request = data;
        Caller *caller = g_hash_table_lookup(request->service->callers, request->sender);

        if (caller)
                g_ptr_array_remove_fast(caller->pending, request);
        switch (answer) {
        case AUTHORITY_ALLOWED:
                if (is_still_about_the_same(request))
                        run(request);
                else
                        request_fail_new(
                                request, BJ_ERROR_INVALID_STATE,
                                "%s is not what it was when the authorization was asked for; call again",
                                sd_bus_message_get_path(request->message));
                return;
        case AUTHORITY_CHALLENGE:
                if (sd_bus_message_get_allow_interactive_authorization(request->message) <= 0) {
                        deny(request, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED,
                             "it would have to be asked for, and the call does not allow that");
                        return;
                }
                deny(request, SD_BUS_ERROR_ACCESS_DENIED, "nobody is there to be asked for it");
                return;
        case AUTHORITY_DENIED:
                deny(request, SD_BUS_ERROR_ACCESS_DENIED, "not granted");
                return;
        case AUTHORITY_ABSENT:
                deny(request, SD_BUS_ERROR_ACCESS_DENIED, "polkit does not answer");
                return;
        }
}

static void ask(Request *request, Caller *caller)
{
        Details details;

        g_ptr_array_add(caller->pending, request);
        g_free(request->about);
        request->about = describe(request, &details);
        if (authority_check(request->service->authority, request->sender, request->uid,
                            action_names[action_of(request)], details.pairs,
                            sd_bus_message_get_allow_interactive_authorization(request->message) > 0,
                            request->cancellable, on_answer, request))
                return;
        g_ptr_array_remove_fast(caller->pending, request);
        request_fail_new(request, BJ_ERROR_LIMIT_EXCEEDED,
                         "too many requests wait for an authorization already");
}

static void go_on(gpointer data)
{
        Request *request = data;
        Caller *caller = caller_of(request->service, request->sender, &caller_handlers);

        if (!caller || !caller->uid_known) {
                sd_bus_reply_method_errorf(request->message, SD_BUS_ERROR_ACCESS_DENIED,
                                           "the bus does not tell who is calling");
                request_free(request);
                return;
        }
        request->uid = caller->uid;
        if (request->method->action == ACTION_NONE) {
                run(request);
                return;
        }
        if (caller->uid == 0) {
                log_authorization(request, MESSAGE_AUTHORIZATION_ROOT, "root is not asked");
                run(request);
                return;
        }
        ask(request, caller);
}

gboolean request_has_also(Request *request, Action action)
{
        Caller *caller = g_hash_table_lookup(request->service->callers, request->sender);

        if (request->also == action)
                return TRUE;
        request->also = action;
        if (request->uid == 0) {
                log_authorization(request, MESSAGE_AUTHORIZATION_ROOT, "root is not asked");
                return TRUE;
        }
        if (caller)
                ask(request, caller);
        else
                deny(request, SD_BUS_ERROR_ACCESS_DENIED, "the caller is gone");
        return FALSE;
}

static void drop(gpointer data)
{
        Request *request = data;

        g_cancellable_cancel(request->cancellable);
        request_free(request);
}

int request_dispatch(sd_bus_message *message, void *userdata, sd_bus_error *error)
{
        Service *service = service_of(sd_bus_message_get_bus(message));
        const struct Method *method = find_method(message);
        const char *sender = sd_bus_message_get_sender(message);
        Caller *caller;
        Request *request;

        (void) userdata;
        if (!method)
                return sd_bus_error_setf(error, SD_BUS_ERROR_ACCESS_DENIED,
                                         "%s is guarded by nothing and so refused",
                                         sd_bus_message_get_member(message));
        caller = sender ? caller_of(service, sender, &caller_handlers) : NULL;
        if (!caller)
                return sd_bus_error_setf(error, SD_BUS_ERROR_ACCESS_DENIED,
                                         "the bus does not tell who is calling");
        if (caller->requests >= REQUESTS_PER_CALLER_MAX)
                return sd_bus_error_setf(error, ERROR_PREFIX "LimitExceeded",
                                         "%d requests of yours are pending already",
                                         REQUESTS_PER_CALLER_MAX);
        if (!caller->uid_known && service->nameless >= service->most_waiting)
                return sd_bus_error_setf(error, ERROR_PREFIX "LimitExceeded",
                                         "%u requests of new callers are pending already",
                                         service->most_waiting);
        caller->requests++;
        request = g_new0(Request, 1);
        request->service = service;
        request->message = sd_bus_message_ref(message);
        request->method = method;
        request->sender = g_strdup(sender);
        request->cancellable = g_cancellable_new();
        if (caller->uid_known)
                go_on(request);
        else {
                g_ptr_array_add(caller->pending, request);
                service->nameless++;
        }
        return 1;
}

/* ---- the end ---- */

void request_reply(Request *request)
{
        changes_flush(request->service);
        if (!request->answered)
                sd_bus_reply_method_return(request->message, NULL);
        request_free(request);
}

void request_reply_object(Request *request, char *path)
{
        changes_flush(request->service);
        if (!request->answered)
                sd_bus_reply_method_return(request->message, "o", path);
        g_free(path);
        request_free(request);
}

void request_reply_message(Request *request, sd_bus_message *reply)
{
        changes_flush(request->service);
        if (!request->answered)
                sd_bus_send(NULL, reply, NULL);
        request_free(request);
}

static void answer_error(Request *request, const GError *error)
{
        g_autofree char *name = error_bus_name(error);

        changes_flush(request->service);
        if (!request->answered)
                sd_bus_reply_method_errorf(request->message, name, "%s", error->message);
        request->answered = TRUE;
}

void request_fail(Request *request, const GError *error)
{
        answer_error(request, error);
        request_free(request);
}

void request_fail_new(Request *request, int code, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        g_autoptr(GError) error = g_error_new_valist(BJ_ERROR, code, format, arguments);
        va_end(arguments);
        request_fail(request, error);
}

void request_job_done(Job *job, const GError *error, gpointer data)
{
        Request *request = data;

        (void) job;
        if (error)
                request_fail(request, error);
        else
                request_reply(request);
}

Domain *request_domain(Request *request)
{
        const char *path = sd_bus_message_get_path(request->message);
        Domain *domain = domain_at(request->service, path);

        if (!domain)
                request_fail_new(request, BJ_ERROR_NO_SUCH_DOMAIN, "domain %s is gone", path);
        return domain;
}

Disk *request_disk(Request *request)
{
        const char *path = sd_bus_message_get_path(request->message);
        Disk *disk = disk_at(request->service, path);

        if (!disk)
                request_fail_new(request, BJ_ERROR_NO_SUCH_DISK, "disk %s is gone", path);
        return disk;
}

Job *request_job(Request *request)
{
        const char *path = sd_bus_message_get_path(request->message);
        Job *job = job_at(request->service, path);

        if (!job)
                request_fail_new(request, BJ_ERROR_NO_SUCH_JOB, "job %s is gone", path);
        return job;
}

/* ---- requests on whose behalf QEMU is asked ---- */

static GError *late_error(const Domain *domain, const char *command)
{
        return g_error_new(BJ_ERROR, BJ_ERROR_TIMEOUT, "QEMU of domain '%s' does not answer '%s'",
                           domain->name, command);
}

gboolean request_ask(Request *request, Domain *domain)
{
        g_autoptr(GError) error = domain->late_command ? late_error(domain, domain->late_command) : NULL;

        if (error) {
                request_fail(request, error);
                return FALSE;
        }
        request->domain = domain_ref(domain);
        g_ptr_array_add(request->service->asking, request);
        return TRUE;
}

/* ---- requests that wait for the end of a job ---- */

void request_wait(Request *request, Job *job)
{
        request->job = job_ref(job);
        g_ptr_array_add(request->service->waiting, request);
}

static gboolean wants_pivot(const Request *request)
{
        return request->method->run == run_Job_Pivot;
}

static void reply_outcome(Request *request, const Job *job)
{
        gboolean wanted =
                wants_pivot(request)
                        ? job->record.result == RESULT_COMPLETED || job->record.result == RESULT_PIVOTED
                        : job->record.result == RESULT_KEPT || job->record.result == RESULT_CANCELLED;

        if (wanted)
                request_reply(request);
        else
                request_fail_new(request, job->error_code >= 0 ? job->error_code : BJ_ERROR_INVALID_STATE,
                                 "job '%s' ended as '%s'%s%s", job->id, job_result_name(job->record.result),
                                 job->error_message ? ": " : "",
                                 job->error_message ? job->error_message : "");
}

/* Takes those that `matches` out of the list first: answering one may end in another wait. */
static GPtrArray *take_waiting(Service *service, gboolean (*matches)(const Request *, gconstpointer),
                               gconstpointer what)
{
        GPtrArray *taken = g_ptr_array_new();

        for (guint i = 0; i < service->waiting->len;) {
                if (matches(service->waiting->pdata[i], what))
                        g_ptr_array_add(taken, g_ptr_array_remove_index(service->waiting, i));
                else
                        i++;
        }
        return taken;
}

static gboolean waits_for_job(const Request *request, gconstpointer job)
{
        return request->job == job;
}

static gboolean waits_in_domain(const Request *request, gconstpointer domain)
{
        return request->job->host == &((const Domain *) domain)->host;
}

void requests_job_concluded(Service *service, Job *job)
{
        g_autoptr(GPtrArray) taken = take_waiting(service, waits_for_job, job);

        for (guint i = 0; i < taken->len; i++)
                reply_outcome(taken->pdata[i], job);
}

void requests_job_refused(Service *service, Job *job, const GError *error)
{
        g_autoptr(GPtrArray) taken = take_waiting(service, waits_for_job, job);

        for (guint i = 0; i < taken->len; i++)
                request_fail(taken->pdata[i], error);
}

void requests_domain_late(Service *service, Domain *domain, const char *command)
{
        g_autoptr(GPtrArray) taken = take_waiting(service, waits_in_domain, domain);
        g_autoptr(GError) error = late_error(domain, command);

        for (guint i = 0; i < taken->len; i++)
                request_fail_new(taken->pdata[i], BJ_ERROR_TIMEOUT, "%s; the job goes on when it does",
                                 error->message);
        for (guint i = 0; i < service->asking->len; i++)
                if (((Request *) service->asking->pdata[i])->domain == domain)
                        answer_error(service->asking->pdata[i], error);
}

static gboolean waits_at_all(const Request *request, gconstpointer what)
{
        (void) request;
        (void) what;
        return TRUE;
}

void requests_stopping(Service *service)
{
        g_autoptr(GPtrArray) taken = take_waiting(service, waits_at_all, NULL);

        for (guint i = 0; i < taken->len; i++) {
                Request *request = taken->pdata[i];
                request_fail_new(request, BJ_ERROR_DISCONNECTED,
                                 "the service is stopping; job '%s' is gone on with at its next start",
                                 request->job->id);
        }
}
