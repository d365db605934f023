/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "progress.h"
#include "variant.h"

#define PROPERTIES "org.freedesktop.DBus.Properties"
#define DRIVER "org.freedesktop.DBus"

/* How long a service that went away may stay away; systemd restarts one that crashed within seconds. */
enum { AWAY_SECONDS = 90 };

struct Watch {
        Client *client;
        int signals; /* signalfd */
        sigset_t before;
        char *owner; /* who has the service's name; "" nobody */
        gint64 away_since;
        GPtrArray *slots;

        /* of the job that is followed */
        const char *job;
        GVariantDict *properties;
        gboolean stale; /* has to be read again */
        gboolean over;  /* its Completed was heard */

        WatchHeard heard; /* NULL: nobody wants to hear everything */
        gpointer data;
};

static void forget_slot(gpointer slot)
{
        sd_bus_slot_unref(slot);
}

void watch_free(Watch *watch)
{
        g_ptr_array_unref(watch->slots);
        if (watch->signals >= 0) {
                close(watch->signals);
                sigprocmask(SIG_SETMASK, &watch->before, NULL);
        }
        g_clear_pointer(&watch->properties, g_variant_dict_unref);
        g_free(watch->owner);
        g_free(watch);
}

/* ---- what is heard ---- */

static int on_owner(sd_bus_message *message, void *data, sd_bus_error *bus_error)
{
        Watch *watch = data;
        const char *name, *before, *owner;

        (void) bus_error;
        if (sd_bus_message_read(message, "sss", &name, &before, &owner) < 0 || strcmp(name, BLOCKJOBD) != 0)
                return 0;
        g_free(watch->owner);
        watch->owner = g_strdup(owner);
        watch->away_since = *owner ? 0 : g_get_monotonic_time();
        watch->stale = TRUE;
        if (watch->heard && sd_bus_message_rewind(message, TRUE) >= 0)
                watch->heard(message, watch->data);
        return 0;
}

static int on_any(sd_bus_message *message, void *data, sd_bus_error *bus_error)
{
        Watch *watch = data;

        (void) bus_error;
        if (g_strcmp0(sd_bus_message_get_sender(message), watch->owner) == 0)
                watch->heard(message, watch->data);
        return 0;
}

static void take_changes(Watch *watch, GVariant *body)
{
        const char *interface = NULL;
        g_autoptr(GVariantIter) changed = NULL;
        const char *key;
        GVariant *value;

        if (!g_variant_check_format_string(body, "(&sa{sv}as)", FALSE))
                return;
        g_variant_get(body, "(&sa{sv}as)", &interface, &changed, NULL);
        if (strcmp(interface, BLOCKJOBD_JOB) != 0)
                return;
        while (g_variant_iter_loop(changed, "{&sv}", &key, &value)) {
                g_variant_dict_insert_value(watch->properties, key, value);
                /* What is said at the end is read from the service, not gathered. */
                watch->stale |= strcmp(key, "State") == 0;
        }
}

static void take_end(Watch *watch, GVariant *body)
{
        const char *result, *name, *text;

        if (!g_variant_check_format_string(body, "(&s&s&s)", FALSE))
                return;
        g_variant_get(body, "(&s&s&s)", &result, &name, &text);
        g_variant_dict_insert(watch->properties, "State", "s", "concluded");
        g_variant_dict_insert(watch->properties, "Result", "s", result);
        g_variant_dict_insert(watch->properties, "Error", "(ss)", name, text);
        watch->over = watch->stale = TRUE;
}

static int on_signal(sd_bus_message *message, void *data, sd_bus_error *bus_error)
{
        Watch *watch = data;
        g_autoptr(GVariant) body = NULL;

        (void) bus_error;
        /* Anybody can send anything to us; the service alone tells of its jobs. */
        if (!watch->job || g_strcmp0(sd_bus_message_get_path(message), watch->job) != 0 ||
            g_strcmp0(sd_bus_message_get_sender(message), watch->owner) != 0 ||
            variant_from_message(message, &body) < 0)
                return 0;
        if (sd_bus_message_is_signal(message, PROPERTIES, "PropertiesChanged"))
                take_changes(watch, body);
        else if (sd_bus_message_is_signal(message, BLOCKJOBD_JOB, "Completed"))
                take_end(watch, body);
        else
                watch->stale = TRUE;
        return 0;
}

static gboolean add_match(Watch *watch, const char *match, sd_bus_message_handler_t handler, GError **error)
{
        sd_bus_slot *slot = NULL;
        int r = sd_bus_add_match(watch->client->bus, &slot, match, handler, watch);

        if (r >= 0)
                g_ptr_array_add(watch->slots, slot);
        else
                g_set_error(error, CLIENT_ERROR, STATUS_NO_SERVICE, "cannot listen on the bus: %s",
                            g_strerror(-r));
        return r >= 0;
}

static gboolean listen_to(Watch *watch, GError **error)
{
        g_autoptr(sd_bus_message) message = NULL;
        const char *owner = "";

        if (!add_match(watch,
                       "type='signal',sender='" DRIVER "',member='NameOwnerChanged',arg0='" BLOCKJOBD "'",
                       on_owner, error) ||
            !add_match(watch, "type='signal',sender='" BLOCKJOBD "',path_namespace='" BLOCKJOBD_ROOT "/job'",
                       on_signal, error))
                return FALSE;
        /* Nobody has the name yet where a call will start the service. */
        if (sd_bus_call_method(watch->client->bus, DRIVER, "/org/freedesktop/DBus", DRIVER, "GetNameOwner",
                               NULL, &message, "s", BLOCKJOBD) >= 0)
                sd_bus_message_read(message, "s", &owner);
        watch->owner = g_strdup(owner);
        return TRUE;
}

Watch *watch_new(Client *client, GError **error)
{
        g_autoptr(Watch) watch = g_new0(Watch, 1);
        sigset_t interrupts;

        watch->client = client;
        watch->slots = g_ptr_array_new_with_free_func(forget_slot);
        watch->signals = -1;
        if (!listen_to(watch, error))
                return NULL;
        sigemptyset(&interrupts);
        sigaddset(&interrupts, SIGINT);
        sigaddset(&interrupts, SIGTERM);
        sigprocmask(SIG_BLOCK, &interrupts, &watch->before);
        watch->signals = signalfd(-1, &interrupts, SFD_CLOEXEC | SFD_NONBLOCK);
        return g_steal_pointer(&watch);
}

/* ---- the loop ---- */

typedef enum { HEARD, INTERRUPTED, BROKEN } Event;

static int timeout_of(sd_bus *bus, int most)
{
        uint64_t until = UINT64_MAX;
        gint64 left;

        if (sd_bus_get_timeout(bus, &until) < 0 || until == UINT64_MAX)
                return most;
        left = ((gint64) until - g_get_monotonic_time()) / 1000 + 1;
        return (int) CLAMP(left, 0, most);
}

/* One message, or a second in which none comes. *r: the error of a connection that is broken. */
static Event wait_event(Watch *watch, int *r)
{
        sd_bus *bus = watch->client->bus;
        struct signalfd_siginfo taken;
        struct pollfd fds[] = { { .fd = watch->signals, .events = POLLIN }, { .fd = -1 } };

        *r = sd_bus_process(bus, NULL);
        if (*r != 0)
                return *r < 0 ? BROKEN : HEARD;
        fds[1].fd = sd_bus_get_fd(bus);
        fds[1].events = (short) sd_bus_get_events(bus);
        if (poll(fds, G_N_ELEMENTS(fds), timeout_of(bus, 1000)) < 0 && errno != EINTR) {
                *r = -errno;
                return BROKEN;
        }
        /* taken: it would still come when the mask is as before */
        return read(watch->signals, &taken, sizeof(taken)) > 0 ? INTERRUPTED : HEARD;
}

/* ---- a call ---- */

typedef struct {
        Watch *watch;
        gboolean done;
        GVariant *value;
        char *name;
        GError *error;
} Call;

static int on_reply(sd_bus_message *message, void *data, sd_bus_error *bus_error)
{
        Call *call = data;
        const sd_bus_error *failure = sd_bus_message_get_error(message);
        int r = failure ? -sd_bus_message_get_errno(message) : variant_from_message(message, &call->value);

        (void) bus_error;
        call->done = TRUE;
        if (r < 0)
                client_take_error(call->watch->client, failure, r, &call->name, &call->error);
        return 0;
}

static void wait_reply(Call *call, const char *member)
{
        while (!call->done) {
                int r = 0;
                Event event = wait_event(call->watch, &r);

                if (event == BROKEN)
                        g_set_error(&call->error, CLIENT_ERROR, STATUS_NO_SERVICE,
                                    "the connection to the bus is lost (%s); what was asked for may go on",
                                    g_strerror(-r));
                else if (event == INTERRUPTED) {
                        g_autofree char *jobs = client_command(call->watch->client, "jobs");

                        g_set_error(&call->error, CLIENT_ERROR, STATUS_INTERRUPTED,
                                    "interrupted before the service had answered; %s may go on. See: %s",
                                    member, jobs);
                }
                call->done |= event != HEARD;
        }
}

GVariant *watch_call(Watch *watch, const char *path, const char *interface, const char *member,
                     GVariant *parameters, char **name, GError **error)
{
        g_autoptr(GVariant) tuple = g_variant_ref_sink(parameters ? parameters : g_variant_new("()"));
        g_autoptr(sd_bus_message) message = NULL;
        sd_bus_slot *slot = NULL;
        Call call = { .watch = watch };
        int r = client_new_call(watch->client, path, interface, member, tuple, &message);

        if (r >= 0)
                r = sd_bus_call_async(watch->client->bus, &slot, message, on_reply, &call, 0);
        if (r >= 0)
                wait_reply(&call, member);
        else
                client_take_error(watch->client, NULL, r, &call.name, &call.error);
        sd_bus_slot_unref(slot);
        if (name)
                *name = g_strdup(call.name ? call.name : "");
        g_free(call.name);
        if (call.error)
                g_propagate_error(error, call.error);
        return call.value;
}

/* ---- a job ---- */

static int away_seconds(void)
{
        const char *text = g_getenv("BLOCKJOBCTL_SERVICE_TIMEOUT");
        guint64 seconds;

        return text && g_ascii_string_to_unsigned(text, 10, 1, G_MAXINT / 1000, &seconds, NULL)
                       ? (int) seconds
                       : AWAY_SECONDS;
}

static gboolean is_absence(const char *name)
{
        static const char *const names[] = { SD_BUS_ERROR_NO_REPLY, SD_BUS_ERROR_SERVICE_UNKNOWN,
                                             SD_BUS_ERROR_NAME_HAS_NO_OWNER, NULL };

        return g_strv_contains(names, name);
}

static gboolean is_unknown(const char *name)
{
        static const char *const names[] = { SD_BUS_ERROR_UNKNOWN_OBJECT, SD_BUS_ERROR_UNKNOWN_METHOD,
                                             SD_BUS_ERROR_UNKNOWN_INTERFACE, NULL };

        return g_strv_contains(names, name);
}

static void set_interrupted(const Watch *watch, const char *job, GError **error)
{
        g_autofree char *id = last_name_of(job);
        g_autofree char *wait = client_command(watch->client, "wait %s", id);
        g_autofree char *abort_job = client_command(watch->client, "abort %s", id);

        g_set_error(error, CLIENT_ERROR, STATUS_INTERRUPTED,
                    "no longer waiting; job %s runs on\n  To wait again: %s\n  To end it:     %s", id, wait,
                    abort_job);
}

/* FALSE with an error, or without one where the service is away. */
static gboolean read_job(Watch *watch, GError **error)
{
        g_autofree char *name = NULL;
        g_autofree char *id = last_name_of(watch->job);
        g_autoptr(GError) problem = NULL;
        g_autoptr(GVariant) reply = NULL;
        g_autoptr(GVariant) properties = NULL;

        watch->stale = FALSE;
        reply = watch_call(watch, watch->job, PROPERTIES, "GetAll", g_variant_new("(s)", BLOCKJOBD_JOB),
                           &name, &problem);
        if (reply) {
                properties = g_variant_get_child_value(reply, 0);
                g_variant_dict_unref(watch->properties);
                watch->properties = g_variant_dict_new(properties);
                return TRUE;
        }
        if (is_absence(name)) {
                /* unless its return has been heard of meanwhile */
                if (!watch->stale && watch->away_since == 0)
                        watch->away_since = g_get_monotonic_time();
                return FALSE;
        }
        /* Its Completed was heard, and somebody dismissed it at once. */
        if (is_unknown(name) && watch->over)
                return TRUE;
        if (is_unknown(name))
                g_set_error(error, CLIENT_ERROR, STATUS_ERROR, "the service does not know job %s any more",
                            id);
        else if (g_error_matches(problem, CLIENT_ERROR, STATUS_INTERRUPTED))
                set_interrupted(watch, watch->job, error);
        else
                g_propagate_error(error, g_steal_pointer(&problem));
        return FALSE;
}

static gboolean has_come(Watch *watch, Until until)
{
        const char *state = "";
        gboolean ready = FALSE;

        g_variant_dict_lookup(watch->properties, "State", "&s", &state);
        g_variant_dict_lookup(watch->properties, "Ready", "b", &ready);
        return strcmp(state, "concluded") == 0 || (until == UNTIL_READY && ready);
}

/* Whether to go on. */
static gboolean wait_news(Watch *watch, GError **error)
{
        int r = 0;
        Event event = wait_event(watch, &r);

        if (event == INTERRUPTED)
                set_interrupted(watch, watch->job, error);
        else if (event == BROKEN)
                g_set_error(error, CLIENT_ERROR, STATUS_NO_SERVICE,
                            "the connection to the bus is lost (%s); the job runs on", g_strerror(-r));
        else if (watch->away_since &&
                 g_get_monotonic_time() - watch->away_since > away_seconds() * G_USEC_PER_SEC)
                g_set_error(
                        error, CLIENT_ERROR, STATUS_NO_SERVICE,
                        "the service has gone and did not come back within %d s; the job runs on in QEMU\n"
                        "  See: systemctl status blockjobd",
                        away_seconds());
        else
                return TRUE;
        return FALSE;
}

static GVariant *follow(Watch *watch, Progress *progress, Until until, GError **error)
{
        GError *problem = NULL;

        watch->stale = TRUE;
        while (!problem) {
                if (watch->stale && watch->away_since == 0 && read_job(watch, &problem) &&
                    has_come(watch, until))
                        return g_variant_ref_sink(g_variant_dict_end(watch->properties));
                if (problem)
                        break;
                progress_show(progress, watch->properties, watch->away_since != 0);
                wait_news(watch, &problem);
        }
        g_propagate_error(error, problem);
        return NULL;
}

GVariant *watch_follow(Watch *watch, const char *job, Until until, GError **error)
{
        g_autoptr(Progress) progress = progress_new(watch->client);
        GVariant *properties;

        watch->job = job;
        watch->properties = g_variant_dict_new(NULL);
        watch->over = FALSE;
        properties = follow(watch, progress, until, error);
        g_clear_pointer(&watch->properties, g_variant_dict_unref);
        watch->job = NULL;
        return properties;
}

gboolean watch_everything(Watch *watch, WatchHeard heard, gpointer data, GError **error)
{
        Event event = HEARD;
        int r = 0;

        watch->heard = heard;
        watch->data = data;
        if (!add_match(watch, "type='signal',sender='" BLOCKJOBD "'", on_any, error))
                return FALSE;
        while (event == HEARD)
                event = wait_event(watch, &r);
        if (event == BROKEN)
                g_set_error(error, CLIENT_ERROR, STATUS_NO_SERVICE, "the connection to the bus is lost (%s)",
                            g_strerror(-r));
        return event == INTERRUPTED;
}
