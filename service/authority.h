/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* polkit, asked asynchronously. Without a polkit nobody is allowed anything (root is not asked about). */

typedef struct Authority Authority;

typedef enum {
        AUTHORITY_ALLOWED,
        AUTHORITY_DENIED,
        AUTHORITY_CHALLENGE, /* would have to ask somebody, and the caller did not say that it may */
        AUTHORITY_ABSENT,
} AuthorityAnswer;

typedef void (*AuthorityDone)(AuthorityAnswer answer, gpointer data);

/* `most`: questions at once, the waiting ones included, of which a uid may have as many as
 * QUESTIONS_OF_UID_MAX. */
Authority *authority_new(guint most);
void authority_free(Authority *authority);

/* At most so many questions are open at once, the others wait here: the bus allows a connection 128 open
 * calls, and nobody shall be able to use them up for everybody. */
#define QUESTIONS_PER_UID_MAX 16
#define QUESTIONS_MAX 100
#define QUESTIONS_OF_UID_MAX 1024

/* `sender`: the caller's unique name, since a pid can be another process by the time polkit looks.
 * `details`: pairs of key and value, ended by NULL. `done` is not called once `cancellable` is cancelled.
 * FALSE: there are too many already, and it will not be called. */
gboolean authority_check(Authority *authority, const char *sender, guint32 uid, const char *action,
                         const char *const *details, gboolean interactive, GCancellable *cancellable,
                         AuthorityDone done, gpointer data);
