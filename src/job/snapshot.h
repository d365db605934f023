/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* A new active layer: QEMU's blockdev-snapshot. It has no object on the bus, but like a job it has steps and
 * a record, since it changes which image is the disk.
 *
 * The overlay is complete before it is recorded as the disk, and that is recorded before QEMU gets the
 * command. As long as the guest has not written into it, it shows what the layer below shows: so from the
 * record on the overlay is the right image, whether QEMU came to use it or not. */

extern const JobDriver snapshot_driver;
