/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the service finds in its state directory when it starts: nothing of it may keep it from starting, and
 * nothing is thrown away. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "base/error.h"
#include "place.h"

static void second_service(Place *place, gconstpointer data)
{
        g_autoptr(GError) error = NULL;

        (void) data;
        g_assert_null(journal_open(place->directory, &error));
        g_assert_error(error, BJ_ERROR, BJ_ERROR_EXISTS);
        g_assert_nonnull(strstr(error->message, place->directory));
        journal_close(place->journal);
        place->journal = open_journal(place->directory);
}

static void damaged_records(Place *place, gconstpointer data)
{
        static const struct {
                const char *name, *text;
        } files[] = {
                { "01-empty", "" },
                { "02-half", "{\"version\": 1, \"kind\": \"jobs\", \"te" },
                { "03-zeroes", NULL },
                { "04-array", "[{\"version\": 1, \"kind\": \"jobs\"}]" },
                { "05-null", "null" },
                { "06-no-version", "{\"kind\": \"jobs\"}" },
                { "07-newer", "{\"version\": 2, \"kind\": \"jobs\"}" },
                { "08-text-version", "{\"version\": \"1\", \"kind\": \"jobs\"}" },
                { "09-no-kind", "{\"version\": 1}" },
                { "10-foreign", "{\"version\": 1, \"kind\": \"domains\"}" },
                { "11-not-utf-8", "{\"version\": 1, \"kind\": \"jobs\", \"text\": \"\xff\"}" },
                { "12-senseless", "{\"version\": 1, \"kind\": \"jobs\", \"text\": \"?\"}" },
                { "13-good", "{\"version\": 1, \"kind\": \"jobs\", \"text\": \"fine\"}" },
        };

        (void) data;
        place->senseless = "12-senseless";
        for (guint i = 0; i < G_N_ELEMENTS(files); i++) {
                g_autofree char *name = g_strdup_printf("jobs/%s.json", files[i].name);
                put_file(place, name, files[i].text ? files[i].text : "\0\0\0\0\0\0\0",
                         files[i].text ? strlen(files[i].text) : 7);
        }
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "damaged jobs/01-empty.json.damaged: it is empty\n"
                            "damaged jobs/02-half.json.damaged: it is no JSON object\n"
                            "damaged jobs/03-zeroes.json.damaged: it is no JSON object\n"
                            "damaged jobs/04-array.json.damaged: it is no JSON object\n"
                            "damaged jobs/05-null.json.damaged: it is no JSON object\n"
                            "damaged jobs/06-no-version.json.damaged: it is of no version that is known\n"
                            "damaged jobs/07-newer.json.damaged: a newer blockjobd wrote it\n"
                            "damaged jobs/08-text-version.json.damaged: it is of no version that is known\n"
                            "damaged jobs/09-no-kind.json.damaged: it is of another kind\n"
                            "damaged jobs/10-foreign.json.damaged: it is of another kind\n"
                            "damaged jobs/11-not-utf-8.json.damaged: it is no JSON object\n"
                            "damaged jobs/12-senseless.json.damaged: it makes no sense\n"
                            "record 12-senseless ?\n"
                            "record 13-good fine");

        /* told once; nothing was lost */
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "record 13-good fine");
        expect_files(place, "jobs",
                     "01-empty.json.damaged 02-half.json.damaged 03-zeroes.json.damaged "
                     "04-array.json.damaged 05-null.json.damaged 06-no-version.json.damaged "
                     "07-newer.json.damaged 08-text-version.json.damaged 09-no-kind.json.damaged "
                     "10-foreign.json.damaged 11-not-utf-8.json.damaged 12-senseless.json.damaged "
                     "13-good.json");
        g_autofree char *path = path_of(place, "jobs/02-half.json.damaged");
        g_autofree char *text = NULL;
        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        g_assert_cmpstr(text, ==, files[1].text);
}

static void other_files(Place *place, gconstpointer data)
{
        static const char good[] = "{\"version\": 1, \"kind\": \"jobs\"}";

        (void) data;
        /* what was set aside, and what is no record by its name */
        put_file(place, "jobs/.b.json", good, strlen(good));
        put_file(place, "jobs/c.json.damaged", good, strlen(good));
        put_file(place, "jobs/d.json~", good, strlen(good));
        put_file(place, "jobs/README", good, strlen(good));
        put_file(place, "e.json", good, strlen(good));
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "");
        expect_files(place, "jobs", ".b.json README c.json.damaged d.json~");
}

/* What was left of a crash, however long, has no part in the next record, and does not stay. */
static void stale_temporary(Place *place, gconstpointer data)
{
        g_autofree char *filler = g_strnfill(5000, '}');

        (void) data;
        put_file(place, "jobs/.a.json.new", filler, strlen(filler));
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "");
        expect_files(place, "jobs", "");
        put_file(place, "jobs/.a.json.new", filler, strlen(filler));
        write_record(place, JOURNAL_JOBS, "a", "short");
        wait_idle(place);
        expect_lines(place, "done short");
        expect_files(place, "jobs", "a.json");
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "record a short");
}

/* Three records in a row that are damaged under one name: each of them is kept. */
static void damaged_again(Place *place, gconstpointer data)
{
        (void) data;
        g_assert_false(journal_has_set_aside(place->journal, JOURNAL_JOBS, "a"));
        put_file(place, "jobs/a.json", "one", 3);
        read_records(place, JOURNAL_JOBS);
        g_assert_true(journal_has_set_aside(place->journal, JOURNAL_JOBS, "a"));
        g_assert_false(journal_has_set_aside(place->journal, JOURNAL_DOMAINS, "a"));
        put_file(place, "jobs/a.json", "two", 3);
        put_file(place, "jobs/a.json.late", "late", 4);
        read_records(place, JOURNAL_JOBS);
        put_file(place, "jobs/a.json", "three", 5);
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "damaged jobs/a.json.damaged-2: it is no JSON object\n"
                            "damaged jobs/a.json.damaged-3: it is no JSON object\n"
                            "damaged jobs/a.json.damaged: it is no JSON object");
        expect_files(place, "jobs",
                     "a.json.damaged a.json.damaged-2 a.json.damaged-2.late a.json.damaged-3");
        g_autofree char *path = path_of(place, "jobs/a.json.damaged");
        g_autofree char *text = NULL;
        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        g_assert_cmpstr(text, ==, "one");
}

static void no_plain_file(Place *place, gconstpointer data)
{
        g_autofree char *directory = path_of(place, "jobs/a.json"), *link = path_of(place, "jobs/b.json");
        g_autofree char *elsewhere = path_of(place, "secret"), *circle = path_of(place, "jobs/c.json");
        static const char good[] = "{\"version\": 1, \"kind\": \"jobs\", \"text\": \"secret\"}";

        (void) data;
        g_assert_no_errno(g_mkdir(directory, 0700));
        put_file(place, "secret", good, strlen(good));
        g_assert_no_errno(symlink(elsewhere, link));
        g_assert_no_errno(symlink("c.json", circle));
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "damaged jobs/a.json.damaged: it is no file\n"
                            "damaged jobs/b.json.damaged: Too many levels of symbolic links\n"
                            "damaged jobs/c.json.damaged: Too many levels of symbolic links");
        expect_files(place, "", "domains jobs secret stale");
}

/* Nobody will ever write into it: opening it must not wait. */
static void named_pipe(Place *place, gconstpointer data)
{
        (void) data;
        if (g_test_subprocess()) {
                g_autofree char *pipe = path_of(place, "jobs/a.json");

                g_assert_no_errno(mkfifo(pipe, 0600));
                read_records(place, JOURNAL_JOBS);
                g_assert_cmpuint(place->lines->len, ==, 1);
                g_assert_true(g_str_has_prefix(place->lines->pdata[0], "damaged jobs/a.json.damaged: "));
                return;
        }
        g_test_trap_subprocess(NULL, 5 * G_USEC_PER_SEC, 0);
        g_test_trap_assert_passed();
}

static void huge_records(Place *place, gconstpointer data)
{
        const gsize limit = 64 * 1024 * 1024;
        g_autofree char *text = g_strnfill(limit, ' ');

        (void) data;
        put_file(place, "jobs/a.json", text, limit);
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "damaged jobs/a.json.damaged: it is too large");
}

/* As deep as it is long; it might take the stack, so alone in a process. */
static void deep_records(Place *place, gconstpointer data)
{
        static const char *const starts[] = { "", "// \"\n", "/* \" */", "# \"\n" };

        (void) data;
        if (g_test_subprocess()) {
                for (guint i = 0; i < G_N_ELEMENTS(starts); i++) {
                        g_autofree char *opening = g_strnfill(900000, '[');
                        g_autofree char *text = g_strconcat(starts[i], opening, NULL);
                        g_autofree char *name = g_strdup_printf("jobs/%u.json", i);
                        g_autofree char *line =
                                g_strdup_printf("damaged %s.damaged: it is no JSON object", name);

                        put_file(place, name, text, strlen(text));
                        read_records(place, JOURNAL_JOBS);
                        expect_lines(place, line);
                }
                return;
        }
        g_test_trap_subprocess(NULL, 20 * G_USEC_PER_SEC, 0);
        g_test_trap_assert_passed();
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
#define ADD(name, function) \
        g_test_add("/journal-start/" name, Place, NULL, place_set_up, function, place_tear_down)
        ADD("second-service", second_service);
        ADD("damaged", damaged_records);
        ADD("damaged-again", damaged_again);
        ADD("other-files", other_files);
        ADD("stale-temporary", stale_temporary);
        ADD("no-plain-file", no_plain_file);
        ADD("named-pipe", named_pipe);
        ADD("huge", huge_records);
        ADD("deep", deep_records);
        return g_test_run();
}
