/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "monitor.h"

/* A QEMU, or a storage daemon, that has a socket that listens for its standard input: its monitor. Its
 * directory is that of images.h. */
typedef struct {
        Monitor *monitor;
        GPid pid;
} RealQemu;

RealQemu real_qemu_start(GStrv command);
/* What a command returns, which has to succeed. */
JsonNode *real_qemu_ask(const RealQemu *process, const char *command, JsonObject *arguments);
void real_qemu_tell(const RealQemu *process, const char *command, JsonObject *arguments);
/* The event as monitor.h has it. */
const char *real_qemu_wait_for_event(const RealQemu *process, const char *name);
/* By "quit", with status 0. */
void real_qemu_end(RealQemu *process);

/* The element of a list that has that member, which is there. */
JsonObject *find_element(const JsonNode *list, const char *member, const char *value);
