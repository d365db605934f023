/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/images.h"

#include <string.h>

#include "base/error.h"
#include "image/inspect.h"

/* A file that is to be looked at. */
typedef struct {
        char *path, *format, *template;
        char *disk; /* its target, NULL: no disk's */
        guint index;
        gboolean write;
        GPtrArray *chain; /* ImageName, as the jobs have left it; NULL: its header says it */
} Need;

typedef struct {
        Domain *domain;
        Account *account;
        gboolean tolerant;
        GPtrArray *needs, *chains;
        guint next;
        ImagesInspected done;
        gpointer data;
} Inspection;

static void need_free(gpointer data)
{
        Need *need = data;

        g_free(need->path);
        g_free(need->format);
        g_free(need->template);
        g_free(need->disk);
        g_clear_pointer(&need->chain, g_ptr_array_unref);
        g_free(need);
}

static void open_image_free(gpointer data)
{
        OpenImage *image = data;

        g_free(image->source);
        g_free(image->format);
        g_free(image);
}

static void unref_chain(gpointer chain)
{
        if (chain)
                g_ptr_array_unref(chain);
}

/* ---- what is needed ---- */

static void add_file(Inspection *inspection, const char *path, const char *template, gboolean write)
{
        Need *need;

        if (!path)
                return;
        need = g_new0(Need, 1);
        *need = (Need){ .path = g_strdup(path),
                        .format = g_strdup("raw"),
                        .template = g_strdup(template),
                        .write = write };
        g_ptr_array_add(inspection->needs, need);
}

static void add_disk(Inspection *inspection, guint index)
{
        const DefinitionDisk *definition = inspection->domain->definition->disks->pdata[index];
        const Disk *disk = domain_disk(inspection->domain, definition->target);
        const Layer *active = disk ? chain_layer(disk->chain, 0) : NULL;
        Need *need;

        if (!active)
                return; /* no medium */
        need = g_new0(Need, 1);
        *need = (Need){
                .path = g_strdup(active->source),
                .format = g_strdup(active->format),
                .disk = g_strdup(disk->target),
                .index = index,
                .write = !definition->read_only && !definition->cdrom && !inspection->tolerant,
                .chain = definition->backing ? disk_images(disk, 1) : NULL,
        };
        g_ptr_array_add(inspection->needs, need);
}

/* ---- one after the other ---- */

static void go_on(Inspection *inspection);

static void finish(Inspection *inspection, const GError *error)
{
        inspection->done(inspection->domain, inspection->chains, error, inspection->data);
        g_ptr_array_unref(inspection->needs);
        g_ptr_array_unref(inspection->chains);
        account_unref(inspection->account);
        domain_unref(inspection->domain);
        g_free(inspection);
}

static void take_layers(Inspection *inspection, const Need *need, const GPtrArray *layers)
{
        Disk *disk = domain_disk(inspection->domain, need->disk);
        GPtrArray *images = g_ptr_array_new_with_free_func(open_image_free);
        Chain *chain = chain_new_closed();

        for (guint i = 0; i < layers->len; i++) {
                const ImageLayer *seen = layers->pdata[i];
                OpenImage *image = g_new(OpenImage, 1);
                const Layer layer = { (char *) "",          seen->source,       seen->format,
                                      seen->backing,        seen->virtual_size, seen->allocated,
                                      i > 0 || !need->write };

                *image = (OpenImage){ g_strdup(seen->source), g_strdup(seen->format), seen->is_block,
                                      seen->device, seen->inode };
                g_ptr_array_add(images, image);
                chain_add(chain, &layer);
        }
        inspection->chains->pdata[need->index] = images;
        if (disk && inspection->domain->gone && !disk->job) {
                if (disk_set_chain(disk, chain) && inspection->domain->shown)
                        domain_save(inspection->domain);
        } else
                chain_free(chain);
}

static void on_inspected(GPtrArray *layers, const GError *error, gpointer data)
{
        Inspection *inspection = data;
        const Need *need = inspection->needs->pdata[inspection->next++];
        g_autoptr(GError) named = NULL;

        if (error && !inspection->tolerant) {
                named = g_error_copy(error);
                if (need->disk)
                        g_prefix_error(&named, "disk '%s' of domain '%s': ", need->disk,
                                       inspection->domain->name);
                else
                        g_prefix_error(&named, "domain '%s': ", inspection->domain->name);
                finish(inspection, named);
                return;
        }
        if (!error && need->disk)
                take_layers(inspection, need, layers);
        go_on(inspection);
}

static void go_on(Inspection *inspection)
{
        const Need *need;

        if (inspection->next == inspection->needs->len) {
                finish(inspection, NULL);
                return;
        }
        need = inspection->needs->pdata[inspection->next];
        image_inspect(&(InspectRequest){ .path = need->path,
                                         .format = need->format,
                                         .template = need->template,
                                         .chain = need->chain,
                                         .account = inspection->account,
                                         .want_write = need->write,
                                         .follow = need->disk != NULL },
                      on_inspected, inspection);
}

static Inspection *inspection_new(Domain *domain, const Account *account, ImagesInspected done,
                                  gpointer data)
{
        Inspection *inspection = g_new0(Inspection, 1);

        inspection->domain = domain_ref(domain);
        inspection->account = account ? account_ref((Account *) account) : NULL;
        inspection->tolerant = account == NULL;
        inspection->needs = g_ptr_array_new_with_free_func(need_free);
        inspection->chains = g_ptr_array_new_with_free_func(unref_chain);
        g_ptr_array_set_size(inspection->chains, (gint) domain->definition->disks->len);
        inspection->done = done;
        inspection->data = data;
        return inspection;
}

void images_inspect(Domain *domain, const Account *account, ImagesInspected done, gpointer data)
{
        Inspection *inspection = inspection_new(domain, account, done, data);
        const Definition *definition = domain->definition;

        for (guint i = 0; i < definition->disks->len; i++)
                add_disk(inspection, i);
        if (account) {
                add_file(inspection, definition->kernel, NULL, FALSE);
                add_file(inspection, definition->initrd, NULL, FALSE);
                add_file(inspection, definition->loader, NULL, FALSE);
                add_file(inspection, definition->nvram, definition->nvram_template, TRUE);
        }
        go_on(inspection);
}

void images_inspect_disk(Disk *disk, const Account *account, ImagesInspected done, gpointer data)
{
        Inspection *inspection = inspection_new(disk->domain, account, done, data);
        GPtrArray *disks = disk->domain->definition->disks;

        for (guint i = 0; i < disks->len; i++)
                if (strcmp(((DefinitionDisk *) disks->pdata[i])->target, disk->target) == 0)
                        add_disk(inspection, i);
        go_on(inspection);
}
