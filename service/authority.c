/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "authority.h"

#include <polkit/polkit.h>

struct Authority {
        PolkitAuthority *polkit;
        GCancellable *connecting;
        GQueue waiting; /* Question: until polkit is connected */
};

typedef struct {
        Authority *authority;
        char *sender, *action;
        PolkitDetails *details;
        gboolean interactive;
        GCancellable *cancellable;
        AuthorityDone done;
        gpointer data;
} Question;

static void question_free(Question *question)
{
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

static void on_checked(GObject *source, GAsyncResult *result, gpointer data)
{
        Question *question = data;
        g_autoptr(GError) error = NULL;
        g_autoptr(PolkitAuthorizationResult) checked =
                polkit_authority_check_authorization_finish(POLKIT_AUTHORITY(source), result, &error);

        if (!checked)
                answer(question, AUTHORITY_ABSENT);
        else if (polkit_authorization_result_get_is_authorized(checked))
                answer(question, AUTHORITY_ALLOWED);
        else if (polkit_authorization_result_get_is_challenge(checked))
                answer(question, AUTHORITY_CHALLENGE);
        else
                answer(question, AUTHORITY_DENIED);
}

static void ask(Question *question)
{
        g_autoptr(PolkitSubject) subject = polkit_system_bus_name_new(question->sender);

        polkit_authority_check_authorization(
                question->authority->polkit, subject, question->action, question->details,
                question->interactive ? POLKIT_CHECK_AUTHORIZATION_FLAGS_ALLOW_USER_INTERACTION
                                      : POLKIT_CHECK_AUTHORIZATION_FLAGS_NONE,
                question->cancellable, on_checked, question);
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
        while ((question = g_queue_pop_head(&authority->waiting))) {
                if (polkit)
                        ask(question);
                else
                        answer(question, AUTHORITY_ABSENT);
        }
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

Authority *authority_new(void)
{
        Authority *authority = g_new0(Authority, 1);

        g_queue_init(&authority->waiting);
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
        g_free(authority);
}

void authority_check(Authority *authority, const char *sender, const char *action,
                     const char *const *details, gboolean interactive, GCancellable *cancellable,
                     AuthorityDone done, gpointer data)
{
        Question *question = g_new(Question, 1);

        *question = (Question){
                .authority = authority,
                .sender = g_strdup(sender),
                .action = g_strdup(action),
                .details = polkit_details_new(),
                .interactive = interactive,
                .cancellable = g_object_ref(cancellable),
                .done = done,
                .data = data,
        };
        for (; details && details[0]; details += 2)
                polkit_details_insert(question->details, details[0], details[1]);
        if (authority->polkit) {
                ask(question);
                return;
        }
        g_queue_push_tail(&authority->waiting, question);
        if (!authority->connecting)
                connect_polkit(authority);
}
