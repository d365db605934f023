/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "client.h"

/* What the completion of a shell asks for: `words` are those behind the program's name, the last of which is
 * to be completed ("" = a new one). Prints a candidate a line; without a service, or where a file is meant,
 * none. Nobody is asked for a password, and nothing is said of errors. */
void complete(Client *client, char **words);
