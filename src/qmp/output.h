/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* What goes out over a connected stream socket, in order, as fast as the other end takes it; a descriptor
 * may go along with a text (SCM_RIGHTS). */
typedef struct Output Output;

Output *output_new(GSocket *socket);

/* Closes the descriptors that were not sent. */
void output_free(Output *output);

/* `text` is taken. `fd`, where it is not -1, is duplicated and rides on the first byte of the text; where it
 * cannot be duplicated, the text goes without. */
void output_add(Output *output, char *text, int fd);
