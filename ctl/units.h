/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Sizes and speeds as people write them: bytes, with K, M, G, T, P or KiB, MiB, … (1024), KB, MB, … (1000);
 * a speed may end in "/s". A fraction is taken ("1.5G") where it makes whole bytes. What is not understood,
 * or more than 2^63 - 1: FALSE with an error of CLIENT_ERROR, STATUS_USAGE, that names `what`. */
gboolean units_parse_size(const char *text, const char *what, guint64 *bytes, GError **error);
gboolean units_parse_speed(const char *text, const char *what, guint64 *bytes_per_second, GError **error);

/* "1.5 GiB", "12 MiB/s" ("no limit" for 0), "3 min 12 s", "2026-01-31 12:00:05" (local time; "-" for 0). */
char *units_format_size(guint64 bytes);
char *units_format_speed(guint64 bytes_per_second);
char *units_format_duration(guint64 microseconds);
char *units_format_time(guint64 microseconds_since_epoch);
