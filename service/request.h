/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "authorization-table.h"
#include "callers.h"
#include "service.h"

/* A method call on its way: who calls, may they, then the method's own function, then the reply, which may
 * come much later. Every method of every interface takes this one way. */

typedef struct Request Request;

struct Request {
        Service *service;
        sd_bus_message *message;
        const struct Method *method;
        char *sender;
        guint32 uid;
        GCancellable *cancellable;
        char *about;    /* what somebody was asked to allow */
        Action also;    /* a second action that it needs, which is granted or being asked for */
        Job *job;       /* that a waiting request waits for */
        Domain *domain; /* whose QEMU is asked on behalf of this request */
        gboolean answered;
};

/* The handler of every method in every vtable. */
int request_dispatch(sd_bus_message *message, void *userdata, sd_bus_error *error);

/* Whether the caller has a second right, which an option takes. FALSE: it is being asked for, or is not
 * granted. Where it is, the method is run once more from its beginning. */
gboolean request_has_also(Request *request, Action action);

/* Each ends the request. */
void request_reply(Request *request);
void request_reply_object(Request *request, char *path); /* takes it */
void request_reply_message(Request *request, sd_bus_message *reply);
void request_fail(Request *request, const GError *error);
void request_fail_new(Request *request, int code, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* A JobDone with the request as its data: a reply without arguments, or the error. */
void request_job_done(Job *job, const GError *error, gpointer data);

/* Before a command to QEMU on behalf of the request: if QEMU misses its deadline the caller is told Timeout,
 * and what comes later is nobody's. Ends the request and answers FALSE where QEMU is late already. */
gboolean request_ask(Request *request, Domain *domain);

/* Keeps the request until its job concludes. */
void request_wait(Request *request, Job *job);
void requests_job_concluded(Service *service, Job *job);
void requests_job_refused(Service *service, Job *job, const GError *error);
void requests_stopping(Service *service);
void requests_domain_late(Service *service, Domain *domain, const char *command);

/* The object that was called; ends the request with NoSuch… where it is gone by now. */
Domain *request_domain(Request *request);
Disk *request_disk(Request *request);
Job *request_job(Request *request);

/* NAME-bus.c: what each method does once it is authorized; the rows of the authorization table. */
void run_Manager_AttachDomain(Request *request);
void run_Manager_AttachDomainFd(Request *request);
void run_Manager_DefineDomain(Request *request);
void run_Manager_CreateDomain(Request *request);
void run_Manager_InspectImage(Request *request);
void run_Manager_GetDomain(Request *request);
void run_Manager_GetJob(Request *request);
void run_Manager_ListJobs(Request *request);
void run_Domain_Detach(Request *request);
void run_Domain_Start(Request *request);
void run_Domain_Shutdown(Request *request);
void run_Domain_Destroy(Request *request);
void run_Domain_Undefine(Request *request);
void run_Domain_GetXml(Request *request);
void run_Domain_Suspend(Request *request);
void run_Domain_Resume(Request *request);
void run_Disk_Commit(Request *request);
void run_Disk_Copy(Request *request);
void run_Disk_CopyToFd(Request *request);
void run_Disk_Pull(Request *request);
void run_Disk_Backup(Request *request);
void run_Disk_BackupToFd(Request *request);
void run_Disk_Snapshot(Request *request);
void run_Disk_Resize(Request *request);
void run_Disk_Map(Request *request);
void run_Job_Abort(Request *request);
void run_Job_Pivot(Request *request);
void run_Job_SetSpeed(Request *request);
void run_Job_Pause(Request *request);
void run_Job_Resume(Request *request);
void run_Job_SetMode(Request *request);
void run_Job_Dismiss(Request *request);
