/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include <string.h>
#include <sys/stat.h>

#include "image/inspect.h"

/* What there is to be seen of any image, and which disks use it. */

typedef struct {
        GPtrArray *layers; /* ImageLayer */
        GPtrArray *uses;   /* ImageUse of all disks */
        GPtrArray *users;  /* for each layer: char * of who uses it */
        ImageSeen seen;
        gpointer data;
} Look;

static void look_free(gpointer data)
{
        Look *look = data;

        g_ptr_array_unref(look->layers);
        g_ptr_array_unref(look->uses);
        g_ptr_array_unref(look->users);
        g_free(look);
}

static void compare(const Look *look, const ImageUse *use)
{
        struct stat st;
        gboolean there = *use->path == '/' && stat(use->path, &st) == 0;

        for (guint i = 0; i < look->layers->len; i++) {
                const ImageLayer *layer = look->layers->pdata[i];

                if (strcmp(layer->source, use->path) == 0 ||
                    (there && layer->inode && st.st_ino == layer->inode && st.st_dev == layer->device))
                        g_ptr_array_add(look->users->pdata[i], g_strdup(use->user));
        }
}

static void find_users(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
        const Look *look = data;

        (void) source;
        (void) cancellable;
        for (guint i = 0; i < look->layers->len; i++)
                g_ptr_array_add(look->users, g_ptr_array_new_with_free_func(g_free));
        for (guint i = 0; i < look->uses->len; i++)
                compare(look, look->uses->pdata[i]);
        g_task_return_boolean(task, TRUE);
}

static void on_found(GObject *source, GAsyncResult *result, gpointer data)
{
        const Look *look = g_task_get_task_data(G_TASK(result));

        (void) source;
        (void) data;
        look->seen(look->layers, look->users, NULL, look->data);
}

static void on_inspected(GPtrArray *layers, const GError *error, gpointer data)
{
        Look *look = data;
        g_autoptr(GTask) task = NULL;

        if (error) {
                look->seen(NULL, NULL, error, look->data);
                look->layers = g_ptr_array_new();
                look_free(look);
                return;
        }
        look->layers = g_ptr_array_ref(layers);
        task = g_task_new(NULL, NULL, on_found, NULL);
        g_task_set_task_data(task, look, look_free);
        g_task_run_in_thread(task, find_users);
}

void engine_inspect_image(Engine *engine, const char *path, const char *format, ImageSeen seen,
                          gpointer data)
{
        Look *look = g_new0(Look, 1);

        look->uses = engine_list_uses(engine, NULL, NULL);
        look->users = g_ptr_array_new_with_free_func((GDestroyNotify) g_ptr_array_unref);
        look->seen = seen;
        look->data = data;
        image_inspect(
                &(InspectRequest){ .path = path, .format = format, .follow = TRUE, .any_format = TRUE },
                on_inspected, look);
}
