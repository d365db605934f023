/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Records written to disk: order, contents, and what happens where they cannot be written. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "base/error.h"
#include "base/json.h"
#include "place.h"

/* ---- writing and reading ---- */

static void write_and_read(Place *place, gconstpointer data)
{
        g_autofree char *path = path_of(place, "jobs/a1.json");
        g_autofree char *text = NULL;
        struct stat st;

        (void) data;
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "");
        write_record(place, JOURNAL_JOBS, "a1", "one");
        g_assert_false(journal_is_idle(place->journal));
        g_assert_cmpuint(place->lines->len, ==, 0); /* never from within the call */
        wait_idle(place);
        expect_lines(place, "done one");
        expect_files(place, "jobs", "a1.json");
        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        g_assert_cmpstr(text, ==, "{\"text\":\"one\",\"version\":1,\"kind\":\"jobs\",\"sequence\":1}");
        g_assert_no_errno(stat(path, &st));
        g_assert_cmpuint(st.st_mode & 0777, ==, 0600);

        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "record a1 one");
        read_records(place, JOURNAL_DOMAINS);
        expect_lines(place, "");
}

static gboolean mark(Place *place, const char *member, const char *text)
{
        g_autofree char *format = g_strdup_printf("s:%s", member);

        return journal_mark(place->journal, JOURNAL_JOBS, "a1", json_make(format, text, NULL));
}

static void marks(Place *place, gconstpointer data)
{
        (void) data;
        g_assert_false(mark(place, "mark", "of nothing"));
        write_record(place, JOURNAL_JOBS, "a1", "synced");
        wait_idle(place);
        g_assert_false(mark(place, "mark", "of nothing late"));
        write_late_record(place, JOURNAL_JOBS, "a1", "late");
        g_assert_false(mark(place, "mark", "too early"));
        wait_idle(place);
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "done late\ndone synced\nrecord a1 late");

        g_assert_true(mark(place, "mark", "one"));
        g_assert_true(mark(place, "text", "marked"));
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "record a1 marked one");
        g_assert_true(mark(place, "mark", "two\nlines"));
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "record a1 marked two\nlines");

        write_late_record(place, JOURNAL_JOBS, "a1", "another");
        wait_idle(place);
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "done another\nrecord a1 another");
        expect_files(place, "jobs", "a1.json a1.json.late");
}

/* Torn, empty, or no object: what is whole counts, and nobody is told. */
static void bad_marks(Place *place, gconstpointer data)
{
        static const char *const bad[] = { "",
                                           "\n",
                                           "\n\n\n",
                                           "\n{\"mark\": \"to",
                                           "\n[1]",
                                           "\n\"mark\"",
                                           "\n{\"mark\": \"torn\n{\"text\": \"late\"}" };

        (void) data;
        write_record(place, JOURNAL_JOBS, "a1", "synced");
        wait_idle(place);
        expect_lines(place, "done synced");
        for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
                g_autofree char *text =
                        g_strconcat("{\"version\": 1, \"kind\": \"jobs\", \"text\": \"late\", "
                                    "\"sequence\": 9}",
                                    bad[i], NULL);

                put_file(place, "jobs/a1.json.late", text, strlen(text));
                read_records(place, JOURNAL_JOBS);
                expect_lines(place, "record a1 late");
        }
}

static void late(Place *place, gconstpointer data)
{
        static const char whole[] = "{\"version\": 1, \"kind\": \"jobs\", \"text\": \"?\", \"sequence\": 1}";
        static const char *const bad[] = { "", "{\"version\": 1, \"kin",
                                           "{\"version\": 2, \"sequence\": 99}", whole };

        (void) data;
        write_record(place, JOURNAL_JOBS, "a1", "old");
        write_record(place, JOURNAL_JOBS, "a1", "synced");
        write_late_record(place, JOURNAL_JOBS, "a1", "late");
        wait_idle(place);
        expect_lines(place, "done old\ndone synced\ndone late");
        expect_files(place, "jobs", "a1.json a1.json.late");
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "record a1 late");

        /* torn, of a newer service, older: the synced one counts, and nobody is told */
        for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
                put_file(place, "jobs/a1.json.late", bad[i], strlen(bad[i]));
                read_records(place, JOURNAL_JOBS);
                expect_lines(place, "record a1 synced");
        }

        write_record(place, JOURNAL_JOBS, "a1", "synced again");
        wait_idle(place);
        expect_lines(place, "done synced again");
        expect_files(place, "jobs", "a1.json");

        /* a removal that was cut short */
        put_file(place, "jobs/b1.json.late", whole, strlen(whole));
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "record a1 synced again");
        expect_files(place, "jobs", "a1.json");
        write_late_record(place, JOURNAL_JOBS, "a1", "late again");
        wait_idle(place);
        journal_remove(place->journal, JOURNAL_JOBS, "a1", NULL, NULL);
        wait_idle(place);
        expect_files(place, "jobs", "");
        expect_lines(place, "done late again");
}

/* What an earlier service wrote late counts for less than what a later one syncs. */
static void sequence_goes_on(Place *place, gconstpointer data)
{
        (void) data;
        write_record(place, JOURNAL_JOBS, "a1", "one");
        write_late_record(place, JOURNAL_JOBS, "a1", "two");
        wait_idle(place);
        journal_close(place->journal);
        place->journal = open_journal(place->directory);
        read_records(place, JOURNAL_JOBS);
        write_late_record(place, JOURNAL_JOBS, "a1", "three");
        wait_idle(place);
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "done one\ndone three\ndone two\nrecord a1 three\nrecord a1 two");
}

static void directories_are_private(Place *place, gconstpointer data)
{
        static const char *const names[] = { "", "jobs", "domains" };

        (void) data;
        for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
                g_autofree char *path = path_of(place, names[i]);
                struct stat st;

                g_assert_no_errno(stat(path, &st));
                g_assert_cmpuint(st.st_mode & 0777, ==, 0700);
        }
}

/* Many changes of one record while the disk is slow: in the order of asking, each with its own answer. */
static void order_in_one_record(Place *place, gconstpointer data)
{
        g_autoptr(GString) wanted = g_string_new(NULL);

        (void) data;
        for (int i = 0; i < 50; i++) {
                g_autofree char *text = g_strdup_printf("w%d", i);

                if (i % 7 == 3)
                        journal_remove(place->journal, JOURNAL_JOBS, "a", on_done, tag(place, text));
                else
                        journal_write(place->journal, JOURNAL_JOBS, "a", json_make("s:text", text, NULL),
                                      i % 2 ? JOURNAL_SYNCED : JOURNAL_LATE, on_done, tag(place, text));
                g_string_append_printf(wanted, "%sdone w%d", i ? "\n" : "", i);
        }
        wait_idle(place);
        expect_lines(place, wanted->str);
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "record a w49");
        expect_files(place, "jobs", "a.json");
}

static void many_records(Place *place, gconstpointer data)
{
        (void) data;
        /* the same name in both kinds: two records */
        write_record(place, JOURNAL_JOBS, "vm", "job");
        write_record(place, JOURNAL_DOMAINS, "vm", "domain");
        for (int i = 0; i < 100; i++) {
                g_autofree char *name = g_strdup_printf("j%d", i);
                journal_write(place->journal, JOURNAL_JOBS, name, json_make("s:text", name, NULL),
                              JOURNAL_SYNCED, NULL, NULL);
        }
        wait_idle(place);
        sort_lines(place);
        expect_lines(place, "done domain\ndone job");
        read_records(place, JOURNAL_DOMAINS);
        expect_lines(place, "record vm domain");
        read_records(place, JOURNAL_JOBS);
        g_assert_cmpuint(place->lines->len, ==, 101);
        g_assert_cmpstr(place->lines->pdata[0], ==, "record j0 j0");
        g_assert_cmpstr(place->lines->pdata[100], ==, "record vm job");
}

static void removed(Place *place, gconstpointer data)
{
        (void) data;
        write_record(place, JOURNAL_DOMAINS, "vm", "x");
        journal_remove(place->journal, JOURNAL_DOMAINS, "vm", on_done, tag(place, "remove"));
        journal_remove(place->journal, JOURNAL_DOMAINS, "vm", on_done, tag(place, "again"));
        journal_remove(place->journal, JOURNAL_DOMAINS, "never", NULL, NULL);
        wait_idle(place);
        expect_lines(place, "done x\ndone remove\ndone again");
        expect_files(place, "domains", "");
}

/* Text as it comes from QEMU and from users, and numbers at their ends, survive. */
static void contents_survive(Place *place, gconstpointer data)
{
        static const char odd[] = "\"\\/\n\t\r\001\177 ä \xf0\x9f\x98\x80 </script> \xe2\x80\xa8 %s";

        (void) data;
        journal_write(place->journal, JOURNAL_JOBS, "a", json_make("s:text", odd, "i:n", G_MININT64, NULL),
                      JOURNAL_SYNCED, on_done, tag(place, "a"));
        wait_idle(place);
        expect_lines(place, "done a");
        read_records(place, JOURNAL_JOBS);
        g_autofree char *wanted = g_strconcat("record a ", odd, NULL);
        expect_lines(place, wanted);
}

/* Either the journal refuses a record when it is written, or it reads it again: never lost in silence.
 * QEMU's own texts stand in records, and it may say much. */
static void big_records(Place *place, gconstpointer data)
{
        static const gsize mebibytes[] = { 0, 1, 2, 15, 17 };

        (void) data;
        for (guint i = 0; i < G_N_ELEMENTS(mebibytes); i++) {
                g_autofree char *text = g_strnfill(mebibytes[i] * 1024 * 1024, (char) ('a' + i));
                g_autofree char *wanted = NULL;

                journal_write(place->journal, JOURNAL_JOBS, "a", json_make("s:text", text, NULL),
                              JOURNAL_SYNCED, on_done, tag(place, "write"));
                wait_idle(place);
                if (mebibytes[i] < 16) {
                        expect_lines(place, "done write");
                        read_records(place, JOURNAL_JOBS);
                        wanted = g_strconcat("record a ", text, NULL);
                        g_assert_true(strcmp(place->lines->pdata[0], wanted) == 0);
                        g_ptr_array_set_size(place->lines, 0);
                        continue;
                }
                g_assert_true(
                        g_str_has_prefix(place->lines->pdata[0], "done write LimitExceeded: record 'a"));
                g_ptr_array_set_size(place->lines, 0);
                /* the one before is still there */
                read_records(place, JOURNAL_JOBS);
                g_assert_cmpuint(strlen(place->lines->pdata[0]), >, 15 * 1024 * 1024);
                g_ptr_array_set_size(place->lines, 0);
                expect_files(place, "jobs", "a.json");
        }
}

static void links_are_not_written_through(Place *place, gconstpointer data)
{
        g_autofree char *temporary = path_of(place, "jobs/.a.json.new"),
                        *record = path_of(place, "jobs/b.json");
        g_autofree char *elsewhere = path_of(place, "secret"), *text = NULL;

        (void) data;
        put_file(place, "secret", "secret", 6);
        g_assert_no_errno(symlink(elsewhere, temporary));
        g_assert_no_errno(symlink(elsewhere, record));
        write_record(place, JOURNAL_JOBS, "a", "x");
        wait_idle(place);
        expect_lines(place, "done x Failed: cannot make '.a.json.new': Too many levels of symbolic links");
        write_record(place, JOURNAL_JOBS, "b", "y");
        wait_idle(place);
        expect_lines(place, "done y");
        g_assert_true(g_file_get_contents(elsewhere, &text, NULL, NULL));
        g_assert_cmpstr(text, ==, "secret");
        g_assert_false(g_file_test(record, G_FILE_TEST_IS_SYMLINK));
}

/* ---- what cannot be done ---- */

static void no_directory(Place *place, gconstpointer data)
{
        g_autofree char *below = path_of(place, "file/state"), *file = path_of(place, "file");
        g_autofree char *occupied = path_of(place, "occupied");
        const char *const wrong[] = { below, file, occupied };

        (void) data;
        put_file(place, "file", "", 0);
        g_assert_no_errno(g_mkdir(occupied, 0700));
        put_file(place, "occupied/domains", "", 0);
        for (guint i = 0; i < G_N_ELEMENTS(wrong); i++) {
                g_autoptr(GError) error = NULL;

                g_assert_null(journal_open(wrong[i], &error));
                g_assert_error(error, BJ_ERROR, BJ_ERROR_FAILED);
                g_assert_nonnull(strstr(error->message, wrong[i]));
        }
}

static void directory_lost(Place *place, gconstpointer data)
{
        g_autofree char *jobs = path_of(place, "jobs");

        (void) data;
        g_assert_no_errno(g_rmdir(jobs));
        for (int i = 0; i < 3; i++)
                write_record(place, JOURNAL_JOBS, "a", "x");
        write_record(place, JOURNAL_DOMAINS, "vm", "y");
        wait_idle(place);
        sort_lines(place);
        expect_lines(place, "done x Failed: cannot make '.a.json.new': No such file or directory\n"
                            "done x Failed: cannot make '.a.json.new': No such file or directory\n"
                            "done x Failed: cannot make '.a.json.new': No such file or directory\n"
                            "done y");
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "");
}

/* A write that fails in the middle: the old record stays whole, and the next one is written. */
static void write_fails(Place *place, gconstpointer data)
{
        g_autofree char *filler = g_strnfill(20000, 'x');
        struct rlimit old, small;

        (void) data;
        write_record(place, JOURNAL_JOBS, "a", "old");
        wait_idle(place);
        signal(SIGXFSZ, SIG_IGN);
        g_assert_no_errno(getrlimit(RLIMIT_FSIZE, &old));
        small = (struct rlimit){ 4096, old.rlim_max };
        g_assert_no_errno(setrlimit(RLIMIT_FSIZE, &small));
        journal_write(place->journal, JOURNAL_JOBS, "a", json_make("s:text", filler, NULL), JOURNAL_SYNCED,
                      on_done, tag(place, "big"));
        wait_idle(place);
        g_assert_no_errno(setrlimit(RLIMIT_FSIZE, &old));
        expect_lines(place, "done old\ndone big Failed: cannot write 'a.json': File too large");
        expect_files(place, "jobs", "a.json");
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "record a old");
        write_record(place, JOURNAL_JOBS, "a", "new");
        wait_idle(place);
        expect_lines(place, "done new");
        read_records(place, JOURNAL_JOBS);
        expect_lines(place, "record a new");
}

static void rename_fails(Place *place, gconstpointer data)
{
        g_autofree char *occupied = path_of(place, "jobs/a.json");

        (void) data;
        g_assert_no_errno(g_mkdir(occupied, 0700));
        write_record(place, JOURNAL_JOBS, "a", "x");
        wait_idle(place);
        expect_lines(place, "done x Failed: cannot rename 'a.json': Is a directory");
        expect_files(place, "jobs", "a.json");
        journal_remove(place->journal, JOURNAL_JOBS, "a", on_done, tag(place, "remove"));
        wait_idle(place);
        expect_lines(place, "done remove Failed: cannot remove 'a.json': Is a directory");
}

/* A full disk, small and of its own: needs root. Alone in a process, for its mounts. */
static void no_space(Place *place, gconstpointer data)
{
        (void) data;
        if (g_test_subprocess()) {
                g_autofree char *filler = g_strnfill(8192, 'x');
                g_autofree char *state = path_of(place, "small/state"), *small = path_of(place, "small");
                g_autofree char *path = path_of(place, "small/filler");
                int fd;

                g_assert_no_errno(unshare(CLONE_NEWNS));
                g_assert_no_errno(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
                g_assert_no_errno(g_mkdir(small, 0700));
                g_assert_no_errno(mount("none", small, "tmpfs", 0, "size=64k"));
                journal_close(place->journal);
                place->journal = open_journal(state);
                write_record(place, JOURNAL_JOBS, "a", "old");
                wait_idle(place);
                fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
                while (write(fd, filler, 4096) > 0)
                        ;
                g_assert_cmpint(errno, ==, ENOSPC);
                close(fd);
                journal_write(place->journal, JOURNAL_JOBS, "a", json_make("s:text", filler, NULL),
                              JOURNAL_SYNCED, on_done, tag(place, "big"));
                wait_idle(place);
                expect_lines(place,
                             "done old\ndone big NoSpace: cannot write 'a.json': No space left on device");
                g_assert_no_errno(unlink(path));
                read_records(place, JOURNAL_JOBS);
                expect_lines(place, "record a old");
                expect_files(place, "small/state/jobs", "a.json");
                journal_close(place->journal);
                place->journal = open_journal(place->directory);
                g_assert_no_errno(umount(small));
                return;
        }
        if (geteuid() != 0) {
                g_test_skip("a file system of the test's own needs root");
                return;
        }
        g_test_trap_subprocess(NULL, 20 * G_USEC_PER_SEC, 0);
        g_test_trap_assert_passed();
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
#define ADD(name, function) \
        g_test_add("/journal/" name, Place, NULL, place_set_up, function, place_tear_down)
        ADD("write-and-read", write_and_read);
        ADD("marks", marks);
        ADD("bad-marks", bad_marks);
        ADD("late", late);
        ADD("sequence", sequence_goes_on);
        ADD("private", directories_are_private);
        ADD("order", order_in_one_record);
        ADD("many", many_records);
        ADD("remove", removed);
        ADD("contents", contents_survive);
        ADD("big", big_records);
        ADD("links", links_are_not_written_through);
        ADD("fails/no-directory", no_directory);
        ADD("fails/directory-lost", directory_lost);
        ADD("fails/write", write_fails);
        ADD("fails/rename", rename_fails);
        ADD("fails/no-space", no_space);
        return g_test_run();
}
