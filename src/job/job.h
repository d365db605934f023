/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

#include "graph/chain.h"
#include "graph/graph.h"
#include "job/options.h"
#include "journal/journal.h"
#include "qmp/capabilities.h"
#include "qmp/qmp.h"

/* A block job: what is known of it, what of it must survive a crash, and the steps of its life. */

typedef enum {
        JOB_STARTING,
        JOB_RUNNING,
        JOB_PAUSED,
        JOB_READY,
        JOB_COMPLETING,
        JOB_CONCLUDED,
        JOB_DISCONNECTED,
} JobState;

typedef enum {
        RESULT_NONE,
        RESULT_COMPLETED,
        RESULT_KEPT,
        RESULT_CANCELLED,
        RESULT_FAILED,
        RESULT_LOST,
        RESULT_PIVOTED,
} JobResult;

/* What somebody asked for. */
typedef enum { DECISION_NONE, DECISION_PIVOT, DECISION_KEEP, DECISION_CANCEL } JobDecision;

/* Which image is the disk, settled at PENDING: there QEMU holds all guest writes and both are equal. */
typedef enum { DISK_IS_OPEN, DISK_IS_SOURCE, DISK_IS_TARGET } JobDisk;

/* QEMU's JobStatus; ABSENT where it knows no such job. In the order in which they come. */
typedef enum {
        STATUS_ABSENT,
        STATUS_CREATED,
        STATUS_RUNNING,
        STATUS_PAUSED,
        STATUS_READY,
        STATUS_STANDBY,
        STATUS_WAITING,
        STATUS_PENDING,
        STATUS_ABORTING,
        STATUS_CONCLUDED,
} JobStatus;

/* Properties that change, for the observer. */
typedef enum {
        JOB_CHANGED_STATE = 1 << 0,
        JOB_CHANGED_RESULT = 1 << 1,
        JOB_CHANGED_READY = 1 << 2, /* Ready and ReadyTime */
        JOB_CHANGED_CURRENT = 1 << 3,
        JOB_CHANGED_SPEED = 1 << 4,
        JOB_CHANGED_IO_STATUS = 1 << 5,
        JOB_CHANGED_END = 1 << 6,
        JOB_CHANGED_HOLD = 1 << 7,
        JOB_CHANGED_TOTAL = 1 << 8,
        JOB_CHANGED_ERROR = 1 << 9,
        JOB_CHANGED_PROGRESS = 1 << 10,
} JobChange;

typedef struct Job Job;
typedef struct JobHost JobHost;

/* Called with NULL once QEMU has accepted the job, or with the reason why there is none. */
typedef void (*JobStarted)(Job *job, const GError *error, gpointer data);
typedef void (*JobLooked)(Job *job, const GError *error);
typedef void (*JobDone)(Job *job, const GError *error, gpointer data);

typedef enum { STEP_DONE, STEP_DUE, STEP_WAIT } StepState;

/* One step of a job's life. `state` tells from QEMU's job list and graph and from the record whether the
 * step has happened, so that going on after a crash is nothing but going on. `run` ends in job_step_end().
 */
typedef struct {
        const char *name;
        StepState (*state)(const Job *job);
        void (*run)(Job *job);
} JobStep;

typedef struct {
        const char *type;     /* on the bus */
        const char *kind;     /* in QEMU's job id */
        const JobStep *steps; /* ended by a step without a name */
} JobDriver;

typedef struct {
        void (*announced)(Job *job, gpointer data);
        void (*changed)(Job *job, guint changes, gpointer data);
        void (*ready)(Job *job, gpointer data);
        /* It is on stable storage that the target is the disk. */
        void (*decided)(Job *job, gpointer data);
        /* A decision could not be carried out; the job goes on without it. */
        void (*refused)(Job *job, const GError *error, gpointer data);
        void (*concluded)(Job *job, gpointer data);
        void (*warning)(Job *job, const char *text, gpointer data);
        /* The job never came to be, or was dropped: the last call for it. */
        void (*dropped)(Job *job, gpointer data);
} JobObserver;

/* What a job may use of the domain that it runs in. */
struct JobHost {
        QmpConnection *qmp; /* NULL while there is none */
        Capabilities *capabilities;
        Graph *graph; /* as last seen */
        Journal *journal;
        gboolean may_tell; /* FALSE until the service has its name on the bus */
        /* Asks QEMU again for its graph and its jobs; `looked` is called when both are up to date. */
        void (*look)(JobHost *host, Job *job, JobLooked looked);
        const JobObserver *observer;
        gpointer observer_data;
};

struct Job {
        grefcount references;
        const JobDriver *driver;
        JobHost *host; /* NULL while its domain is not attached */

        /* Fixed when the job is planned. */
        char *id, *domain, *disk, *device, *qemu_id, *filter;
        char *top_node, *base_node; /* NULL until it is planned */
        char *source, *target;      /* image file names */
        gboolean base_was_read_only;
        char *instance; /* which QEMU process, as its domain says */
        Options *options;
        guint32 started_by;
        gint64 start_time; /* µs since the epoch, as all times */

        /* What the record says, and what of it is written down already. */
        struct JobRecord {
                gboolean exists, accepted, told;
                JobDecision decision;
                JobDisk disk_is;
                JobResult result;
        } record, written;
        struct JobRecord writing;
        gint64 ready_time, end_time;
        gint64 hold_start, hold;
        int error_code; /* of BJ_ERROR, -1 = none */
        char *error_message;

        /* As QEMU said last. */
        JobStatus status;
        gboolean synced; /* what is here is from this connection */
        gboolean gone;   /* that QEMU is no more */
        guint64 current, total, speed;
        char *qemu_error;
        gboolean io_failed, no_space;
        gboolean paused_by_user;
        guint paused_seen; /* looks in a row that found it paused */

        /* Where it is. */
        JobState state; /* as last told */
        const JobStep *step;
        gboolean advancing, announced, concluded, tidied, dropped;
        JobDecision asked; /* what QEMU was asked for over this connection */
        GError *refusal;   /* why a decision to pivot became a keep */
        guint retry;
        char *root_node;     /* for the start: the uppermost node of the device */
        guint under_way;     /* commands of a step that sends several */
        gboolean cut_off;    /* one of them was lost with the connection */
        gboolean look_again; /* what they did is to be looked at */
        JobStarted started;
        gpointer started_data;
};

/* job.c: the struct, its names, its record */
Job *job_new(const JobDriver *driver, const char *domain, const char *disk, const char *device);
Job *job_ref(Job *job);
void job_unref(Job *job);
void job_set_host(Job *job, JobHost *host);
const char *job_state_name(JobState state);
const char *job_result_name(JobResult result);
gboolean job_is_ready(const Job *job);
double job_progress(const Job *job);

JsonObject *job_to_json(const Job *job);
/* NULL where the record makes no sense. */
Job *job_from_json(const char *id, JsonObject *record, const JobDriver *const *drivers);

void job_changed(Job *job, guint changes);
void job_update_state(Job *job);
void job_set_error(Job *job, int code, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* step.c: what moves a job on */
void job_advance(Job *job);
void job_step_end(Job *job);
/* Sends a command of the current step. */
void job_execute(Job *job, const char *command, JsonObject *arguments, QmpReply reply);
/* Writes the record; `done` as a step's own end. */
void job_write(Job *job, JournalDurability durability, JournalDone done);
void job_start_failed(Job *job, const GError *error);
/* The caller is told that it takes too long. If QEMU has not been given the job yet, it never will be. */
void job_start_is_late(Job *job, const GError *error);

/* seen.c: what QEMU tells */
void job_seen_status(Job *job, const char *status, gint64 when);
void job_seen_ended(Job *job, const char *error, gint64 when);
void job_seen_query(Job *job, JsonObject *query_jobs_entry);
void job_seen_block_query(Job *job, JsonObject *query_block_jobs_entry);
void job_connection_lost(Job *job);
void job_qemu_gone(Job *job);

/* control.c: what callers ask for. Errors: NotReady, NotActive, InvalidState, NotSupported, QemuError, … */
gboolean job_pivot(Job *job, GError **error);
gboolean job_abort(Job *job, gboolean force, GError **error);
void job_set_speed(Job *job, guint64 speed, JobDone done, gpointer data);
void job_pause(Job *job, JobDone done, gpointer data);
void job_resume(Job *job, JobDone done, gpointer data);
void job_set_mode(Job *job, const char *mode, JobDone done, gpointer data);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Job, job_unref)
