/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

/* The durable record: one small JSON file a job (`jobs/ID.json`) and one a domain (`domains/NAME.json`) in
 * the state directory. A record is written whole under a temporary name, synced, renamed, and its directory
 * synced, so that after a crash there is the old one or the new one. Everything that touches a disk runs in
 * a worker thread.
 *
 * Each record carries `version` (JOURNAL_VERSION) and `kind`. What cannot be read, or is of a newer version,
 * is set aside under NAME.json.damaged and reported; it never keeps the service from starting. */

#define JOURNAL_VERSION 1

typedef enum { JOURNAL_JOBS, JOURNAL_DOMAINS } JournalKind;

typedef enum {
        JOURNAL_SYNCED,  /* on stable storage when `done` is called */
        JOURNAL_RENAMED, /* survives the end of this process, not that of the machine */
} JournalDurability;

typedef struct Journal Journal;

typedef void (*JournalDone)(const GError *error, gpointer data);

/* Makes the directory where it is missing and locks it: a second service on the same state is refused
 * (BJ_ERROR_EXISTS). */
Journal *journal_open(const char *directory, GError **error);
void journal_close(Journal *journal);

/* `record` is taken; version and kind are added. What is asked for one record happens in the order of
 * asking. */
void journal_write(Journal *journal, JournalKind kind, const char *name, JsonObject *record,
                   JournalDurability durability, JournalDone done, gpointer data);

void journal_remove(Journal *journal, JournalKind kind, const char *name, JournalDone done, gpointer data);

/* Nothing is being written. */
gboolean journal_is_idle(const Journal *journal);

/* Reads every record of a kind; blocks, for the start of the service only. `each` answers FALSE for a record
 * that makes no sense to it, which is then set aside too; `damaged` is told each one set aside. */
void journal_read(Journal *journal, JournalKind kind,
                  gboolean (*each)(const char *name, JsonObject *record, gpointer data),
                  void (*damaged)(const char *path, const char *why, gpointer data), gpointer data);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Journal, journal_close)
