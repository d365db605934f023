/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib.h>

#include <string.h>

#include "base/patience.h"

/* Names that begin with "hang" do not answer until they are let go. */
static GMutex lock;
static GCond changed;
static gboolean let_go;
static guint asked, returned;

static void look(const char *path, gpointer seen)
{
        g_mutex_lock(&lock);
        asked++;
        while (strstr(path, "/hang") && !let_go)
                g_cond_wait(&changed, &lock);
        returned++;
        g_cond_broadcast(&changed);
        g_mutex_unlock(&lock);
        *(gsize *) seen = strlen(path);
}

static GPtrArray *list(const char *names)
{
        GPtrArray *paths = g_ptr_array_new_with_free_func(g_free);
        g_auto(GStrv) words = g_strsplit(names, " ", -1);

        for (char **word = words; *word; word++)
                g_ptr_array_add(paths, g_strdup(*word));
        return paths;
}

/* What was seen, as text: the numbers, and "-" for what has not answered. */
static void expect(const char *names, const char *expected)
{
        g_autoptr(GPtrArray) paths = list(names);
        g_autofree gboolean *answered = g_new(gboolean, paths->len);
        g_autofree gsize *seen = patience_look(paths, look, sizeof *seen, answered);
        g_autoptr(GString) text = g_string_new(NULL);

        for (guint i = 0; i < paths->len; i++) {
                g_string_append(text, i ? " " : "");
                if (answered[i])
                        g_string_append_printf(text, "%" G_GSIZE_FORMAT, seen[i]);
                else
                        g_string_append(text, seen[i] ? "?" : "-");
        }
        g_assert_cmpstr(text->str, ==, expected);
}

static void all_answer(void)
{
        expect("/a /bb/c /a", "2 5 2");
}

static void nothing_to_ask(void)
{
        g_autoptr(GPtrArray) none = g_ptr_array_new();

        g_assert_null(patience_look(none, look, 1, NULL));
}

static void some_hang(void)
{
        guint before;

        expect("/a /x/hang /bb /y/hang /cc/hang /ccc", "2 - 3 - - 4");
        before = asked;
        expect("/x/hang /x/other /a", "- - 2");
        g_assert_cmpuint(asked, ==, before + 1);
        g_mutex_lock(&lock);
        let_go = TRUE;
        g_cond_broadcast(&changed);
        while (returned < asked)
                g_cond_wait(&changed, &lock);
        g_mutex_unlock(&lock);
        /* The threads that were left behind may be a moment later than what they say. */
        while (TRUE) {
                g_autoptr(GPtrArray) paths = list("/x/hang");
                gboolean answered = FALSE;
                g_autofree gsize *seen = patience_look(paths, look, sizeof *seen, &answered);

                if (answered)
                        break;
        }
        expect("/x/hang /x/other", "7 8");
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/patience/all-answer", all_answer);
        g_test_add_func("/patience/nothing", nothing_to_ask);
        g_test_add_func("/patience/some-hang", some_hang);
        return g_test_run();
}
