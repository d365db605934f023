/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/qmp.h"

/* A QmpConnection and, at the other end of a socket pair, the test in the part of QEMU. What the connection
 * calls is kept as lines in the order in which it came:
 *
 *   ready
 *   event NAME DATA TIME
 *   late COMMAND | caught up
 *   lost ERROR: TEXT
 *   reply TAG RESULT | reply TAG ERROR: TEXT
 */
typedef struct {
        QmpConnection *connection;
        int peer; /* QEMU's end, -1 once it is closed */
        guint watch;
        GString *received; /* what QEMU got and nobody took yet */
        GPtrArray *lines;
        guint checked;               /* lines that expect_line() has seen */
        const char *free_at;         /* the connection is freed inside the call that begins so */
        const char *execute_at;      /* a command "more" is sent there */
        gint64 deadline_of_the_test; /* monotonic */
} Monitor;

#define GREETING                                                                                        \
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": " \
        "\"Debian 1:7.2\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define AGREED "{\"return\": {}, \"id\": 1}\r\n"

extern const QmpHandlers monitor_handlers;

Monitor *monitor_new_unconnected(void);
/* Connected over a socket pair; nothing has been said yet. */
Monitor *monitor_new(void);
/* The same, after the negotiation; ids of commands start at 2. */
Monitor *monitor_new_ready(void);
/* Fails where a line came that the test did not expect. */
void monitor_free(Monitor *monitor);

/* QEMU's side */
void monitor_say(Monitor *monitor, const char *text);
void monitor_say_bytes(Monitor *monitor, const char *bytes, gsize length);
void monitor_hang_up(Monitor *monitor);
/* Waits for the next command and gives it as it came over. */
char *monitor_take_command(Monitor *monitor);
void monitor_listen_again(Monitor *monitor);

/* Sends a command whose reply is logged with `tag`. */
void monitor_execute(Monitor *monitor, const char *command, JsonObject *arguments, int tag);

/* Waits for the next line and compares it. */
void expect_line(Monitor *monitor, const char *line);
void expect_line_starts(Monitor *monitor, const char *start);
/* Nothing comes any more of what was said until now. */
void expect_nothing(Monitor *monitor);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Monitor, monitor_free)
