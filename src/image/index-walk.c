/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What lies in a directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "image/index-private.h"

typedef struct {
        ImageDirectory *directory;
        GHashTable *seen;     /* paths; NULL = only some are looked at */
        GHashTable *troubles; /* as in ImageDirectory */
        GArray *devices;      /* of the directories that were looked through */
        gboolean has_changed, is_full;
} Walk;

static void G_GNUC_PRINTF(3, 4) trouble(Walk *walk, const char *path, const char *format, ...)
{
        va_list list;

        va_start(list, format);
        if (walk->troubles)
                g_hash_table_insert(walk->troubles, g_strdup(path), g_strdup_vprintf(format, list));
        va_end(list);
}

/* ---- one file ---- */

static IndexedImage *find(Walk *walk, const char *path)
{
        ImageDirectory *directory = walk->directory;
        IndexedImage *image;

        g_mutex_lock(&directory->index->lock);
        image = g_hash_table_lookup(directory->files, path);
        if (image)
                indexed_image_ref(image);
        g_mutex_unlock(&directory->index->lock);
        return image;
}

static void put(Walk *walk, IndexedImage *image)
{
        ImageDirectory *directory = walk->directory;
        gboolean fits;

        g_mutex_lock(&directory->index->lock);
        fits = image_directory_put(directory, image, NULL);
        g_mutex_unlock(&directory->index->lock);
        walk->is_full = walk->is_full || !fits;
}

static void drop(Walk *walk, const char *path)
{
        ImageDirectory *directory = walk->directory;

        g_mutex_lock(&directory->index->lock);
        walk->has_changed = image_directory_remove(directory, path) || walk->has_changed;
        g_mutex_unlock(&directory->index->lock);
}

/* Until the follower has been there, it is what it was. */
static IndexedImage *take_link(const char *path, const IndexedImage *old, const FileMark *mark)
{
        IndexedImage *image = old && old->is_link ? indexed_image_copy(old) : indexed_image_new(path, mark);

        image->is_pending = TRUE;
        if (!image->is_link)
                indexed_image_say(image, "it is a link that nobody has followed yet");
        image->is_link = TRUE;
        image->is_away = FALSE;
        image->own = *mark;
        image->target.settled = FALSE;
        return image;
}

/* Returns FALSE where it is not there any more. */
static gboolean look_at_file(Walk *walk, int fd, const char *name, const char *path, const struct stat *st,
                             guint64 home)
{
        g_autoptr(IndexedImage) old = find(walk, path), image = NULL;
        FileMark mark;

        file_mark(&mark, st);
        if (old && !old->is_away && file_mark_holds(&old->own, &mark))
                return TRUE;
        if (S_ISLNK(st->st_mode)) {
                image = take_link(path, old, &mark);
        } else {
                image = indexed_image_new(path, &mark);
                if (indexed_image_read(image, fd, name, O_NOFOLLOW) < 0)
                        return FALSE;
                image->is_pending = image->n_parents > 0 && !(old && indexed_image_take_parents(image, old));
        }
        image->home = home;
        walk->has_changed = walk->has_changed || image->is_link || !old || old->is_away ||
                            !indexed_image_equal(old, image);
        put(walk, image);
        return TRUE;
}

/* ---- all of it ---- */

static void walk_directory(Walk *walk, int parent, const char *name, const char *path, guint depth);

static void look_at(Walk *walk, int fd, const char *name, const char *path, guint depth, guint64 home)
{
        struct stat st;

        if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
                if (errno != ENOENT)
                        trouble(walk, path, "it cannot be looked at: %s", g_strerror(errno));
        } else if (S_ISDIR(st.st_mode)) {
                if (depth < IMAGE_INDEX_SUBDIRECTORIES_MAX)
                        walk_directory(walk, fd, name, path, depth + 1);
                else
                        trouble(walk, path, "it is a directory too deep in '%s' to be looked into",
                                walk->directory->path);
        } else if (S_ISBLK(st.st_mode)) {
                trouble(walk, path, "it is a block device, which is not looked into");
        } else if ((S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)) &&
                   look_at_file(walk, fd, name, path, &st, home)) {
                g_hash_table_add(walk->seen, g_strdup(path));
        }
}

static void read_directory(Walk *walk, DIR *stream, const char *path, guint depth, guint64 device)
{
        const struct dirent *entry;

        while (errno = 0, (entry = readdir(stream)) && !walk->is_full) {
                g_autofree char *child = NULL;

                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                child = g_build_filename(path, entry->d_name, NULL);
                look_at(walk, dirfd(stream), entry->d_name, child, depth, device);
        }
        if (!entry && errno)
                trouble(walk, path, "it cannot be read: %s", g_strerror(errno));
}

static void walk_directory(Walk *walk, int parent, const char *name, const char *path, guint depth)
{
        int fd = openat(parent, name,
                        O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOCTTY | (depth > 0 ? O_NOFOLLOW : 0));
        struct stat st;
        guint64 device;
        DIR *stream;

        if (fd < 0) {
                if (depth == 0 || errno != ENOENT)
                        trouble(walk, path, "it cannot be read: %s", g_strerror(errno));
                return;
        }
        watch_add(walk->directory->watch, fd, path);
        if (fstat(fd, &st) < 0 || !(stream = fdopendir(fd))) {
                trouble(walk, path, "it cannot be read: %s", g_strerror(errno));
                close(fd);
                return;
        }
        device = st.st_dev;
        g_array_append_val(walk->devices, device);
        read_directory(walk, stream, path, depth, device);
        closedir(stream);
}

/* Whether it is in a directory that could not be looked through. */
static gboolean is_in_trouble(const Walk *walk, const char *path)
{
        GHashTableIter iter;
        gpointer key;

        g_hash_table_iter_init(&iter, walk->troubles);
        while (g_hash_table_iter_next(&iter, &key, NULL)) {
                gsize length = strlen(key);

                if (strncmp(path, key, length) == 0 &&
                    (path[length] == '/' || path[length] == '\0' || path[length - 1] == '/'))
                        return TRUE;
        }
        return FALSE;
}

static gboolean is_of_a_device_here(const Walk *walk, const IndexedImage *image)
{
        for (guint i = 0; i < walk->devices->len; i++)
                if (g_array_index(walk->devices, guint64, i) == image->home)
                        return TRUE;
        return FALSE;
}

/* One that was not seen is gone, unless what it was on is gone: then it will be there again. */
static void miss(Walk *walk, const IndexedImage *image)
{
        g_autoptr(IndexedImage) away = NULL;

        if (g_hash_table_contains(walk->seen, image->path) || is_in_trouble(walk, image->path))
                return;
        if (is_of_a_device_here(walk, image)) {
                drop(walk, image->path);
        } else if (!image->is_away) {
                away = indexed_image_copy(image);
                away->is_away = TRUE;
                indexed_image_say(away, "the file system that it was on is not there");
                put(walk, away);
                walk->has_changed = TRUE;
        }
}

static void walk_all(Walk *walk)
{
        ImageDirectory *directory = walk->directory;
        g_autoptr(GPtrArray) files = NULL;

        watch_begin(directory->watch);
        walk_directory(walk, AT_FDCWD, directory->path, directory->path, 0);
        watch_end(directory->watch);
        if (walk->is_full)
                trouble(walk, directory->path, "it has files beyond the %d that can be known",
                        IMAGE_INDEX_MAX);
        g_mutex_lock(&directory->index->lock);
        files = image_directory_list(directory, NULL);
        g_mutex_unlock(&directory->index->lock);
        for (guint i = 0; i < files->len; i++)
                miss(walk, files->pdata[i]);
}

/* ---- what was told of ---- */

/* FALSE: it takes more than that. */
static gboolean look_again(Walk *walk, const char *path)
{
        g_autoptr(IndexedImage) old = find(walk, path);
        g_autofree char *directory = g_path_get_dirname(path);
        struct stat st, directory_st;

        if (stat(directory, &directory_st) < 0)
                return FALSE;
        if (fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
                /* gone by itself, or with all that was there */
                if (errno != ENOENT || (old && old->home != directory_st.st_dev))
                        return FALSE;
                drop(walk, path);
                return TRUE;
        }
        if (S_ISDIR(st.st_mode))
                return FALSE;
        if (!(S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)) ||
            !look_at_file(walk, AT_FDCWD, path, path, &st, directory_st.st_dev))
                drop(walk, path);
        return !walk->is_full;
}

static gboolean look_at_some(Walk *walk, GHashTable *paths)
{
        GHashTableIter iter;
        gpointer path;

        g_hash_table_iter_init(&iter, paths);
        while (g_hash_table_iter_next(&iter, &path, NULL))
                if (!look_again(walk, path))
                        return FALSE;
        return TRUE;
}

/* ---- the thread ---- */

static gboolean same_troubles(GHashTable *a, GHashTable *b)
{
        GHashTableIter iter;
        gpointer path, why;

        if (g_hash_table_size(a) != g_hash_table_size(b))
                return FALSE;
        g_hash_table_iter_init(&iter, a);
        while (g_hash_table_iter_next(&iter, &path, &why))
                if (g_strcmp0(g_hash_table_lookup(b, path), why) != 0)
                        return FALSE;
        return TRUE;
}

/* What has been seen by now is the state of `generation`, if it is everything. */
static void end_pass(Walk *walk, guint64 generation)
{
        ImageDirectory *directory = walk->directory;
        ImageIndex *index = directory->index;

        g_mutex_lock(&index->lock);
        if (walk->troubles) {
                walk->has_changed = walk->has_changed || !same_troubles(walk->troubles, directory->troubles);
                g_hash_table_unref(directory->troubles);
                directory->troubles = g_hash_table_ref(walk->troubles);
                directory->walked = generation;
        }
        if (walk->has_changed)
                index->changes++;
        g_cond_broadcast(&index->news);
        image_index_tell(index, walk->has_changed);
        g_mutex_unlock(&index->lock);
}

static void walk_everything(ImageDirectory *directory, guint64 generation)
{
        g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        g_autoptr(GHashTable) troubles = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
        g_autoptr(GArray) devices = g_array_new(FALSE, FALSE, sizeof(guint64));
        Walk walk = { .directory = directory, .seen = seen, .troubles = troubles, .devices = devices };

        walk_all(&walk);
        end_pass(&walk, generation);
}

/* FALSE as look_again(). */
static gboolean walk_some(ImageDirectory *directory, GHashTable *paths)
{
        Walk walk = { .directory = directory };
        gboolean is_enough = look_at_some(&walk, paths);

        end_pass(&walk, 0);
        return is_enough;
}

gpointer image_walk_thread(gpointer data)
{
        ImageDirectory *directory = data;
        ImageIndex *index = directory->index;
        gboolean everything = TRUE, is_closing = FALSE;

        while (!is_closing) {
                g_autoptr(GHashTable) paths = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
                guint64 generation;

                g_mutex_lock(&index->lock);
                generation = index->generation;
                everything = everything || directory->walked < generation;
                g_mutex_unlock(&index->lock);
                if (everything)
                        walk_everything(directory, generation);
                everything = !watch_wait(directory->watch, paths);
                if (!everything && g_hash_table_size(paths) > 0)
                        everything = !walk_some(directory, paths);
                g_mutex_lock(&index->lock);
                is_closing = index->is_closing;
                g_mutex_unlock(&index->lock);
        }
        image_index_unref(index);
        return NULL;
}
