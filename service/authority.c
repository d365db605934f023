/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "authority.h"

#include <polkit/polkit.h>

struct Authority {
        PolkitAuthority *polkit;
        GCancellable *connecting;
        GQueue waiting;   /* Question: until polkit is connected, and there is room */
        GHashTable *open; /* uid → number of questions that polkit has */
        GHashTable *held; /* uid → number of questions of every kind */
        guint all_open, all_held, most;
};

typedef struct {
        Authority *authority;
        char *sender, *action;
        guint32 uid;
        PolkitDetails *details;
        gboolean interactive;
        GCancellable *cancellable;
        AuthorityDone done;
        gpointer data;
} Question;

static guint count_of(GHashTable *counts, guint32 uid)
{
        return GPOINTER_TO_UINT(g_hash_table_lookup(counts, GUINT_TO_POINTER(uid)));
}

static void change_count(GHashTable *counts, guint32 uid, gint difference)
{
        guint count = count_of(counts, uid) + (guint) difference;

        if (count)
                g_hash_table_insert(counts, GUINT_TO_POINTER(uid), GUINT_TO_POINTER(count));
        else
                g_hash_table_remove(counts, GUINT_TO_POINTER(uid));
}

static void question_free(Question *question)
{
        Authority *authority = question->authority;

        authority->all_held--;
        change_count(authority->held, question->uid, -1);
        g_free(question->sender);
        g_free(question->action);
        g_object_unref(question->details);
        g_object_unref(question->cancellable);
        g_free(question);
}

static void answer(Question *question, AuthorityAnswer answer)
{
        if (!g_cancellable_is_cancelled(question->cancellable))
                question->done(answer, question->data);
        question_free(question);
}

static void ask_those_with_room(Authority *authority);

static void on_checked(GObject *source, GAsyncResult *result, gpointer data)
{
        Question *question = data;
        Authority *authority = question->authority;
        g_autoptr(GError) error = NULL;
        g_autoptr(PolkitAuthorizationResult) checked =
                polkit_authority_check_authorization_finish(POLKIT_AUTHORITY(source), result, &error);

        authority->all_open--;
        change_count(authority->open, question->uid, -1);
        if (!checked)
                answer(question, AUTHORITY_ABSENT);
        else if (polkit_authorization_result_get_is_authorized(checked))
                answer(question, AUTHORITY_ALLOWED);
        else if (polkit_authorization_result_get_is_challenge(checked))
                answer(question, AUTHORITY_CHALLENGE);
        else
                answer(question, AUTHORITY_DENIED);
        ask_those_with_room(authority);
}

static void ask(Question *question)
{
        g_autoptr(PolkitSubject) subject = polkit_system_bus_name_new(question->sender);
        Authority *authority = question->authority;

        authority->all_open++;
        change_count(authority->open, question->uid, 1);
        polkit_authority_check_authorization(
                authority->polkit, subject, question->action, question->details,
                question->interactive ? POLKIT_CHECK_AUTHORIZATION_FLAGS_ALLOW_USER_INTERACTION
                                      : POLKIT_CHECK_AUTHORIZATION_FLAGS_NONE,
                question->cancellable, on_checked, question);
}

static void ask_those_with_room(Authority *authority)
{
        for (GList *l = authority->waiting.head, *next; l; l = next) {
                Question *question = l->data;
                gboolean cancelled = g_cancellable_is_cancelled(question->cancellable);

                next = l->next;
                if (!cancelled && (!authority->polkit || authority->all_open >= QUESTIONS_MAX ||
                                   count_of(authority->open, question->uid) >= QUESTIONS_PER_UID_MAX))
                        continue;
                g_queue_delete_link(&authority->waiting, l);
                if (cancelled)
                        question_free(question);
                else
                        ask(question);
        }
}

static void on_connected(GObject *source, GAsyncResult *result, gpointer data)
{
        g_autoptr(GError) error = NULL;
        PolkitAuthority *polkit = polkit_authority_get_finish(result, &error);
        Authority *authority = data;
        Question *question;

        (void) source;
        if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
                return; /* the authority is gone */
        authority->polkit = polkit;
        g_clear_object(&authority->connecting);
        ask_those_with_room(authority);
        while (!polkit && (question = g_queue_pop_head(&authority->waiting)))
                answer(question, AUTHORITY_ABSENT);
}

static void connect_polkit(Authority *authority)
{
        authority->connecting = g_cancellable_new();
        polkit_authority_get_async(authority->connecting, on_connected, authority);
}

static void on_bus(GObject *source, GAsyncResult *result, gpointer data)
{
        g_autoptr(GDBusConnection) connection = g_bus_get_finish(result, NULL);

        (void) source;
        (void) data;
        /* libpolkit shares this connection; its end must not be ours, which sd-bus decides. */
        if (connection)
                g_dbus_connection_set_exit_on_close(connection, FALSE);
}

Authority *authority_new(guint most)
{
        Authority *authority = g_new0(Authority, 1);

        authority->most = most;
        g_queue_init(&authority->waiting);
        authority->open = g_hash_table_new(NULL, NULL);
        authority->held = g_hash_table_new(NULL, NULL);
        g_bus_get(G_BUS_TYPE_SYSTEM, NULL, on_bus, NULL);
        connect_polkit(authority);
        return authority;
}

void authority_free(Authority *authority)
{
        if (!authority)
                return;
        if (authority->connecting)
                g_cancellable_cancel(authority->connecting);
        g_clear_object(&authority->connecting);
        g_clear_object(&authority->polkit);
        g_queue_clear_full(&authority->waiting, (GDestroyNotify) question_free);
        g_hash_table_unref(authority->open);
        g_hash_table_unref(authority->held);
        g_free(authority);
}

static gboolean has_room(const Authority *authority, guint32 uid)
{
        return authority->all_held < authority->most &&
               count_of(authority->held, uid) < QUESTIONS_OF_UID_MAX;
}

gboolean authority_check(Authority *authority, const char *sender, guint32 uid, const char *action,
                         const char *const *details, gboolean interactive, GCancellable *cancellable,
                         AuthorityDone done, gpointer data)
{
        Question *question;

        /* Of those whose caller has gone some may still wait. */
        if (!has_room(authority, uid))
                ask_those_with_room(authority);
        if (!has_room(authority, uid))
                return FALSE;
        question = g_new(Question, 1);
        *question = (Question){
                .authority = authority,
                .sender = g_strdup(sender),
                .action = g_strdup(action),
                .uid = uid,
                .details = polkit_details_new(),
                .interactive = interactive,
                .cancellable = g_object_ref(cancellable),
                .done = done,
                .data = data,
        };
        for (; details && details[0]; details += 2)
                polkit_details_insert(question->details, details[0], details[1]);
        authority->all_held++;
        change_count(authority->held, uid, 1);
        g_queue_push_tail(&authority->waiting, question);
        if (authority->polkit)
                ask_those_with_room(authority);
        else if (!authority->connecting)
                connect_polkit(authority);
        return TRUE;
}
