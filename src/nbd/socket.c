/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/map.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"

static gboolean name_socket(const char *path, struct sockaddr_un *address)
{
        *address = (struct sockaddr_un){ .sun_family = AF_UNIX };
        return g_strlcpy(address->sun_path, path, sizeof(address->sun_path)) < sizeof(address->sun_path);
}

static int open_socket(void)
{
        return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

int nbd_connect(const char *path, GError **error)
{
        struct sockaddr_un address;
        int fd = -1;

        errno = ENAMETOOLONG;
        if (name_socket(path, &address) && (fd = open_socket()) >= 0 &&
            connect(fd, (struct sockaddr *) &address, sizeof(address)) == 0)
                return fd;
        g_set_error(error, BJ_ERROR, BJ_ERROR_DISCONNECTED, "cannot connect to the NBD server at '%s': %s",
                    path, g_strerror(errno));
        if (fd >= 0)
                close(fd);
        return -1;
}

/* With no name that could be found any more, nobody else can ever connect to it. */
static gboolean listen_once(const char *path, int *listener, int *client, GError **error)
{
        struct sockaddr_un address;

        errno = ENAMETOOLONG;
        if (name_socket(path, &address) && (*listener = open_socket()) >= 0 &&
            bind(*listener, (struct sockaddr *) &address, sizeof(address)) == 0 && listen(*listener, 1) == 0)
                *client = nbd_connect(path, error);
        else
                g_set_error(error, BJ_ERROR, BJ_ERROR_FAILED, "cannot listen at '%s': %s", path,
                            g_strerror(errno));
        unlink(path);
        return *client >= 0;
}

gboolean nbd_prepare(const char *directory, int *listener, int *client, GError **error)
{
        g_autofree char *place = g_build_filename(directory, "map-XXXXXX", NULL);
        g_autofree char *path = NULL;
        gboolean good;

        *listener = *client = -1;
        if (g_mkdir_with_parents(directory, 0711) < 0 || !g_mkdtemp(place)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_FAILED, "cannot make '%s': %s", place,
                            g_strerror(errno));
                return FALSE;
        }
        path = g_build_filename(place, "nbd", NULL);
        good = listen_once(path, listener, client, error);
        rmdir(place);
        if (!good && *listener >= 0)
                close(*listener);
        return good;
}
