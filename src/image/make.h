/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

#define TEMPLATE_MAX (64 * 1024 * 1024) /* bytes */

/* Where there is no file at `path`, one with the contents of `template` is there afterwards.
 * Errors: NoSuchImage (no template), NoSpace, InvalidArgument, Failed. */
gboolean image_make(const char *path, const char *template, GError **error);
