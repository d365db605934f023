/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "graph/graph.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"

/* Drivers that QEMU marks as filters, and the edge to what they filter. */
static const struct {
        const char *driver, *edge;
} filters[] = {
        { "mirror_top", "backing" }, { "commit_top", "backing" },     { "backup-top", "backing" },
        { "copy-on-read", "file" },  { "copy-before-write", "file" }, { "throttle", "file" },
        { "compress", "file" },      { "preallocate", "file" },       { "blkdebug", "image" },
        { "blkverify", "test" },     { "blklogwrites", "file" },      { "blkreplay", "image" },
};

static const char *filter_edge(const GraphNode *node)
{
        for (guint i = 0; i < G_N_ELEMENTS(filters); i++)
                if (strcmp(node->driver, filters[i].driver) == 0)
                        return filters[i].edge;
        return NULL;
}

static void node_free(gpointer data)
{
        GraphNode *node = data;

        g_array_unref(node->edges);
        g_free(node);
}

static const char *keep(Graph *graph, const char *text)
{
        return g_string_chunk_insert_const(graph->strings, text ? text : "");
}

static void read_node(Graph *graph, JsonObject *object, GHashTable *paths)
{
        JsonObject *image = json_object(object, "image"), *cache = json_object(object, "cache");
        const char *name = json_string(object, "node-name"), *driver = json_string(object, "drv"), *path;
        GraphNode *node;

        if (!name || !driver)
                return;
        node = g_new0(GraphNode, 1);
        node->name = keep(graph, name);
        node->driver = keep(graph, driver);
        node->file = keep(graph, json_string(object, "file"));
        path = paths ? g_hash_table_lookup(paths, node->file) : NULL;
        node->path = path ? keep(graph, path) : node->file;
        node->backing = keep(graph, json_string(image, "backing-filename"));
        node->full_backing = keep(graph, json_string(image, "full-backing-filename"));
        node->backing_format = keep(graph, json_string(image, "backing-filename-format"));
        node->read_only = json_boolean(object, "ro");
        node->no_flush = json_boolean(cache, "no-flush");
        node->direct = json_boolean(cache, "direct");
        node->detect_zeroes = keep(graph, json_string(object, "detect_zeroes"));
        node->encrypted = json_boolean(object, "encrypted") || json_boolean(image, "encrypted");
        node->virtual_size = (guint64) json_integer(image, "virtual-size");
        node->allocated = (guint64) json_integer(image, "actual-size");
        node->cluster_size = (guint64) json_integer(image, "cluster-size");
        node->extended_l2 =
                json_boolean(json_object(json_object(image, "format-specific"), "data"), "extended-l2");
        node->edges = g_array_new(FALSE, FALSE, sizeof(GraphEdge));
        g_hash_table_replace(graph->nodes, (gpointer) node->name, node);
}

static void read_edges(Graph *graph, JsonObject *block_graph)
{
        g_autoptr(GHashTable) names = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
        g_autoptr(GHashTable) jobs = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
        JsonArray *nodes = json_array(block_graph, "nodes"), *edges = json_array(block_graph, "edges");

        for (guint i = 0; nodes && i < json_array_get_length(nodes); i++) {
                JsonObject *node = json_element(nodes, i);
                const char *type = json_string(node, "type"), *name = json_string(node, "name");
                gint64 id = json_integer(node, "id");

                if (g_strcmp0(type, "block-driver") == 0)
                        g_hash_table_insert(names, g_memdup2(&id, sizeof(id)), graph_node(graph, name));
                else if (g_strcmp0(type, "block-job") == 0)
                        g_hash_table_insert(jobs, g_memdup2(&id, sizeof(id)), (gpointer) keep(graph, name));
        }
        for (guint i = 0; edges && i < json_array_get_length(edges); i++) {
                JsonObject *object = json_element(edges, i);
                gint64 parent_id = json_integer(object, "parent"), child_id = json_integer(object, "child");
                GraphNode *parent = g_hash_table_lookup(names, &parent_id);
                const char *job = g_hash_table_lookup(jobs, &parent_id);
                GraphEdge edge = { keep(graph, json_string(object, "name")),
                                   g_hash_table_lookup(names, &child_id) };

                if (!edge.child)
                        continue;
                edge.child->parents++;
                if (job) {
                        GraphJobEdge job_edge = { job, edge };

                        edge.child->job = job;
                        g_array_append_val(graph->job_edges, job_edge);
                }
                if (parent)
                        g_array_append_val(parent->edges, edge);
        }
}

/* Everything that walks the graph relies on coming to an end. Takes away nodes without parents until none
 * are left; what is left over goes round in circles. */
static gboolean has_cycle(const Graph *graph)
{
        g_autoptr(GHashTable) parents = g_hash_table_new(NULL, NULL);
        g_autoptr(GPtrArray) free_nodes = g_ptr_array_new();
        GHashTableIter iterator;
        gpointer value;
        guint taken = 0;

        g_hash_table_iter_init(&iterator, graph->nodes);
        while (g_hash_table_iter_next(&iterator, NULL, &value)) {
                const GraphNode *node = value;

                for (guint i = 0; i < node->edges->len; i++) {
                        gpointer child = g_array_index(node->edges, GraphEdge, i).child;
                        guint count = GPOINTER_TO_UINT(g_hash_table_lookup(parents, child));
                        g_hash_table_insert(parents, child, GUINT_TO_POINTER(count + 1));
                }
        }
        g_hash_table_iter_init(&iterator, graph->nodes);
        while (g_hash_table_iter_next(&iterator, NULL, &value))
                if (!g_hash_table_contains(parents, value))
                        g_ptr_array_add(free_nodes, value);
        for (; taken < free_nodes->len; taken++) {
                const GraphNode *node = free_nodes->pdata[taken];

                for (guint i = 0; i < node->edges->len; i++) {
                        gpointer child = g_array_index(node->edges, GraphEdge, i).child;
                        guint count = GPOINTER_TO_UINT(g_hash_table_lookup(parents, child));

                        g_hash_table_insert(parents, child, GUINT_TO_POINTER(count - 1));
                        if (count == 1)
                                g_ptr_array_add(free_nodes, child);
                }
        }
        return taken < g_hash_table_size(graph->nodes);
}

/* The device's part of a QOM path: "/machine/peripheral/ID/virtio-backend" is ID's. A device without an id
 * has a name that QEMU made up, "device[0]". */
static const char *device_of_path(Graph *graph, const char *path, const char *prefix)
{
        const char *device = path + strlen(prefix);

        if (!g_str_has_prefix(path, prefix))
                return NULL;
        return g_string_chunk_insert_len(graph->strings, device, strchrnul(device, '/') - device);
}

static gboolean is_target(const Graph *graph, const char *target)
{
        for (guint i = 0; i < graph->roots->len; i++)
                if (strcmp(((GraphRoot *) graph->roots->pdata[i])->target, target) == 0)
                        return TRUE;
        return FALSE;
}

/* The qdev id, else the BlockBackend's name, else what is left to tell devices apart. */
static const char *choose_target(Graph *graph, const char *qdev, const char *backend)
{
        const char *target = NULL;

        if (qdev && *qdev)
                target = *qdev == '/' ? device_of_path(graph, qdev, "/machine/peripheral/")
                                      : keep(graph, qdev);
        if (!target && backend && *backend)
                target = keep(graph, backend);
        if (!target && qdev)
                target = device_of_path(graph, qdev, "/machine/peripheral-anon/");
        if (!target && qdev)
                target = device_of_path(graph, qdev, "/machine/unattached/");
        if (!target && qdev)
                target = keep(graph, qdev);
        /* One device's id may be another one's BlockBackend. */
        for (guint n = 2; target && is_target(graph, target); n++) {
                g_autofree char *numbered = g_strdup_printf("%s-%u", target, n);
                if (!is_target(graph, numbered))
                        target = keep(graph, numbered);
        }
        return target;
}

/* Some devices give their QOM path, some only the id that it ends in. */
static const char *identify(Graph *graph, const char *qdev, const char *backend)
{
        g_autofree char *path =
                qdev && *qdev && *qdev != '/' ? g_strconcat("/machine/peripheral/", qdev, NULL) : NULL;

        return keep(graph, path ? path : qdev && *qdev ? qdev : backend);
}

static gboolean has_id(JsonObject *device)
{
        const char *qdev = json_string(device, "qdev");

        return qdev && *qdev && (*qdev != '/' || g_str_has_prefix(qdev, "/machine/peripheral/"));
}

static void read_root(Graph *graph, JsonObject *object)
{
        const char *qdev = json_string(object, "qdev"), *backend = json_string(object, "device");
        const char *node = json_string(json_object(object, "inserted"), "node-name");
        const char *target = choose_target(graph, qdev, backend);
        GraphRoot *root;

        if (!target)
                return;
        root = g_new0(GraphRoot, 1);
        root->target = target;
        root->device = identify(graph, qdev, backend);
        root->node = graph_node(graph, node);
        g_ptr_array_add(graph->roots, root);
}

static Graph *graph_new_empty(void)
{
        Graph *graph = g_new0(Graph, 1);

        graph->strings = g_string_chunk_new(1024);
        graph->nodes = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, node_free);
        graph->roots = g_ptr_array_new_with_free_func(g_free);
        graph->job_edges = g_array_new(FALSE, FALSE, sizeof(GraphJobEdge));
        return graph;
}

/* Those of which nothing is known but how they stand. */
static void name_filters(Graph *graph)
{
        GHashTableIter iterator;
        gpointer value;

        g_hash_table_iter_init(&iterator, graph->nodes);
        while (g_hash_table_iter_next(&iterator, NULL, &value)) {
                GraphNode *node = value;

                if (!*node->driver)
                        node->driver =
                                keep(graph, graph_child(node, "backing") ? "mirror_top" : "copy-on-read");
        }
}

/* With the nodes there, reads how they stand to each other and what stands on them. */
static gboolean read_structure(Graph *graph, JsonNode *block, JsonNode *block_graph, GError **error)
{
        JsonArray *devices = block && JSON_NODE_HOLDS_ARRAY(block) ? json_node_get_array(block) : NULL;

        if (!devices || !JSON_NODE_HOLDS_OBJECT(block_graph)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_QEMU,
                            "QEMU described its block graph in an unknown form");
                return FALSE;
        }
        read_edges(graph, json_node_get_object(block_graph));
        name_filters(graph);
        if (has_cycle(graph)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_QEMU,
                            "the block graph that QEMU describes is a circle");
                return FALSE;
        }
        /* An id that the user gave goes before a name that is merely at hand. */
        for (int with_id = 1; with_id >= 0; with_id--)
                for (guint i = 0; i < json_array_get_length(devices); i++)
                        if (has_id(json_element(devices, i)) == with_id)
                                read_root(graph, json_element(devices, i));
        return TRUE;
}

Graph *graph_new(JsonNode *block, JsonNode *named_nodes, JsonNode *block_graph, GHashTable *paths,
                 GError **error)
{
        g_autoptr(Graph) graph = graph_new_empty();
        JsonArray *nodes = JSON_NODE_HOLDS_ARRAY(named_nodes) ? json_node_get_array(named_nodes) : NULL;

        for (guint i = 0; nodes && i < json_array_get_length(nodes); i++)
                read_node(graph, json_element(nodes, i), paths);
        return read_structure(graph, nodes ? block : NULL, block_graph, error) ? g_steal_pointer(&graph)
                                                                               : NULL;
}

static void copy_node(Graph *graph, const GraphNode *old)
{
        GraphNode *node = g_memdup2(old, sizeof(*old));
        const char **texts[] = { &node->name,           &node->driver,       &node->file,
                                 &node->path,           &node->backing,      &node->full_backing,
                                 &node->backing_format, &node->detect_zeroes };

        for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
                *texts[i] = keep(graph, *texts[i]);
        node->edges = g_array_new(FALSE, FALSE, sizeof(GraphEdge));
        node->job = NULL;
        node->parents = 0;
        g_hash_table_replace(graph->nodes, (gpointer) node->name, node);
}

static void add_filter(Graph *graph, const char *name)
{
        const GraphNode filter = { .name = name };

        if (name && !graph_node(graph, name))
                copy_node(graph, &filter);
}

Graph *graph_renew(const Graph *old, JsonNode *block, JsonNode *block_graph, const char *stream,
                   GError **error)
{
        g_autoptr(Graph) graph = graph_new_empty();
        JsonArray *nodes = JSON_NODE_HOLDS_OBJECT(block_graph)
                                   ? json_array(json_node_get_object(block_graph), "nodes")
                                   : NULL;
        GHashTableIter iterator;
        gpointer node;

        g_hash_table_iter_init(&iterator, old->nodes);
        while (g_hash_table_iter_next(&iterator, NULL, &node))
                copy_node(graph, node);
        for (guint i = 0; nodes && i < json_array_get_length(nodes); i++)
                if (g_strcmp0(json_string(json_element(nodes, i), "type"), "block-driver") == 0)
                        add_filter(graph, json_string(json_element(nodes, i), "name"));
        graph->stream = keep(graph, stream);
        return read_structure(graph, block, block_graph, error) ? g_steal_pointer(&graph) : NULL;
}

static void add_device(JsonArray *devices, const char *name, const char *node)
{
        json_array_add_object_element(devices, json_make("s:device", name, "o:inserted",
                                                         json_make("s:node-name", node, NULL), NULL));
}

JsonNode *graph_devices_of_exports(JsonNode *exports, const char *target)
{
        JsonArray *array = JSON_NODE_HOLDS_ARRAY(exports) ? json_node_get_array(exports) : NULL;
        JsonArray *devices = json_array_new();
        g_autofree char *first = g_strdup_printf("%s-0", target);
        JsonNode *node = json_node_new(JSON_NODE_ARRAY);

        for (guint i = 0; array && i < json_array_get_length(array); i++)
                if (g_strcmp0(json_string(json_element(array, i), "id"), GRAPH_MAP_EXPORT) != 0)
                        add_device(devices, json_string(json_element(array, i), "id"),
                                   json_string(json_element(array, i), "node-name"));
        if (json_array_get_length(devices) == 0)
                add_device(devices, target, first);
        json_node_take_array(node, devices);
        return node;
}

void graph_free(Graph *graph)
{
        if (!graph)
                return;
        g_clear_pointer(&graph->roots, g_ptr_array_unref);
        g_clear_pointer(&graph->job_edges, g_array_unref);
        g_clear_pointer(&graph->nodes, g_hash_table_unref);
        g_clear_pointer(&graph->strings, g_string_chunk_free);
        g_free(graph);
}

GraphNode *graph_node(const Graph *graph, const char *name)
{
        return name ? g_hash_table_lookup(graph->nodes, name) : NULL;
}

const GraphRoot *graph_root(const Graph *graph, const char *device)
{
        for (guint i = 0; i < graph->roots->len; i++) {
                GraphRoot *root = graph->roots->pdata[i];
                if (strcmp(root->device, device) == 0)
                        return root;
        }
        return NULL;
}

GraphNode *graph_child(const GraphNode *node, const char *name)
{
        for (guint i = 0; i < node->edges->len; i++) {
                GraphEdge *edge = &g_array_index(node->edges, GraphEdge, i);
                if (strcmp(edge->name, name) == 0)
                        return edge->child;
        }
        return NULL;
}

GraphNode *graph_job_node(const Graph *graph, const char *id, const char *name)
{
        for (guint i = 0; i < graph->job_edges->len; i++) {
                const GraphJobEdge *edge = &g_array_index(graph->job_edges, GraphJobEdge, i);
                if (strcmp(edge->job, id) == 0 && strcmp(edge->edge.name, name) == 0)
                        return edge->edge.child;
        }
        return NULL;
}

gboolean graph_is_filter(const GraphNode *node)
{
        return filter_edge(node) != NULL;
}

GraphNode *graph_filtered(const GraphNode *node)
{
        return graph_child(node, filter_edge(node));
}

GraphNode *graph_skip_filters(GraphNode *node)
{
        while (node && graph_is_filter(node))
                node = graph_filtered(node);
        return node;
}

const char *graph_source(const GraphNode *node)
{
        const GraphNode *file;

        while ((file = graph_is_filter(node) ? graph_filtered(node) : graph_child(node, "file")))
                node = file;
        return node->path;
}
