/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "options.h"

#include <string.h>

#include "base/error.h"

const OptionRule no_options[] = { { .key = NULL } };

static const char *const type_names[128] = {
        ['s'] = "a string (s)",
        ['b'] = "a boolean (b)",
        ['t'] = "an unsigned 64-bit integer (t)",
        ['u'] = "an unsigned 32-bit integer (u)",
};

static const OptionRule *find_rule(const OptionRule *rules, const char *key)
{
        for (; rules->key; rules++)
                if (strcmp(rules->key, key) == 0)
                        return rules;
        return NULL;
}

static char *list_keys(const OptionRule *rules)
{
        GString *text = g_string_new(NULL);

        for (; rules->key; rules++)
                g_string_append_printf(text, "%s%s", text->len ? ", " : "", rules->key);
        return g_string_free(text, FALSE);
}

static gboolean check_text(const OptionRule *rule, const char *text, GError **error)
{
        g_autofree char *allowed = NULL;

        if (rule->values ? g_strv_contains(rule->values, text) : *text != '\0')
                return TRUE;
        allowed = rule->values ? g_strjoinv("', '", (char **) rule->values) : NULL;
        if (allowed)
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "option '%s': '%s' is none of '%s'",
                            rule->key, text, allowed);
        else
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "option '%s' is empty", rule->key);
        return FALSE;
}

static gboolean check_number(const OptionRule *rule, guint64 number, GError **error)
{
        if (!rule->maximum || number <= rule->maximum)
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                    "option '%s': %" G_GUINT64_FORMAT " is out of range, at most %" G_GUINT64_FORMAT,
                    rule->key, number, rule->maximum);
        return FALSE;
}

static gboolean read_value(sd_bus_message *message, const OptionRule *rule, Options *options, GError **error)
{
        const char signature[] = { rule->type, '\0' };
        const char *text = NULL, *given = NULL;
        union {
                const char *text;
                int flag;
                guint32 number;
                guint64 big;
        } value = { .big = 0 };
        guint64 number = 0;

        sd_bus_message_peek_type(message, NULL, &given);
        if (g_strcmp0(given, signature) != 0) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "option '%s' is %s, not of type '%s'", rule->key,
                            type_names[(guint8) rule->type], given ? given : "");
                return FALSE;
        }
        if (sd_bus_message_read(message, "v", signature, &value) < 0) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "option '%s' cannot be read",
                            rule->key);
                return FALSE;
        }
        switch (rule->type) {
        case 's':
                text = value.text;
                break;
        case 'b':
                number = value.flag != 0;
                break;
        case 'u':
                number = value.number;
                break;
        default:
                number = value.big;
        }
        if (rule->type == 's' ? !check_text(rule, text, error) : !check_number(rule, number, error))
                return FALSE;
        options_add(options, rule->key, rule->type, text, number);
        return TRUE;
}

static gboolean read_entry(sd_bus_message *message, const OptionRule *rules, Options *options,
                           GError **error)
{
        const OptionRule *rule;
        const char *key;

        if (sd_bus_message_read(message, "s", &key) < 0) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "the options cannot be read");
                return FALSE;
        }
        rule = find_rule(rules, key);
        if (!rule) {
                g_autofree char *known = list_keys(rules);
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "unknown option '%s'; %s%s", key,
                            *known ? "known are " : "this method has none", known);
                return FALSE;
        }
        for (guint i = 0; i < options->len; i++) {
                if (strcmp(((Option *) options->pdata[i])->key, key) != 0)
                        continue;
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "option '%s' is given twice", key);
                return FALSE;
        }
        return read_value(message, rule, options, error);
}

Options *options_read(sd_bus_message *message, const OptionRule *rules, GError **error)
{
        g_autoptr(GPtrArray) options = options_new();
        g_autoptr(GError) first = NULL;
        guint count = 0;

        if (sd_bus_message_enter_container(message, 'a', "{sv}") < 0) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "the options cannot be read");
                return NULL;
        }
        while (sd_bus_message_skip(message, "{sv}") > 0)
                count++;
        if (count > OPTIONS_MAX) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED, "%u options, more than %d", count,
                            OPTIONS_MAX);
                return NULL;
        }
        sd_bus_message_rewind(message, 0);
        while (!first && sd_bus_message_enter_container(message, 'e', "sv") > 0) {
                if (read_entry(message, rules, options, &first))
                        sd_bus_message_exit_container(message);
        }
        if (first) {
                g_propagate_error(error, g_steal_pointer(&first));
                return NULL;
        }
        sd_bus_message_exit_container(message);
        return g_steal_pointer(&options);
}
