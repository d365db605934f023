/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include "base/error.h"
#include "image/file.h"
#include "job/files.h"

/* Whether somebody else's overlay stands on an image that a job changes: of the images in the configured
 * directories, all those that no disk uses as well. */

typedef struct {
        Engine *engine;
        Job *job;
        GPtrArray *changed, *own; /* char * */
        /* With `force`, of the other disks: each layer, and the one that stands on it. */
        GPtrArray *lower, *upper;      /* char * */
        GArray *changed_ids, *own_ids; /* FileId; 0: no file that can be seen */
        GPtrArray *spoiled;            /* char *: with `force`, those that will be invalid */
        JobLooked done;
} Check;

static void check_free(Check *check)
{
        job_unref(check->job);
        g_ptr_array_unref(check->changed);
        g_ptr_array_unref(check->own);
        g_ptr_array_unref(check->lower);
        g_ptr_array_unref(check->upper);
        g_array_unref(check->changed_ids);
        g_array_unref(check->own_ids);
        g_ptr_array_unref(check->spoiled);
        g_free(check);
}

static void identify(const GPtrArray *paths, GArray *ids)
{
        g_autofree FileSeen *seen = files_seen(paths);

        for (guint i = 0; i < paths->len; i++) {
                FileId id = file_id(&seen[i].st);

                g_array_append_val(ids, id);
        }
}

static gboolean holds(const GArray *ids, guint64 device, guint64 inode)
{
        for (guint i = 0; inode && i < ids->len; i++) {
                const FileId *id = &g_array_index(ids, FileId, i);

                if (id->inode == inode && id->device == device)
                        return TRUE;
        }
        return FALSE;
}

static void find_spoiled_disks(const Check *check)
{
        g_autoptr(GArray) ids = g_array_new(FALSE, FALSE, sizeof(FileId));

        identify(check->lower, ids);
        for (guint i = 0; i < ids->len; i++) {
                const FileId *id = &g_array_index(ids, FileId, i);

                if (holds(check->changed_ids, id->device, id->inode))
                        g_ptr_array_add(check->spoiled, g_strdup(check->upper->pdata[i]));
        }
}

static void identify_all(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
        const Check *check = data;

        (void) source;
        (void) cancellable;
        identify(check->changed, check->changed_ids);
        identify(check->own, check->own_ids);
        find_spoiled_disks(check);
        g_task_return_boolean(task, TRUE);
}

/* A layer of the job's own chain, or what an earlier commit has left over. */
static gboolean is_of_no_account(const Check *check, const GPtrArray *stale, const ImageUser *user)
{
        return stale_base(stale, user->device, user->inode) ||
               holds(check->own_ids, user->device, user->inode);
}

static gboolean check_one(const Check *check, guint index, const GPtrArray *stale, GError **error)
{
        const FileId *id = &g_array_index(check->changed_ids, FileId, index);
        const char *path = check->changed->pdata[index];
        g_autoptr(GPtrArray) users = image_index_users(
                check->engine->index, &(ImageId){ id->device, id->inode, path }, FALSE, NULL);

        for (guint i = 0; i < users->len; i++) {
                const ImageUser *user = users->pdata[i];

                if (is_of_no_account(check, stale, user))
                        continue;
                if (options_flag(check->job->options, "force")) {
                        g_ptr_array_add(check->spoiled, g_strdup(user->path));
                        continue;
                }
                g_set_error(error, BJ_ERROR, BJ_ERROR_IMAGE_IN_USE,
                            "'%s' is the %s of '%s', which would be invalid; option 'force' does it all the "
                            "same",
                            path, user->part == IMAGE_PART_DATA ? "data file" : "backing file", user->path);
                return FALSE;
        }
        return TRUE;
}

GPtrArray *engine_list_unknown(Engine *engine)
{
        g_autoptr(GPtrArray) images = engine->index ? image_index_unknown(engine->index) : NULL;
        GPtrArray *texts = g_ptr_array_new_with_free_func(g_free);

        for (guint i = 0; images && i < images->len; i++) {
                const ImageUnknown *image = images->pdata[i];

                g_ptr_array_add(texts, g_strdup_printf("'%s': %s", image->path, image->why));
        }
        return texts;
}

/* It is no reason to refuse a job, for nothing could be done about it. */
static void warn_of_unknown(const Check *check)
{
        g_autoptr(GPtrArray) texts = engine_list_unknown(check->engine);
        g_autofree char *text = NULL;

        if (texts->len == 0 || !check->job->host)
                return;
        text = g_strdup_printf(
                "of %u images or directories it is not known whether they stand on an image that the "
                "job changes, the first is %s",
                texts->len, (const char *) texts->pdata[0]);
        check->engine->observer->warning(domain_shown((Domain *) check->job->host), check->job, text,
                                         check->engine->data);
}

static void on_stale_seen(const GPtrArray *stale, gpointer data)
{
        Check *check = data;
        g_autoptr(GError) error = NULL;

        for (guint i = 0;
             check->engine->index && i < check->changed->len && check_one(check, i, stale, &error); i++)
                ;
        if (!error)
                warn_of_unknown(check);
        g_clear_pointer(&check->job->spoiled, g_ptr_array_unref);
        check->job->spoiled = g_ptr_array_ref(check->spoiled);
        check->done(check->job, error);
        check_free(check);
}

static void on_identified(GObject *source, GAsyncResult *result, gpointer data)
{
        Check *check = g_task_get_task_data(G_TASK(result));

        (void) source;
        (void) data;
        engine_see_stale(check->engine, TRUE, on_stale_seen, check);
}

static void on_refreshed(gboolean complete, gpointer data)
{
        Check *check = data;
        g_autoptr(GTask) task = g_task_new(NULL, NULL, on_identified, NULL);

        (void) complete; /* those that did not answer are among the unknown */
        g_task_set_task_data(task, check, NULL);
        g_task_run_in_thread(task, identify_all);
}

static void list_disks(Check *check, const Disk *own)
{
        for (guint i = 0; i < check->engine->domains->len; i++) {
                const Domain *domain = check->engine->domains->pdata[i];

                for (guint j = 0; j < domain->disks->len; j++) {
                        const Disk *disk = domain->disks->pdata[j];

                        for (guint k = 1; disk != own && k < disk->chain->layers->len; k++) {
                                g_ptr_array_add(check->lower, g_strdup(chain_layer(disk->chain, k)->source));
                                g_ptr_array_add(check->upper,
                                                g_strdup(chain_layer(disk->chain, k - 1)->source));
                        }
                }
        }
}

void engine_check_overlays(JobHost *host, Job *job, GPtrArray *changed, JobLooked done)
{
        Engine *engine = host->observer_data;
        const Domain *domain = domain_shown((Domain *) host);
        const Disk *disk = domain_disk((Domain *) domain, job->disk);
        Check *check;

        if (!engine->index) {
                g_ptr_array_unref(changed);
                done(job, NULL);
                return;
        }
        check = g_new(Check, 1);
        *check = (Check){ engine,
                          job_ref(job),
                          changed,
                          g_ptr_array_new_with_free_func(g_free),
                          g_ptr_array_new_with_free_func(g_free),
                          g_ptr_array_new_with_free_func(g_free),
                          g_array_new(FALSE, FALSE, sizeof(FileId)),
                          g_array_new(FALSE, FALSE, sizeof(FileId)),
                          g_ptr_array_new_with_free_func(g_free),
                          done };
        for (guint i = 0; disk && i < disk->chain->layers->len; i++)
                g_ptr_array_add(check->own, g_strdup(chain_layer(disk->chain, i)->source));
        /* Those are out of the chain by the time that they are to be removed. */
        g_ptr_array_extend_and_steal(check->own, files_names(job->stale));
        if (options_flag(job->options, "force"))
                list_disks(check, disk);
        image_index_refresh(engine->index, REFRESH_MILLISECONDS, on_refreshed, check);
}
