/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "client.h"

/* Waiting on the bus such that Ctrl-C is heard: calls, and the life of a job to its end. */

typedef struct Watch Watch;

/* From now on SIGINT and SIGTERM end only what waits here, and the signals of all jobs are heard: made
 * before the call that starts a job, nothing of it can be missed. */
Watch *watch_new(Client *client, GError **error);
void watch_free(Watch *watch);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Watch, watch_free)

/* As client_call(). Interrupted: STATUS_INTERRUPTED, and the message says that it may go on. */
GVariant *watch_call(Watch *watch, const char *path, const char *interface, const char *member,
                     GVariant *parameters, char **name, GError **error);

typedef enum {
        UNTIL_READY, /* or to its end, where that comes first */
        UNTIL_END,
} Until;

/* Follows a job, showing how far it is, and returns its properties as they are then. The service may go away
 * and come back meanwhile. Interrupted: STATUS_INTERRUPTED, and the message says how to find the job again.
 */
GVariant *watch_follow(Watch *watch, const char *job, Until until, GError **error);

/* Hands over every signal of the service, and NameOwnerChanged when it goes or comes, until it is
 * interrupted. FALSE: the connection broke. */
typedef void (*WatchHeard)(sd_bus_message *signal, gpointer data);
gboolean watch_everything(Watch *watch, WatchHeard heard, gpointer data, GError **error);
