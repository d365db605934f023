/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Chains of real images, and what is none. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gio/gio.h>
#include <gio/gunixsocketaddress.h>
#include <glib/gstdio.h>

#include "base/error.h"
#include "base/json.h"
#include "images.h"

/* ---- chains ---- */

static void compare_with_qemu(const char *name)
{
        g_autofree char *path = at(name);
        g_auto(Answer) answer = LOOK(name, .format = "qcow2");
        g_autofree char *text = run("qemu-img", "info", "--output=json", "--backing-chain", path, NULL);
        g_autoptr(JsonParser) parser = json_parser_new();
        JsonArray *all;

        g_assert_true(json_parser_load_from_data(parser, text, -1, NULL));
        all = json_node_get_array(json_parser_get_root(parser));
        for (guint i = 0; i < json_array_get_length(all); i++) {
                JsonObject *info = json_element(all, i);
                const ImageLayer *seen = layer(&answer, i);

                g_assert_cmpstr(seen->source, ==, json_string(info, "filename"));
                g_assert_cmpstr(seen->format, ==, json_string(info, "format"));
                g_assert_cmpuint(seen->virtual_size, ==, json_integer(info, "virtual-size"));
                g_assert_cmpuint(seen->allocated, ==, json_integer(info, "actual-size"));
                g_assert_cmpstr(seen->backing, ==, json_string(info, "backing-filename") ?: "");
                g_assert_cmpstr(seen->backing_format, ==,
                                json_string(info, "backing-filename-format") ?: "");
                g_assert_cmpstr(seen->data_file, ==, "");
                g_assert_true(seen->writable);
                g_assert_false(seen->is_block || seen->remote || seen->encrypted || seen->dirty ||
                               seen->corrupt);
        }
        g_assert_cmpuint(answer.layers->len, ==, json_array_get_length(all));
}

static void chain(void)
{
        g_autofree char *base = at("chain/base.raw"), *middle = NULL;
        struct stat st;

        g_assert_no_errno(g_mkdir(middle = at("chain"), 0755));
        CREATE("raw", "chain/base.raw", SIZE);
        RUN("qemu-io", "-f", "raw", "-c", "write 1M 100k", "chain/base.raw");
        CREATE("qcow2", "chain/a", "-b", base, "-F", "raw");
        CREATE("qcow2", "chain/b", "-b", "../chain/a", "-F", "qcow2");
        CREATE("qcow2", "-o", "compat=0.10", "chain/c", "-b", "b", "-F", "qcow2", "8M");
        CREATE("qcow2", "top", "-b", "chain/c", "-F", "qcow2");
        compare_with_qemu("top");

        g_auto(Answer) answer = LOOK("top", .want_write = TRUE);
        g_assert_no_errno(stat(base, &st));
        g_assert_cmpuint(layer(&answer, 4)->device, ==, st.st_dev);
        g_assert_cmpuint(layer(&answer, 4)->inode, ==, st.st_ino);
        g_assert_cmpuint(answer.layers->len, ==, 5);
        clear(&answer);
        answer = look_by(image_inspect, "top", (InspectRequest){ 0 });
        g_assert_cmpuint(answer.layers->len, ==, 1);
        clear(&answer);
        answer = LOOK("top", .format = "raw");
        g_assert_cmpuint(answer.layers->len, ==, 1);
        g_assert_cmpstr(layer(&answer, 0)->format, ==, "raw");
}

static void names(void)
{
        g_autofree char *json = g_strdup_printf(
                "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"%s/n1\"}}", place);
        g_autofree char *file = g_strdup_printf("file:%s/n1", place), *n1 = at("n1");
        g_auto(Answer) answer = { 0 };

        CREATE("qcow2", "n1", SIZE);
        CREATE("qcow2", "n2", "-b", json, "-F", "qcow2");
        CREATE("qcow2", "n3", "-b", file, "-F", "qcow2");
        answer = LOOK("n2");
        g_assert_cmpstr(layer(&answer, 1)->source, ==, n1);
        g_assert_cmpstr(layer(&answer, 0)->backing, ==, json);
        clear(&answer);
        answer = LOOK("n3");
        g_assert_cmpstr(layer(&answer, 1)->source, ==, n1);
        clear(&answer);

        CREATE("qcow2", "-u", "n4", "-b", "nbd+unix:///x?socket=/none", "-F", "raw", SIZE);
        answer = LOOK("n4");
        g_assert_cmpuint(answer.layers->len, ==, 2);
        g_assert_cmpstr(layer(&answer, 1)->source, ==, "nbd+unix:///x?socket=/none");
        g_assert_true(layer(&answer, 1)->remote);
        g_assert_cmpuint(layer(&answer, 1)->virtual_size, ==, 0);
        CREATE("qcow2", "-u", "n5", "-b", "http://me:secret@host/x", "-F", "raw", SIZE);
        EXPECT_ERROR("n5", INVALID_ARGUMENT,
                     "image '@/n5': its backing file has the protocol 'http', which is not understood");
        CREATE("qcow2", "-u", "n6", "-b", "gone", "-F", "raw", SIZE);
        EXPECT_ERROR("n6", NO_SUCH_IMAGE, "image '@/gone' (backing file of '@/n6') does not exist");
}

/* A name without its format, as no qemu-img writes it any more. */
static void rewrite_without_format(const char *name)
{
        g_autofree char *path = at(name);
        char *bytes, *mark;
        gsize length;

        g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
        mark = memmem(bytes, 1024, "\xe2\x79\x2a\xca", 4);
        g_assert_nonnull(mark);
        memcpy(mark, "\x12\x34\x56\x78", 4);
        g_assert_true(g_file_set_contents(path, bytes, (gssize) length, NULL));
        g_free(bytes);
}

static void formats(void)
{
        g_auto(Answer) answer = { 0 };

        CREATE("raw", "f.raw", SIZE);
        CREATE("qcow2", "f.qcow2", SIZE);
        CREATE("vpc", "-o", "subformat=fixed", "f.vpc", SIZE);
        CREATE("qcow2", "over-raw", "-b", "f.raw", "-F", "raw");
        CREATE("qcow2", "over-qcow2", "-b", "f.qcow2", "-F", "qcow2");
        CREATE("qcow2", "over-vpc", "-b", "f.vpc", "-F", "vpc");
        EXPECT_ERROR(
                "over-vpc", INVALID_ARGUMENT,
                "image '@/f.vpc' (backing file of '@/over-vpc') is of the format 'vpc', but only raw and "
                "qcow2 are supported");
        answer = LOOK("over-vpc", .any_format = TRUE);
        g_assert_cmpstr(layer(&answer, 1)->format, ==, "vpc");
        clear(&answer);
        rewrite_without_format("over-raw");
        rewrite_without_format("over-qcow2");
        rewrite_without_format("over-vpc");
        answer = LOOK("over-raw");
        g_assert_cmpstr(layer(&answer, 1)->format, ==, "raw");
        EXPECT_ERROR(
                "over-qcow2", INVALID_ARGUMENT,
                "image '@/f.qcow2' (backing file of '@/over-qcow2') looks like qcow2, but '@/over-qcow2' "
                "does not record its format, and formats are not guessed");
        EXPECT_ERROR(
                "over-vpc", INVALID_ARGUMENT,
                "image '@/f.vpc' (backing file of '@/over-vpc') looks like vpc, but '@/over-vpc' does not "
                "record its format, and formats are not guessed");
        EXPECT_ERROR("f.raw", INVALID_ARGUMENT, "image '@/f.raw' is no plain image: it is no qcow2 image",
                     .format = "qcow2");
        EXPECT_ERROR("f.raw", INVALID_ARGUMENT, "image '@/f.raw' is of the format 'nbd', which is not known",
                     .format = "nbd");
}

static void data_files(void)
{
        g_autofree char *option = g_strdup_printf("data_file=%s/d.raw", place), *d = at("d.raw");
        g_auto(Answer) answer = { 0 };

        CREATE("qcow2", "-o", option, "d", SIZE);
        answer = LOOK("d", .want_write = TRUE);
        g_assert_cmpstr(layer(&answer, 0)->data_file, ==, d);
        CREATE("qcow2", "-o", "data_file=d2.raw", "d2", SIZE);
        EXPECT_ERROR("d2", INVALID_ARGUMENT, "image '@/d2': its data file 'd2.raw' is not an absolute path");
        g_assert_no_errno(g_unlink(d));
        EXPECT_ERROR("d", NO_SUCH_IMAGE, "file '@/d.raw' (data of '@/d') does not exist");
        g_assert_no_errno(symlink("d", d));
        EXPECT_ERROR("d", INVALID_ARGUMENT, "file '@/d.raw' (data of '@/d') is in the chain of '@/d' twice");
        RUN("rm", "d", "d2");
}

static void explicit_chain(void)
{
        g_autofree char *a = at("e-a"), *b = at("e-b");
        ImageName first = { a, (char *) "qcow2" }, second = { (char *) "nbd://h/x", (char *) "raw" },
                  third = { b, (char *) "raw" }, relative = { (char *) "e-a", (char *) "raw" },
                  unknown = { a, NULL };
        g_autoptr(GPtrArray) list = g_ptr_array_new();
        g_auto(Answer) answer = { 0 };

        CREATE("raw", "e-b", SIZE);
        CREATE("qcow2", "-u", "e-a", "-b", "gone", "-F", "raw", SIZE);
        CREATE("qcow2", "-u", "e-top", "-b", "gone", "-F", "raw", SIZE);
        answer = LOOK("e-top", .chain = list);
        g_assert_cmpuint(answer.layers->len, ==, 1);
        clear(&answer);
        g_ptr_array_add(list, &first);
        g_ptr_array_add(list, &second);
        g_ptr_array_add(list, &third);
        answer = LOOK("e-top", .chain = list, .format = "qcow2");
        g_assert_cmpuint(answer.layers->len, ==, 4);
        g_assert_cmpstr(layer(&answer, 1)->source, ==, a);
        g_assert_cmpstr(layer(&answer, 1)->backing, ==, "gone");
        g_assert_true(layer(&answer, 2)->remote);
        g_assert_cmpstr(layer(&answer, 3)->format, ==, "raw");
        g_ptr_array_add(list, &first);
        EXPECT_ERROR("e-top", INVALID_ARGUMENT,
                     "image '@/e-a' (backing file of '@/e-b') is in the chain of '@/e-top' twice",
                     .chain = list);
        g_ptr_array_set_size(list, 0);
        g_ptr_array_add(list, &relative);
        EXPECT_ERROR("e-top", INVALID_ARGUMENT, "image 'e-a' is not an absolute path", .chain = list);
        list->pdata[0] = &unknown;
        EXPECT_ERROR(
                "e-top", INVALID_ARGUMENT,
                "image '@/e-a' (backing file of '@/e-top') looks like qcow2, but '@/e-top' does not record "
                "its format, and formats are not guessed",
                .chain = list);
}

static void loops(void)
{
        CREATE("qcow2", "-u", "l1", "-b", "l2", "-F", "qcow2", SIZE);
        CREATE("qcow2", "-u", "l2", "-b", "l3", "-F", "qcow2", SIZE);
        RUN("ln", "-s", "l1", "l3");
        EXPECT_ERROR("l1", INVALID_ARGUMENT,
                     "image '@/l3' (backing file of '@/l2') is in the chain of '@/l1' twice");
        RUN("ln", "-s", "m2", "m1");
        RUN("ln", "-s", "m1", "m2");
        EXPECT_ERROR("m1", INVALID_ARGUMENT,
                     "image '@/m1' cannot be read: Too many levels of symbolic links");
}

/* Each over the one with the number before; "0000" is patched, as making each by qemu-img takes long. */
static void depth(void)
{
        g_autofree char *pattern = at("p"), *bytes = NULL, *first = at("0000");
        gsize length;
        char *name;

        CREATE("qcow2", "-u", "p", "-b", "0000", "-F", "qcow2", SIZE);
        g_assert_true(g_file_get_contents(pattern, &bytes, &length, NULL));
        name = memmem(bytes, 4096, "0000", 4);
        g_assert_nonnull(name);
        RUN("qemu-img", "create", "-q", "-f", "qcow2", first, SIZE);
        for (guint i = 1; i <= 256; i++) {
                g_autofree char *number = g_strdup_printf("%04u", i), *path = at(number);
                char below[5];

                g_snprintf(below, sizeof(below), "%04u", i - 1);
                memcpy(name, below, 4);
                g_assert_true(g_file_set_contents_full(path, bytes, (gssize) length,
                                                       G_FILE_SET_CONTENTS_NONE, 0644, NULL));
        }
        g_auto(Answer) answer = LOOK("0255");
        g_assert_cmpuint(layer(&answer, 255)->virtual_size, ==, 4 * 1024 * 1024);
        g_assert_cmpuint(answer.layers->len, ==, 256);
        EXPECT_ERROR("0256", LIMIT_EXCEEDED, "the chain of '@/0256' has more than 256 layers");
}

/* ---- what is no image ---- */

static void no_images(void)
{
        g_autofree char *fifo = at("fifo"), *unix_path = at("socket"), *empty = at("empty");
        g_autoptr(GSocket) listener =
                g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, NULL);
        g_autoptr(GSocketAddress) address = g_unix_socket_address_new(unix_path);
        g_auto(Answer) answer = { 0 };

        g_assert_no_errno(mkfifo(fifo, 0644));
        g_assert_true(g_socket_bind(listener, address, FALSE, NULL));
        EXPECT_ERROR("fifo", INVALID_ARGUMENT, "image '@/fifo' is a FIFO, no image");
        EXPECT_ERROR("socket", INVALID_ARGUMENT, "image '@/socket' is a socket, no image");
        EXPECT_ERROR("/dev/null", INVALID_ARGUMENT, "image '/dev/null' is a character device, no image");
        EXPECT_ERROR(place, INVALID_ARGUMENT, "image '@' is a directory, no image");
        EXPECT_ERROR("gone", NO_SUCH_IMAGE, "image '@/gone' does not exist");
        EXPECT_ERROR("fifo/x", NO_SUCH_IMAGE, "image '@/fifo/x' does not exist");
        EXPECT_ERROR("http://me:secret@h/", INVALID_ARGUMENT, "image 'http://…' is not an absolute path");
        g_assert_true(g_file_set_contents(empty, "", 0, NULL));
        answer = LOOK("empty");
        g_assert_cmpuint(layer(&answer, 0)->virtual_size, ==, 0);
        g_assert_true(g_file_set_contents(empty, "QFI\xfb\0\0\0\3", 8, NULL));
        EXPECT_ERROR("empty", INVALID_ARGUMENT,
                     "image '@/empty' is no plain image: its qcow2 header's fields reach beyond the first 8 "
                     "bytes, "
                     "which is all there is to be read");
}

static void block_device(void)
{
        g_autoptr(GDir) all = g_dir_open("/sys/class/block", 0, NULL);
        const char *name;

        while (all && (name = g_dir_read_name(all))) {
                g_autofree char *path = g_build_filename("/dev", name, NULL), *sectors = NULL, *text = NULL;
                g_auto(Answer) answer = { 0 };
                struct stat st;

                if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode) || access(path, R_OK) < 0)
                        continue;
                answer = LOOK(path, .format = "raw");
                if (answer.error || layer(&answer, 0)->virtual_size == 0) /* without a medium */
                        continue;
                g_assert_true(layer(&answer, 0)->is_block);
                sectors = g_build_filename("/sys/class/block", name, "size", NULL);
                g_assert_true(g_file_get_contents(sectors, &text, NULL, NULL));
                g_assert_cmpuint(layer(&answer, 0)->virtual_size, ==,
                                 512 * g_ascii_strtoull(text, NULL, 10));
                g_assert_cmpuint(layer(&answer, 0)->device, ==, st.st_rdev);
                g_assert_cmpuint(layer(&answer, 0)->inode, ==, 0);
                return;
        }
        g_test_skip("no block device here");
}

/* ---- other formats ---- */

static void others(void)
{
        static const char *const all[] = { "vmdk", "vdi",       "vhdx",  "vpc", "qed",
                                           "qcow", "parallels", "qcow2", "raw" };
        g_autoptr(Account) nobody = geteuid() == 0 ? account_find("nobody", NULL) : NULL;

        for (guint i = 0; i < G_N_ELEMENTS(all); i++) {
                g_autofree char *name = g_strdup_printf("o.%s", all[i]);
                g_auto(Answer) answer = { 0 };

                CREATE(all[i], name, "8M");
                answer = look_by(image_inspect_other, name, (InspectRequest){ .account = nobody });
                g_assert_cmpstr(layer(&answer, 0)->format, ==, all[i]);
                g_assert_cmpuint(layer(&answer, 0)->virtual_size, >=, 8 * 1024 * 1024);
                g_assert_cmpuint(layer(&answer, 0)->virtual_size, <, 9 * 1024 * 1024);
        }
        g_autofree char *path = at("o.broken");
        g_auto(Answer) answer = { 0 };
        g_assert_true(g_file_set_contents(path, "vhdxfile, or not", -1, NULL));
        answer = look_by(image_inspect_other, "o.broken", (InspectRequest){ 0 });
        g_assert_error(answer.error, BJ_ERROR, BJ_ERROR_QEMU);
        clear(&answer);
        answer = look_by(image_inspect_other, "o.gone", (InspectRequest){ 0 });
        expect_error(&answer, BJ_ERROR_NO_SUCH_IMAGE, "image '@/o.gone' does not exist");
}

/* Many at once, and none waits for another. */
static void at_once(void)
{
        g_autofree char *path = at("many");
        Answer answers[50] = { 0 };
        gboolean all = FALSE;

        CREATE("qcow2", "many", SIZE);
        for (guint i = 0; i < G_N_ELEMENTS(answers); i++)
                image_inspect(&(InspectRequest){ .path = path }, on_answer, &answers[i]);
        while (!all) {
                g_main_context_iteration(NULL, TRUE);
                all = TRUE;
                for (guint i = 0; i < G_N_ELEMENTS(answers); i++)
                        all = all && answers[i].times == 1;
        }
        for (guint i = 0; i < G_N_ELEMENTS(answers); i++)
                clear(&answers[i]);
}

static const struct {
        const char *name;
        GTestFunc test;
} tests[] = {
        { "/inspect/chain", chain },
        { "/inspect/names", names },
        { "/inspect/formats", formats },
        { "/inspect/data-files", data_files },
        { "/inspect/explicit-chain", explicit_chain },
        { "/inspect/loops", loops },
        { "/inspect/depth", depth },
        { "/inspect/no-images", no_images },
        { "/inspect/block-device", block_device },
        { "/inspect/others", others },
        { "/inspect/at-once", at_once },
};

int main(int argc, char **argv)
{
        int result;

        g_test_init(&argc, &argv, NULL);
        images_set_up();
        for (guint i = 0; i < G_N_ELEMENTS(tests); i++)
                g_test_add_func(tests[i].name, tests[i].test);
        result = g_test_run();
        images_tear_down();
        return result;
}
