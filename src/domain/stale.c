/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/json.h"

/* Images that a commit has made invalid: they stand on one that has been changed under them. What is known
 * of each is enough to tell it from another file that takes its place later. */

#define RECORD "images"

typedef struct {
        char *path, *base;
        guint64 device, inode;
        gint64 birth, changed; /* ns since the epoch; birth 0: its file system does not tell */
} Stale;

static void stale_free(gpointer data)
{
        Stale *stale = data;

        g_free(stale->path);
        g_free(stale->base);
        g_free(stale);
}

GPtrArray *stale_list_new(void)
{
        return g_ptr_array_new_with_free_func(stale_free);
}

static gpointer copy(gconstpointer source, gpointer data)
{
        const Stale *stale = source;
        Stale *other = g_new(Stale, 1);

        (void) data;
        *other = *stale;
        other->path = g_strdup(stale->path);
        other->base = g_strdup(stale->base);
        return other;
}

static GPtrArray *copy_list(const GPtrArray *list)
{
        GPtrArray *other = stale_list_new();

        g_ptr_array_extend(other, (GPtrArray *) list, copy, NULL);
        return other;
}

/* ---- what a file is ---- */

static gint64 nanoseconds(const struct statx_timestamp *time)
{
        return (gint64) time->tv_sec * G_GINT64_CONSTANT(1000000000) + time->tv_nsec;
}

static gboolean look_at(const char *path, Stale *seen)
{
        struct statx st;

        if (statx(AT_FDCWD, path, 0, STATX_INO | STATX_MTIME | STATX_BTIME, &st) < 0 ||
            !S_ISREG(st.stx_mode))
                return FALSE;
        *seen = (Stale){ .device = makedev(st.stx_dev_major, st.stx_dev_minor),
                         .inode = st.stx_ino,
                         .birth = st.stx_mask & STATX_BTIME ? nanoseconds(&st.stx_btime) : 0,
                         .changed = nanoseconds(&st.stx_mtime) };
        return TRUE;
}

/* In a thread. Those that are not there any more are dropped. */
static void drop_gone(GPtrArray *list)
{
        for (guint i = list->len; i-- > 0;) {
                const Stale *stale = list->pdata[i];
                Stale now;

                if (!look_at(stale->path, &now) || now.device != stale->device ||
                    now.inode != stale->inode || now.birth != stale->birth)
                        g_ptr_array_remove_index(list, i);
        }
}

static void drop_changed(GPtrArray *list)
{
        for (guint i = list->len; i-- > 0;) {
                const Stale *stale = list->pdata[i];
                Stale now;

                if (!look_at(stale->path, &now) || now.changed != stale->changed)
                        g_ptr_array_remove_index(list, i);
        }
}

const char *stale_base(const GPtrArray *list, guint64 device, guint64 inode)
{
        for (guint i = 0; inode && i < list->len; i++) {
                const Stale *stale = list->pdata[i];

                if (stale->device == device && stale->inode == inode)
                        return stale->base;
        }
        return NULL;
}

/* ---- the record ---- */

static JsonObject *to_json(const GPtrArray *list)
{
        JsonArray *files = json_array_new();

        for (guint i = 0; i < list->len; i++) {
                const Stale *stale = list->pdata[i];

                json_array_add_object_element(
                        files, json_make("s:path", stale->path, "s:base", stale->base, "i:device",
                                         (gint64) stale->device, "i:inode", (gint64) stale->inode, "i:birth",
                                         stale->birth, "i:changed", stale->changed, NULL));
        }
        return json_make("a:files", files, NULL);
}

gboolean stale_from_json(GPtrArray *list, JsonObject *record)
{
        JsonArray *files = json_array(record, "files");

        for (guint i = 0; files && i < json_array_get_length(files); i++) {
                JsonObject *file = json_element(files, i);
                Stale *stale;

                if (!file || !json_string(file, "path") || !json_string(file, "base"))
                        return FALSE;
                stale = g_new(Stale, 1);
                *stale = (Stale){ g_strdup(json_string(file, "path")),
                                  g_strdup(json_string(file, "base")),
                                  (guint64) json_integer(file, "device"),
                                  (guint64) json_integer(file, "inode"),
                                  json_integer(file, "birth"),
                                  json_integer(file, "changed") };
                g_ptr_array_add(list, stale);
        }
        return files != NULL;
}

/* ---- asked for, and added to ---- */

typedef struct {
        Engine *engine;
        gboolean unchanged;
        char *base;       /* of those that are added, NULL: the list is asked for */
        GPtrArray *paths; /* char * */
        GPtrArray *list;
        StaleSeen seen;
        gpointer data;
} Task;

static void task_free(gpointer data)
{
        Task *task = data;

        g_free(task->base);
        g_clear_pointer(&task->paths, g_ptr_array_unref);
        g_ptr_array_unref(task->list);
        g_free(task);
}

static void run(GTask *gtask, gpointer source, gpointer data, GCancellable *cancellable)
{
        Task *task = data;

        (void) source;
        (void) cancellable;
        drop_gone(task->list);
        if (task->unchanged)
                drop_changed(task->list);
        for (guint i = 0; task->paths && i < task->paths->len; i++) {
                Stale *stale = g_new0(Stale, 1);

                if (look_at(task->paths->pdata[i], stale)) {
                        stale->path = g_strdup(task->paths->pdata[i]);
                        stale->base = g_strdup(task->base);
                        g_ptr_array_add(task->list, stale);
                } else
                        stale_free(stale);
        }
        g_task_return_boolean(gtask, TRUE);
}

static void on_run(GObject *source, GAsyncResult *result, gpointer data)
{
        Task *task = g_task_get_task_data(G_TASK(result));

        (void) source;
        (void) data;
        if (task->seen)
                task->seen(task->list, task->data);
}

static void start(Task *task)
{
        g_autoptr(GTask) gtask = g_task_new(NULL, NULL, on_run, NULL);

        task->list = copy_list(task->engine->stale);
        g_task_set_task_data(gtask, task, task_free);
        g_task_run_in_thread(gtask, run);
}

void engine_see_stale(Engine *engine, gboolean unchanged, StaleSeen seen, gpointer data)
{
        Task *task = g_new0(Task, 1);

        *task = (Task){ .engine = engine, .unchanged = unchanged, .seen = seen, .data = data };
        start(task);
}

static void on_added(const GPtrArray *list, gpointer data)
{
        Engine *engine = data;

        g_ptr_array_unref(engine->stale);
        engine->stale = copy_list(list);
        journal_write(engine->journal, JOURNAL_STALE, RECORD, to_json(engine->stale), JOURNAL_SYNCED, NULL,
                      NULL);
}

void engine_add_stale(Engine *engine, GPtrArray *paths, const char *base)
{
        Task *task = g_new0(Task, 1);

        *task = (Task){
                .engine = engine, .base = g_strdup(base), .paths = paths, .seen = on_added, .data = engine
        };
        start(task);
}
