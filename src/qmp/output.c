/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/output.h"

#include <string.h>

#include <gio/gunixfdmessage.h>

typedef struct {
        char *text;
        gsize length, sent;
        GSocketControlMessage *descriptor; /* NULL: none, or sent */
} Chunk;

struct Output {
        GSocket *socket;
        GSource *writable;
        GQueue chunks;
};

static void chunk_free(gpointer data)
{
        Chunk *chunk = data;

        g_clear_object(&chunk->descriptor);
        g_free(chunk->text);
        g_free(chunk);
}

static void stop_waiting(Output *output)
{
        if (output->writable)
                g_source_destroy(output->writable);
        g_clear_pointer(&output->writable, g_source_unref);
}

static gboolean on_writable(GSocket *socket, GIOCondition condition, gpointer data);

static void wait_until_writable(Output *output)
{
        if (output->writable)
                return;
        output->writable = g_socket_create_source(output->socket, G_IO_OUT, NULL);
        g_source_set_callback(output->writable, G_SOURCE_FUNC(on_writable), output, NULL);
        g_source_attach(output->writable, NULL);
}

static void flush(Output *output)
{
        Chunk *chunk;

        while ((chunk = g_queue_peek_head(&output->chunks))) {
                g_autoptr(GError) error = NULL;
                GOutputVector rest = { chunk->text + chunk->sent, chunk->length - chunk->sent };
                gssize n = g_socket_send_message(output->socket, NULL, &rest, 1, &chunk->descriptor,
                                                 chunk->descriptor ? 1 : 0, G_SOCKET_MSG_NONE, NULL, &error);

                if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK)) {
                        wait_until_writable(output);
                        return;
                }
                if (n < 0) {
                        /* Reported where the connection is read, after what QEMU still said: the end is sure
                         * to be met there. */
                        g_socket_shutdown(output->socket, TRUE, TRUE, NULL);
                        g_queue_clear_full(&output->chunks, chunk_free);
                        break;
                }
                /* The kernel hands a descriptor over with the first byte, however few were taken. */
                g_clear_object(&chunk->descriptor);
                chunk->sent += (gsize) n;
                if (chunk->sent == chunk->length)
                        chunk_free(g_queue_pop_head(&output->chunks));
        }
        stop_waiting(output);
}

static gboolean on_writable(GSocket *socket, GIOCondition condition, gpointer data)
{
        (void) socket;
        (void) condition;
        flush(data);
        return G_SOURCE_CONTINUE;
}

Output *output_new(GSocket *socket)
{
        Output *output = g_new0(Output, 1);

        output->socket = g_object_ref(socket);
        g_queue_init(&output->chunks);
        return output;
}

void output_free(Output *output)
{
        stop_waiting(output);
        g_queue_clear_full(&output->chunks, chunk_free);
        g_object_unref(output->socket);
        g_free(output);
}

void output_add(Output *output, char *text, int fd)
{
        Chunk *chunk = g_new(Chunk, 1);

        *chunk = (Chunk){ .text = text, .length = strlen(text) };
        if (fd >= 0) {
                chunk->descriptor = g_unix_fd_message_new();
                if (!g_unix_fd_message_append_fd(G_UNIX_FD_MESSAGE(chunk->descriptor), fd, NULL))
                        g_clear_object(&chunk->descriptor);
        }
        g_queue_push_tail(&output->chunks, chunk);
        flush(output);
}
