/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a QEMU can do, read from its schema; and the small helpers under everything. */
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "qmp/capabilities.h"

/* Parts of a schema as query-qmp-schema gives it: names of types are numbers there. */
#define COMMIT                                                                                          \
        "{\"name\": \"block-commit\", \"meta-type\": \"command\", \"arg-type\": \"12\", \"ret-type\": " \
        "\"0\"}"
#define COMMIT_TYPE(more)                                                                                  \
        "{\"name\": \"12\", \"meta-type\": \"object\", \"members\": [{\"name\": \"job-id\", \"default\": " \
        "null, \"type\": \"str\"}, {\"name\": \"device\", \"type\": \"str\"}" more "]}"
#define FILTER ", {\"name\": \"filter-node-name\", \"default\": null, \"type\": \"str\"}"
#define GRAPH "{\"name\": \"x-debug-query-block-graph\", \"meta-type\": \"command\", \"arg-type\": \"0\"}"
#define COMMAND(name, type) \
        "{\"name\": \"" name "\", \"meta-type\": \"command\", \"arg-type\": \"" type "\"}"
/* The arguments of blockdev-add, up to the first driver. */
#define DRIVERS_START                                                                                   \
        "{\"name\": \"99\", \"meta-type\": \"object\", \"members\": [{\"name\": \"driver\", \"type\": " \
        "\"150\"}], \"tag\": \"driver\", \"variants\": ["

static Capabilities *read_schema(const char *text)
{
        g_autoptr(JsonNode) schema = json_from_string(text, NULL);

        g_assert_nonnull(schema);
        return capabilities_new(schema);
}

static void expect_capabilities(const char *schema, const char *wanted)
{
        g_autoptr(Capabilities) capabilities = read_schema(schema);
        g_autofree char *names = g_strjoinv(" ", capabilities->names);

        g_assert_cmpstr(names, ==, wanted);
}

/* All that is looked for; blockdev-add opens these drivers. */
static char *make_schema(const char *const *drivers)
{
        static const struct {
                const char *command, *members[3];
        } commands[] = {
                { "block-commit", { "filter-node-name", "backing-mask-protocol" } },
                { "blockdev-reopen", { "options" } },
                { "x-debug-query-block-graph", { NULL } },
                { "query-status", { NULL } },
                { "human-monitor-command", { NULL } },
                { "query-name", { NULL } },
                { "block-job-change", { NULL } },
                { "blockdev-mirror", { "filter-node-name" } },
                { "block-stream", { "filter-node-name" } },
                { "blockdev-backup", { "filter-node-name", "on-cbw-error" } },
                { "blockdev-snapshot", { NULL } },
                { "blockdev-create", { NULL } },
                { "block_resize", { "node-name" } },
                { "add-fd", { NULL } },
                { "blockdev-set-active", { NULL } },
        };
        GString *text = g_string_new("[");

        for (guint i = 0; i < G_N_ELEMENTS(commands); i++) {
                g_string_append_printf(text,
                                       "{\"name\": \"%s\", \"meta-type\": \"command\", \"arg-type\": "
                                       "\"%u\"}, {\"name\": \"%u\", \"meta-type\": \"object\", "
                                       "\"members\": [{}",
                                       commands[i].command, i, i);
                for (const char *const *member = commands[i].members; *member; member++)
                        g_string_append_printf(text, ", {\"name\": \"%s\", \"type\": \"str\"}", *member);
                g_string_append(text, "]}, ");
        }
        g_string_append(text, COMMAND("blockdev-add", "99") ", " DRIVERS_START "{}");
        for (; *drivers; drivers++)
                g_string_append_printf(text, ", {\"case\": \"%s\", \"type\": \"200\"}", *drivers);
        g_string_append(text, "]}]");
        return g_string_free(text, FALSE);
}

static const char *const all_drivers[] = { "iscsi", "file", "bochs", "nbd", "snapshot-access", "rbd", NULL };

static void whole_schema(void)
{
        g_autofree char *schema = make_schema(all_drivers);
        g_autoptr(Capabilities) capabilities = read_schema(schema);
        g_autoptr(Capabilities) same = capabilities_ref(capabilities);
        g_autoptr(GError) error = NULL;

        for (int i = 0; i < N_CAPABILITIES; i++) {
                g_test_message("%d", i);
                g_assert_true(capabilities->has[i]);
        }
        g_assert_cmpuint(g_strv_length(capabilities->names), ==, N_CAPABILITIES);
        g_assert_true(same == capabilities);
        g_assert_true(capabilities_suffice(capabilities, &error));
        g_assert_no_error(error);
}

/* QEMU is built with some drivers and without others; each counts for itself, and none for the rest. */
static void drivers(void)
{
        static const struct {
                const char *driver;
                Capability capability;
        } cases[] = {
                { "nbd", CAPABILITY_NBD },
                { "rbd", CAPABILITY_RBD },
                { "iscsi", CAPABILITY_ISCSI },
                { "bochs", CAPABILITY_BOCHS },
                { "snapshot-access", CAPABILITY_SNAPSHOT_ACCESS },
                { "NBD", N_CAPABILITIES },
                { "nbd+unix", N_CAPABILITIES },
                { "", N_CAPABILITIES },
        };

        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                const char *const list[] = { "file", cases[i].driver, NULL };
                g_autofree char *schema = make_schema(list);
                g_autoptr(Capabilities) capabilities = read_schema(schema);

                for (guint j = 0; j < G_N_ELEMENTS(cases); j++)
                        if (cases[j].capability < N_CAPABILITIES)
                                g_assert_cmpint(capabilities->has[cases[j].capability], ==, i == j);
                g_assert_true(capabilities->has[CAPABILITY_BACKUP]);
        }
}

/* The name has to stand where blockdev-add has its drivers. */
static void no_drivers(void)
{
        static const char *const schemas[] = {
                "[" COMMAND("blockdev-add", "99") "]",
                "[" DRIVERS_START "{\"case\": \"nbd\"}]}]",
                "[" COMMAND("blockdev-add", "99") ", {\"name\": \"99\", \"meta-type\": \"object\", "
                                                  "\"members\": [{\"name\": \"nbd\"}]}]",
                "[" COMMAND("blockdev-add", "99") ", " DRIVERS_START "{\"name\": \"nbd\"}]}]",
                "[" COMMAND("blockdev-add", "99") ", " DRIVERS_START
                                                  "null, 7, [], {\"case\": 7}, \"nbd\"]}]",
                "[" COMMAND("blockdev-add", "99") ", {\"name\": \"99\", \"meta-type\": \"object\", "
                                                  "\"members\": [], \"variants\": {\"case\": \"nbd\"}}]",
                "[" COMMAND("blockdev-add", "98") ", " DRIVERS_START "{\"case\": \"nbd\"}]}]",
                "[" COMMAND("blockdev-change", "99") ", " DRIVERS_START "{\"case\": \"nbd\"}]}]",
                "[" COMMAND("blockdev-add", "99") ", {\"name\": \"99\", \"meta-type\": \"enum\", "
                                                  "\"variants\": [{\"case\": \"nbd\"}]}]",
        };

        expect_capabilities("[" COMMAND("blockdev-add", "99") ", " DRIVERS_START "{\"case\": \"nbd\"}]}]",
                            "nbd");
        for (guint i = 0; i < G_N_ELEMENTS(schemas); i++)
                expect_capabilities(schemas[i], "");
}

/* A member counts, not the command alone; a type, an event or an enum of the name is none. */
static void parts_of_a_schema(void)
{
        expect_capabilities("[]", "");
        expect_capabilities("[" COMMIT ", " COMMIT_TYPE(FILTER) "]", "commit");
        expect_capabilities("[" COMMIT_TYPE(FILTER) ", " GRAPH ", " COMMIT "]", "commit graph");
        expect_capabilities("[" COMMIT ", " COMMIT_TYPE("") "]", "");
        expect_capabilities("[" COMMIT "]", "");
        expect_capabilities("[" COMMIT_TYPE(FILTER) "]", "");
        expect_capabilities("[{\"name\": \"query-status\", \"meta-type\": \"event\", \"arg-type\": \"0\"}, "
                            "{\"name\": \"query-name\", \"meta-type\": \"object\", \"members\": []}]",
                            "");
        /* names of types are not names of commands: "12" here is an array */
        expect_capabilities("[" COMMIT
                            ", {\"name\": \"12\", \"meta-type\": \"array\", \"members\": [{\"name\": "
                            "\"filter-node-name\"}]}]",
                            "");
}

static void odd_schemas(void)
{
        static const char *const schemas[] = {
                "null",
                "{}",
                "7",
                "[null, 7, [], {}, \"block-commit\"]",
                "[{\"name\": \"block-commit\"}, {\"meta-type\": \"command\"}, {\"name\": 7, \"meta-type\": "
                "7}]",
                "[{\"name\": \"block-commit\", \"meta-type\": \"command\", \"arg-type\": 12}, " COMMIT_TYPE(
                        FILTER) "]",
                "[" COMMIT ", {\"name\": \"12\", \"meta-type\": \"object\", \"members\": {}}]",
                "[" COMMIT
                ", {\"name\": \"12\", \"meta-type\": \"object\", \"members\": [null, 7, {}, []]}]",
                "[" COMMIT ", {\"name\": \"12\", \"meta-type\": \"object\", \"members\": [{\"name\": 7}]}]",
        };

        for (guint i = 0; i < G_N_ELEMENTS(schemas); i++)
                expect_capabilities(schemas[i], "");
}

static void what_is_needed(void)
{
        static const struct {
                const char *schema, *missing;
        } cases[] = {
                { "[]", "block-commit" },
                { "[" GRAPH "]", "block-commit" },
                { "[" GRAPH ", " COMMIT ", " COMMIT_TYPE("") "]", "filter-node-name" },
                { "[" COMMIT ", " COMMIT_TYPE(FILTER) "]", "x-debug-query-block-graph" },
        };

        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                g_autoptr(Capabilities) capabilities = read_schema(cases[i].schema);
                g_autoptr(GError) error = NULL;

                g_assert_false(capabilities_suffice(capabilities, &error));
                g_assert_error(error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED);
                g_assert_nonnull(strstr(error->message, cases[i].missing));
        }
        g_autoptr(Capabilities) enough = read_schema("[" GRAPH ", " COMMIT ", " COMMIT_TYPE(FILTER) "]");
        g_assert_true(capabilities_suffice(enough, NULL));
}

/* ---- base ---- */

static void error_names(void)
{
        static const char *const names[] = {
                "InvalidArgument", "NoSuchDomain", "NoSuchDisk",    "NoSuchJob", "NoSuchImage",
                "Ambiguous",       "Exists",       "InvalidState",  "JobActive", "NotReady",
                "NotActive",       "ImageInUse",   "NotSupported",  "NoSpace",   "Disconnected",
                "Timeout",         "QemuError",    "LimitExceeded", "Failed",
        };

        g_assert_cmpint(BJ_N_ERRORS, ==, G_N_ELEMENTS(names));
        for (int i = -1; i <= BJ_N_ERRORS; i++) {
                const GError error = { .domain = BJ_ERROR, .code = i };
                const GError foreign = { .domain = G_FILE_ERROR, .code = i };

                g_assert_cmpstr(bj_error_name(&error), ==, i >= 0 && i < BJ_N_ERRORS ? names[i] : "Failed");
                g_assert_cmpstr(bj_error_name(&foreign), ==, "Failed");
        }
}

static void errors_of_qemu(void)
{
        static const struct {
                const char *text;
                int code;
        } cases[] = {
                { "Failed to get \"write\" lock", BJ_ERROR_IMAGE_IN_USE },
                { "Failed to get shared \"write\" lock", BJ_ERROR_IMAGE_IN_USE },
                { "Failed to get \"resize\" lock", BJ_ERROR_IMAGE_IN_USE },
                { "Could not open '/x': Failed to get \"consistent read\" lock", BJ_ERROR_IMAGE_IN_USE },
                { "No space left on device", BJ_ERROR_NO_SPACE },
                { "Could not resize file: No space left on device", BJ_ERROR_NO_SPACE },
                { "Input/output error", BJ_ERROR_QEMU },
                { "Failed to get the size of 'x'", BJ_ERROR_QEMU },
                { "Node 'lock' is busy", BJ_ERROR_QEMU },
                { "", BJ_ERROR_QEMU },
                { NULL, BJ_ERROR_QEMU },
        };

        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                g_test_message("%s", cases[i].text ? cases[i].text : "(none)");
                g_assert_cmpint(bj_error_of_qemu(cases[i].text), ==, cases[i].code);
        }
}

static void json_made(void)
{
        g_autoptr(JsonObject) object =
                json_make("s:text", "a", "s:none", NULL, "i:number", G_MAXINT64, "b:flag", TRUE, "o:object",
                          json_object_new(), "a:array", json_array_new(), "n:null", NULL);
        g_autofree char *text = json_text(object);

        g_assert_cmpstr(text, ==,
                        "{\"text\":\"a\",\"number\":9223372036854775807,\"flag\":true,\"object\":{},"
                        "\"array\":[],\"null\":null}");
}

static void json_read(void)
{
        static const char *const members[] = { "s", "i", "b", "o", "a", "n", "d", "missing" };
        g_autoptr(JsonNode) node =
                json_from_string("{\"s\": \"x\", \"i\": 7, \"b\": true, \"o\": {}, \"a\": "
                                 "[null, {}], \"n\": null, \"d\": 1.5}",
                                 NULL);
        JsonObject *object = json_node_get_object(node);

        for (guint i = 0; i < G_N_ELEMENTS(members); i++) {
                const char *name = members[i];

                g_assert_cmpstr(json_string(object, name), ==, *name == 's' ? "x" : NULL);
                g_assert_cmpint(json_integer(object, name), ==, *name == 'i' ? 7 : 0);
                g_assert_cmpint(json_boolean(object, name), ==, *name == 'b');
                g_assert_true((json_object(object, name) != NULL) == (*name == 'o'));
                g_assert_true((json_array(object, name) != NULL) == (*name == 'a'));
                g_assert_null(json_string(NULL, name));
                g_assert_null(json_object(NULL, name));
        }
        g_assert_null(json_element(json_array(object, "a"), 0));
        g_assert_nonnull(json_element(json_array(object, "a"), 1));
}

static void json_depth(void)
{
        static const struct {
                const char *text;
                guint depth;
        } cases[] = {
                { "", 0 },         { "7", 0 },    { "\"[[{{\"", 0 },     { "\"\\\"[[\"", 0 },
                { "\"\\\\\"", 0 }, { "[]", 1 },   { "[[], [], {}]", 2 }, { "{\"a\\\\\": {\"b\": [7]}}", 3 },
                { "]]]}}}[[", 2 }, { "[[[[", 4 },
        };

        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                gsize length = strlen(cases[i].text);

                g_test_message("%s", cases[i].text);
                g_assert_true(json_is_shallow(cases[i].text, length, cases[i].depth));
                if (cases[i].depth > 0)
                        g_assert_false(json_is_shallow(cases[i].text, length, cases[i].depth - 1));
        }
        /* comments, which hide what the parser does not */
        g_assert_false(json_is_shallow("/* \" */ []", 10, 9));
        g_assert_false(json_is_shallow("// \"\n[]", 7, 9));
        g_assert_false(json_is_shallow("# \"\n[]", 6, 9));
        g_assert_true(json_is_shallow("[\"/images/#1\"]", 14, 1));
        /* a backslash as the last byte that may be looked at */
        g_assert_true(json_is_shallow("\"\\[[[[", 2, 0));
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/capabilities/whole", whole_schema);
        g_test_add_func("/capabilities/drivers", drivers);
        g_test_add_func("/capabilities/no-drivers", no_drivers);
        g_test_add_func("/capabilities/parts", parts_of_a_schema);
        g_test_add_func("/capabilities/odd", odd_schemas);
        g_test_add_func("/capabilities/needed", what_is_needed);
        g_test_add_func("/base/error-names", error_names);
        g_test_add_func("/base/errors-of-qemu", errors_of_qemu);
        g_test_add_func("/base/json/made", json_made);
        g_test_add_func("/base/json/read", json_read);
        g_test_add_func("/base/json/depth", json_depth);
        return g_test_run();
}
