/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include <gio/gio.h>

#include "base/error.h"
#include "base/json.h"
#include "image/child.h"
#include "image/inspect.h"

#define WALL_SECONDS 30
#define OUTPUT_BYTES_MAX (4 * 1024 * 1024)
#define JSON_DEPTH_MAX 32

typedef struct {
        Account *account;
        GPtrArray *layers;
        InspectDone done;
        gpointer data;
        GSubprocess *qemu_img;
        GCancellable *cancellable;
        guint timer;
        gboolean is_late;
} Question;

static void question_free(Question *question)
{
        if (question->timer)
                g_source_remove(question->timer);
        account_unref(question->account);
        g_clear_pointer(&question->layers, g_ptr_array_unref);
        g_clear_object(&question->qemu_img);
        g_clear_object(&question->cancellable);
        g_free(question);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Question, question_free)

static gboolean on_late(gpointer data)
{
        Question *question = data;

        question->timer = 0;
        question->is_late = TRUE;
        g_subprocess_force_exit(question->qemu_img);
        /* One that hangs in the kernel does not even end by that. */
        g_cancellable_cancel(question->cancellable);
        return G_SOURCE_REMOVE;
}

/* ---- the answer ---- */

static void set_text(char **text, JsonObject *object, const char *member)
{
        g_free(*text);
        *text = g_strdup(json_string(object, member) ?: "");
}

static gboolean take_answer(ImageLayer *layer, const char *output, GError **error)
{
        g_autoptr(JsonParser) parser = json_parser_new();
        gsize length = output ? strlen(output) : 0;
        JsonNode *root;
        JsonObject *object;

        if (length == 0 || length > OUTPUT_BYTES_MAX || !json_is_shallow(output, length, JSON_DEPTH_MAX) ||
            !json_parser_load_from_data(parser, output, (gssize) length, NULL) ||
            !(root = json_parser_get_root(parser)) || !JSON_NODE_HOLDS_OBJECT(root)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_QEMU, "image '%s': qemu-img gives no JSON object",
                            layer->source);
                return FALSE;
        }
        object = json_node_get_object(root);
        layer->virtual_size = (guint64) MAX(json_integer(object, "virtual-size"), 0);
        layer->allocated = (guint64) MAX(json_integer(object, "actual-size"), 0);
        layer->encrypted = json_boolean(object, "encrypted");
        layer->dirty = json_boolean(object, "dirty-flag");
        set_text(&layer->backing, object, "full-backing-filename");
        set_text(&layer->backing_format, object, "backing-filename-format");
        return TRUE;
}

static void on_answer(GObject *source, GAsyncResult *result, gpointer data)
{
        g_autoptr(Question) question = data;
        g_autofree char *output = NULL, *complaint = NULL;
        g_autoptr(GError) failure = NULL, error = NULL;
        ImageLayer *layer = question->layers->pdata[0];
        GSubprocess *qemu_img = G_SUBPROCESS(source);
        gboolean came =
                g_subprocess_communicate_utf8_finish(qemu_img, result, &output, &complaint, &failure);

        if (question->is_late)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_TIMEOUT,
                            "image '%s': qemu-img has not answered for %d seconds", layer->source,
                            WALL_SECONDS);
        else if (!came)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_QEMU, "image '%s': qemu-img: %s", layer->source,
                            failure->message);
        else if (!g_subprocess_get_successful(qemu_img))
                g_set_error(&error, BJ_ERROR, bj_error_of_qemu(complaint), "image '%s': %s", layer->source,
                            complaint && *complaint ? g_strchomp(complaint) : "qemu-img failed");
        else
                take_answer(layer, output, &error);
        question->done(error ? NULL : question->layers, error, question->data);
}

/* ---- the question ---- */

static void on_inspected(GPtrArray *layers, const GError *error, gpointer data)
{
        g_autoptr(Question) question = data;
        g_autoptr(GSubprocessLauncher) launcher = NULL;
        g_autoptr(GError) failure = NULL, own = NULL;
        const ImageLayer *layer = layers ? layers->pdata[0] : NULL;

        if (!layer || layer->remote || strcmp(layer->format, "raw") == 0 ||
            strcmp(layer->format, "qcow2") == 0) {
                question->done(layers, error, question->data);
                return;
        }
        question->layers = g_ptr_array_ref(layers);
        launcher = child_launcher(G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE,
                                  question->account);
        question->qemu_img =
                g_subprocess_launcher_spawn(launcher, &failure, "qemu-img", "info", "--output=json", "-U",
                                            "-f", layer->format, "--", layer->source, NULL);
        if (!question->qemu_img) {
                own = g_error_new(BJ_ERROR, BJ_ERROR_FAILED, "cannot start qemu-img: %s", failure->message);
                question->done(NULL, own, question->data);
                return;
        }
        question->cancellable = g_cancellable_new();
        question->timer = g_timeout_add_seconds(WALL_SECONDS, on_late, question);
        g_subprocess_communicate_utf8_async(question->qemu_img, NULL, question->cancellable, on_answer,
                                            question);
        g_steal_pointer(&question);
}

void image_inspect_other(const InspectRequest *request, InspectDone done, gpointer data)
{
        Question *question = g_new0(Question, 1);
        InspectRequest first = *request;

        question->account = request->account ? account_ref((Account *) request->account) : NULL;
        question->done = done;
        question->data = data;
        first.follow = FALSE;
        first.any_format = TRUE;
        image_inspect(&first, on_inspected, question);
}
