/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/json.h"

#include <string.h>

JsonObject *json_make(const char *first_key, ...)
{
        JsonObject *object = json_object_new();
        va_list arguments;

        va_start(arguments, first_key);
        for (const char *key = first_key; key; key = va_arg(arguments, const char *)) {
                const char *name = key + 2;

                switch (key[0]) {
                case 's': {
                        const char *value = va_arg(arguments, const char *);
                        if (value)
                                json_object_set_string_member(object, name, value);
                        break;
                }
                case 'i':
                        json_object_set_int_member(object, name, va_arg(arguments, gint64));
                        break;
                case 'b':
                        json_object_set_boolean_member(object, name, va_arg(arguments, gboolean));
                        break;
                case 'o':
                        json_object_set_object_member(object, name, va_arg(arguments, JsonObject *));
                        break;
                case 'a':
                        json_object_set_array_member(object, name, va_arg(arguments, JsonArray *));
                        break;
                case 'n':
                        json_object_set_null_member(object, name);
                        break;
                default:
                        g_assert_not_reached();
                }
        }
        va_end(arguments);
        return object;
}

char *json_text(JsonObject *object)
{
        g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), object);

        return json_to_string(node, FALSE);
}

static JsonNode *member_of_type(JsonObject *object, const char *member, GType type)
{
        JsonNode *node = object ? json_object_get_member(object, member) : NULL;

        return node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == type ? node : NULL;
}

const char *json_string(JsonObject *object, const char *member)
{
        JsonNode *node = member_of_type(object, member, G_TYPE_STRING);

        return node ? json_node_get_string(node) : NULL;
}

gint64 json_integer(JsonObject *object, const char *member)
{
        JsonNode *node = member_of_type(object, member, G_TYPE_INT64);

        return node ? json_node_get_int(node) : 0;
}

gboolean json_boolean(JsonObject *object, const char *member)
{
        JsonNode *node = member_of_type(object, member, G_TYPE_BOOLEAN);

        return node && json_node_get_boolean(node);
}

JsonObject *json_object(JsonObject *object, const char *member)
{
        JsonNode *node = object ? json_object_get_member(object, member) : NULL;

        return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

JsonArray *json_array(JsonObject *object, const char *member)
{
        JsonNode *node = object ? json_object_get_member(object, member) : NULL;

        return node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
}

JsonObject *json_element(JsonArray *array, guint i)
{
        JsonNode *node = json_array_get_element(array, i);

        return JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

gboolean json_is_shallow(const char *text, gsize length, guint depth)
{
        gboolean in_string = FALSE;
        guint open = 0;

        for (gsize i = 0; i < length; i++) {
                char c = text[i];

                if (in_string && c == '\\')
                        i++;
                else if (c == '"')
                        in_string = !in_string;
                else if (in_string)
                        continue;
                else if (!g_ascii_isalnum(c) && !g_ascii_isspace(c) && !strchr("[]{},:.+-", c))
                        return FALSE;
                else if ((c == '[' || c == '{') && ++open > depth)
                        return FALSE;
                else if ((c == ']' || c == '}') && open > 0)
                        open--;
        }
        return TRUE;
}
