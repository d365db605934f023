/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/launch.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/test-point.h"

void surroundings_free(Surroundings *surroundings)
{
        g_strfreev(surroundings->image_directories);
        g_free(surroundings->runtime_directory);
        g_free(surroundings->log_directory);
        g_free(surroundings->user);
        g_free(surroundings);
}

/* By UUID: a name may be longer than the name of a socket. */
static char *unit_name(const Domain *domain)
{
        return domain->of
                       ? g_strdup_printf("%s-%s", domain->uuid, ((Disk *) domain->disks->pdata[0])->target)
                       : g_strdup(domain->uuid);
}

char *launch_path(const Surroundings *surroundings, const Domain *domain, const char *file)
{
        g_autofree char *name = unit_name(domain);

        return g_build_filename(surroundings->runtime_directory, name, file, NULL);
}

typedef struct {
        Domain *domain;
        const Surroundings *surroundings;
        Account *account;
        GStrv command;
        int input, output;
        char *log;
        goffset log_start;
        gint64 deadline;
        GError *error;
        DomainDone done;
        gpointer data;
} Launch;

static void launch_free(Launch *launch)
{
        domain_unref(launch->domain);
        account_unref(launch->account);
        g_strfreev(launch->command);
        if (launch->input >= 0)
                close(launch->input);
        if (launch->output >= 0)
                close(launch->output);
        g_free(launch->log);
        g_clear_error(&launch->error);
        g_free(launch);
}

static void finish(Launch *launch)
{
        launch->done(launch->domain, launch->error, launch->data);
        launch_free(launch);
}

/* ---- failing: with QEMU's own words, once it is gone ---- */

static void on_failed_saved(Domain *domain, const GError *error, gpointer data)
{
        (void) domain;
        (void) error;
        finish(data);
}

static void on_closed(Domain *domain, const GError *error, gpointer data)
{
        Launch *launch = data;
        g_autofree char *words = process_last_words(launch->log, launch->log_start);

        (void) error;
        if (words) {
                int code = bj_error_of_qemu(words);
                g_clear_error(&launch->error);
                launch->error = g_error_new(BJ_ERROR, code == BJ_ERROR_IMAGE_IN_USE ? code : BJ_ERROR_QEMU,
                                            "domain '%s' did not start: %s", domain->name, words);
        } else if (g_error_matches(launch->error, BJ_ERROR, BJ_ERROR_DISCONNECTED)) {
                g_clear_error(&launch->error);
                launch->error = g_error_new(BJ_ERROR, BJ_ERROR_QEMU,
                                            "domain '%s' did not start: '%s' ended without a word",
                                            domain->name, launch->command[0]);
        }
        domain_save_then(domain, on_failed_saved, launch);
}

/* `error` may be NULL where somebody has asked for the domain's end. */
static void fail(Launch *launch, const GError *error)
{
        Domain *domain = launch->domain;

        if (domain->shutdown_reason)
                launch->error =
                        g_error_new(BJ_ERROR, BJ_ERROR_INVALID_STATE, "domain '%s' did not start: %s",
                                    domain->name, domain->shutdown_reason);
        else
                launch->error = g_error_new(BJ_ERROR, error->code, "domain '%s' did not start: %s",
                                            domain->name, error->message);
        domain_drop_connection(domain);
        domain_close(domain, "the start failed", on_closed, launch);
}

/* ---- connecting ---- */

static void on_attached(Domain *domain, const GError *error, gpointer data)
{
        Launch *launch = data;

        if (!error)
                finish(launch);
        /* It takes connections as soon as it is there and answers when it has opened its images. */
        else if (g_error_matches(error, BJ_ERROR, BJ_ERROR_TIMEOUT) && domain_process_runs(domain) &&
                 g_get_monotonic_time() < launch->deadline)
                domain_attach_again(domain, on_attached, launch);
        else
                fail(launch, error);
}

static void on_launched(guint32 pid, const GError *error, gpointer data)
{
        Launch *launch = data;
        Domain *domain = launch->domain;

        /* As long as the service has it open too, the end of QEMU would not be heard. */
        close(launch->input);
        launch->input = -1;
        domain->launching = FALSE;
        if (error) {
                fail(launch, error);
                return;
        }
        domain_set_process(domain, pid);
        /* As long as it has not opened its monitor, nothing else says which process it is. */
        domain_save(domain);
        test_point("launch-connect");
        if (domain->shutdown_reason) {
                fail(launch, NULL);
                return;
        }
        launch->deadline =
                g_get_monotonic_time() + (gint64) launch->surroundings->start_seconds * G_USEC_PER_SEC;
        domain_attach(domain, -1, on_attached, launch);
}

static void on_saved(Domain *domain, const GError *error, gpointer data)
{
        Launch *launch = data;
        const Surroundings *surroundings = launch->surroundings;
        g_autofree char *name = domain_record_name(domain), *unit_base = unit_name(domain);
        g_autofree char *unit = g_strconcat("blockjobd-", unit_base, NULL);
        g_autofree char *description = g_strdup_printf("QEMU of blockjobd's domain %s", name);

        if (error || domain->shutdown_reason) {
                domain->launching = FALSE;
                fail(launch, error);
                return;
        }
        test_point("launch-process");
        surroundings->launcher(&(LaunchRequest){ unit, description, launch->command, launch->input,
                                                 launch->output, launch->account },
                               on_launched, launch, surroundings->launcher_data);
}

void domain_launch(Domain *domain, const Surroundings *surroundings, const Account *account, GStrv command,
                   DomainDone done, gpointer data)
{
        Launch *launch = g_new0(Launch, 1);
        g_autofree char *name = domain_record_name(domain);
        g_autoptr(GError) error = NULL;

        *launch = (Launch){ .domain = domain_ref(domain),
                            .surroundings = surroundings,
                            .account = account_ref((Account *) account),
                            .command = command,
                            .input = -1,
                            .output = -1,
                            .done = done,
                            .data = data };
        launch->log = g_strdup_printf("%s/%s.log", surroundings->log_directory, name);
        domain_renew(domain);
        domain->starting = TRUE;
        g_free(domain->path);
        domain->path = launch_path(surroundings, domain, "monitor");
        launch->input = process_listen(domain->path, &error);
        if (launch->input >= 0)
                launch->output = process_open_log(launch->log, &launch->log_start, &error);
        if (error) {
                fail(launch, error);
                return;
        }
        test_point("launch-record");
        domain->launching = TRUE;
        domain_save_then(domain, on_saved, launch);
}
