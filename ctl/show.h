/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "client.h"

/* A layer of a chain, and below it a line for each user; `seen`: what InspectImage says of it (NULL = it is
 * not known); `own`: the user for whom it is shown (NULL = none). */
void show_layer(const char *indent, gboolean last, GVariant *layer, GVariant *seen, const char *own);

/* "paused (prelaunch)" */
char *show_state(GVariant *domain);

/* The commands, for the table in look.c. */
Status run_show(Client *client, char **arguments, GError **error);
Status run_inspect(Client *client, char **arguments, GError **error);
extern char *inspect_format; /* NULL = as the header says */
