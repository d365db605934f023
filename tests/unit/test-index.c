/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which image builds on which, in directories with real images and with what is none. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gio/gio.h>
#include <gio/gunixsocketaddress.h>
#include <glib/gstdio.h>

#include "indexes.h"

static void chain(void)
{
        g_autofree char *base = NULL;
        g_autoptr(ImageIndex) index = NULL;
        g_autoptr(ImageFound) top = NULL, raw = NULL;
        struct stat st;

        RUN("mkdir", "-p", "chain/a/b", "elsewhere");
        CREATE("raw", "elsewhere/base", SIZE);
        base = at("elsewhere/base");
        CREATE("qcow2", "chain/mid", "-b", base, "-F", "raw");
        CREATE("qcow2", "chain/a/top", "-b", "../mid", "-F", "qcow2");
        CREATE("qcow2", "-o", "compat=0.10", "chain/a/b/act", "-b", "../top", "-F", "qcow2");
        CREATE("qcow2", "chain/other", "-b", "mid", "-F", "qcow2");
        index = open_index("chain", "chain/", NULL);
        expect_users(index, "elsewhere/base", "1 chain/mid");
        expect_all_users(index, "elsewhere/base",
                         "1 chain/mid, 2 chain/a/top, 2 chain/other, 3 chain/a/b/act");
        expect_users(index, "chain/mid", "1 chain/a/top, 1 chain/other");
        expect_users(index, "chain/a/b/act", "");
        expect_users_by_name(index, "elsewhere/base", "1 chain/mid");
        expect_users_by_name(index, "chain/a/../mid", "1 chain/a/top");
        expect_unknown(index, "");

        g_autofree char *path = at("chain/a/top"), *raw_path = at("chain/raw"),
                        *below = at("chain/a/../mid");
        top = image_index_find(index, path);
        g_assert_no_errno(stat(path, &st));
        g_assert_cmpuint(top->device, ==, st.st_dev);
        g_assert_cmpuint(top->inode, ==, st.st_ino);
        g_assert_cmpstr(top->format, ==, "qcow2");
        g_assert_cmpstr(top->backing, ==, below);
        g_assert_null(top->data_file);
        g_assert_null(top->why);
        g_assert_null(image_index_find(index, raw_path));
        CREATE("raw", "chain/raw", SIZE);
        refresh(index);
        raw = image_index_find(index, raw_path);
        g_assert_cmpstr(raw->format, ==, "raw");
        g_assert_null(raw->backing);
}

static void names(void)
{
        g_autofree char *json = g_strdup_printf(
                "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"%s/names/n1\"}}",
                place);
        g_autofree char *file = g_strdup_printf("file:%s/names/n1", place);
        g_autofree char *data = g_strdup_printf("data_file=%s/names/d.raw", place);
        g_autoptr(ImageIndex) index = NULL;

        RUN("mkdir", "names");
        CREATE("qcow2", "names/n1", SIZE);
        CREATE("qcow2", "names/n2", "-b", json, "-F", "qcow2");
        CREATE("qcow2", "names/n3", "-b", file, "-F", "qcow2");
        CREATE("qcow2", "-u", "names/n4", "-b", "nbd+unix:///x?socket=/none", "-F", "raw", SIZE);
        CREATE("qcow2", "-u", "names/n5", "-b", "http://me:secret@host/x", "-F", "raw", SIZE);
        CREATE("qcow2", "-u", "names/n6", "-b", "gone", "-F", "raw", SIZE);
        CREATE("qcow2", "-o", data, "names/n7", SIZE);
        CREATE("qcow2", "-o", "data_file=d2.raw", "names/n8", SIZE);
        CREATE("vmdk", "names/n9", SIZE);
        index = open_index("names", NULL);
        expect_users(index, "names/n1", "1 names/n2, 1 names/n3");
        expect_users(index, "names/d.raw", "1 names/n7 (data)");
        expect_users_by_name(index, "nbd+unix:///x?socket=/none", "1 names/n4");
        expect_users_by_name(index, "names/gone", "1 names/n6");
        expect_unknown(index, "names/n5: its backing file has the protocol 'http', which is not understood\n"
                              "names/n8: its data file 'd2.raw' is not an absolute path\n"
                              "names/n9: it is of the format 'vmdk', which is not looked into\n");
        RUN("cp", "names/n1", "names/gone");
        wait_for_users(index, "names/gone", "1 names/n6");
}

/* As long as a name can be, which the program takes in its own length. */
static void long_name(void)
{
        g_autoptr(GString) name = g_string_new(NULL);
        g_autoptr(ImageIndex) index = NULL;

        RUN("mkdir", "long");
        CREATE("qcow2", "long/b", SIZE);
        while (name->len + 2 < 1023)
                g_string_append(name, "./");
        g_string_append(name, name->len + 1 == 1023 ? "b" : "/b");
        g_assert_cmpuint(name->len, ==, 1023);
        CREATE("qcow2", "-u", "long/o", "-b", name->str, "-F", "qcow2", SIZE);
        index = open_index("long", NULL);
        expect_users(index, "long/b", "1 long/o");
}

static void links(void)
{
        g_autoptr(ImageIndex) index = NULL;
        g_autofree char *link = at("links/link"), *fifo = at("fifo-elsewhere"),
                        *to_fifo = at("links/to-fifo");

        RUN("mkdir", "-p", "links", "real");
        CREATE("qcow2", "real/base", SIZE);
        CREATE("qcow2", "links/base", SIZE);
        CREATE("qcow2", "real/over", "-b", "base", "-F", "qcow2");
        g_assert_no_errno(symlink("../real/over", link));
        RUN("ln", "-s", "gone", "links/dangling");
        RUN("ln", "-s", "turn", "links/turn");
        RUN("ln", "-s", "../real", "links/directory");
        RUN("ln", "-s", "base", "links/other-name");
        CREATE("qcow2", "-u", "links/by-other-name", "-b", "other-name", "-F", "qcow2", SIZE);
        g_assert_no_errno(mkfifo(fifo, 0644));
        g_assert_no_errno(symlink("../fifo-elsewhere", to_fifo));
        index = open_index("links", NULL);
        /* by the link it is another base than by the file's own name, as it is for QEMU */
        expect_users(index, "links/base", "1 links/by-other-name, 1 links/link");
        expect_users(index, "real/base", "");
        expect_unknown(index, "links/dangling: it is a link to what is not there\n"
                              "links/directory: it is a link to a directory, which is not followed\n"
                              "links/turn: it cannot be read: Too many levels of symbolic links\n");
}

static void hard_links(void)
{
        g_autoptr(ImageIndex) index = NULL;

        RUN("mkdir", "-p", "hard/sub", "hard-elsewhere");
        CREATE("qcow2", "hard/base", SIZE);
        CREATE("qcow2", "hard/over", "-b", "base", "-F", "qcow2");
        RUN("ln", "hard/base", "hard-elsewhere/base");
        RUN("ln", "hard/over", "hard/sub/over");
        CREATE("qcow2", "-u", "hard/top", "-b", "sub/over", "-F", "qcow2", SIZE);
        index = open_index("hard", NULL);
        expect_users(index, "hard-elsewhere/base", "1 hard/over");
        expect_users_by_name(index, "hard/sub/base", "1 hard/sub/over");
        expect_users(index, "hard/over", "1 hard/top");
        expect_all_users(index, "hard-elsewhere/base", "1 hard/over, 2 hard/top");
        RUN("rm", "hard/over");
        wait_for_users(index, "hard-elsewhere/base", "");
        expect_users(index, "hard/sub/over", "1 hard/top");
}

static void loops(void)
{
        g_autoptr(ImageIndex) index = NULL;

        RUN("mkdir", "loops");
        CREATE("qcow2", "-u", "loops/a", "-b", "b", "-F", "qcow2", SIZE);
        CREATE("qcow2", "-u", "loops/b", "-b", "c", "-F", "qcow2", SIZE);
        CREATE("qcow2", "-u", "loops/c", "-b", "a", "-F", "qcow2", SIZE);
        CREATE("qcow2", "-u", "loops/self", "-b", "self", "-F", "qcow2", SIZE);
        index = open_index("loops", NULL);
        expect_all_users(index, "loops/a", "1 loops/c, 2 loops/b, 3 loops/a");
        expect_all_users(index, "loops/self", "1 loops/self");
}

/* More of them than are gone through. */
static void depth(void)
{
        g_autoptr(ImageIndex) index = NULL;
        g_autofree char *path = NULL;
        g_autoptr(GPtrArray) users = NULL;
        const ImageUser *last;
        struct stat st;

        RUN("mkdir", "depth");
        make_images("depth/", 1, 300, NULL);
        CREATE("qcow2", "depth/00000", SIZE);
        index = open_index("depth", NULL);
        path = at("depth/00000");
        g_assert_no_errno(stat(path, &st));
        users = image_index_users(index, &(ImageId){ st.st_dev, st.st_ino, NULL }, TRUE, NULL);
        g_assert_cmpuint(users->len, ==, IMAGE_INDEX_DEPTH_MAX);
        last = users->pdata[users->len - 1];
        g_assert_cmpuint(last->depth, ==, IMAGE_INDEX_DEPTH_MAX);
        g_assert_true(g_str_has_suffix(last->path, "/depth/00256"));
        expect_users(index, "depth/00299", "1 depth/00300");
}

static void no_images(void)
{
        g_autofree char *fifo = at("none/fifo"), *unix_path = at("none/socket"), *cut = at("none/cut");
        g_autoptr(GSocket) listener =
                g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, NULL);
        g_autoptr(GSocketAddress) address = g_unix_socket_address_new(unix_path);
        g_autoptr(ImageIndex) index = NULL;

        RUN("mkdir", "-p", "none/1/2/3");
        g_assert_no_errno(mkfifo(fifo, 0644));
        g_assert_true(g_socket_bind(listener, address, FALSE, NULL));
        g_assert_true(g_file_set_contents(cut, "QFI\xfb\0\0\0\3", 8, NULL));
        CREATE("qcow2", "none/1/2/3/too-deep", SIZE);
        CREATE("qcow2", "none/base", SIZE);
        CREATE("qcow2", "none/1/2/over", "-b", "../../base", "-F", "qcow2");
        index = open_index("none", "not-there", NULL);
        g_assert_null(image_index_find(index, fifo));
        g_assert_null(image_index_find(index, unix_path));
        expect_users(index, "none/base", "1 none/1/2/over");
        expect_unknown(index,
                       "none/1/2/3: it is a directory too deep in '@/none' to be looked into\n"
                       "none/cut: it is no plain image: its qcow2 header's fields reach beyond the first 8 "
                       "bytes, which is all there is to be read\n"
                       "not-there: it cannot be read: No such file or directory\n");
        RUN("mkdir", "not-there");
        CREATE("qcow2", "not-there/over", "-b", "../none/base", "-F", "qcow2");
        refresh(index);
        expect_users(index, "none/base", "1 none/1/2/over, 1 not-there/over");
}

/* Root can read it all, and so the index is made with the rights of somebody else. */
static gpointer start_as_nobody(gpointer data)
{
        g_autoptr(Account) nobody = geteuid() == 0 ? account_find("nobody", NULL) : NULL;
        g_autoptr(GError) error = NULL;

        if (nobody)
                account_enter_thread(nobody, &error);
        g_assert_no_error(error);
        return start_index(data, NULL);
}

static void unreadable(void)
{
        g_autoptr(ImageIndex) index = NULL;

        RUN("mkdir", "-p", "shut/closed");
        CREATE("qcow2", "shut/base", SIZE);
        CREATE("qcow2", "shut/over", "-b", "base", "-F", "qcow2");
        CREATE("qcow2", "shut/closed/base", SIZE);
        CREATE("qcow2", "shut/over-closed", "-b", "closed/base", "-F", "qcow2");
        RUN("chmod", "0", "shut/over", "shut/closed");
        index = g_thread_join(g_thread_new("test", start_as_nobody, (gpointer) "shut"));
        refresh(index);
        expect_users(index, "shut/base", "");
        expect_unknown(index, "shut/closed: it cannot be read: Permission denied\n"
                              "shut/over: it cannot be read: Permission denied\n"
                              "shut/over-closed: '@/shut/closed/base', which it builds on, cannot be looked "
                              "at: Permission denied\n");
        expect_users_by_name(index, "shut/closed/base", "1 shut/over-closed");
        RUN("chmod", "755", "shut/closed");
        RUN("chmod", "644", "shut/over");
        wait_for_users(index, "shut/base", "1 shut/over");
        refresh(index);
        expect_users(index, "shut/closed/base", "1 shut/over-closed");
        expect_unknown(index, "");
}

/* In memory, since so many files are slow to make elsewhere; the index gets a link to there. */
static void too_many(void)
{
        g_autofree char *directory = g_strdup("/dev/shm/bj-XXXXXX"), *many = at("many");
        g_autoptr(ImageIndex) index = NULL;

        g_assert_nonnull(g_mkdtemp(directory));
        g_assert_no_errno(symlink(directory, many));
        for (guint i = 0; i <= IMAGE_INDEX_MAX; i++) {
                g_autofree char *name = g_strdup_printf("%s/%u", directory, i);
                int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);

                g_assert_no_errno(fd);
                close(fd);
        }
        index = open_index("many", NULL);
        expect_unknown(index, "many: it has files beyond the 100000 that can be known\n");
        RUN("rm", "-r", directory);
}

static const struct {
        const char *name;
        GTestFunc test;
} tests[] = {
        { "/index/chain", chain },           { "/index/names", names },
        { "/index/long-name", long_name },   { "/index/links", links },
        { "/index/hard-links", hard_links }, { "/index/loops", loops },
        { "/index/depth", depth },           { "/index/no-images", no_images },
        { "/index/unreadable", unreadable }, { "/index/too-many", too_many },
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
