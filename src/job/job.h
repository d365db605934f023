/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

#include "graph/chain.h"
#include "graph/graph.h"
#include "image/seen.h"
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
        N_RESULTS
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
        JOB_CHANGED_MODE = 1 << 11,
        JOB_CHANGED_QEMU_ID = 1 << 12,
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
        const char *name; /* in records */
        const char *type; /* on the bus */
        const char *kind; /* in QEMU's job id */
        /* What it begins with in the field Mode; NULL: it has no modes. */
        const char *mode;
        gboolean two_phase;
        const char
                *automatic; /* what `auto` is, where it is not given and no guest writes: "pivot", "keep" */
        gboolean silent;    /* no object on the bus: who asked for it waits for its end */
        gboolean external;  /* somebody else started it in QEMU */
        /* What the images that it changes show stays the same, so that overlays of them stay valid. */
        gboolean keeps_contents;
        gboolean adds_layer; /* a pivot puts its target above `below`, which is a new image */
        /* QEMU is not to keep the job when it is over. QEMU 7.2 crashes when it is asked for its nodes while
         * it keeps a block-stream. The price: its error is told once, by an event. */
        gboolean dismisses_itself;
        /* Ended by a step without a name. `undo` is what a start that failed leaves to do, may be NULL. */
        const JobStep *steps, *undo;
        /* What can be said of the options without a look at QEMU; NULL: nothing. */
        gboolean (*check)(const Job *job, GError **error);
        /* Whether QEMU's graph shows that the job did what it is for; NULL: the graph does not show it. */
        gboolean (*is_in_graph)(const Job *job);
        /* Names what it leaves in QEMU without a use, by nodes_leave(); NULL: nothing. */
        void (*leave)(Job *job);
        /* Sends what else is to be done in QEMU after the job's end, by nodes_command(). */
        void (*tidy)(Job *job);
} JobDriver;

typedef struct {
        void (*announced)(Job *job, gpointer data);
        void (*changed)(Job *job, guint changes, gpointer data);
        /* It is to be told: job_told(), and right behind that the signal. */
        void (*ready)(Job *job, gpointer data);
        /* It is on stable storage that the target is the disk. */
        void (*decided)(Job *job, gpointer data);
        /* A decision could not be carried out; the job goes on without it. */
        void (*refused)(Job *job, const GError *error, gpointer data);
        /* As ready. */
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
        /* The domain is started again from what is written down of it. */
        gboolean is_defined;
        /* An export may hold nodes of its disks for a while; all jobs go on when it does not any more. */
        gboolean is_mapping;
        /* No guest writes: there is nothing to wait for when a two-phase job is ready. */
        gboolean is_shut_off;
        /* Asks QEMU again for its graph and its jobs; `looked` is called when both are up to date. */
        void (*look)(JobHost *host, Job *job, JobLooked looked);
        /* Writes the domain down as the job has left it; `saved` is called when that is on stable storage.
         */
        void (*save)(JobHost *host, Job *job, JobLooked saved);
        /* Where QEMU is there for this job alone: has it end; `closed` is called when it has. Else NULL. */
        void (*close)(JobHost *host, Job *job, JobLooked closed);
        /* QEMU creates an image no more: it can be looked at again. */
        void (*created)(JobHost *host);
        /* QEMU was passed a descriptor of the file at `path`, and calls it /dev/fdset/`fdset`. */
        void (*passed)(JobHost *host, gint64 fdset, const char *path);
        /* ImageUse of every disk but the job's own. */
        GPtrArray *(*images)(JobHost *host, const Job *job);
        /* Whether an overlay that no disk uses stands on one of these (char *, taken): ImageInUse. */
        void (*check_overlays)(JobHost *host, Job *job, GPtrArray *changed, JobLooked checked);
        /* How many bytes of data the layers at these depths give to the disk, as QEMU says. */
        void (*count_data)(JobHost *host, Job *job, guint from, guint end,
                           void (*counted)(guint64 bytes, const GError *error, gpointer data),
                           gpointer data);
        /* These (char *, taken) are invalid from now on: a job changes `base` under them. */
        void (*spoiled)(JobHost *host, GPtrArray *images, const char *base);
        const JobObserver *observer;
        gpointer observer_data;
};

/* An image that a job makes, or takes over, to write into. */
typedef struct {
        int fd;               /* that the caller passed, -1 = none */
        char *driver;         /* of the protocol: "file", "host_device", "nbd", … */
        JsonObject *protocol; /* options of blockdev-add for it */
        char *format;
        gboolean reuse, fresh, created; /* fresh: it is to be created; created: it was */
        guint64 device, inode;          /* of what was created */
        gboolean fixed;                 /* it cannot be made larger, and may be too large */
        guint64 size, cluster_size;     /* bytes; cluster_size 0 = QEMU's own choice */
        gboolean extended_l2, direct;   /* direct: past the host's page cache, as the disk is */
        char *backing, *backing_format; /* for its header, NULL = none */
        gboolean header_checked;        /* of a prepared one, for what it stands on */
        guint done;                     /* steps of it */
} NewImage;

struct Job {
        grefcount references;
        const JobDriver *driver;
        JobHost *host; /* NULL while its domain is not attached */

        /* Fixed when the job is planned. */
        char *id, *domain, *disk, *device, *qemu_id, *filter;
        /* Nodes. `source_node` is the uppermost that is read, `target_node` the one that is written, NULL
         * until it is planned. A job that did what it is for leaves the nodes from source_node down to
         * end_node, which stays, without a use; end_node "" = all the way down. `header_node` is the one
         * whose header is to name another backing file, NULL = none. */
        char *source_node, *target_node, *end_node, *header_node;
        /* Of one that goes layer by layer, see stages.h: the uppermost layer of all; NULL = of no other. */
        char *range_node;
        char *source, *target; /* image file names */
        char *active;          /* that of the active layer when the job began */
        /* After a pivot: the layer that comes to stand under a new one or on top itself, "" = none. */
        char *below;
        char *source_format, *target_format;
        char *backing; /* to be written into header_node's header; of a copy: see copy.c */
        char *backing_format;
        GPtrArray *stale;   /* FileIdentity, that the option "delete" removes; NULL = none */
        GPtrArray *unused;  /* names of nodes, and /dev/fdset/N, that are to be removed from QEMU */
        GPtrArray *spoiled; /* char *: overlays of others that it makes invalid, with the option `force` */
        GPtrArray *images;  /* FileIdentity: of what it reads and writes, as far as that was seen */
        gboolean target_was_read_only;
        gboolean recovered; /* an earlier run of the service began it */
        gboolean orphan;    /* external, but once a job of this service, whose record was set aside */
        char *instance;     /* which QEMU process, as its domain says */
        Options *options;
        guint32 started_by;
        gint64 start_time; /* µs since the epoch, as all times */

        /* What the record says, and what of it is written down already. */
        struct JobRecord {
                gboolean exists, accepted, told;
                gboolean stage_over; /* the layer is in base for good, and there are more */
                JobDecision decision;
                JobDisk disk_is;
                JobResult result;
        } record, written;
        struct JobRecord writing;
        gint64 ready_time, decision_time, end_time;
        gint64 hold_start, hold;
        gint64 fdset;   /* the number under which QEMU is passed a descriptor, 0 = none */
        int error_code; /* of BJ_ERROR, -1 = none */
        char *error_message;

        /* As QEMU said last. */
        JobStatus status;
        gboolean synced; /* what is here is from this connection */
        gboolean gone;   /* that QEMU is no more */
        guint64 current, total, speed;
        /* Layers that are done, all of them, and what was copied for those that are done. */
        guint64 stage, stages, stages_copied;
        guint64 estimate; /* bytes that it will write, as far as that was known when it began */
        struct {
                guint from, end; /* depths of the layers that are copied */
                guint64 there;   /* bytes that have their place in the target already */
        } room;                  /* for the plan alone */
        char *qemu_error;
        gboolean end_seen; /* an event told of its end */
        gboolean io_failed, no_space;
        gboolean paused_by_user;
        gboolean has_orders; /* to be recorded: see stages_keep() */
        guint paused_seen;   /* looks in a row that found it paused */

        /* Where it is. */
        JobState state; /* as last told */
        const JobStep *step;
        gboolean advancing, announced, concluded, tidied, dropped;
        JobDecision asked;   /* what QEMU was asked for over this connection */
        GError *refusal;     /* why a decision was given up: to pivot, or to finalize */
        GError *start_error; /* why there is no job; it is being undone */

        guint retry;
        char *root_node;   /* for the start: the uppermost node of the device */
        gpointer plan;     /* of the step "plan" alone, while it waits */
        NewImage *image;   /* that it writes into, while it starts */
        char *mode;        /* "background", "write-blocking", "" */
        char *left_behind; /* what could not be tidied up, for its message */
        /* Steps that leave no trace elsewhere. */
        gboolean checked, flushed, settled, compared, deleted, domain_recorded, users_checked;
        /* A job of QEMU's that is but a part of this one: creating an image. */
        char *part_id;
        gboolean part_over, part_under_way;
        QmpReply part_done;
        GError *part_error;
        guint under_way;      /* commands of a step that sends several */
        gboolean cut_off;     /* one of them was lost with the connection */
        gboolean look_again;  /* what they did is to be looked at */
        JobLooked users_done; /* of the step "check-users" */
        JobStarted started;
        gpointer started_data;
};

/* job.c: the struct, its names, its record */
Job *job_new(const JobDriver *driver, const char *domain, const char *disk, const char *device);
/* QEMU's id of the job, or of the stage that it is at. */
char *job_make_qemu_id(const Job *job);
/* The machine was not started anew since. */
gboolean job_is_of_this_boot(const Job *job);
/* As job_new() makes them. */
gboolean job_id_is_good(const char *id);
/* The id of ours in QEMU's id of a job, NULL = it is none of this service. */
const char *job_id_in(const char *qemu_id);
/* The image that it is to make: by a name of its own, or what the kernel calls the descriptor `fd`, which is
 * taken. */
void job_set_target(Job *job, const char *target, int fd);
void new_image_free(NewImage *image);
Job *job_ref(Job *job);
void job_unref(Job *job);
void job_set_host(Job *job, JobHost *host);
const char *job_state_name(JobState state);
const char *job_result_name(JobResult result);
gboolean job_is_ready(const Job *job);
/* What is decided of a job with a ready phase without anybody's word: by option `auto`, or where that is not
 * given and the domain is shut off, by its driver. */
JobDecision job_automatic(const Job *job);
double job_progress(const Job *job);
/* The image that is the disk, as far as the job knows by now. */
const char *job_disk_image(const Job *job);

void job_changed(Job *job, guint changes);
void job_update_state(Job *job);
void job_set_error(Job *job, int code, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* record.c: what outlives the service of a job */
JsonObject *job_to_json(const Job *job);
/* NULL where the record makes no sense. */
Job *job_from_json(const char *id, JsonObject *record, const JobDriver *const *drivers);

/* step.c: what moves a job on */
void job_advance(Job *job);
void job_step_end(Job *job);
/* Sends a command of the current step. */
void job_execute(Job *job, const char *command, JsonObject *arguments, QmpReply reply);
/* Writes the record; `done` as a step's own end. */
void job_write(Job *job, JournalDurability durability, JournalDone done);
/* There is no job: what was begun is undone, then who asked for it is told. Ends the current step. */
void job_start_failed(Job *job, const GError *error);
void job_start_failed_new(Job *job, int code, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* Ends a job of which nothing is left to do. `error` NULL: who asked for it has what he wanted. */
void job_drop(Job *job, const GError *error);
/* One of the states of `undo`, and what it does: the last. */
StepState give_up_state(const Job *job);
void give_up_run(Job *job);
/* The caller is told that it takes too long. If QEMU has not been given the job yet, it never will be. */
void job_start_is_late(Job *job, const GError *error);

/* seen.c: what QEMU tells */
void job_seen_status(Job *job, const char *status, gint64 when);
/* `data`: of the event that tells of the end. */
void job_seen_ended(Job *job, JsonObject *data, const char *error, gint64 when);
void job_seen_resumed(Job *job);
/* `data`: of the event BLOCK_JOB_READY, which comes behind the first status "ready". */
void job_seen_ready(Job *job, JsonObject *data);
void job_seen_query(Job *job, JsonObject *query_jobs_entry);
void job_seen_block_query(Job *job, JsonObject *query_block_jobs_entry);
void job_seen_part(Job *job, const char *status);
/* It is over, or never began. */
void job_part_ended(Job *job);
void job_connection_lost(Job *job);
void job_qemu_gone(Job *job);

/* life.c: marks the record, at once, with what is about to be told: the end, or Ready. Behind the signal it
 * would come too late: who hears of it may well stop the service that very moment, and the next start would
 * tell it again. */
void job_told(Job *job);

/* control.c: what callers ask for. Errors: NotReady, NotActive, InvalidState, NotSupported, QemuError, … */
gboolean job_pivot(Job *job, GError **error);
gboolean job_abort(Job *job, gboolean force, GError **error);
void job_set_speed(Job *job, guint64 speed, JobDone done, gpointer data);
void job_pause(Job *job, JobDone done, gpointer data);
void job_resume(Job *job, JobDone done, gpointer data);
void job_set_mode(Job *job, const char *mode, JobDone done, gpointer data);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Job, job_unref)
