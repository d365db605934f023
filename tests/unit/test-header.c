/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Headers that qemu-img has written, compared with what it says of them; the same cut, bent and wrong. */
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "image/backing.h"
#include "image/header.h"
#include "images.h"

/* ---- as qemu-img writes them ---- */

typedef struct {
        const char *format, *options, *size, *backing, *backing_format;
} Made;

#define SECRET "--object=secret,id=s,data=abc"

static const Made made[] = {
        { "qcow2", "compat=0.10", "1M" },
        { "qcow2", "compat=1.1", "10G" },
        { "qcow2", "compat=1.1,lazy_refcounts=on", "0" },
        { "qcow2", "compat=1.1,compression_type=zstd", "1000" },
        { "qcow2", "cluster_size=512", "100G" },
        { "qcow2", "cluster_size=2M", "1T" },
        { "qcow2", "cluster_size=2M", "64P" },
        { "qcow2", "cluster_size=16k,extended_l2=on", "5T" },
        { "qcow2", "extended_l2=on,cluster_size=128k,refcount_bits=64", "3G" },
        { "qcow2", "data_file=data.raw", "7M" },
        { "qcow2", "data_file=data2.raw,data_file_raw=on", "7M" },
        { "qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "1M" },
        { "qcow2", "compat=0.10", "1M", "base.raw", "raw" },
        { "qcow2", NULL, "1M", "../there/base.qcow2", "qcow2" },
        { "qcow2", "cluster_size=512", "1M", "/base.raw", "raw" },
        { "qcow2", "cluster_size=2M", "1M",
          "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"/a\"}}", "raw" },
        { "qcow2", NULL, "1M", "nbd://host/x", "raw" },
        { "raw", NULL, "1234567" },
        { "raw", NULL, "0" },
        { "qcow", NULL, "1M" },
        { "vmdk", NULL, "1M" },
        { "vmdk", "subformat=monolithicFlat", "1M" },
        { "vmdk", "subformat=twoGbMaxExtentSparse", "1M" },
        { "vdi", NULL, "1M" },
        { "vhdx", NULL, "8M" },
        { "vpc", NULL, "8M" },
        { "vpc", "subformat=fixed", "8M" },
        { "qed", NULL, "1M" },
        { "parallels", NULL, "1M" },
        { "luks", "key-secret=s,iter-time=10", "1M" },
};

/* For LUKS it measures the time that its thread takes, and gives up where the kernel's clock is too coarse
 * for that, about every fourth time on some machines. */
static void create(const char *const *command)
{
        for (int i = 0; i < 40; i++) {
                g_autofree char *output = NULL, *complaint = NULL;

                if (try_command(command, &output, &complaint))
                        return;
                if (!strstr(complaint, "Unable to get accurate CPU usage"))
                        g_error("%s", complaint);
        }
        g_error("qemu-img has not made a LUKS image in 40 times");
}

static char *make(const Made *row)
{
        const char *command[20] = { "qemu-img", "create", "-q", SECRET, "-u", "-f", row->format };
        int n = 7;

        if (strcmp(row->format, "raw") == 0 || !row->backing)
                command[4] = "-q";
        if (row->options)
                command[n++] = "-o", command[n++] = row->options;
        if (row->backing)
                command[n++] = "-b", command[n++] = row->backing, command[n++] = "-F",
                command[n++] = row->backing_format;
        command[n++] = "image";
        command[n++] = row->size;
        create(command);
        return at("image");
}

static JsonObject *ask_qemu(const char *path, const char *format, JsonParser *parser)
{
        const char *const command[] = { "qemu-img", "info", "--output=json", "-f", format, path, NULL };
        g_autofree char *output = run_command(command);

        g_assert_true(json_parser_load_from_data(parser, output, -1, NULL));
        return json_node_get_object(json_parser_get_root(parser));
}

static guint8 *read_start(const char *path, gsize *ret_length, guint64 *ret_size)
{
        char *bytes;
        gsize length;

        g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
        *ret_length = MIN(length, HEADER_BYTES);
        *ret_size = length;
        return (guint8 *) bytes;
}

static void compare(const ImageHeader *header, JsonObject *info, const char *format)
{
        JsonObject *specific = json_object(json_object(info, "format-specific"), "data");

        g_assert_cmpstr(header->format, ==, format);
        if (strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0)
                return;
        g_assert_cmpuint(header->virtual_size, ==, json_integer(info, "virtual-size"));
        g_assert_cmpstr(header->backing, ==, json_string(info, "backing-filename") ?: "");
        g_assert_cmpstr(header->backing_format, ==, json_string(info, "backing-filename-format") ?: "");
        if (strcmp(format, "raw") == 0)
                return;
        g_assert_cmpint(header->version, ==, g_str_equal(json_string(specific, "compat"), "1.1") ? 3 : 2);
        g_assert_cmpuint(header->cluster_size, ==, json_integer(info, "cluster-size"));
        g_assert_cmpint(header->extended_l2, ==, json_boolean(specific, "extended-l2"));
        g_assert_cmpint(header->encrypted, ==, json_boolean(info, "encrypted"));
        g_assert_cmpstr(header->data_file, ==, json_string(specific, "data-file") ?: "");
        g_assert_cmpint(header->dirty, ==, json_boolean(info, "dirty-flag"));
        g_assert_false(header->corrupt);
}

/* Without the padding, which is undefined nowhere: all of it is zeroed first. */
static gboolean same(const ImageHeader *a, const ImageHeader *b)
{
        return memcmp(a, b, sizeof(*a)) == 0;
}

/* A header that is cut is an error, or nothing of it was missing. */
static void check_cuts(const guint8 *bytes, gsize length, guint64 size, const ImageHeader *whole)
{
        gboolean was_right = FALSE;

        for (gsize cut = 0; cut <= MIN(length, 4096); cut++) {
                g_autofree guint8 *part = g_memdup2(bytes, cut); /* so that a byte too far is seen */
                g_autoptr(GError) error = NULL;
                ImageHeader header;

                if (header_parse(part, cut, size, &header, &error)) {
                        g_assert_true(same(&header, whole) || strcmp(whole->format, "qcow2") != 0);
                        was_right = TRUE;
                } else {
                        g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
                        g_assert_false(was_right);
                        g_clear_error(&error);
                }
                /* The same of a file that ends there. */
                if (header_parse(part, cut, cut, &header, &error) && cut >= 8 &&
                    strcmp(whole->format, "qcow2") == 0)
                        g_assert_true(same(&header, whole));
        }
}

static void as_qemu_says(gconstpointer data)
{
        const Made *row = data;
        g_autofree char *path = make(row);
        gboolean only_at_end = row->options && g_str_equal(row->options, "subformat=fixed");
        g_autoptr(JsonParser) parser = json_parser_new();
        JsonObject *info = ask_qemu(path, row->format, parser);
        g_autofree guint8 *bytes = NULL;
        g_autoptr(GError) error = NULL;
        ImageHeader header;
        guint64 size;
        gsize length;

        bytes = read_start(path, &length, &size);
        g_assert_true(header_parse_as(row->format, bytes, length, size, &header, &error));
        g_assert_no_error(error);
        compare(&header, info, row->format);
        g_assert_true(header_knows_format(row->format));
        if (only_at_end)
                g_assert_cmpstr(header_format_of_tail(bytes + size - HEADER_TAIL_BYTES, HEADER_TAIL_BYTES),
                                ==, row->format);

        g_assert_true(header_parse(bytes, length, size, &header, &error));
        if (!only_at_end)
                compare(&header, info, row->format);
        check_cuts(bytes, length, size, &header);
        g_assert_cmpint(header_parse_as("qcow2", bytes, length, size, &header, NULL), ==,
                        strcmp(row->format, "qcow2") == 0);
        g_assert_true(header_parse_as("raw", bytes, length, size, &header, &error));
        g_assert_cmpstr(header.format, ==, "raw");
        g_assert_cmpuint(header.virtual_size, ==, (size + 511) / 512 * 512);
}

/* ---- as nobody writes them ---- */

typedef struct {
        const char *message; /* NULL: it is fine */
        guint offset, width;
        guint64 value;
        guint offset2, width2; /* and another field; width 0: none */
        guint64 value2;
} Bent;

/* Of an image with header_length 112, a feature table at 112 (length 384) and nothing else, 64 KiB clusters.
 */
static const Bent bent[] = {
        { "version 0", 4, 4, 0 },
        { "version 4", 4, 4, 4 },
        { "cluster_bits", 20, 4, 8 },
        { "cluster_bits", 20, 4, 22 },
        { "cluster_bits", 20, 4, 0xffffffff },
        { "L1 table", 24, 8, G_MAXUINT64 },
        { "L1 table", 24, 8, G_GUINT64_CONSTANT(1) << 62 },
        { "L1 table", 36, 4, 0 },
        { "L1 table", 36, 4, 0xffffffff },
        { "L1 table", 40, 8, 1 },
        { "L1 table", 40, 8, G_GUINT64_CONSTANT(0xffffffffffff0000) },
        { "encryption 3", 32, 4, 3 },
        { "refcount table", 48, 8, 512 },
        { "refcount table", 56, 4, 0 },
        { "refcount table", 56, 4, 129 },
        { "refcount table", 56, 4, 0xffffffff },
        { "snapshot table", 60, 4, 65537 },
        { "snapshot table", 64, 8, 0x10001 },
        { "bits 5", 72, 8, 1 << 5 },
        { "bits 6, 63", 72, 8, (1 << 6) | G_GUINT64_CONSTANT(1) << 63 },
        { "compression_type", 72, 8, 1 << 3 },
        { "compression_type", 104, 1, 1 },
        { "compression_type", 104, 1, 2 },
        { NULL, 72, 8, 3 }, /* dirty, corrupt */
        { NULL, 80, 8, G_MAXUINT64 },
        { NULL, 88, 8, G_MAXUINT64 },
        { "refcount_order", 96, 4, 7 },
        { "header_length", 100, 4, 96 },
        { "header_length", 100, 4, 108 },
        { "header_length", 100, 4, 0x10008 },
        { "header_length", 100, 4, 0xfffffff8 },
        { "extended L2", 72, 8, 1 << 4, 20, 4, 13 },
        { "too long", 116, 4, 0xffffffff },
        { "too long", 116, 4, 0x10000 },
        { NULL, 112, 4, 0 },
        { "backing file is not", 8, 8, 64 },
        { "backing file is not", 8, 8, 0x10001 },
        { "backing file is not", 8, 8, G_MAXUINT64 },
        { "backing file is not", 8, 8, 0xfff0, 16, 4, 17 },
        { "more than 1023", 8, 8, 0x8000, 16, 4, 1024 },
        { "no text", 8, 8, 0x8000, 16, 4, 5 }, /* zeros */
        { NULL, 8, 8, 0x8000, 16, 4, 0 },
        { "too long", 8, 8, 0x100, 16, 4, 0 },
        { "more than 15", 112, 4, 0xe2792aca },
        { "no text", 112, 4, 0x44415441 },
};

static void put_number(guint8 *bytes, guint width, guint64 value)
{
        for (guint i = 0; i < width; i++)
                bytes[i] = (guint8) (value >> (8 * (width - 1 - i)));
}

static void is_refused(gconstpointer data)
{
        static const Made plain = { "qcow2", NULL, "1M" };
        const Bent *row = data;
        g_autofree char *path = make(&plain);
        g_autofree guint8 *bytes = NULL;
        g_autoptr(GError) error = NULL;
        ImageHeader header;
        guint64 size;
        gsize length;
        gboolean fine;

        bytes = read_start(path, &length, &size);
        put_number(bytes + row->offset, row->width, row->value);
        put_number(bytes + row->offset2, row->width2, row->value2);
        fine = header_parse(bytes, length, size, &header, &error);
        if (!row->message) {
                g_assert_no_error(error);
                g_assert_true(fine);
                return;
        }
        g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
        if (!strstr(error->message, row->message))
                g_assert_cmpstr(error->message, ==, row->message);
}

/* Whatever the bytes are, it is an error or a header that keeps to its own limits. */
static void any_bytes(void)
{
        static const Made based = { "qcow2", "data_file=data3.raw", "1M", "base.raw", "raw" };
        g_autoptr(GRand) random = g_rand_new_with_seed(20240607);
        g_autofree char *path = make(&based);
        g_autofree guint8 *bytes = NULL;
        guint64 size;
        gsize whole;
        guint fine = 0;

        bytes = read_start(path, &whole, &size);
        for (int i = 0; i < 50000; i++) {
                gsize length = (gsize) g_rand_int_range(random, 0, 1024);
                g_autofree guint8 *copy = g_memdup2(bytes, length);
                g_autoptr(GError) error = NULL;
                ImageHeader header;

                for (int n = g_rand_int_range(random, 0, 4); n > 0 && length > 0; n--)
                        copy[g_rand_int_range(random, 0, (gint32) MIN(length, 700))] =
                                (guint8) (g_rand_boolean(random) ? g_rand_int_range(random, 0, 256) : 0xff);
                if (!header_parse(copy, length, size, &header, &error)) {
                        g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
                        g_assert_true(g_utf8_validate(error->message, -1, NULL));
                        continue;
                }
                fine++;
                g_assert_cmpuint(strlen(header.backing), <=, 1023);
                g_assert_true(g_utf8_validate(header.backing, -1, NULL));
                g_assert_true(g_utf8_validate(header.data_file, -1, NULL));
                g_assert_cmpuint(header.virtual_size, <=, G_MAXINT64);
        }
        g_assert_cmpuint(fine, >, 1000);
}

static void too_large(void)
{
        ImageHeader header;

        g_assert_false(header_parse((const guint8 *) "", 0, G_MAXUINT64, &header, NULL));
        g_assert_false(header_parse_as("raw", (const guint8 *) "", 0, G_MAXUINT64, &header, NULL));
        g_assert_true(header_parse((const guint8 *) "", 0, 0, &header, NULL));
        g_assert_false(header_knows_format("nbd"));
        g_assert_false(header_knows_format(""));
}

/* ---- the names of backing files ---- */

typedef struct {
        const char *text, *format, *source, *expected; /* source NULL: it is refused, `expected` says why */
        gboolean remote;
} Name;

#define J(inside) "json:{" inside "}"
#define FILE_AT(path) "\"file\":{\"driver\":\"file\",\"filename\":\"" path "\"}"

static const Name names[] = {
        { "b.qcow2", "qcow2", "/d/e/b.qcow2", "qcow2" },
        { "../b", "", "/d/e/../b", NULL },
        { "./a:b", "raw", "/d/e/./a:b", "raw" },
        { "/a:b", "raw", "/a:b", "raw" },
        { "/a%20b", "file", "/a%20b", "raw" },
        { "file:/a", "raw", "/a", "raw" },
        { "file:///a", "raw", "///a", "raw" },
        { "nbd://host/x", "raw", "nbd://host/x", "raw", TRUE },
        { "nbd:unix:/s", "nbd", "nbd:unix:/s", "raw", TRUE },
        { "nbd+unix:///x?socket=/s", "qcow2", "nbd+unix:///x?socket=/s", "qcow2", TRUE },
        { "rbd:p/i", "", "rbd:p/i", NULL, TRUE },
        { "iscsi://h/t/0", "raw", "iscsi://h/t/0", "raw", TRUE },
        { J("\"driver\":\"qcow2\"," FILE_AT("/a")), "qcow2", "/a", "qcow2" },
        { J("\"driver\":\"raw\"," FILE_AT("/a")), "", "/a", "raw" },
        { J(FILE_AT("/a")), "qcow2", "/a", "qcow2" },
        { J(FILE_AT("/a")), "", "/a", NULL },
        { J("\"driver\":\"qcow2\",\"file.driver\":\"host_device\",\"file.filename\":\"/a\""), "", "/a",
          "qcow2" },
        { J("\"file.filename\":\"/a\""), "raw", "/a", "raw" },
        { J("\"driver\":\"file\",\"filename\":\"/a\""), "", "/a", "raw" },
        { J("\"driver\":\"file\",\"filename\":\"/a\""), "file", "/a", "raw" },
        { J("\"driver\":\"file\",\"filename\":\"/a\""), "raw", NULL, "has the driver 'file'" },
        { J("\"driver\":\"qcow2\"," FILE_AT("/a")), "raw", NULL, "has the driver 'qcow2'" },
        { J("\"driver\":\"qcow2\"," FILE_AT("a")), "", NULL, "not an absolute path" },
        { J("\"driver\":\"qcow2\"," FILE_AT("nbd://h")), "", NULL, "not an absolute path" },
        { J("\"driver\":\"qcow2\"," FILE_AT("/a") ",\"file.filename\":\"/b\""), "", NULL, "twice" },
        { J("\"driver\":\"qcow2\"," FILE_AT("/a") ",\"filename\":\"/b\""), "", NULL, "twice" },
        { J("\"driver\":\"qcow2\",\"filename\":\"/b\""), "", NULL, "no 'file'" },
        { J("\"driver\":\"qcow2\",\"file\":\"node\""), "", NULL, "'file'" },
        { J("\"driver\":\"qcow2\""), "", NULL, "no 'filename'" },
        { J("\"driver\":\"vmdk\"," FILE_AT("/a")), "", NULL, "driver 'vmdk'" },
        { J("\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"filename\":\"/a\"}"), "", NULL,
          "driver 'nbd'" },
        { J("\"driver\":\"raw\",\"offset\":1," FILE_AT("/a")), "", NULL, "'offset'" },
        { J("\"driver\":\"raw\",\"file\":{\"filename\":\"/a\",\"locking\":\"off\"}"), "", NULL,
          "'locking'" },
        { J("\"driver\":\"qcow2\",\"backing\":{}," FILE_AT("/a")), "", NULL, "'backing'" },
        { J("\"driver\":\"qcow2\",\"file\":{\"file\":{}}"), "", NULL, "'file'" },
        { J("\"driver\":1"), "", NULL, "no text" },
        { J("'driver':'raw'"), "", NULL, "not a JSON object" },
        { "json:[]", "", NULL, "not a JSON object" },
        { "json:", "", NULL, "not a JSON object" },
        { "json:{{{{{{{{", "", NULL, "not a JSON object" },
        { "file:a", "raw", NULL, "not an absolute path" },
        { "file:", "raw", NULL, "not an absolute path" },
        { "http://me:secret@host/x", "raw", NULL, "protocol 'http'" },
        { "fat:/etc", "raw", NULL, "protocol 'fat'" },
        { "a:b", "raw", NULL, "protocol 'a'" },
        { "", "raw", NULL, "empty" },
};

static void name_means(gconstpointer data)
{
        const Name *row = data;
        g_autoptr(GError) error = NULL;
        g_auto(BackingName) name = { 0 };

        if (backing_parse(row->text, row->format, "/d/e/f", &name, &error)) {
                g_assert_cmpstr(name.source, ==, row->source);
                g_assert_cmpstr(name.format, ==, row->expected);
                g_assert_cmpint(name.remote, ==, row->remote);
                g_assert_cmpint(backing_is_remote(name.source), ==, row->remote);
                return;
        }
        g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
        if (row->source || !strstr(error->message, row->expected))
                g_assert_cmpstr(error->message, ==, row->expected);
        g_assert_null(strstr(error->message, "secret"));
}

static void add(const char *name, gconstpointer rows, gsize size, guint n, GTestDataFunc test)
{
        for (guint i = 0; i < n; i++) {
                g_autofree char *path = g_strdup_printf("/header/%s/%u", name, i + 1);
                g_test_add_data_func(path, (const char *) rows + i * size, test);
        }
}

#define ADD(name, rows, test) add(name, rows, sizeof(rows[0]), G_N_ELEMENTS(rows), test)

int main(int argc, char **argv)
{
        int result;

        g_test_init(&argc, &argv, NULL);
        images_set_up();
        ADD("made", made, as_qemu_says);
        ADD("bent", bent, is_refused);
        ADD("name", names, name_means);
        g_test_add_func("/header/any-bytes", any_bytes);
        g_test_add_func("/header/too-large", too_large);
        result = g_test_run();
        images_tear_down();
        return result;
}
