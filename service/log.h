/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <syslog.h>

#include "domain/domain.h"
#include "message-ids.h"

/* Structured records: native to the journal when stderr is the journal, else a line of text. Each MESSAGE_ID
 * has its entry in the catalog (journalctl -x). */

typedef struct {
        const char *name; /* of the journal field */
        const char *value;
} LogField;

typedef enum {
        MESSAGE_NONE,
#define X(id, text) id,
        MESSAGE_IDS(X)
#undef X
} MessageId;

/* Fields of `domain` and `job`, which may be NULL, are added; then
 * `fields`, ended by a NULL name, or NULL. */
void log_event(int priority, MessageId message, const Domain *domain, const Job *job, const LogField *fields,
               const char *format, ...) G_GNUC_PRINTF(6, 7);
