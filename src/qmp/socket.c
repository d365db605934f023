/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/socket.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <gio/gunixsocketaddress.h>

#include "base/error.h"

/* The kernel says "refused" for a plain file as well as for a socket without a listener. */
static void set_connect_error(GError **error, const GError *cause, const char *path)
{
        struct stat st;

        if (g_error_matches(cause, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK))
                g_set_error(error, BJ_ERROR, BJ_ERROR_TIMEOUT,
                            "monitor busy: others are waiting for '%s' already", path);
        else if (stat(path, &st) < 0)
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "QMP socket '%s': %s", path,
                            g_strerror(errno));
        else if (!S_ISSOCK(st.st_mode))
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "'%s' is not a socket", path);
        else if (g_error_matches(cause, G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED))
                g_set_error(error, BJ_ERROR, BJ_ERROR_DISCONNECTED, "nothing listens on '%s'", path);
        else
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "cannot connect to '%s': %s", path,
                            cause->message);
}

GSocket *monitor_socket_open(const char *path, GError **error)
{
        g_autoptr(GError) cause = NULL;
        g_autoptr(GSocketAddress) address = NULL;
        g_autoptr(GSocket) socket = NULL;

        if (strlen(path) >= sizeof(((struct sockaddr_un *) NULL)->sun_path)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "socket path '%s' is longer than the %zu bytes that the kernel takes", path,
                            sizeof(((struct sockaddr_un *) NULL)->sun_path) - 1);
                return NULL;
        }
        address = g_unix_socket_address_new(path);
        socket = g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, &cause);
        if (!socket) {
                g_set_error(error, BJ_ERROR,
                            g_error_matches(cause, G_IO_ERROR, G_IO_ERROR_TOO_MANY_OPEN_FILES)
                                    ? BJ_ERROR_LIMIT_EXCEEDED
                                    : BJ_ERROR_FAILED,
                            "cannot connect to '%s': %s", path, cause->message);
                return NULL;
        }
        g_socket_set_blocking(socket, FALSE);
        if (!g_socket_connect(socket, address, NULL, &cause)) {
                set_connect_error(error, cause, path);
                return NULL;
        }
        return g_steal_pointer(&socket);
}

GSocket *monitor_socket_take(int fd, GError **error)
{
        g_autoptr(GSocket) socket = NULL;
        struct stat st;

        /* Looked at first: whether GLib closes a descriptor that it refuses depends on its version. */
        if (fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode)) {
                close(fd);
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "the passed descriptor is not a socket");
                return NULL;
        }
        socket = g_socket_new_from_fd(fd, error);
        if (!socket)
                return NULL;
        if (g_socket_get_socket_type(socket) != G_SOCKET_TYPE_STREAM || !g_socket_is_connected(socket)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "the passed descriptor is not a connected stream socket");
                return NULL;
        }
        g_socket_set_blocking(socket, FALSE);
        return g_steal_pointer(&socket);
}
