/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which start of the machine this is: pids, start times and the numbers of devices begin anew with each. ""
 * where the kernel does not tell. */
const char *boot_id(void);
