/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "image/account.h"

/* A qemu-nbd that serves an image which no QEMU has open, read-only, to the one client of the socket
 * `listener`, which is taken; it ends with that. `image` is what QEMU opens, in its form "json:{…}". Its
 * standard error is a pipe. */
GSubprocess *image_serve(const char *image, const char *export_name, Account *account, int listener,
                         GError **error);
