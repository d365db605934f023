/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* What a dictionary of the bus (a{sv}) has under a key: "", 0 or FALSE where there is no such value. A text
 * is one of a string or an object path, and lives as long as the dictionary. */
const char *value_text(GVariant *values, const char *key);
guint64 value_number(GVariant *values, const char *key);
gboolean value_flag(GVariant *values, const char *key);

/* The options of a call that is given none. */
GVariant *no_options(void);
