/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* An image of which only its name is known. */
typedef struct {
        char *source; /* absolute path, or a URI as job/target-uri.h has them; "" = no medium */
        char *format; /* "raw", "qcow2"; NULL = not known */
} ImageName;

ImageName *image_name_new(const char *source, const char *format);
void image_name_clear(ImageName *name);
/* An empty list of ImageName, which it frees. */
GPtrArray *image_names_new(void);
