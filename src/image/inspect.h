/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "image/account.h"
#include "image/name.h"

/* Looks at images as they lie on disk, without a QEMU, and never at what may act when it is opened. */

#define IMAGE_CHAIN_MAX 256 /* layers */

typedef struct {
        char *source; /* absolute path as QEMU names it, or a URI */
        char *format;
        /* 0 = nobody has looked: a URI, or with `any_format` a format that only QEMU reads. */
        guint64 virtual_size;
        guint64 allocated;
        char *backing, *backing_format; /* as they stand in the header (or as qemu-img says), "" = none */
        char *data_file;                /* absolute path, "" = none */
        gboolean is_block;              /* a block device of the host */
        gboolean remote;                /* a URI: nothing is known of it, and of what is below */
        gboolean writable;              /* by that account */
        gboolean encrypted, dirty, corrupt;
        /* Which file it is, by whatever name. Of a block device it is the device's own number, and 0. */
        guint64 device, inode;
} ImageLayer;

/* All of it is borrowed for the call. */
typedef struct {
        const char *path;       /* absolute, or a URI */
        const char *format;     /* NULL = what its magic says */
        const GPtrArray *chain; /* ImageName, from the one under `path` down; NULL: the headers say it */
        const Account *account; /* with whose rights, NULL = the service's own */
        const char *template;   /* a file that the first one is made of where it is not there, NULL = none */
        gboolean want_write;    /* the first one must be writable, and its data file */
        gboolean follow;        /* else only the first one */
        gboolean any_format; /* those that only QEMU reads too; they end the chain. Else they are refused. */
} InspectRequest;

/* `layers`: ImageLayer, top first, borrowed; NULL with `error`. */
typedef void (*InspectDone)(GPtrArray *layers, const GError *error, gpointer data);

/* Calls `done` once, from the default main context, never before it returns; from a thread of its own, so
 * that a file system that hangs holds up nothing else. A backing file without a recorded format is one only
 * if it has no known format's magic, as "raw": formats are not guessed. Errors: NoSuchImage, InvalidArgument
 * (rights, what is no image, loops, headers), LimitExceeded (depth), Failed. */
void image_inspect(const InspectRequest *request, InspectDone done, gpointer data);

/* The same for one image, of any format: what only QEMU reads it is asked for, by a qemu-img with the rights
 * of `account`. Also Timeout and QemuError. */
void image_inspect_other(const InspectRequest *request, InspectDone done, gpointer data);
