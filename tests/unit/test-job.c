/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A job's names, its record on disk and back, and its options. */
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "job/files.h"
#include "job/job.h"

static const JobDriver commit_driver = {
        .name = "active-commit", .type = "active-commit", .kind = "commit", .two_phase = TRUE
};
static const JobDriver copy_driver = { .name = "copy", .type = "copy", .kind = "mirror", .two_phase = TRUE };
static const JobDriver *const drivers[] = { &copy_driver, &commit_driver, NULL };

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define LETTERS LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

/* ---- names ---- */

static void ids(void)
{
        g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

        for (int i = 0; i < 5000; i++) {
                g_autoptr(Job) job = job_new(&commit_driver, "vm", "vda", "vda");

                g_assert_nonnull(strchr(LOWER, job->id[0]));
                g_assert_cmpuint(strspn(job->id, LOWER DIGITS), ==, strlen(job->id));
                /* short enough to be read aloud, long enough never to come again: 26 × 32^14 */
                g_assert_cmpuint(strlen(job->id), ==, 15);
                g_assert_true(g_hash_table_add(seen, g_strdup(job->id)));
        }
}

/* What QEMU takes: a letter, then letters, digits and "-._"; node names up to 31 bytes. */
static void names_in_qemu(void)
{
        static const char *const disks[] = {
                "vda", "",         "#block123", "device[23]", "a b/c", "ä", "\xf0\x9f\x98\x80",
                "-",   "A.b-c_d9", "%s%n",      "virtio0:1",
        };

        for (guint i = 0; i < G_N_ELEMENTS(disks); i++) {
                g_autoptr(Job) job = job_new(&copy_driver, "vm", disks[i], "/machine/x");

                g_test_message("%s: %s %s", disks[i], job->qemu_id, job->filter);
                g_assert_true(g_str_has_prefix(job->qemu_id, "bj-mirror-"));
                g_assert_true(g_str_has_suffix(job->qemu_id, job->id));
                g_assert_cmpuint(strspn(job->qemu_id, LETTERS DIGITS "-._"), ==, strlen(job->qemu_id));
                g_assert_true(g_str_has_prefix(job->filter, "bj-"));
                g_assert_true(g_str_has_suffix(job->filter, job->id));
                g_assert_cmpuint(strspn(job->filter, LETTERS DIGITS "-._"), ==, strlen(job->filter));
                g_assert_cmpuint(strlen(job->filter), <=, 31);
                g_assert_cmpstr(job->disk, ==, disks[i]);
        }
        g_autoptr(Job) job = job_new(&commit_driver, "vm", "a b", "vda");
        g_autofree char *wanted = g_strdup_printf("bj-commit-a_b-%s", job->id);
        g_assert_cmpstr(job->qemu_id, ==, wanted);
}

static void new_job(void)
{
        gint64 before = g_get_real_time();
        g_autoptr(Job) job = job_new(&commit_driver, "vm", "vda", "/machine/x");

        g_assert_cmpstr(job->domain, ==, "vm");
        g_assert_cmpstr(job->device, ==, "/machine/x");
        g_assert_cmpstr(job_state_name(job->state), ==, "starting");
        g_assert_cmpstr(job_result_name(job->record.result), ==, "");
        g_assert_cmpint(job->start_time, >=, before);
        g_assert_cmpint(job->start_time, <=, g_get_real_time());
        g_assert_cmpint(job->error_code, ==, -1);
        g_assert_false(job->record.exists);
        g_assert_false(job_is_ready(job));
}

/* The words of the contract, which also stand in records. */
static void words(void)
{
        static const char *const states[] = { "starting",   "running",   "paused",      "ready",
                                              "completing", "concluded", "disconnected" };
        static const char *const results[] = { "",       "completed", "kept",   "cancelled",
                                               "failed", "lost",      "pivoted" };

        for (guint i = 0; i < G_N_ELEMENTS(states); i++)
                g_assert_cmpstr(job_state_name((JobState) i), ==, states[i]);
        for (guint i = 0; i < G_N_ELEMENTS(results); i++)
                g_assert_cmpstr(job_result_name((JobResult) i), ==, results[i]);
}

static void progress(void)
{
        static const struct {
                guint64 current, total;
                gint64 ready_time;
                double wanted;
        } cases[] = {
                { 0, 0, 0, 0.0 },   { 0, 0, 1, 1.0 },
                { 0, 10, 0, 0.0 },  { 5, 10, 0, 0.5 },
                { 10, 10, 0, 1.0 }, { 11, 10, 0, 1.0 },
                { 5, 10, 1, 0.5 },  { 0, G_MAXUINT64, 0, 0.0 },
                { 1, 0, 0, 0.0 },   { G_MAXUINT64, G_MAXUINT64, 0, 1.0 },
        };

        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                g_autoptr(Job) job = job_new(&commit_driver, "vm", "vda", "vda");

                job->current = cases[i].current;
                job->total = cases[i].total;
                job->ready_time = cases[i].ready_time;
                g_assert_cmpfloat(job_progress(job), ==, cases[i].wanted);
        }
}

static void errors(void)
{
        g_autoptr(Job) job = job_new(&commit_driver, "vm", "vda", "vda");

        job_set_error(job, BJ_ERROR_QEMU, "%s", "first");
        job_set_error(job, BJ_ERROR_NO_SPACE, "after %s", job->error_message);
        g_assert_cmpint(job->error_code, ==, BJ_ERROR_NO_SPACE);
        g_assert_cmpstr(job->error_message, ==, "after first");
}

/* ---- the record ---- */

static Job *full_job(void)
{
        Job *job = job_new(&commit_driver, "vm-1", "vda", "/machine/peripheral/vda/virtio-backend");

        job->source_node = g_strdup("top");
        job->target_node = g_strdup("#block381");
        job->source = g_strdup("/images/top \"ä\".qcow2");
        job->target = g_strdup("/images/base\n.qcow2");
        job->target_was_read_only = TRUE;
        job->instance = g_strdup("4711-123456");
        job->options = options_new();
        options_add(job->options, "base", 's', "[1]", 0);
        options_add(job->options, "active", 'b', NULL, 1);
        options_add(job->options, "speed", 't', NULL, G_MAXUINT64);
        job->started_by = G_MAXUINT32;
        job->ready_time = job->start_time + 1;
        job->end_time = job->start_time + 2;
        job->decision_time = job->start_time + 2;
        job->hold_start = job->start_time + 3;
        job->hold = 1234;
        job->current = 1;
        job->total = (guint64) 1 << 62;
        job->speed = G_MAXUINT64;
        job->record.exists = job->record.accepted = TRUE;
        job_set_error(job, BJ_ERROR_QEMU, "No space left\non %s", "\"device\"");
        return job;
}

/* Through text, as it goes to the disk and back. */
static Job *again(const Job *job)
{
        JsonObject *record = job_to_json(job);
        g_autofree char *text = json_text(record);
        g_autoptr(JsonNode) node = json_from_string(text, NULL);

        json_object_unref(record);
        g_assert_nonnull(node);
        return job_from_json(job->id, json_node_get_object(node), drivers);
}

static void round_trip(void)
{
        g_autoptr(Job) job = full_job();
        g_autoptr(Job) read = again(job);

        g_assert_nonnull(read);
        g_assert_true(read->driver == &commit_driver);
        g_assert_cmpstr(read->id, ==, job->id);
        g_assert_cmpstr(read->domain, ==, "vm-1");
        g_assert_cmpstr(read->disk, ==, "vda");
        g_assert_cmpstr(read->device, ==, "/machine/peripheral/vda/virtio-backend");
        g_assert_cmpstr(read->qemu_id, ==, job->qemu_id);
        g_assert_cmpstr(read->filter, ==, job->filter);
        g_assert_cmpstr(read->source_node, ==, "top");
        g_assert_cmpstr(read->target_node, ==, "#block381");
        g_assert_cmpstr(read->source, ==, "/images/top \"ä\".qcow2");
        g_assert_cmpstr(read->target, ==, "/images/base\n.qcow2");
        g_assert_true(read->target_was_read_only);
        g_assert_cmpstr(read->instance, ==, "4711-123456");
        g_assert_cmpuint(read->started_by, ==, G_MAXUINT32);
        g_assert_cmpint(read->start_time, ==, job->start_time);
        g_assert_cmpint(read->ready_time, ==, job->start_time + 1);
        g_assert_cmpint(read->end_time, ==, job->start_time + 2);
        g_assert_cmpint(read->decision_time, ==, job->start_time + 2);
        g_assert_cmpint(read->hold_start, ==, job->start_time + 3);
        g_assert_cmpint(read->hold, ==, 1234);
        g_assert_cmpuint(read->current, ==, 1);
        g_assert_cmpuint(read->total, ==, (guint64) 1 << 62);
        g_assert_cmpuint(read->speed, ==, G_MAXUINT64);
        g_assert_cmpint(read->error_code, ==, BJ_ERROR_QEMU);
        g_assert_cmpstr(read->error_message, ==, "No space left\non \"device\"");
        g_assert_cmpuint(read->options->len, ==, 3);
        g_assert_cmpstr(options_text(read->options, "base"), ==, "[1]");
        g_assert_true(options_flag(read->options, "active"));
        g_assert_cmpuint(options_number(read->options, "speed"), ==, G_MAXUINT64);

        g_assert_true(read->record.exists);
        g_assert_true(read->record.accepted);
        g_assert_false(read->record.told);
        g_assert_cmpmem(&read->record, sizeof(read->record), &read->written, sizeof(read->written));
        g_assert_cmpint(read->state, ==, JOB_DISCONNECTED);
        g_assert_true(read->announced);
        g_assert_false(read->concluded);
}

/* Every decision, disk and result that may stand in a record, with and without its being told. */
static void round_trip_of_words(void)
{
        for (int decision = DECISION_NONE; decision <= DECISION_CANCEL; decision++)
                for (int disk = DISK_IS_OPEN; disk <= DISK_IS_TARGET; disk++)
                        for (int result = RESULT_NONE; result <= RESULT_PIVOTED; result++)
                                for (int told = FALSE; told <= TRUE; told++) {
                                        g_autoptr(Job) job = full_job();
                                        g_autoptr(Job) read = NULL;

                                        job->record.decision = (JobDecision) decision;
                                        job->record.disk_is = (JobDisk) disk;
                                        job->record.result = (JobResult) result;
                                        job->record.told = told;
                                        read = again(job);
                                        g_assert_nonnull(read);
                                        g_assert_cmpint(read->record.decision, ==, decision);
                                        g_assert_cmpint(read->record.disk_is, ==, disk);
                                        g_assert_cmpint(read->record.result, ==, result);
                                        g_assert_cmpint(read->record.told, ==, told);
                                        g_assert_cmpint(read->state, ==,
                                                        told ? JOB_CONCLUDED : JOB_DISCONNECTED);
                                        g_assert_cmpint(read->concluded, ==, told);
                                }
}

/* What only some jobs have. */
static const struct {
        const char *key;
        gsize offset;
        const char *without; /* what it is where the record has it not */
} texts_of_some[] = {
        { "end-node", G_STRUCT_OFFSET(Job, end_node), NULL },
        { "header-node", G_STRUCT_OFFSET(Job, header_node), NULL },
        { "active", G_STRUCT_OFFSET(Job, active), "/images/top \"ä\".qcow2" },
        { "below", G_STRUCT_OFFSET(Job, below), NULL },
        { "source-format", G_STRUCT_OFFSET(Job, source_format), NULL },
        { "target-format", G_STRUCT_OFFSET(Job, target_format), NULL },
        { "backing", G_STRUCT_OFFSET(Job, backing), NULL },
        { "backing-format", G_STRUCT_OFFSET(Job, backing_format), NULL },
        { "mode", G_STRUCT_OFFSET(Job, mode), "" },
};

static char **text_of(const Job *job, guint i)
{
        return G_STRUCT_MEMBER_P(job, texts_of_some[i].offset);
}

static void round_trip_of_some(void)
{
        static const char *const values[] = { "", "vda-0", "/images/ä \"b\"\n.qcow2" };

        for (guint i = 0; i < G_N_ELEMENTS(texts_of_some) * G_N_ELEMENTS(values); i++) {
                guint which = i % G_N_ELEMENTS(texts_of_some);
                const char *value = values[i / G_N_ELEMENTS(texts_of_some)];
                g_autoptr(Job) job = full_job();
                g_autoptr(Job) read = NULL;
                g_autoptr(JsonObject) record = NULL;

                g_free(*text_of(job, which));
                *text_of(job, which) = g_strdup(value);
                record = job_to_json(job);
                g_assert_cmpstr(json_string(record, texts_of_some[which].key), ==, value);
                read = again(job);
                g_assert_nonnull(read);
                g_test_message("%s: '%s'", texts_of_some[which].key, value);
                g_assert_cmpstr(*text_of(read, which), ==, value);
        }
}

static void round_trip_of_files(void)
{
        g_autoptr(Job) job = full_job();
        g_autoptr(JsonNode) array =
                json_from_string("[{\"path\": \"/images/ä\\n\", \"device\": 64769, \"inode\": "
                                 "9223372036854775807}, null, 7, {\"device\": 1, \"inode\": 2}, "
                                 "{\"path\": 7}, {\"path\": \"/x\"}]",
                                 NULL);
        g_autoptr(Job) read = NULL, none = NULL;
        const FileIdentity *file;

        none = again(job);
        g_assert_null(none->stale);
        job->stale = files_from_json(json_node_get_array(array));
        job->fdset = 3;
        read = again(job);
        g_assert_cmpint(read->fdset, ==, 3);
        g_assert_cmpuint(read->stale->len, ==, 2);
        file = read->stale->pdata[0];
        g_assert_cmpstr(file->path, ==, "/images/ä\n");
        g_assert_cmpuint(file->device, ==, 64769);
        g_assert_cmpuint(file->inode, ==, G_MAXINT64);
        file = read->stale->pdata[1];
        g_assert_cmpstr(file->path, ==, "/x");
        g_assert_cmpuint(file->inode, ==, 0);
}

/* Of version 0.1: it had active commits only, and none of what came with the other jobs. */
static void old_record(void)
{
        g_autoptr(Job) job = full_job();
        g_autoptr(JsonObject) record = job_to_json(job);
        g_autoptr(Job) read = NULL, copy = NULL;

        for (guint i = 0; i < G_N_ELEMENTS(texts_of_some); i++)
                if (json_object_has_member(record, texts_of_some[i].key))
                        json_object_remove_member(record, texts_of_some[i].key);
        g_assert_false(json_object_has_member(record, "stale"));
        json_object_remove_member(record, "fdset");
        read = job_from_json(job->id, record, drivers);
        g_assert_nonnull(read);
        for (guint i = 0; i < G_N_ELEMENTS(texts_of_some); i++) {
                g_test_message("%s", texts_of_some[i].key);
                g_assert_cmpstr(*text_of(read, i), ==, texts_of_some[i].without);
        }
        g_assert_null(read->stale);
        g_assert_cmpint(read->fdset, ==, 0);
        g_assert_cmpstr(read->source, ==, job->source);
        copy = again(read);
        g_assert_nonnull(copy);
}

static void smallest_record(void)
{
        g_autoptr(Job) job = full_job();

        g_ptr_array_set_size(job->options, 0);
        job->record.accepted = FALSE;
        job->error_code = -1;
        g_clear_pointer(&job->error_message, g_free);
        job->ready_time = job->end_time = job->hold_start = job->hold = 0;
        g_autoptr(Job) read = again(job);
        g_assert_nonnull(read);
        g_assert_false(read->announced);
        g_assert_null(read->error_message);
        g_assert_cmpint(read->error_code, ==, -1);
        g_assert_cmpuint(read->options->len, ==, 0);
        g_assert_false(job_is_ready(read));
}

/* Of another driver's type: what was a copy is no commit. */
static void type(void)
{
        g_autoptr(Job) job = full_job();
        g_autoptr(Job) read = NULL;

        job->driver = &copy_driver;
        read = again(job);
        g_assert_nonnull(read);
        g_assert_true(read->driver == &copy_driver);
}

static void refused(void)
{
        static const struct {
                const char *member, *value; /* NULL: missing */
        } cases[] = {
                { "id", NULL },
                { "id", "\"other\"" },
                { "id", "7" },
                { "type", NULL },
                { "type", "\"resize\"" },
                { "type", "null" },
                { "domain", NULL },
                { "domain", "7" },
                { "disk", NULL },
                { "disk", "[]" },
                { "device", NULL },
                { "qemu-job-id", NULL },
                { "qemu-job-id", "{}" },
                { "filter-node", NULL },
                { "source-node", NULL },
                { "target-node", NULL },
                { "target-node", "true" },
                { "source", NULL },
                { "target", NULL },
                { "target", "null" },
                { "instance", NULL },
                { "decision", NULL },
                { "decision", "\"?\"" },
                { "decision", "1" },
                { "decision", "\"Pivot\"" },
                { "disk-is", NULL },
                { "disk-is", "\"both\"" },
                { "result", NULL },
                { "result", "\"done\"" },
                { "result", "7" },
        };

        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                g_autoptr(Job) job = full_job();
                g_autoptr(JsonObject) record = job_to_json(job);
                g_autoptr(Job) whole = job_from_json(job->id, record, drivers);
                g_autoptr(Job) spoilt = NULL;

                g_assert_nonnull(whole);
                g_assert_true(json_object_has_member(record, cases[i].member));
                if (cases[i].value)
                        json_object_set_member(record, cases[i].member,
                                               json_from_string(cases[i].value, NULL));
                else
                        json_object_remove_member(record, cases[i].member);
                g_test_message("%s: %s", cases[i].member, cases[i].value ? cases[i].value : "(missing)");
                spoilt = job_from_json(job->id, record, drivers);
                g_assert_null(spoilt);
        }
}

static void refused_whole(void)
{
        static const JobDriver *const none[] = { NULL };
        g_autoptr(JsonObject) empty = json_object_new();
        g_autoptr(Job) job = full_job();
        g_autoptr(JsonObject) record = job_to_json(job);

        g_assert_null(job_from_json(job->id, empty, drivers));
        g_assert_null(job_from_json("other", record, drivers));
        g_assert_null(job_from_json(job->id, record, none));
}

/* Odd values in what is not needed to know the disk do no harm: no crash, no nonsense on the bus. */
static void odd_members(void)
{
        static const char *const members[] = {
                "options",       "started-by",  "start-time",     "accepted", "decision-time",
                "hold-start",    "hold",        "ready-time",     "end-time", "error-message",
                "current",       "total",       "speed",          "told",     "target-was-read-only",
                "end-node",      "header-node", "active",         "below",    "source-format",
                "target-format", "backing",     "backing-format", "mode",     "stale",
                "fdset"
        };
        static const char *const values[] = { "null",
                                              "-1",
                                              "0.5",
                                              "\"x\"",
                                              "[]",
                                              "{}",
                                              "[[]]",
                                              "true",
                                              "{\"a\": 7, \"b\": {}, \"c\": {\"type\": \"x\"}, \"d\": "
                                              "{\"type\": \"\"}, \"e\": {\"type\": \"st\"}}" };

        for (guint i = 0; i < G_N_ELEMENTS(members) * G_N_ELEMENTS(values); i++) {
                g_autoptr(Job) job = full_job();
                g_autoptr(JsonObject) record = job_to_json(job);

                json_object_set_member(record, members[i % G_N_ELEMENTS(members)],
                                       json_from_string(values[i / G_N_ELEMENTS(members)], NULL));
                g_autoptr(Job) read = job_from_json(job->id, record, drivers);
                if (read) {
                        g_autoptr(Job) copy = again(read);

                        g_assert_cmpfloat(job_progress(read), >=, 0.0);
                        g_assert_cmpfloat(job_progress(read), <=, 1.0);
                        g_assert_nonnull(copy);
                }
        }
}

/* ---- options ---- */

static void option_answers(void)
{
        g_autoptr(GPtrArray) options = options_new();
        char text[] = "pivot";

        options_add(options, "auto", 's', text, 0);
        options_add(options, "active", 'b', NULL, 1);
        options_add(options, "shallow", 'b', NULL, 0);
        options_add(options, "granularity", 'u', NULL, 65536);
        text[0] = 'x';
        g_assert_cmpstr(options_text(options, "auto"), ==, "pivot");
        g_assert_true(options_flag(options, "active"));
        g_assert_false(options_flag(options, "shallow"));
        g_assert_cmpuint(options_number(options, "granularity"), ==, 65536);
        g_assert_null(options_text(options, "Auto"));
        g_assert_null(options_text(options, "base"));
        g_assert_false(options_flag(options, "force"));
        g_assert_cmpuint(options_number(options, "speed"), ==, 0);
}

static void options_round_trip(void)
{
        g_autoptr(GPtrArray) options = options_new();

        options_add(options, "z", 's', "", 0);
        options_add(options, "a", 's', "\"ä\n", 0);
        options_add(options, "b", 'b', NULL, 0);
        options_add(options, "c", 'b', NULL, 1);
        options_add(options, "d", 't', NULL, G_MAXUINT64);
        options_add(options, "e", 'u', NULL, G_MAXUINT32);
        JsonObject *object = options_to_json(options);
        g_autofree char *text = json_text(object);
        g_autoptr(JsonNode) node = json_from_string(text, NULL);
        json_object_unref(object);
        g_autoptr(GPtrArray) read = options_from_json(json_node_get_object(node));

        g_assert_cmpuint(read->len, ==, options->len);
        for (guint i = 0; i < read->len; i++) {
                const Option *a = options->pdata[i], *b = read->pdata[i];

                g_assert_cmpstr(a->key, ==, b->key);
                g_assert_cmpint(a->type, ==, b->type);
                g_assert_cmpstr(a->text, ==, b->text);
                g_assert_cmpuint(a->number, ==, b->number);
        }
        g_autoptr(GPtrArray) none = options_from_json(NULL);
        g_assert_cmpuint(none->len, ==, 0);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/job/ids", ids);
        g_test_add_func("/job/names-in-qemu", names_in_qemu);
        g_test_add_func("/job/new", new_job);
        g_test_add_func("/job/words", words);
        g_test_add_func("/job/progress", progress);
        g_test_add_func("/job/errors", errors);
        g_test_add_func("/job/record/round-trip", round_trip);
        g_test_add_func("/job/record/words", round_trip_of_words);
        g_test_add_func("/job/record/some", round_trip_of_some);
        g_test_add_func("/job/record/files", round_trip_of_files);
        g_test_add_func("/job/record/old", old_record);
        g_test_add_func("/job/record/smallest", smallest_record);
        g_test_add_func("/job/record/type", type);
        g_test_add_func("/job/record/refused", refused);
        g_test_add_func("/job/record/refused-whole", refused_whole);
        g_test_add_func("/job/record/odd-members", odd_members);
        g_test_add_func("/job/options/answers", option_answers);
        g_test_add_func("/job/options/round-trip", options_round_trip);
        return g_test_run();
}
