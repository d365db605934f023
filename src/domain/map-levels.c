/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/map.h"

#include <string.h>

static GraphNode *below(const GraphNode *node)
{
        return graph_is_filter(node) ? graph_filtered(node) : graph_child(node, "backing");
}

char *map_list_nodes(const Domain *domain, const Disk *disk)
{
        const GraphRoot *root = graph_root(domain->host.graph, disk->device);
        GString *text = g_string_new(NULL);

        for (const GraphNode *node = root ? root->node : NULL; node; node = below(node))
                g_string_append_printf(text, "%s ", node->name);
        return g_string_free(text, FALSE);
}

static guint32 depth_of(const Chain *chain, GraphNode *node)
{
        const GraphNode *layer = graph_skip_filters(node);
        guint32 depth = 0;

        /* What a filter passes through, QEMU says to be the filter's. */
        while (layer && depth < chain->layers->len &&
               strcmp(chain_layer(chain, depth)->node, layer->name) != 0)
                depth++;
        return depth;
}

GArray *map_levels(const Domain *domain, const Disk *disk)
{
        GArray *levels = g_array_new(FALSE, FALSE, sizeof(guint32));
        GraphNode *node = graph_node(domain->host.graph, chain_layer(disk->chain, 0)->node);

        for (; node; node = below(node)) {
                guint32 depth = depth_of(disk->chain, node);

                g_array_append_val(levels, depth);
        }
        return levels;
}

GArray *map_depths(const GArray *ranges, const GArray *levels)
{
        g_autoptr(GArray) found = g_array_new(FALSE, FALSE, sizeof(MapRange));

        for (guint i = 0; i < ranges->len; i++) {
                MapRange range = g_array_index(ranges, MapRange, i);

                if (range.depth > levels->len)
                        return NULL;
                range.depth = range.depth ? g_array_index(levels, guint32, range.depth - 1) : MAP_NOWHERE;
                map_add(found, &range);
        }
        return g_steal_pointer(&found);
}
