/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* Copy of a disk into another image: QEMU's blockdev-mirror, which gets ready, stays in sync, and pivots or
 * not at its end. */

extern const JobDriver copy_driver;
