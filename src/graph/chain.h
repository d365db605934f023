/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "graph/graph.h"

#define CHAIN_DEPTH_MAX 256

/* One image of a disk. */
typedef struct {
        char *node;   /* node name of the format node */
        char *source; /* file name, or what QEMU names the image by */
        char *format; /* driver; "raw" for a bare protocol node */
        char *backing;
        guint64 virtual_size, allocated; /* bytes */
        gboolean read_only;
} Layer;

/* What a disk is made of, from the active layer down. Without a medium there are no layers. */
typedef struct {
        char *root;     /* node name of the uppermost node, "" = no medium */
        char **filters; /* drivers above the active layer, top first */
        GPtrArray *layers;
} Chain;

/* Fails with LimitExceeded beyond CHAIN_DEPTH_MAX. Filters that jobs put there for a while are left out. */
Chain *chain_new(const GraphRoot *root, GError **error);
Chain *chain_copy_below(const Chain *chain, guint depth);
void chain_free(Chain *chain);
gboolean chain_equal(const Chain *a, const Chain *b);
/* The same nodes in the same order, whatever is in them. */
gboolean chain_same_nodes(const Chain *a, const Chain *b);
/* The same files in the same order. */
gboolean chain_same_images(const Chain *a, const Chain *b);
/* What a chain becomes when the layer that is named `below` comes to its top, "" = none of its layers stays;
 * and where `source` is not NULL, a new layer above that. NULL where there is no such layer. */
Chain *chain_pivoted(const Chain *chain, const char *below, const char *source, const char *format);

/* Of images that no QEMU has open; `layer`, which is copied, comes under those that are there. */
Chain *chain_new_closed(void);
void chain_add(Chain *chain, const Layer *layer);

const Layer *chain_layer(const Chain *chain, guint depth);

/* What a record keeps of a chain, and back. */
JsonArray *chain_to_json(const Chain *chain);
Chain *chain_from_json(JsonArray *array);

/* "vda[1] = /images/base.qcow2, …", for messages. */
char *chain_describe(const Chain *chain, const char *target);

/* Depth of the image that `name` means: "[2]", "vda[2]", an absolute path, "node:NAME". A path is compared
 * as text and by device and inode, which may block on network storage, hence in a thread. Errors:
 * InvalidArgument, NoSuchImage, Ambiguous. */
void chain_find_async(const Chain *chain, const char *target, const char *name, GAsyncReadyCallback done,
                      gpointer data);
int chain_find_finish(GAsyncResult *result, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Chain, chain_free)
