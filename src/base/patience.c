/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/patience.h"

#include <string.h>

/* It lives as long as anybody looks: who asked may long have gone when a thread that was left behind comes
 * back. */
typedef struct {
        GPtrArray *paths;
        PatienceLook look;
        gsize size;
        guint8 *seen;
        gboolean *answered;
        guint next;      /* the one that is being asked */
        gint64 asked_at; /* since when, monotonic µs */
        guint worker;    /* the thread that may say what it has seen; the others were left behind */
        gboolean asking; /* that thread has got as far as to ask */
        guint references;
} Round;

typedef struct {
        Round *round;
        guint number;
} Worker;

static GMutex lock; /* of all that follows, and of every Round */
static GCond over;  /* a round is: for each path it would wake who waits thousands of times */
/* Directories in which a thread waits, as often as threads do: char * to count; NULL = none. */
static GHashTable *waiting;

static void round_unref(Round *round)
{
        if (--round->references > 0)
                return;
        g_ptr_array_unref(round->paths);
        g_free(round->seen);
        g_free(round->answered);
        g_free(round);
}

static void count_waiting(const char *path, gint difference)
{
        g_autofree char *directory = g_path_get_dirname(path);
        gint count;

        if (!waiting)
                waiting = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        count = GPOINTER_TO_INT(g_hash_table_lookup(waiting, directory)) + difference;
        if (count > 0)
                g_hash_table_replace(waiting, g_steal_pointer(&directory), GINT_TO_POINTER(count));
        else
                g_hash_table_remove(waiting, directory);
        if (g_hash_table_size(waiting) == 0)
                g_clear_pointer(&waiting, g_hash_table_unref);
}

static gboolean is_waited_for(const char *path)
{
        g_autofree char *directory = waiting ? g_path_get_dirname(path) : NULL;

        return directory && g_hash_table_contains(waiting, directory);
}

/* With the lock held, but for the look itself. `seen`: room for what there is to be seen. */
static void ask(Round *round, guint worker, gpointer seen)
{
        guint index = round->next;
        const char *path = round->paths->pdata[index];

        memset(seen, 0, round->size);
        round->asking = TRUE;
        round->asked_at = g_get_monotonic_time();
        g_mutex_unlock(&lock);
        round->look(path, seen);
        g_mutex_lock(&lock);
        if (worker == round->worker) {
                memcpy(round->seen + index * round->size, seen, round->size);
                round->answered[index] = TRUE;
                round->asking = FALSE;
                round->next++;
        } else
                count_waiting(path, -1);
}

static gpointer run(gpointer data)
{
        g_autofree Worker *worker = data;
        Round *round = worker->round;
        g_autofree gpointer seen = g_malloc(round->size);

        g_mutex_lock(&lock);
        while (worker->number == round->worker && round->next < round->paths->len) {
                if (is_waited_for(round->paths->pdata[round->next]))
                        round->next++;
                else
                        ask(round, worker->number, seen);
        }
        g_cond_broadcast(&over);
        round_unref(round);
        g_mutex_unlock(&lock);
        return NULL;
}

static void start(Round *round)
{
        Worker *worker = g_new(Worker, 1);

        *worker = (Worker){ round, round->worker };
        round->references++;
        round->asked_at = g_get_monotonic_time();
        g_thread_unref(g_thread_new("look", run, worker));
}

/* Until all were asked; FALSE: one does not answer in time. */
static gboolean wait_for(const Round *round, guint milliseconds)
{
        while (round->next < round->paths->len) {
                gint64 end = round->asked_at + milliseconds * G_TIME_SPAN_MILLISECOND;

                if (g_get_monotonic_time() >= end)
                        return FALSE;
                g_cond_wait_until(&over, &lock, end);
        }
        return TRUE;
}

static void leave_behind(Round *round)
{
        if (round->asking)
                count_waiting(round->paths->pdata[round->next], 1);
        round->asking = FALSE;
        round->next++;
        round->worker++;
}

static gpointer copy_text(gconstpointer text, gpointer data)
{
        (void) data;
        return g_strdup(text);
}

gpointer patience_look(const GPtrArray *paths, PatienceLook look, gsize size, gboolean *answered)
{
        Round *round;
        guint milliseconds = PATIENCE_MILLISECONDS;
        gpointer seen;

        if (paths->len == 0)
                return NULL;
        round = g_new(Round, 1);
        *round = (Round){ .paths = g_ptr_array_copy((GPtrArray *) paths, copy_text, NULL),
                          .look = look,
                          .size = size,
                          .seen = g_malloc0(size * paths->len),
                          .answered = g_new0(gboolean, paths->len),
                          .references = 1 };
        g_ptr_array_set_free_func(round->paths, g_free);
        g_mutex_lock(&lock);
        start(round);
        while (!wait_for(round, milliseconds)) {
                leave_behind(round);
                milliseconds = PATIENCE_MILLISECONDS / 10;
                start(round);
        }
        memcpy(answered, round->answered, paths->len * sizeof *answered);
        seen = g_memdup2(round->seen, size * paths->len);
        round_unref(round);
        g_mutex_unlock(&lock);
        return seen;
}
