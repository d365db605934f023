/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An index of images of which others make more, or take them away, or do not let them be seen. */
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "indexes.h"

static void watched(void)
{
        g_autoptr(ImageIndex) index = NULL;

        RUN("mkdir", "watched");
        CREATE("qcow2", "watched/base", SIZE);
        CREATE("qcow2", "watched/other", SIZE);
        index = open_index("watched", NULL);
        CREATE("qcow2", "watched/a", "-b", "base", "-F", "qcow2");
        wait_for_users(index, "watched/base", "1 watched/a");
        RUN("mv", "watched/a", "watched/b");
        wait_for_users(index, "watched/base", "1 watched/b");
        RUN("qemu-img", "rebase", "-u", "-b", "other", "-F", "qcow2", "watched/b");
        wait_for_users(index, "watched/base", "");
        wait_for_users(index, "watched/other", "1 watched/b");
        RUN("mkdir", "watched/sub");
        RUN("mv", "watched/b", "watched/sub");
        wait_for_users(index, "watched/other", "");
        RUN("cp", "watched/other", "watched/sub/other");
        wait_for_users(index, "watched/sub/other", "1 watched/sub/b");
        RUN("mv", "watched/sub", "watched/sub2");
        wait_for_users(index, "watched/sub2/other", "1 watched/sub2/b");
        CREATE("qcow2", "watched/sub2/c", "-b", "other", "-F", "qcow2");
        wait_for_users(index, "watched/sub2/other", "1 watched/sub2/b, 1 watched/sub2/c");
        RUN("rm", "watched/sub2/b");
        wait_for_users(index, "watched/sub2/other", "1 watched/sub2/c");
        RUN("mv", "watched/sub2", "moved-out");
        wait_for_users(index, "moved-out/other", "");
        RUN("rm", "-r", "watched");
        refresh(index);
        expect_unknown(index, "watched: it cannot be read: No such file or directory\n");
}

/* Other files take the places of those that are built on. */
static void replaced(void)
{
        g_autoptr(ImageIndex) index = NULL;

        RUN("mkdir", "-p", "replaced/over", "replaced/bases");
        CREATE("qcow2", "replaced/bases/base", SIZE);
        CREATE("qcow2", "replaced/over/a", "-b", "../bases/base", "-F", "qcow2");
        index = open_index("replaced/over", "replaced/bases", NULL);
        RUN("ln", "replaced/bases/base", "replaced/old");
        expect_users(index, "replaced/old", "1 replaced/over/a");
        RUN("cp", "replaced/bases/base", "replaced/new");
        RUN("mv", "replaced/new", "replaced/bases/base");
        wait_for_users(index, "replaced/bases/base", "1 replaced/over/a");
        wait_for_users(index, "replaced/old", "");
        RUN("rm", "replaced/bases/base");
        refresh(index);
        expect_users_by_name(index, "replaced/over/../bases/base", "1 replaced/over/a");
        expect_unknown(index, "");
}

/* The link on the way is nowhere that is looked at. */
static void link_on_the_way(void)
{
        g_autoptr(ImageIndex) index = NULL;

        RUN("mkdir", "-p", "way/over", "way/v1", "way/v2");
        RUN("ln", "-s", "v1", "way/current");
        CREATE("qcow2", "way/v1/base", SIZE);
        CREATE("qcow2", "way/v2/base", SIZE);
        CREATE("qcow2", "way/over/a", "-b", "../current/base", "-F", "qcow2");
        index = open_index("way/over", NULL);
        expect_users(index, "way/v1/base", "1 way/over/a");
        RUN("ln", "-sfn", "v2", "way/current");
        refresh(index);
        expect_users(index, "way/v1/base", "");
        expect_users(index, "way/v2/base", "1 way/over/a");
        RUN("rm", "way/current");
        refresh(index);
        expect_users(index, "way/v2/base", "");
        expect_users_by_name(index, "way/over/../current/base", "1 way/over/a");
}

/* The directory itself is a link, and a link in it leads to another image. */
static void link_that_turns(void)
{
        g_autoptr(ImageIndex) index = NULL;

        RUN("mkdir", "-p", "turns/1", "turns/2");
        RUN("ln", "-s", "1", "turns/current");
        CREATE("qcow2", "turns/base", SIZE);
        CREATE("qcow2", "turns/other", SIZE);
        CREATE("qcow2", "turns/a", "-b", "../base", "-F", "qcow2", "-u", SIZE);
        CREATE("qcow2", "turns/b", "-b", "../other", "-F", "qcow2", "-u", SIZE);
        RUN("ln", "-s", "../a", "turns/1/link");
        index = open_index("turns/current", NULL);
        expect_users(index, "turns/base", "1 turns/current/link");
        RUN("ln", "-sfn", "../b", "turns/1/link");
        wait_for_users(index, "turns/base", "");
        wait_for_users(index, "turns/other", "1 turns/current/link");
        RUN("ln", "-sfn", "2", "turns/current");
        refresh(index);
        expect_users(index, "turns/other", "");
        CREATE("qcow2", "turns/2/c", "-b", "../base", "-F", "qcow2");
        wait_for_users(index, "turns/base", "1 turns/current/c");
}

/* Nobody waits between the one and the other. */
static void a_moment_before(void)
{
        g_autoptr(ImageIndex) index = NULL;
        g_autofree char *path = at("moment/00001");

        RUN("mkdir", "moment");
        CREATE("qcow2", "moment/first", SIZE);
        CREATE("qcow2", "moment/other", SIZE);
        index = open_index("moment", NULL);
        for (guint i = 0; i < 50; i++) {
                make_images("moment/", 1, 1, "first");
                refresh(index);
                expect_users(index, "moment/first", "1 moment/00001");
                make_images("moment/", 1, 1, "other");
                refresh(index);
                expect_users(index, "moment/first", "");
                g_assert_no_errno(g_unlink(path));
                refresh(index);
                expect_users(index, "moment/other", "");
        }
}

/* As a QEMU does that goes on running: the same file, as long as before, and never closed. */
static void in_place(void)
{
        g_autoptr(ImageIndex) index = NULL;
        g_autofree char *path = at("place/00001"), *bytes = NULL;
        struct timespec times[2];
        struct stat st;
        gsize length;
        char *name;
        int fd;

        RUN("mkdir", "place");
        CREATE("qcow2", "place/first", SIZE);
        CREATE("qcow2", "place/other", SIZE);
        make_images("place/", 1, 1, "first");
        index = open_index("place", NULL);
        expect_users(index, "place/first", "1 place/00001");
        g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
        name = memmem(bytes, length, "first", 5);
        g_assert_nonnull(name);
        fd = open(path, O_RDWR | O_CLOEXEC);
        g_assert_no_errno(fd);
        for (guint i = 0; i < 20; i++) {
                const char *there = i % 2 ? "first" : "other", *gone = i % 2 ? "other" : "first";
                g_autofree char *base = g_strdup_printf("place/%s", there);
                g_autofree char *not_base = g_strdup_printf("place/%s", gone);

                g_assert_no_errno(fstat(fd, &st));
                g_assert_cmpint((int) pwrite(fd, there, 5, name - bytes), ==, 5);
                times[0] = st.st_atim;
                times[1] = st.st_mtim;
                g_assert_no_errno(futimens(fd, times));
                refresh(index);
                expect_users(index, base, "1 place/00001");
                expect_users(index, not_base, "");
        }
        close(fd);
}

static void storm(void)
{
        g_autoptr(ImageIndex) index = NULL;
        g_autoptr(ImageFound) found = NULL;
        g_autofree char *path = at("storm/02999");

        RUN("mkdir", "storm");
        CREATE("qcow2", "storm/first", SIZE);
        index = open_index("storm", NULL);
        make_images("storm/", 0, 2999, "first");
        make_images("storm/", 3000, 3000, "02999");
        wait_for_users(index, "storm/02999", "1 storm/03000");
        refresh(index);
        found = image_index_find(index, path);
        g_assert_cmpstr(found->format, ==, "qcow2");
        g_autofree char *users = users_of(index, "storm/first", FALSE);
        g_assert_true(g_str_has_suffix(users, ", 1 storm/02999"));
        RUN("sh", "-c", "rm storm/0*");
        wait_for_users(index, "storm/first", "");
}

/* ---- file systems that come, go and hang ---- */

static void removable(void)
{
        g_autoptr(ImageIndex) index = NULL;
        g_autofree char *target = at("removable/disk"), *base = at("removable/base");

        RUN("mkdir", "-p", "removable/disk");
        CREATE("qcow2", "removable/base", SIZE);
        g_assert_no_errno(mount("bj-test", target, "tmpfs", 0, "size=8M,mode=755"));
        CREATE("qcow2", "removable/disk/over", "-b", base, "-F", "qcow2");
        CREATE("qcow2", "removable/disk/gone", "-b", base, "-F", "qcow2");
        index = open_index("removable", NULL);
        expect_users(index, "removable/base", "1 removable/disk/gone, 1 removable/disk/over");
        RUN("rm", "removable/disk/gone");
        wait_for_users(index, "removable/base", "1 removable/disk/over");
        g_assert_no_errno(umount(target));
        refresh(index);
        expect_users(index, "removable/base", "1 removable/disk/over");
        expect_unknown(index, "removable/disk/over: the file system that it was on is not there\n");
        CREATE("qcow2", "removable/disk/over", "-b", "../base", "-F", "qcow2");
        refresh(index);
        expect_unknown(index, "");
        RUN("rm", "removable/disk/over");
        refresh(index);
        expect_users(index, "removable/base", "");
}

typedef struct {
        int fd;
        char *path;
} HangingMount;

/* A file system of which nobody ever answers anything. */
static HangingMount mount_hanging(const char *name)
{
        HangingMount hanging = { open("/dev/fuse", O_RDWR | O_CLOEXEC), at(name) };
        g_autofree char *options = g_strdup_printf("fd=%d,rootmode=40000,user_id=0,group_id=0", hanging.fd);

        g_assert_no_errno(hanging.fd);
        g_assert_no_errno(mount("bj-test", hanging.path, "fuse", MS_NOSUID | MS_NODEV, options));
        return hanging;
}

/* Whoever hangs there is let go. */
static void unmount_hanging(HangingMount *hanging)
{
        close(hanging->fd);
        g_assert_no_errno(umount2(hanging->path, MNT_DETACH));
        g_free(hanging->path);
}

static void hanging_directory(void)
{
        g_autoptr(ImageIndex) index = NULL;
        HangingMount hanging;

        RUN("mkdir", "-p", "hangs/images", "hangs/disk");
        CREATE("qcow2", "hangs/images/base", SIZE);
        CREATE("qcow2", "hangs/images/a", "-b", "base", "-F", "qcow2");
        hanging = mount_hanging("hangs/disk");
        index = start_index("hangs/disk", "hangs/images", NULL);
        wait_for_users(index, "hangs/images/base", "?1 hangs/images/a");
        expect_unknown(index, "hangs/disk: it has not been looked through yet\n");
        CREATE("qcow2", "hangs/images/b", "-b", "base", "-F", "qcow2");
        wait_for_users(index, "hangs/images/base", "?1 hangs/images/a, 1 hangs/images/b");
        g_assert_false(refresh_within(index, 50));
        unmount_hanging(&hanging);
        refresh(index);
        expect_users(index, "hangs/images/base", "1 hangs/images/a, 1 hangs/images/b");
        expect_unknown(index, "");
}

/* It was there once; and what hangs is only where an image leads. */
static void hanging_base(void)
{
        g_autoptr(ImageIndex) index = NULL;
        HangingMount hanging;

        RUN("mkdir", "-p", "hangs2/images", "hangs2/disk");
        CREATE("qcow2", "hangs2/disk/far", SIZE);
        CREATE("qcow2", "hangs2/images/near", SIZE);
        CREATE("qcow2", "hangs2/images/a", "-b", "../disk/far", "-F", "qcow2");
        RUN("ln", "hangs2/disk/far", "hangs2/same");
        index = open_index("hangs2/images", NULL);
        expect_users(index, "hangs2/same", "1 hangs2/images/a");
        hanging = mount_hanging("hangs2/disk");
        g_assert_false(refresh_within(index, 50));
        expect_users(index, "hangs2/same", "?1 hangs2/images/a");
        expect_unknown(index, "hangs2/images: it does not answer\n");
        RUN("ln", "-s", "../disk/far", "hangs2/images/a-link");
        CREATE("qcow2", "hangs2/images/b", "-b", "near", "-F", "qcow2");
        CREATE("qcow2", "hangs2/images/c", "-b", "near", "-F", "qcow2", "-u", SIZE);
        while (TRUE) {
                g_autofree char *path = at("hangs2/images/c");
                g_autoptr(ImageFound) found = image_index_find(index, path);

                if (found)
                        break;
                g_main_context_iteration(NULL, TRUE);
        }
        expect_users_by_name(index, "hangs2/images/near", "?1 hangs2/images/b, 1 hangs2/images/c");
        expect_unknown(index, "hangs2/images: it does not answer\n"
                              "hangs2/images/a-link: it is a link that nobody has followed yet\n"
                              "hangs2/images/b: nobody has looked yet which file it builds on\n"
                              "hangs2/images/c: nobody has looked yet which file it builds on\n");
        unmount_hanging(&hanging);
        refresh(index);
        expect_users(index, "hangs2/images/near", "1 hangs2/images/b, 1 hangs2/images/c");
        expect_users(index, "hangs2/same", "1 hangs2/images/a");
        expect_unknown(index, "");
}

/* ---- the end ---- */

static void on_done(gboolean complete, gpointer data)
{
        g_assert_false(complete);
        ++*(guint *) data;
}

static void freed(void)
{
        ImageIndex *index;
        guint n_done = 0;

        RUN("mkdir", "freed");
        make_images("freed/", 1, 500, NULL);
        index = start_index("freed", NULL);
        for (guint i = 0; i < 10; i++)
                image_index_refresh(index, 10000, on_done, &n_done);
        g_assert_cmpuint(n_done, ==, 0);
        image_index_free(index);
        g_assert_cmpuint(n_done, ==, 10);
        index = image_index_new((const char *const[]){ NULL }, NULL, NULL);
        refresh(index);
        expect_users(index, "freed/00001", "");
        image_index_free(index);
}

static const struct {
        const char *name;
        GTestFunc test;
} tests[] = {
        { "/index-watch/watched", watched },
        { "/index-watch/replaced", replaced },
        { "/index-watch/link-on-the-way", link_on_the_way },
        { "/index-watch/link-that-turns", link_that_turns },
        { "/index-watch/a-moment-before", a_moment_before },
        { "/index-watch/in-place", in_place },
        { "/index-watch/storm", storm },
        { "/index-watch/removable", removable },
        { "/index-watch/hanging-directory", hanging_directory },
        { "/index-watch/hanging-base", hanging_base },
        { "/index-watch/freed", freed },
};

int main(int argc, char **argv)
{
        int result;

        g_test_init(&argc, &argv, NULL);
        /* what is mounted here is gone with the test, however it ends */
        g_assert_no_errno(unshare(CLONE_NEWNS));
        g_assert_no_errno(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
        images_set_up();
        for (guint i = 0; i < G_N_ELEMENTS(tests); i++)
                g_test_add_func(tests[i].name, tests[i].test);
        result = g_test_run();
        images_tear_down();
        return result;
}
