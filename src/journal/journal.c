/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "journal/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gio/gio.h>

#include "base/error.h"
#include "base/json.h"
#include "base/test-point.h"

#define RECORD_MAX (16 * 1024 * 1024)
#define NESTING_MAX 16
#define SUFFIX ".json"
#define TEMPORARY ".new"
#define ASIDE ".damaged"
#define LATE ".late" /* newer than the record beside it, and not synced */

struct Journal {
        char *directory;
        int lock;
        int kinds[N_JOURNAL_KINDS]; /* the directories, opened once: they are synced at every write */
        GHashTable *queues;         /* file name → GQueue of the writes behind the one under way */
        gint64 sequence;            /* of the record that was written last */
};

static const char *const kind_names[] = {
        [JOURNAL_JOBS] = "jobs", [JOURNAL_DOMAINS] = "domains", [JOURNAL_STALE] = "stale"
};

static int open_directory(const char *parent, const char *name, GError **error)
{
        g_autofree char *path = g_build_filename(parent, name, NULL);
        int fd;

        if (g_mkdir_with_parents(path, 0700) < 0) {
                bj_fail_errno(error, "make", path);
                return -1;
        }
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                bj_fail_errno(error, "open", path);
        return fd;
}

Journal *journal_open(const char *directory, GError **error)
{
        g_autoptr(Journal) journal = g_new0(Journal, 1);

        journal->directory = g_strdup(directory);
        journal->queues =
                g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify) g_queue_free);
        journal->lock = -1;
        for (guint i = 0; i < N_JOURNAL_KINDS; i++)
                journal->kinds[i] = -1;
        journal->lock = open_directory(directory, "", error);
        if (journal->lock < 0)
                return NULL;
        if (flock(journal->lock, LOCK_EX | LOCK_NB) < 0) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_EXISTS,
                            "the state directory '%s' is in use by another blockjobd", directory);
                return NULL;
        }
        for (guint i = 0; i < G_N_ELEMENTS(kind_names); i++) {
                journal->kinds[i] = open_directory(directory, kind_names[i], error);
                if (journal->kinds[i] < 0)
                        return NULL;
        }
        /* The directories that hold the records must outlive a power cut as the records do. */
        if (fsync(journal->lock) < 0 && !bj_fail_errno(error, "sync", directory))
                return NULL;
        return g_steal_pointer(&journal);
}

void journal_close(Journal *journal)
{
        if (!journal)
                return;
        for (guint i = 0; i < G_N_ELEMENTS(kind_names); i++)
                if (journal->kinds[i] >= 0)
                        close(journal->kinds[i]);
        if (journal->lock >= 0)
                close(journal->lock);
        g_hash_table_unref(journal->queues);
        g_free(journal->directory);
        g_free(journal);
}

gboolean journal_is_idle(const Journal *journal)
{
        return g_hash_table_size(journal->queues) == 0;
}

typedef struct {
        Journal *journal;
        int directory;
        char *key;
        char *name, *text; /* text NULL: remove */
        JournalDurability durability;
        JournalDone done;
        gpointer data;
} Write;

static void write_free(gpointer data)
{
        Write *write = data;

        g_free(write->key);
        g_free(write->name);
        g_free(write->text);
        g_free(write);
}

static gboolean write_all(int fd, const char *text, gsize length)
{
        while (length > 0) {
                gssize n = write(fd, text, length);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return FALSE;
                text += n;
                length -= (gsize) n;
        }
        return TRUE;
}

static char *temporary_name(const char *file)
{
        return g_strconcat(".", file, TEMPORARY, NULL);
}

static char *late_name(const char *file)
{
        return g_strconcat(file, LATE, NULL);
}

static gboolean write_file(const Write *job, GError **error)
{
        g_autofree char *temporary = temporary_name(job->name), *late = late_name(job->name);
        gboolean sync = job->durability == JOURNAL_SYNCED;
        gsize length = strlen(job->text);
        int fd;

        if (length >= RECORD_MAX) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED, "record '%s' would have %zu bytes",
                            job->name, length);
                return FALSE;
        }
        fd = openat(job->directory, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

        if (fd < 0)
                return bj_fail_errno(error, "make", temporary);
        if (!write_all(fd, job->text, length) || (sync && !test_omits("record-sync") && fdatasync(fd) < 0)) {
                bj_fail_errno(error, "write", job->name);
                close(fd);
                unlinkat(job->directory, temporary, 0);
                return FALSE;
        }
        /* What is not synced never takes the place of what is: any sync of this file system by anybody may
         * make the rename durable, and leave the data behind. */
        if (close(fd) < 0 ||
            renameat(job->directory, temporary, job->directory, sync ? job->name : late) < 0) {
                bj_fail_errno(error, "rename", job->name);
                unlinkat(job->directory, temporary, 0);
                return FALSE;
        }
        if (!sync)
                return TRUE;
        if (!test_omits("directory-sync") && fsync(job->directory) < 0)
                return bj_fail_errno(error, "sync the directory of", job->name);
        unlinkat(job->directory, late, 0);
        return TRUE;
}

static gboolean remove_file(const Write *job, GError **error)
{
        g_autofree char *late = late_name(job->name);

        if ((unlinkat(job->directory, job->name, 0) < 0 && errno != ENOENT) || fsync(job->directory) < 0)
                return bj_fail_errno(error, "remove", job->name);
        unlinkat(job->directory, late, 0);
        return TRUE;
}

static void write_thread(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
        const Write *job = data;
        GError *error = NULL;

        (void) source;
        (void) cancellable;
        if (job->text ? write_file(job, &error) : remove_file(job, &error))
                g_task_return_boolean(task, TRUE);
        else
                g_task_return_error(task, error);
}

static void on_written(GObject *source, GAsyncResult *result, gpointer data)
{
        Write *job = g_task_get_task_data(G_TASK(result));
        GQueue *queue = g_hash_table_lookup(job->journal->queues, job->key);
        g_autoptr(GTask) next = g_queue_pop_head(queue);
        g_autoptr(GError) error = NULL;

        (void) source;
        (void) data;
        if (next)
                g_task_run_in_thread(next, write_thread);
        else
                g_hash_table_remove(job->journal->queues, job->key);
        g_task_propagate_boolean(G_TASK(result), &error);
        if (job->done)
                job->done(error, job->data);
}

static char *key_of(JournalKind kind, const char *name)
{
        return g_strdup_printf("%s/%s", kind_names[kind], name);
}

static void run(Journal *journal, JournalKind kind, const char *name, char *text,
                JournalDurability durability, JournalDone done, gpointer data)
{
        g_autoptr(GTask) task = g_task_new(NULL, NULL, on_written, NULL);
        Write *job = g_new(Write, 1);
        GQueue *queue;

        *job = (Write){
                .journal = journal,
                .directory = journal->kinds[kind],
                .key = key_of(kind, name),
                .name = g_strconcat(name, SUFFIX, NULL),
                .text = text,
                .durability = durability,
                .done = done,
                .data = data,
        };
        /* A guest may be held while this runs. */
        g_task_set_priority(task, G_PRIORITY_HIGH);
        g_task_set_task_data(task, job, write_free);
        queue = g_hash_table_lookup(journal->queues, job->key);
        if (queue) {
                g_queue_push_tail(queue, g_steal_pointer(&task));
                return;
        }
        g_hash_table_insert(journal->queues, g_strdup(job->key), g_queue_new());
        g_task_run_in_thread(task, write_thread);
}

void journal_write(Journal *journal, JournalKind kind, const char *name, JsonObject *record,
                   JournalDurability durability, JournalDone done, gpointer data)
{
        json_object_set_int_member(record, "version", JOURNAL_VERSION);
        json_object_set_string_member(record, "kind", kind_names[kind]);
        json_object_set_int_member(record, "sequence", ++journal->sequence);
        run(journal, kind, name, json_text(record), durability, done, data);
        json_object_unref(record);
}

gboolean journal_mark(Journal *journal, JournalKind kind, const char *name, JsonObject *members)
{
        g_autofree char *key = key_of(kind, name), *file = g_strconcat(name, SUFFIX LATE, NULL);
        g_autofree char *text = json_text(members), *line = g_strconcat("\n", text, NULL);
        gboolean done = FALSE;
        int fd = -1;

        json_object_unref(members);
        /* What is on its way there would take its place. */
        if (!g_hash_table_contains(journal->queues, key))
                fd = openat(journal->kinds[kind], file,
                            O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0) {
                done = write(fd, line, strlen(line)) == (gssize) strlen(line);
                close(fd);
        }
        return done;
}

void journal_remove(Journal *journal, JournalKind kind, const char *name, JournalDone done, gpointer data)
{
        run(journal, kind, name, NULL, JOURNAL_SYNCED, done, data);
}

/* NULL, and why, where the file cannot be read. */
static char *read_text(int directory, const char *file, gsize *length, const char **why)
{
        /* Anything may lie there; opening a pipe must not wait for a writer. */
        int fd = openat(directory, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        g_autofree char *text = NULL;
        struct stat st;
        gssize n = -1;

        if (fd < 0 || fstat(fd, &st) < 0)
                *why = g_strerror(errno);
        else if (!S_ISREG(st.st_mode))
                *why = "it is no file";
        else if (st.st_size == 0)
                *why = "it is empty";
        else if (st.st_size >= RECORD_MAX)
                *why = "it is too large";
        else {
                text = g_malloc((gsize) st.st_size);
                n = read(fd, text, (gsize) st.st_size);
                if (n <= 0)
                        *why = n < 0 ? g_strerror(errno) : "it is empty";
        }
        if (fd >= 0)
                close(fd);
        *length = n > 0 ? (gsize) n : 0;
        return n > 0 ? g_steal_pointer(&text) : NULL;
}

static JsonObject *parse_object(const char *text, gsize length, JsonParser *parser)
{
        JsonNode *root;

        if (!json_is_shallow(text, length, NESTING_MAX) ||
            !json_parser_load_from_data(parser, text, (gssize) length, NULL) ||
            !(root = json_parser_get_root(parser)) || !JSON_NODE_HOLDS_OBJECT(root))
                return NULL;
        return json_node_get_object(root);
}

static JsonObject *parse_record(const char *text, gsize length, JournalKind kind, JsonParser *parser,
                                const char **why)
{
        JsonObject *object = parse_object(text, length, parser);

        if (!object)
                *why = "it is no JSON object";
        else if (g_strcmp0(json_string(object, "kind"), kind_names[kind]) != 0)
                *why = "it is of another kind";
        else if (json_integer(object, "version") > JOURNAL_VERSION)
                *why = "a newer blockjobd wrote it";
        else if (json_integer(object, "version") != JOURNAL_VERSION)
                *why = "it is of no version that is known";
        else
                return object;
        return NULL;
}

static JsonObject *read_record(int directory, const char *file, JournalKind kind, JsonParser *parser,
                               const char **why)
{
        gsize length;
        g_autofree char *text = read_text(directory, file, &length, why);

        return text ? parse_record(text, length, kind, parser, why) : NULL;
}

/* Under a name that nothing has yet: what was set aside before stays as well. */
static char *set_aside(int directory, const char *file)
{
        g_autofree char *first = g_strconcat(file, ASIDE, NULL), *name = g_strdup(first);
        g_autofree char *late = late_name(file), *late_aside = NULL;

        for (guint i = 2; faccessat(directory, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0; i++) {
                g_free(name);
                name = g_strdup_printf("%s-%u", first, i);
        }
        renameat(directory, file, directory, name);
        late_aside = late_name(name);
        renameat(directory, late, directory, late_aside);
        return g_steal_pointer(&name);
}

gboolean journal_has_set_aside(const Journal *journal, JournalKind kind, const char *name)
{
        g_autofree char *file = g_strconcat(name, SUFFIX ASIDE, NULL);

        return faccessat(journal->kinds[kind], file, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static gboolean is_alone(int directory, const char *late)
{
        g_autofree char *file = g_strndup(late, strlen(late) - strlen(LATE));

        return faccessat(directory, file, F_OK, AT_SYMLINK_NOFOLLOW) < 0;
}

/* The records' file names, and nothing else; what a crash has left of a write or of a removal is removed. */
static GPtrArray *list_records(int directory, const char *path)
{
        g_autoptr(GDir) entries = g_dir_open(path, 0, NULL);
        GPtrArray *files = g_ptr_array_new_with_free_func(g_free);
        const char *entry;

        while (entries && (entry = g_dir_read_name(entries)))
                if ((*entry == '.' && g_str_has_suffix(entry, SUFFIX TEMPORARY)) ||
                    (g_str_has_suffix(entry, SUFFIX LATE) && is_alone(directory, entry)))
                        unlinkat(directory, entry, 0);
                else if (*entry != '.' && g_str_has_suffix(entry, SUFFIX))
                        g_ptr_array_add(files, g_strdup(entry));
        return files;
}

static void add_marks(JsonObject *record, const char *text, gsize length)
{
        g_auto(GStrv) lines = NULL;
        g_autofree char *rest = g_strndup(text, length);

        lines = g_strsplit(rest, "\n", -1);
        for (guint i = 0; lines[i]; i++) {
                g_autoptr(JsonParser) parser = json_parser_new_immutable();
                JsonObject *marks = parse_object(lines[i], strlen(lines[i]), parser);
                g_autoptr(GList) members = marks ? json_object_get_members(marks) : NULL;

                for (GList *member = members; member; member = member->next)
                        json_object_set_member(record, member->data,
                                               json_object_dup_member(marks, member->data));
        }
}

/* The record beside it, if it is whole and newer; after a loss of power it may be anything. */
static JsonObject *read_late(int directory, const char *file, JournalKind kind, JsonParser *parser,
                             JsonObject *record)
{
        g_autofree char *late = late_name(file), *text = NULL;
        const char *why, *end;
        JsonObject *newer;
        gsize length, first;

        text = read_text(directory, late, &length, &why);
        if (!text)
                return NULL;
        end = memchr(text, '\n', length);
        first = end ? (gsize) (end - text) : length;
        newer = parse_record(text, first, kind, parser, &why);
        if (newer)
                add_marks(newer, text + first, length - first);
        return newer && json_integer(newer, "sequence") > json_integer(record, "sequence") ? newer : NULL;
}

void journal_read(Journal *journal, JournalKind kind,
                  gboolean (*each)(const char *name, JsonObject *record, gpointer data),
                  void (*damaged)(const char *path, const char *why, gpointer data), gpointer data)
{
        g_autofree char *path = g_build_filename(journal->directory, kind_names[kind], NULL);
        /* Listed first: setting records aside renames files in this directory. */
        g_autoptr(GPtrArray) files = list_records(journal->kinds[kind], path);

        for (guint i = 0; i < files->len; i++) {
                const char *file = files->pdata[i], *why = "it makes no sense";
                g_autofree char *name = g_strndup(file, strlen(file) - strlen(SUFFIX));
                g_autoptr(JsonParser) parser = json_parser_new_immutable();
                g_autoptr(JsonParser) late_parser = json_parser_new();
                JsonObject *record = read_record(journal->kinds[kind], file, kind, parser, &why);
                JsonObject *late =
                        record ? read_late(journal->kinds[kind], file, kind, late_parser, record) : NULL;

                if (record)
                        journal->sequence =
                                MAX(journal->sequence, json_integer(late ? late : record, "sequence"));
                if ((late && each(name, late, data)) || (record && each(name, record, data)))
                        continue;
                g_autofree char *aside = set_aside(journal->kinds[kind], file);
                g_autofree char *full = g_build_filename(path, aside, NULL);
                damaged(full, why, data);
        }
}
