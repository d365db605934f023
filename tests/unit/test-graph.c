/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The block graph and the chains read from what QEMU tells: right for what a QEMU has, harmless for what
 * none should say. */
#include <string.h>

#include "base/error.h"
#include "graph/chain.h"
#include "picture.h"

/* "top:qcow2=/images/top.qcow2 | …", from the active layer down */
static void expect_chain(const GraphRoot *root, const char *root_node, const char *filters,
                         const char *layers)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(GString) text = g_string_new(NULL);
        g_autofree char *drivers = NULL;
        g_autoptr(Chain) chain = NULL;

        g_assert_nonnull(root);
        chain = chain_new(root, &error);
        g_assert_no_error(error);
        g_assert_cmpstr(chain->root, ==, root_node);
        drivers = g_strjoinv(" ", chain->filters);
        g_assert_cmpstr(drivers, ==, filters);
        for (guint i = 0; i < chain->layers->len; i++) {
                const Layer *layer = chain_layer(chain, i);
                g_string_append_printf(text, "%s%s:%s=%s", i ? " | " : "", layer->node, layer->format,
                                       layer->source);
        }
        g_assert_cmpstr(text->str, ==, layers);
        g_assert_null(chain_layer(chain, chain->layers->len));
}

static const GraphRoot *only_root(const Graph *graph)
{
        g_assert_cmpuint(graph->roots->len, ==, 1);
        return graph->roots->pdata[0];
}

#define THREE                                                                         \
        "top:qcow2=/images/top.qcow2 | #block112:qcow2=/images/mid.qcow2 | #block381" \
        ":qcow2=/images/base.qcow2"

static void plain_chain(void)
{
        g_autoptr(Graph) graph = picture_read(&three_layers);
        const GraphRoot *root = only_root(graph);
        g_autoptr(Chain) chain = chain_new(root, NULL);
        const Layer *layer;

        g_assert_cmpstr(root->device, ==, "/machine/peripheral/vda/virtio-backend");
        g_assert_cmpstr(root->target, ==, "vda");
        g_assert_true(graph_root(graph, root->device) == root);
        g_assert_null(graph_root(graph, "vda"));
        expect_chain(root, "top", "", THREE);

        layer = chain_layer(chain, 0);
        g_assert_cmpstr(layer->backing, ==, "mid.qcow2");
        g_assert_cmpuint(layer->virtual_size, ==, 67108864);
        g_assert_cmpuint(layer->allocated, ==, 200704);
        g_assert_false(layer->read_only);
        layer = chain_layer(chain, 2);
        g_assert_cmpstr(layer->backing, ==, "");
        g_assert_cmpuint(layer->virtual_size, ==, 33554432);
        g_assert_cmpuint(layer->allocated, ==, 1048576);
        g_assert_true(layer->read_only);
}

static void node_details(void)
{
        g_autoptr(Graph) graph = picture_read(&three_layers);
        const GraphNode *top = graph_node(graph, "top"), *mid = graph_node(graph, "#block112");

        g_assert_cmpuint(g_hash_table_size(graph->nodes), ==, 6);
        g_assert_null(graph_node(graph, "/machine/peripheral/vda/virtio-backend"));
        g_assert_null(graph_node(graph, NULL));
        g_assert_cmpstr(top->driver, ==, "qcow2");
        g_assert_cmpuint(top->edges->len, ==, 2);
        g_assert_true(graph_child(top, "backing") == mid);
        g_assert_null(graph_child(top, "data-file"));
        g_assert_cmpuint(top->parents, ==, 1);
        g_assert_cmpuint(mid->parents, ==, 1);
        g_assert_true(top->direct);
        g_assert_false(top->no_flush);
        g_assert_false(top->encrypted);
        g_assert_cmpstr(top->detect_zeroes, ==, "off");
        g_assert_false(graph_is_filter(top));
        g_assert_cmpstr(graph_source(mid), ==, "/images/mid.qcow2");
}

/* What a throttle in front of the disk says of itself: its file name is no file's. */
#define THROTTLE_FILE                                                                             \
        "json:{\"throttle-group\": \"limits\", \"driver\": \"throttle\", \"file\": {\"driver\": " \
        "\"qcow2\", "                                                                             \
        "\"file\": {\"driver\": \"file\", \"filename\": \"/images/top.qcow2\"}}}"

static void throttle_and_job_above(void)
{
        static const Picture picture = {
                .nodes = {
                        { "bj-k3v", "mirror_top", THROTTLE_FILE, NULL, 67108864, 200704 },
                        { "vda-throttle", "throttle", THROTTLE_FILE, NULL, 67108864, 200704 },
                        { "top", "qcow2", "json:{}", "base.qcow2", 67108864, 200704 },
                        { "top-file", "file", "/images/top.qcow2", NULL, 197120, 200704 },
                        { "base", "qcow2", "/images/base.qcow2", NULL, 67108864, 200704 },
                        { "base-file", "file", "/images/base.qcow2", NULL, 197120, 200704 },
                },
                .edges = {
                        { "bj-k3v", "backing", "vda-throttle" },
                        { "vda-throttle", "file", "top" },
                        { "top", "file", "top-file" },
                        { "top", "backing", "base" },
                        { "base", "file", "base-file" },
                        { "job:j", "main node", "bj-k3v" },
                        { "job:j", "source", "vda-throttle" },
                        { "job:j", "target", "base" },
                        { "job:j", "intermediate node", "top" },
                        { "device:", "root", "base" },
                        { "device:/machine/peripheral/vda/virtio-backend", "root", "bj-k3v" },
                },
                .devices = { { "/machine/peripheral/vda/virtio-backend", "", "bj-k3v" } },
        };
        g_autoptr(Graph) graph = picture_read(&picture);
        GraphNode *filter = graph_node(graph, "bj-k3v"), *throttle = graph_node(graph, "vda-throttle");
        GraphNode *top = graph_node(graph, "top");

        expect_chain(only_root(graph), "vda-throttle", "throttle",
                     "top:qcow2=/images/top.qcow2 | base:qcow2=/images/base.qcow2");
        g_assert_true(graph_is_filter(filter));
        g_assert_true(graph_filtered(filter) == throttle);
        g_assert_true(graph_filtered(throttle) == top);
        g_assert_true(graph_skip_filters(filter) == top);
        g_assert_true(graph_skip_filters(top) == top);
        g_assert_null(graph_skip_filters(NULL));
        g_assert_cmpstr(graph_source(filter), ==, "/images/top.qcow2");
        g_assert_cmpuint(graph_node(graph, "base")->parents, ==, 3);
        g_assert_cmpuint(filter->parents, ==, 2);
        g_assert_cmpstr(filter->job, ==, "j");
        g_assert_cmpstr(graph_node(graph, "base")->job, ==, "j");
        g_assert_null(graph_node(graph, "base-file")->job);
        g_assert_true(graph_job_node(graph, "j", "main node") == filter);
        g_assert_true(graph_job_node(graph, "j", "source") == throttle);
        g_assert_true(graph_job_node(graph, "j", "target") == graph_node(graph, "base"));
        g_assert_true(graph_job_node(graph, "j", "intermediate node") == top);
}

static void job_filter_only(void)
{
        Picture picture = three_layers;

        picture.nodes[6] = (PictureNode){ "bj-k3v", "mirror_top", "/images/top.qcow2" };
        picture.edges[5] = (PictureEdge){ "bj-k3v", "backing", "top" };
        picture.devices[0].node = "bj-k3v";
        g_autoptr(Graph) graph = picture_read(&picture);
        expect_chain(only_root(graph), "top", "", THREE);
}

/* A commit of a middle layer, or somebody's throttle down there. */
static void filters_between(void)
{
        Picture picture = three_layers;

        picture.nodes[6] = (PictureNode){ "limit", "throttle", "json:{}" };
        picture.nodes[7] = (PictureNode){ "#block900", "commit_top", "/images/mid.qcow2" };
        picture.edges[2] = (PictureEdge){ "#block112", "backing", "limit" };
        picture.edges[4] = (PictureEdge){ "top", "backing", "#block900" };
        picture.edges[6] = (PictureEdge){ "limit", "file", "#block381" };
        picture.edges[7] = (PictureEdge){ "#block900", "backing", "#block112" };
        g_autoptr(Graph) graph = picture_read(&picture);
        expect_chain(only_root(graph), "top", "", THREE);
}

static void every_filter(void)
{
        static const struct {
                const char *driver, *edge;
                gboolean job;
        } filters[] = {
                { "mirror_top", "backing", TRUE },
                { "commit_top", "backing", TRUE },
                { "copy-on-read", "file" },
                { "copy-before-write", "file" },
                { "throttle", "file" },
                { "compress", "file" },
                { "preallocate", "file" },
                { "blkdebug", "image" },
                { "blklogwrites", "file" },
        };

        for (guint i = 0; i < G_N_ELEMENTS(filters); i++) {
                Picture picture = three_layers;

                picture.nodes[6] = (PictureNode){ "filter", filters[i].driver, "json:{}" };
                picture.edges[5] = (PictureEdge){ "filter", "log", "#block243" };
                picture.edges[6] = (PictureEdge){ "filter", filters[i].edge, "top" };
                picture.devices[0].node = "filter";
                g_autoptr(Graph) graph = picture_read(&picture);
                expect_chain(only_root(graph), filters[i].job ? "top" : "filter",
                             filters[i].job ? "" : filters[i].driver, THREE);
        }
}

static void raw_and_bare(void)
{
        static const Picture picture = {
                .nodes = {
                        { "data", "raw", "/images/data.img", NULL, 1048576, 4096 },
                        { "data-file", "file", "/images/data.img", NULL, 1048576, 4096 },
                        { "disk", "host_device", "/dev/vg/disk", NULL, 1048576, 0 },
                        { "net", "nbd", "nbd+unix:///d?socket=/run/n", NULL, 1048576, 0 },
                        { "copy", "copy-on-read", "json:{}", NULL, 1048576, 0 },
                        { "fixed", "null-co", "null-co://", NULL, 1048576, 0, TRUE },
                        { "odd", "qcow2", "/images/odd", NULL, 1, 1 },
                        { "odd-file", "file", "/images/o\\d \"d\"", NULL, 1, 1 },
                },
                .edges = {
                        { "data", "file", "data-file" },
                        { "copy", "file", "net" },
                        { "odd", "file", "odd-file" },
                        { "odd", "data-file", "disk" },
                },
                .devices = {
                        { "/machine/peripheral/a/virtio-backend", "", "data" },
                        { "/machine/peripheral/b/virtio-backend", "", "disk" },
                        { "/machine/peripheral/c/virtio-backend", "", "copy" },
                        { "/machine/peripheral/d/virtio-backend", "", "fixed" },
                        { "/machine/peripheral/e/virtio-backend", "", "odd" },
                },
        };
        g_autoptr(Graph) graph = picture_read(&picture);
        GraphRoot **roots = (GraphRoot **) graph->roots->pdata;

        g_assert_cmpuint(graph->roots->len, ==, 5);
        expect_chain(roots[0], "data", "", "data:raw=/images/data.img");
        expect_chain(roots[1], "disk", "", "disk:raw=/dev/vg/disk");
        expect_chain(roots[2], "copy", "copy-on-read", "net:raw=nbd+unix:///d?socket=/run/n");
        expect_chain(roots[3], "fixed", "", "fixed:raw=null-co://");
        expect_chain(roots[4], "odd", "", "odd:qcow2=/images/o\\d \"d\"");
}

/* -drive if=virtio,id=… makes names of its own for the nodes and a BlockBackend. */
static void legacy_drive(void)
{
        static const Picture picture = {
                .nodes = {
                        { "#block596", "qcow2", "/images/top.qcow2", "base.img" },
                        { "#block423", "file", "/images/top.qcow2" },
                        { "#block700", "raw", "/images/base.img" },
                        { "#block701", "file", "/images/base.img" },
                },
                .edges = {
                        { "#block596", "file", "#block423" },
                        { "#block596", "backing", "#block700" },
                        { "#block700", "file", "#block701" },
                        { "device:virtio0", "root", "#block596" },
                },
                .devices = {
                        { "/machine/peripheral-anon/device[0]/virtio-backend", "virtio0", "#block596" },
                },
        };
        g_autoptr(Graph) graph = picture_read(&picture);

        g_assert_cmpstr(only_root(graph)->target, ==, "virtio0");
        g_assert_cmpstr(only_root(graph)->device, ==, "/machine/peripheral-anon/device[0]/virtio-backend");
        expect_chain(only_root(graph), "#block596", "",
                     "#block596:qcow2=/images/top.qcow2 | #block700:raw=/images/base.img");
}

static void empty_drive(void)
{
        static const Picture picture = { .devices = { { "cd0" }, { "", "floppy0" } } };
        g_autoptr(Graph) graph = picture_read(&picture);
        GraphRoot **roots = (GraphRoot **) graph->roots->pdata;

        g_assert_cmpuint(graph->roots->len, ==, 2);
        g_assert_cmpstr(roots[0]->target, ==, "cd0");
        g_assert_null(roots[0]->node);
        expect_chain(roots[0], "", "", "");
        g_assert_cmpstr(roots[1]->target, ==, "floppy0");
        g_assert_cmpstr(roots[1]->device, ==, "floppy0");
}

static void targets(void)
{
        static const struct {
                const char *qdev, *backend, *target, *device; /* NULL: no disk of ours */
        } cases[] = {
                { "/machine/peripheral/vda/virtio-backend", "", "vda",
                  "/machine/peripheral/vda/virtio-backend" },
                { "/machine/peripheral/vda/virtio-backend", "drive0", "vda",
                  "/machine/peripheral/vda/virtio-backend" },
                { "/machine/peripheral/scsi0-0-0", "", "scsi0-0-0", "/machine/peripheral/scsi0-0-0" },
                { "/machine/peripheral/a.b-c_d", "", "a.b-c_d", "/machine/peripheral/a.b-c_d" },
                { "ide0-hd0", "", "ide0-hd0", "/machine/peripheral/ide0-hd0" },
                { "ide0-hd0", "drive0", "ide0-hd0", "/machine/peripheral/ide0-hd0" },
                { "/machine/peripheral-anon/device[1]/virtio-backend", "drive0", "drive0",
                  "/machine/peripheral-anon/device[1]/virtio-backend" },
                { "/machine/unattached/device[23]", "ide0-cd0", "ide0-cd0",
                  "/machine/unattached/device[23]" },
                { "", "drive0", "drive0", "drive0" },
                { "", "", NULL },
        };

        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                const Picture picture = { .devices = { { cases[i].qdev, cases[i].backend } } };
                g_autoptr(Graph) graph = picture_read(&picture);

                g_test_message("'%s' '%s'", cases[i].qdev, cases[i].backend);
                if (!cases[i].target) {
                        g_assert_cmpuint(graph->roots->len, ==, 0);
                        continue;
                }
                g_assert_cmpstr(only_root(graph)->target, ==, cases[i].target);
                g_assert_cmpstr(only_root(graph)->device, ==, cases[i].device);
        }
}

/* A target is the name of one disk: whoever asks for it must not get another. */
static void targets_are_unique(void)
{
        static const Picture pictures[] = {
                { .devices = { { "/machine/peripheral-anon/device[0]/virtio-backend" },
                               { "/machine/peripheral-anon/device[1]/virtio-backend" },
                               { "/machine/peripheral/x/virtio-backend" } } },
                { .devices = { { "/machine/peripheral-anon/device[0]/virtio-backend", "vda" },
                               { "/machine/peripheral/vda/virtio-backend" } } },
                { .devices = { { "/machine/unattached/device[2]" },
                               { "/machine/peripheral-anon/device[2]" } } },
        };

        for (guint i = 0; i < G_N_ELEMENTS(pictures); i++) {
                g_autoptr(Graph) graph = picture_read(&pictures[i]);
                g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

                g_assert_cmpuint(graph->roots->len, >, 1);
                for (guint j = 0; j < graph->roots->len; j++) {
                        const GraphRoot *root = graph->roots->pdata[j];

                        g_test_message("%s is %s", root->device, root->target);
                        g_assert_cmpstr(root->target, !=, "");
                        g_assert_true(g_hash_table_add(seen, (gpointer) root->target));
                }
        }
}

/* ---- what no QEMU should say ---- */

static void unknown_form(void)
{
        static const char *const texts[] = { "null", "7", "\"x\"", "{}", "[]" };

        for (guint i = 0; i < G_N_ELEMENTS(texts) * 3; i++) {
                g_autoptr(Replies) replies = replies_new(&three_layers);
                JsonNode **reply = i % 3 == 0   ? &replies->block
                                   : i % 3 == 1 ? &replies->nodes
                                                : &replies->graph;
                g_autoptr(GError) error = NULL;

                json_node_unref(*reply);
                *reply = parse_json(texts[i / 3]);
                g_autoptr(Graph) graph =
                        graph_new(replies->block, replies->nodes, replies->graph, NULL, &error);
                if (JSON_NODE_HOLDS_ARRAY(replies->block) && JSON_NODE_HOLDS_ARRAY(replies->nodes) &&
                    JSON_NODE_HOLDS_OBJECT(replies->graph)) {
                        g_assert_no_error(error);
                        g_assert_nonnull(graph);
                } else {
                        g_assert_error(error, BJ_ERROR, BJ_ERROR_QEMU);
                        g_assert_null(graph);
                }
        }
}

static JsonNode *odd_value(guint how)
{
        static const char *const odd[] = { "null", "42",   "-1",    "18446744073709551615",
                                           "0.5",  "true", "\"\"",  "[]",
                                           "[7]",  "{}",   "[[[]]]" };

        return how < G_N_ELEMENTS(odd) ? json_from_string(odd[how], NULL) : NULL;
}

/* Puts an odd value in the place of the member or element that is `*place`th, counted in depth. */
static gboolean spoil(JsonNode *node, guint *place, guint how)
{
        if (JSON_NODE_HOLDS_OBJECT(node)) {
                JsonObject *object = json_node_get_object(node);
                g_autoptr(GList) members = json_object_get_members(object);

                for (GList *l = members; l; l = l->next) {
                        JsonNode *value = odd_value(how);

                        if ((*place)-- == 0) {
                                if (value)
                                        json_object_set_member(object, l->data, value);
                                else
                                        json_object_remove_member(object, l->data);
                                return TRUE;
                        }
                        g_clear_pointer(&value, json_node_unref);
                        if (spoil(json_object_get_member(object, l->data), place, how))
                                return TRUE;
                }
        } else if (JSON_NODE_HOLDS_ARRAY(node)) {
                JsonArray *array = json_node_get_array(node);

                for (guint i = 0; i < json_array_get_length(array); i++) {
                        JsonNode *value = odd_value(how);

                        if ((*place)-- == 0) {
                                json_array_remove_element(array, i);
                                if (value)
                                        json_array_add_element(array, value);
                                return TRUE;
                        }
                        g_clear_pointer(&value, json_node_unref);
                        if (spoil(json_array_get_element(array, i), place, how))
                                return TRUE;
                }
        }
        return FALSE;
}

static void use_everything(const Graph *graph)
{
        GHashTableIter iter;
        gpointer node;

        g_hash_table_iter_init(&iter, graph->nodes);
        while (g_hash_table_iter_next(&iter, NULL, &node)) {
                g_assert_nonnull(graph_source(node));
                graph_skip_filters(node);
        }
        for (guint i = 0; i < graph->roots->len; i++) {
                g_autoptr(Chain) chain = chain_new(graph->roots->pdata[i], NULL);
                g_autoptr(JsonArray) array = chain ? chain_to_json(chain) : NULL;
                g_autofree char *text = chain ? chain_describe(chain, "vda") : NULL;

                g_assert_true(chain && chain_equal(chain, chain));
        }
}

/* Each member of each reply missing, and of every other type. */
static void malformed(void)
{
        guint tried = 0;

        for (guint which = 0; which < 3; which++) {
                for (guint how = 0;; how++) {
                        g_autoptr(JsonNode) odd = odd_value(how);
                        gboolean spoilt = TRUE;

                        for (guint place = 0; spoilt; place++) {
                                g_autoptr(Replies) replies = replies_new(&three_layers);
                                g_autoptr(Graph) graph = NULL;
                                guint at = place;

                                spoilt = spoil(which == 0   ? replies->block
                                               : which == 1 ? replies->nodes
                                                            : replies->graph,
                                               &at, how);
                                graph = graph_new(replies->block, replies->nodes, replies->graph, NULL,
                                                  NULL);
                                g_assert_nonnull(graph);
                                use_everything(graph);
                                tried++;
                        }
                        if (!odd)
                                break;
                }
        }
        g_assert_cmpuint(tried, >, 1000);
}

static void dangling(void)
{
        Picture picture = three_layers;
        static const Picture lonely = {
                .nodes = { { "limit", "throttle", "json:{}" } },
                .devices = { { "vda", "", "limit" } },
        };
        g_autoptr(Graph) graph = NULL;

        /* an edge to and from nodes that are not in the list; a device on a node that is not */
        picture.edges[6] = (PictureEdge){ "#block381", "backing", "nobody" };
        picture.edges[7] = (PictureEdge){ "nobody", "file", "#block381" };
        graph = picture_read(&picture);
        expect_chain(only_root(graph), "top", "", THREE);
        g_assert_null(graph_node(graph, "nobody"));
        graph_free(g_steal_pointer(&graph));

        /* a filter that stands on nothing */
        graph = picture_read(&lonely);
        expect_chain(only_root(graph), "limit", "throttle", "");
        g_assert_cmpstr(graph_source(only_root(graph)->node), ==, "json:{}");
}

static const Picture circles[] = {
        { .nodes = { { "a", "qcow2", "/a" }, { "b", "qcow2", "/b" } },
          .edges = { { "a", "backing", "b" }, { "b", "backing", "a" } },
          .devices = { { "vda", "", "a" } } },
        { .nodes = { { "a", "qcow2", "/a" } },
          .edges = { { "a", "backing", "a" } },
          .devices = { { "vda", "", "a" } } },
        { .nodes = { { "a", "qcow2", "/a" }, { "b", "file", "/b" } },
          .edges = { { "a", "file", "b" }, { "b", "file", "a" } },
          .devices = { { "vda", "", "a" } } },
        { .nodes = { { "a", "mirror_top", "/a" } },
          .edges = { { "a", "backing", "a" } },
          .devices = { { "vda", "", "a" } } },
        { .nodes = { { "a", "qcow2", "/a" }, { "b", "throttle", "/b" }, { "c", "throttle", "/c" } },
          .edges = { { "a", "backing", "b" }, { "b", "file", "c" }, { "c", "file", "b" } },
          .devices = { { "vda", "", "a" } } },
        { .nodes = { { "a", "throttle", "/a" }, { "b", "copy-on-read", "/b" } },
          .edges = { { "a", "file", "b" }, { "b", "file", "a" } },
          .devices = { { "vda", "", "a" } } },
};

/* Nodes in a circle: alone in a process, which has an end either way. */
static void circle(gconstpointer picture)
{
        if (g_test_subprocess()) {
                g_autoptr(Replies) replies = replies_new(picture);
                g_autoptr(GError) error = NULL;
                g_autoptr(Graph) graph = NULL;

                graph = graph_new(replies->block, replies->nodes, replies->graph, NULL, &error);
                g_assert_error(error, BJ_ERROR, BJ_ERROR_QEMU);
                g_assert_null(graph);
                return;
        }
        g_test_trap_subprocess(NULL, 2 * G_USEC_PER_SEC, 0);
        g_test_trap_assert_passed();
}

/* Two ways to one node are no circle. */
static void shared_nodes(void)
{
        static const Picture picture = {
                .nodes = {
                        { "a", "qcow2", "/a" },
                        { "b", "qcow2", "/b" },
                        { "base", "qcow2", "/base" },
                        { "base-file", "file", "/base" },
                },
                .edges = {
                        { "a", "backing", "base" },
                        { "b", "backing", "base" },
                        { "b", "data-file", "base-file" },
                        { "base", "file", "base-file" },
                        { "base", "data-file", "base-file" },
                },
                .devices = { { "vda", "", "a" }, { "vdb", "", "b" } },
        };
        g_autoptr(Graph) graph = picture_read(&picture);

        expect_chain(graph->roots->pdata[0], "a", "", "a:raw=/a | base:qcow2=/base");
        expect_chain(graph->roots->pdata[1], "b", "", "b:raw=/b | base:qcow2=/base");
        g_assert_cmpuint(graph_node(graph, "base-file")->parents, ==, 3);
}

/* The id that a user gave is the name, also where a drive without one has the same word for itself. */
static void ids_go_first(void)
{
        static const Picture picture = {
                .devices = { { "/machine/peripheral-anon/device[0]/virtio-backend", "vda" },
                             { "/machine/peripheral/vda/virtio-backend" } },
        };
        g_autoptr(Graph) graph = picture_read(&picture);

        g_assert_cmpstr(graph_root(graph, "/machine/peripheral/vda/virtio-backend")->target, ==, "vda");
        g_assert_cmpuint(graph->roots->len, ==, 2);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/graph/chain", plain_chain);
        g_test_add_func("/graph/nodes", node_details);
        g_test_add_func("/graph/filters/throttle-and-job", throttle_and_job_above);
        g_test_add_func("/graph/filters/job", job_filter_only);
        g_test_add_func("/graph/filters/between", filters_between);
        g_test_add_func("/graph/filters/every", every_filter);
        g_test_add_func("/graph/raw-and-bare", raw_and_bare);
        g_test_add_func("/graph/legacy-drive", legacy_drive);
        g_test_add_func("/graph/empty-drive", empty_drive);
        g_test_add_func("/graph/targets/names", targets);
        g_test_add_func("/graph/targets/unique", targets_are_unique);
        g_test_add_func("/graph/targets/ids-first", ids_go_first);
        g_test_add_func("/graph/shared-nodes", shared_nodes);
        g_test_add_func("/graph/malformed/replies", unknown_form);
        g_test_add_func("/graph/malformed/members", malformed);
        g_test_add_func("/graph/malformed/dangling", dangling);
        for (guint i = 0; i < G_N_ELEMENTS(circles); i++) {
                g_autofree char *name = g_strdup_printf("/graph/circles/%u", i + 1);
                g_test_add_data_func(name, &circles[i], circle);
        }
        return g_test_run();
}
