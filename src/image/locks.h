/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "image/file.h"

/* Who holds locks on images, QEMU's own or anybody's: proc(5), /proc/locks and /proc/PID/fdinfo/FD. */

typedef struct {
        guint64 device, inode;
        guint32 pid;
        char *program; /* its name, for messages */
} LockHolder;

/* LockHolder of each process and each of these regular files that it has a lock on, but for the process with
 * the pid `but` (0 = none of them). Where that one has no lock on a file, it is not known who is somebody
 * else: none for that file. What cannot be seen from here, of another PID namespace, has pid 0 and the
 * program "". The kernel makes whoever reads /proc/locks wait for some ms if nobody has read it for as long:
 * all files are looked for at once. Blocks: from a thread. */
GPtrArray *lock_holders(const FileId *files, guint n_files, guint32 but);
/* Says that somebody will ask in some ms, so that the kernel begins to make its reader wait. Does not block.
 */
void lock_holders_soon(void);
/* For messages: "process 42 (qemu-img)". */
char *lock_holder_name(const LockHolder *holder);
