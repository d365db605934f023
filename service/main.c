/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <glib-unix.h>
#include <systemd/sd-daemon.h>

#include "authority.h"
#include "base/error.h"
#include "bus-source.h"
#include "callers.h"
#include "config.h"
#include "log.h"
#include "request.h"
#include "service.h"
#include "unit.h"

/* Where PENDING would be left standing the guest hangs; this is how long an orderly stop waits for its end.
 */
#define STOP_SECONDS 2
/* A QEMU that has been asked to end may take so long. */
#define END_STARTS_SECONDS 6

/* Messages that wait have their descriptors with them, of which the bus lets so many through. At most half
 * of all go there: to those whose uid is not known yet, and to those that wait for polkit. */
#define DESCRIPTORS_OF_MESSAGE 16
#define PART_FOR_WAITING 4

typedef struct {
        Service service;
        Journal *journal; /* the engine's */
        GMainLoop *loop;
        gboolean settle, stopping, ending_starts;
        gint64 stop_deadline;
        int status;
} Daemon;

/* Never fewer than one caller may have pending. */
static guint most_waiting(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return REQUESTS_PER_CALLER_MAX;
        return (guint) CLAMP(limit.rlim_cur / PART_FOR_WAITING / DESCRIPTORS_OF_MESSAGE,
                             REQUESTS_PER_CALLER_MAX, G_MAXINT);
}

static gboolean on_stop_check(gpointer data)
{
        Daemon *daemon = data;

        gboolean calm = engine_is_calm(daemon->service.engine) && journal_is_idle(daemon->journal);

        if (!calm && g_get_monotonic_time() < daemon->stop_deadline)
                return G_SOURCE_CONTINUE;
        /* One that did not come up in that time would be left behind, with its images. */
        if (!calm && !daemon->ending_starts && engine_end_starts(daemon->service.engine)) {
                daemon->ending_starts = TRUE;
                daemon->stop_deadline += END_STARTS_SECONDS * G_USEC_PER_SEC;
                return G_SOURCE_CONTINUE;
        }
        g_main_loop_quit(daemon->loop);
        return G_SOURCE_REMOVE;
}

static void stop(Daemon *daemon)
{
        if (daemon->stopping)
                return;
        daemon->stopping = TRUE;
        engine_refuse_starts(daemon->service.engine);
        sd_notify(0, "STOPPING=1");
        daemon->stop_deadline = g_get_monotonic_time() + STOP_SECONDS * G_USEC_PER_SEC;
        g_timeout_add(1, on_stop_check, daemon);
}

static gboolean on_signal(gpointer data)
{
        stop(data);
        return G_SOURCE_CONTINUE;
}

static void on_bus_closed(int error, gpointer data)
{
        Daemon *daemon = data;

        log_event(LOG_ERR, MESSAGE_NONE, NULL, NULL, NULL, "the connection to the bus was lost: %s",
                  g_strerror(-error));
        daemon->status = EXIT_FAILURE;
        stop(daemon);
}

static gboolean on_watchdog(gpointer data)
{
        (void) data;
        sd_notify(0, "WATCHDOG=1");
        return G_SOURCE_CONTINUE;
}

static void start_watchdog(void)
{
        uint64_t interval;

        if (sd_watchdog_enabled(0, &interval) > 0)
                g_timeout_add((guint) (interval / 2 / 1000), on_watchdog, NULL);
}

static void log_recovered(Daemon *daemon)
{
        GPtrArray *jobs = engine_jobs(daemon->service.engine);
        guint unfinished = 0;

        for (guint i = 0; i < jobs->len; i++)
                unfinished += !((Job *) jobs->pdata[i])->concluded;
        if (engine_domains(daemon->service.engine)->len > 0)
                log_event(LOG_NOTICE, MESSAGE_RECOVERED, NULL, NULL, NULL,
                          "found %u domains and %u unfinished jobs of an earlier run",
                          engine_domains(daemon->service.engine)->len, unfinished);
}

/* All that can be known is known: now the name, then the signals. */
static void on_engine_started(gpointer data)
{
        Daemon *daemon = data;
        int r;

        if (daemon->settle) {
                stop(daemon);
                return;
        }
        if (daemon->stopping)
                return;
        log_recovered(daemon);
        r = sd_bus_request_name(daemon->service.bus, BUS_NAME, 0);
        if (r < 0) {
                log_event(LOG_ERR, MESSAGE_NONE, NULL, NULL, NULL, "cannot have the name %s on the bus: %s",
                          BUS_NAME, g_strerror(-r));
                daemon->status = EXIT_FAILURE;
                stop(daemon);
                return;
        }
        engine_may_tell(daemon->service.engine);
        sd_notify(0, "READY=1");
        start_watchdog();
}

static gboolean connect_bus(Daemon *daemon)
{
        int r = sd_bus_open_system(&daemon->service.bus);

        if (r >= 0)
                r = tree_register(&daemon->service);
        if (r < 0) {
                log_event(LOG_ERR, MESSAGE_NONE, NULL, NULL, NULL, "cannot connect to the system bus: %s",
                          g_strerror(-r));
                return FALSE;
        }
        bus_source_attach(daemon->service.bus, on_bus_closed, daemon);
        daemon->service.authority = authority_new(daemon->service.most_waiting);
        return TRUE;
}

/* What the command line says of where and how. */
typedef struct {
        char *state_directory, *runtime_directory, *log_directory, *user, *config;
} Places;

static void places_clear(Places *places)
{
        g_free(places->state_directory);
        g_free(places->runtime_directory);
        g_free(places->log_directory);
        g_free(places->user);
        g_free(places->config);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Places, places_clear)

static char *or_default(const char *given, const char *usual)
{
        return g_strdup(given ? given : usual);
}

static Surroundings *surroundings_of(Daemon *daemon, const Places *places, Config *config)
{
        Surroundings *surroundings = g_new0(Surroundings, 1);

        surroundings->image_directories = g_steal_pointer(&config->image_directories);
        surroundings->runtime_directory = or_default(places->runtime_directory, RUNTIME_DIRECTORY);
        surroundings->log_directory = or_default(places->log_directory, LOG_DIRECTORY);
        surroundings->user = or_default(places->user, config->user);
        surroundings->start_seconds = config->start_seconds;
        surroundings->keep_finished_seconds = config->keep_finished_seconds;
        surroundings->keep_finished = config->keep_finished;
        /* A child of the service's would end with the service's unit. */
        surroundings->launcher = sd_booted() > 0 ? unit_launch : process_launch;
        surroundings->launcher_data = &daemon->service;
        return surroundings;
}

static int run(Daemon *daemon, const Places *places)
{
        g_autoptr(GError) error = NULL;
        g_auto(Config) config = { 0 };
        Service *service = &daemon->service;

        if (!config_read(&config, places->config, &error)) {
                log_event(LOG_ERR, MESSAGE_NONE, NULL, NULL, NULL, "%s", error->message);
                /* No setting matters to a guest that is held, and it would stay so until the file is mended.
                 */
                if (!daemon->settle)
                        return EXIT_FAILURE;
                g_clear_error(&error);
        }
        daemon->journal =
                journal_open(places->state_directory ? places->state_directory : STATE_DIRECTORY, &error);
        if (!daemon->journal) {
                log_event(LOG_ERR, MESSAGE_NONE, NULL, NULL, NULL, "%s", error->message);
                /* A daemon that lives needs nobody to settle its jobs. */
                return daemon->settle && g_error_matches(error, BJ_ERROR, BJ_ERROR_EXISTS) ? EXIT_SUCCESS
                                                                                           : EXIT_FAILURE;
        }
        daemon->loop = g_main_loop_new(NULL, FALSE);
        service->callers =
                g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify) caller_free);
        service->most_waiting = most_waiting();
        service->waiting = g_ptr_array_new();
        service->asking = g_ptr_array_new();
        service->engine = engine_new(daemon->journal, surroundings_of(daemon, places, &config),
                                     &signals_observer, service);
        if (daemon->settle || connect_bus(daemon)) {
                g_unix_signal_add(SIGTERM, on_signal, daemon);
                g_unix_signal_add(SIGINT, on_signal, daemon);
                engine_start(service->engine, daemon->settle, on_engine_started, daemon);
                g_main_loop_run(daemon->loop);
        } else
                daemon->status = EXIT_FAILURE;
        return daemon->status;
}

static void clean_up(Daemon *daemon)
{
        Service *service = &daemon->service;

        g_clear_handle_id(&service->changes_idle, g_source_remove);
        if (service->engine) {
                requests_stopping(service);
                engine_stop(service->engine);
        }
        g_clear_pointer(&service->engine, engine_free);
        /* Those of their requests that are dropped look into it. */
        if (service->callers)
                g_hash_table_remove_all(service->callers);
        g_clear_pointer(&service->callers, g_hash_table_unref);
        service->callers_match = sd_bus_slot_unref(service->callers_match);
        g_clear_pointer(&service->authority, authority_free);
        g_clear_pointer(&service->waiting, g_ptr_array_unref);
        g_clear_pointer(&service->asking, g_ptr_array_unref);
        g_clear_pointer(&service->changes, g_hash_table_unref);
        service->bus = sd_bus_flush_close_unref(service->bus);
        g_clear_pointer(&daemon->loop, g_main_loop_unref);
}

int main(int argc, char **argv)
{
        g_auto(Places) places = { 0 };
        gboolean version = FALSE;
        Daemon daemon = { .status = EXIT_SUCCESS };
        const GOptionEntry entries[] = {
                { "state-dir", 0, 0, G_OPTION_ARG_FILENAME, &places.state_directory,
                  "Where the records of domains and jobs are kept (default: " STATE_DIRECTORY ")", "DIR" },
                { "runtime-dir", 0, 0, G_OPTION_ARG_FILENAME, &places.runtime_directory,
                  "Where the monitors of its own QEMUs are (default: " RUNTIME_DIRECTORY ")", "DIR" },
                { "log-dir", 0, 0, G_OPTION_ARG_FILENAME, &places.log_directory,
                  "Where the output of its own QEMUs goes (default: " LOG_DIRECTORY ")", "DIR" },
                { "qemu-user", 0, 0, G_OPTION_ARG_STRING, &places.user,
                  "Whose rights its own QEMUs have (default: what the configuration says)", "USER" },
                { "config", 0, 0, G_OPTION_ARG_FILENAME, &places.config,
                  "The configuration file (default: " CONFIG_FILE ")", "FILE" },
                { "settle", 0, 0, G_OPTION_ARG_NONE, &daemon.settle,
                  "Bring jobs at which a guest is held to their recorded end, and exit", NULL },
                { "version", 0, 0, G_OPTION_ARG_NONE, &version, "Print the version and exit", NULL },
                { .long_name = NULL },
        };
        g_autoptr(GOptionContext) context = g_option_context_new("- QEMU's block jobs on the system bus");
        g_autoptr(GError) error = NULL;

        setlocale(LC_ALL, "");
        g_option_context_add_main_entries(context, entries, NULL);
        if (!g_option_context_parse(context, &argc, &argv, &error)) {
                g_printerr("blockjobd: %s\n", error->message);
                return EXIT_FAILURE;
        }
        if (argc > 1) {
                g_printerr("blockjobd: '%s' is more than is understood; see --help\n", argv[1]);
                return EXIT_FAILURE;
        }
        if (version) {
                g_print("blockjobd %s\n", BLOCKJOBD_VERSION);
                return EXIT_SUCCESS;
        }
        signal(SIGPIPE, SIG_IGN);
        daemon.status = run(&daemon, &places);
        clean_up(&daemon);
        return daemon.status;
}
