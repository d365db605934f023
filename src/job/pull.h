/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* Pull: QEMU's block-stream. A layer is filled with what it shows of the layers below, and stands on a lower
 * one, or on none, afterwards. */

extern const JobDriver pull_driver;
