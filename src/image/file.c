/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Most headers end before that, and of ten thousand on a slow disk no more is read. */
#define FIRST_BYTES 4096

FileId file_id(const struct stat *st)
{
        return S_ISBLK(st->st_mode) ? (FileId){ st->st_rdev, 0 } : (FileId){ st->st_dev, st->st_ino };
}

int image_file_open(int directory, const char *name, int flags, gboolean blocks, struct stat *st,
                    int *ret_fd)
{
        int path_fd = openat(directory, name, flags | O_PATH | O_CLOEXEC);
        g_autofree char *again = g_strdup_printf("/proc/self/fd/%d", path_fd);
        int failure = 0;

        *ret_fd = -1;
        if (path_fd < 0)
                return -1;
        if (fstat(path_fd, st) < 0) {
                failure = errno;
        } else if (S_ISREG(st->st_mode) || (blocks && S_ISBLK(st->st_mode))) {
                *ret_fd = open(again, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
                failure = *ret_fd < 0 ? errno : 0;
        }
        close(path_fd);
        errno = failure;
        return failure ? -1 : 0;
}

/* Up to `length` bytes; -1 with errno set. */
static gssize read_bytes(int fd, guint8 *bytes, gsize length, guint64 offset)
{
        gsize have = 0;

        while (have < length) {
                gssize n = pread(fd, bytes + have, length - have, (off_t) (offset + have));

                if (n < 0 && errno != EINTR)
                        return -1;
                if (n == 0)
                        break;
                have += (gsize) MAX(n, 0);
        }
        return (gssize) have;
}

/* From the first `most` bytes. */
static int read_start(int fd, guint64 size, gsize most, const char *format, ImageHeader *header,
                      GError **error)
{
        g_autofree guint8 *bytes = g_malloc(most);
        gssize have = read_bytes(fd, bytes, (gsize) MIN(size, most), 0);

        if (have < 0)
                return errno;
        if (format ? header_parse_as(format, bytes, (gsize) have, size, header, error)
                   : header_parse(bytes, (gsize) have, size, header, error))
                return 0;
        return -1;
}

int image_file_read_header(int fd, guint64 size, const char *format, ImageHeader *header, GError **error)
{
        guint8 tail[HEADER_TAIL_BYTES];
        int result = read_start(fd, size, FIRST_BYTES, format, header, NULL);
        const char *at_end;
        gssize have;

        /* of fewer bytes what cannot be known is an error */
        if (result < 0)
                result = read_start(fd, size, HEADER_BYTES, format, header, error);
        if (result != 0 || format || strcmp(header->format, "raw") != 0 || size < sizeof(tail))
                return result;
        have = read_bytes(fd, tail, sizeof(tail), size - sizeof(tail));
        if (have < 0)
                return errno;
        at_end = header_format_of_tail(tail, (gsize) have);
        if (at_end) {
                header->format = at_end;
                header->virtual_size = 0;
        }
        return 0;
}
