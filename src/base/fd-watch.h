/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Descriptors that are there as long as a domain is: a monitor, a process. GLib's main loop walks through
 * all that it has at every turn, which takes half a millisecond with those of 1,000 domains. Of these it
 * sees one, an epoll(7) that has them all. */

typedef struct FdWatch FdWatch;

typedef void (*FdReady)(gpointer data);

/* Calls `ready` from the default main context as long as there is something to read, the end included. The
 * descriptor is a socket, a pidfd or another that can be waited for, and stays open until the watch is
 * freed. All functions are the main thread's. */
FdWatch *fd_watch_new(int fd, FdReady ready, gpointer data);
/* Also from within any `ready`; of a watch that was freed it is not called any more. */
void fd_watch_free(FdWatch *watch);
