/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "job/job.h"

/* Jobs that somebody else started in the same QEMU: they are shown, and can be aborted. How they end is up
 * to whoever started them; nothing is finalized, dismissed or removed here. Except for an orphan, a job of
 * this service whose record was set aside: nobody else would let its guest go on from PENDING. */

enum { EXTERNAL_ACTIVE_COMMIT, EXTERNAL_COMMIT, EXTERNAL_COPY, EXTERNAL_PULL, EXTERNAL_BACKUP, N_EXTERNAL };
extern const JobDriver external_drivers[N_EXTERNAL];

/* The uid that StartedBy has then: nobody's. */
#define STARTED_BY_NOBODY G_MAXUINT32

/* The job that an entry of query-jobs tells of, on the disk that it works on: `disk` and `device`, "" = not
 * known. NULL for what is no block job. */
Job *external_new(const Graph *graph, JsonObject *entry, const char *domain, const char *disk,
                  const char *device, const char *active);
