/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "complete.h"
#include "output.h"
#include "verb.h"

/* blockjobctl: the command line, to a verb and its options. */

const Verb *const verb_tables[] = {
        verbs_look, verbs_domain, verbs_start, verbs_control, verbs_monitor, NULL
};

static char *host, *machine;
static gboolean no_ask_password, no_pager, show_version;
static Client client;

static gboolean take_json(const char *name, const char *value, gpointer data, GError **error)
{
        (void) name;
        (void) data;
        if (!value || strcmp(value, "pretty") == 0)
                client.json = JSON_PRETTY;
        else if (strcmp(value, "short") == 0)
                client.json = JSON_SHORT;
        else if (strcmp(value, "off") == 0)
                client.json = JSON_OFF;
        else {
                g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                            "--json takes pretty, short or off, not '%s'", value);
                return FALSE;
        }
        return TRUE;
}

const GOptionEntry global_options[] = {
        { "json", 0, G_OPTION_FLAG_OPTIONAL_ARG, G_OPTION_ARG_CALLBACK, take_json,
          "Print JSON: pretty (without MODE), short, off", "MODE" },
        { "quiet", 'q', 0, G_OPTION_ARG_NONE, &client.quiet, "Print nothing but what went wrong", NULL },
        { "host", 'H', 0, G_OPTION_ARG_STRING, &host, "Work on another host, over ssh", "[USER@]HOST" },
        { "machine", 'M', 0, G_OPTION_ARG_STRING, &machine, "Work in a container", "CONTAINER" },
        { "no-ask-password", 0, 0, G_OPTION_ARG_NONE, &no_ask_password,
          "Do not ask for a password where one would be needed", NULL },
        { "no-pager", 0, 0, G_OPTION_ARG_NONE, &no_pager, "Do not use a pager", NULL },
        { "version", 0, 0, G_OPTION_ARG_NONE, &show_version, "Print the version", NULL },
        { 0 },
};

const Verb *verb_find(const char *name)
{
        for (gsize i = 0; verb_tables[i]; i++)
                for (const Verb *verb = verb_tables[i]; verb->name; verb++)
                        if (strcmp(verb->name, name) == 0)
                                return verb;
        return NULL;
}

static char *list_of_verbs(void)
{
        GString *text = g_string_new("Commands:");

        for (gsize i = 0; verb_tables[i]; i++) {
                g_string_append_c(text, '\n');
                for (const Verb *verb = verb_tables[i]; verb->name; verb++) {
                        g_autofree char *call = g_strdup_printf("%s %s", verb->name, verb->arguments);

                        int padding = 32 - (int) g_utf8_strlen(call, -1);

                        g_string_append_printf(text, "  %s%*s %s\n", call, MAX(padding, 0), "",
                                               verb->summary);
                }
        }
        g_string_append(
                text,
                "\nblockjobctl COMMAND --help tells the options of a command; blockjobctl(1) all of it.");
        return g_string_free(text, FALSE);
}

static void usage_error(const char *message, const char *verb)
{
        fprintf(stderr, "blockjobctl: %s\nSee: blockjobctl %s%s--help\n", message, verb ? verb : "",
                verb ? " " : "");
}

/* The options before the command. */
static gboolean parse_globals(int *argc, char ***argv, GError **error)
{
        g_autoptr(GOptionContext) context = g_option_context_new("COMMAND [ARGUMENT…]");
        g_autofree char *verbs = list_of_verbs();

        g_option_context_set_summary(context, "Block jobs of QEMU: look at disks, merge, copy, back up.");
        g_option_context_set_description(context, verbs);
        g_option_context_add_main_entries(context, global_options, NULL);
        g_option_context_set_strict_posix(context, TRUE);
        return g_option_context_parse(context, argc, argv, error);
}

/* GLib leaves a "--" where it is when what looks like an option follows. */
static void drop_separator(int *argc, char **argv)
{
        for (int i = 1; i < *argc; i++)
                if (strcmp(argv[i], "--") == 0) {
                        memmove(argv + i, argv + i + 1, (gsize) (*argc - i) * sizeof(*argv));
                        (*argc)--;
                        return;
                }
}

/* Those of the command, among which the others may stand as well. */
static gboolean parse_verb(const Verb *verb, int *argc, char ***argv, GError **error)
{
        g_autofree char *parameters = g_strdup_printf("%s", verb->arguments);
        g_autofree char *name = g_strdup_printf("blockjobctl %s", verb->name);
        g_autoptr(GOptionContext) context = g_option_context_new(parameters);

        g_set_prgname(name);
        g_option_context_set_summary(context, verb->summary);
        if (verb->options)
                g_option_context_add_main_entries(context, verb->options, NULL);
        g_option_context_add_main_entries(context, global_options, NULL);
        if (!g_option_context_parse(context, argc, argv, error))
                return FALSE;
        drop_separator(argc, *argv);
        return TRUE;
}

static gboolean check_arguments(const Verb *verb, char **arguments, GError **error)
{
        guint count = g_strv_length(arguments);

        /* The bus carries no other text. */
        for (guint i = 0; i < count; i++)
                if (!g_utf8_validate(arguments[i], -1, NULL)) {
                        g_autofree char *clean = printable(arguments[i]);

                        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "'%s' is not UTF-8",
                                    clean);
                        return FALSE;
                }
        if (count >= verb->minimum && count <= verb->maximum)
                return TRUE;
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED, "%s takes %s%s", verb->name,
                    *verb->arguments ? verb->arguments : "no arguments",
                    count < verb->minimum ? "" : ", nothing else");
        return FALSE;
}

static gboolean set_up_client(const Verb *verb, GError **error)
{
        if (host && machine) {
                g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED, "one of --host and --machine");
                return FALSE;
        }
        client.transport = host ? TRANSPORT_HOST : machine ? TRANSPORT_MACHINE : TRANSPORT_LOCAL;
        client.where = host ? host : machine;
        client.ask_password = !no_ask_password;
        client.use_pager = !no_pager;
        client.verb = verb->name;
        return TRUE;
}

static Status run(const Verb *verb, char **arguments)
{
        g_autoptr(GError) error = NULL;
        Status status =
                client_connect(&client, &error) ? verb->run(&client, arguments, &error) : STATUS_ERROR;

        output_end();
        client_close(&client);
        if (!error)
                return status;
        fprintf(stderr, "blockjobctl: %s\n", error->message);
        return error->domain == CLIENT_ERROR ? (Status) error->code : STATUS_ERROR;
}

int main(int argc, char **argv)
{
        g_autoptr(GError) error = NULL;
        const Verb *verb = NULL;

        setlocale(LC_ALL, "");
        /* Not among the commands: it is the shells that type it. */
        if (argc > 1 && strcmp(argv[1], "complete") == 0) {
                complete(&client, argv + 2);
                client_close(&client);
                return STATUS_DONE;
        }
        if (!parse_globals(&argc, &argv, &error)) {
                usage_error(error->message, NULL);
                return STATUS_USAGE;
        }
        if (show_version) {
                puts("blockjobctl " BLOCKJOBD_VERSION);
                return STATUS_DONE;
        }
        verb = verb_find(argc > 1 ? argv[1] : "list");
        if (!verb) {
                g_autofree char *message = g_strdup_printf("there is no command '%s'", argv[1]);

                usage_error(message, NULL);
                return STATUS_USAGE;
        }
        if (argc > 1) {
                argv++;
                argc--;
        }
        if (!parse_verb(verb, &argc, &argv, &error) || !check_arguments(verb, argv + 1, &error) ||
            !set_up_client(verb, &error)) {
                usage_error(error->message, verb->name);
                return STATUS_USAGE;
        }
        return (int) run(verb, argv + 1);
}
