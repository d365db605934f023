/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "complete.h"

#include <stdio.h>
#include <string.h>

#include "values.h"
#include "verb.h"

/* Who presses a key waits no longer than that for a service that hangs. */
#define PATIENCE (2 * G_USEC_PER_SEC)

typedef struct {
        Client *client;
        GVariant *objects; /* as far as they have been needed */
        const char *last;
        char *before;     /* what stands before `last` in the same word: "--base=" */
        const char *disk; /* as the user named it; NULL: not yet */
} Completion;

static void offer(const Completion *completion, const char *candidate)
{
        if (*candidate && g_str_has_prefix(candidate, completion->last) && !strpbrk(candidate, "\n\r"))
                printf("%s%s\n", completion->before ? completion->before : "", candidate);
}

/* ---- what is on the bus ---- */

static GVariant *objects_of(Completion *completion)
{
        Client *client = completion->client;

        /* Another host's would take a connection for each key. */
        if (!completion->objects && client->transport == TRANSPORT_LOCAL && client_connect(client, NULL))
                completion->objects = client_objects(client, NULL);
        return completion->objects;
}

static void each_object(Completion *completion, const char *interface, ObjectFound found)
{
        GVariant *objects = objects_of(completion);

        if (objects)
                objects_each(objects, interface, found, completion);
}

static void offer_name(const char *path, GVariant *properties, gpointer completion)
{
        g_autofree char *name = disk_name_of(path);

        (void) properties;
        offer(completion, name);
}

static void offer_id(const char *path, GVariant *properties, gpointer completion)
{
        g_autofree char *id = last_name_of(path);
        g_autofree char *name = disk_name_of(value_text(properties, "Disk"));

        offer(completion, id);
        /* The job that runs on a disk goes by the disk's name as well. */
        if (*value_text(properties, "Result") == '\0')
                offer(completion, name);
}

static void offer_layers(const char *path, GVariant *properties, gpointer completion)
{
        g_autoptr(GVariant) chain = g_variant_lookup_value(properties, "Chain", G_VARIANT_TYPE("aa{sv}"));
        g_autofree char *name = disk_name_of(path);
        g_auto(GStrv) parts = g_strsplit(name, "/", 2);
        const char *disk = ((Completion *) completion)->disk;

        if (g_strcmp0(disk, name) != 0 && g_strcmp0(disk, parts[0]) != 0)
                return;
        for (gsize i = 0; chain && i < g_variant_n_children(chain); i++) {
                g_autoptr(GVariant) layer = g_variant_get_child_value(chain, i);
                g_autofree char *depth = g_strdup_printf("[%" G_GSIZE_FORMAT "]", i);

                offer(completion, depth);
                offer(completion, value_text(layer, "source"));
        }
}

static void complete_domains(Completion *completion)
{
        each_object(completion, BLOCKJOBD_DOMAIN, offer_name);
}

static void complete_disks(Completion *completion)
{
        each_object(completion, BLOCKJOBD_DISK, offer_name);
}

static void complete_both(Completion *completion)
{
        complete_domains(completion);
        complete_disks(completion);
}

static void complete_jobs(Completion *completion)
{
        each_object(completion, BLOCKJOBD_JOB, offer_id);
}

static void complete_layers(Completion *completion)
{
        each_object(completion, BLOCKJOBD_DISK, offer_layers);
}

/* ---- what stands in the tables ---- */

/* What an argument is, by its name there. Any other may be a file, which the shell knows best. */
static const struct {
        const char *argument;
        void (*list)(Completion *completion);
        const char *words; /* with a space between two */
} kinds[] = {
        { .argument = "DOMAIN", .list = complete_domains },
        { .argument = "DOMAIN/DISK", .list = complete_disks },
        { .argument = "DOMAIN[/DISK]", .list = complete_both },
        { .argument = "JOB", .list = complete_jobs },
        { .argument = "LAYER", .list = complete_layers },
        { .argument = "POLICY", .words = "report stop ignore enospc" },
        { .argument = "FORMAT", .words = "qcow2 raw" },
        { .argument = "MODE", .words = "background write-blocking" },
        { .argument = "WHAT", .words = "full top" },
        { .argument = "STATE", .words = "starting running paused ready completing concluded disconnected" },
};

static void complete_argument(Completion *completion, const char *argument)
{
        for (gsize i = 0; i < G_N_ELEMENTS(kinds); i++) {
                g_auto(GStrv) words = NULL;

                if (strcmp(kinds[i].argument, argument) != 0)
                        continue;
                if (kinds[i].list)
                        kinds[i].list(completion);
                words = g_strsplit(kinds[i].words ? kinds[i].words : "", " ", -1);
                for (char **word = words; *word; word++)
                        offer(completion, *word);
        }
}

static void offer_options(const Completion *completion, const GOptionEntry *options)
{
        for (; options && options->long_name; options++) {
                g_autofree char *option = g_strconcat("--", options->long_name, NULL);

                offer(completion, option);
        }
}

static void offer_verbs(const Completion *completion)
{
        for (gsize i = 0; verb_tables[i]; i++)
                for (const Verb *verb = verb_tables[i]; verb->name; verb++)
                        offer(completion, verb->name);
}

static const GOptionEntry *find_in(const GOptionEntry *options, const char *word)
{
        gsize length = strcspn(word, "=");

        for (; options && options->long_name; options++)
                if ((g_str_has_prefix(word, "--") && length == strlen(options->long_name) + 2 &&
                     strncmp(word + 2, options->long_name, length - 2) == 0) ||
                    (word[0] == '-' && word[1] == options->short_name && word[1] && !word[2]))
                        return options;
        return NULL;
}

/* Which option this word is; NULL: none. */
static const GOptionEntry *option_of(const Verb *verb, const char *word)
{
        const GOptionEntry *option = *word == '-' ? find_in(global_options, word) : NULL;

        return option || !verb || *word != '-' ? option : find_in(verb->options, word);
}

/* Whether the word behind this one belongs to it; then what it is, else NULL. */
static const char *argument_of(const Verb *verb, const char *word)
{
        const GOptionEntry *option = strchr(word, '=') ? NULL : option_of(verb, word);

        return option && !(option->flags & G_OPTION_FLAG_OPTIONAL_ARG) ? option->arg_description : NULL;
}

/* Whether what follows goes to another bus than this host's. */
static gboolean goes_elsewhere(const char *word)
{
        static const char *const options[] = { "--host", "--machine" };

        for (gsize i = 0; i < G_N_ELEMENTS(options); i++)
                if (g_str_has_prefix(word, options[i]) && strchr("=", word[strlen(options[i])]))
                        return TRUE;
        return g_str_has_prefix(word, "-H") || g_str_has_prefix(word, "-M");
}

/* "--base=/srv": `last` becomes what stands behind the sign. NULL: it is no such word. */
static const char *split_last(Completion *completion, const Verb *verb)
{
        const char *sign = strchr(completion->last, '=');
        const GOptionEntry *option = sign ? option_of(verb, completion->last) : NULL;

        if (!option || !option->arg_description)
                return NULL;
        completion->before = g_strndup(completion->last, (gsize) (sign + 1 - completion->last));
        completion->last = sign + 1;
        return option->arg_description;
}

/* "DOMAIN/DISK TARGET", the second: "TARGET". The last one goes on where it ends in "…". */
static char *argument_at(const Verb *verb, guint position)
{
        g_auto(GStrv) names = g_strsplit(verb->arguments, " ", -1);
        guint count = g_strv_length(names);
        const char *last = count ? names[count - 1] : "";
        const char *name = position < count ? names[position] : g_str_has_suffix(last, "…") ? last : "";
        g_autoptr(GString) plain = g_string_new(name);

        if (g_str_has_suffix(plain->str, "…"))
                g_string_truncate(plain, plain->len - strlen("…"));
        if (*plain->str == '[') {
                g_string_erase(plain, 0, 1);
                g_string_truncate(plain, plain->len - 1);
        }
        return g_strdup(plain->str);
}

/* ---- the words ---- */

void complete(Client *client, char **words)
{
        Completion completion = { .client = client, .last = "" };
        const Verb *verb = NULL;
        const char *wanted = NULL;
        guint position = 0, count = g_strv_length(words);

        client->ask_password = FALSE;
        client->patience = PATIENCE;
        if (count > 0)
                completion.last = words[count - 1];
        for (guint i = 0; i + 1 < count; i++) {
                const char *word = words[i];

                if (wanted)
                        wanted = NULL;
                else if (*word == '-') {
                        wanted = argument_of(verb, word);
                        if (goes_elsewhere(word))
                                client->transport = TRANSPORT_HOST;
                } else if (!verb)
                        verb = verb_find(word);
                else if (position++ == 0)
                        completion.disk = word;
        }
        if (!wanted)
                wanted = split_last(&completion, verb);
        if (wanted)
                complete_argument(&completion, wanted);
        else if (*completion.last == '-') {
                offer_options(&completion, verb ? verb->options : NULL);
                offer_options(&completion, global_options);
        } else if (verb) {
                g_autofree char *argument = argument_at(verb, position);

                complete_argument(&completion, argument);
        } else
                offer_verbs(&completion);
        g_clear_pointer(&completion.objects, g_variant_unref);
        g_free(completion.before);
}
