/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/domain.h"

/* The XML of a domain as it is now. */

char *domain_describe(const Domain *domain, gboolean inactive)
{
        gboolean runs = !domain->gone && !inactive;
        g_autoptr(GPtrArray) chains = g_ptr_array_new_with_free_func((GDestroyNotify) g_ptr_array_unref);
        g_autofree DiskImages *disks = g_new0(DiskImages, domain->disks->len + 1);
        guint n = 0;

        for (guint i = 0; i < domain->disks->len; i++) {
                const Disk *disk = domain->disks->pdata[i];
                const DefinitionDisk *definition = definition_disk(domain->definition, disk->target);
                const Job *job = disk->job && disk->job->announced ? disk->job : NULL;

                if (!definition)
                        continue; /* plugged in by somebody else */
                g_ptr_array_add(chains, disk_images(disk, 0));
                disks[n].target = disk->target;
                disks[n].images = chains->pdata[chains->len - 1];
                disks[n].whole_chain = runs || definition->backing != NULL;
                if (!inactive && job && job->driver->two_phase && !job->driver->external) {
                        disks[n].mirror_job = job->driver->type;
                        disks[n].mirror = (ImageName){ job->target, job->target_format };
                        disks[n].mirror_ready = job_is_ready(job);
                }
                n++;
        }
        return definition_to_xml(domain->definition, disks, n, runs ? domain->pid : 0);
}
