/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/index.h"

#include <string.h>

#include "image/index-private.h"

typedef struct {
        ImageIndex *index;
        guint64 generation;
        guint timer;
        ImageIndexDone done;
        gpointer data;
} Refresh;

/* ---- the index and its threads ---- */

static void directory_free(gpointer data)
{
        ImageDirectory *directory = data;

        watch_free(directory->watch);
        g_hash_table_unref(directory->files);
        g_hash_table_unref(directory->troubles);
        g_free(directory->path);
        g_free(directory);
}

ImageIndex *image_index_ref(ImageIndex *index)
{
        g_atomic_int_inc(&index->references);
        return index;
}

void image_index_unref(ImageIndex *index)
{
        if (!g_atomic_int_dec_and_test(&index->references))
                return;
        use_table_clear(&index->uses);
        g_ptr_array_unref(index->directories);
        g_mutex_clear(&index->lock);
        g_cond_clear(&index->news);
        g_free(index);
}

static void start_thread(ImageDirectory *directory, GThreadFunc function)
{
        g_autoptr(GError) error = NULL;
        GThread *thread;

        image_index_ref(directory->index);
        thread = g_thread_try_new("image-index", function, directory, &error);
        if (thread) {
                g_thread_unref(thread);
                return;
        }
        image_index_unref(directory->index);
        g_mutex_lock(&directory->index->lock);
        g_hash_table_insert(directory->troubles, g_strdup(directory->path),
                            g_strdup_printf("nobody looks at it: %s", error->message));
        g_mutex_unlock(&directory->index->lock);
}

/* Whether it is there already. */
static gboolean has_directory(const ImageIndex *index, const char *path)
{
        for (guint i = 0; i < index->directories->len; i++)
                if (strcmp(((ImageDirectory *) index->directories->pdata[i])->path, path) == 0)
                        return TRUE;
        return FALSE;
}

static void add_directory(ImageIndex *index, const char *name)
{
        g_autofree char *path = g_strdup(name);
        ImageDirectory *directory;

        for (gsize length = strlen(path); length > 1 && path[length - 1] == '/'; length--)
                path[length - 1] = '\0';
        if (has_directory(index, path))
                return;
        directory = g_new0(ImageDirectory, 1);
        directory->index = index;
        directory->path = g_steal_pointer(&path);
        directory->watch = watch_new();
        directory->files =
                g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify) indexed_image_unref);
        directory->troubles = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
        g_ptr_array_add(index->directories, directory);
}

ImageIndex *image_index_new(const char *const *directories, ImageIndexChanged changed, gpointer data)
{
        ImageIndex *index = g_new0(ImageIndex, 1);

        index->references = 1;
        index->changed = changed;
        index->data = data;
        index->generation = 1;
        index->directories = g_ptr_array_new_with_free_func(directory_free);
        g_mutex_init(&index->lock);
        g_cond_init(&index->news);
        use_table_init(&index->uses);
        for (guint i = 0; directories[i]; i++)
                add_directory(index, directories[i]);
        for (guint i = 0; i < index->directories->len; i++) {
                start_thread(index->directories->pdata[i], image_walk_thread);
                start_thread(index->directories->pdata[i], image_follow_thread);
        }
        return index;
}

static void refresh_end(Refresh *refresh, gboolean complete)
{
        g_queue_remove(&refresh->index->refreshes, refresh);
        g_source_remove(refresh->timer);
        refresh->done(complete, refresh->data);
        g_free(refresh);
}

static void wake_all(ImageIndex *index)
{
        for (guint i = 0; i < index->directories->len; i++)
                watch_wake(((ImageDirectory *) index->directories->pdata[i])->watch);
}

void image_index_free(ImageIndex *index)
{
        while (!g_queue_is_empty(&index->refreshes))
                refresh_end(g_queue_peek_head(&index->refreshes), FALSE);
        g_mutex_lock(&index->lock);
        index->is_closing = TRUE;
        g_cond_broadcast(&index->news);
        g_mutex_unlock(&index->lock);
        wake_all(index);
        image_index_unref(index);
}

/* ---- what the threads do to it ---- */

static void forget(ImageIndex *index, const IndexedImage *image)
{
        use_table_remove(&index->uses, image);
        index->n_files--;
        index->n_pending -= image->is_pending ? 1 : 0;
}

gboolean image_directory_put(ImageDirectory *directory, IndexedImage *image, const IndexedImage *old)
{
        ImageIndex *index = directory->index;
        IndexedImage *there = g_hash_table_lookup(directory->files, image->path);

        if ((old && there != old) || (!there && index->n_files >= IMAGE_INDEX_MAX))
                return FALSE;
        if (there)
                forget(index, there);
        index->n_files++;
        index->n_pending += image->is_pending ? 1 : 0;
        g_hash_table_replace(directory->files, image->path, indexed_image_ref(image));
        use_table_add(&index->uses, image);
        return TRUE;
}

gboolean image_directory_remove(ImageDirectory *directory, const char *path)
{
        IndexedImage *there = g_hash_table_lookup(directory->files, path);

        if (!there)
                return FALSE;
        forget(directory->index, there);
        return g_hash_table_remove(directory->files, path);
}

GPtrArray *image_directory_list(ImageDirectory *directory, gboolean (*wanted)(const IndexedImage *image))
{
        GPtrArray *files = g_ptr_array_new_with_free_func((GDestroyNotify) indexed_image_unref);
        GHashTableIter iter;
        gpointer image;

        g_hash_table_iter_init(&iter, directory->files);
        while (g_hash_table_iter_next(&iter, NULL, &image))
                if (!wanted || wanted(image))
                        g_ptr_array_add(files, indexed_image_ref(image));
        return files;
}

/* Which generation everybody knows. */
static guint64 known_generation(const ImageIndex *index)
{
        guint64 known = index->generation;

        for (guint i = 0; i < index->directories->len; i++)
                known = MIN(known, ((ImageDirectory *) index->directories->pdata[i])->followed);
        return known;
}

static gboolean on_told(gpointer data)
{
        ImageIndex *index = data;
        gboolean has_changed, is_closing;
        guint64 known;

        g_mutex_lock(&index->lock);
        known = known_generation(index);
        has_changed = index->has_changed;
        is_closing = index->is_closing;
        index->is_telling = FALSE;
        index->has_changed = FALSE;
        g_mutex_unlock(&index->lock);
        if (is_closing)
                return G_SOURCE_REMOVE;
        if (has_changed && index->changed)
                index->changed(index->data);
        for (Refresh *refresh;
             (refresh = g_queue_peek_head(&index->refreshes)) && refresh->generation <= known;)
                refresh_end(refresh, TRUE);
        return G_SOURCE_REMOVE;
}

void image_index_tell(ImageIndex *index, gboolean has_changed)
{
        index->has_changed = index->has_changed || has_changed;
        if (index->is_telling)
                return;
        index->is_telling = TRUE;
        g_idle_add_full(G_PRIORITY_DEFAULT, on_told, image_index_ref(index),
                        (GDestroyNotify) image_index_unref);
}

/* ---- refresh ---- */

static gboolean on_late(gpointer data)
{
        Refresh *refresh = data;
        ImageIndex *index = refresh->index;

        g_mutex_lock(&index->lock);
        for (guint i = 0; i < index->directories->len; i++) {
                ImageDirectory *directory = index->directories->pdata[i];
                directory->is_late = directory->is_late || directory->followed < refresh->generation;
        }
        g_mutex_unlock(&index->lock);
        refresh_end(refresh, FALSE);
        return G_SOURCE_REMOVE;
}

void image_index_refresh(ImageIndex *index, guint milliseconds, ImageIndexDone done, gpointer data)
{
        Refresh *refresh = g_new(Refresh, 1);

        *refresh = (Refresh){ .index = index, .done = done, .data = data };
        refresh->timer = g_timeout_add(milliseconds, on_late, refresh);
        g_queue_push_tail(&index->refreshes, refresh);
        g_mutex_lock(&index->lock);
        refresh->generation = ++index->generation;
        if (index->directories->len == 0)
                image_index_tell(index, FALSE);
        g_mutex_unlock(&index->lock);
        wake_all(index);
}

/* ---- questions ---- */

static gboolean is_complete(const ImageIndex *index)
{
        for (guint i = 0; i < index->directories->len; i++)
                if (((ImageDirectory *) index->directories->pdata[i])->is_late)
                        return FALSE;
        return index->n_pending == 0 && known_generation(index) > 0;
}

GPtrArray *image_index_users(ImageIndex *index, const ImageId *image, gboolean all, gboolean *complete)
{
        GPtrArray *users;

        g_mutex_lock(&index->lock);
        users = use_table_find(&index->uses, image, all);
        if (complete)
                *complete = is_complete(index);
        g_mutex_unlock(&index->lock);
        return users;
}

static ImageFound *tell_image(const IndexedImage *image)
{
        ImageFound *found = g_new0(ImageFound, 1);

        *found = (ImageFound){ .device = image->device,
                               .inode = image->inode,
                               .format = g_strdup(image->format),
                               .why = g_strdup(image->why) };
        for (guint i = 0; i < image->n_parents; i++)
                *(image->parents[i].part == IMAGE_PART_BACKING ? &found->backing : &found->data_file) =
                        g_strdup(image->parents[i].source);
        return found;
}

ImageFound *image_index_find(ImageIndex *index, const char *path)
{
        ImageFound *found = NULL;

        g_mutex_lock(&index->lock);
        for (guint i = 0; i < index->directories->len && !found; i++) {
                const ImageDirectory *directory = index->directories->pdata[i];
                const IndexedImage *image = g_hash_table_lookup(directory->files, path);

                if (image && (image->format || image->why))
                        found = tell_image(image);
        }
        g_mutex_unlock(&index->lock);
        return found;
}

void image_found_free(ImageFound *found)
{
        g_free(found->format);
        g_free(found->backing);
        g_free(found->data_file);
        g_free(found->why);
        g_free(found);
}

/* ---- what is not known ---- */

static void unknown_free(gpointer data)
{
        ImageUnknown *unknown = data;

        g_free(unknown->path);
        g_free(unknown->why);
        g_free(unknown);
}

static void add_unknown(GPtrArray *list, const char *path, char *why)
{
        ImageUnknown *unknown = g_new(ImageUnknown, 1);

        *unknown = (ImageUnknown){ g_strdup(path), why };
        g_ptr_array_add(list, unknown);
}

static void add_unknown_image(GPtrArray *list, const IndexedImage *image)
{
        if (image->why)
                add_unknown(list, image->path, g_strdup(image->why));
        else if (image->is_pending)
                add_unknown(list, image->path, g_strdup("nobody has looked yet which file it builds on"));
        for (guint i = 0; i < image->n_parents; i++)
                if (image->parents[i].failure)
                        add_unknown(list, image->path,
                                    g_strdup_printf("'%s', which it builds on, cannot be looked at: %s",
                                                    image->parents[i].source,
                                                    g_strerror(image->parents[i].failure)));
}

static void add_unknown_in(GPtrArray *list, const ImageDirectory *directory)
{
        GHashTableIter iter;
        gpointer path, value;

        if (directory->followed == 0 && !g_hash_table_contains(directory->troubles, directory->path))
                add_unknown(list, directory->path, g_strdup("it has not been looked through yet"));
        else if (directory->is_late)
                add_unknown(list, directory->path, g_strdup("it does not answer"));
        g_hash_table_iter_init(&iter, directory->troubles);
        while (g_hash_table_iter_next(&iter, &path, &value))
                add_unknown(list, path, g_strdup(value));
        g_hash_table_iter_init(&iter, directory->files);
        while (g_hash_table_iter_next(&iter, NULL, &value))
                add_unknown_image(list, value);
}

static int compare_unknown(gconstpointer a, gconstpointer b)
{
        return strcmp((*(ImageUnknown *const *) a)->path, (*(ImageUnknown *const *) b)->path);
}

GPtrArray *image_index_unknown(ImageIndex *index)
{
        GPtrArray *list = g_ptr_array_new_with_free_func(unknown_free);

        g_mutex_lock(&index->lock);
        for (guint i = 0; i < index->directories->len; i++)
                add_unknown_in(list, index->directories->pdata[i]);
        g_mutex_unlock(&index->lock);
        g_ptr_array_sort(list, compare_unknown);
        return list;
}
