/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/json.h"
#include "job/plan.h"
#include "job/room.h"
#include "job/target-uri.h"
#include "job/target.h"

/* Formats that are created here. */
static const char *const formats[] = { "qcow2", "raw", NULL };

gboolean target_is_raw(const NewImage *image)
{
        return strcmp(image->format, "raw") == 0;
}

static gboolean check_descriptor(const Job *job, GError **error)
{
        struct stat st;
        int flags = fcntl(job->image->fd, F_GETFL);

        if (flags < 0 || fstat(job->image->fd, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) ||
            (flags & O_ACCMODE) != O_RDWR || (flags & (O_APPEND | O_PATH))) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "the target's descriptor has to be that of a file or block device, open for "
                            "reading and writing");
                return FALSE;
        }
        return TRUE;
}

static gboolean check_granularity(const Options *options, GError **error)
{
        guint64 granularity = options_number(options, "granularity");

        if (!options_has(options, "granularity") || (granularity >= 512 && granularity <= 64 * 1024 * 1024 &&
                                                     (granularity & (granularity - 1)) == 0))
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                    "option 'granularity': %" G_GUINT64_FORMAT
                    " is no power of two from 512 to 67108864 (64 MiB)",
                    granularity);
        return FALSE;
}

gboolean target_check(const Job *job, GError **error)
{
        const Options *options = job->options;
        NewImage *image = job->image;

        if (!check_granularity(options, error))
                return FALSE;
        if (options_flag(options, "relative") && options_flag(options, "reuse")) {
                g_set_error(
                        error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                        "options 'relative' and 'reuse' exclude each other: the header of a prepared image "
                        "is not changed");
                return FALSE;
        }
        if (image->fd >= 0)
                return check_descriptor(job, error);
        if (*job->target == '/')
                return TRUE;
        if (!target_is_uri(job->target)) {
                g_set_error(
                        error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                        "target '%s' is neither an absolute path nor an nbd:, nbd+unix:, rbd: or iscsi: URI",
                        job->target);
                return FALSE;
        }
        const char *driver = NULL;
        image->protocol = target_uri_to_blockdev(job->target, &driver, error);
        image->driver = g_strdup(driver);
        image->fixed = TRUE;
        return image->protocol != NULL;
}

static gboolean plan_protocol(Job *job)
{
        static const struct {
                const char *driver;
                Capability capability;
        } protocols[] = { { "nbd", CAPABILITY_NBD },
                          { "rbd", CAPABILITY_RBD },
                          { "iscsi", CAPABILITY_ISCSI } };
        const Capabilities *capabilities = job->host->capabilities;

        if (job->image->fd >= 0 && !capabilities->has[CAPABILITY_DESCRIPTORS]) {
                job_start_failed_new(job, BJ_ERROR_NOT_SUPPORTED,
                                     "the QEMU of domain '%s' takes no descriptors: it lacks add-fd",
                                     job->domain);
                return FALSE;
        }
        for (guint i = 0; i < G_N_ELEMENTS(protocols); i++) {
                if (!job->image->protocol || g_strcmp0(job->image->driver, protocols[i].driver) != 0 ||
                    capabilities->has[protocols[i].capability])
                        continue;
                job_start_failed_new(job, BJ_ERROR_NOT_SUPPORTED,
                                     "target '%s': the QEMU of domain '%s' lacks the block driver '%s'",
                                     job->target, job->domain, protocols[i].driver);
                return FALSE;
        }
        return TRUE;
}

static gboolean plan_format(Job *job, const Layer *like, const Layer *backing)
{
        const char *format = options_text(job->options, "format");

        if (!format)
                format = job->driver->silent ? "qcow2" : like->format;
        if (!g_strv_contains(formats, format)) {
                job_start_failed_new(job, BJ_ERROR_NOT_SUPPORTED,
                                     "'%s' has the format '%s', which is not created here: give the option "
                                     "'format' as 'qcow2' or 'raw'",
                                     like->source, format);
                return FALSE;
        }
        job->image->format = g_strdup(format);
        if (!target_is_raw(job->image) || (!backing && !options_flag(job->options, "compress")))
                return TRUE;
        job_start_failed_new(job, BJ_ERROR_INVALID_ARGUMENT, "target '%s': a raw image %s", job->target,
                             backing ? "has no backing file" : "is not compressed");
        return FALSE;
}

static void on_room_checked(Job *job, const GError *error)
{
        if (error) {
                job_start_failed(job, error);
                return;
        }
        job->target_node = g_strdup_printf("bj-%s-t", job->id);
        job_step_end(job);
}

/* Of a new file alone it is known what is in it. */
static void on_overlays_checked(Job *job, const GError *error)
{
        if (error || !job->image->fresh || job->driver->silent)
                on_room_checked(job, error);
        else
                room_check(job, job->target, on_room_checked);
}

static void on_examined(Job *job, const GError *error)
{
        g_autoptr(Chain) chain = g_steal_pointer(&job->plan);
        GPtrArray *changed;

        if (error) {
                job_start_failed(job, error);
                return;
        }
        room_estimate(job, chain, 0, job->image->backing ? 1 : chain->layers->len, 0);
        if (job->image->fresh || job->image->protocol || job->image->fd >= 0) {
                on_overlays_checked(job, NULL);
                return;
        }
        changed = g_ptr_array_new_with_free_func(g_free);
        g_ptr_array_add(changed, g_strdup(job->target));
        plan_check_overlays(job, changed, on_overlays_checked);
}

static void examine(Job *job)
{
        if (job->image->protocol || !job->host)
                on_examined(job, NULL);
        else
                files_examine_target(job, job->plan, plan_uses(job), on_examined);
}

static void on_related(Job *job, const GError *error)
{
        if (error) {
                on_examined(job, error);
                return;
        }
        job->image->backing = g_steal_pointer(&job->backing);
        examine(job);
}

void target_plan(Job *job, const Chain *chain, const Layer *like, const Layer *backing)
{
        const GraphNode *node = graph_node(job->host->graph, like->node);
        NewImage *image = job->image;

        if (!plan_protocol(job) || !plan_format(job, like, backing))
                return;
        image->reuse = options_flag(job->options, "reuse");
        image->size = like->virtual_size;
        if (!target_is_raw(image) && node && strcmp(node->driver, "qcow2") == 0) {
                image->cluster_size = node->cluster_size;
                image->extended_l2 = node->extended_l2;
        }
        image->direct = node && node->direct;
        job->target_format = g_strdup(image->format);
        job->plan = chain_copy_below(chain, 0);
        if (backing && !image->reuse) {
                image->backing_format = g_strdup(backing->format);
                if (options_flag(job->options, "relative")) {
                        files_relate(job, job->target, backing->source, on_related);
                        return;
                }
                image->backing = g_strdup(backing->source);
        }
        examine(job);
}
