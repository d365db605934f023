/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/room.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include <gio/gio.h>

#include "base/error.h"

typedef struct {
        Job *job;
        char *path, *directory;
        guint64 free; /* bytes; G_MAXUINT64: it cannot be known */
        JobLooked checked;
} Check;

static void check_free(gpointer data)
{
        Check *check = data;

        job_unref(check->job);
        g_free(check->path);
        g_free(check->directory);
        g_free(check);
}

void room_estimate(Job *job, const Chain *chain, guint from, guint end, guint64 there)
{
        job->estimate = 0;
        job->room.from = from;
        job->room.end = end;
        job->room.there = there;
        for (guint i = from; i < end; i++)
                job->estimate += chain_layer(chain, i)->allocated;
}

/* Somebody is there to make room when it is needed, or it cannot be said how much that is. */
static gboolean is_to_be_tried(const Options *options)
{
        static const char *const policies[] = { "on-error", "on-target-error" };

        for (guint i = 0; i < G_N_ELEMENTS(policies); i++) {
                const char *policy = options_text(options, policies[i]);

                if (policy && strcmp(policy, "report") != 0)
                        return TRUE;
        }
        return options_flag(options, "force") || options_flag(options, "compress");
}

static void look(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
        Check *check = data;
        struct statvfs st;

        (void) source;
        (void) cancellable;
        check->free = statvfs(check->path, &st) == 0 || statvfs(check->directory, &st) == 0
                              ? (guint64) st.f_bavail * st.f_frsize
                              : G_MAXUINT64;
        g_task_return_boolean(task, TRUE);
}

static void end(Check *check, const GError *error)
{
        check->checked(check->job, error);
        check_free(check);
}

static void on_counted(guint64 bytes, const GError *error, gpointer data)
{
        Check *check = data;
        Job *job = check->job;
        g_autoptr(GError) failure = NULL;

        if (!error) {
                job->estimate = bytes;
                if (bytes > job->room.there && bytes - job->room.there > check->free)
                        g_set_error(&failure, BJ_ERROR, BJ_ERROR_NO_SPACE,
                                    "'%s': %s: there are %" G_GUINT64_FORMAT
                                    " bytes of data, and %" G_GUINT64_FORMAT
                                    " are free there; option 'force' tries it all the same",
                                    check->path, g_strerror(ENOSPC), bytes, check->free);
        }
        end(check, failure);
}

static void on_looked(GObject *source, GAsyncResult *result, gpointer data)
{
        Check *check = g_task_get_task_data(G_TASK(result));
        Job *job = check->job;

        (void) source;
        (void) data;
        if (check->free >= job->estimate || !job->host || is_to_be_tried(job->options))
                end(check, NULL);
        else
                job->host->count_data(job->host, job, job->room.from, job->room.end, on_counted, check);
}

void room_check(Job *job, const char *path, JobLooked checked)
{
        g_autoptr(GTask) task = NULL;
        Check *check;

        if (*path != '/') {
                checked(job, NULL);
                return;
        }
        check = g_new0(Check, 1);
        *check = (Check){ .job = job_ref(job),
                          .path = g_strdup(path),
                          .directory = g_path_get_dirname(path),
                          .checked = checked };
        task = g_task_new(NULL, NULL, on_looked, NULL);
        g_task_set_task_data(task, check, NULL);
        g_task_run_in_thread(task, look);
}
