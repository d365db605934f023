/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "client.h"

/* The depth that a range has where no layer holds anything. */
#define MAP_NOTHING G_MAXUINT32

/* `ranges`: a(tttu) as Disk.Map() has them, of which `length` bytes from `start` on are drawn in `width`
 * characters: for each part of the disk the depth of the layer that holds the most of it ('0' to '9', then
 * 'a' to 'z', '+' for what is deeper), or '.' where none does. */
char *map_bar(GVariant *ranges, guint64 start, guint64 length, guint width);

/* The command, for the table in look.c. */
Status run_map(Client *client, char **arguments, GError **error);
extern const GOptionEntry map_options[];
