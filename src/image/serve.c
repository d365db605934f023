/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/serve.h"

#include "base/error.h"
#include "image/child.h"

#define LISTEN_FD 3 /* sd_listen_fds(3) */

/* A program that is handed a socket asks whether it was meant: only the shell knows the number of the
 * process that it becomes. */
#define BECOME "LISTEN_PID=$$ LISTEN_FDS=1 exec qemu-nbd \"$@\""

GSubprocess *image_serve(const char *image, const char *export_name, Account *account, int listener,
                         GError **error)
{
        g_autoptr(GSubprocessLauncher) launcher =
                child_launcher(G_SUBPROCESS_FLAGS_STDOUT_SILENCE | G_SUBPROCESS_FLAGS_STDERR_PIPE, account);
        g_autoptr(GError) failure = NULL;
        GSubprocess *server;

        g_subprocess_launcher_take_fd(launcher, listener, LISTEN_FD);
        server = g_subprocess_launcher_spawn(launcher, &failure, "/bin/sh", "-c", BECOME, "sh",
                                             "--read-only", "--allocation-depth", "--export-name",
                                             export_name, "--", image, NULL);
        if (!server)
                g_set_error(error, BJ_ERROR, BJ_ERROR_FAILED, "cannot start qemu-nbd: %s", failure->message);
        return server;
}
