/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "graph/graph.h"

/* A block graph as a test draws it, and the three replies that a QEMU 7.2 with this graph gives. All arrays
 * end where an element has no first member. */
typedef struct {
        const char *name, *driver, *file, *backing;
        gint64 virtual_size, allocated;
        gboolean read_only;
} PictureNode;

typedef struct {
        const char *parent; /* of a node, or "device:…", "job:…", "export:…" */
        const char *name, *child;
} PictureEdge;

typedef struct {
        const char *qdev;    /* "" = none */
        const char *backend; /* name of the BlockBackend, NULL = "" */
        const char *node;    /* NULL: a drive without a medium */
} PictureDevice;

typedef struct {
        PictureNode nodes[12];
        PictureEdge edges[16];
        PictureDevice devices[8];
} Picture;

typedef struct {
        JsonNode *block, *nodes, *graph;
} Replies;

Replies *replies_new(const Picture *picture);
void replies_free(Replies *replies);

/* Through graph_new(), which must not fail. */
Graph *picture_read(const Picture *picture);

JsonNode *parse_json(const char *text);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Replies, replies_free)

/* A disk of three images, with file nodes of their own: vda → top → mid → base. */
extern const Picture three_layers;
