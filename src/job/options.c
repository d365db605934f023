/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/options.h"

#include <string.h>

#include "base/json.h"

static void option_free(gpointer data)
{
        Option *option = data;

        g_free(option->key);
        g_free(option->text);
        g_free(option);
}

Options *options_new(void)
{
        return g_ptr_array_new_with_free_func(option_free);
}

void options_add(Options *options, const char *key, char type, const char *text, guint64 number)
{
        Option *option = g_new(Option, 1);

        *option = (Option){ g_strdup(key), type, g_strdup(text), number };
        g_ptr_array_add(options, option);
}

static const Option *find(const Options *options, const char *key)
{
        for (guint i = 0; i < options->len; i++) {
                const Option *option = options->pdata[i];
                if (strcmp(option->key, key) == 0)
                        return option;
        }
        return NULL;
}

const char *options_text(const Options *options, const char *key)
{
        const Option *option = find(options, key);

        return option ? option->text : NULL;
}

guint64 options_number(const Options *options, const char *key)
{
        const Option *option = find(options, key);

        return option ? option->number : 0;
}

gboolean options_has(const Options *options, const char *key)
{
        return find(options, key) != NULL;
}

gboolean options_given(const Options *options, const char *key)
{
        return options_text(options, key) || options_flag(options, key);
}

gboolean options_flag(const Options *options, const char *key)
{
        return options_number(options, key) != 0;
}

JsonObject *options_to_json(const Options *options)
{
        JsonObject *object = json_object_new();

        for (guint i = 0; i < options->len; i++) {
                const Option *option = options->pdata[i];
                char type[2] = { option->type };

                json_object_set_object_member(object, option->key,
                                              json_make("s:type", type, "s:text", option->text, "i:number",
                                                        (gint64) option->number, NULL));
        }
        return object;
}

Options *options_from_json(JsonObject *object)
{
        Options *options = options_new();
        g_autoptr(GList) keys = object ? json_object_get_members(object) : NULL;

        for (GList *key = keys; key; key = key->next) {
                JsonObject *option = json_object(object, key->data);
                const char *type = json_string(option, "type");

                if (type && *type && strchr("sbtu", *type))
                        options_add(options, key->data, *type, json_string(option, "text"),
                                    (guint64) json_integer(option, "number"));
        }
        return options;
}
