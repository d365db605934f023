/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "domain/launch.h"
#include "nbd/map.h"

/* Where the data of a disk lies: which layer of its chain has which range. QEMU alone knows that while it
 * has the images open, and tells it over NBD. */

#define MAP_NOWHERE G_MAXUINT32 /* the depth of what no layer has */
#define MAPS_PER_DOMAIN_MAX 16  /* one after the other */
#define MAP_ID GRAPH_MAP_EXPORT /* of all that a map makes in a QEMU */

/* `ranges` (MapRange): in order, without gaps, exactly the part; the depths are those of the disk's chain,
 * 0 = the active layer. NULL with `error`. */
typedef void (*MapDone)(GArray *ranges, const GError *error, gpointer data);

/* map-levels.c: what QEMU's levels are */
/* Names of all nodes of the disk that its data goes through, top first. */
char *map_list_nodes(const Domain *domain, const Disk *disk);
/* guint32: the depth in the disk's chain, of each level from its active layer down. */
GArray *map_levels(const Domain *domain, const Disk *disk);
/* The same ranges with the depths of `levels`; NULL where there are not as many. */
GArray *map_depths(const GArray *ranges, const GArray *levels);

/* map-qemu.c: by the QEMU or storage daemon that has the disk `target` open. `server` is the socket of the
 * daemon's own NBD server; NULL: one is started for the time of the map, on a socket that is made in
 * `directory`. A job that begins or ends meanwhile changes what the levels are: then it is done again. Calls
 * `done` once, possibly before it returns. */
void domain_map(Domain *domain, const char *target, const char *server, const char *directory,
                const MapPart *part, MapDone done, gpointer data);

/* map-image.c: of a disk whose domain is off and on which no job works, by a qemu-nbd with the rights that
 * QEMU would have. */
void disk_map_closed(Disk *disk, const Surroundings *surroundings, const MapPart *part, MapDone done,
                     gpointer data);

/* map.c: in whichever way the disk needs. Errors: NoSuchDisk, InvalidArgument (the part), InvalidState (no
 * medium, the domain has ended), JobActive (the chain changes all the time), NotSupported (somebody else's
 * NBD server runs in QEMU), LimitExceeded, NoSuchImage, ImageInUse, Disconnected, Timeout, QemuError,
 * Failed. */
void disk_map(Disk *disk, const MapPart *part, MapDone done, gpointer data);
