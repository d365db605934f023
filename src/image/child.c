/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/child.h"

#include <sys/resource.h>
#include <unistd.h>

#define CPU_SECONDS 20
#define MEMORY_BYTES (1024 * 1024 * 1024)
#define FILE_BYTES 0

static void prepare(gpointer account)
{
        static const struct {
                int resource;
                rlim_t limit;
        } limits[] = {
                { RLIMIT_CPU, CPU_SECONDS },
                { RLIMIT_AS, MEMORY_BYTES },
                { RLIMIT_FSIZE, FILE_BYTES },
                { RLIMIT_CORE, 0 },
        };

        for (guint i = 0; i < G_N_ELEMENTS(limits); i++)
                setrlimit(limits[i].resource, &(struct rlimit){ limits[i].limit, limits[i].limit });
        if (account_enter_child(account) < 0)
                _exit(126);
}

GSubprocessLauncher *child_launcher(GSubprocessFlags flags, Account *account)
{
        GSubprocessLauncher *launcher = g_subprocess_launcher_new(flags);

        g_subprocess_launcher_set_cwd(launcher, "/");
        g_subprocess_launcher_setenv(launcher, "LC_ALL", "C.UTF-8", TRUE);
        g_subprocess_launcher_set_child_setup(launcher, prepare, account, NULL);
        return launcher;
}
