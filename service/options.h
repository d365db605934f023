/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-bus.h>

#include "job/options.h"

/* A method's options as data: what is not in its table is refused, naming the key, before anything is done.
 */
typedef struct {
        const char *key;
        char type;                 /* D-Bus's letter: s b t u */
        const char *const *values; /* of a text: the only ones allowed; NULL: any but the empty one */
        guint64 maximum;           /* of a number; 0: what the type holds */
} OptionRule;

/* Reads the a{sv} that comes next in the message. `rules` end with a NULL key. */
Options *options_read(sd_bus_message *message, const OptionRule *rules, GError **error);

extern const OptionRule no_options[];
