/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/index-table.h"

#include <string.h>

/* The key, which is all there is. */
typedef struct {
        const IndexedImage *image;
        const ImageParent *parent;
} Use;

static int compare(guint64 a, guint64 b)
{
        return a < b ? -1 : a > b;
}

/* Directories may be in one another: then there is one image twice, with the same path. */
static int compare_rest(const Use *a, const Use *b)
{
        int order = strcmp(a->image->path, b->image->path);

        return order ?: compare((guintptr) a->parent, (guintptr) b->parent);
}

static int compare_files(gconstpointer first, gconstpointer second, gpointer data)
{
        const Use *a = first, *b = second;

        (void) data;
        return compare(a->parent->device, b->parent->device)
                       ?: compare(a->parent->inode, b->parent->inode) ?: compare_rest(a, b);
}

static int compare_names(gconstpointer first, gconstpointer second, gpointer data)
{
        const Use *a = first, *b = second;

        (void) data;
        return strcmp(a->parent->source, b->parent->source) ?: compare_rest(a, b);
}

void use_table_init(UseTable *table)
{
        table->by_file = g_tree_new_full(compare_files, NULL, g_free, NULL);
        table->by_name = g_tree_new_full(compare_names, NULL, g_free, NULL);
}

void use_table_clear(UseTable *table)
{
        g_tree_unref(table->by_file);
        g_tree_unref(table->by_name);
}

static gboolean is_file(const ImageParent *parent)
{
        return parent->device || parent->inode;
}

void use_table_add(UseTable *table, IndexedImage *image)
{
        for (guint i = 0; i < image->n_parents; i++) {
                const Use use = { image, &image->parents[i] };

                g_tree_insert(table->by_name, g_memdup2(&use, sizeof(use)), NULL);
                if (is_file(use.parent))
                        g_tree_insert(table->by_file, g_memdup2(&use, sizeof(use)), NULL);
        }
}

void use_table_remove(UseTable *table, const IndexedImage *image)
{
        for (guint i = 0; i < image->n_parents; i++) {
                const Use use = { image, &image->parents[i] };

                g_tree_remove(table->by_name, &use);
                if (is_file(use.parent))
                        g_tree_remove(table->by_file, &use);
        }
}

/* ---- who uses it ---- */

typedef struct {
        GPtrArray *users;
        GHashTable *seen; /* path */
        guint depth;
} Search;

static void user_free(gpointer data)
{
        ImageUser *user = data;

        g_free(user->path);
        g_free(user);
}

static int compare_users(gconstpointer first, gconstpointer second)
{
        const ImageUser *a = *(ImageUser *const *) first, *b = *(ImageUser *const *) second;

        return compare(a->depth, b->depth) ?: strcmp(a->path, b->path);
}

static void add_user(Search *search, const Use *use)
{
        ImageUser *user;

        if (g_hash_table_contains(search->seen, use->image->path))
                return;
        user = g_new(ImageUser, 1);
        *user = (ImageUser){
                .path = g_strdup(use->image->path),
                .device = use->image->device,
                .inode = use->image->inode,
                .depth = search->depth,
                .part = use->parent->part,
        };
        g_hash_table_add(search->seen, user->path);
        g_ptr_array_add(search->users, user);
}

static void find_direct(Search *search, const UseTable *table, const ImageId *id)
{
        const IndexedImage first = { .path = (char *) "" };
        const ImageParent parent = { .source = (char *) id->source,
                                     .device = id->device,
                                     .inode = id->inode };
        const Use key = { &first, &parent };
        GTreeNode *node;

        for (node = is_file(&parent) ? g_tree_lower_bound(table->by_file, &key) : NULL; node;
             node = g_tree_node_next(node)) {
                const Use *use = g_tree_node_key(node);

                if (use->parent->device != id->device || use->parent->inode != id->inode)
                        break;
                add_user(search, use);
        }
        for (node = id->source ? g_tree_lower_bound(table->by_name, &key) : NULL; node;
             node = g_tree_node_next(node)) {
                const Use *use = g_tree_node_key(node);

                if (strcmp(use->parent->source, id->source) != 0)
                        break;
                add_user(search, use);
        }
}

GPtrArray *use_table_find(const UseTable *table, const ImageId *image, gboolean all)
{
        g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
        Search search = { .users = g_ptr_array_new_with_free_func(user_free), .seen = seen, .depth = 1 };

        find_direct(&search, table, image);
        for (guint i = 0; all && i < search.users->len; i++) {
                const ImageUser *user = search.users->pdata[i];

                search.depth = user->depth + 1;
                if (search.depth > IMAGE_INDEX_DEPTH_MAX)
                        break;
                find_direct(&search, table, &(ImageId){ user->device, user->inode, user->path });
        }
        g_ptr_array_sort(search.users, compare_users);
        return search.users;
}
