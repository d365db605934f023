/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/job.h"

#include <stdarg.h>

#include "base/error.h"
#include "base/test-point.h"
#include "job/life.h"

static const JobStep *first_step(const Job *job)
{
        static const JobStep nothing[] = {
                { "close", close_state, close_run },
                { "give-up", give_up_state, give_up_run },
                { NULL, NULL, NULL },
        };

        if (!job->start_error)
                return job->driver->steps;
        return job->driver->undo ? job->driver->undo : nothing;
}

void job_advance(Job *job)
{
        if (job->step || job->advancing || job->dropped || !job->host)
                return;
        job_ref(job);
        job->advancing = TRUE;
        for (const JobStep *step = first_step(job); step->name && !job->dropped;) {
                StepState state = step->state(job);

                if (state == STEP_WAIT)
                        break;
                if (state == STEP_DONE) {
                        step++;
                        continue;
                }
                test_point(step->name);
                job->step = step;
                step->run(job);
                test_point_behind(step->name);
                if (job->step)
                        break;
                /* It ended at once; what it changed may concern an earlier step. */
                step = first_step(job);
        }
        job->advancing = FALSE;
        if (!job->dropped)
                job_update_state(job);
        job_unref(job);
}

void job_step_end(Job *job)
{
        job->step = NULL;
        job_advance(job);
}

typedef struct {
        Job *job;
        QmpReply reply;
} Call;

static void on_reply(JsonNode *result, const GError *error, gpointer data)
{
        Call *call = data;

        call->reply(result, error, call->job);
        job_unref(call->job);
        g_free(call);
}

void job_execute(Job *job, const char *command, JsonObject *arguments, QmpReply reply)
{
        Call *call = g_new(Call, 1);

        *call = (Call){ job_ref(job), reply };
        qmp_execute(job->host->qmp, command, arguments, on_reply, call);
}

typedef struct {
        Job *job;
        JournalDone done;
        struct JobRecord record;
} Write;

static void on_written(const GError *error, gpointer data)
{
        Write *write = data;
        Job *job = write->job;

        if (!error) {
                job->written = write->record;
                job->written.exists = TRUE;
        }
        write->done(error, job);
        job_unref(job);
        g_free(write);
}

void job_write(Job *job, JournalDurability durability, JournalDone done)
{
        Write *write = g_new(Write, 1);

        *write = (Write){ job_ref(job), done, job->record };
        job->writing = job->record;
        journal_write(job->host->journal, JOURNAL_JOBS, job->id, job_to_json(job), durability, on_written,
                      write);
}

void job_start_failed(Job *job, const GError *error)
{
        if (job->dropped)
                return;
        if (!job->start_error)
                job->start_error = g_error_copy(error);
        if (job->driver->undo || job->host->close)
                job_step_end(job);
        else
                job_drop(job, job->start_error);
}

void job_start_failed_new(Job *job, int code, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        g_autoptr(GError) error = g_error_new_valist(BJ_ERROR, code, format, arguments);
        va_end(arguments);
        job_start_failed(job, error);
}

void job_drop(Job *job, const GError *error)
{
        JobStarted started = g_steal_pointer(&job->started);

        if (job->dropped)
                return;
        if (job->written.exists)
                journal_remove(job->host->journal, JOURNAL_JOBS, job->id, NULL, NULL);
        job->dropped = TRUE;
        job->step = NULL;
        if (started)
                started(job, error, job->started_data);
        job->host->observer->dropped(job, job->host->observer_data);
}

StepState give_up_state(const Job *job)
{
        (void) job;
        return STEP_DUE;
}

void give_up_run(Job *job)
{
        job_drop(job, job->start_error);
}

void job_start_is_late(Job *job, const GError *error)
{
        JobStarted started = g_steal_pointer(&job->started);

        if (started)
                started(job, error, job->started_data);
}
