/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "variant.h"

#include <errno.h>
#include <string.h>

static int read_value(sd_bus_message *message, GVariant **value);

static int read_basic(sd_bus_message *message, char type, GVariant **value)
{
        union {
                guint8 y;
                int b;
                gint16 n;
                guint16 q;
                gint32 i;
                guint32 u;
                gint64 x;
                guint64 t;
                double d;
                const char *s;
        } basic;
        int r = type == SD_BUS_TYPE_UNIX_FD ? -EOPNOTSUPP : sd_bus_message_read_basic(message, type, &basic);

        if (r < 0)
                return r;
        switch (type) {
        case SD_BUS_TYPE_BYTE:
                *value = g_variant_new_byte(basic.y);
                break;
        case SD_BUS_TYPE_BOOLEAN:
                *value = g_variant_new_boolean(basic.b);
                break;
        case SD_BUS_TYPE_INT16:
                *value = g_variant_new_int16(basic.n);
                break;
        case SD_BUS_TYPE_UINT16:
                *value = g_variant_new_uint16(basic.q);
                break;
        case SD_BUS_TYPE_INT32:
                *value = g_variant_new_int32(basic.i);
                break;
        case SD_BUS_TYPE_UINT32:
                *value = g_variant_new_uint32(basic.u);
                break;
        case SD_BUS_TYPE_INT64:
                *value = g_variant_new_int64(basic.x);
                break;
        case SD_BUS_TYPE_UINT64:
                *value = g_variant_new_uint64(basic.t);
                break;
        case SD_BUS_TYPE_DOUBLE:
                *value = g_variant_new_double(basic.d);
                break;
        case SD_BUS_TYPE_STRING:
                *value = g_variant_new_string(basic.s);
                break;
        case SD_BUS_TYPE_OBJECT_PATH:
                *value = g_variant_new_object_path(basic.s);
                break;
        case SD_BUS_TYPE_SIGNATURE:
                *value = g_variant_new_signature(basic.s);
                break;
        default:
                return -EBADMSG;
        }
        return 0;
}

/* Each value up to the end of what was entered, as one of this type. */
static int read_members(sd_bus_message *message, const char *type, GVariant **value)
{
        g_auto(GVariantBuilder) builder;
        int end;

        g_variant_builder_init(&builder, (const GVariantType *) type);
        while ((end = sd_bus_message_at_end(message, FALSE)) == 0) {
                GVariant *member = NULL;
                int r = read_value(message, &member);

                if (r < 0)
                        return r;
                g_variant_builder_add_value(&builder, member);
        }
        if (end < 0)
                return end;
        *value = g_variant_builder_end(&builder);
        return 0;
}

static int read_container(sd_bus_message *message, char kind, const char *contents, GVariant **value)
{
        g_autofree char *type = NULL;
        GVariant *inner = NULL;
        int r = sd_bus_message_enter_container(message, kind, contents);

        if (r < 0)
                return r;
        switch (kind) {
        case SD_BUS_TYPE_ARRAY:
                type = g_strdup_printf("a%s", contents);
                break;
        case SD_BUS_TYPE_STRUCT:
                type = g_strdup_printf("(%s)", contents);
                break;
        case SD_BUS_TYPE_DICT_ENTRY:
                type = g_strdup_printf("{%s}", contents);
                break;
        default:
                break;
        }
        r = type ? read_members(message, type, value) : read_value(message, &inner);
        if (r < 0)
                return r;
        if (inner)
                *value = g_variant_new_variant(inner);
        return sd_bus_message_exit_container(message);
}

static int read_value(sd_bus_message *message, GVariant **value)
{
        const char *contents = NULL;
        char type = 0;
        int r = sd_bus_message_peek_type(message, &type, &contents);

        if (r < 0)
                return r;
        return contents ? read_container(message, type, contents, value) : read_basic(message, type, value);
}

int variant_from_message(sd_bus_message *message, GVariant **value)
{
        g_autofree char *type = g_strdup_printf("(%s)", sd_bus_message_get_signature(message, TRUE));
        int r = read_members(message, type, value);

        if (r >= 0)
                g_variant_ref_sink(*value);
        return r;
}

static int append_value(sd_bus_message *message, GVariant *value);

static int append_members(sd_bus_message *message, GVariant *container)
{
        for (gsize i = 0; i < g_variant_n_children(container); i++) {
                g_autoptr(GVariant) member = g_variant_get_child_value(container, i);
                int r = append_value(message, member);

                if (r < 0)
                        return r;
        }
        return 0;
}

static int append_container(sd_bus_message *message, char kind, const char *contents, GVariant *value)
{
        int r = sd_bus_message_open_container(message, kind, contents);

        if (r >= 0)
                r = append_members(message, value);
        return r < 0 ? r : sd_bus_message_close_container(message);
}

static int append_value(sd_bus_message *message, GVariant *value)
{
        const char *type = g_variant_get_type_string(value);
        g_autofree char *inside = strlen(type) > 2 ? g_strndup(type + 1, strlen(type) - 2) : NULL;

        switch (g_variant_classify(value)) {
        case G_VARIANT_CLASS_BOOLEAN: {
                int boolean = g_variant_get_boolean(value);

                return sd_bus_message_append_basic(message, *type, &boolean);
        }
        case G_VARIANT_CLASS_STRING:
        case G_VARIANT_CLASS_OBJECT_PATH:
        case G_VARIANT_CLASS_SIGNATURE:
                return sd_bus_message_append_basic(message, *type, g_variant_get_string(value, NULL));
        case G_VARIANT_CLASS_ARRAY:
                return append_container(message, SD_BUS_TYPE_ARRAY, type + 1, value);
        case G_VARIANT_CLASS_TUPLE:
                return append_container(message, SD_BUS_TYPE_STRUCT, inside, value);
        case G_VARIANT_CLASS_DICT_ENTRY:
                return append_container(message, SD_BUS_TYPE_DICT_ENTRY, inside, value);
        case G_VARIANT_CLASS_VARIANT: {
                g_autoptr(GVariant) inner = g_variant_get_variant(value);

                return append_container(message, SD_BUS_TYPE_VARIANT, g_variant_get_type_string(inner),
                                        value);
        }
        case G_VARIANT_CLASS_HANDLE: {
                int fd = g_variant_get_handle(value);

                return sd_bus_message_append_basic(message, *type, &fd);
        }
        case G_VARIANT_CLASS_MAYBE:
                return -EOPNOTSUPP;
        default:
                return sd_bus_message_append_basic(message, *type, g_variant_get_data(value));
        }
}

int variant_to_message(sd_bus_message *message, GVariant *tuple)
{
        return append_members(message, tuple);
}
