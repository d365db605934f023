/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/json.h"
#include "base/patience.h"

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

/* Inode 0: there is no such file. */
static void look_at(const char *path, gpointer data)
{
        Stale *seen = data;
        struct statx st;

        if (statx(AT_FDCWD, path, 0, STATX_INO | STATX_MTIME | STATX_BTIME, &st) < 0 ||
            !S_ISREG(st.stx_mode))
                return;
        *seen = (Stale){ .device = makedev(st.stx_dev_major, st.stx_dev_minor),
                         .inode = st.stx_ino,
                         .birth = st.stx_mask & STATX_BTIME ? nanoseconds(&st.stx_btime) : 0,
                         .changed = nanoseconds(&st.stx_mtime) };
}

static gboolean is_same(const Stale *stale, const Stale *now)
{
        return now->inode && now->device == stale->device && now->inode == stale->inode &&
               now->birth == stale->birth;
}

/* In a thread, as are all that look at files: takes out of `list` what is another file by now or none, and
 * with `unchanged` what somebody has written to, or may have. `gone` (NULL = nobody) gets it. */
static void sort_out(GPtrArray *list, gboolean unchanged, GPtrArray *gone)
{
        g_autoptr(GPtrArray) paths = g_ptr_array_new();
        g_autofree gboolean *answered = g_new0(gboolean, list->len);
        g_autofree Stale *now = NULL;

        for (guint i = 0; i < list->len; i++)
                g_ptr_array_add(paths, ((Stale *) list->pdata[i])->path);
        now = patience_look(paths, look_at, sizeof *now, answered);
        for (guint i = list->len; i-- > 0;) {
                const Stale *stale = list->pdata[i];

                if (answered[i] ? is_same(stale, &now[i]) && (!unchanged || now[i].changed == stale->changed)
                                : !unchanged)
                        continue;
                if (gone)
                        g_ptr_array_add(gone, copy(stale, NULL));
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
        GPtrArray *list; /* Stale */
        gboolean unchanged;
        StaleSeen seen;
        gpointer data;
} Question;

static void question_free(gpointer data)
{
        Question *question = data;

        g_ptr_array_unref(question->list);
        g_free(question);
}

static void run_question(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
        const Question *question = data;

        (void) source;
        (void) cancellable;
        sort_out(question->list, question->unchanged, NULL);
        g_task_return_boolean(task, TRUE);
}

static void on_answered(GObject *source, GAsyncResult *result, gpointer data)
{
        const Question *question = g_task_get_task_data(G_TASK(result));

        (void) source;
        (void) data;
        question->seen(question->list, question->data);
}

void engine_see_stale(Engine *engine, gboolean unchanged, StaleSeen seen, gpointer data)
{
        g_autoptr(GTask) task = NULL;
        Question *question;

        if (engine->stale->len == 0) {
                seen(engine->stale, data);
                return;
        }
        task = g_task_new(NULL, NULL, on_answered, NULL);
        question = g_new(Question, 1);
        *question = (Question){ copy_list(engine->stale), unchanged, seen, data };
        g_task_set_task_data(task, question, question_free);
        g_task_run_in_thread(task, run_question);
}

/* Another one may be under way: the list is changed by what was found, not replaced. */
typedef struct {
        Engine *engine;
        char *base;
        GPtrArray *paths;       /* char * */
        GPtrArray *list, *gone; /* Stale: as it was, and those of it that are not there any more */
        GPtrArray *found;       /* Stale */
} Addition;

static void addition_free(gpointer data)
{
        Addition *addition = data;

        g_free(addition->base);
        g_ptr_array_unref(addition->paths);
        g_ptr_array_unref(addition->list);
        g_ptr_array_unref(addition->gone);
        g_ptr_array_unref(addition->found);
        g_free(addition);
}

static void run_addition(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
        const Addition *addition = data;
        g_autofree gboolean *answered = g_new0(gboolean, addition->paths->len);
        g_autofree Stale *seen = NULL;

        (void) source;
        (void) cancellable;
        sort_out(addition->list, FALSE, addition->gone);
        seen = patience_look(addition->paths, look_at, sizeof *seen, answered);
        for (guint i = 0; i < addition->paths->len; i++) {
                if (!seen[i].inode)
                        continue;
                seen[i].path = addition->paths->pdata[i];
                seen[i].base = addition->base;
                g_ptr_array_add(addition->found, copy(&seen[i], NULL));
        }
        g_task_return_boolean(task, TRUE);
}

static void forget(GPtrArray *list, const Stale *gone)
{
        for (guint i = list->len; i-- > 0;) {
                const Stale *stale = list->pdata[i];

                if (stale->device == gone->device && stale->inode == gone->inode &&
                    stale->birth == gone->birth && strcmp(stale->path, gone->path) == 0)
                        g_ptr_array_remove_index(list, i);
        }
}

static void on_added(GObject *source, GAsyncResult *result, gpointer data)
{
        const Addition *addition = g_task_get_task_data(G_TASK(result));
        Engine *engine = addition->engine;

        (void) source;
        (void) data;
        for (guint i = 0; i < addition->gone->len; i++)
                forget(engine->stale, addition->gone->pdata[i]);
        g_ptr_array_extend(engine->stale, addition->found, copy, NULL);
        journal_write(engine->journal, JOURNAL_STALE, RECORD, to_json(engine->stale), JOURNAL_SYNCED, NULL,
                      NULL);
}

void engine_images_spoiled(JobHost *host, GPtrArray *images, const char *base)
{
        g_autoptr(GTask) task = g_task_new(NULL, NULL, on_added, NULL);
        Addition *addition = g_new(Addition, 1);
        Engine *engine = host->observer_data;

        *addition = (Addition){ engine,           g_strdup(base),  images, copy_list(engine->stale),
                                stale_list_new(), stale_list_new() };
        g_task_set_task_data(task, addition, addition_free);
        g_task_run_in_thread(task, run_addition);
}
