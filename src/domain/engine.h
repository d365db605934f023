/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "domain/domain.h"
#include "domain/launch.h"

/* All domains and all jobs, what is recorded of them, and what the outside can ask for. */

#define DOMAINS_MAX 10000
#define JOBS_PER_DOMAIN_MAX 64

typedef struct Engine Engine;

/* Whoever shows the engine to the world. A `..._removed` comes while the thing can still be looked up. */
typedef struct {
        void (*domain_added)(Domain *domain, gpointer data);
        void (*domain_removed)(Domain *domain, gpointer data);
        void (*domain_changed)(Domain *domain, guint changes, gpointer data);
        void (*domain_gone)(Domain *domain, gpointer data);
        void (*domain_late)(Domain *domain, const char *command, gpointer data);
        void (*connection_lost)(Domain *domain, const GError *error, gpointer data);
        void (*connection_regained)(Domain *domain, gpointer data);
        void (*disk_added)(Disk *disk, gpointer data);
        void (*disk_removed)(Disk *disk, gpointer data);
        void (*disk_changed)(Disk *disk, guint changes, gpointer data);
        void (*job_added)(Job *job, gpointer data);
        void (*job_removed)(Job *job, gpointer data);
        void (*job_changed)(Job *job, guint changes, gpointer data);
        /* Calls job_told() right before the signal goes out. */
        void (*job_ready)(Job *job, gpointer data);
        void (*job_decided)(Job *job, gpointer data);
        void (*job_refused)(Job *job, const GError *error, gpointer data);
        /* As job_ready. */
        void (*job_concluded)(Job *job, gpointer data);
        /* The list of unfinished jobs is another. */
        void (*jobs_changed)(gpointer data);
        /* `job` may be NULL. */
        void (*warning)(Domain *domain, Job *job, const char *text, gpointer data);
        void (*record_set_aside)(const char *path, const char *why, gpointer data);
} EngineObserver;

/* `journal` and `surroundings` are taken. */
Engine *engine_new(Journal *journal, Surroundings *surroundings, const EngineObserver *observer,
                   gpointer data);
/* Lets go of all QEMUs and answers everybody who waits. After that there is nothing to do but to free it. */
void engine_stop(Engine *engine);
void engine_free(Engine *engine);

/* `only_jobs`: leaves domains alone on which no job runs. Reads the records, connects again and goes on with
 * the jobs that it finds. `done` is called when all that can be known is known, and after a few seconds in
 * any case. */
void engine_start(Engine *engine, gboolean only_jobs, void (*done)(gpointer data), gpointer data);

/* From now on there are listeners: Ready and Completed of jobs go out. */
void engine_may_tell(Engine *engine);

/* No job stands where the guest is held, no QEMU is being started, and no map is made in one. */
gboolean engine_is_calm(const Engine *engine);
/* From now on no QEMU is started and no map made; those that are under way end. */
void engine_refuse_starts(Engine *engine);
/* Has the starts that are under way fail; answers whether there are any. After a few seconds there are none.
 */
gboolean engine_end_starts(Engine *engine);

GPtrArray *engine_domains(Engine *engine); /* Domain */
GPtrArray *engine_jobs(Engine *engine);    /* Job, oldest first; finished ones too */
Domain *engine_domain(Engine *engine, const char *name);
/* Errors: NoSuchDomain, Ambiguous. */
Domain *engine_domain_by_name_or_uuid(Engine *engine, const char *name_or_uuid, GError **error);
Job *engine_job(Engine *engine, const char *id);

/* `path` NULL: `fd`, which is taken. Errors: InvalidArgument, Exists, Disconnected, Timeout, NotSupported,
 * LimitExceeded. */
void engine_attach(Engine *engine, const char *name, const char *path, int fd, DomainDone done,
                   gpointer data);

/* `done` when it is so on stable storage too. Errors: JobActive, Failed. */
void engine_detach(Engine *engine, Domain *domain, gboolean force, DomainDone done, gpointer data);

/* `ignored` (char *): as definition_parse() has it; NULL = nothing is left out. `done` when it is on stable
 * storage. Errors: InvalidArgument, LimitExceeded, Exists, NoSpace, Failed. */
void engine_define(Engine *engine, const char *xml, GPtrArray *ignored, DomainDone done, gpointer data);
/* The same, started, and gone when it ends. Errors: as these two have. */
void engine_create(Engine *engine, const char *xml, GPtrArray *ignored, DomainDone done, gpointer data);
/* Errors: InvalidState, JobActive, Failed. The domain that `done` is called with is NULL: it is gone. */
void engine_undefine(Engine *engine, Domain *domain, DomainDone done, gpointer data);
/* `force`: also from an image that a commit has made invalid. `done` when its guest runs. Errors:
 * InvalidState, JobActive, NoSuchImage, ImageInUse, NotSupported, QemuError with QEMU's own words, NoSpace,
 * Failed. */
void engine_start_domain(Engine *engine, Domain *domain, gboolean force, DomainDone done, gpointer data);
/* Its QEMU is ended as if the plug was pulled; `done` when it and its jobs have. Errors: InvalidState. */
void engine_destroy(Domain *domain, DomainDone done, gpointer data);

/* `layers`: ImageLayer of image/inspect.h, top first; for each of them, `users`: a GPtrArray of texts,
 * `stale`: whether it, or one that it is read through, is invalid. `unknown` (texts): images and directories
 * of which it is not known what they stand on. */
typedef void (*ImageSeen)(const GPtrArray *layers, const GPtrArray *users, const gboolean *stale,
                          const GPtrArray *unknown, const GError *error, gpointer data);
/* `format` NULL: as its first bytes say. Errors: NoSuchImage, InvalidArgument, LimitExceeded, Failed. */
void engine_inspect_image(Engine *engine, const char *path, const char *format, ImageSeen seen,
                          gpointer data);

/* `options` is taken. `target` is the image that a copy, backup or snapshot makes, NULL for other jobs;
 * `fd`, which is taken, is one instead of that, or -1. `started` is called once QEMU has accepted the job,
 * and for a silent one at its end. Errors: InvalidArgument, NotSupported, JobActive, NoSuchImage, Ambiguous,
 * Exists, ImageInUse, NoSpace, InvalidState, Disconnected, LimitExceeded, QemuError. */
void engine_start_job(Disk *disk, const JobDriver *driver, Options *options, const char *target, int fd,
                      guint32 uid, JobStarted started, gpointer data);

/* `done` as above. Errors: InvalidState where it has not ended, Failed. */
void engine_dismiss(Engine *engine, Job *job, JobDone done, gpointer data);
