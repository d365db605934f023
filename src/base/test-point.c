/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/test-point.h"

#ifdef TEST_POINTS
#include <signal.h>
#include <unistd.h>

#include <glib.h>

void test_point(const char *name)
{
        if (g_strcmp0(g_getenv("BLOCKJOBD_TEST_STOP_AT"), name) == 0)
                kill(getpid(), SIGKILL);
}
#endif
