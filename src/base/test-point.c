/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/test-point.h"

#ifdef TEST_POINTS
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void trace(const char *name)
{
        const char *path = g_getenv("BLOCKJOBD_TEST_TRACE");
        g_autofree char *line = g_strconcat(name, "\n", NULL);
        int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;

        if (fd < 0)
                return;
        if (write(fd, line, strlen(line)) < 0)
                g_printerr("blockjobd: cannot write to '%s'\n", path);
        close(fd);
}

/* Whether it is the time that is meant. */
static gboolean is_due(const char *name)
{
        static guint64 passed;
        const char *pass = g_getenv("BLOCKJOBD_TEST_PASS");

        if (g_strcmp0(g_getenv("BLOCKJOBD_TEST_STOP_AT"), name) != 0 &&
            g_strcmp0(g_getenv("BLOCKJOBD_TEST_WAIT_AT"), name) != 0)
                return FALSE;
        return passed++ >= (pass ? g_ascii_strtoull(pass, NULL, 10) : 0);
}

void test_point(const char *name)
{
        static gboolean waited;

        trace(name);
        if (!is_due(name))
                return;
        if (g_strcmp0(g_getenv("BLOCKJOBD_TEST_STOP_AT"), name) == 0)
                kill(getpid(), SIGKILL);
        if (!waited && g_strcmp0(g_getenv("BLOCKJOBD_TEST_WAIT_AT"), name) == 0) {
                waited = TRUE;
                kill(getpid(), SIGSTOP);
        }
}

void test_point_behind(const char *name)
{
        g_autofree char *point = g_strconcat(name, "+", NULL);

        test_point(point);
}

gboolean test_omits(const char *part)
{
        return g_strcmp0(g_getenv("BLOCKJOBD_TEST_OMIT"), part) == 0;
}
#endif
