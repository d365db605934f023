/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gio/gio.h>

#include "base/error.h"
#include "base/json.h"
#include "job/users.h"
#include "base/test-point.h"

/* One piece of work: what the thread needs, and what it found. The job itself belongs to the main loop. */
typedef struct Work {
        Job *job;
        FilesDone done;
        gboolean (*run)(struct Work *work, GError **error);
        void (*apply)(struct Work *work); /* in the main loop, where `run` had no error; may be NULL */
        char *path, *other, *text;
        char *unknown; /* what `run` could not tell, for a warning */
        GPtrArray *paths, *changed, *uses;
        GPtrArray *files, *images; /* FileIdentity */
        gboolean exists, is_block, reuse, closed;
        const char *(*each)(const struct Work *work, const FileIdentity *file); /* NULL: nothing is wrong */
        const char *complaint;
        gboolean other_boot; /* the numbers of devices may be others by now */
        dev_t device;
        ino_t inode;
} Work;

static void work_free(gpointer data)
{
        Work *work = data;

        job_unref(work->job);
        g_free(work->path);
        g_free(work->other);
        g_free(work->text);
        g_free(work->unknown);
        g_clear_pointer(&work->paths, g_ptr_array_unref);
        g_clear_pointer(&work->changed, g_ptr_array_unref);
        g_clear_pointer(&work->uses, g_ptr_array_unref);
        g_clear_pointer(&work->files, g_ptr_array_unref);
        g_clear_pointer(&work->images, g_ptr_array_unref);
        g_free(work);
}

static void work_thread(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
        Work *work = data;
        GError *error = NULL;

        (void) source;
        (void) cancellable;
        if (work->run(work, &error))
                g_task_return_boolean(task, TRUE);
        else
                g_task_return_error(task, error);
}

static void on_work_done(GObject *source, GAsyncResult *result, gpointer data)
{
        Work *work = g_task_get_task_data(G_TASK(result));
        g_autoptr(Job) job = job_ref(work->job);
        g_autoptr(GError) error = NULL;

        (void) source;
        (void) data;
        if (g_task_propagate_boolean(G_TASK(result), &error) && work->apply)
                work->apply(work);
        if (work->unknown && job->host)
                job->host->observer->warning(job, work->unknown, job->host->observer_data);
        work->done(job, error);
}

static Work *work_new(Job *job, gboolean (*run)(Work *work, GError **error), void (*apply)(Work *work),
                      FilesDone done)
{
        Work *work = g_new0(Work, 1);

        work->job = job_ref(job);
        work->run = run;
        work->apply = apply;
        work->done = done;
        return work;
}

static void work_start(Work *work)
{
        g_autoptr(GTask) task = g_task_new(NULL, NULL, on_work_done, NULL);

        g_task_set_task_data(task, work, work_free);
        g_task_run_in_thread(task, work_thread);
}

/* ---- identities ---- */

static void identity_free(gpointer data)
{
        FileIdentity *file = data;

        g_free(file->path);
        g_free(file);
}

static GPtrArray *identities_new(void)
{
        return g_ptr_array_new_with_free_func(identity_free);
}

static void add_identity(GPtrArray *files, const char *path, dev_t device, ino_t inode)
{
        FileIdentity *file = g_new(FileIdentity, 1);

        *file = (FileIdentity){ g_strdup(path), device, inode };
        g_ptr_array_add(files, file);
}

JsonArray *files_to_json(const GPtrArray *files)
{
        JsonArray *array = json_array_new();

        for (guint i = 0; i < files->len; i++) {
                const FileIdentity *file = files->pdata[i];
                json_array_add_object_element(array, json_make("s:path", file->path, "i:device",
                                                               (gint64) file->device, "i:inode",
                                                               (gint64) file->inode, NULL));
        }
        return array;
}

GPtrArray *files_from_json(JsonArray *array)
{
        GPtrArray *files = identities_new();

        for (guint i = 0; i < json_array_get_length(array); i++) {
                JsonObject *object = json_element(array, i);
                const char *path = json_string(object, "path");

                if (path)
                        add_identity(files, path, (dev_t) json_integer(object, "device"),
                                     (ino_t) json_integer(object, "inode"));
        }
        return files;
}

/* ---- relative names ---- */

static char *real_name(const char *path)
{
        g_autofree char *directory = g_path_get_dirname(path), *name = g_path_get_basename(path);
        g_autofree char *real = realpath(directory, NULL);
        g_autofree char *canonical = real ? NULL : g_canonicalize_filename(directory, "/");

        return g_build_filename(real ? real : canonical, name, NULL);
}

static gboolean run_relate(Work *work, GError **error)
{
        g_auto(GStrv) from = NULL, to = NULL;
        g_autoptr(GString) text = g_string_new(NULL);
        guint common = 0;

        if (*work->path != '/' || *work->other != '/') {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "option 'relative': '%s' is no local file and has no relative name",
                            *work->path != '/' ? work->path : work->other);
                return FALSE;
        }
        /* The kernel goes up from where a directory really is, not from where a symbolic link stands. */
        g_autofree char *real_from = real_name(work->path), *real_to = real_name(work->other);
        from = g_strsplit(real_from, "/", -1);
        to = g_strsplit(real_to, "/", -1);
        while (from[common] && to[common] && from[common + 1] && to[common + 1] &&
               strcmp(from[common], to[common]) == 0)
                common++;
        for (guint i = common; from[i + 1]; i++)
                g_string_append(text, "../");
        for (guint i = common; to[i]; i++)
                g_string_append_printf(text, "%s%s", to[i], to[i + 1] ? "/" : "");
        /* What stands before a colon would be taken for a protocol. */
        if (strcspn(text->str, ":") < strcspn(text->str, "/"))
                g_string_prepend(text, "./");
        work->text = g_strdup(text->str);
        return TRUE;
}

static void apply_relate(Work *work)
{
        g_free(work->job->backing);
        work->job->backing = g_steal_pointer(&work->text);
}

void files_relate(Job *job, const char *from, const char *to, FilesDone done)
{
        Work *work = work_new(job, run_relate, apply_relate, done);

        work->path = g_strdup(from);
        work->other = g_strdup(to);
        work_start(work);
}

/* ---- what a job makes invalid ---- */

static void identify(GPtrArray *files, const char *path, const struct stat *st)
{
        if (S_ISREG(st->st_mode))
                add_identity(files, path, st->st_dev, st->st_ino);
}

/* A disk of somebody else on storage that hangs is no reason to refuse a job, for nothing could be done
 * about it. */
static void look_at_uses(Work *work)
{
        if (!work->uses)
                return;
        image_uses_look(work->uses);
        work->unknown = users_unknown(work->uses);
}

/* `files` (NULL = none) gets what they are. */
static gboolean check_changed(Work *work, const GPtrArray *paths, GPtrArray *files, GError **error)
{
        g_autofree FileSeen *seen = files_seen(paths);

        look_at_uses(work);
        if (!files_have_answered(paths, seen, error) ||
            !users_check(work->closed ? NULL : work->job, work->uses, paths, seen,
                         "the job changes it or makes it invalid; option 'force' does it all the same",
                         error))
                return FALSE;
        for (guint i = 0; files && i < paths->len; i++)
                if (seen[i].there)
                        identify(files, paths->pdata[i], &seen[i].st);
        return TRUE;
}

static gboolean run_examine(Work *work, GError **error)
{
        g_autofree FileSeen *seen = NULL;

        work->files = identities_new();
        work->images = identities_new();
        if (!check_changed(work, work->changed, work->images, error))
                return FALSE;
        seen = files_seen(work->paths);
        for (guint i = 0; i < work->paths->len; i++)
                if (seen[i].there)
                        identify(work->files, work->paths->pdata[i], &seen[i].st);
        return TRUE;
}

static void apply_examine(Work *work)
{
        g_clear_pointer(&work->job->stale, g_ptr_array_unref);
        g_clear_pointer(&work->job->images, g_ptr_array_unref);
        work->job->stale = g_steal_pointer(&work->files);
        work->job->images = g_steal_pointer(&work->images);
}

void files_examine(Job *job, GPtrArray *paths, GPtrArray *changed, GPtrArray *uses, FilesDone done)
{
        Work *work = work_new(job, run_examine, apply_examine, done);

        work->paths = paths;
        work->changed = changed;
        work->uses = uses;
        work_start(work);
}

static GPtrArray *copy_identities(const GPtrArray *files)
{
        GPtrArray *copy = identities_new();

        for (guint i = 0; i < files->len; i++) {
                const FileIdentity *file = files->pdata[i];
                add_identity(copy, file->path, file->device, file->inode);
        }
        return copy;
}

/* NULL: it is what it was. */
static const char *what_became_of(const Work *work, const FileIdentity *file)
{
        struct stat st;

        if (stat(file->path, &st) < 0)
                return g_strerror(errno);
        if ((st.st_dev != file->device && !work->other_boot) || st.st_ino != file->inode)
                return "it is another file by now";
        return NULL;
}

/* Answers what is wrong, 0 = nothing. A directory that is not to be seen from here is not. */
static int sync_directory_of(const char *path)
{
        g_autofree char *directory = g_path_get_dirname(path);
        int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), failure;

        if (fd < 0)
                return 0;
        failure = fsync(fd) < 0 && errno != EINVAL ? errno : 0;
        close(fd);
        return failure;
}

/* Each of work->files, by work->each; the error lists those with which something is wrong. */
static gboolean run_for_each(Work *work, GError **error)
{
        g_autoptr(GString) complaints = g_string_new(NULL);

        for (guint i = 0; i < work->files->len; i++) {
                const FileIdentity *file = work->files->pdata[i];
                const char *why = work->each(work, file);

                if (why)
                        g_string_append_printf(complaints, "%s'%s' %s: %s", complaints->len ? "; " : "",
                                               file->path, work->complaint, why);
        }
        if (complaints->len == 0)
                return TRUE;
        g_set_error_literal(error, BJ_ERROR, BJ_ERROR_FAILED, complaints->str);
        return FALSE;
}

static void start_for_each(Job *job, const GPtrArray *files,
                           const char *(*each)(const Work *work, const FileIdentity *file),
                           const char *complaint, FilesDone done)
{
        Work *work = work_new(job, run_for_each, NULL, done);

        work->files = copy_identities(files);
        work->each = each;
        work->complaint = complaint;
        work->other_boot = !job_is_of_this_boot(job);
        work_start(work);
}

static const char *remove_stale(const Work *work, const FileIdentity *file)
{
        const char *why;
        struct stat st;

        /* Gone already: by an earlier start of the service, which did not get to write that down. */
        if (lstat(file->path, &st) < 0 && errno == ENOENT)
                return NULL;
        test_point("delete-file");
        why = what_became_of(work, file);
        if (!why && (unlink(file->path) < 0 || (errno = sync_directory_of(file->path)) != 0))
                why = g_strerror(errno);
        return why;
}

void files_remove_stale(Job *job, FilesDone done)
{
        start_for_each(job, job->stale, remove_stale, "could not be removed", done);
}

void files_check_images(Job *job, FilesDone done)
{
        start_for_each(job, job->images, what_became_of, "is not what it was when the job began", done);
}

GPtrArray *files_names(const GPtrArray *files)
{
        GPtrArray *names = g_ptr_array_new_with_free_func(g_free);

        for (guint i = 0; files && i < files->len; i++)
                g_ptr_array_add(names, g_strdup(((FileIdentity *) files->pdata[i])->path));
        return names;
}

static gboolean run_check_users(Work *work, GError **error)
{
        return check_changed(work, work->paths, NULL, error);
}

void files_check_users(Job *job, GPtrArray *paths, gboolean closed, GPtrArray *uses, FilesDone done)
{
        Work *work = work_new(job, run_check_users, NULL, done);

        work->paths = paths;
        work->closed = closed;
        work->uses = uses;
        work_start(work);
}

void files_note_image(Job *job, const char *path, guint64 device, guint64 inode)
{
        if (!job->images)
                job->images = identities_new();
        add_identity(job->images, path, device, inode);
}

/* ---- the image that a job writes into ---- */

static gboolean check_target(const Work *work, const FileSeen *seen, const char *consequence, GError **error)
{
        g_autoptr(GPtrArray) path = g_ptr_array_new();

        g_ptr_array_add(path, work->path);
        return users_check(work->job, work->uses, path, seen, consequence, error);
}

static gboolean examine_existing(Work *work, const struct stat *st, GError **error)
{
        work->exists = TRUE;
        work->is_block = S_ISBLK(st->st_mode);
        if (!work->is_block && !S_ISREG(st->st_mode)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "target '%s' is neither a file nor a block device", work->path);
                return FALSE;
        }
        for (guint i = 0; i < work->paths->len; i++) {
                if (!users_is_file(work->paths->pdata[i], st))
                        continue;
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "target '%s' is an image of disk '%s' itself", work->path, work->job->disk);
                return FALSE;
        }
        /* A block device is there before it is used, so that it says nothing of what is on it. */
        if (!work->reuse && !work->is_block) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_EXISTS,
                            "target '%s' exists: remove it, or give the option 'reuse' to write into it",
                            work->path);
                return FALSE;
        }
        return check_target(work, &(FileSeen){ TRUE, TRUE, *st },
                            "it would be overwritten; option 'force' does it all the same", error);
}

static gboolean examine_missing(Work *work, GError **error)
{
        g_autofree char *directory = g_path_get_dirname(work->path);
        struct stat st;

        if (work->reuse) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_NO_SUCH_IMAGE,
                            "target '%s' does not exist, and option 'reuse' asks to write into it",
                            work->path);
                return FALSE;
        }
        if (g_str_has_suffix(work->path, "/") || stat(directory, &st) < 0 || !S_ISDIR(st.st_mode)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "target '%s' cannot be created: there is no directory '%s'", work->path,
                            directory);
                return FALSE;
        }
        /* Somebody may be about to create it. */
        return check_target(work, &(FileSeen){ .answered = TRUE }, "it would be overwritten", error);
}

static gboolean run_examine_target(Work *work, GError **error)
{
        struct stat st;

        look_at_uses(work);
        if (stat(work->other, &st) == 0)
                return examine_existing(work, &st, error);
        if (errno == ENOENT)
                return examine_missing(work, error);
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "target '%s': %s", work->path,
                    g_strerror(errno));
        return FALSE;
}

static void apply_examine_target(Work *work)
{
        NewImage *image = work->job->image;

        image->fresh = !work->exists;
        image->fixed = work->is_block;
        g_free(image->driver);
        image->driver = g_strdup(work->is_block ? "host_device" : "file");
}

void files_examine_target(Job *job, const Chain *chain, GPtrArray *uses, FilesDone done)
{
        Work *work = work_new(job, run_examine_target, apply_examine_target, done);

        work->path = g_strdup(job->target);
        work->other = job->image->fd >= 0 ? g_strdup_printf("/proc/self/fd/%d", job->image->fd)
                                          : g_strdup(job->target);
        work->reuse = job->image->reuse || job->image->fd >= 0;
        work->uses = uses;
        work->paths = g_ptr_array_new_with_free_func(g_free);
        for (guint i = 0; i < chain->layers->len; i++)
                g_ptr_array_add(work->paths, g_strdup(chain_layer(chain, i)->source));
        work_start(work);
}

/* ---- the header of an overlay ---- */

static gboolean run_check_backing(Work *work, GError **error)
{
        g_autofree char *directory = g_path_get_dirname(work->path);
        g_autofree char *full =
                *work->text == '/' ? g_strdup(work->text) : g_build_filename(directory, work->text, NULL);
        struct stat st;

        /* What has a protocol is compared as text. */
        if (*work->text && (strcmp(work->text, work->other) == 0 ||
                            (stat(work->other, &st) == 0 && users_is_file(full, &st))))
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                    "the backing file of overlay '%s' is '%s' by its header, and not '%s'", work->path,
                    work->text, work->other);
        return FALSE;
}

void files_check_backing(Job *job, const char *overlay, const char *backing, const char *wanted,
                         FilesDone done)
{
        Work *work = work_new(job, run_check_backing, NULL, done);

        work->path = g_strdup(overlay);
        work->text = g_strdup(backing);
        work->other = g_strdup(wanted);
        work_start(work);
}

/* ---- directories ---- */

static gboolean run_sync_directory(Work *work, GError **error)
{
        int failure = test_omits("target-sync") ? 0 : sync_directory_of(work->path);

        if (failure == 0)
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_FAILED, "the directory of '%s' could not be synced: %s",
                    work->path, g_strerror(failure));
        return FALSE;
}

void files_sync_directory(Job *job, const char *path, FilesDone done)
{
        Work *work = work_new(job, run_sync_directory, NULL, done);

        work->path = g_strdup(path);
        work_start(work);
}

/* ---- the file that was created ---- */

static gboolean run_identify(Work *work, GError **error)
{
        struct stat st;

        (void) error;
        if (lstat(work->path, &st) == 0 && S_ISREG(st.st_mode)) {
                work->device = st.st_dev;
                work->inode = st.st_ino;
        }
        return TRUE;
}

static void apply_identify(Work *work)
{
        if (!work->job->image)
                return;
        work->job->image->device = work->device;
        work->job->image->inode = work->inode;
}

void files_identify_created(Job *job, FilesDone done)
{
        Work *work = work_new(job, run_identify, apply_identify, done);

        work->path = g_strdup(job->target);
        work_start(work);
}

static gboolean run_remove_created(Work *work, GError **error)
{
        struct stat st;

        (void) error;
        if (lstat(work->path, &st) == 0 && S_ISREG(st.st_mode) && st.st_dev == work->device &&
            st.st_ino == work->inode)
                unlink(work->path);
        return TRUE;
}

void files_remove_created(Job *job, FilesDone done)
{
        Work *work = work_new(job, run_remove_created, NULL, done);

        work->path = g_strdup(job->target);
        work->device = job->image->device;
        work->inode = job->image->inode;
        work_start(work);
}
