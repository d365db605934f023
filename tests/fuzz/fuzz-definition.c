/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The XML of a domain, whatever it is: it is read or refused in words that can be sent, in a time that is no
 * attack; and what was read is written so that it can be read again. */
#include <string.h>

#include "base/error.h"
#include "domain/definition.h"
#include "fuzz.h"

#define SLOWEST (5 * G_USEC_PER_SEC) /* with sanitizers, on a machine that has other work */

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
        NULL,
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

/* ---- what has to be so ---- */

static Definition *parse(const char *xml, GPtrArray *ignored)
{
        g_autoptr(GError) error = NULL;
        gint64 start = g_get_monotonic_time();
        Definition *definition = definition_parse(xml, ignored, &error);

        if (g_get_monotonic_time() - start > SLOWEST)
                fuzz_fail("it takes too long", "");
        if (definition ? error != NULL : error == NULL)
                fuzz_fail("it is neither read nor refused", "");
        if (error && !g_error_matches(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT) &&
            !g_error_matches(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED))
                fuzz_fail("an error of another kind", error->message);
        if (error && (!g_utf8_validate(error->message, -1, NULL) || strlen(error->message) > 2000))
                fuzz_fail("a message that cannot be sent", error->message);
        return definition;
}

static Definition *parse_again(const char *xml)
{
        g_autoptr(GError) error = NULL;
        Definition *definition = definition_parse(xml, NULL, &error);

        if (!definition)
                fuzz_fail(error->message, xml);
        return definition;
}

static void check_unchanged(const Definition *definition)
{
        g_autoptr(Definition) again = parse_again(definition->xml);
        g_autofree char *written = definition_to_xml(definition, NULL, 0, 0);

        if (strcmp(again->xml, definition->xml) != 0)
                fuzz_fail("read again it is another", again->xml);
        if (strcmp(written, definition->xml) != 0)
                fuzz_fail("written without a change it is another", written);
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
                        fuzz_fail("the images of a disk are others", xml);
        }
}

/* Returns whether it was read at all. */
static gboolean check(const char *text, gsize length, GRand *random)
{
        g_autoptr(GPtrArray) ignored = g_ptr_array_new_with_free_func(g_free);
        g_autoptr(Definition) strict = NULL, lenient = NULL;

        (void) length;
        strict = parse(text, NULL);
        lenient = parse(text, ignored);
        if (strict && (!lenient || ignored->len > 0))
                fuzz_fail("it is read, but not with 'lenient'", text);
        if (lenient && !strict && ignored->len == 0)
                fuzz_fail("it is refused, and nothing is to be left out", text);
        for (guint i = 0; i < ignored->len; i++)
                if (!g_utf8_validate(ignored->pdata[i], -1, NULL))
                        fuzz_fail("a message that cannot be sent", ignored->pdata[i]);
        if (!lenient)
                return FALSE;
        check_unchanged(lenient);
        check_changed(lenient, random);
        return TRUE;
}

/* ---- changes ---- */

/* The line that `at` is in, with its end; in most files that is as much as can come or go by itself. */
static char *line_at(const char *text, gsize at)
{
        const char *start = text + at;

        while (start > text && start[-1] != '\n')
                start--;
        return g_strndup(start, strcspn(start, "\n") + 1);
}

/* So that it is likely to be well-formed after that. */
static void change_well(GRand *random, GString *text, const FuzzInput *other)
{
        gsize at = fuzz_below(random, text->len + 1);
        gsize end = at + strcspn(text->str + at, "\n");
        g_autofree char *line = NULL;
        char *quote;

        switch (g_rand_int_range(random, 0, 3)) {
        case 0:
                line = line_at(other->text, fuzz_below(random, other->length + 1));
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
                g_string_insert(text, (gssize) at, values[fuzz_below(random, G_N_ELEMENTS(values))]);
        }
}

int main(int argc, char **argv)
{
        static const FuzzTarget target = {
                .left_behind = "fuzz-definition.xml",
                .is_text = TRUE,
                .words = words,
                .check = check,
                .change_well = change_well,
        };

        return fuzz_main(argc, argv, &target);
}
