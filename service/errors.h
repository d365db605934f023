/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>
#include <systemd/sd-bus.h>

/* "org.blockjobd1.Error.NotReady" for a GError; the text goes over as it is. */
char *error_bus_name(const GError *error);

/* The same from a code of BJ_ERROR; "" for -1. */
char *error_bus_name_of_code(int code);
