/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/error.h"
#include "domain/map.h"
#include "options.h"
#include "request.h"

/* Disk.Map. 32 bytes a range: a reply is 16 MiB at most, and a bus takes 32. */

#define RANGES_DEFAULT 65536
#define RANGES_MAX 524288

static const OptionRule rules[] = {
        { "offset", 't', .maximum = G_MAXINT64 },
        { "length", 't', .maximum = G_MAXINT64 },
        { "max-ranges", 'u', .maximum = RANGES_MAX },
        { .key = NULL },
};

static void on_mapped(GArray *ranges, const GError *error, gpointer data)
{
        Request *request = data;
        sd_bus_message *reply = NULL;
        int r;

        if (error) {
                request_fail(request, error);
                return;
        }
        r = sd_bus_message_new_method_return(request->message, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "(tttu)");
        for (guint i = 0; r >= 0 && i < ranges->len; i++) {
                const MapRange *range = &g_array_index(ranges, MapRange, i);

                r = sd_bus_message_append(reply, "(tttu)", range->offset, range->length, range->flags,
                                          range->depth);
        }
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r < 0)
                request_fail_new(request, BJ_ERROR_FAILED, "the reply cannot be made: %s", g_strerror(-r));
        else
                request_reply_message(request, reply);
        sd_bus_message_unref(reply);
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
