/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "place.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <glib/gstdio.h>

#include "base/error.h"
#include "base/json.h"

Journal *open_journal(const char *directory)
{
        g_autoptr(GError) error = NULL;
        Journal *journal = journal_open(directory, &error);

        g_assert_no_error(error);
        g_assert_nonnull(journal);
        return journal;
}

void place_set_up(Place *place, gconstpointer data)
{
        g_autofree char *parent = g_dir_make_tmp("bj-XXXXXX", NULL);

        (void) data;
        g_assert_nonnull(parent);
        place->directory = g_build_filename(parent, "deep", "state", NULL);
        place->journal = open_journal(place->directory);
        place->lines = g_ptr_array_new_with_free_func(g_free);
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

void wait_idle(Place *place)
{
        while (!journal_is_idle(place->journal))
                g_main_context_iteration(NULL, TRUE);
}

void place_tear_down(Place *place, gconstpointer data)
{
        g_autofree char *up = g_path_get_dirname(place->directory);
        g_autofree char *parent = g_path_get_dirname(up);

        (void) data;
        wait_idle(place);
        journal_close(place->journal);
        remove_tree(parent);
        g_free(place->directory);
        g_ptr_array_unref(place->lines);
}

static int compare_lines(gconstpointer a, gconstpointer b)
{
        return strcmp(*(char *const *) a, *(char *const *) b);
}

void expect_lines(Place *place, const char *wanted)
{
        g_autofree char *text = NULL;

        g_ptr_array_add(place->lines, NULL);
        text = g_strjoinv("\n", (char **) place->lines->pdata);
        g_assert_cmpstr(text, ==, wanted);
        g_ptr_array_set_size(place->lines, 0);
}

void on_done(const GError *error, gpointer data)
{
        Tagged *tagged = data;

        g_ptr_array_add(tagged->place->lines, error ? g_strdup_printf("done %s %s: %s", tagged->tag,
                                                                      bj_error_name(error), error->message)
                                                    : g_strdup_printf("done %s", tagged->tag));
        g_free(tagged->tag);
        g_free(tagged);
}

Tagged *tag(Place *place, const char *text)
{
        Tagged *tagged = g_new(Tagged, 1);

        *tagged = (Tagged){ place, g_strdup(text) };
        return tagged;
}

static void put_record(Place *place, JournalKind kind, const char *name, const char *text,
                       JournalDurability durability)
{
        journal_write(place->journal, kind, name, json_make("s:text", text, NULL), durability, on_done,
                      tag(place, text));
}

void write_record(Place *place, JournalKind kind, const char *name, const char *text)
{
        put_record(place, kind, name, text, JOURNAL_SYNCED);
}

void write_late_record(Place *place, JournalKind kind, const char *name, const char *text)
{
        put_record(place, kind, name, text, JOURNAL_LATE);
}

static gboolean each(const char *name, JsonObject *record, gpointer data)
{
        Place *place = data;
        const char *text = json_string(record, "text"), *mark = json_string(record, "mark");

        g_ptr_array_add(place->lines, g_strdup_printf("record %s %s%s%s", name, text ? text : "-",
                                                      mark ? " " : "", mark ? mark : ""));
        return g_strcmp0(place->senseless, name) != 0;
}

static void damaged(const char *path, const char *why, gpointer data)
{
        Place *place = data;

        g_assert_true(g_str_has_prefix(path, place->directory));
        g_ptr_array_add(place->lines,
                        g_strdup_printf("damaged %s: %s", path + strlen(place->directory) + 1, why));
}

void read_records(Place *place, JournalKind kind)
{
        journal_read(place->journal, kind, each, damaged, place);
        g_ptr_array_sort(place->lines, compare_lines);
}

char *path_of(Place *place, const char *name)
{
        return g_build_filename(place->directory, name, NULL);
}

void put_file(Place *place, const char *name, const char *text, gsize length)
{
        g_autofree char *path = path_of(place, name);

        g_assert_true(g_file_set_contents(path, text, (gssize) length, NULL));
}

/* "a b", sorted */
static char *list(Place *place, const char *name)
{
        g_autofree char *path = path_of(place, name);
        g_autoptr(GDir) directory = g_dir_open(path, 0, NULL);
        g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
        const char *entry;

        g_assert_nonnull(directory);
        while ((entry = g_dir_read_name(directory)))
                g_ptr_array_add(names, g_strdup(entry));
        g_ptr_array_sort(names, compare_lines);
        g_ptr_array_add(names, NULL);
        return g_strjoinv(" ", (char **) names->pdata);
}

void expect_files(Place *place, const char *directory, const char *wanted)
{
        g_autofree char *files = list(place, directory);

        g_assert_cmpstr(files, ==, wanted);
}

void sort_lines(Place *place)
{
        g_ptr_array_sort(place->lines, compare_lines);
}
