/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/types.h>

#include "base/fd-watch.h"
#include "domain/definition.h"
#include "graph/chain.h"
#include "job/job.h"

/* A QEMU and its disks, as a world of its own: what happens in one delays no other. */

typedef enum {
        DOMAIN_RUNNING,
        DOMAIN_PAUSED,
        DOMAIN_SHUTOFF,
        DOMAIN_CRASHED,
        DOMAIN_DISCONNECTED,
} DomainState;

typedef enum {
        DOMAIN_CHANGED_STATE = 1 << 0,
        DOMAIN_CHANGED_PID = 1 << 1,
        DOMAIN_CHANGED_DISKS = 1 << 2,
        DOMAIN_CHANGED_JOBS = 1 << 3,
        DOMAIN_CHANGED_REASON = 1 << 4,
        DOMAIN_CHANGED_QEMU = 1 << 5, /* version and capabilities */
} DomainChange;

typedef enum {
        DISK_CHANGED_NODE = 1 << 0,
        DISK_CHANGED_SOURCE = 1 << 1,
        DISK_CHANGED_CAPACITY = 1 << 2,
        DISK_CHANGED_READ_ONLY = 1 << 3,
        DISK_CHANGED_CHAIN = 1 << 4,
        DISK_CHANGED_FILTERS = 1 << 5,
        DISK_CHANGED_JOB = 1 << 6,
        DISK_CHANGED_FORMAT = 1 << 7,
} DiskChange;

typedef struct Domain Domain;
typedef struct Disk Disk;

typedef void (*DomainDone)(Domain *domain, const GError *error, gpointer data);

typedef struct {
        void (*changed)(Domain *domain, guint changes, gpointer data);
        void (*disk_added)(Disk *disk, gpointer data);
        void (*disk_removed)(Disk *disk, gpointer data);
        void (*disk_changed)(Disk *disk, guint changes, gpointer data);
        void (*connection_lost)(Domain *domain, const GError *error, gpointer data);
        void (*connection_regained)(Domain *domain, gpointer data);
        void (*gone)(Domain *domain, gpointer data);
        void (*late)(Domain *domain, const char *command, gpointer data);
        void (*warning)(Domain *domain, const char *text, gpointer data);
} DomainObserver;

struct Disk {
        Domain *domain;
        char *target; /* its name */
        char *device; /* what QEMU knows it by: QOM path, else the BlockBackend's name */
        Chain *chain;
        Job *job; /* that runs on it, also one that QEMU has not accepted yet */
        /* A copy that the next start begins again, NULL = none. */
        struct DiskCopy {
                char *target;
                Options *options;
                guint32 uid; /* of who started it */
        } * copy;
};

struct Domain {
        JobHost host;
        grefcount references;
        const DomainObserver *observer;
        gpointer observer_data;
        /* Capabilities are the same for all QEMUs of one version string, and for all storage daemons. */
        GHashTable *capability_cache;

        char *name, *uuid;
        char *path;     /* of the QMP socket; NULL: it was passed as a descriptor */
        guint32 pid;    /* 0 = unknown */
        char *instance; /* "BOOT/PID-STARTTIME", "BOOT/0-SOCKET": no two QEMUs have the same */
        char *version;
        DomainState state;
        char *reason;
        char *shutdown_reason; /* QEMU announced its end */
        char *run_state;       /* QEMU's word */
        gboolean gone;         /* that QEMU is no more */
        gboolean removed;
        gboolean shown;    /* the world knows of it */
        gboolean detached; /* by force: kept, unseen, for the jobs that go on in QEMU */
        char *late_command;
        gboolean has_guest; /* it is no storage daemon */

        /* of one that the service starts */
        Definition *definition; /* NULL: somebody else started it */
        guint serial;           /* of this run of the service: no two domains have the same */
        gboolean persistent;    /* it stays when its QEMU has ended */
        gboolean starting;      /* its QEMU is there, or nearly, and its guest has not run yet */
        gboolean launching;     /* a process of it may come to be at any moment */
        guint32 launched;       /* process, as whoever started it says */
        struct Domain *of;      /* of a storage daemon: the domain whose disk it has open */
        GPtrArray *storages;    /* Domain, borrowed: the storage daemons of this one */
        GPtrArray *closing;     /* who waits for its QEMU's end */
        GPtrArray *stopping;    /* who waits for that of its jobs, too */

        GPtrArray *disks;  /* Disk */
        GHashTable *paths; /* of files that QEMU was passed as descriptors: "/dev/fdset/N" → path */
        GPtrArray *jobs;   /* Job, those that have not concluded */

        /* connection */
        QmpConnection *connection; /* also before it is ready */
        int pidfd;
        FdWatch *pid_watch;
        guint retry, retry_delay, poll, kill_timer;
        gint64 connected_at; /* monotonic µs */
        gboolean poll_under_way;
        enum { STATUS_NOT_ASKED, STATUS_ASKED, STATUS_ASKED_IN_VAIN } status; /* query-status, for events */
        gboolean lost;       /* it was said that the connection is gone */
        DomainDone attached; /* while its first connection is made */
        gpointer attached_data;

        /* looks */
        GPtrArray *maps;  /* struct Mapping: of its disks, the first is under way */
        guint job_events; /* how often a job of QEMU's has begun or ended */
        struct Look *look;
        GArray *look_next;         /* who waits for the look after the one under way */
        gboolean streams_possible; /* a job of somebody else may be a block-stream */
        GHashTable *begun;   /* ids of jobs of somebody else that were seen to begin, and not yet found */
        JsonNode *jobs_seen; /* query-jobs of the last look, until it is searched for jobs of others */

        /* record */
        gboolean saving, save_again;
        gboolean unsaved;     /* it is older than what is known: being written, or that failed */
        guint save_retry;     /* where it failed */
        GArray *save_waiters; /* Saver: who waits for the save after the one under way */
};

/* The files from the lowest to the highest: each uses only those before it. */

/* disk.c */
void disk_free(Disk *disk);
Disk *domain_disk(Domain *domain, const char *target);
Disk *domain_add_disk(Domain *domain, const char *target, const char *device, Chain *chain);
void disk_set_job(Disk *disk, Job *job);
const char *disk_source(const Disk *disk);
/* ImageName of each layer from the one at that depth down. */
GPtrArray *disk_images(const Disk *disk, guint from);
/* These answer whether a disk is made of other images now, so that the domain's record is old.
 * As QEMU's graph says: */
gboolean domain_update_disks(Domain *domain);
/* Where QEMU cannot be asked any more: what the job's record says of a pivot. */
gboolean disk_take_pivot(Disk *disk, const Job *job);
gboolean disk_set_chain(Disk *disk, Chain *chain); /* takes it */
/* `options` and `target` are copied; NULL = none is to be begun again. */
void disk_set_copy(Disk *disk, const char *target, const Options *options, guint32 uid);

/* domain.c */
Domain *domain_new(const char *name, Journal *journal, GHashTable *capability_cache);
Domain *domain_ref(Domain *domain);
void domain_unref(Domain *domain);
const char *domain_state_name(DomainState state);
Job *domain_job_by_qemu_id(Domain *domain, const char *id);
/* The job of which QEMU's job `id` is but a part. */
Job *domain_job_by_part_id(Domain *domain, const char *id);
void domain_add_job(Domain *domain, Job *job);
void domain_drop_job(Domain *domain, Job *job);
/* A list that stays while the jobs come to their ends. */
GPtrArray *domain_copy_jobs(Domain *domain);
void domain_set_state(Domain *domain, DomainState state, const char *reason);
void domain_update_state(Domain *domain);

/* record.c */
Domain *domain_from_json(const char *name, JsonObject *record, Journal *journal,
                         GHashTable *capability_cache);
/* The name of its record in the journal. */
char *domain_record_name(const Domain *domain);
/* Sooner or later, synced; once at a time. Where that fails it is tried again and again. */
void domain_save(Domain *domain);
void domain_save_then(Domain *domain, DomainDone saved, gpointer data);
/* For a job's host: QEMU calls the file at `path` /dev/fdset/`fdset` from now on. */
void domain_host_passed(JobHost *host, gint64 fdset, const char *path);
/* For a job's host: with what the job made of its disk. */
void domain_host_save(JobHost *host, Job *job, JobLooked saved);

/* The domain that the world knows: a storage daemon's is the one that it has open. */
Domain *domain_shown(Domain *domain);

/* external.c: jobs of somebody else, as the last look found them, get their place */
void domain_find_external_jobs(Domain *domain);

/* look.c: asking QEMU, and its events */
void domain_look(Domain *domain, Job *job, JobLooked looked);
void domain_look_then(Domain *domain, DomainDone done, gpointer data);
/* The same for a job's host. */
void domain_host_look(JobHost *host, Job *job, JobLooked looked);
void domain_host_created(JobHost *host);
void domain_handle_event(Domain *domain, const char *event, JsonObject *data, gint64 when);
/* Progress is asked for while a job runs, and not otherwise. */
void domain_schedule_poll(Domain *domain);

/* describe.c: in libvirt's form; `inactive`: what the next start will use */
char *domain_describe(const Domain *domain, gboolean inactive);

/* schema.c */
GHashTable *capability_cache_new(void);
/* Fills host.capabilities and calls `found`, perhaps before it returns; with an error where the QEMU did not
 * say. Nobody is called whose connection was dropped meanwhile. */
typedef void (*DomainCapabilitiesFound)(Domain *domain, const GError *error);
void domain_find_capabilities(Domain *domain, DomainCapabilitiesFound found);
/* Before the connection goes. */
void domain_stop_finding_capabilities(Domain *domain);

/* connect.c: the connection and what follows when it ends */
/* `fd` is taken, -1: the socket at `path`. `attached` may be called before this returns. */
void domain_attach(Domain *domain, int fd, DomainDone attached, gpointer data);
/* The same to the socket at `path`, after a while: it was busy. */
void domain_attach_again(Domain *domain, DomainDone attached, gpointer data);
/* Ends an attach, if one is under way. */
void domain_end_attach(Domain *domain, const GError *error);
/* Connects a domain from its record again, with its jobs, or finds out that its QEMU is gone. */
void domain_recover(Domain *domain);
void domain_drop_connection(Domain *domain);
/* Lets go of QEMU, but stays to learn of its end for the sake of the jobs. */
void domain_detach(Domain *domain);
/* Forgets the QEMU that has ended, for a new one. */
void domain_renew(Domain *domain);
/* Its QEMU is that process, says who started it. */
void domain_set_process(Domain *domain, guint32 pid);
/* As far as can be seen. */
gboolean domain_process_runs(const Domain *domain);
/* Has QEMU end, by SIGTERM, after a while by SIGKILL; `closed` when it has. */
void domain_close(Domain *domain, const char *reason, DomainDone closed, gpointer data);
/* Takes it out of service: no handler is called any more. Its jobs lose their host. */
void domain_remove(Domain *domain);

/* map-qemu.c */
/* Those that are waited for end with `error`; what they made in QEMU is removed. */
void domain_end_maps(Domain *domain, const GError *error);
void domain_map_connection_is_lost(Domain *domain);
/* The nodes that it works on may go now; and the job has gone. */
void domain_map_job_ends(Domain *domain);
void domain_map_job_is_gone(Domain *domain);
void domain_map_export_is_gone(Domain *domain, const char *id);
/* After a look: what one of an earlier service left in QEMU is removed. `is_new`: this one has just started
 * it, or attached it. */
void domain_clear_maps(Domain *domain, gboolean is_new);

/* control.c: what callers ask for */
void domain_suspend(Domain *domain, DomainDone done, gpointer data);
void domain_resume(Domain *domain, DomainDone done, gpointer data);
/* Asks the guest to, and does not wait for it. */
void domain_shutdown(Domain *domain, DomainDone done, gpointer data);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Domain, domain_unref)
