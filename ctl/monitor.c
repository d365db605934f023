/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <string.h>

#include "output.h"
#include "variant.h"
#include "verb.h"
#include "watch.h"

/* The command that tells what the service tells, as it comes. */

enum { LONGEST_VALUE = 60 }; /* a whole chain is for --json */

/* "web/vda", "job 4k2j", or nothing for the service as a whole */
static char *name_of(const char *path)
{
        g_autofree char *name = NULL;

        if (g_str_has_prefix(path, BLOCKJOBD_ROOT "/domain/"))
                return disk_name_of(path);
        if (!g_str_has_prefix(path, BLOCKJOBD_ROOT "/job/"))
                return g_strdup("-");
        name = last_name_of(path);
        return g_strconcat("job ", name, NULL);
}

static void append_value(GString *line, GVariant *value)
{
        gboolean is_text = g_variant_is_of_type(value, G_VARIANT_TYPE_STRING) ||
                           g_variant_is_of_type(value, G_VARIANT_TYPE_OBJECT_PATH);
        g_autofree char *text =
                is_text ? printable(g_variant_get_string(value, NULL)) : g_variant_print(value, FALSE);
        gboolean is_long = !is_text && g_utf8_strlen(text, -1) > LONGEST_VALUE;
        g_autofree char *cut = g_utf8_substring(text, 0, is_long ? LONGEST_VALUE : g_utf8_strlen(text, -1));

        g_string_append_printf(line, "%s%s", *cut ? cut : "''", is_long ? "…" : "");
}

/* "State=running Current=4096" */
static void append_changes(GString *line, GVariant *changed)
{
        GVariantIter iter;
        const char *key;
        GVariant *value;

        g_variant_iter_init(&iter, changed);
        while (g_variant_iter_loop(&iter, "{&sv}", &key, &value)) {
                g_string_append_printf(line, " %s=", key);
                append_value(line, value);
        }
}

static void append_arguments(GString *line, const char *member, GVariant *body)
{
        g_string_append(line, member);
        for (gsize i = 0; i < g_variant_n_children(body); i++) {
                g_autoptr(GVariant) argument = g_variant_get_child_value(body, i);

                g_string_append_c(line, ' ');
                append_value(line, argument);
        }
}

static void print_line(const char *path, const char *member, GVariant *body)
{
        g_autoptr(GDateTime) now = g_date_time_new_now_local();
        g_autofree char *time = g_date_time_format(now, "%H:%M:%S");
        g_autofree char *name = name_of(path);
        g_autofree char *fraction = g_strdup_printf("%03d", g_date_time_get_microsecond(now) / 1000);
        g_autoptr(GString) line = g_string_new(NULL);
        const char *interface = "", *before = "", *owner = "";

        if (strcmp(member, "PropertiesChanged") == 0 &&
            g_variant_check_format_string(body, "(&s@a{sv}@as)", FALSE)) {
                g_autoptr(GVariant) changed = g_variant_get_child_value(body, 1);

                g_string_append(line, "changed");
                append_changes(line, changed);
        } else if (strcmp(member, "NameOwnerChanged") == 0 &&
                   g_variant_check_format_string(body, "(&s&s&s)", FALSE)) {
                g_variant_get(body, "(&s&s&s)", &interface, &before, &owner);
                g_string_append(line, *owner ? "the service is there" : "the service has gone");
        } else
                append_arguments(line, member, body);
        printf("%s%s.%s%s  %s%s%s  %s\n", style(STYLE_DIM), time, fraction, style(STYLE_PLAIN),
               style(STYLE_BOLD), name, style(STYLE_PLAIN), line->str);
}

static void on_heard(sd_bus_message *message, gpointer data)
{
        const Client *client = data;
        g_autoptr(GVariant) body = NULL;
        g_autoptr(GVariant) all = NULL;
        g_auto(GVariantDict) object = G_VARIANT_DICT_INIT(NULL);

        if (variant_from_message(message, &body) < 0)
                return;
        if (client->json == JSON_OFF)
                print_line(sd_bus_message_get_path(message), sd_bus_message_get_member(message), body);
        else {
                g_variant_dict_insert(&object, "Time", "t", (guint64) g_get_real_time());
                g_variant_dict_insert(&object, "Path", "s", sd_bus_message_get_path(message));
                g_variant_dict_insert(&object, "Interface", "s", sd_bus_message_get_interface(message));
                g_variant_dict_insert(&object, "Member", "s", sd_bus_message_get_member(message));
                g_variant_dict_insert(&object, "Arguments", "@*", body);
                all = g_variant_ref_sink(g_variant_dict_end(&object));
                output_json(client, all);
        }
        fflush(stdout);
}

static Status run_monitor(Client *client, char **arguments, GError **error)
{
        g_autoptr(Watch) watch = watch_new(client, error);

        (void) arguments;
        if (!watch || !watch_everything(watch, on_heard, client, error))
                return STATUS_ERROR;
        return STATUS_DONE;
}

const Verb verbs_monitor[] = {
        { "monitor", "", "Signals of the service as they come, until Ctrl-C", 0, 0, NULL, run_monitor },
        { 0 },
};
