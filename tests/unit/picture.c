/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "picture.h"

#include <string.h>

const Picture three_layers = {
        .nodes = {
                { "top", "qcow2", "/images/top.qcow2", "mid.qcow2", 67108864, 200704, FALSE },
                { "top-file", "file", "/images/top.qcow2", NULL, 197120, 200704, FALSE },
                { "#block112", "qcow2", "/images/mid.qcow2", "base.qcow2", 67108864, 393216, TRUE },
                { "#block010", "file", "/images/mid.qcow2", NULL, 393216, 393216, TRUE },
                { "#block381", "qcow2", "/images/base.qcow2", NULL, 33554432, 1048576, TRUE },
                { "#block243", "file", "/images/base.qcow2", NULL, 1048576, 1048576, TRUE },
        },
        .edges = {
                { "#block381", "file", "#block243" },
                { "#block112", "file", "#block010" },
                { "#block112", "backing", "#block381" },
                { "top", "file", "top-file" },
                { "top", "backing", "#block112" },
                { "device:/machine/peripheral/vda/virtio-backend", "root", "top" },
        },
        .devices = { { "/machine/peripheral/vda/virtio-backend", "", "top" } },
};

JsonNode *parse_json(const char *text)
{
        g_autoptr(GError) error = NULL;
        JsonNode *node = json_from_string(text, &error);

        g_assert_no_error(error);
        g_assert_nonnull(node);
        return node;
}

static char *quote(const char *text)
{
        g_autofree char *escaped = g_strescape(text, NULL);

        return g_strdup_printf("\"%s\"", escaped);
}

static const char *separator(const GString *text)
{
        return g_str_has_suffix(text->str, "[") ? "" : ", ";
}

/* What query-block has under "inserted" and query-named-block-nodes for each node. */
static char *describe_node(const PictureNode *node)
{
        g_autofree char *file = quote(node->file ? node->file : "");
        g_autofree char *backing =
                node->backing ? g_strdup_printf(
                                        "\"backing-filename-format\": \"qcow2\", \"full-backing-filename\": "
                                        "\"/images/%s\", \"backing-filename\": \"%s\", ",
                                        node->backing, node->backing)
                              : g_strdup("");

        return g_strdup_printf(
                "{\"iops_rd\": 0, \"detect_zeroes\": \"off\", \"image\": {%s\"virtual-size\": "
                "%" G_GINT64_FORMAT ", \"filename\": %s, \"cluster-size\": 65536, \"format\": \"%s\", "
                "\"actual-size\": %" G_GINT64_FORMAT ", \"dirty-flag\": false}, \"iops_wr\": 0, \"ro\": %s, "
                "\"node-name\": \"%s\", \"backing_file_depth\": 0, \"drv\": \"%s\", \"iops\": 0, "
                "\"write_threshold\": 0, \"encrypted\": false, \"cache\": {\"no-flush\": false, "
                "\"direct\": true, \"writeback\": true}, \"file\": %s}",
                backing, node->virtual_size, file, node->driver, node->allocated,
                node->read_only ? "true" : "false", node->name, node->driver, file);
}

static const PictureNode *find_node(const Picture *picture, const char *name)
{
        for (const PictureNode *node = picture->nodes; node->name; node++)
                if (strcmp(node->name, name) == 0)
                        return node;
        g_error("the picture has no node '%s'", name);
}

static JsonNode *describe_devices(const Picture *picture)
{
        g_autoptr(GString) text = g_string_new("[");

        for (const PictureDevice *device = picture->devices; device->qdev; device++) {
                g_autofree char *inserted =
                        device->node ? describe_node(find_node(picture, device->node)) : NULL;
                g_autofree char *qdev =
                        *device->qdev ? g_strdup_printf("\"qdev\": \"%s\", ", device->qdev) : g_strdup("");

                g_string_append_printf(text,
                                       "%s{\"io-status\": \"ok\", \"device\": \"%s\", \"locked\": false, "
                                       "\"removable\": %s, %s%s%s%s\"type\": \"unknown\"}",
                                       separator(text), device->backend ? device->backend : "",
                                       device->node ? "false" : "true, \"tray_open\": false",
                                       inserted ? "\"inserted\": " : "", inserted ? inserted : "",
                                       inserted ? ", " : "", qdev);
        }
        g_string_append_c(text, ']');
        return parse_json(text->str);
}

static JsonNode *describe_nodes(const Picture *picture)
{
        g_autoptr(GString) text = g_string_new("[");

        for (const PictureNode *node = picture->nodes; node->name; node++) {
                g_autofree char *described = describe_node(node);
                g_string_append_printf(text, "%s%s", separator(text), described);
        }
        g_string_append_c(text, ']');
        return parse_json(text->str);
}

/* Numbers the nodes, and what else is above them, as QEMU does: one row of ids for all. */
static guint id_of(GHashTable *ids, GString *nodes, const char *name)
{
        guint id = GPOINTER_TO_UINT(g_hash_table_lookup(ids, name));
        const char *type = "block-driver";

        if (id)
                return id;
        id = g_hash_table_size(ids) + 1;
        g_hash_table_insert(ids, (gpointer) name, GUINT_TO_POINTER(id));
        if (g_str_has_prefix(name, "device:") || g_str_has_prefix(name, "export:"))
                type = "block-backend";
        else if (g_str_has_prefix(name, "job:"))
                type = "block-job";
        if (strchr(name, ':'))
                name = strchr(name, ':') + 1;
        g_string_append_printf(nodes, "%s{\"name\": \"%s\", \"type\": \"%s\", \"id\": %u}", separator(nodes),
                               name, type, id);
        return id;
}

static JsonNode *describe_graph(const Picture *picture)
{
        g_autoptr(GHashTable) ids = g_hash_table_new(g_str_hash, g_str_equal);
        g_autoptr(GString) nodes = g_string_new("[");
        g_autoptr(GString) edges = g_string_new("[");
        g_autofree char *text = NULL;

        for (const PictureEdge *edge = picture->edges; edge->parent; edge++) {
                guint child = id_of(ids, nodes, edge->child), parent = id_of(ids, nodes, edge->parent);

                g_string_append_printf(
                        edges,
                        "%s{\"name\": \"%s\", \"parent\": %u, \"shared-perm\": [\"write-unchanged\", "
                        "\"consistent-read\"], \"perm\": [\"consistent-read\"], \"child\": %u}",
                        separator(edges), edge->name, parent, child);
        }
        for (const PictureNode *node = picture->nodes; node->name; node++)
                id_of(ids, nodes, node->name);
        text = g_strdup_printf("{\"edges\": %s], \"nodes\": %s]}", edges->str, nodes->str);
        return parse_json(text);
}

Replies *replies_new(const Picture *picture)
{
        Replies *replies = g_new(Replies, 1);

        *replies = (Replies){ describe_devices(picture), describe_nodes(picture), describe_graph(picture) };
        return replies;
}

void replies_free(Replies *replies)
{
        json_node_unref(replies->block);
        json_node_unref(replies->nodes);
        json_node_unref(replies->graph);
        g_free(replies);
}

Graph *picture_read(const Picture *picture)
{
        g_autoptr(Replies) replies = replies_new(picture);
        g_autoptr(GError) error = NULL;
        Graph *graph = graph_new(replies->block, replies->nodes, replies->graph, NULL, &error);

        g_assert_no_error(error);
        g_assert_nonnull(graph);
        return graph;
}
