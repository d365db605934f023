/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/trim.h"

#include <malloc.h>

#include <glib.h>

#define TRIM_SECONDS 1

static guint timer;

static gboolean on_trim(gpointer data)
{
        (void) data;
        timer = 0;
        malloc_trim(0);
        return G_SOURCE_REMOVE;
}

void trim_later(void)
{
        g_clear_handle_id(&timer, g_source_remove);
        timer = g_timeout_add_seconds(TRIM_SECONDS, on_trim, NULL);
}
