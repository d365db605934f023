/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* Another size of a disk: QEMU's block_resize. Like a snapshot it is no object on the bus. It has no record
 * either: the size stands in the image. */

extern const JobDriver resize_driver;
