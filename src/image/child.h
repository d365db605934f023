/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "image/account.h"

/* For a program of QEMU's that looks at images of guests: with the rights of `account`, which has to stay
 * until the child is there, and with limits to what an image can make it do. It writes nothing. */
GSubprocessLauncher *child_launcher(GSubprocessFlags flags, Account *account);
