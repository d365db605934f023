/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Which ranges of an export hold data, read as zeros, and from which level of its chain they come: as an NBD
 * server of QEMU tells it by "base:allocation" and "qemu:allocation-depth". */

#define NBD_STILL_SECONDS 10  /* without a word from the server */
#define NBD_WHOLE_SECONDS 120 /* for all of it */

typedef enum { RANGE_DATA = 1 << 0, RANGE_ZERO = 1 << 1 } RangeFlag;

typedef struct {
        guint64 offset, length;
        guint64 flags; /* RangeFlag */
        guint32 depth; /* here of the server's chain, 1 = its top; 0: nothing of the chain has it */
} MapRange;

/* A part of a disk, and how many ranges may be told of it. */
typedef struct {
        guint64 offset, length; /* length 0: up to the end */
        guint max_ranges;
} MapPart;

/* Puts a range behind those that are there; one that is alike and begins where they end makes the last one
 * longer. */
void map_add(GArray *ranges, const MapRange *range);

typedef struct NbdMap NbdMap;

/* `ranges` (MapRange): in order, without gaps, exactly the part; NULL with `error`: InvalidArgument (the
 * part is not within the disk), LimitExceeded, Timeout, NotSupported, Disconnected, Failed. */
typedef void (*NbdMapDone)(GArray *ranges, const GError *error, gpointer data);

/* `fd`, which is taken, is a socket that is connected to the server, or will be served when that comes up.
 * Calls `done` once, never before it returns; after that there is only nbd_map_free(). What the server says
 * is believed only as far as it makes sense. */
NbdMap *nbd_map_new(int fd, const char *export_name, const MapPart *part, NbdMapDone done, gpointer data);
/* `done` is not called any more. */
void nbd_map_free(NbdMap *map);

/* A UNIX socket connected to the one at `path`. Errors: Disconnected. */
int nbd_connect(const char *path, GError **error);
/* A socket that listens for a server that is passed it, in `directory`, where nothing of it is left behind;
 * its one client is connected already. Errors: Failed. */
gboolean nbd_prepare(const char *directory, int *listener, int *client, GError **error);
