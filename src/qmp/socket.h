/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* The socket of a monitor, connected and not blocking; NULL with an error that names it. */

GSocket *monitor_socket_open(const char *path, GError **error);
/* Takes the descriptor, also where it fails. */
GSocket *monitor_socket_take(int fd, GError **error);
