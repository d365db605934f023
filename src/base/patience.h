/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Looking at files of which some may lie on a file system that hangs: a thread that has asked there does not
 * come back, not even to be ended, until the file system does. It is left behind, and others go on with the
 * rest. */

/* For the first of them that does not answer; behind it they get a tenth. */
#define PATIENCE_MILLISECONDS 1000

/* Fills `seen`, which is all zeros at first. Called from a thread of its own, for one path at a time. */
typedef void (*PatienceLook)(const char *path, gpointer seen);

/* Looks at each of `paths` (char *), in their order. Answers an array with an element of `size` bytes for
 * each; for one that has not answered in time it is all zeros, and `answered` (one for each) is FALSE. What
 * lies in the same directory as one that a thread is still waiting for is not asked at all. Blocks: from a
 * thread. */
gpointer patience_look(const GPtrArray *paths, PatienceLook look, gsize size, gboolean *answered);
