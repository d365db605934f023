/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "client.h"

/* What happened to a job, which image is the disk now, what to type next. `job`: its properties. With --json
 * these are printed instead. */

/* Prints it, whether the job runs, is ready or over, and returns the exit status. */
Status outcome_report(Client *client, GVariant *job);

/* Whether nobody has to decide in its second phase, because the machine is off. */
gboolean outcome_is_decided(Client *client, GVariant *job);

/* A snapshot or a new size of a disk, before and after which its properties were these. */
void outcome_disk(Client *client, GVariant *before, GVariant *after);
