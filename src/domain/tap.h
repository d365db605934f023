/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "domain/definition.h"
#include "image/account.h"

/* The taps of a domain whose interfaces are plugged into bridges of the host. Their names come from its UUID
 * and the place of the interface, "bj0123456789-0", so that nobody has to remember them. They outlive the
 * service, as QEMU does. */

/* Their names, one for each such interface, in order. */
GStrv taps_names(const Definition *definition);
/* Makes them, gives them to `account`, plugs them in and sets them up. Errors: NotSupported, InvalidArgument
 * (no such bridge), Failed; none is left then. */
gboolean taps_make(const Definition *definition, const Account *account, GError **error);
void taps_remove(const Definition *definition);
