/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#define CHANGES_MAX 8

static const FuzzTarget *target;

/* for who looks for the cause */
static const char *current;
static gsize current_length;

void fuzz_fail(const char *what, const char *text)
{
        g_file_set_contents(target->left_behind, current, (gssize) current_length, NULL);
        g_printerr("%s: %s\nThe input is in %s.\n", what, text, target->left_behind);
        abort();
}

static gboolean check(const char *text, gsize length, GRand *random)
{
        current = text;
        current_length = target->is_text ? strlen(text) : length;
        return target->check(current, current_length, random);
}

/* ---- changes ---- */

gsize fuzz_below(GRand *random, gsize end)
{
        return end == 0 ? 0 : (gsize) g_rand_int_range(random, 0, (gint32) MIN(end, G_MAXINT32));
}

/* A part of `text`; most are short. */
static void any_part(GRand *random, const GString *text, gsize *ret_start, gsize *ret_length)
{
        gsize most = g_rand_int_range(random, 0, 8) == 0 ? text->len : 64;

        *ret_start = fuzz_below(random, text->len + 1);
        *ret_length = fuzz_below(random, MIN(text->len - *ret_start, most) + 1);
}

static void change(GRand *random, GString *text, const GPtrArray *corpus)
{
        const FuzzInput *other = corpus->pdata[fuzz_below(random, corpus->len)];
        gsize start, length, from, at = fuzz_below(random, text->len + 1);
        g_autofree char *part = NULL;

        any_part(random, text, &start, &length);
        switch (g_rand_int_range(random, 0, 12)) {
        case 0:
                if (at < text->len)
                        text->str[at] = (char) (text->str[at] ^ (1 << g_rand_int_range(random, 0, 8)));
                break;
        case 1:
                if (at < text->len)
                        text->str[at] = (char) g_rand_int_range(random, target->is_text ? 1 : 0, 256);
                break;
        case 2:
                g_string_insert(text, (gssize) at,
                                target->words[fuzz_below(random, g_strv_length((char **) target->words))]);
                break;
        case 3:
                g_string_erase(text, (gssize) start, (gssize) length);
                break;
        case 4:
                part = g_memdup2(text->str + start, length);
                g_string_insert_len(text, (gssize) at, part, (gssize) length);
                break;
        case 5:
                g_string_truncate(text, at);
                from = fuzz_below(random, other->length + 1);
                g_string_append_len(text, other->text + from, (gssize) (other->length - from));
                break;
        default:
                target->change_well(random, text, other);
        }
}

static void input_free(gpointer data)
{
        FuzzInput *input = data;

        g_free(input->text);
        g_free(input);
}

/* ---- all of it ---- */

static GPtrArray *read_corpus(char **paths)
{
        GPtrArray *corpus = g_ptr_array_new_with_free_func(input_free);

        for (; paths && *paths; paths++) {
                g_autoptr(GError) error = NULL;
                FuzzInput *input = g_new0(FuzzInput, 1);

                g_ptr_array_add(corpus, input);
                if (!g_file_get_contents(*paths, &input->text, &input->length, &error))
                        g_error("%s", error->message);
                if (target->is_text)
                        input->length = strlen(input->text);
        }
        return corpus;
}

int fuzz_main(int argc, char **argv, const FuzzTarget *fuzz_target)
{
        int runs = 0, seconds = 0, seed = 1;
        g_auto(GStrv) paths = NULL;
        const GOptionEntry entries[] = {
                { "runs", 0, 0, G_OPTION_ARG_INT, &runs, "Changed inputs", "N" },
                { "seconds", 0, 0, G_OPTION_ARG_INT, &seconds, "Until then", "S" },
                { "seed", 0, 0, G_OPTION_ARG_INT, &seed, "Of the changes", "N" },
                { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &paths, NULL, "FILE…" },
                { NULL },
        };
        g_autoptr(GOptionContext) options = g_option_context_new(NULL);
        g_autoptr(GPtrArray) corpus = NULL;
        g_autoptr(GRand) random = NULL;
        g_autoptr(GError) error = NULL;
        gint64 end;
        guint read = 0, n = 0;

        target = fuzz_target;
        g_option_context_add_main_entries(options, entries, NULL);
        if (!g_option_context_parse(options, &argc, &argv, &error))
                g_error("%s", error->message);
        corpus = read_corpus(paths);
        random = g_rand_new_with_seed((guint32) seed);
        for (guint i = 0; i < corpus->len; i++) {
                const FuzzInput *input = corpus->pdata[i];
                read += check(input->text, input->length, random);
                if (target->check_whole)
                        target->check_whole(input->text, input->length);
        }
        g_print("%u inputs, %u of them read\n", corpus->len, read);
        end = g_get_monotonic_time() + seconds * G_USEC_PER_SEC;
        read = 0;
        while (corpus->len > 0 && (runs == 0 || n < (guint) runs) &&
               (seconds == 0 || g_get_monotonic_time() < end)) {
                const FuzzInput *input = corpus->pdata[fuzz_below(random, corpus->len)];
                g_autoptr(GString) text = g_string_new_len(input->text, (gssize) input->length);

                for (int i = g_rand_int_range(random, 0, g_rand_int_range(random, 1, CHANGES_MAX)); i >= 0;
                     i--)
                        change(random, text, corpus);
                read += check(text->str, text->len, random);
                n++;
        }
        g_print("%u changed inputs, %u of them read\n", n, read);
        return 0;
}
