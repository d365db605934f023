/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* Backup of a disk as it is when the job starts: QEMU's blockdev-backup. */

extern const JobDriver backup_driver;
