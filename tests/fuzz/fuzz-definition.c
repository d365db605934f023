/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The XML of a domain, whatever it is: it is read or refused in words that can be sent, in a time that is no
 * attack; and what was read is written so that it can be read again.
 *
 * fuzz-definition [--runs N] [--seconds S] [--seed N] FILE…: each file as it is, then changed at random, N
 * times or for S seconds, whichever is less. What fails is left in fuzz-definition.xml. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "domain/definition.h"

#define SLOWEST (5 * G_USEC_PER_SEC) /* with sanitizers, on a machine that has other work */
#define CHANGES_MAX 8
#define LEFT_BEHIND "fuzz-definition.xml"

static const char *const words[] = {
        "<!DOCTYPE a [<!ENTITY b 'c'>]>",
        "<![CDATA[",
        "]]>",
        "<!--",
        "-->",
        "<?a b?>",
        "&lt;",
        "&#10;",
        "&#x0;",
        "&b;",
        "xmlns='a'",
        "xmlns:a='b'",
        "a:b",
        "/",
        "'",
        "\"",
        "<",
        ">",
        "=",
        "-1",
        "0x",
        "18446744073709551616",
        "..",
        "%00",
        "%2f",
        "[::1]",
        "\xff",
        "\xc3\xbc",
        "\xef\xbf\xbe",
        "\r\n",
        "<disk>",
        "</disk>",
        "<backingStore/>",
        "<backingStore>",
        "</backingStore>",
        "type='network'",
        "type='block'",
        "device='cdrom'",
        "protocol='rbd'",
        "protocol='iscsi'",
        "<source file='/a'/>",
        "<host name='a'/>",
        "<target dev='vda'/>",
        "bus='usb'",
        "<boot order='1'/>",
        "<alias name='ua-a'/>",
        "<console type='pty'/>",
        "<features>",
        "<metadata>",
        "</metadata>",
        "<name>",
        "</name>",
};

static const char *const values[] = {
        "",         "0",       "1",       "-1",   "255",    "0x1f",       "yes",
        "no",       "on",      "off",     "/a",   "a",      "a/b",        "::1",
        "file",     "block",   "network", "nbd",  "rbd",    "iscsi",      "unix",
        "raw",      "qcow2",   "vda",     "hdb",  "sdzz",   "virtio",     "usb",
        "sata",     "pty",     "null",    "disk", "cdrom",  "pci",        "drive",
        "socket",   "address", "user",    "none", "custom", "host-model", "&lt;&#10;&#xfc;",
        "%2F&amp;",
};

typedef struct {
        char *text;
        gsize length;
} Input;

static void input_free(gpointer data)
{
        Input *input = data;

        g_free(input->text);
        g_free(input);
}

/* ---- what has to be so ---- */

static const char *current; /* input, for who looks for the cause */

static void G_GNUC_NORETURN fail(const char *what, const char *text)
{
        g_file_set_contents(LEFT_BEHIND, current, -1, NULL);
        g_printerr("%s: %s\nThe input is in %s.\n", what, text, LEFT_BEHIND);
        abort();
}

static Definition *parse(const char *xml, GPtrArray *ignored)
{
        g_autoptr(GError) error = NULL;
        gint64 start = g_get_monotonic_time();
        Definition *definition = definition_parse(xml, ignored, &error);

        if (g_get_monotonic_time() - start > SLOWEST)
                fail("it takes too long", "");
        if (definition ? error != NULL : error == NULL)
                fail("it is neither read nor refused", "");
        if (error && !g_error_matches(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT) &&
            !g_error_matches(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED))
                fail("an error of another kind", error->message);
        if (error && (!g_utf8_validate(error->message, -1, NULL) || strlen(error->message) > 2000))
                fail("a message that cannot be sent", error->message);
        return definition;
}

static Definition *parse_again(const char *xml)
{
        g_autoptr(GError) error = NULL;
        Definition *definition = definition_parse(xml, NULL, &error);

        if (!definition)
                fail(error->message, xml);
        return definition;
}

static void check_unchanged(const Definition *definition)
{
        g_autoptr(Definition) again = parse_again(definition->xml);
        g_autofree char *written = definition_to_xml(definition, NULL, 0, 0);

        if (strcmp(again->xml, definition->xml) != 0)
                fail("read again it is another", again->xml);
        if (strcmp(written, definition->xml) != 0)
                fail("written without a change it is another", written);
}

static void check_changed(const Definition *definition, GRand *random)
{
        static ImageName images[] = {
                { (char *) "/a'<&>\xc3\xbc", (char *) "qcow2" },
                { (char *) "/dev/vg/b", (char *) "qcow2" },
                { (char *) "nbd://[::1]:10809/c%20d", (char *) "qcow2" },
                { (char *) "nbd+unix:///?socket=/run/e%3Ff", (char *) "qcow2" },
                { (char *) "rbd:pool/space/g\\:h:conf=/etc/i:id=j", (char *) "qcow2" },
                { (char *) "iscsi://k@host:3260/iqn.2001-04.com.example:l/7", (char *) "qcow2" },
        };
        guint n = definition->disks->len;
        g_autofree DiskImages *disks = g_new0(DiskImages, n + 1);
        g_autoptr(GPtrArray) chains = g_ptr_array_new_with_free_func((GDestroyNotify) g_ptr_array_unref);
        g_autofree char *xml = NULL;
        g_autoptr(Definition) again = NULL;

        for (guint i = 0; i < n; i++) {
                const DefinitionDisk *disk = definition->disks->pdata[i];
                GPtrArray *chain = g_ptr_array_new();
                int length = g_rand_int_range(random, disk->cdrom ? 0 : 1, 5);

                for (int j = 0; j < length; j++)
                        g_ptr_array_add(chain, &images[g_rand_int_range(random, 0, G_N_ELEMENTS(images))]);
                g_ptr_array_add(chains, chain);
                disks[i] = (DiskImages){ disk->target, chain, g_rand_boolean(random) };
                if (g_rand_boolean(random)) {
                        disks[i].mirror_job = g_rand_boolean(random) ? "copy" : "active-commit";
                        disks[i].mirror = images[g_rand_int_range(random, 0, G_N_ELEMENTS(images))];
                        disks[i].mirror_ready = g_rand_boolean(random);
                }
        }
        xml = definition_to_xml(definition, disks, n, (guint) g_rand_int_range(random, 0, 3));
        again = parse_again(xml);
        for (guint i = 0; i < n; i++) {
                const DefinitionDisk *disk = definition_disk(again, disks[i].target);
                const ImageName *top = disks[i].images->len > 0 ? disks[i].images->pdata[0] : NULL;

                if (strcmp(disk->image.source, top ? top->source : "") != 0 ||
                    (top && disks[i].whole_chain && disk->backing->len != disks[i].images->len - 1))
                        fail("the images of a disk are others", xml);
        }
}

/* Returns whether it was read at all. */
static gboolean check(const char *text, GRand *random)
{
        g_autoptr(GPtrArray) ignored = g_ptr_array_new_with_free_func(g_free);
        g_autoptr(Definition) strict = NULL, lenient = NULL;

        current = text;
        strict = parse(text, NULL);
        lenient = parse(text, ignored);
        if (strict && (!lenient || ignored->len > 0))
                fail("it is read, but not with 'lenient'", text);
        if (lenient && !strict && ignored->len == 0)
                fail("it is refused, and nothing is to be left out", text);
        for (guint i = 0; i < ignored->len; i++)
                if (!g_utf8_validate(ignored->pdata[i], -1, NULL))
                        fail("a message that cannot be sent", ignored->pdata[i]);
        if (!lenient)
                return FALSE;
        check_unchanged(lenient);
        check_changed(lenient, random);
        return TRUE;
}

/* ---- changes ---- */

static gsize below(GRand *random, gsize end)
{
        return end == 0 ? 0 : (gsize) g_rand_int_range(random, 0, (gint32) MIN(end, G_MAXINT32));
}

/* A part of `text`; most are short. */
static void any_part(GRand *random, const GString *text, gsize *ret_start, gsize *ret_length)
{
        gsize most = g_rand_int_range(random, 0, 8) == 0 ? text->len : 64;

        *ret_start = below(random, text->len + 1);
        *ret_length = below(random, MIN(text->len - *ret_start, most) + 1);
}

/* The line that `at` is in, with its end; in most files that is as much as can come or go by itself. */
static char *line_at(const char *text, gsize at)
{
        const char *start = text + at;

        while (start > text && start[-1] != '\n')
                start--;
        return g_strndup(start, strcspn(start, "\n") + 1);
}

/* So that it is likely to be well-formed after that. */
static void change_well(GRand *random, GString *text, const Input *other)
{
        gsize at = below(random, text->len + 1);
        gsize end = at + strcspn(text->str + at, "\n");
        g_autofree char *line = NULL;
        char *quote;

        switch (g_rand_int_range(random, 0, 3)) {
        case 0:
                line = line_at(other->text, below(random, other->length + 1));
                g_string_insert(text, (gssize) MIN(end + 1, text->len), line);
                break;
        case 1:
                line = line_at(text->str, at);
                g_string_replace(text, line, "", 1);
                break;
        default:
                quote = strchr(text->str + at, '\'');
                if (!quote || !strchr(quote + 1, '\''))
                        return;
                at = (gsize) (quote + 1 - text->str);
                g_string_erase(text, (gssize) at, (gssize) strcspn(quote + 1, "\'"));
                g_string_insert(text, (gssize) at, values[below(random, G_N_ELEMENTS(values))]);
        }
}

static void change(GRand *random, GString *text, const GPtrArray *corpus)
{
        const Input *other = corpus->pdata[below(random, corpus->len)];
        gsize start, length, at = below(random, text->len + 1);
        g_autofree char *part = NULL;

        any_part(random, text, &start, &length);
        switch (g_rand_int_range(random, 0, 12)) {
        case 0:
                if (at < text->len)
                        text->str[at] = (char) (text->str[at] ^ (1 << g_rand_int_range(random, 0, 8)));
                break;
        case 1:
                if (at < text->len)
                        text->str[at] = (char) g_rand_int_range(random, 1, 256);
                break;
        case 2:
                g_string_insert(text, (gssize) at, words[below(random, G_N_ELEMENTS(words))]);
                break;
        case 3:
                g_string_erase(text, (gssize) start, (gssize) length);
                break;
        case 4:
                part = g_strndup(text->str + start, length);
                g_string_insert(text, (gssize) at, part);
                break;
        case 5:
                g_string_truncate(text, at);
                g_string_append(text, other->text + below(random, other->length + 1));
                break;
        default:
                change_well(random, text, other);
        }
}

/* ---- all of it ---- */

static GPtrArray *read_corpus(char **paths)
{
        GPtrArray *corpus = g_ptr_array_new_with_free_func(input_free);

        for (; paths && *paths; paths++) {
                g_autoptr(GError) error = NULL;
                Input *input = g_new0(Input, 1);

                g_ptr_array_add(corpus, input);
                if (!g_file_get_contents(*paths, &input->text, &input->length, &error))
                        g_error("%s", error->message);
                input->length = strlen(input->text);
        }
        return corpus;
}

int main(int argc, char **argv)
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

        g_option_context_add_main_entries(options, entries, NULL);
        if (!g_option_context_parse(options, &argc, &argv, &error))
                g_error("%s", error->message);
        corpus = read_corpus(paths);
        random = g_rand_new_with_seed((guint32) seed);
        for (guint i = 0; i < corpus->len; i++)
                read += check(((Input *) corpus->pdata[i])->text, random);
        g_print("%u inputs, %u of them read\n", corpus->len, read);
        end = g_get_monotonic_time() + seconds * G_USEC_PER_SEC;
        read = 0;
        while (corpus->len > 0 && (runs == 0 || n < (guint) runs) &&
               (seconds == 0 || g_get_monotonic_time() < end)) {
                const Input *input = corpus->pdata[below(random, corpus->len)];
                g_autoptr(GString) text = g_string_new(input->text);

                for (int i = g_rand_int_range(random, 0, g_rand_int_range(random, 1, CHANGES_MAX)); i >= 0;
                     i--)
                        change(random, text, corpus);
                read += check(text->str, random);
                n++;
        }
        g_print("%u changed inputs, %u of them read\n", n, read);
        return 0;
}
