/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

/* The block graph of one QEMU as it said at one moment: nodes, edges and the devices on top. Never changed
 * after it was read; look again instead. */

/* An export that serves to see where data lies, and stands for no device. */
#define GRAPH_MAP_EXPORT "bj-map"

typedef struct GraphNode GraphNode;

typedef struct {
        const char *name; /* "file", "backing", "target", … */
        GraphNode *child;
} GraphEdge;

typedef struct {
        const char *job; /* QEMU's id */
        GraphEdge edge;
} GraphJobEdge;

struct GraphNode {
        const char *name, *driver;
        const char *file;           /* what QEMU calls the node's file name; may be a "json:" text */
        const char *path;           /* the same, but the file's own name where QEMU got a descriptor */
        const char *backing;        /* the string in the image's header, "" = none */
        const char *full_backing;   /* what it leads to, by QEMU's rules */
        const char *backing_format; /* also in the header, "" = none */
        gboolean read_only, no_flush, direct;
        const char *detect_zeroes;
        gboolean encrypted;
        guint64 virtual_size, allocated; /* bytes */
        guint64 cluster_size;            /* bytes, 0 = it has none */
        gboolean extended_l2;            /* of a qcow2 image */
        GArray *edges;                   /* GraphEdge */
        const char *job;                 /* QEMU's id of a job that works on it, NULL = none */
        guint parents;                   /* nodes, jobs, devices and exports above */
};

typedef struct {
        const char *device; /* QOM path, else the BlockBackend's name: what identifies it */
        const char *target; /* the qdev id, else the BlockBackend's name; no two are alike */
        GraphNode *node;    /* NULL: no medium */
} GraphRoot;

typedef struct {
        GStringChunk *strings;
        GHashTable *nodes;  /* name → GraphNode */
        GPtrArray *roots;   /* GraphRoot, those with an id first */
        GArray *job_edges;  /* GraphJobEdge */
        const char *stream; /* made by graph_renew() because of this job; NULL = by graph_new() */
} Graph;

/* From the replies of query-block, query-named-block-nodes (flat) and x-debug-query-block-graph. `paths` are
 * the names of files of which QEMU knows only a descriptor, "/dev/fdset/N" → path; NULL = none. */
Graph *graph_new(JsonNode *block, JsonNode *named_nodes, JsonNode *block_graph, GHashTable *paths,
                 GError **error);
/* The same without query-named-block-nodes, where asking that is dangerous because of QEMU's job `stream`:
 * what is said of the nodes comes from `old`, how they stand to each other is new. A node that is not in
 * `old` is taken for a filter: of a job where it stands on a "backing" edge. */
Graph *graph_renew(const Graph *old, JsonNode *block, JsonNode *block_graph, const char *stream,
                   GError **error);
/* What query-block would say where the exports of query-block-exports were devices; `target`: those of maps
 * are left out; without an export its node "TARGET-0" is the device, for nothing moves it. */
JsonNode *graph_devices_of_exports(JsonNode *exports, const char *target);
void graph_free(Graph *graph);

GraphNode *graph_node(const Graph *graph, const char *name);
const GraphRoot *graph_root(const Graph *graph, const char *device);

GraphNode *graph_child(const GraphNode *node, const char *edge);
/* What QEMU's job `id` holds under the name `edge`: "main node", "target", …; NULL = nothing. */
GraphNode *graph_job_node(const Graph *graph, const char *id, const char *edge);

/* A filter passes data through; `graph_filtered` is what it stands on. */
gboolean graph_is_filter(const GraphNode *node);
GraphNode *graph_filtered(const GraphNode *node);

/* The first node at or below `node` that is no filter. */
GraphNode *graph_skip_filters(GraphNode *node);

/* File name of the image that `node` stores its data in: the protocol node's, found through "file" edges. */
const char *graph_source(const GraphNode *node);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Graph, graph_free)
