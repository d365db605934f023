/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "units.h"

#include <math.h>
#include <string.h>

#include "client.h"

static const char prefixes[] = "KMGTP";

/* 0: no unit. */
static guint64 factor_of(const char *unit)
{
        const char *prefix = *unit ? strchr(prefixes, g_ascii_toupper(*unit)) : NULL;
        guint64 base = 1024, factor = 1;

        if (!prefix)
                return *unit == '\0' || g_ascii_strcasecmp(unit, "B") == 0 ? 1 : 0;
        if (g_ascii_strcasecmp(unit + 1, "B") == 0)
                base = 1000;
        else if (unit[1] != '\0' && g_ascii_strcasecmp(unit + 1, "iB") != 0)
                return 0;
        for (const char *p = prefixes; p <= prefix; p++)
                factor *= base;
        return factor;
}

static gboolean parse(const char *text, guint64 *bytes)
{
        gsize length = strspn(text, "0123456789.");
        g_autofree char *number = g_strndup(text, length);
        const char *unit = text + length + strspn(text + length, " ");
        guint64 factor = factor_of(unit);
        guint64 whole = 0;
        double size;
        char *end = NULL;

        if (!g_ascii_isdigit(*text) || factor == 0)
                return FALSE;
        /* exact beyond what a double holds */
        if (g_ascii_string_to_unsigned(number, 10, 0, G_MAXINT64 / factor, &whole, NULL)) {
                *bytes = whole * factor;
                return TRUE;
        }
        size = g_ascii_strtod(number, &end) * (double) factor;
        if (*end != '\0' || !strchr(number, '.') || size >= (double) G_MAXINT64 || floor(size) != size)
                return FALSE;
        *bytes = (guint64) size;
        return TRUE;
}

gboolean units_parse_size(const char *text, const char *what, guint64 *bytes, GError **error)
{
        if (parse(text, bytes))
                return TRUE;
        g_set_error(error, CLIENT_ERROR, STATUS_USAGE,
                    "%s: '%s' is no size; write bytes, or 512M, 1.5G, 20GB", what, text);
        return FALSE;
}

gboolean units_parse_speed(const char *text, const char *what, guint64 *bytes_per_second, GError **error)
{
        g_autofree char *size =
                g_str_has_suffix(text, "/s") ? g_strndup(text, strlen(text) - 2) : g_strdup(text);

        if (parse(size, bytes_per_second))
                return TRUE;
        g_set_error(error, CLIENT_ERROR, STATUS_USAGE,
                    "%s: '%s' is no speed; write bytes per second, or 50M, 1.5GiB/s; 0 is no limit", what,
                    text);
        return FALSE;
}

char *units_format_size(guint64 bytes)
{
        double size = (double) bytes;
        int prefix = -1;

        while (size >= 1023.95 && prefixes[prefix + 1]) {
                size /= 1024;
                prefix++;
        }
        if (prefix < 0)
                return g_strdup_printf("%" G_GUINT64_FORMAT " B", bytes);
        return g_strdup_printf("%.*f %ciB", size < 99.95 && floor(size) != size ? 1 : 0, size,
                               prefixes[prefix]);
}

char *units_format_speed(guint64 bytes_per_second)
{
        g_autofree char *size = units_format_size(bytes_per_second);

        return bytes_per_second ? g_strconcat(size, "/s", NULL) : g_strdup("no limit");
}

char *units_format_duration(guint64 microseconds)
{
        guint64 seconds = (microseconds + G_USEC_PER_SEC / 2) / G_USEC_PER_SEC;

        if (microseconds < G_USEC_PER_SEC)
                return g_strdup_printf("%.1f s", (double) microseconds / G_USEC_PER_SEC);
        if (seconds < 60)
                return g_strdup_printf("%" G_GUINT64_FORMAT " s", seconds);
        if (seconds < 3600)
                return g_strdup_printf("%" G_GUINT64_FORMAT " min %" G_GUINT64_FORMAT " s", seconds / 60,
                                       seconds % 60);
        return g_strdup_printf("%" G_GUINT64_FORMAT " h %" G_GUINT64_FORMAT " min", seconds / 3600,
                               seconds / 60 % 60);
}

char *units_format_time(guint64 microseconds_since_epoch)
{
        g_autoptr(GDateTime) time =
                g_date_time_new_from_unix_local((gint64) (microseconds_since_epoch / G_USEC_PER_SEC));

        return microseconds_since_epoch && time ? g_date_time_format(time, "%Y-%m-%d %H:%M:%S")
                                                : g_strdup("-");
}
