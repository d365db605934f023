/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include <string.h>

#include "image/inspect.h"
#include "image/locks.h"
#include "job/users.h"

/* What there is to be seen of any image, and who uses it. */

typedef struct {
        GPtrArray *layers; /* ImageLayer */
        GPtrArray *uses;   /* ImageUse of all disks */
        GArray *qemus;     /* guint32: the processes that have them open */
        GPtrArray *users;  /* for each layer: char * of who uses it */
        Engine *engine;
        ImageSeen seen;
        gpointer data;
} Look;

static void look_free(Look *look)
{
        g_ptr_array_unref(look->layers);
        g_ptr_array_unref(look->uses);
        g_array_unref(look->qemus);
        g_ptr_array_unref(look->users);
        g_free(look);
}

/* `path` NULL: that file alone is meant; inode 0: that path. */
static void add_user(const Look *look, const char *path, guint64 device, guint64 inode, const char *user)
{
        for (guint i = 0; i < look->layers->len; i++) {
                const ImageLayer *layer = look->layers->pdata[i];

                if (g_strcmp0(layer->source, path) == 0 ||
                    (inode && layer->inode == inode && layer->device == device))
                        g_ptr_array_add(look->users->pdata[i], g_strdup(user));
        }
}

static void compare(const Look *look, const ImageUse *use)
{
        const struct stat *st = &use->seen.st;

        add_user(look, use->path, st->st_dev, st->st_ino, use->user);
}

static gboolean is_qemu_of_ours(const Look *look, guint32 pid)
{
        for (guint i = 0; i < look->qemus->len; i++)
                if (g_array_index(look->qemus, guint32, i) == pid)
                        return TRUE;
        return FALSE;
}

static void add_lock_holders(const Look *look)
{
        g_autofree FileId *files = g_new0(FileId, look->layers->len);
        g_autoptr(GPtrArray) holders = NULL;
        guint n_files = 0;

        for (guint i = 0; i < look->layers->len; i++) {
                const ImageLayer *layer = look->layers->pdata[i];

                if (layer->inode && !layer->is_block)
                        files[n_files++] = (FileId){ layer->device, layer->inode };
        }
        holders = lock_holders(files, n_files, 0);
        for (guint i = 0; i < holders->len; i++) {
                const LockHolder *holder = holders->pdata[i];
                g_autofree char *name = lock_holder_name(holder);
                g_autofree char *user = g_strdup_printf("%s, which has locked it", name);

                if (!holder->pid || !is_qemu_of_ours(look, holder->pid))
                        add_user(look, NULL, holder->device, holder->inode, user);
        }
}

static void find_users(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
        const Look *look = data;

        (void) source;
        (void) cancellable;
        for (guint i = 0; i < look->layers->len; i++)
                g_ptr_array_add(look->users, g_ptr_array_new_with_free_func(g_free));
        image_uses_look(look->uses);
        for (guint i = 0; i < look->uses->len; i++)
                compare(look, look->uses->pdata[i]);
        add_lock_holders(look);
        g_task_return_boolean(task, TRUE);
}

/* Those that are no layer of the chain itself. */
static gboolean is_layer(const Look *look, const ImageUser *user)
{
        for (guint i = 0; i < look->layers->len; i++) {
                const ImageLayer *layer = look->layers->pdata[i];

                if (layer->inode && layer->inode == user->inode && layer->device == user->device)
                        return TRUE;
        }
        return FALSE;
}

static void add_overlays(const Look *look, guint index)
{
        const ImageLayer *layer = look->layers->pdata[index];
        g_autoptr(GPtrArray) users = image_index_users(
                look->engine->index, &(ImageId){ layer->device, layer->inode, layer->source }, FALSE, NULL);

        for (guint i = 0; i < users->len; i++) {
                const ImageUser *user = users->pdata[i];

                if (!is_layer(look, user))
                        g_ptr_array_add(look->users->pdata[index],
                                        g_strdup_printf("image '%s', %s", user->path,
                                                        user->part == IMAGE_PART_DATA
                                                                ? "as its data file"
                                                                : "as its backing file"));
        }
}

static void on_stale_seen(const GPtrArray *stale, gpointer data)
{
        Look *look = data;
        g_autofree gboolean *is_stale = g_new0(gboolean, look->layers->len);
        g_autoptr(GPtrArray) unknown = NULL;
        g_autofree char *unanswered = NULL;

        /* Whoever reads through an invalid one is no better. */
        for (guint i = look->layers->len; i-- > 0;) {
                const ImageLayer *layer = look->layers->pdata[i];

                is_stale[i] = stale_base(stale, layer->device, layer->inode) ||
                              (i + 1 < look->layers->len && is_stale[i + 1]);
                if (look->engine->index)
                        add_overlays(look, i);
        }
        unknown = engine_list_unknown(look->engine);
        unanswered = users_unknown(look->uses);
        if (unanswered)
                g_ptr_array_add(unknown, g_steal_pointer(&unanswered));
        look->seen(look->layers, look->users, is_stale, unknown, NULL, look->data);
        look_free(look);
}

static void on_found(GObject *source, GAsyncResult *result, gpointer data)
{
        Look *look = g_task_get_task_data(G_TASK(result));

        (void) source;
        (void) data;
        engine_see_stale(look->engine, FALSE, on_stale_seen, look);
}

static void on_refreshed(gboolean complete, gpointer data)
{
        Look *look = data;
        g_autoptr(GTask) task = g_task_new(NULL, NULL, on_found, NULL);

        (void) complete;
        g_task_set_task_data(task, look, NULL);
        g_task_run_in_thread(task, find_users);
}

static void on_inspected(GPtrArray *layers, const GError *error, gpointer data)
{
        Look *look = data;

        if (error) {
                look->seen(NULL, NULL, NULL, NULL, error, look->data);
                look->layers = g_ptr_array_new();
                look_free(look);
                return;
        }
        look->layers = g_ptr_array_ref(layers);
        image_index_refresh(look->engine->index, REFRESH_MILLISECONDS, on_refreshed, look);
}

static void add_qemus(Look *look, const GPtrArray *domains)
{
        for (guint i = 0; i < domains->len; i++)
                g_array_append_val(look->qemus, ((Domain *) domains->pdata[i])->pid);
}

void engine_inspect_image(Engine *engine, const char *path, const char *format, ImageSeen seen,
                          gpointer data)
{
        Look *look = g_new0(Look, 1);

        look->uses = engine_list_uses(engine, NULL, NULL);
        look->qemus = g_array_new(FALSE, FALSE, sizeof(guint32));
        add_qemus(look, engine->domains);
        add_qemus(look, engine->storages);
        look->engine = engine;
        look->users = g_ptr_array_new_with_free_func((GDestroyNotify) g_ptr_array_unref);
        look->seen = seen;
        look->data = data;
        image_inspect(
                &(InspectRequest){ .path = path, .format = format, .follow = TRUE, .any_format = TRUE },
                on_inspected, look);
}
