/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "values.h"

const char *value_text(GVariant *values, const char *key)
{
        const char *text = "";

        if (!g_variant_lookup(values, key, "&s", &text))
                g_variant_lookup(values, key, "&o", &text);
        return text;
}

guint64 value_number(GVariant *values, const char *key)
{
        guint64 number = 0;

        g_variant_lookup(values, key, "t", &number);
        return number;
}

gboolean value_flag(GVariant *values, const char *key)
{
        gboolean flag = FALSE;

        return g_variant_lookup(values, key, "b", &flag) && flag;
}

GVariant *no_options(void)
{
        return g_variant_new_array(G_VARIANT_TYPE("{sv}"), NULL, 0);
}
