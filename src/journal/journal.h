/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

/* The durable record: what the service knows after any end of its own, of QEMU, or of the machine.
 *
 * ONE FILE each: `jobs/ID.json` for a job, `domains/NAME.json` for a domain, a JSON object with `version`
 * (JOURNAL_VERSION), `kind` and `sequence`. It is written whole under a temporary name, synced, renamed over
 * the old one, and the directory is synced: after a crash there is the old record or the new one. What is
 * asked for one record happens in the order of asking, in a worker thread; the main loop never waits for a
 * disk.
 *
 * What need not outlive the machine is not synced, and stands beside it as `ID.json.late`: it counts if it
 * is whole and has the higher sequence, and it never takes the place of what was synced.
 *
 * A MARK is what has to be recorded right before something else happens, where no thread can be waited for:
 * one more line in `ID.json.late`, an object whose members count for more than those above it. That takes
 * some 0.01 ms; a new name or a new file would take up to 0.3.
 *
 * WHAT IS RECORDED OF A JOB, AND WHEN (the steps are those of src/job/; members in src/job/record.c)
 *
 *   record-intent     synced   before QEMU is sent anything: ids, nodes and images, which QEMU process.
 *                              Dead from here on: QEMU's job list tells whether it has the job.
 *   record-accepted   late     QEMU has the job, and somebody may have been told of it. After a loss of
 *                              power that is taken for granted, and the job is lost.
 *   say-ready         mark     "ready-time", right before Ready is sent: it is told once.
 *   record-decision   synced   "decision": what the caller asked for, before QEMU is asked. To keep or to
 *                              cancel changes nothing about the disk and goes on without the record.
 *   record-target     synced   "disk-is": "target", at PENDING, where QEMU holds the guest and both images
 *                              are equal; only then job-finalize. THIS MOMENT IS THE PIVOT: with QEMU gone,
 *                              before it the source is the disk, after it the target. "source" is late
 *                              only: it is what the lack of a record says too.
 *   record-outcome    synced   "result", after QEMU's graph was looked at and what a job wrote was flushed;
 *                              before anything is removed in QEMU or on disk, and before anybody is told.
 *   record-domain     synced   of a domain that has a definition: the domain, with the images that its disk
 *                              has now. Its next start uses them.
 *   tell              late     what could not be removed; then a mark, "told", right before Completed is
 *                              sent: a SIGKILL between these two system calls, and nothing else, leaves an
 *                              end untold. After a loss of power it is told again, to clients that all are
 *                              new.
 *   (dismissed, or older than the limits)  the file is removed, and the directory synced.
 *
 * A call without a job object (Snapshot, Resize) has no "told": its record is removed when it is answered.
 *
 * WHAT IS RECORDED OF A DOMAIN: name, UUID, socket, which process (boot, pid, start time), how it ended, and
 * for each disk its chain. Of one that the service starts also the XML of its definition, whether it is just
 * being started, and which copies the next start begins again; `domains/NAME+TARGET.json` is that of a
 * storage daemon, which is there for a job on one disk. Written, synced, at the attach or the definition
 * before the reply, then at each change of a chain, at QEMU's end, at a forced detach, and in a start twice:
 * before the process, and before its guest runs. It may be older than a job's record, which then counts.
 *
 * WHAT IS RECORDED OF IMAGES: `stale/images.json` lists the files that a commit has made invalid, so that
 * they are not taken for images that somebody uses, and not started from.
 *
 * WHAT CANNOT BE READ is set aside under NAME.json.damaged (or -2, -3, …) and reported: torn, foreign, of
 * another kind, of a newer version, or without sense. It never keeps the service from starting, and nothing
 * of it is lost. A job in QEMU whose record was set aside is shown as one of somebody else; it is never left
 * at PENDING.
 *
 * WHAT CANNOT BE WRITTEN: before QEMU has the job, there is no job. At record-target, the job is cancelled
 * and the source stays. At record-outcome it is tried again until it is done, and nobody is told before. If
 * it is the last sync, that of the directory, that fails at record-target, nobody can say which of the two
 * records a power cut would leave; as long as the machine runs the right one is seen. */

#define JOURNAL_VERSION 1

typedef enum { JOURNAL_JOBS, JOURNAL_DOMAINS, JOURNAL_STALE, N_JOURNAL_KINDS } JournalKind;

typedef enum {
        JOURNAL_SYNCED, /* on stable storage when `done` is called */
        JOURNAL_LATE,   /* survives the end of this process, not that of the machine */
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

/* `members` are taken; what is written of the record later has to have them too. FALSE: it could not be
 * done, or the record is just being written, or there is none that is late. */
gboolean journal_mark(Journal *journal, JournalKind kind, const char *name, JsonObject *members);

void journal_remove(Journal *journal, JournalKind kind, const char *name, JournalDone done, gpointer data);

/* Nothing is being written. */
gboolean journal_is_idle(const Journal *journal);

/* Reads every record of a kind; blocks, for the start of the service only. `each` answers FALSE for a record
 * that makes no sense to it, which is then set aside too; `damaged` is told each one set aside, by the path
 * that it has now. */
void journal_read(Journal *journal, JournalKind kind,
                  gboolean (*each)(const char *name, JsonObject *record, gpointer data),
                  void (*damaged)(const char *path, const char *why, gpointer data), gpointer data);

/* A record of this name was set aside, now or at an earlier start. */
gboolean journal_has_set_aside(const Journal *journal, JournalKind kind, const char *name);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Journal, journal_close)
