/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "monitor.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib-unix.h>

#include "base/error.h"
#include "base/json.h"

#define TEST_SECONDS 10

static void on_more(JsonNode *result, const GError *error, gpointer data);

static void note(Monitor *monitor, char *line)
{
        g_ptr_array_add(monitor->lines, line);
        if (monitor->execute_at && g_str_has_prefix(line, monitor->execute_at)) {
                monitor->execute_at = NULL;
                qmp_execute(monitor->connection, "more", NULL, on_more, monitor);
        }
        if (monitor->free_at && g_str_has_prefix(line, monitor->free_at)) {
                monitor->free_at = NULL;
                qmp_connection_free(g_steal_pointer(&monitor->connection));
        }
}

static void on_ready(gpointer data)
{
        note(data, g_strdup("ready"));
}

static void on_event(const char *name, JsonObject *event_data, gint64 when, gpointer data)
{
        g_autofree char *text = json_text(event_data);

        note(data, g_strdup_printf("event %s %s %" G_GINT64_FORMAT, name, text, when));
}

static void on_lost(const GError *error, gpointer data)
{
        g_assert_nonnull(error);
        note(data, g_strdup_printf("lost %s: %s", bj_error_name(error), error->message));
}

static void on_late(const char *command, gpointer data)
{
        note(data, command ? g_strdup_printf("late %s", command) : g_strdup("caught up"));
}

const QmpHandlers monitor_handlers = { on_ready, on_event, on_lost, on_late };

typedef struct {
        Monitor *monitor;
        int tag;
} Tagged;

static char *describe(JsonNode *result, const GError *error)
{
        /* Exactly one of the two. */
        g_assert_true((result == NULL) == (error != NULL));
        return error ? g_strdup_printf("%s: %s", bj_error_name(error), error->message)
                     : json_to_string(result, FALSE);
}

static void on_reply(JsonNode *result, const GError *error, gpointer data)
{
        g_autofree Tagged *tagged = data; /* a second call for one command is a use after free */
        g_autofree char *text = describe(result, error);

        note(tagged->monitor, g_strdup_printf("reply %d %s", tagged->tag, text));
}

static void on_more(JsonNode *result, const GError *error, gpointer data)
{
        g_autofree char *text = describe(result, error);

        note(data, g_strdup_printf("reply more %s", text));
}

void monitor_execute(Monitor *monitor, const char *command, JsonObject *arguments, int tag)
{
        Tagged *tagged = g_new(Tagged, 1);

        *tagged = (Tagged){ monitor, tag };
        qmp_execute(monitor->connection, command, arguments, on_reply, tagged);
}

/* One turn of the main loop, no longer than until the deadline. */
static gboolean keep_time(gpointer data)
{
        (void) data;
        return G_SOURCE_CONTINUE;
}

static void turn(Monitor *monitor, const char *waiting_for)
{
        guint timer = g_timeout_add(100, keep_time, NULL);

        g_main_context_iteration(NULL, TRUE);
        g_source_remove(timer);
        if (g_get_monotonic_time() < monitor->deadline_of_the_test)
                return;
        for (guint i = 0; i < monitor->lines->len; i++)
                g_test_message("line %u: %.200s", i, (char *) monitor->lines->pdata[i]);
        g_error("waited in vain for %s", waiting_for);
}

static gboolean on_peer_readable(int fd, GIOCondition condition, gpointer data)
{
        Monitor *monitor = data;
        char bytes[65536];
        gssize n = read(fd, bytes, sizeof(bytes));

        (void) condition;
        if (n <= 0) {
                monitor->watch = 0;
                return G_SOURCE_REMOVE;
        }
        g_string_append_len(monitor->received, bytes, n);
        return G_SOURCE_CONTINUE;
}

void monitor_listen_again(Monitor *monitor)
{
        monitor->watch = g_unix_fd_add(monitor->peer, G_IO_IN, on_peer_readable, monitor);
}

Monitor *monitor_new_unconnected(void)
{
        Monitor *monitor = g_new0(Monitor, 1);

        monitor->peer = -1;
        monitor->received = g_string_new(NULL);
        monitor->lines = g_ptr_array_new_with_free_func(g_free);
        monitor->connection = qmp_connection_new(&monitor_handlers, monitor);
        monitor->deadline_of_the_test = g_get_monotonic_time() + TEST_SECONDS * G_USEC_PER_SEC;
        return monitor;
}

Monitor *monitor_new(void)
{
        Monitor *monitor = monitor_new_unconnected();
        GError *error = NULL;
        int fds[2];

        g_assert_no_errno(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
        g_assert_true(g_unix_set_fd_nonblocking(fds[0], TRUE, NULL));
        monitor->peer = fds[0];
        monitor_listen_again(monitor);
        qmp_connection_open_fd(monitor->connection, fds[1], &error);
        g_assert_no_error(error);
        return monitor;
}

Monitor *monitor_new_ready(void)
{
        Monitor *monitor = monitor_new();
        g_autofree char *command = NULL;

        monitor_say(monitor, GREETING);
        command = monitor_take_command(monitor);
        monitor_say(monitor, AGREED);
        expect_line(monitor, "ready");
        return monitor;
}

void monitor_free(Monitor *monitor)
{
        expect_nothing(monitor);
        qmp_connection_free(monitor->connection);
        monitor_hang_up(monitor);
        g_string_free(monitor->received, TRUE);
        g_ptr_array_unref(monitor->lines);
        g_free(monitor);
}

void monitor_say_bytes(Monitor *monitor, const char *bytes, gsize length)
{
        while (length > 0) {
                gssize n = send(monitor->peer, bytes, length, MSG_NOSIGNAL);

                if (n < 0) {
                        if (errno == EPIPE || errno == ECONNRESET)
                                return; /* the connection had enough of it */
                        g_assert_cmpint(errno, ==, EAGAIN);
                        turn(monitor, "the connection to read what QEMU says");
                        continue;
                }
                bytes += n;
                length -= (gsize) n;
        }
}

void monitor_say(Monitor *monitor, const char *text)
{
        monitor_say_bytes(monitor, text, strlen(text));
}

void monitor_hang_up(Monitor *monitor)
{
        if (monitor->watch)
                g_source_remove(monitor->watch);
        monitor->watch = 0;
        if (monitor->peer >= 0)
                close(monitor->peer);
        monitor->peer = -1;
}

char *monitor_take_command(Monitor *monitor)
{
        const char *end;
        char *line;

        while (!(end = memchr(monitor->received->str, '\n', monitor->received->len)))
                turn(monitor, "a command");
        line = g_strndup(monitor->received->str, (gsize) (end - monitor->received->str));
        g_string_erase(monitor->received, 0, end + 1 - monitor->received->str);
        return line;
}

static const char *next_line(Monitor *monitor, const char *wanted)
{
        while (monitor->lines->len == monitor->checked)
                turn(monitor, wanted);
        return monitor->lines->pdata[monitor->checked++];
}

void expect_line(Monitor *monitor, const char *line)
{
        g_assert_cmpstr(next_line(monitor, line), ==, line);
}

void expect_line_starts(Monitor *monitor, const char *start)
{
        const char *line = next_line(monitor, start);

        if (!g_str_has_prefix(line, start))
                g_assert_cmpstr(line, ==, start);
}

void expect_nothing(Monitor *monitor)
{
        /* What one end of a socket pair wrote can be read at the other at once: no waiting is needed. */
        while (g_main_context_iteration(NULL, FALSE))
                ;
        if (monitor->lines->len > monitor->checked)
                g_assert_cmpstr(monitor->lines->pdata[monitor->checked], ==, NULL);
}
