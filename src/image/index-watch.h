/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* What the kernel tells of directories, for the thread that looks them through. */
typedef struct Watch Watch;

Watch *watch_new(void);
void watch_free(Watch *watch);
/* Ends watch_wait() now or the next time. From any thread. */
void watch_wake(Watch *watch);

/* From begin to end each directory that is to be watched is added, before it is read; others no longer are.
 * A directory that cannot be watched is one where nothing happens. */
void watch_begin(Watch *watch);
void watch_add(Watch *watch, int fd, const char *path);
void watch_end(Watch *watch);

/* Waits until something has happened, and a moment longer for what comes along with it. The paths of files
 * that may have changed are added to `paths`; FALSE: there is more than can be told by those. */
gboolean watch_wait(Watch *watch, GHashTable *paths);
