/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/error.h"
#include "domain/map.h"
#include "options.h"
#include "request.h"

/* Disk.Map. With 32 bytes a range a reply has 4 MiB at most: while the bus passes it on, it does nothing
 * else. */

#define RANGES_DEFAULT 65536
#define RANGES_MAX 131072
#define PIECE 2048 /* ranges that are put into it in one turn of the main loop */

static const OptionRule rules[] = {
        { "offset", 't', .maximum = G_MAXINT64 },
        { "length", 't', .maximum = G_MAXINT64 },
        { "max-ranges", 'u', .maximum = RANGES_MAX },
        { .key = NULL },
};

/* A long reply is made a piece at a time, so that it delays nobody. */
typedef struct {
        Request *request;
        sd_bus_message *message;
        GArray *ranges;
        guint next;
} Reply;

static void finish(Reply *reply, int r)
{
        if (r >= 0)
                r = sd_bus_message_close_container(reply->message);
        if (r < 0)
                request_fail_new(reply->request, BJ_ERROR_FAILED, "the reply cannot be made: %s",
                                 g_strerror(-r));
        else
                request_reply_message(reply->request, reply->message);
        sd_bus_message_unref(reply->message);
        g_array_unref(reply->ranges);
        g_free(reply);
}

static gboolean add_piece(gpointer data)
{
        Reply *reply = data;
        guint end = MIN(reply->next + PIECE, reply->ranges->len);
        int r = 0;

        for (; r >= 0 && reply->next < end; reply->next++) {
                const MapRange *range = &g_array_index(reply->ranges, MapRange, reply->next);

                r = sd_bus_message_append(reply->message, "(tttu)", range->offset, range->length,
                                          range->flags, range->depth);
        }
        if (r >= 0 && reply->next < reply->ranges->len)
                return G_SOURCE_CONTINUE;
        finish(reply, r);
        return G_SOURCE_REMOVE;
}

static void on_mapped(GArray *ranges, const GError *error, gpointer data)
{
        Request *request = data;
        sd_bus_message *message = NULL;
        Reply *reply;
        int r;

        if (error) {
                request_fail(request, error);
                return;
        }
        r = sd_bus_message_new_method_return(request->message, &message);
        if (r >= 0)
                r = sd_bus_message_open_container(message, 'a', "(tttu)");
        reply = g_new(Reply, 1);
        *reply = (Reply){ request, message, g_array_ref(ranges), 0 };
        if (r < 0)
                finish(reply, r);
        else if (add_piece(reply))
                g_idle_add(add_piece, reply);
}

void run_Disk_Map(Request *request)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) options = options_read(request->message, rules, &error);
        Disk *disk = options ? request_disk(request) : NULL;
        MapPart part;

        if (!options)
                request_fail(request, error);
        if (!disk || !request_ask(request, disk->domain))
                return;
        part = (MapPart){ options_number(options, "offset"), options_number(options, "length"),
                          (guint) options_number(options, "max-ranges") };
        if (part.max_ranges == 0)
                part.max_ranges = RANGES_DEFAULT;
        disk_map(disk, &part, on_mapped, request);
}
