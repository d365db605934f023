/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Who holds locks on images, QEMU's own or anybody's: proc(5), /proc/locks and /proc/PID/fdinfo/FD. */

typedef struct {
        guint64 device, inode;
        guint32 pid;
        char *program; /* its name, for messages */
} LockHolder;

/* LockHolder of each process that has a lock on the file, but for that with the pid `but` (0 = none of
 * them); one entry for each. Where that one has no lock on it, it is not known who is somebody else: none.
 * What cannot be seen from here, of another PID namespace, has pid 0 and the program "". Blocks for as long
 * as it takes to read /proc: from a thread. */
GPtrArray *lock_holders(guint64 device, guint64 inode, guint32 but);
/* For messages: "process 42 (qemu-img)". */
char *lock_holder_name(const LockHolder *holder);
