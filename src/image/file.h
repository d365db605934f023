/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/stat.h>

#include "image/header.h"

/* Files that are opened for a look at them, whatever it is that lies there. */

/* Which file it is, by whatever name. Of a block device, which has no inode of its own that counts: its own
 * number, and 0. */
typedef struct {
        guint64 device, inode;
} FileId;

FileId file_id(const struct stat *st);

/* What is at `name`, by which openat() finds it with `flags`, in `st`. A regular file, and with `blocks` a
 * block device, is opened for reading; else `*ret_fd` is -1. What it is is known before it is opened:
 * opening a FIFO waits, and opening a device may act. -1 with errno set where it cannot be had. */
int image_file_open(int directory, const char *name, int flags, gboolean blocks, struct stat *st,
                    int *ret_fd);

/* Reads the header of a file of that size, and what some formats have at the end. `format` NULL: the one
 * that it has a magic of. 0, an errno where it cannot be read, or -1 with `error` as header_parse() has it.
 */
int image_file_read_header(int fd, guint64 size, const char *format, ImageHeader *header, GError **error);
