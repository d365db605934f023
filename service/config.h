/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* The configuration file: a key file as GLib reads it, all of it may be left out. What there is to be set
 * stands in `config_settings`; units/blockjobd.conf has each of them, and blockjobd.conf(5) tells of it. */
typedef struct {
        GStrv image_directories; /* absolute */
        guint keep_finished_seconds;
        guint keep_finished; /* of a domain */
        char *user;
        guint start_seconds;
} Config;

typedef struct ConfigSetting {
        const char *section, *name;
        const char *usual; /* as it would stand in the file */
        /* Takes the value into `field`. FALSE: it is none; `error` says what one is. */
        gboolean (*take)(const struct ConfigSetting *setting, const char *value, gpointer field,
                         char **error);
        gsize offset;           /* of the field in Config */
        guint minimum, maximum; /* of a number */
} ConfigSetting;

extern const ConfigSetting config_settings[]; /* ended by a NULL name */

void config_clear(Config *config);

/* Reads `path`. NULL: the usual file, which need not be there. What is not understood is an error, with the
 * name of the file, for what is meant to protect an image must not be ignored. Errors: InvalidArgument,
 * Failed. */
gboolean config_read(Config *config, const char *path, GError **error);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Config, config_clear)
