/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <json-glib/json-glib.h>

/* One QMP connection: greeting, negotiation, commands with ids and deadlines, events.
 *
 * QEMU serves one client on a monitor at a time: a second connect succeeds in the kernel and is then left
 * without a greeting. That is reported, as Timeout "monitor busy", after QMP_GREETING_SECONDS. */

#define QMP_GREETING_SECONDS 3
#define QMP_COMMAND_SECONDS 10
#define QMP_MESSAGE_MAX (16 * 1024 * 1024)

typedef struct QmpConnection QmpConnection;

/* `result` is borrowed, and NULL where `error` is set: BJ_ERROR_QEMU with QEMU's own text, or
 * BJ_ERROR_DISCONNECTED when the connection went away first; the command may or may not have been executed
 * then. Called exactly once for each command. */
typedef void (*QmpReply)(JsonNode *result, const GError *error, gpointer data);

typedef struct {
        /* Greeting and negotiation are over; from here on no event is missed. */
        void (*ready)(gpointer data);
        /* `when`: QEMU's clock, µs since the epoch. */
        void (*event)(const char *name, JsonObject *event_data, gint64 when, gpointer data);
        /* The connection could not be made or ended. Comes before the replies of commands under way. */
        void (*lost)(const GError *error, gpointer data);
        /* A command has had no reply for QMP_COMMAND_SECONDS; NULL: QEMU has caught up again. */
        void (*late)(const char *command, gpointer data);
} QmpHandlers;

QmpConnection *qmp_connection_new(const QmpHandlers *handlers, gpointer data);

/* Fails at once for what the kernel knows: InvalidArgument (no such file, not a socket, name too long),
 * Disconnected (nobody listens), Timeout (queue of connections full: busy). What comes later comes by
 * `lost`. */
gboolean qmp_connection_open(QmpConnection *connection, const char *path, GError **error);

/* The same over a connected stream socket; `fd` is taken, also where it fails. */
gboolean qmp_connection_open_fd(QmpConnection *connection, int fd, GError **error);

/* No handler is called any more; replies under way come at once, as Disconnected. */
void qmp_connection_free(QmpConnection *connection);

/* `arguments` is taken and may be NULL; `reply` may be NULL. */
void qmp_execute(QmpConnection *connection, const char *command, JsonObject *arguments, QmpReply reply,
                 gpointer data);

/* The same with a descriptor, which goes out together with the first byte of the command. QEMU keeps the one
 * that came last until a command takes it, as "add-fd" does. `fd` is duplicated: the caller's stays his, and
 * the duplicate is closed once it was sent or the connection has ended. Where it cannot be duplicated the
 * command goes without it, and QEMU says that none was supplied. */
void qmp_execute_fd(QmpConnection *connection, const char *command, JsonObject *arguments, int fd,
                    QmpReply reply, gpointer data);

/* Process at the other end as the kernel knows it (who listens), 0 where it is not told. */
guint32 qmp_connection_pid(QmpConnection *connection);

/* "7.2.22 (Debian …)", from the greeting. */
const char *qmp_connection_version(QmpConnection *connection);
