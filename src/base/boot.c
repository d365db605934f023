/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/boot.h"

#include <glib.h>

const char *boot_id(void)
{
        static char *id;

        if (!id && g_file_get_contents("/proc/sys/kernel/random/boot_id", &id, NULL, NULL))
                g_strstrip(id);
        return id ? id : "";
}
