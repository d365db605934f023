/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* What a build with -Dtest_points=true can be made to do by its environment, so that a test can crash the
 * service at every step. Any other build does none of it.
 *
 * BLOCKJOBD_TEST_STOP_AT=POINT   dies there, by SIGKILL
 * BLOCKJOBD_TEST_WAIT_AT=POINT   stops there the first time, by SIGSTOP, until it is sent SIGCONT
 * BLOCKJOBD_TEST_PASS=N          both of them after it has come there N times
 * BLOCKJOBD_TEST_TRACE=FILE      appends the name of each point that it comes to, a line each
 * BLOCKJOBD_TEST_OMIT=PART       leaves out what test_omits() is asked about, so that a test can show that
 *                                it finds the lack of it
 *
 * A step of a job has two points: its name, right before it is run, and its name with a "+", when what it
 * sent is on its way and no answer has been read. */
#ifdef TEST_POINTS
void test_point(const char *name);
void test_point_behind(const char *name);
gboolean test_omits(const char *part);
#else
static inline void test_point(const char *name)
{
        (void) name;
}

static inline void test_point_behind(const char *name)
{
        (void) name;
}

static inline gboolean test_omits(const char *part)
{
        (void) part;
        return FALSE;
}
#endif
