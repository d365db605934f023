/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <string.h>

#include "outcome.h"
#include "output.h"
#include "units.h"
#include "values.h"
#include "verb.h"
#include "watch.h"

/* The commands for a job that runs, or has ended. */

static gboolean until_ready, force, asynchronous;

static const GOptionEntry wait_options[] = {
        { "ready", 'r', 0, G_OPTION_ARG_NONE, &until_ready, "Wait only until the job is ready for a pivot",
          NULL },
        { 0 },
};

#define ASYNC                                                                                               \
        {                                                                                                   \
                "async", 0, 0, G_OPTION_ARG_NONE, &asynchronous, "Do not wait for the end of the job", NULL \
        }

static const GOptionEntry abort_options[] = {
        { "force", 'f', 0, G_OPTION_ARG_NONE, &force, "Throw away a job that is ready, too", NULL },
        ASYNC,
        { 0 },
};

static const GOptionEntry pivot_options[] = { ASYNC, { 0 } };

static Status run_wait(Client *client, char **arguments, GError **error)
{
        g_autofree char *path = client_job_path(client, arguments[0], error);
        g_autoptr(Watch) watch = path ? watch_new(client, error) : NULL;
        g_autoptr(GVariant) job =
                watch ? watch_follow(watch, path, until_ready ? UNTIL_READY : UNTIL_END, error) : NULL;

        return job ? outcome_report(client, job) : STATUS_ERROR;
}

/* The call ends with the job, and with an error where that has failed, which the report tells better. Where
 * the service went away meanwhile it still knows what was asked for when it is back. */
static Status end_job(Client *client, const char *name, const char *method, GError **error)
{
        g_autofree char *path = client_job_path(client, name, error);
        g_autoptr(Watch) watch = path ? watch_new(client, error) : NULL;
        g_auto(GVariantDict) options = G_VARIANT_DICT_INIT(NULL);
        g_autoptr(GVariant) reply = NULL;
        g_autoptr(GVariant) job = NULL;

        if (force)
                g_variant_dict_insert(&options, "force", "b", TRUE);
        /* It is watched from here: so a restart of the service in between does no harm. */
        g_variant_dict_insert(&options, "async", "b", TRUE);
        if (watch)
                reply = watch_call(watch, path, BLOCKJOBD_JOB, method,
                                   g_variant_new("(@a{sv})", g_variant_dict_end(&options)), NULL, error);
        if (!reply)
                return STATUS_ERROR;
        job = asynchronous ? client_properties(client, path, BLOCKJOBD_JOB, error)
                           : watch_follow(watch, path, UNTIL_END, error);
        return job ? outcome_report(client, job) : STATUS_ERROR;
}

static Status run_abort(Client *client, char **arguments, GError **error)
{
        return end_job(client, arguments[0], "Abort", error);
}

static Status run_pivot(Client *client, char **arguments, GError **error)
{
        return end_job(client, arguments[0], "Pivot", error);
}

/* A call that changes a job; then one line about it, as it is now. */
static Status change(Client *client, const char *name, const char *method, GVariant *parameters,
                     GError **error)
{
        g_autoptr(GVariant) arguments = parameters ? g_variant_ref_sink(parameters) : NULL;
        g_autofree char *path = client_job_path(client, name, error);
        g_autofree char *speed_text = NULL;
        g_autoptr(GVariant) reply =
                path ? client_call(client, path, BLOCKJOBD_JOB, method, arguments, NULL, error) : NULL;
        g_autoptr(GVariant) job = reply ? client_properties(client, path, BLOCKJOBD_JOB, error) : NULL;
        const char *mode;

        if (!job)
                return STATUS_ERROR;
        if (client->quiet || output_json(client, job))
                return STATUS_DONE;
        mode = value_text(job, "Mode");
        speed_text = units_format_speed(value_number(job, "Speed"));
        printf("job %s: %s, speed %s%s%s\n", value_text(job, "Id"), value_text(job, "State"), speed_text,
               *mode ? ", mode " : "", mode);
        return STATUS_DONE;
}

static Status run_speed(Client *client, char **arguments, GError **error)
{
        guint64 speed;

        if (!units_parse_speed(arguments[1], "SPEED", &speed, error))
                return STATUS_USAGE;
        return change(client, arguments[0], "SetSpeed", g_variant_new("(t)", speed), error);
}

static Status run_pause(Client *client, char **arguments, GError **error)
{
        return change(client, arguments[0], "Pause", NULL, error);
}

static Status run_resume(Client *client, char **arguments, GError **error)
{
        return change(client, arguments[0], "Resume", NULL, error);
}

static Status run_mode(Client *client, char **arguments, GError **error)
{
        return change(client, arguments[0], "SetMode", g_variant_new("(s)", arguments[1]), error);
}

static Status run_dismiss(Client *client, char **arguments, GError **error)
{
        g_autoptr(GVariantBuilder) dismissed = g_variant_builder_new(G_VARIANT_TYPE("as"));
        g_autoptr(GVariant) ids = NULL;

        for (char **name = arguments; *name; name++) {
                g_autofree char *path = client_job_path(client, *name, error);
                g_autofree char *id = path ? last_name_of(path) : NULL;
                g_autoptr(GVariant) reply =
                        path ? client_call(client, path, BLOCKJOBD_JOB, "Dismiss", NULL, NULL, error) : NULL;

                if (!reply)
                        return STATUS_ERROR;
                g_variant_builder_add(dismissed, "s", id);
                if (!client->quiet && client->json == JSON_OFF)
                        printf("job %s: dismissed\n", id);
        }
        ids = g_variant_ref_sink(g_variant_builder_end(dismissed));
        if (!client->quiet)
                output_json(client, ids);
        return STATUS_DONE;
}

const Verb verbs_control[] = {
        { "wait", "JOB", "Show how far a job is, and wait for its end", 1, 1, wait_options, run_wait },
        { "pivot", "JOB", "Move the disk to the other image of a ready job", 1, 1, pivot_options,
          run_pivot },
        { "abort", "JOB", "End a job and leave the disk where it is", 1, 1, abort_options, run_abort },
        { "speed", "JOB SPEED", "Limit a job: 50M, 1.5GiB/s, 0 for no limit", 2, 2, NULL, run_speed },
        { "pause", "JOB", "Stop copying until resume", 1, 1, NULL, run_pause },
        { "resume", "JOB", "Go on after a pause or an I/O error", 1, 1, NULL, run_resume },
        { "mode", "JOB MODE", "write-blocking: the guest waits for the target", 2, 2, NULL, run_mode },
        { "dismiss", "JOB…", "Forget jobs that are over", 1, G_MAXUINT, NULL, run_dismiss },
        { 0 },
};
