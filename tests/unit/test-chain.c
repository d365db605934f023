/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A chain: finding the image that a caller means, and what records keep of it. */
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "base/error.h"
#include "base/json.h"
#include "graph/chain.h"
#include "picture.h"

static Chain *read_chain(const Picture *picture)
{
        g_autoptr(Graph) graph = picture_read(picture);
        g_autoptr(GError) error = NULL;
        Chain *chain = chain_new(graph->roots->pdata[0], &error);

        g_assert_no_error(error);
        return chain;
}

static void on_found(GObject *source, GAsyncResult *result, gpointer data)
{
        GAsyncResult **keep = data;

        (void) source;
        *keep = g_object_ref(result);
}

static int find(const Chain *chain, const char *target, const char *name, GError **error)
{
        g_autoptr(GAsyncResult) result = NULL;

        chain_find_async(chain, target, name, on_found, &result);
        g_assert_null(result); /* never from within the call */
        while (!result)
                g_main_context_iteration(NULL, TRUE);
        return chain_find_finish(result, error);
}

static void expect_found(const Chain *chain, const char *target, const char *name, int depth)
{
        g_autoptr(GError) error = NULL;
        int found = find(chain, target, name, &error);

        g_test_message("%s in %s", name, target);
        g_assert_no_error(error);
        g_assert_cmpint(found, ==, depth);
}

static char *expect_not_found(const Chain *chain, const char *target, const char *name, BjErrorCode code)
{
        g_autoptr(GError) error = NULL;

        g_test_message("%s in %s", name, target);
        g_assert_cmpint(find(chain, target, name, &error), ==, -1);
        g_assert_error(error, BJ_ERROR, (int) code);
        return g_strdup(error->message);
}

static void find_by_depth(void)
{
        g_autoptr(Chain) chain = read_chain(&three_layers);
        g_autofree char *text = NULL;

        expect_found(chain, "vda", "[0]", 0);
        expect_found(chain, "vda", "[2]", 2);
        expect_found(chain, "vda", "vda[0]", 0);
        expect_found(chain, "vda", "vda[1]", 1);
        /* a target that QEMU made up */
        expect_found(chain, "device[23]", "device[23][1]", 1);
        expect_found(chain, "device[23]", "[1]", 1);

        text = expect_not_found(chain, "vda", "[3]", BJ_ERROR_NO_SUCH_IMAGE);
        g_assert_cmpstr(text, ==,
                        "'[3]' is no image of 'vda', whose chain is vda[0] = /images/top.qcow2, vda[1] = "
                        "/images/mid.qcow2, vda[2] = /images/base.qcow2");
        g_free(expect_not_found(chain, "vda", "[4294967297]", BJ_ERROR_NO_SUCH_IMAGE));
        g_free(expect_not_found(chain, "vda", "vda[99999999999999999999]", BJ_ERROR_NO_SUCH_IMAGE));
}

static void find_by_node(void)
{
        g_autoptr(Chain) chain = read_chain(&three_layers);

        expect_found(chain, "vda", "node:top", 0);
        expect_found(chain, "vda", "node:#block381", 2);
        g_free(expect_not_found(chain, "vda", "node:", BJ_ERROR_NO_SUCH_IMAGE));
        g_free(expect_not_found(chain, "vda", "node:to", BJ_ERROR_NO_SUCH_IMAGE));
        /* no image of its own */
        g_free(expect_not_found(chain, "vda", "node:top-file", BJ_ERROR_NO_SUCH_IMAGE));
}

static void malformed_names(void)
{
        static const char *const names[] = {
                "",        "top",       "vda",         "[]",
                "vda[]",   "[",         "]",           "[1",
                "1]",      "[1]x",      "[1]]",        "[[1]",
                "vdb[1]",  "vd[1]",     "vdaa[1]",     "[-1]",
                "[+1]",    "[ 1]",      "[1 ]",        "[0x1]",
                "[1.0]",   "[one]",     "[1][1]",      "VDA[1]",
                "vda [1]", "top.qcow2", "./top.qcow2", "Node:top",
                " [1]",    "][",        "]1[",         "file:///images/top.qcow2"
        };
        g_autoptr(Chain) chain = read_chain(&three_layers);

        for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
                g_autofree char *text = expect_not_found(chain, "vda", names[i], BJ_ERROR_INVALID_ARGUMENT);
                g_assert_nonnull(strstr(text, "node:NAME"));
                g_assert_nonnull(strstr(text, "'vda'"));
        }
}

static void no_medium(void)
{
        static const Picture picture = { .devices = { { "cd0" } } };
        g_autoptr(Chain) chain = read_chain(&picture);
        g_autofree char *text = expect_not_found(chain, "cd0", "[0]", BJ_ERROR_NO_SUCH_IMAGE);

        g_assert_cmpstr(text, ==, "'[0]' is no image of 'cd0', whose chain is no medium");
        g_free(expect_not_found(chain, "cd0", "/dev/null", BJ_ERROR_NO_SUCH_IMAGE));
        g_free(expect_not_found(chain, "cd0", "node:", BJ_ERROR_NO_SUCH_IMAGE));
}

/* ---- by path: real files ---- */

typedef struct {
        char *directory;
        char *top, *base, *link, *hard, *around;
        Picture picture;
} Files;

static void files_set_up(Files *files, gconstpointer data)
{
        (void) data;
        files->directory = g_dir_make_tmp("bj-XXXXXX", NULL);
        g_assert_nonnull(files->directory);
        files->top = g_build_filename(files->directory, "top.qcow2", NULL);
        files->base = g_build_filename(files->directory, "base.qcow2", NULL);
        files->link = g_build_filename(files->directory, "link", NULL);
        files->hard = g_build_filename(files->directory, "hard", NULL);
        files->around = g_strdup_printf("%s/../%s/./top.qcow2", files->directory,
                                        strrchr(files->directory, '/') + 1);
        g_assert_true(g_file_set_contents(files->top, "top", -1, NULL));
        g_assert_true(g_file_set_contents(files->base, "base", -1, NULL));
        g_assert_no_errno(symlink("base.qcow2", files->link));
        g_assert_no_errno(link(files->top, files->hard));
        files->picture = (Picture){
                .nodes = { { "top", "qcow2", files->top },
                           { "mid", "qcow2", "/images/gone.qcow2" },
                           { "net", "raw", "nbd://host/x" },
                           { "base", "raw", files->base } },
                .edges = { { "top", "backing", "mid" },
                           { "mid", "backing", "net" },
                           { "net", "backing", "base" } },
                .devices = { { "vda", "", "top" } },
        };
}

static void files_tear_down(Files *files, gconstpointer data)
{
        char *const paths[] = { files->top, files->base, files->link, files->hard };

        (void) data;
        for (guint i = 0; i < G_N_ELEMENTS(paths); i++) {
                g_unlink(paths[i]);
                g_free(paths[i]);
        }
        g_free(files->around);
        g_assert_no_errno(g_rmdir(files->directory));
        g_free(files->directory);
}

static void find_by_path(Files *files, gconstpointer data)
{
        g_autoptr(Chain) chain = read_chain(&files->picture);

        (void) data;
        expect_found(chain, "vda", files->top, 0);
        expect_found(chain, "vda", files->base, 3);
        expect_found(chain, "vda", files->link, 3);
        expect_found(chain, "vda", files->hard, 0);
        expect_found(chain, "vda", files->around, 0);
        /* as recorded, though there is no such file here */
        expect_found(chain, "vda", "/images/gone.qcow2", 1);
        g_free(expect_not_found(chain, "vda", "/images/gone", BJ_ERROR_NO_SUCH_IMAGE));
        g_free(expect_not_found(chain, "vda", "/dev/null", BJ_ERROR_NO_SUCH_IMAGE));
        g_free(expect_not_found(chain, "vda", files->directory, BJ_ERROR_NO_SUCH_IMAGE));
        g_free(expect_not_found(chain, "vda", "nbd://host/x", BJ_ERROR_INVALID_ARGUMENT));
}

/* One image twice in a chain: under one name, and under two. */
static void ambiguous(Files *files, gconstpointer data)
{
        const char *const others[] = { files->base, files->link };

        (void) data;
        for (guint i = 0; i < G_N_ELEMENTS(others); i++) {
                g_autoptr(Chain) chain = NULL;
                g_autofree char *text = NULL, *wanted = NULL;

                files->picture.nodes[1].file = others[i];
                chain = read_chain(&files->picture);
                text = expect_not_found(chain, "vda", files->base, BJ_ERROR_AMBIGUOUS);
                wanted = g_strdup_printf("'%s' is both vda[1] and vda[3]: name one of them by its depth",
                                         files->base);
                g_assert_cmpstr(text, ==, wanted);
                expect_found(chain, "vda", "[1]", 1);
                expect_found(chain, "vda", "node:base", 3);
                expect_found(chain, "vda", files->top, 0);
        }
}

/* What QEMU calls "base.qcow2" lies in QEMU's directory: nobody's file of that name here is meant. */
static void relative_names(Files *files, gconstpointer data)
{
        g_autofree char *here = g_get_current_dir();
        g_autoptr(Chain) chain = NULL;

        (void) data;
        files->picture.nodes[3].file = "base.qcow2";
        chain = read_chain(&files->picture);
        g_assert_no_errno(g_chdir(files->directory));
        g_free(expect_not_found(chain, "vda", files->base, BJ_ERROR_NO_SUCH_IMAGE));
        expect_found(chain, "vda", "[3]", 3);
        g_assert_no_errno(g_chdir(here));
}

/* The search has the chain as it was when it was asked. */
static void chain_freed_meanwhile(void)
{
        Chain *chain = read_chain(&three_layers);
        g_autoptr(GAsyncResult) result = NULL;
        g_autoptr(GError) error = NULL;

        chain_find_async(chain, "vda", "/images/mid.qcow2", on_found, &result);
        chain_free(chain);
        while (!result)
                g_main_context_iteration(NULL, TRUE);
        g_assert_cmpint(chain_find_finish(result, &error), ==, 1);
        g_assert_no_error(error);
}

/* ---- records and copies ---- */

static void round_trip(void)
{
        Picture picture = three_layers;

        picture.nodes[0].virtual_size = G_MAXINT64;
        picture.nodes[1].file = "/images/ä \"quoted\\";
        g_autoptr(Chain) chain = read_chain(&picture);
        g_autoptr(JsonArray) array = chain_to_json(chain);
        JsonObject *record = json_make("a:chain", json_array_ref(array), NULL);
        g_autofree char *text = json_text(record);
        g_autoptr(JsonNode) node = parse_json(text);
        g_autoptr(Chain) again = chain_from_json(json_array(json_node_get_object(node), "chain"));

        g_assert_cmpuint(again->layers->len, ==, 3);
        g_assert_cmpstr(chain_layer(again, 0)->source, ==, "/images/ä \"quoted\\");
        g_assert_true(chain_equal(chain, again));
        json_object_unref(record);
}

static void odd_records(void)
{
        g_autoptr(Chain) none = chain_from_json(NULL);
        g_autoptr(JsonNode) node =
                parse_json("[null, 7, [], {}, {\"source\": 7, \"virtual-size\": \"x\", "
                           "\"read-only\": 1, \"node-name\": \"n\", \"allocated\": 0.5}]");
        g_autoptr(Chain) odd = chain_from_json(json_node_get_array(node));
        g_autoptr(Chain) copy = chain_copy_below(odd, 0);
        g_autofree char *text = chain_describe(none, "vda");

        g_assert_cmpstr(text, ==, "no medium");
        g_assert_cmpstr(none->root, ==, "");
        g_assert_cmpuint(none->layers->len, ==, 0);
        for (guint i = 0; i < odd->layers->len; i++) {
                const Layer *layer = chain_layer(odd, i);

                g_assert_cmpstr(layer->source, ==, "");
                g_assert_cmpstr(layer->format, ==, "");
                g_assert_cmpuint(layer->virtual_size, ==, 0);
                g_assert_cmpuint(layer->allocated, ==, 0);
                g_assert_false(layer->read_only);
        }
        g_assert_true(chain_equal(odd, copy));
        g_free(expect_not_found(odd, "vda", "/", BJ_ERROR_NO_SUCH_IMAGE));
}

static void copy_below(void)
{
        Picture picture = three_layers;

        picture.nodes[6] = (PictureNode){ "limit", "throttle", "json:{}" };
        picture.edges[6] = (PictureEdge){ "limit", "file", "top" };
        picture.devices[0].node = "limit";
        g_autoptr(Chain) chain = read_chain(&picture);
        g_autoptr(Chain) whole = chain_copy_below(chain, 0), lower = chain_copy_below(chain, 1);
        g_autoptr(Chain) nothing = chain_copy_below(chain, 3), less = chain_copy_below(chain, 99);

        g_assert_true(chain_equal(chain, whole));
        g_assert_cmpstr(whole->root, ==, "limit");
        g_assert_cmpuint(lower->layers->len, ==, 2);
        g_assert_cmpstr(lower->root, ==, "#block112");
        g_assert_cmpstr(chain_layer(lower, 0)->source, ==, "/images/mid.qcow2");
        g_assert_cmpstr(chain_layer(lower, 1)->source, ==, "/images/base.qcow2");
        g_assert_true(chain_layer(lower, 0)->source != chain_layer(chain, 1)->source);
        g_assert_cmpuint(nothing->layers->len, ==, 0);
        g_assert_cmpstr(nothing->root, ==, "");
        g_assert_true(chain_equal(nothing, less));
}

static void replace(char **text)
{
        g_free(*text);
        *text = g_strdup("other");
}

static void equal(void)
{
        g_autoptr(Chain) chain = read_chain(&three_layers);

        for (guint i = 0; i < 10; i++) {
                g_autoptr(Chain) other = chain_copy_below(chain, 0);
                Layer *layer = other->layers->pdata[2];

                g_assert_true(chain_equal(chain, other));
                switch (i) {
                case 0:
                        replace(&layer->node);
                        break;
                case 1:
                        replace(&layer->source);
                        break;
                case 2:
                        replace(&layer->format);
                        break;
                case 3:
                        replace(&layer->backing);
                        break;
                case 4:
                        layer->virtual_size++;
                        break;
                case 5:
                        layer->allocated++;
                        break;
                case 6:
                        layer->read_only = !layer->read_only;
                        break;
                case 7:
                        replace(&other->root);
                        break;
                case 8:
                        g_ptr_array_remove_index(other->layers, 2);
                        break;
                default:
                        g_strfreev(other->filters);
                        other->filters = g_strsplit("throttle", " ", 0);
                }
                g_assert_false(chain_equal(chain, other));
                g_assert_false(chain_equal(other, chain));
        }
}

/* What is in the nodes, and how QEMU's numbers for them grow, makes no difference. */
static void same_nodes(void)
{
        g_autoptr(Chain) chain = read_chain(&three_layers);

        for (guint i = 0; i < 8; i++) {
                g_autoptr(Chain) other = chain_copy_below(chain, 0);
                Layer *layer = other->layers->pdata[2];
                gboolean same = i < 4;

                switch (i) {
                case 0:
                        break;
                case 1:
                        replace(&layer->source);
                        replace(&layer->format);
                        break;
                case 2:
                        replace(&layer->backing);
                        layer->virtual_size++;
                        layer->allocated++;
                        break;
                case 3:
                        layer->read_only = !layer->read_only;
                        g_strfreev(other->filters);
                        other->filters = g_strsplit("throttle", " ", 0);
                        break;
                case 4:
                        replace(&layer->node);
                        break;
                case 5:
                        replace(&other->root);
                        break;
                case 6:
                        g_ptr_array_remove_index(other->layers, 2);
                        break;
                default:
                        g_ptr_array_insert(other->layers, 0, g_ptr_array_steal_index(other->layers, 1));
                }
                g_test_message("%u", i);
                g_assert_cmpint(chain_same_nodes(chain, other), ==, same);
                g_assert_cmpint(chain_same_nodes(other, chain), ==, same);
        }
}

/* "source source …" from the active layer down; NULL where there is no such chain */
static char *pivoted_sources(const Chain *chain, const char *below, const char *source)
{
        g_autoptr(Chain) pivoted = chain_pivoted(chain, below, source, source ? "raw" : NULL);
        g_autoptr(GString) text = g_string_new(NULL);

        for (guint i = 0; pivoted && i < pivoted->layers->len; i++)
                g_string_append_printf(text, "%s%s", i ? " " : "", chain_layer(pivoted, i)->source);
        return pivoted ? g_strdup(text->str) : NULL;
}

static void pivoted(void)
{
        static const struct {
                const char *below, *source, *wanted;
        } cases[] = {
                /* commits: a layer comes to the top */
                { "/images/mid.qcow2", NULL, "/images/mid.qcow2 /images/base.qcow2" },
                { "/images/base.qcow2", NULL, "/images/base.qcow2" },
                { "/images/top.qcow2", NULL, "/images/top.qcow2 /images/mid.qcow2 /images/base.qcow2" },
                /* copies: a new image on nothing, or on what was below; a snapshot: on all of it */
                { "", "/new", "/new" },
                { "/images/mid.qcow2", "/new", "/new /images/mid.qcow2 /images/base.qcow2" },
                { "/images/top.qcow2", "/new",
                  "/new /images/top.qcow2 /images/mid.qcow2 /images/base.qcow2" },
                { "", NULL, "" },
                /* it went meanwhile */
                { "/images/gone.qcow2", NULL, NULL },
                { "/images/gone.qcow2", "/new", NULL },
                { "top", "/new", NULL },
        };
        g_autoptr(Chain) chain = read_chain(&three_layers);
        g_autoptr(Chain) before = chain_copy_below(chain, 0);

        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                g_autofree char *sources = pivoted_sources(chain, cases[i].below, cases[i].source);

                g_test_message("'%s' %s", cases[i].below, cases[i].source ? cases[i].source : "-");
                g_assert_cmpstr(sources, ==, cases[i].wanted);
        }
        g_assert_true(chain_equal(chain, before));
}

/* The guest's disk keeps its size, whatever the images below it have. */
static void pivoted_layer(void)
{
        g_autoptr(Chain) chain = read_chain(&three_layers);
        g_autoptr(Chain) copy = chain_pivoted(chain, "/images/base.qcow2", "/new", "raw");
        g_autoptr(Chain) commit = chain_pivoted(chain, "/images/base.qcow2", NULL, NULL);
        g_autoptr(Chain) none = chain_copy_below(chain, 3), first = chain_pivoted(none, "", "/new", "raw");
        const Layer *layer = chain_layer(copy, 0);

        g_assert_cmpstr(layer->format, ==, "raw");
        g_assert_cmpstr(layer->backing, ==, "/images/base.qcow2");
        g_assert_cmpuint(layer->virtual_size, ==, 67108864);
        g_assert_false(layer->read_only);
        layer = chain_layer(commit, 0);
        g_assert_cmpstr(layer->node, ==, "#block381");
        g_assert_cmpstr(layer->backing, ==, "");
        g_assert_cmpuint(layer->virtual_size, ==, 33554432);
        g_assert_cmpuint(first->layers->len, ==, 1);
        g_assert_cmpuint(chain_layer(first, 0)->virtual_size, ==, 0);
        g_assert_null(chain_pivoted(none, "/images/base.qcow2", "/new", "raw"));
}

/* 256 layers are a chain, 257 are too many. */
static void depth_limit(void)
{
        g_autoptr(GString) nodes = g_string_new("[");
        g_autoptr(GString) graph_nodes = g_string_new("{\"nodes\": [");
        g_autoptr(GString) edges = g_string_new("], \"edges\": [");

        for (guint i = 1; i <= CHAIN_DEPTH_MAX + 1; i++) {
                const char *comma = i > 1 ? "," : "";

                g_string_append_printf(nodes,
                                       "%s{\"node-name\": \"n%u\", \"drv\": \"qcow2\", \"file\": \"/%u\"}",
                                       comma, i, i);
                g_string_append_printf(graph_nodes,
                                       "%s{\"id\": %u, \"type\": \"block-driver\", \"name\": \"n%u\"}",
                                       comma, i, i);
                g_string_append_printf(edges, "%s{\"parent\": %u, \"child\": %u, \"name\": \"backing\"}",
                                       comma, i, i + 1);
        }
        g_string_append(nodes, "]");
        g_string_append_printf(graph_nodes, "%s]}", edges->str);

        for (guint first = 1; first <= 2; first++) {
                g_autofree char *devices = g_strdup_printf(
                        "[{\"qdev\": \"vda\", \"inserted\": {\"node-name\": \"n%u\"}}]", first);
                g_autoptr(JsonNode) a = parse_json(devices);
                g_autoptr(JsonNode) b = parse_json(nodes->str);
                g_autoptr(JsonNode) c = parse_json(graph_nodes->str);
                g_autoptr(Graph) graph = graph_new(a, b, c, NULL, NULL);
                g_autoptr(GError) error = NULL;
                g_autoptr(Chain) chain = chain_new(graph->roots->pdata[0], &error);

                if (first == 1) {
                        g_assert_error(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED);
                        g_assert_nonnull(strstr(error->message, "vda"));
                        g_assert_null(chain);
                } else {
                        g_assert_no_error(error);
                        g_assert_cmpuint(chain->layers->len, ==, CHAIN_DEPTH_MAX);
                }
        }
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/chain/find/depth", find_by_depth);
        g_test_add_func("/chain/find/node", find_by_node);
        g_test_add_func("/chain/find/malformed", malformed_names);
        g_test_add_func("/chain/find/no-medium", no_medium);
        g_test_add("/chain/find/path", Files, NULL, files_set_up, find_by_path, files_tear_down);
        g_test_add("/chain/find/ambiguous", Files, NULL, files_set_up, ambiguous, files_tear_down);
        g_test_add("/chain/find/relative", Files, NULL, files_set_up, relative_names, files_tear_down);
        g_test_add_func("/chain/find/freed-meanwhile", chain_freed_meanwhile);
        g_test_add_func("/chain/json/round-trip", round_trip);
        g_test_add_func("/chain/json/odd", odd_records);
        g_test_add_func("/chain/copy-below", copy_below);
        g_test_add_func("/chain/equal", equal);
        g_test_add_func("/chain/same-nodes", same_nodes);
        g_test_add_func("/chain/pivoted/sources", pivoted);
        g_test_add_func("/chain/pivoted/layer", pivoted_layer);
        g_test_add_func("/chain/depth-limit", depth_limit);
        return g_test_run();
}
