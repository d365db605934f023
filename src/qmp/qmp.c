/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/qmp.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include <gio/gio.h>

#include "base/error.h"
#include "base/fd-watch.h"
#include "base/json.h"
#include "base/trim.h"
#include "qmp/output.h"
#include "qmp/socket.h"

#define READ_SIZE (8 * 1024)  /* in one turn of the main loop: what one QEMU says delays no other */
#define LONG_LINE (32 * 1024) /* and more is parsed in a worker thread */
#define INPUT_KEPT 1024       /* bytes of room, while there is nothing to read */
#define LOOK_AGAIN (100 * G_TIME_SPAN_MILLISECOND)
#define NESTING_MAX 1000 /* query-block nests a backing chain, one or two levels a layer */

typedef enum { STAGE_GREETING, STAGE_NEGOTIATING, STAGE_READY, STAGE_CLOSED } Stage;

typedef struct {
        guint64 id;
        char *command;
        QmpReply reply;
        gpointer data;
        gint64 deadline; /* monotonic µs; 0 once it was missed */
} Pending;

struct QmpConnection {
        const QmpHandlers *handlers;
        gpointer data;
        char *name; /* for messages: the path, or "the passed socket" */
        GSocket *socket;
        FdWatch *readable;
        GSource *timer; /* NULL: nothing has a deadline */
        gint64 due;     /* that deadline, monotonic µs */
        Stage stage;
        guint holds; /* handlers and replies on the stack: freeing waits for them */
        gboolean freed;
        guint32 pid;
        char *version;
        GString *input;
        gsize scanned;  /* bytes of input without a line end */
        Output *output; /* NULL where there is no socket */
        GQueue pending;
        guint64 last_id;
        gboolean late;
};

static void pending_free(Pending *pending)
{
        g_free(pending->command);
        g_free(pending);
}

static void clear_timer(QmpConnection *connection)
{
        if (connection->timer)
                g_source_destroy(connection->timer);
        g_clear_pointer(&connection->timer, g_source_unref);
}

static void hold(QmpConnection *connection)
{
        connection->holds++;
}

static void release(QmpConnection *connection)
{
        if (--connection->holds > 0 || !connection->freed)
                return;
        g_string_free(connection->input, TRUE);
        g_free(connection->version);
        g_free(connection->name);
        g_free(connection);
}

static void shut(QmpConnection *connection)
{
        connection->stage = STAGE_CLOSED;
        g_clear_pointer(&connection->readable, fd_watch_free);
        clear_timer(connection);
        g_clear_pointer(&connection->output, output_free);
        g_clear_object(&connection->socket);
}

static void fail_pending(QmpConnection *connection, const GError *error)
{
        Pending *pending;

        while ((pending = g_queue_pop_head(&connection->pending))) {
                if (pending->reply)
                        pending->reply(NULL, error, pending->data);
                pending_free(pending);
        }
}

static void lose(QmpConnection *connection, GError *error)
{
        g_autoptr(GError) lost = g_error_new(BJ_ERROR, BJ_ERROR_DISCONNECTED,
                                             "the connection to QEMU was lost: %s", error->message);

        hold(connection);
        shut(connection);
        if (!connection->freed)
                connection->handlers->lost(error, connection->data);
        fail_pending(connection, lost);
        g_error_free(error);
        release(connection);
}

static void on_deadline(QmpConnection *connection);

static gboolean timer_fired(gpointer data)
{
        on_deadline(data);
        return G_SOURCE_CONTINUE;
}

/* The timer stands at the earliest deadline. */
static void set_timer(QmpConnection *connection, gint64 when)
{
        if (!connection->timer) {
                connection->timer = g_timeout_source_new(G_MAXINT);
                g_source_set_callback(connection->timer, timer_fired, connection, NULL);
                g_source_attach(connection->timer, NULL);
        }
        connection->due = when;
        g_source_set_ready_time(connection->timer, when);
}

static void set_timer_for_pending(QmpConnection *connection)
{
        for (GList *l = connection->pending.head; l; l = l->next) {
                Pending *pending = l->data;
                if (pending->deadline) {
                        set_timer(connection, pending->deadline);
                        return;
                }
        }
        clear_timer(connection);
}

/* What QEMU has said lies there unread when it is the service that is late; but one that says other things
 * for ever is late. */
static gboolean may_have_answered(const QmpConnection *connection, gint64 now)
{
        struct pollfd input = { .fd = g_socket_get_fd(connection->socket), .events = POLLIN };

        return now < connection->due + QMP_COMMAND_SECONDS * G_USEC_PER_SEC &&
               (!connection->readable || poll(&input, 1, 0) > 0);
}

static void on_deadline(QmpConnection *connection)
{
        gint64 now = g_get_monotonic_time();

        if (may_have_answered(connection, now)) {
                g_source_set_ready_time(connection->timer, now + LOOK_AGAIN);
                return;
        }
        if (connection->stage != STAGE_READY) {
                lose(connection,
                     g_error_new(
                             BJ_ERROR, BJ_ERROR_TIMEOUT,
                             "monitor busy: %s took the connection but sent no QMP greeting within %d s; "
                             "QEMU serves one client on a monitor at a time, give blockjobd one of its own",
                             connection->name, QMP_GREETING_SECONDS));
                return;
        }
        hold(connection);
        for (GList *l = connection->pending.head; l; l = l->next) {
                Pending *pending = l->data;

                if (!pending->deadline || pending->deadline > now)
                        continue;
                pending->deadline = 0;
                if (!connection->late) {
                        connection->late = TRUE;
                        connection->handlers->late(pending->command, connection->data);
                        break;
                }
        }
        if (connection->stage == STAGE_READY)
                set_timer_for_pending(connection);
        release(connection);
}

static void send_command(QmpConnection *connection, const char *command, JsonObject *arguments, int fd,
                         QmpReply reply, gpointer data)
{
        JsonObject *message = json_make("s:execute", command, "i:id", ++connection->last_id, NULL);
        g_autofree char *text = NULL;
        Pending *pending = g_new(Pending, 1);

        if (arguments)
                json_object_set_object_member(message, "arguments", arguments);
        text = json_text(message);
        json_object_unref(message);
        *pending = (Pending){
                .id = connection->last_id,
                .command = g_strdup(command),
                .reply = reply,
                .data = data,
                .deadline = g_get_monotonic_time() + QMP_COMMAND_SECONDS * G_USEC_PER_SEC,
        };
        g_queue_push_tail(&connection->pending, pending);
        if (connection->stage == STAGE_READY && connection->pending.length == 1)
                set_timer_for_pending(connection);
        output_add(connection->output, g_strconcat(text, "\n", NULL), fd);
}

void qmp_execute_fd(QmpConnection *connection, const char *command, JsonObject *arguments, int fd,
                    QmpReply reply, gpointer data)
{
        /* Callers hold a connection only between `ready` and `lost`. */
        g_assert(connection->stage == STAGE_READY);
        send_command(connection, command, arguments, fd, reply, data);
}

void qmp_execute(QmpConnection *connection, const char *command, JsonObject *arguments, QmpReply reply,
                 gpointer data)
{
        qmp_execute_fd(connection, command, arguments, -1, reply, data);
}

static void on_negotiated(JsonNode *result, const GError *error, gpointer data)
{
        QmpConnection *connection = data;

        (void) result;
        if (connection->stage == STAGE_CLOSED)
                return;
        if (error) {
                lose(connection, g_error_new(BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "%s refused QMP: %s",
                                             connection->name, error->message));
                return;
        }
        connection->stage = STAGE_READY;
        set_timer_for_pending(connection);
        connection->handlers->ready(connection->data);
}

static gboolean handle_greeting(QmpConnection *connection, JsonObject *message)
{
        JsonObject *version = json_object(json_object(message, "QMP"), "version");
        JsonObject *numbers = json_object(version, "qemu");

        if (!numbers)
                return FALSE;
        const char *package = json_string(version, "package");
        connection->version = g_strdup_printf(
                "%d.%d.%d%s%s%s", (int) json_integer(numbers, "major"), (int) json_integer(numbers, "minor"),
                (int) json_integer(numbers, "micro"), package && *package ? " (" : "",
                package ? package : "", package && *package ? ")" : "");
        connection->stage = STAGE_NEGOTIATING;
        send_command(connection, "qmp_capabilities", NULL, -1, on_negotiated, connection);
        return TRUE;
}

static gboolean handle_reply(QmpConnection *connection, JsonObject *message)
{
        guint64 id = (guint64) json_integer(message, "id");
        JsonNode *result = json_object_get_member(message, "return");
        JsonObject *failure = json_object(message, "error");
        g_autoptr(GError) error = NULL;
        Pending *pending = g_queue_peek_head(&connection->pending);

        /* QEMU answers in order, and those who ask rely on it. */
        if ((!result && !failure) || !pending || pending->id != id)
                return FALSE;
        g_queue_pop_head(&connection->pending);
        if (failure)
                error = g_error_new_literal(BJ_ERROR, BJ_ERROR_QEMU,
                                            json_string(failure, "desc") ?: "unknown error");
        if (connection->stage == STAGE_READY)
                set_timer_for_pending(connection);
        if (connection->late) {
                connection->late = FALSE;
                connection->handlers->late(NULL, connection->data);
        }
        if (pending->reply)
                pending->reply(error ? NULL : result, error, pending->data);
        pending_free(pending);
        return TRUE;
}

static gboolean handle_message(QmpConnection *connection, JsonObject *message)
{
        const char *event = json_string(message, "event");

        if (connection->stage == STAGE_GREETING)
                return handle_greeting(connection, message);
        if (!event)
                return handle_reply(connection, message);
        if (connection->stage == STAGE_READY) {
                JsonObject *stamp = json_object(message, "timestamp");
                JsonObject *data = json_object(message, "data");
                g_autoptr(JsonObject) none = data ? NULL : json_object_new();

                connection->handlers->event(event, data ?: none,
                                            json_integer(stamp, "seconds") * G_USEC_PER_SEC +
                                                    json_integer(stamp, "microseconds"),
                                            connection->data);
        }
        return TRUE;
}

static gboolean parse_line(JsonParser *parser, const char *line, gsize length)
{
        while (length > 0 && g_ascii_isspace(line[length - 1]))
                length--;
        return length == 0 || (json_is_shallow(line, length, NESTING_MAX) &&
                               json_parser_load_from_data(parser, line, (gssize) length, NULL));
}

static gboolean handle_parsed(QmpConnection *connection, JsonParser *parser)
{
        JsonNode *root = json_parser_get_root(parser);

        return !root ||
               (JSON_NODE_HOLDS_OBJECT(root) && handle_message(connection, json_node_get_object(root)));
}

static gboolean handle_line(QmpConnection *connection, const char *line, gsize length)
{
        g_autoptr(JsonParser) parser = json_parser_new_immutable();

        return parse_line(parser, line, length) && handle_parsed(connection, parser);
}

static void lose_garbage(QmpConnection *connection, const char *line, gsize length)
{
        g_autofree char *start = g_utf8_make_valid(line, (gssize) MIN(length, 40));
        g_autofree char *shown = g_strescape(start, NULL);

        lose(connection, g_error_new(BJ_ERROR,
                                     connection->stage == STAGE_READY ? BJ_ERROR_DISCONNECTED
                                                                      : BJ_ERROR_INVALID_ARGUMENT,
                                     "%s does not speak QMP: it sent \"%s\"", connection->name, shown));
}

typedef struct {
        QmpConnection *connection;
        JsonParser *parser;
        char *line;
        gsize length;
} LongLine;

static void long_line_free(gpointer data)
{
        LongLine *line = data;

        g_object_unref(line->parser);
        g_free(line->line);
        g_free(line);
}

static void parse_thread(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
        LongLine *line = data;

        (void) source;
        (void) cancellable;
        g_task_return_boolean(task, parse_line(line->parser, line->line, line->length));
}

static void handle_input(QmpConnection *connection);
static void start_reading(QmpConnection *connection);

static void on_long_line_parsed(GObject *source, GAsyncResult *result, gpointer data)
{
        LongLine *line = g_task_get_task_data(G_TASK(result));
        QmpConnection *connection = data;
        gboolean parsed = g_task_propagate_boolean(G_TASK(result), NULL);

        (void) source;
        trim_later(); /* a schema has 200 KiB, and its tree some MiB */
        if (connection->stage != STAGE_CLOSED) {
                start_reading(connection);
                if (parsed && handle_parsed(connection, line->parser))
                        handle_input(connection);
                else if (connection->stage != STAGE_CLOSED)
                        lose_garbage(connection, line->line, line->length);
        }
        release(connection);
}

/* It holds up this connection, and nobody else. What comes behind it is not read before. */
static void parse_long_line(QmpConnection *connection, const char *text, gsize length)
{
        LongLine *line = g_new(LongLine, 1);
        g_autoptr(GTask) task = g_task_new(NULL, NULL, on_long_line_parsed, connection);

        hold(connection);
        *line = (LongLine){ connection, json_parser_new_immutable(), g_strndup(text, length), length };
        g_task_set_task_data(task, line, long_line_free);
        g_clear_pointer(&connection->readable, fd_watch_free);
        g_task_run_in_thread(task, parse_thread);
}

static void handle_input(QmpConnection *connection)
{
        gsize start = 0;
        char *end;

        while (connection->stage != STAGE_CLOSED &&
               (end = memchr(connection->input->str + connection->scanned, '\n',
                             connection->input->len - connection->scanned))) {
                gsize length = (gsize) (end - connection->input->str) - start;

                if (length > LONG_LINE) {
                        parse_long_line(connection, connection->input->str + start, length);
                        g_string_erase(connection->input, 0, (gssize) (start + length + 1));
                        connection->scanned = 0;
                        return;
                }
                if (!handle_line(connection, connection->input->str + start, length)) {
                        if (connection->stage != STAGE_CLOSED)
                                lose_garbage(connection, connection->input->str + start, length);
                        return;
                }
                start += length + 1;
                connection->scanned = start;
        }
        if (connection->stage == STAGE_CLOSED)
                return;
        g_string_erase(connection->input, 0, (gssize) start);
        connection->scanned = connection->input->len;
        if (connection->input->len > QMP_MESSAGE_MAX)
                lose(connection,
                     g_error_new(BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED, "%s sent a message of more than %d MiB",
                                 connection->name, QMP_MESSAGE_MAX / 1024 / 1024));
        else if (connection->stage == STAGE_GREETING && connection->input->len > 0 &&
                 connection->input->str[0] != '{')
                lose_garbage(connection, connection->input->str, connection->input->len);
}

/* What the longest message took would be kept by each of 1,000 connections. */
static void give_back_room(QmpConnection *connection)
{
        if (connection->input->len > 0 || connection->input->allocated_len <= INPUT_KEPT)
                return;
        g_string_free(connection->input, TRUE);
        connection->input = g_string_new(NULL);
}

static void on_readable(gpointer data)
{
        QmpConnection *connection = data;
        g_autoptr(GError) error = NULL;
        static char text[READ_SIZE];
        gssize n = g_socket_receive(connection->socket, text, sizeof text, NULL, &error);

        if (n < 0 && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK))
                return;

        hold(connection);
        if (n > 0) {
                g_string_append_len(connection->input, text, n);
                handle_input(connection);
                give_back_room(connection);
        } else if (connection->stage == STAGE_READY)
                lose(connection, g_error_new(BJ_ERROR, BJ_ERROR_DISCONNECTED, "%s was closed by QEMU",
                                             connection->name));
        else
                lose(connection,
                     g_error_new(BJ_ERROR, BJ_ERROR_DISCONNECTED,
                                 "%s closed the connection before QMP was agreed on", connection->name));
        release(connection);
}

static void start_reading(QmpConnection *connection)
{
        connection->readable = fd_watch_new(g_socket_get_fd(connection->socket), on_readable, connection);
}

QmpConnection *qmp_connection_new(const QmpHandlers *handlers, gpointer data)
{
        QmpConnection *connection = g_new0(QmpConnection, 1);

        connection->handlers = handlers;
        connection->data = data;
        connection->input = g_string_new(NULL);
        connection->stage = STAGE_CLOSED;
        g_queue_init(&connection->pending);
        return connection;
}

static void start(QmpConnection *connection, GSocket *socket, const char *name)
{
        struct ucred peer;
        socklen_t size = sizeof(peer);

        connection->socket = socket;
        connection->name = g_strdup(name);
        connection->stage = STAGE_GREETING;
        if (getsockopt(g_socket_get_fd(socket), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid > 0)
                connection->pid = (guint32) peer.pid;
        connection->output = output_new(socket);
        start_reading(connection);
        set_timer(connection, g_get_monotonic_time() + QMP_GREETING_SECONDS * G_USEC_PER_SEC);
}

gboolean qmp_connection_open(QmpConnection *connection, const char *path, GError **error)
{
        GSocket *socket = monitor_socket_open(path, error);
        g_autofree char *name = g_strdup_printf("'%s'", path);

        if (socket)
                start(connection, socket, name);
        return socket != NULL;
}

gboolean qmp_connection_open_fd(QmpConnection *connection, int fd, GError **error)
{
        GSocket *socket = monitor_socket_take(fd, error);

        if (socket)
                start(connection, socket, "the passed socket");
        return socket != NULL;
}

void qmp_connection_free(QmpConnection *connection)
{
        g_autoptr(GError) error =
                g_error_new(BJ_ERROR, BJ_ERROR_DISCONNECTED, "the connection was given up");

        if (!connection)
                return;
        hold(connection);
        connection->freed = TRUE;
        shut(connection);
        fail_pending(connection, error);
        release(connection);
}

guint32 qmp_connection_pid(QmpConnection *connection)
{
        return connection->pid;
}

const char *qmp_connection_version(QmpConnection *connection)
{
        return connection->version;
}
