/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "image/account.h"

/* Starting a QEMU, so that it outlives the service. */

typedef struct {
        const char *unit; /* a name that no other has, of [a-z0-9-] */
        const char *description;
        char *const *command;
        int input;  /* becomes its standard input: the listening socket of its monitor */
        int output; /* its standard output and error */
        const Account *account;
} LaunchRequest;

/* `pid` is that of the program itself. It may have ended since. */
typedef void (*Launched)(guint32 pid, const GError *error, gpointer data);

/* Whoever starts processes: the service has systemd do it where that runs. `request` is borrowed. */
typedef void (*Launcher)(const LaunchRequest *request, Launched launched, gpointer data,
                         gpointer launcher_data);

/* Starts it as a child in a session of its own. */
void process_launch(const LaunchRequest *request, Launched launched, gpointer data, gpointer launcher_data);

/* A UNIX socket at `path` that listens, and that root alone may connect to; takes the place of an old one.
 */
int process_listen(const char *path, GError **error);

/* A log to append to; `ret_start`: where what comes now begins. */
int process_open_log(const char *path, goffset *ret_start, GError **error);

/* What it wrote from `start` on, as far as it goes into a message; NULL = nothing. */
char *process_last_words(const char *path, goffset start);
