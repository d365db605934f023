/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"

#define TUN "/dev/net/tun"
#define UUID_DIGITS 10

GStrv taps_names(const Definition *definition)
{
        g_autoptr(GStrvBuilder) names = g_strv_builder_new();
        g_auto(GStrv) parts = g_strsplit(definition->uuid, "-", -1);
        g_autofree char *digits = g_strjoinv("", parts);
        guint n = 0;

        for (guint i = 0; i < definition->interfaces->len; i++) {
                const DefinitionInterface *interface = definition->interfaces->pdata[i];
                g_autofree char *name = NULL;

                if (interface->type != INTERFACE_BRIDGE)
                        continue;
                name = g_strdup_printf("bj%.*s-%u", UUID_DIGITS, digits, n++);
                g_strv_builder_add(names, name);
        }
        return g_strv_builder_end(names);
}

static gboolean set_errno_error(GError **error, int code, const char *what, const char *name)
{
        g_set_error(error, BJ_ERROR, code, "cannot %s '%s': %s", what, name, g_strerror(errno));
        return FALSE;
}

/* The tap that `request` names, made where it is not there. */
static int open_tap(struct ifreq *request, const char *name)
{
        int fd = open(TUN, O_RDWR | O_CLOEXEC);

        memset(request, 0, sizeof(*request));
        g_strlcpy(request->ifr_name, name, sizeof(request->ifr_name));
        request->ifr_flags = IFF_TAP | IFF_NO_PI;
        if (fd >= 0 && ioctl(fd, TUNSETIFF, request) < 0) {
                int code = errno;
                close(fd);
                errno = code;
                return -1;
        }
        return fd;
}

static gboolean plug_in(const char *name, const char *bridge, GError **error)
{
        struct ifreq request = { 0 };
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        gboolean done = FALSE;

        g_strlcpy(request.ifr_name, bridge, sizeof(request.ifr_name));
        request.ifr_ifindex = (int) if_nametoindex(name);
        if (fd < 0 || if_nametoindex(bridge) == 0)
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "there is no bridge '%s'", bridge);
        else if (ioctl(fd, SIOCBRADDIF, &request) < 0)
                set_errno_error(error, BJ_ERROR_FAILED, "plug an interface into the bridge", bridge);
        else {
                g_strlcpy(request.ifr_name, name, sizeof(request.ifr_name));
                request.ifr_flags = IFF_UP;
                done = ioctl(fd, SIOCSIFFLAGS, &request) == 0 ||
                       set_errno_error(error, BJ_ERROR_FAILED, "set up the interface", name);
        }
        if (fd >= 0)
                close(fd);
        return done;
}

static gboolean make(const char *name, const char *bridge, const Account *account, GError **error)
{
        struct ifreq request;
        int fd = open_tap(&request, name);
        gboolean made;

        if (fd < 0)
                return set_errno_error(error, BJ_ERROR_NOT_SUPPORTED, "make an interface with", TUN);
        made = (ioctl(fd, TUNSETOWNER, (unsigned long) account->uid) == 0 &&
                ioctl(fd, TUNSETPERSIST, 1UL) == 0) ||
               set_errno_error(error, BJ_ERROR_FAILED, "keep the interface", name);
        close(fd);
        return made && plug_in(name, bridge, error);
}

gboolean taps_make(const Definition *definition, const Account *account, GError **error)
{
        g_auto(GStrv) names = taps_names(definition);
        guint n = 0;

        for (guint i = 0; i < definition->interfaces->len; i++) {
                const DefinitionInterface *interface = definition->interfaces->pdata[i];

                if (interface->type != INTERFACE_BRIDGE ||
                    make(names[n++], interface->bridge, account, error))
                        continue;
                taps_remove(definition);
                return FALSE;
        }
        return TRUE;
}

void taps_remove(const Definition *definition)
{
        g_auto(GStrv) names = taps_names(definition);

        for (guint i = 0; names[i]; i++) {
                struct ifreq request;
                int fd = if_nametoindex(names[i]) ? open_tap(&request, names[i]) : -1;

                if (fd < 0)
                        continue;
                ioctl(fd, TUNSETPERSIST, 0UL);
                close(fd);
        }
}
