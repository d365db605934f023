/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The first bytes of an image, whatever they are: what is read of them is plain, or they are refused in
 * words that can be sent; of fewer bytes the same is read, or it is an error; and so are the names in it. */
#include <string.h>

#include "base/error.h"
#include "fuzz.h"
#include "image/backing.h"
#include "image/header.h"

#define IMAGE "/images/there/image.qcow2"

static const char *const words[] = {
        "QFI\xfb",
        "KDMV",
        "WithoutFreeSpace",
        "version=1",
        "\xe2\x79\x2a\xca",
        "DATA",
        "\x68\x03\xf8\x57",
        "raw",
        "qcow2",
        "json:{",
        "}",
        "\"driver\":\"qcow2\",",
        "\"file\":{\"driver\":\"file\",\"filename\":\"/a\"}",
        "\"file.filename\":\"/a\"",
        "{\"",
        "\\u0000",
        "file:",
        "nbd://host/x",
        "rbd:",
        "http://",
        "../",
        "/",
        ":",
        "\xff\xff\xff\xff",
        "\x7f\xff\xff\xff",
        "\x80",
        "\xc3\xbc",
        NULL,
};

/* Sizes that a file may have, as long as it has the bytes that are there. */
static const guint64 sizes[] = {
        0,
        511,
        512,
        65536,
        65537,
        G_GUINT64_CONSTANT(1) << 32,
        G_GUINT64_CONSTANT(1) << 56,
        G_MAXINT64 - 512,
        G_MAXINT64 - 511,
        G_MAXINT64,
        G_GUINT64_CONSTANT(1) << 63,
        G_MAXUINT64,
};

static void check_error(gboolean taken, const GError *error)
{
        if (taken ? error != NULL : error == NULL)
                fuzz_fail("it is neither taken nor refused", "");
        if (!error)
                return;
        if (!g_error_matches(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT))
                fuzz_fail("an error of another kind", error->message);
        if (!g_utf8_validate(error->message, -1, NULL) || strlen(error->message) > 10000)
                fuzz_fail("a message that cannot be sent", error->message);
}

/* ---- names ---- */

static void check_text(const char *text, gsize size)
{
        if (!memchr(text, '\0', size))
                fuzz_fail("a text without an end", "");
        if (!g_utf8_validate(text, -1, NULL))
                fuzz_fail("a text that is none", text);
}

static void check_backing(const char *text, const char *format)
{
        g_autoptr(GError) error = NULL, second_error = NULL;
        g_auto(BackingName) name = { 0 }, again = { 0 };
        gboolean taken = backing_parse(text, format, IMAGE, &name, &error);

        check_error(taken, error);
        if (!taken) {
                if (name.source || name.format)
                        fuzz_fail("refused, and there is a name", text);
                return;
        }
        if (!name.source || (*name.source != '/') != name.remote)
                fuzz_fail("neither a path nor a URI", name.source ?: "");
        if (name.remote != backing_is_remote(name.source))
                fuzz_fail("it is not clear whether it is remote", name.source);
        if (!g_utf8_validate(name.source, -1, NULL))
                fuzz_fail("a name that cannot be sent", name.source);
        if (!backing_parse(name.source, name.format ?: "", IMAGE, &again, &second_error))
                fuzz_fail("the name that was read is refused", second_error->message);
        if (strcmp(again.source, name.source) != 0 || g_strcmp0(again.format, name.format) != 0)
                fuzz_fail("read again it is another", again.source);
}

static void check_names(const ImageHeader *header)
{
        check_text(header->backing, sizeof(header->backing));
        check_text(header->backing_format, sizeof(header->backing_format));
        check_text(header->data_file, sizeof(header->data_file));
        if (*header->backing)
                check_backing(header->backing, header->backing_format);
        else if (*header->backing_format)
                fuzz_fail("a format of no backing file", header->backing_format);
        if (*header->data_file) {
                g_autoptr(GError) error = NULL;
                g_autofree char *path = backing_parse_data_file(header->data_file, &error);

                check_error(path != NULL, error);
                if (path && *path != '/')
                        fuzz_fail("not a path", path);
        }
}

/* ---- headers ---- */

static gboolean is_equal(const ImageHeader *a, const ImageHeader *b)
{
        return strcmp(a->format, b->format) == 0 && a->version == b->version &&
               a->virtual_size == b->virtual_size && a->cluster_size == b->cluster_size &&
               strcmp(a->backing, b->backing) == 0 && strcmp(a->backing_format, b->backing_format) == 0 &&
               strcmp(a->data_file, b->data_file) == 0 && a->has_data_file == b->has_data_file &&
               a->encrypted == b->encrypted && a->extended_l2 == b->extended_l2 && a->dirty == b->dirty &&
               a->corrupt == b->corrupt;
}

static gboolean parse(const char *format, const guint8 *bytes, gsize length, guint64 size,
                      ImageHeader *header)
{
        g_autoptr(GError) error = NULL;
        gboolean taken;

        memset(header, 0xaa, sizeof(*header));
        taken = format ? header_parse_as(format, bytes, length, size, header, &error)
                       : header_parse(bytes, length, size, header, &error);
        check_error(taken, error);
        if (!taken)
                return FALSE;
        if (!header_knows_format(header->format) || (format && strcmp(header->format, format) != 0))
                fuzz_fail("a format that nobody knows", header->format);
        if (header->virtual_size > G_MAXINT64 || header->virtual_size % 512 != 0)
                fuzz_fail("a size that no image has", "");
        check_names(header);
        return TRUE;
}

static gboolean check_sized(const guint8 *bytes, gsize length, guint64 size)
{
        static const char *const formats[] = { "raw", "qcow2", "vmdk", "vpc", "nonsense" };
        ImageHeader header, as;
        gboolean taken = parse(NULL, bytes, length, size, &header);

        for (guint i = 0; i < G_N_ELEMENTS(formats); i++)
                if (parse(formats[i], bytes, length, size, &as) && taken &&
                    strcmp(formats[i], header.format) == 0 && !is_equal(&header, &as))
                        fuzz_fail("by its name it is another", formats[i]);
        if (taken && !parse(header.format, bytes, length, size, &as))
                fuzz_fail("its own format is refused", header.format);
        return taken && strcmp(header.format, "qcow2") == 0;
}

/* Of the first `length` bytes what the rest says too, or an error. */
static void check_cut(const char *text, gsize whole, gsize length, guint64 size)
{
        g_autofree guint8 *bytes = g_memdup2(text, whole), *part = g_memdup2(text, length);
        ImageHeader header, cut;

        if (!parse(NULL, part, length, size, &cut) || strcmp(cut.format, "qcow2") != 0)
                return;
        if (!parse(NULL, bytes, whole, size, &header) || !is_equal(&header, &cut))
                fuzz_fail("cut it is another", "");
}

/* In a memory of its own, so that a byte too far is seen. */
static gboolean check(const char *text, gsize length, GRand *random)
{
        gsize have = MIN(length, HEADER_BYTES);
        g_autofree guint8 *bytes = g_memdup2(text, have);
        guint64 size = MAX(length, sizes[fuzz_below(random, G_N_ELEMENTS(sizes))]);
        const char *at_end = header_format_of_tail(bytes, have);
        g_autofree char *name = g_strndup(text, MIN(length, 1023));
        gboolean taken;

        if (at_end && !header_knows_format(at_end))
                fuzz_fail("a format that nobody knows", at_end);
        taken = check_sized(bytes, have, length);
        check_sized(bytes, have, size);
        check_cut(text, have, fuzz_below(random, have + 1), size);
        /* all of it as a name, for which a header would have to be in order */
        if (g_utf8_validate(name, -1, NULL))
                check_backing(name, g_rand_boolean(random) ? "" : "qcow2");
        return taken;
}

static void check_whole(const char *text, gsize length)
{
        gsize have = MIN(length, HEADER_BYTES);

        for (gsize cut = 0; cut <= have; cut++) {
                g_autofree guint8 *bytes = g_memdup2(text, cut);

                check_cut(text, have, cut, length);
                check_cut(text, have, cut, G_MAXINT64 - 511);
                check_sized(bytes, cut, cut);
        }
        for (guint i = 0; i < G_N_ELEMENTS(sizes); i++)
                check_sized((const guint8 *) text, have, MAX(length, sizes[i]));
}

/* ---- changes ---- */

/* A field of the header becomes what is at the edge of something. */
static void change_well(GRand *random, GString *text, const FuzzInput *other)
{
        static const guint64 edges[] = {
                0,          1,           2,       3,          9,           21,
                22,         72,          104,     112,        512,         1023,
                1024,       65536,       1 << 25, G_MAXINT32, G_MAXUINT32, G_GUINT64_CONSTANT(1) << 56,
                G_MAXINT64, G_MAXUINT64,
        };
        static const struct {
                gsize at, size;
        } fields[] = {
                { 0, 4 },  { 4, 4 },   { 8, 8 },   { 16, 4 },  { 20, 4 },  { 24, 8 }, { 32, 4 },
                { 36, 4 }, { 40, 8 },  { 48, 8 },  { 56, 4 },  { 60, 4 },  { 64, 8 }, { 72, 8 },
                { 96, 4 }, { 100, 4 }, { 104, 4 }, { 112, 4 }, { 116, 4 },
        };
        gsize field = fuzz_below(random, G_N_ELEMENTS(fields)), at = fields[field].at,
              size = fields[field].size;
        guint64 value = GUINT64_TO_BE(edges[fuzz_below(random, G_N_ELEMENTS(edges))] +
                                      (guint64) g_rand_int_range(random, -1, 2));
        const char *bytes = (const char *) &value + 8 - size;

        if (g_rand_int_range(random, 0, 3) == 0) {
                if (at + size > other->length)
                        return;
                bytes = other->text + at;
        }
        if (at + size <= text->len)
                memcpy(text->str + at, bytes, size);
}

int main(int argc, char **argv)
{
        static const FuzzTarget target = {
                .left_behind = "fuzz-header.bin",
                .words = words,
                .check = check,
                .check_whole = check_whole,
                .change_well = change_well,
        };

        return fuzz_main(argc, argv, &target);
}
