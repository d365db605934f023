/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "client.h"

/* How far a job is, on standard error: a bar that is drawn over and over on a terminal, else a line for each
 * phase and each tenth. */

typedef struct Progress Progress;

Progress *progress_new(const Client *client);

/* The properties of the job as they are now; is_away: the service that tells of them is not there. */
void progress_show(Progress *progress, GVariantDict *job, gboolean is_away);

/* Takes the bar away. */
void progress_free(Progress *progress);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Progress, progress_free)

/* "commit", "copy", …: a job's type as the command that starts it. */
const char *job_word(const char *type);
