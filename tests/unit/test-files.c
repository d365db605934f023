/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What jobs do with files by their names: real files in a directory of the test's own. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "base/boot.h"
#include "base/error.h"
#include "job/files.h"

static const JobDriver driver = { .name = "commit", .type = "commit", .kind = "commit" };

/* images/a, images/b, other/c, and "way", which leads to other */
typedef struct {
        char *directory, *a, *b, *c, *through;
        Job *job;
} Tree;

static char *put(const Tree *tree, const char *name)
{
        char *path = g_build_filename(tree->directory, name, NULL);

        g_assert_true(g_file_set_contents(path, name, -1, NULL));
        return path;
}

static void set_up(Tree *tree, gconstpointer data)
{
        static const char *const directories[] = { "images", "other" };
        g_autofree char *made = g_dir_make_tmp("bj-XXXXXX", NULL), *way = NULL;

        (void) data;
        g_assert_nonnull(made);
        tree->directory = realpath(made, NULL);
        for (guint i = 0; i < G_N_ELEMENTS(directories); i++) {
                g_autofree char *path = g_build_filename(tree->directory, directories[i], NULL);
                g_assert_no_errno(g_mkdir(path, 0755));
        }
        tree->a = put(tree, "images/a");
        tree->b = put(tree, "images/b");
        tree->c = put(tree, "other/c");
        way = g_build_filename(tree->directory, "images/way", NULL);
        g_assert_no_errno(symlink("../other", way));
        tree->through = g_build_filename(way, "c", NULL);
        tree->job = job_new(&driver, "vm", "vda", "vda");
        tree->job->instance = g_strdup_printf("%s/1-1", boot_id());
}

static void remove_tree(const char *path)
{
        g_autoptr(GDir) directory =
                g_file_test(path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open(path, 0, NULL);
        const char *name;

        while (directory && (name = g_dir_read_name(directory))) {
                g_autofree char *entry = g_build_filename(path, name, NULL);
                remove_tree(entry);
        }
        g_assert_no_errno(g_remove(path));
}

static void tear_down(Tree *tree, gconstpointer data)
{
        (void) data;
        remove_tree(tree->directory);
        job_unref(tree->job);
        char *owned[] = { tree->directory, tree->a, tree->b, tree->c, tree->through };
        for (guint i = 0; i < G_N_ELEMENTS(owned); i++)
                g_free(owned[i]);
}

static struct {
        gboolean called;
        GError *error;
} end;

static void on_done(Job *job, const GError *error)
{
        g_assert_nonnull(job);
        g_assert_false(end.called);
        end.called = TRUE;
        end.error = error ? g_error_copy(error) : NULL;
}

/* NULL, or what was wrong */
static GError *wait_for_end(void)
{
        g_assert_false(end.called); /* never from within the call */
        while (!end.called)
                g_main_context_iteration(NULL, TRUE);
        end.called = FALSE;
        return g_steal_pointer(&end.error);
}

/* ---- names relative to each other ---- */

static void expect_related(Tree *tree, const char *from, const char *to, const char *wanted)
{
        g_autoptr(GError) error = NULL;

        files_relate(tree->job, from, to, on_done);
        error = wait_for_end();
        g_test_message("%s to %s", from, to);
        g_assert_no_error(error);
        g_assert_cmpstr(tree->job->backing, ==, wanted);
}

static void relate(Tree *tree, gconstpointer data)
{
        g_autofree char *missing = g_build_filename(tree->directory, "images/deep/down/x", NULL);
        g_autofree char *colon = g_build_filename(tree->directory, "images/nbd:x", NULL);
        g_autofree char *later = g_build_filename(tree->directory, "other/nbd:x", NULL);
        g_autofree char *around = g_build_filename(tree->directory, "images/../images/./b", NULL);

        (void) data;
        expect_related(tree, tree->a, tree->b, "b");
        expect_related(tree, tree->a, tree->c, "../other/c");
        expect_related(tree, tree->c, tree->a, "../images/a");
        expect_related(tree, tree->a, around, "b");
        expect_related(tree, tree->a, tree->a, "a");
        /* the directories that a new image would stand in */
        expect_related(tree, tree->a, missing, "deep/down/x");
        expect_related(tree, missing, tree->a, "../../a");
        /* what stands before a colon would be a protocol */
        expect_related(tree, tree->a, colon, "./nbd:x");
        expect_related(tree, tree->a, later, "../other/nbd:x");
        expect_related(tree, "/a", "/b", "b");
        expect_related(tree, "/a", "/dev/x", "dev/x");
}

/* From a directory behind a symbolic link "../" does not lead to where the link stands. */
static void relate_through_a_link(Tree *tree, gconstpointer data)
{
        g_autofree char *named = g_build_filename(tree->directory, "images/name", NULL);

        (void) data;
        expect_related(tree, tree->through, tree->a, "../images/a");
        expect_related(tree, tree->through, tree->c, "c");
        expect_related(tree, tree->a, tree->through, "../other/c");
        /* a link that is the image itself keeps its name */
        g_assert_no_errno(symlink("../other/c", named));
        expect_related(tree, tree->a, named, "name");
        expect_related(tree, named, tree->a, "a");
}

/* The result leads there, by the kernel's own reading. */
static void relate_and_open(Tree *tree, gconstpointer data)
{
        const char *const paths[] = { tree->a, tree->b, tree->c, tree->through };

        (void) data;
        for (guint i = 0; i < G_N_ELEMENTS(paths); i++)
                for (guint j = 0; j < G_N_ELEMENTS(paths); j++) {
                        g_autofree char *directory = g_path_get_dirname(paths[i]), *found = NULL;
                        struct stat wanted, st;

                        files_relate(tree->job, paths[i], paths[j], on_done);
                        g_assert_null(wait_for_end());
                        found = g_strconcat(directory, "/", tree->job->backing, NULL);
                        g_test_message("%s", found);
                        g_assert_no_errno(stat(paths[j], &wanted));
                        g_assert_no_errno(stat(found, &st));
                        g_assert_cmpuint(st.st_ino, ==, wanted.st_ino);
                }
}

static void relate_what_is_no_file(Tree *tree, gconstpointer data)
{
        static const char *const others[] = { "nbd://host/x", "", "relative", "json:{}" };

        (void) data;
        tree->job->backing = g_strdup("before");
        for (guint i = 0; i < G_N_ELEMENTS(others) * 2; i++) {
                const char *other = others[i / 2];
                g_autoptr(GError) error = NULL;

                files_relate(tree->job, i % 2 ? other : tree->a, i % 2 ? tree->a : other, on_done);
                error = wait_for_end();
                g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
                g_assert_nonnull(strstr(error->message, "'relative'"));
                g_assert_nonnull(strstr(error->message, other));
                g_assert_cmpstr(tree->job->backing, ==, "before");
        }
}

/* ---- what a job makes invalid ---- */

static GPtrArray *list(const char *first, ...)
{
        GPtrArray *paths = g_ptr_array_new_with_free_func(g_free);
        va_list arguments;

        va_start(arguments, first);
        for (const char *path = first; path; path = va_arg(arguments, const char *))
                g_ptr_array_add(paths, g_strdup(path));
        va_end(arguments);
        return paths;
}

static void examine(Tree *tree)
{
        files_examine(tree->job,
                      list(tree->a, "nbd://host/x", tree->c, "/no/such/file", tree->directory, NULL),
                      list(NULL), NULL, on_done);
        g_assert_null(wait_for_end());
        /* what is no local file is nothing that can be removed */
        g_assert_cmpuint(tree->job->stale->len, ==, 2);
}

static gboolean exists(const char *path)
{
        return g_file_test(path, G_FILE_TEST_EXISTS);
}

static void remove_stale(Tree *tree, gconstpointer data)
{
        (void) data;
        examine(tree);
        files_remove_stale(tree->job, on_done);
        g_assert_null(wait_for_end());
        g_assert_false(exists(tree->a));
        g_assert_true(exists(tree->b));
        g_assert_false(exists(tree->c));
        /* once more, as after a crash in between */
        files_remove_stale(tree->job, on_done);
        g_assert_null(wait_for_end());
}

/* Somebody has put another file there: that one is not the job's to remove. The rest goes all the same. */
static void replaced(Tree *tree, gconstpointer data)
{
        g_autofree char *new_one = put(tree, "images/new");
        g_autofree char *text = NULL;
        g_autoptr(GError) error = NULL;

        (void) data;
        examine(tree);
        g_assert_no_errno(g_rename(new_one, tree->a));
        files_remove_stale(tree->job, on_done);
        error = wait_for_end();
        g_assert_nonnull(error);
        g_assert_nonnull(strstr(error->message, tree->a));
        g_assert_null(strstr(error->message, tree->c));
        g_assert_true(g_file_get_contents(tree->a, &text, NULL, NULL));
        g_assert_cmpstr(text, ==, "images/new");
        g_assert_false(exists(tree->c));
}

/* What stands there can no longer be told from the file that was there. */
static void cannot_be_removed(Tree *tree, gconstpointer data)
{
        g_autoptr(GError) error = NULL;

        (void) data;
        examine(tree);
        g_assert_no_errno(g_remove(tree->a));
        g_assert_no_errno(symlink("a", tree->a)); /* it leads to itself */
        files_remove_stale(tree->job, on_done);
        error = wait_for_end();
        g_assert_nonnull(error);
        g_assert_nonnull(strstr(error->message, tree->a));
        g_assert_nonnull(strstr(error->message, "could not be removed"));
        g_assert_true(g_file_test(tree->a, G_FILE_TEST_IS_SYMLINK));
        g_assert_false(exists(tree->c));
}

static void image_use_free(gpointer data)
{
        ImageUse *use = data;

        g_free(use->path);
        g_free(use->user);
        g_free(use);
}

/* By name, or by file under whatever name; what others use below it is their business. */
static void used_by_others(Tree *tree, gconstpointer data)
{
        const struct {
                const char *changed, *used;
                gboolean refused;
        } cases[] = {
                { tree->a, tree->a, TRUE },
                { tree->c, tree->through, TRUE },
                { tree->through, tree->c, TRUE },
                { "nbd://host/x", "nbd://host/x", TRUE },
                { "/no/such/file", "/no/such/file", TRUE },
                { tree->a, tree->b, FALSE },
                { tree->a, "nbd://host/x", FALSE },
                { "nbd://host/x", "nbd://host/y", FALSE },
                { tree->a, "a", FALSE },
        };

        (void) data;
        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                GPtrArray *uses = g_ptr_array_new_with_free_func(image_use_free);
                ImageUse *use = g_new(ImageUse, 1);
                g_autoptr(GError) error = NULL;

                *use = (ImageUse){ g_strdup(cases[i].used), g_strdup("disk 'x' of domain 'y'") };
                g_ptr_array_add(uses, use);
                files_examine(tree->job, list(tree->a, NULL), list(cases[i].changed, NULL), uses, on_done);
                error = wait_for_end();
                g_test_message("%s, %s", cases[i].changed, cases[i].used);
                if (!cases[i].refused) {
                        g_assert_no_error(error);
                        g_assert_cmpuint(tree->job->stale->len, ==, 1);
                        g_clear_pointer(&tree->job->stale, g_ptr_array_unref);
                        continue;
                }
                g_assert_error(error, BJ_ERROR, BJ_ERROR_IMAGE_IN_USE);
                g_assert_nonnull(strstr(error->message, cases[i].changed));
                g_assert_nonnull(strstr(error->message, "disk 'x' of domain 'y'"));
                g_assert_nonnull(strstr(error->message, "'force'"));
                g_assert_null(tree->job->stale);
        }
}

/* ---- the header of an overlay ---- */

static void check_backing(Tree *tree, gconstpointer data)
{
        const struct {
                const char *backing, *wanted;
                gboolean right;
        } cases[] = {
                { tree->b, tree->b, TRUE },
                { "b", tree->b, TRUE },
                { "way/c", tree->c, TRUE },
                { "../other/c", tree->through, TRUE },
                { "nbd://host/x", "nbd://host/x", TRUE },
                { "/no/such/file", "/no/such/file", TRUE },
                { "", tree->b, FALSE },
                { "a", tree->b, FALSE },
                { "c", tree->c, FALSE },
                { "nbd://host/x", tree->b, FALSE },
                { "", "", FALSE },
        };

        (void) data;
        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                g_autoptr(GError) error = NULL;

                files_check_backing(tree->job, tree->a, cases[i].backing, cases[i].wanted, on_done);
                error = wait_for_end();
                g_test_message("'%s', '%s'", cases[i].backing, cases[i].wanted);
                if (cases[i].right)
                        g_assert_no_error(error);
                else {
                        g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
                        g_assert_nonnull(strstr(error->message, tree->a));
                }
        }
}

/* ---- a file that was just created ---- */

/* As after its creation, which QEMU does. */
static void identify(Tree *tree, const char *path)
{
        g_free(tree->job->target);
        tree->job->target = g_strdup(path);
        files_identify_created(tree->job, on_done);
        g_assert_null(wait_for_end());
}

static void remove_created(Tree *tree, gconstpointer data)
{
        g_autofree char *link = g_build_filename(tree->directory, "link", NULL);
        const char *const kept[] = { link, tree->directory, "/no/such/file", "relative" };

        (void) data;
        tree->job->image = g_new0(NewImage, 1);
        tree->job->image->fd = -1;
        g_assert_no_errno(symlink(tree->a, link));
        for (guint i = 0; i < G_N_ELEMENTS(kept); i++) {
                identify(tree, kept[i]);
                files_remove_created(tree->job, on_done);
                g_assert_null(wait_for_end());
        }
        g_assert_true(g_file_test(link, G_FILE_TEST_IS_SYMLINK));
        identify(tree, tree->a);
        files_remove_created(tree->job, on_done);
        g_assert_null(wait_for_end());
        g_assert_false(exists(tree->a));
        g_assert_true(exists(tree->b));
}

/* Another file has come to its name since. */
static void keep_another(Tree *tree, gconstpointer data)
{
        (void) data;
        tree->job->image = g_new0(NewImage, 1);
        tree->job->image->fd = -1;
        identify(tree, tree->a);
        g_assert_no_errno(g_rename(tree->b, tree->a));
        files_remove_created(tree->job, on_done);
        g_assert_null(wait_for_end());
        g_assert_true(exists(tree->a));
}

int main(int argc, char **argv)
{
        static const struct {
                const char *name;
                void (*test)(Tree *tree, gconstpointer data);
        } tests[] = {
                { "/files/relate/names", relate },
                { "/files/relate/link", relate_through_a_link },
                { "/files/relate/open", relate_and_open },
                { "/files/relate/no-file", relate_what_is_no_file },
                { "/files/stale/removed", remove_stale },
                { "/files/stale/replaced", replaced },
                { "/files/stale/cannot", cannot_be_removed },
                { "/files/stale/used", used_by_others },
                { "/files/check-backing", check_backing },
                { "/files/remove-created", remove_created },
                { "/files/created/another", keep_another },
        };

        g_test_init(&argc, &argv, NULL);
        for (guint i = 0; i < G_N_ELEMENTS(tests); i++)
                g_test_add(tests[i].name, Tree, NULL, set_up, tests[i].test, tear_down);
        return g_test_run();
}
