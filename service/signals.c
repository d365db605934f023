/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service.h"

#include <string.h>

#include "errors.h"
#include "log.h"
#include "request.h"

/* What the engine tells, as signals and journal records. A signal never overtakes the property changes that
 * came before it. */

#define NAMES_MAX 4

typedef struct {
        guint change;
        const char *names[NAMES_MAX];
} ChangeRow;

static const ChangeRow domain_rows[] = {
        { DOMAIN_CHANGED_STATE, { "State" } },
        { DOMAIN_CHANGED_REASON, { "StateReason" } },
        { DOMAIN_CHANGED_PID, { "Pid" } },
        { DOMAIN_CHANGED_QEMU, { "QemuVersion", "Capabilities" } },
        { DOMAIN_CHANGED_DISKS, { "Disks" } },
        { DOMAIN_CHANGED_JOBS, { "Jobs" } },
        { 0 },
};
static const ChangeRow disk_rows[] = {
        { DISK_CHANGED_NODE, { "NodeName" } },
        { DISK_CHANGED_SOURCE, { "Source" } },
        { DISK_CHANGED_FORMAT, { "Format" } },
        { DISK_CHANGED_CAPACITY, { "Capacity" } },
        { DISK_CHANGED_READ_ONLY, { "ReadOnly" } },
        { DISK_CHANGED_CHAIN, { "Chain" } },
        { DISK_CHANGED_FILTERS, { "Filters" } },
        { DISK_CHANGED_JOB, { "Job" } },
        { 0 },
};
static const ChangeRow job_rows[] = {
        { JOB_CHANGED_STATE, { "State" } },
        { JOB_CHANGED_RESULT, { "Result" } },
        { JOB_CHANGED_READY, { "Ready", "ReadyTime" } },
        { JOB_CHANGED_CURRENT, { "Current" } },
        { JOB_CHANGED_TOTAL, { "Total" } },
        { JOB_CHANGED_PROGRESS, { "Progress" } },
        { JOB_CHANGED_SPEED, { "Speed" } },
        { JOB_CHANGED_IO_STATUS, { "IoStatus" } },
        { JOB_CHANGED_END, { "EndTime" } },
        { JOB_CHANGED_ERROR, { "Error" } },
        { JOB_CHANGED_HOLD, { "GuestHold" } },
        { JOB_CHANGED_MODE, { "Mode" } },
        { JOB_CHANGED_QEMU_ID, { "QemuJobId" } },
        { 0 },
};

static void add_changes(Service *service, char *path, const char *interface, const ChangeRow *rows,
                        guint changes)
{
        const char *names[32];
        guint n = 0;

        for (; rows->change; rows++)
                for (guint i = 0; (changes & rows->change) && i < NAMES_MAX && rows->names[i]; i++)
                        names[n++] = rows->names[i];
        names[n] = NULL;
        changes_add(service, path, interface, names);
}

static void manager_changed(Service *service, const char *property)
{
        const char *names[] = { property, NULL };

        changes_add(service, g_strdup(ROOT_PATH), INTERFACE("Manager"), names);
}

static void emit_manager(Service *service, const char *member, const char *name, const char *path)
{
        changes_flush(service);
        sd_bus_emit_signal(service->bus, ROOT_PATH, INTERFACE("Manager"), member, "so", name, path);
}

static void on_domain_added(Domain *domain, gpointer data)
{
        Service *service = data;
        g_autofree char *path = domain_path(domain);

        manager_changed(service, "Domains");
        changes_flush(service);
        sd_bus_emit_object_added(service->bus, path);
        for (guint i = 0; i < domain->disks->len; i++) {
                g_autofree char *disk = disk_path(domain->disks->pdata[i]);
                sd_bus_emit_object_added(service->bus, disk);
        }
        emit_manager(service, "DomainAdded", domain->name, path);
}

static void remove_object(Service *service, const char *path)
{
        changes_flush(service);
        sd_bus_emit_object_removed(service->bus, path);
}

static void on_domain_removed(Domain *domain, gpointer data)
{
        Service *service = data;
        g_autofree char *path = domain_path(domain);

        for (guint i = 0; i < domain->disks->len; i++) {
                g_autofree char *disk = disk_path(domain->disks->pdata[i]);
                remove_object(service, disk);
        }
        remove_object(service, path);
        emit_manager(service, "DomainRemoved", domain->name, path);
        manager_changed(service, "Domains");
}

static void on_domain_changed(Domain *domain, guint changes, gpointer data)
{
        add_changes(data, domain_path(domain), INTERFACE("Domain"), domain_rows, changes);
}

static void on_domain_gone(Domain *domain, gpointer data)
{
        add_changes(data, domain_path(domain), INTERFACE("Domain"), domain_rows, DOMAIN_CHANGED_PID);
        log_event(LOG_NOTICE, MESSAGE_DOMAIN_GONE, domain, NULL, NULL, "QEMU of domain '%s' has ended: %s",
                  domain->name, domain->shutdown_reason ? domain->shutdown_reason : domain->reason);
}

static void on_domain_late(Domain *domain, const char *command, gpointer data)
{
        const LogField fields[] = { { "BLOCKJOB_ERROR", command }, { NULL, NULL } };

        if (!command)
                return;
        log_event(LOG_WARNING, MESSAGE_QEMU_LATE, domain, NULL, fields,
                  "QEMU of domain '%s' does not answer '%s'", domain->name, command);
        requests_domain_late(data, domain, command);
}

static void on_connection_lost(Domain *domain, const GError *error, gpointer data)
{
        const LogField fields[] = { { "BLOCKJOB_ERROR", error->message }, { NULL, NULL } };

        (void) data;
        log_event(LOG_WARNING, MESSAGE_CONNECTION_LOST, domain, NULL, fields, "domain '%s': %s",
                  domain->name, error->message);
}

static void on_connection_regained(Domain *domain, gpointer data)
{
        (void) data;
        log_event(LOG_NOTICE, MESSAGE_CONNECTION_REGAINED, domain, NULL, NULL,
                  "domain '%s' is connected again", domain->name);
}

static void on_disk_added(Disk *disk, gpointer data)
{
        Service *service = data;
        g_autofree char *path = disk_path(disk);

        changes_flush(service);
        sd_bus_emit_object_added(service->bus, path);
}

static void on_disk_removed(Disk *disk, gpointer data)
{
        g_autofree char *path = disk_path(disk);

        remove_object(data, path);
}

static void on_disk_changed(Disk *disk, guint changes, gpointer data)
{
        add_changes(data, disk_path(disk), INTERFACE("Disk"), disk_rows, changes);
}

static void on_job_added(Job *job, gpointer data)
{
        Service *service = data;
        g_autofree char *path = job_path(job);

        changes_flush(service);
        sd_bus_emit_object_added(service->bus, path);
        emit_manager(service, "JobNew", job->id, path);
        log_event(LOG_NOTICE, MESSAGE_JOB_STARTED, (Domain *) job->host, job, NULL,
                  "%s '%s' of disk '%s' of domain '%s' started: '%s' into '%s'", job->driver->type, job->id,
                  job->disk, job->domain, job->source, job->target);
}

static void on_job_removed(Job *job, gpointer data)
{
        Service *service = data;
        g_autofree char *path = job_path(job);

        remove_object(service, path);
}

static void on_job_changed(Job *job, guint changes, gpointer data)
{
        add_changes(data, job_path(job), INTERFACE("Job"), job_rows, changes);
}

/* All is made ready before job_told(), so that the signal follows it at once. */
static void tell(Service *service, Job *job, const char *member, const char *types, ...)
{
        g_autofree char *path = job_path(job);
        sd_bus_message *signal = NULL;
        va_list arguments;
        int r;

        changes_flush(service);
        r = sd_bus_message_new_signal(service->bus, &signal, path, INTERFACE("Job"), member);
        va_start(arguments, types);
        if (r >= 0 && types)
                r = sd_bus_message_appendv(signal, types, arguments);
        va_end(arguments);
        if (r >= 0) {
                job_told(job);
                sd_bus_send(service->bus, signal, NULL);
        }
        sd_bus_message_unref(signal);
}

static void on_job_ready(Job *job, gpointer data)
{
        Service *service = data;

        tell(service, job, "Ready", NULL);
        log_event(LOG_NOTICE, MESSAGE_JOB_READY, (Domain *) job->host, job, NULL,
                  "%s '%s' is ready: '%s' and '%s' are the same from now on; pivot or abort",
                  job->driver->type, job->id, job->source, job->target);
}

static void on_job_decided(Job *job, gpointer data)
{
        (void) data;
        log_event(LOG_NOTICE, MESSAGE_PIVOT_DECIDED, (Domain *) job->host, job, NULL,
                  "%s '%s': the pivot is decided and recorded, the disk is '%s'", job->driver->type, job->id,
                  job->target);
}

static void on_job_refused(Job *job, const GError *error, gpointer data)
{
        log_event(LOG_WARNING, MESSAGE_NONE, (Domain *) job->host, job, NULL, "%s '%s': %s",
                  job->driver->type, job->id, error->message);
        requests_job_refused(data, job, error);
}

static MessageId message_of_result(JobResult result)
{
        static const MessageId ids[] = {
                [RESULT_COMPLETED] = MESSAGE_JOB_COMPLETED, [RESULT_KEPT] = MESSAGE_JOB_KEPT,
                [RESULT_CANCELLED] = MESSAGE_JOB_CANCELLED, [RESULT_FAILED] = MESSAGE_JOB_FAILED,
                [RESULT_LOST] = MESSAGE_JOB_LOST,           [RESULT_PIVOTED] = MESSAGE_JOB_PIVOTED,
        };

        return ids[result];
}

/* The machine stopped before anybody had decided. */
static void tell_mirror_dropped(Service *service, const Job *job)
{
        const Domain *domain = engine_domain(service->engine, job->domain);
        g_autofree char *path = job_disk_path(job);

        if (job->record.result != RESULT_LOST || !job->driver->two_phase || !domain || !domain->persistent)
                return;
        changes_flush(service);
        sd_bus_emit_signal(service->bus, path, INTERFACE("Disk"), "MirrorDropped", "ss", job->disk,
                           job->target);
        log_event(LOG_WARNING, MESSAGE_MIRROR_DROPPED, domain, job, NULL,
                  "disk '%s' of domain '%s' is still '%s'; '%s' is behind%s", job->disk, domain->name,
                  job->source, job->target,
                  options_flag(job->options, "resume") ? " until the next start begins the copy again" : "");
}

static void on_job_concluded(Job *job, gpointer data)
{
        Service *service = data;
        g_autofree char *path = job_path(job);
        g_autofree char *error = error_bus_name_of_code(job->error_code);

        tell_mirror_dropped(service, job);
        tell(service, job, "Completed", "sss", job_result_name(job->record.result), error,
             job->error_message ? job->error_message : "");
        sd_bus_emit_signal(service->bus, ROOT_PATH, INTERFACE("Manager"), "JobRemoved", "sos", job->id, path,
                           job_result_name(job->record.result));
        requests_job_concluded(service, job);
        log_event(LOG_NOTICE, message_of_result(job->record.result), (Domain *) job->host, job, NULL,
                  "%s '%s' of disk '%s' of domain '%s': %s, the disk is '%s'%s%s", job->driver->type,
                  job->id, job->disk, job->domain, job_result_name(job->record.result), job_disk_image(job),
                  job->error_message ? "; " : "", job->error_message ? job->error_message : "");
}

static void on_jobs_changed(gpointer data)
{
        manager_changed(data, "Jobs");
}

static void on_warning(Domain *domain, Job *job, const char *text, gpointer data)
{
        (void) data;
        log_event(LOG_WARNING, MESSAGE_NONE, domain, job, NULL, "domain '%s'%s%s: %s", domain->name,
                  job ? ", job " : "", job ? job->id : "", text);
}

static void on_record_set_aside(const char *path, const char *why, gpointer data)
{
        const LogField fields[] = { { "BLOCKJOB_RECORD", path }, { "BLOCKJOB_ERROR", why }, { NULL, NULL } };

        (void) data;
        log_event(LOG_ERR, MESSAGE_RECORD_SET_ASIDE, NULL, NULL, fields,
                  "a record was set aside as '%s': %s", path, why);
}

const EngineObserver signals_observer = {
        .domain_added = on_domain_added,
        .domain_removed = on_domain_removed,
        .domain_changed = on_domain_changed,
        .domain_gone = on_domain_gone,
        .domain_late = on_domain_late,
        .connection_lost = on_connection_lost,
        .connection_regained = on_connection_regained,
        .disk_added = on_disk_added,
        .disk_removed = on_disk_removed,
        .disk_changed = on_disk_changed,
        .job_added = on_job_added,
        .job_removed = on_job_removed,
        .job_changed = on_job_changed,
        .job_ready = on_job_ready,
        .job_decided = on_job_decided,
        .job_refused = on_job_refused,
        .job_concluded = on_job_concluded,
        .jobs_changed = on_jobs_changed,
        .warning = on_warning,
        .record_set_aside = on_record_set_aside,
};
