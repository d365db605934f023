/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A build with -Dtest_points=true dies here, by SIGKILL, when BLOCKJOBD_TEST_STOP_AT names this point: so
 * that a test can crash the service at every step. Any other build does nothing. */
#ifdef TEST_POINTS
void test_point(const char *name);
#else
static inline void test_point(const char *name)
{
        (void) name;
}
#endif
