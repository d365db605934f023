/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "graph/chain.h"

#include <string.h>
#include <sys/stat.h>

#include <gio/gio.h>

#include "base/error.h"
#include "base/json.h"

static void layer_free(gpointer data)
{
        Layer *layer = data;

        g_free(layer->node);
        g_free(layer->source);
        g_free(layer->format);
        g_free(layer->backing);
        g_free(layer);
}

static Layer *layer_new(const char *node, const char *source, const char *format, const char *backing)
{
        Layer *layer = g_new0(Layer, 1);

        layer->node = g_strdup(node);
        layer->source = g_strdup(source);
        layer->format = g_strdup(format);
        layer->backing = g_strdup(backing);
        return layer;
}

static Layer *layer_of_node(const GraphNode *node)
{
        /* A node without a file below it is the protocol itself: its bytes are the disk's. */
        Layer *layer = layer_new(node->name, graph_source(node),
                                 graph_child(node, "file") ? node->driver : "raw", node->backing);

        layer->virtual_size = node->virtual_size;
        layer->allocated = node->allocated;
        layer->read_only = node->read_only;
        return layer;
}

static Layer *layer_copy(const Layer *layer)
{
        Layer *copy = layer_new(layer->node, layer->source, layer->format, layer->backing);

        copy->virtual_size = layer->virtual_size;
        copy->allocated = layer->allocated;
        copy->read_only = layer->read_only;
        return copy;
}

static Chain *chain_new_empty(const char *root)
{
        Chain *chain = g_new0(Chain, 1);

        chain->root = g_strdup(root);
        chain->layers = g_ptr_array_new_with_free_func(layer_free);
        return chain;
}

/* Filters of jobs come and go with the job; what the user put there stays. */
static gboolean is_job_filter(const GraphNode *node)
{
        return g_str_equal(node->driver, "mirror_top") || g_str_equal(node->driver, "commit_top");
}

Chain *chain_new(const GraphRoot *root, GError **error)
{
        g_autoptr(Chain) chain = chain_new_empty("");
        g_autoptr(GPtrArray) filters = g_ptr_array_new();
        GraphNode *node = root->node;

        for (; node && graph_is_filter(node); node = graph_filtered(node)) {
                if (is_job_filter(node))
                        continue;
                if (!*chain->root)
                        g_free(chain->root), chain->root = g_strdup(node->name);
                g_ptr_array_add(filters, (gpointer) node->driver);
        }
        if (node && !*chain->root)
                g_free(chain->root), chain->root = g_strdup(node->name);
        g_ptr_array_add(filters, NULL);
        chain->filters = g_strdupv((char **) filters->pdata);

        for (; node; node = graph_skip_filters(graph_child(node, "backing"))) {
                if (chain->layers->len == CHAIN_DEPTH_MAX) {
                        g_set_error(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED,
                                    "the chain of '%s' has more than %d layers", root->target,
                                    CHAIN_DEPTH_MAX);
                        return NULL;
                }
                g_ptr_array_add(chain->layers, layer_of_node(node));
        }
        return g_steal_pointer(&chain);
}

Chain *chain_copy_below(const Chain *chain, guint depth)
{
        const Layer *top = chain_layer(chain, depth);
        Chain *copy = chain_new_empty(depth == 0 ? chain->root : top ? top->node : "");

        copy->filters = g_strdupv(chain->filters);
        for (guint i = depth; i < chain->layers->len; i++)
                g_ptr_array_add(copy->layers, layer_copy(chain->layers->pdata[i]));
        return copy;
}

void chain_free(Chain *chain)
{
        if (!chain)
                return;
        g_free(chain->root);
        g_strfreev(chain->filters);
        g_ptr_array_unref(chain->layers);
        g_free(chain);
}

static gboolean layer_equal(const Layer *a, const Layer *b)
{
        return strcmp(a->node, b->node) == 0 && strcmp(a->source, b->source) == 0 &&
               strcmp(a->format, b->format) == 0 && strcmp(a->backing, b->backing) == 0 &&
               a->virtual_size == b->virtual_size && a->allocated == b->allocated &&
               a->read_only == b->read_only;
}

gboolean chain_equal(const Chain *a, const Chain *b)
{
        if (a->layers->len != b->layers->len || strcmp(a->root, b->root) != 0 ||
            !g_strv_equal((const char *const *) a->filters, (const char *const *) b->filters))
                return FALSE;
        for (guint i = 0; i < a->layers->len; i++)
                if (!layer_equal(a->layers->pdata[i], b->layers->pdata[i]))
                        return FALSE;
        return TRUE;
}

gboolean chain_same_nodes(const Chain *a, const Chain *b)
{
        if (a->layers->len != b->layers->len || strcmp(a->root, b->root) != 0)
                return FALSE;
        for (guint i = 0; i < a->layers->len; i++)
                if (strcmp(chain_layer(a, i)->node, chain_layer(b, i)->node) != 0)
                        return FALSE;
        return TRUE;
}

gboolean chain_same_images(const Chain *a, const Chain *b)
{
        if (a->layers->len != b->layers->len)
                return FALSE;
        for (guint i = 0; i < a->layers->len; i++)
                if (strcmp(chain_layer(a, i)->source, chain_layer(b, i)->source) != 0 ||
                    strcmp(chain_layer(a, i)->format, chain_layer(b, i)->format) != 0)
                        return FALSE;
        return TRUE;
}

Chain *chain_pivoted(const Chain *chain, const char *below, const char *source, const char *format)
{
        guint depth = *below ? 0 : chain->layers->len;
        Chain *pivoted;
        Layer *layer;

        while (*below && depth < chain->layers->len && strcmp(chain_layer(chain, depth)->source, below) != 0)
                depth++;
        if (*below && depth == chain->layers->len)
                return NULL;
        pivoted = chain_copy_below(chain, depth);
        if (source) {
                layer = layer_new("", source, format, below);
                layer->virtual_size = chain->layers->len ? chain_layer(chain, 0)->virtual_size : 0;
                g_ptr_array_insert(pivoted->layers, 0, layer);
        }
        return pivoted;
}

const Layer *chain_layer(const Chain *chain, guint depth)
{
        return depth < chain->layers->len ? chain->layers->pdata[depth] : NULL;
}

Chain *chain_new_closed(void)
{
        Chain *chain = chain_new_empty("");

        chain->filters = g_new0(char *, 1);
        return chain;
}

void chain_add(Chain *chain, const Layer *layer)
{
        g_ptr_array_add(chain->layers, layer_copy(layer));
}

JsonArray *chain_to_json(const Chain *chain)
{
        JsonArray *array = json_array_new();

        for (guint i = 0; i < chain->layers->len; i++) {
                const Layer *layer = chain->layers->pdata[i];
                json_array_add_object_element(
                        array, json_make("s:node-name", layer->node, "s:source", layer->source, "s:format",
                                         layer->format, "s:backing", layer->backing, "i:virtual-size",
                                         (gint64) layer->virtual_size, "i:allocated",
                                         (gint64) layer->allocated, "b:read-only", layer->read_only, NULL));
        }
        return array;
}

Chain *chain_from_json(JsonArray *array)
{
        Chain *chain = chain_new_closed();

        for (guint i = 0; array && i < json_array_get_length(array); i++) {
                JsonObject *object = json_element(array, i);
                Layer *layer = layer_new(
                        json_string(object, "node-name") ?: "", json_string(object, "source") ?: "",
                        json_string(object, "format") ?: "", json_string(object, "backing") ?: "");

                layer->virtual_size = (guint64) json_integer(object, "virtual-size");
                layer->allocated = (guint64) json_integer(object, "allocated");
                layer->read_only = json_boolean(object, "read-only");
                g_ptr_array_add(chain->layers, layer);
        }
        if (chain->layers->len > 0) {
                g_free(chain->root);
                chain->root = g_strdup(chain_layer(chain, 0)->node);
        }
        return chain;
}

char *chain_describe(const Chain *chain, const char *target)
{
        GString *text = g_string_new(NULL);

        for (guint i = 0; i < chain->layers->len; i++) {
                const Layer *layer = chain->layers->pdata[i];
                g_string_append_printf(text, "%s%s[%u] = %s", i ? ", " : "", target, i, layer->source);
        }
        if (text->len == 0)
                g_string_append(text, "no medium");
        return g_string_free(text, FALSE);
}

typedef struct {
        Chain *chain; /* a copy: the disk's own may change meanwhile */
        char *target, *name;
} Search;

static void search_free(gpointer data)
{
        Search *search = data;

        chain_free(search->chain);
        g_free(search->target);
        g_free(search->name);
        g_free(search);
}

static gboolean same_file(const struct stat *wanted, const char *path)
{
        struct stat st;

        return *path == '/' && stat(path, &st) == 0 && st.st_dev == wanted->st_dev &&
               st.st_ino == wanted->st_ino;
}

/* "[2]" or "TARGET[2]"; another target than this disk's is nobody here. */
static gboolean parse_depth(const Search *search, guint64 *ret_depth)
{
        const char *bracket = strrchr(search->name, '['), *close = strrchr(search->name, ']');
        gsize prefix = bracket ? (gsize) (bracket - search->name) : 0;
        g_autofree char *digits = NULL;

        if (!bracket || !close || close[1] || close <= bracket + 1)
                return FALSE;
        if (prefix && (strlen(search->target) != prefix || strncmp(search->name, search->target, prefix)))
                return FALSE;
        digits = g_strndup(bracket + 1, (gsize) (close - bracket - 1));
        if (strspn(digits, G_CSET_DIGITS) != strlen(digits))
                return FALSE;
        *ret_depth = g_ascii_strtoull(digits, NULL, 10);
        return TRUE;
}

static void find_thread(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
        const Search *search = data;
        const char *node = g_str_has_prefix(search->name, "node:") ? search->name + strlen("node:") : NULL;
        gboolean by_path = search->name[0] == '/';
        struct stat wanted;
        gboolean exists = by_path && stat(search->name, &wanted) == 0;
        guint64 depth = 0;
        int found = -1;

        (void) source;
        (void) cancellable;
        if (!node && !by_path && !parse_depth(search, &depth)) {
                g_task_return_new_error(task, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                                        "'%s' names no image of '%s': give [DEPTH], %s[DEPTH], an absolute "
                                        "path or node:NAME",
                                        search->name, search->target, search->target);
                return;
        }
        for (guint i = 0; i < search->chain->layers->len; i++) {
                const Layer *layer = chain_layer(search->chain, i);
                gboolean matches = node      ? strcmp(layer->node, node) == 0
                                   : by_path ? strcmp(layer->source, search->name) == 0 ||
                                                       (exists && same_file(&wanted, layer->source))
                                             : i == depth;

                if (!matches)
                        continue;
                if (found >= 0) {
                        g_task_return_new_error(
                                task, BJ_ERROR, BJ_ERROR_AMBIGUOUS,
                                "'%s' is both %s[%d] and %s[%u]: name one of them by its depth",
                                search->name, search->target, found, search->target, i);
                        return;
                }
                found = (int) i;
        }
        if (found < 0) {
                g_autofree char *chain = chain_describe(search->chain, search->target);
                g_task_return_new_error(task, BJ_ERROR, BJ_ERROR_NO_SUCH_IMAGE,
                                        "'%s' is no image of '%s', whose chain is %s", search->name,
                                        search->target, chain);
                return;
        }
        g_task_return_int(task, found);
}

void chain_find_async(const Chain *chain, const char *target, const char *name, GAsyncReadyCallback done,
                      gpointer data)
{
        g_autoptr(GTask) task = g_task_new(NULL, NULL, done, data);
        Search *search = g_new0(Search, 1);

        *search = (Search){ chain_copy_below(chain, 0), g_strdup(target), g_strdup(name) };
        g_task_set_task_data(task, search, search_free);
        g_task_run_in_thread(task, find_thread);
}

int chain_find_finish(GAsyncResult *result, GError **error)
{
        return (int) g_task_propagate_int(G_TASK(result), error);
}
