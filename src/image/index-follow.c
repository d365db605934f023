/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where the files of a directory lead: what links point to, and which files those are that images build on.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "image/file.h"
#include "image/index-private.h"

#define PASSES_MAX 10

/* What a name has led to in this pass. */
typedef struct {
        FileId id;
        int failure;
} Place;

static const Place *look_up(GHashTable *places, const char *source)
{
        Place *place = g_hash_table_lookup(places, source);
        struct stat st;

        if (place)
                return place;
        place = g_new0(Place, 1);
        g_hash_table_insert(places, g_strdup(source), place);
        if (stat(source, &st) < 0)
                place->failure = errno;
        else
                place->id = file_id(&st);
        return place;
}

static void follow_parents(IndexedImage *image, GHashTable *places)
{
        for (guint i = 0; i < image->n_parents; i++) {
                ImageParent *parent = &image->parents[i];
                const Place *place = parent->remote ? NULL : look_up(places, parent->source);
                gboolean is_there = place && place->failure == 0,
                         is_gone = place && (place->failure == ENOENT || place->failure == ENOTDIR);

                if (is_there || is_gone) {
                        parent->device = place->id.device;
                        parent->inode = place->id.inode;
                        parent->failure = 0;
                } else if (place) {
                        parent->failure = place->failure;
                }
        }
}

/* What it leads to, as if it lay here; NULL = what was known of it holds. */
static IndexedImage *follow_link(const IndexedImage *image)
{
        IndexedImage *new;
        FileMark mark;
        struct stat st;

        if (stat(image->path, &st) == 0) {
                file_mark(&mark, &st);
                if (file_mark_holds(&image->target, &mark))
                        return NULL;
        }
        new = indexed_image_new(image->path, &image->own);
        new->is_link = TRUE;
        if (indexed_image_read(new, AT_FDCWD, image->path, 0) < 0)
                indexed_image_say(new, "it is a link to what is not there");
        new->own = image->own;
        new->home = image->home;
        indexed_image_take_parents(new, image);
        return new;
}

/* Returns what should be in its place. */
static IndexedImage *follow(const IndexedImage *image, GHashTable *places)
{
        IndexedImage *new = image->is_link && !image->is_away ? follow_link(image) : NULL;

        if (!new)
                new = indexed_image_copy(image);
        follow_parents(new, places);
        new->is_pending = FALSE;
        return new;
}

static gboolean leads_anywhere(const IndexedImage *image)
{
        return image->is_link || image->n_parents > 0;
}

/* FALSE: others came in between. */
static gboolean follow_all(ImageDirectory *directory, gboolean *has_changed)
{
        ImageIndex *index = directory->index;
        g_autoptr(GHashTable) places = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
        g_autoptr(GPtrArray) files = NULL;
        gboolean all = TRUE;

        g_mutex_lock(&index->lock);
        files = image_directory_list(directory, leads_anywhere);
        g_mutex_unlock(&index->lock);
        for (guint i = 0; i < files->len; i++) {
                IndexedImage *image = files->pdata[i];
                g_autoptr(IndexedImage) new = follow(image, places);
                gboolean is_equal = indexed_image_equal(image, new);

                if (is_equal && !image->is_pending &&
                    (!image->is_link || file_mark_holds(&image->target, &new->target)))
                        continue;
                g_mutex_lock(&index->lock);
                all = image_directory_put(directory, new, image) && all;
                g_mutex_unlock(&index->lock);
                *has_changed = *has_changed || !is_equal || image->is_pending;
        }
        return all;
}

/* Whether there is something to be done; FALSE: it is the end. */
static gboolean wait_for_news(ImageDirectory *directory, guint64 *generation, guint64 *changes)
{
        ImageIndex *index = directory->index;
        gboolean is_closing;

        g_mutex_lock(&index->lock);
        while (!index->is_closing && directory->walked == directory->followed && index->changes == *changes)
                g_cond_wait(&index->news, &index->lock);
        *generation = directory->walked;
        *changes = index->changes;
        is_closing = index->is_closing;
        g_mutex_unlock(&index->lock);
        return !is_closing;
}

gpointer image_follow_thread(gpointer data)
{
        ImageDirectory *directory = data;
        ImageIndex *index = directory->index;
        guint64 generation, changes = 0;

        while (wait_for_news(directory, &generation, &changes)) {
                gboolean has_changed = FALSE;

                for (guint i = 0; i < PASSES_MAX && !follow_all(directory, &has_changed); i++)
                        ;
                g_mutex_lock(&index->lock);
                /* that it answers is news too */
                has_changed =
                        has_changed || directory->is_late || (directory->followed == 0 && generation > 0);
                directory->followed = generation;
                directory->is_late = directory->is_late && generation < index->generation;
                image_index_tell(index, has_changed);
                g_mutex_unlock(&index->lock);
        }
        image_index_unref(index);
        return NULL;
}
