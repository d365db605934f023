/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/domain.h"

#include <string.h>

void disk_free(Disk *disk)
{
        job_unref(disk->job);
        disk_set_copy(disk, NULL, NULL, 0);
        chain_free(disk->chain);
        g_free(disk->target);
        g_free(disk->device);
        g_free(disk);
}

void disk_set_copy(Disk *disk, const char *target, const Options *options, guint32 uid)
{
        struct DiskCopy *copy = disk->copy;
        JsonObject *json;

        disk->copy = NULL;
        if (copy) {
                g_free(copy->target);
                g_ptr_array_unref(copy->options);
                g_free(copy);
        }
        if (!target)
                return;
        json = options_to_json(options);
        disk->copy = g_new(struct DiskCopy, 1);
        *disk->copy = (struct DiskCopy){ g_strdup(target), options_from_json(json), uid };
        json_object_unref(json);
}

Disk *domain_add_disk(Domain *domain, const char *target, const char *device, Chain *chain)
{
        Disk *disk = g_new0(Disk, 1);

        disk->domain = domain;
        disk->target = g_strdup(target);
        disk->device = g_strdup(device);
        disk->chain = chain;
        g_ptr_array_add(domain->disks, disk);
        return disk;
}

Disk *domain_disk(Domain *domain, const char *target)
{
        for (guint i = 0; i < domain->disks->len; i++) {
                Disk *disk = domain->disks->pdata[i];
                if (strcmp(disk->target, target) == 0)
                        return disk;
        }
        return NULL;
}

const char *disk_source(const Disk *disk)
{
        const Layer *active = chain_layer(disk->chain, 0);

        return active ? active->source : "";
}

static void changed(Disk *disk, guint changes)
{
        if (changes && disk->domain->observer)
                disk->domain->observer->disk_changed(disk, changes, disk->domain->observer_data);
}

void disk_set_job(Disk *disk, Job *job)
{
        g_autoptr(Job) old = disk->job;

        if (old == job) {
                g_steal_pointer(&old);
                return;
        }
        disk->job = job ? job_ref(job) : NULL;
        /* A job that nobody knows of yet holds the disk all the same. */
        if ((old && old->announced) || (job && job->announced))
                changed(disk, DISK_CHANGED_JOB);
}

static guint compare(const Chain *old, const Chain *new)
{
        static const Layer none = { (char *) "", (char *) "", (char *) "", (char *) "", 0, 0, FALSE };
        const Layer *before = chain_layer(old, 0) ? chain_layer(old, 0) : &none;
        const Layer *after = chain_layer(new, 0) ? chain_layer(new, 0) : &none;
        guint changes = 0;

        if (strcmp(old->root, new->root) != 0)
                changes |= DISK_CHANGED_NODE;
        if (strcmp(before->source, after->source) != 0)
                changes |= DISK_CHANGED_SOURCE;
        if (strcmp(before->format, after->format) != 0)
                changes |= DISK_CHANGED_FORMAT;
        if (before->virtual_size != after->virtual_size)
                changes |= DISK_CHANGED_CAPACITY;
        if (before->read_only != after->read_only)
                changes |= DISK_CHANGED_READ_ONLY;
        if (!g_strv_equal((const char *const *) old->filters, (const char *const *) new->filters))
                changes |= DISK_CHANGED_FILTERS;
        if (!chain_equal(old, new))
                changes |= DISK_CHANGED_CHAIN;
        return changes;
}

gboolean disk_set_chain(Disk *disk, Chain *chain)
{
        g_autoptr(Chain) old = disk->chain;

        disk->chain = chain;
        changed(disk, compare(old, chain));
        return !chain_same_images(old, chain);
}

gboolean disk_take_pivot(Disk *disk, const Job *job)
{
        Chain *chain = NULL;

        /* It has been done already where the disk is another image than the one that the job began with. */
        if (strcmp(disk_source(disk), job->source) == 0)
                chain = chain_pivoted(disk->chain, job->below ? job->below : "",
                                      job->driver->adds_layer ? job->target : NULL, job->target_format);
        return chain && disk_set_chain(disk, chain);
}

static Disk *disk_of_device(Domain *domain, const char *device)
{
        for (guint i = 0; i < domain->disks->len; i++) {
                Disk *disk = domain->disks->pdata[i];
                if (strcmp(disk->device, device) == 0)
                        return disk;
        }
        return NULL;
}

/* A disk keeps its name for as long as its device is there, whatever else comes and goes. */
static void add_disk(Domain *domain, const GraphRoot *root, Chain *chain)
{
        g_autofree char *target = g_strdup(root->target);
        Disk *disk;

        for (guint n = 2; domain_disk(domain, target); n++) {
                g_free(target);
                target = g_strdup_printf("%s-%u", root->target, n);
        }
        disk = domain_add_disk(domain, target, root->device, chain);
        for (guint i = 0; i < domain->jobs->len; i++)
                if (strcmp(((Job *) domain->jobs->pdata[i])->device, disk->device) == 0)
                        disk_set_job(disk, domain->jobs->pdata[i]);
        domain->observer->disk_added(disk, domain->observer_data);
}

static gboolean update_disk(Domain *domain, const GraphRoot *root)
{
        g_autoptr(GError) error = NULL;
        Disk *disk = disk_of_device(domain, root->device);
        Chain *chain = chain_new(root, &error);

        if (!chain) {
                domain->observer->warning(domain, error->message, domain->observer_data);
                return FALSE;
        }
        if (disk)
                return disk_set_chain(disk, chain);
        add_disk(domain, root, chain);
        return TRUE;
}

gboolean domain_update_disks(Domain *domain)
{
        gboolean removed = FALSE, changed_images = FALSE;
        guint left;

        for (guint i = domain->disks->len; i-- > 0;) {
                Disk *disk = domain->disks->pdata[i];

                if (graph_root(domain->host.graph, disk->device))
                        continue;
                domain->observer->disk_removed(disk, domain->observer_data);
                g_ptr_array_remove_index(domain->disks, i);
                removed = TRUE;
        }
        left = domain->disks->len;
        for (guint i = 0; i < domain->host.graph->roots->len; i++)
                changed_images |= update_disk(domain, domain->host.graph->roots->pdata[i]);
        if (removed || domain->disks->len != left)
                domain->observer->changed(domain, DOMAIN_CHANGED_DISKS, domain->observer_data);
        return removed || changed_images;
}

GPtrArray *disk_images(const Disk *disk, guint from)
{
        GPtrArray *images = image_names_new();

        for (guint i = from; i < disk->chain->layers->len; i++) {
                const Layer *layer = chain_layer(disk->chain, i);

                g_ptr_array_add(images, image_name_new(layer->source, layer->format));
        }
        return images;
}
