/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include "base/error.h"
#include "domain/map.h"

/* How much of a disk is data, for a job that needs room for it. */

#define RANGES_MAX (1024 * 1024)

typedef struct {
        guint from, end;
        void (*counted)(guint64 bytes, const GError *error, gpointer data);
        gpointer data;
} Count;

static void on_mapped(GArray *ranges, const GError *error, gpointer data)
{
        g_autofree Count *count = data;
        guint64 bytes = 0;

        for (guint i = 0; ranges && i < ranges->len; i++) {
                const MapRange *range = &g_array_index(ranges, MapRange, i);

                if (range->depth >= count->from && range->depth < count->end && range->flags & RANGE_DATA)
                        bytes += range->length;
        }
        count->counted(bytes, error, count->data);
}

void engine_count_data(JobHost *host, Job *job, guint from, guint end,
                       void (*counted)(guint64 bytes, const GError *error, gpointer data), gpointer data)
{
        const MapPart part = { .max_ranges = RANGES_MAX };
        Disk *disk = domain_disk(domain_shown((Domain *) host), job->disk);
        g_autoptr(GError) error = NULL;
        Count *count;

        if (!disk) {
                error = g_error_new(BJ_ERROR, BJ_ERROR_NO_SUCH_DISK, "disk '%s' is gone", job->disk);
                counted(0, error, data);
                return;
        }
        count = g_new(Count, 1);
        *count = (Count){ from, end, counted, data };
        disk_map(disk, &part, on_mapped, count);
}
