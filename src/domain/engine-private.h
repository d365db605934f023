/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "domain/engine.h"
#include "domain/launch.h"
#include "image/index.h"

/* A directory of images that does not answer in that time is not known. */
#define REFRESH_MILLISECONDS 2000

struct Engine {
        Journal *journal;
        const EngineObserver *observer;
        gpointer data;
        GHashTable *capability_cache;
        GPtrArray *domains, *jobs;
        GPtrArray *detached;  /* Domain: by force, with jobs that have not concluded */
        GPtrArray *attaching; /* Domain, borrowed: their attach is under way */
        GPtrArray *storages;  /* Domain: the storage daemons of domains that are shut off */
        Surroundings *surroundings;
        GHashTable *by_name, *by_id;
        GPtrArray *stale;  /* images that commits have made invalid: stale.c */
        ImageIndex *index; /* NULL where only jobs are settled */
        guint starts;      /* of domains and storage daemons, that are under way */
        gboolean may_tell, stopping;
        guint expiry;

        guint start_check;
        gint64 start_deadline;
        void (*started)(gpointer data);
        gpointer started_data;
};

/* The files from the lowest to the highest: each uses only those before it; engine.c is the last. */

/* register.c: which domains and jobs there are; the rest of it is in engine.h */
/* Takes it off the list; `..._remove_domain` also ends it. */
void engine_hide_domain(Engine *engine, Domain *domain);
void engine_remove_domain(Engine *engine, Domain *domain);
/* The detached domain of that name, which still has jobs; NULL if there is none. */
Domain *engine_detached_domain(Engine *engine, const char *name);
/* Its last job has concluded, or it is attached again. */
void engine_forget_detached(Engine *engine, Domain *domain);

/* For one more domain. Errors: LimitExceeded. */
gboolean engine_check_room(const Engine *engine, GError **error);

/* The jobs of a domain that goes have no host any more. */
void engine_forget_host(Engine *engine, Domain *domain);
/* The storage daemon that has that disk open; NULL if there is none. */
Domain *engine_storage(Engine *engine, const char *domain, const char *target);

/* observe.c: what domains and jobs tell the engine */
void engine_watch_domain(Engine *engine, Domain *domain);
/* ImageUse of every layer of every disk but one, NULL = all. */
GPtrArray *engine_list_uses(Engine *engine, const Domain *without, const char *target);
/* A transient domain that has ended; else nothing. */
void engine_remove_transient(Engine *engine, Domain *domain);
void engine_add_job(Engine *engine, Job *job);
/* `done` may be NULL. */
void engine_remove_job(Engine *engine, Job *job, JournalDone done, gpointer data);
void engine_expire_finished(Engine *engine);

/* define.c: errors InvalidState, JobActive */
gboolean engine_check_own(const Domain *domain, const char *what, GError **error);
/* No job works on any of its disks. */
gboolean engine_check_idle(const Domain *domain, GError **error);

/* start.c */
/* Errors: Disconnected, where the service is stopping. */
gboolean engine_check_starts_allowed(const Engine *engine, GError **error);
/* The program at `given`, else `name` from the usual directories. */
char *engine_find_program(const char *given, const char *name, GError **error);
/* Errors: ImageInUse. */
gboolean engine_check_images_free(Engine *engine, const Domain *domain, const Disk *mine, GError **error);

/* stale.c */
GPtrArray *stale_list_new(void);
gboolean stale_from_json(GPtrArray *list, JsonObject *record);
/* Of a stale image: the one that was changed under it; else NULL. */
const char *stale_base(const GPtrArray *list, guint64 device, guint64 inode);
/* `list`: of those that are still there, and with `unchanged` have not been written to since; borrowed. */
typedef void (*StaleSeen)(const GPtrArray *list, gpointer data);
void engine_see_stale(Engine *engine, gboolean unchanged, StaleSeen seen, gpointer data);
/* For a job's host: */
void engine_images_spoiled(JobHost *host, GPtrArray *images, const char *base);

/* overlays.c */
/* Texts: of which images it is not known what they stand on, and why. */
GPtrArray *engine_list_unknown(Engine *engine);
/* For a job's host: */
void engine_check_overlays(JobHost *host, Job *job, GPtrArray *changed, JobLooked done);

/* room.c: for a job's host */
void engine_count_data(JobHost *host, Job *job, guint from, guint end,
                       void (*counted)(guint64 bytes, const GError *error, gpointer data), gpointer data);

/* stop.c */
/* Maybe all of them: who waits for that is told. */
void engine_jobs_ended(Domain *domain);

/* storage.c */
/* For a job on a disk of a domain that is shut off: its place on the disk, the daemon, then its first step.
 */
void engine_start_storage_job(Engine *engine, Disk *disk, Job *job);
/* `storage` is taken. */
void engine_adopt_storage(Engine *engine, Domain *storage, Domain *of);
/* A domain is off: its images are what their headers say, whatever was seen or recorded of them last. */
void engine_look_at_images(Domain *domain);
/* Its QEMU ended without a job. */
void engine_storage_is_over(Engine *engine, Domain *storage);
void engine_forget_storage(Engine *engine, Domain *storage);
/* The last of its jobs has ended, or never came to be: the daemon ends too. */
void engine_job_left_storage(Engine *engine, Domain *storage, Disk *disk);

/* recover.c: going on after a start */
void engine_adopt_jobs(Engine *engine, Domain *domain);
