/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/name.h"

ImageName *image_name_new(const char *source, const char *format)
{
        ImageName *name = g_new(ImageName, 1);

        *name = (ImageName){ g_strdup(source), g_strdup(format) };
        return name;
}

void image_name_clear(ImageName *name)
{
        g_free(name->source);
        g_free(name->format);
}

static void image_name_free(gpointer data)
{
        image_name_clear(data);
        g_free(data);
}

GPtrArray *image_names_new(void)
{
        return g_ptr_array_new_with_free_func(image_name_free);
}
