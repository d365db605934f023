/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "client.h"

/* What to do about an error, by its D-Bus name and by the command that runs; one that only has a "{ctl}" in
 * it names a command to type. NULL: nothing more to say. Free it. */
char *hint_for(const Client *client, const char *error_name);

/* The error for people: its short name, its message and, on a line of its own, the hint. */
char *hint_explain(const Client *client, const char *error_name, const char *message);
