/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/map.h"

#include <string.h>

#include "base/error.h"
#include "domain/images.h"
#include "image/serve.h"

/* Nobody has the images of a domain that is off: a qemu-nbd reads them, with the rights that QEMU would
 * have. It takes no locks, so that it does not stand in the way of a start. */

#define END_SECONDS 5 /* how long it may take to end when its client has gone */

typedef struct {
        Domain *domain;
        char *target;
        const Surroundings *surroundings; /* there as long as the engine is */
        Account *account;
        MapPart part;
        MapDone done;
        gpointer data;

        GSubprocess *server;
        GCancellable *cancellable;
        NbdMap *nbd;
        guint timer, layers;
        GArray *ranges;
        GError *error;
} Closed;

static void finish(Closed *closed)
{
        closed->done(closed->error ? NULL : closed->ranges, closed->error, closed->data);
        g_clear_handle_id(&closed->timer, g_source_remove);
        nbd_map_free(closed->nbd);
        g_clear_pointer(&closed->ranges, g_array_unref);
        g_clear_error(&closed->error);
        g_clear_object(&closed->server);
        g_clear_object(&closed->cancellable);
        account_unref(closed->account);
        domain_unref(closed->domain);
        g_free(closed->target);
        g_free(closed);
}

static gboolean on_late(gpointer data)
{
        Closed *closed = data;

        closed->timer = 0;
        g_subprocess_force_exit(closed->server);
        /* One that hangs in the kernel does not even end by that. */
        g_cancellable_cancel(closed->cancellable);
        return G_SOURCE_REMOVE;
}

static void take_ranges(Closed *closed, const GArray *ranges)
{
        g_autoptr(GArray) levels = g_array_new(FALSE, FALSE, sizeof(guint32));

        for (guint32 i = 0; i < closed->layers; i++)
                g_array_append_val(levels, i);
        closed->ranges = map_depths(ranges, levels);
        if (!closed->ranges)
                closed->error = g_error_new(BJ_ERROR, BJ_ERROR_FAILED,
                                            "qemu-nbd tells of more layers than there are");
}

static void on_mapped(GArray *ranges, const GError *error, gpointer data)
{
        Closed *closed = data;

        if (error)
                closed->error = g_error_copy(error);
        else
                take_ranges(closed, ranges);
        g_clear_pointer(&closed->nbd, nbd_map_free);
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_TIMEOUT))
                on_late(closed);
        else
                closed->timer = g_timeout_add_seconds(END_SECONDS, on_late, closed);
}

static void on_ended(GObject *source, GAsyncResult *result, gpointer data)
{
        Closed *closed = data;
        g_autofree char *complaint = NULL;

        g_subprocess_communicate_utf8_finish(G_SUBPROCESS(source), result, NULL, &complaint, NULL);
        /* Why it went away it has said itself. */
        if (!closed->ranges && complaint && *g_strchomp(complaint) &&
            (!closed->error || g_error_matches(closed->error, BJ_ERROR, BJ_ERROR_DISCONNECTED))) {
                g_clear_error(&closed->error);
                closed->error = g_error_new(BJ_ERROR, bj_error_of_qemu(complaint), "disk '%s': %s",
                                            closed->target, complaint);
        }
        if (!closed->ranges && !closed->error)
                closed->error = g_error_new(BJ_ERROR, BJ_ERROR_FAILED, "disk '%s': qemu-nbd ended at once",
                                            closed->target);
        finish(closed);
}

static guint index_of(const Closed *closed)
{
        const GPtrArray *disks = closed->domain->definition->disks;
        guint i = 0;

        while (strcmp(((DefinitionDisk *) disks->pdata[i])->target, closed->target) != 0)
                i++;
        return i;
}

static void serve(Closed *closed, const GPtrArray *chain)
{
        const DefinitionDisk *disk = closed->domain->definition->disks->pdata[index_of(closed)];
        g_autofree char *image = definition_image(disk, chain, &closed->error);
        int listener, client;

        if (!image ||
            !nbd_prepare(closed->surroundings->runtime_directory, &listener, &client, &closed->error)) {
                finish(closed);
                return;
        }
        closed->layers = chain->len;
        closed->nbd = nbd_map_new(client, MAP_ID, &closed->part, on_mapped, closed);
        closed->server = image_serve(image, MAP_ID, closed->account, listener, &closed->error);
        if (!closed->server) {
                finish(closed);
                return;
        }
        closed->cancellable = g_cancellable_new();
        g_subprocess_communicate_utf8_async(closed->server, NULL, closed->cancellable, on_ended, closed);
}

static void on_inspected(Domain *domain, GPtrArray *chains, const GError *error, gpointer data)
{
        Closed *closed = data;
        const GPtrArray *chain = error ? NULL : chains->pdata[index_of(closed)];

        (void) domain;
        if (error)
                closed->error = g_error_copy(error);
        else if (!chain)
                closed->error = g_error_new(BJ_ERROR, BJ_ERROR_INVALID_STATE, "disk '%s' has no medium",
                                            closed->target);
        if (closed->error)
                finish(closed);
        else
                serve(closed, chain);
}

void disk_map_closed(Disk *disk, const Surroundings *surroundings, const MapPart *part, MapDone done,
                     gpointer data)
{
        Closed *closed = g_new0(Closed, 1);

        closed->domain = domain_ref(disk->domain);
        closed->target = g_strdup(disk->target);
        closed->surroundings = surroundings;
        closed->part = *part;
        closed->done = done;
        closed->data = data;
        closed->account = account_find(surroundings->user, &closed->error);
        if (closed->error)
                finish(closed);
        else
                images_inspect_disk(disk, closed->account, on_inspected, closed);
}
