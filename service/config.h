/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* The configuration file: a key file as GLib reads it, all of it may be left out.
 *
 *   [Images]
 *   # Where overlays are looked for that stand on an image: absolute, with a colon between two.
 *   ImageDirectories=/var/lib/blockjobd/images:/var/lib/libvirt/images
 */
typedef struct {
        GStrv image_directories;
} Config;

void config_clear(Config *config);

/* Reads `path`. NULL: the usual file, which need not be there. What is not understood is an error, with the
 * name of the file, for what is meant to protect an image must not be ignored. Errors: InvalidArgument,
 * Failed. */
gboolean config_read(Config *config, const char *path, GError **error);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Config, config_clear)
