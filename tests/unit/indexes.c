/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "indexes.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATIENCE_MS 20000

static guint n_changes;

static void on_changed(gpointer data)
{
        g_assert_cmpint(syscall(SYS_gettid), ==, getpid());
        g_assert_true(data == place);
        n_changes++;
}

static ImageIndex *start(const char *first, va_list list)
{
        g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);

        for (const char *name = first; name; name = va_arg(list, const char *))
                g_ptr_array_add(paths, at(name));
        g_ptr_array_add(paths, NULL);
        return image_index_new((const char *const *) paths->pdata, on_changed, place);
}

ImageIndex *start_index(const char *first, ...)
{
        ImageIndex *index;
        va_list list;

        va_start(list, first);
        index = start(first, list);
        va_end(list);
        return index;
}

ImageIndex *open_index(const char *first, ...)
{
        ImageIndex *index;
        va_list list;

        va_start(list, first);
        index = start(first, list);
        va_end(list);
        refresh(index);
        return index;
}

static void on_refreshed(gboolean complete, gpointer data)
{
        int *result = data;

        g_assert_cmpint(syscall(SYS_gettid), ==, getpid());
        g_assert_cmpint(*result, ==, -1);
        *result = complete;
}

gboolean refresh_within(ImageIndex *index, guint milliseconds)
{
        int result = -1;

        image_index_refresh(index, milliseconds, on_refreshed, &result);
        g_assert_cmpint(result, ==, -1);
        while (result < 0)
                g_main_context_iteration(NULL, TRUE);
        return result;
}

void refresh(ImageIndex *index)
{
        g_assert_true(refresh_within(index, PATIENCE_MS));
}

/* ---- users ---- */

static const char *name_of(const char *path)
{
        gsize length = strlen(place);

        g_assert_true(strncmp(path, place, length) == 0);
        return path[length] ? path + length + 1 : "";
}

static char *ask(ImageIndex *index, const ImageId *id, gboolean all)
{
        g_autoptr(GString) text = g_string_new(NULL);
        gboolean complete = 2;
        g_autoptr(GPtrArray) users = image_index_users(index, id, all, &complete);

        for (guint i = 0; i < users->len; i++) {
                const ImageUser *user = users->pdata[i];

                g_string_append_printf(text, "%s%u %s%s", i ? ", " : "", user->depth, name_of(user->path),
                                       user->part == IMAGE_PART_DATA ? " (data)" : "");
        }
        if (!complete)
                g_string_prepend(text, "?");
        return g_string_free(g_steal_pointer(&text), FALSE);
}

char *users_of(ImageIndex *index, const char *name, gboolean all)
{
        g_autofree char *path = at(name);
        struct stat st;

        g_assert_no_errno(stat(path, &st));
        return ask(index, &(ImageId){ .device = st.st_dev, .inode = st.st_ino }, all);
}

void expect_users(ImageIndex *index, const char *name, const char *expected)
{
        g_autofree char *users = users_of(index, name, FALSE);

        g_assert_cmpstr(users, ==, expected);
}

void expect_all_users(ImageIndex *index, const char *name, const char *expected)
{
        g_autofree char *users = users_of(index, name, TRUE);

        g_assert_cmpstr(users, ==, expected);
}

void expect_users_by_name(ImageIndex *index, const char *source, const char *expected)
{
        g_autofree char *path = strstr(source, "://") ? g_strdup(source) : at(source);
        g_autofree char *users = ask(index, &(ImageId){ .source = path }, FALSE);

        g_assert_cmpstr(users, ==, expected);
}

static gboolean on_late(gpointer data)
{
        *(gboolean *) data = TRUE;
        return G_SOURCE_REMOVE;
}

void wait_for_users(ImageIndex *index, const char *name, const char *expected)
{
        gboolean is_late = FALSE;
        guint timer = g_timeout_add(PATIENCE_MS, on_late, &is_late);

        for (;;) {
                g_autofree char *users = users_of(index, name, FALSE);
                guint before = n_changes;

                if (strcmp(users, expected) == 0)
                        break;
                if (is_late)
                        g_assert_cmpstr(users, ==, expected);
                /* what is not told of as a change need not be looked at */
                while (n_changes == before && !is_late)
                        g_main_context_iteration(NULL, TRUE);
        }
        if (!is_late)
                g_source_remove(timer);
}

/* ---- what is not known ---- */

void expect_unknown(ImageIndex *index, const char *expected)
{
        g_autoptr(GString) text = g_string_new(NULL), wanted = g_string_new(expected);
        g_autoptr(GPtrArray) list = image_index_unknown(index);

        for (guint i = 0; i < list->len; i++) {
                const ImageUnknown *unknown = list->pdata[i];

                g_string_append_printf(text, "%s: %s\n", name_of(unknown->path), unknown->why);
        }
        g_string_replace(wanted, "@", place, 0);
        g_assert_cmpstr(text->str, ==, wanted->str);
}

/* ---- many images ---- */

#define NAME "@@@@@" /* nowhere else in a header */

void make_images(const char *prefix, guint first, guint last, const char *base)
{
        g_autofree char *pattern = at("pattern"), *bytes = NULL;
        gsize length;
        char *name;

        CREATE("qcow2", "-u", "pattern", "-b", NAME, "-F", "qcow2", SIZE);
        g_assert_true(g_file_get_contents(pattern, &bytes, &length, NULL));
        g_assert_no_errno(unlink(pattern));
        name = memmem(bytes, MIN(length, 4096), NAME, strlen(NAME));
        g_assert_nonnull(name);
        for (guint i = first; i <= last; i++) {
                g_autofree char *number = g_strdup_printf("%s%05u", prefix, i), *path = at(number);
                char below[sizeof(NAME)];

                g_snprintf(below, sizeof(below), "%05u", i - 1);
                memcpy(name, base ? base : below, strlen(NAME));
                g_assert_true(g_file_set_contents_full(path, bytes, (gssize) MIN(length, 4096),
                                                       G_FILE_SET_CONTENTS_NONE, 0644, NULL));
        }
}
