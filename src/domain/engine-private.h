/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "domain/engine.h"

struct Engine {
        Journal *journal;
        const EngineObserver *observer;
        gpointer data;
        GHashTable *capability_cache;
        GPtrArray *domains, *jobs;
        GPtrArray *detached;  /* Domain: by force, with jobs that have not concluded */
        GPtrArray *attaching; /* Domain, borrowed: their attach is under way */
        GHashTable *by_name, *by_id;
        gboolean may_tell;
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

/* observe.c: what domains and jobs tell the engine */
void engine_watch_domain(Engine *engine, Domain *domain);
void engine_add_job(Engine *engine, Job *job);
/* `done` may be NULL. */
void engine_remove_job(Engine *engine, Job *job, JournalDone done, gpointer data);
void engine_expire_finished(Engine *engine);

/* recover.c: going on after a start */
void engine_adopt_jobs(Engine *engine, Domain *domain);
