/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/error.h"
#include "image/inspect.h"
#include "options.h"
#include "request.h"

/* Manager.InspectImage */

static const char *const formats[] = { "qcow2", "raw", NULL };
static const OptionRule rules[] = { { "format", 's', .values = formats }, { .key = NULL } };

static int append_texts(sd_bus_message *reply, const char *name, const GPtrArray *texts)
{
        int r = sd_bus_message_open_container(reply, 'e', "sv");

        if (r >= 0)
                r = sd_bus_message_append(reply, "s", name);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'v', "as");
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "s");
        for (guint i = 0; r >= 0 && i < texts->len; i++)
                r = sd_bus_message_append(reply, "s", texts->pdata[i]);
        for (guint i = 0; r >= 0 && i < 3; i++)
                r = sd_bus_message_close_container(reply);
        return r;
}

/* `unknown` NULL: there is none, or it is said with another layer. */
static int append_layer(sd_bus_message *reply, guint depth, const ImageLayer *layer, const GPtrArray *users,
                        gboolean stale, const GPtrArray *unknown)
{
        int r = sd_bus_message_open_container(reply, 'a', "{sv}");

        if (r >= 0)
                r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}", "depth", "u", depth,
                                          "source", "s", layer->source, "format", "s", layer->format,
                                          "virtual-size", "t", layer->virtual_size, "allocated", "t",
                                          layer->allocated, "backing", "s", layer->backing, "backing-format",
                                          "s", layer->backing_format, "stale", "b", stale);
        if (r >= 0)
                r = append_texts(reply, "users", users);
        if (r >= 0 && unknown)
                r = append_texts(reply, "unknown", unknown);
        return r >= 0 ? sd_bus_message_close_container(reply) : r;
}

static void on_seen(const GPtrArray *layers, const GPtrArray *users, const gboolean *stale,
                    const GPtrArray *unknown, const GError *error, gpointer data)
{
        Request *request = data;
        sd_bus_message *reply = NULL;
        int r;

        if (error) {
                request_fail(request, error);
                return;
        }
        r = sd_bus_message_new_method_return(request->message, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "a{sv}");
        for (guint i = 0; r >= 0 && i < layers->len; i++)
                r = append_layer(reply, i, layers->pdata[i], users->pdata[i], stale[i],
                                 i == 0 && unknown->len > 0 ? unknown : NULL);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r < 0)
                request_fail_new(request, BJ_ERROR_FAILED, "the reply cannot be made: %s", g_strerror(-r));
        else
                request_reply_message(request, reply);
        sd_bus_message_unref(reply);
}

void run_Manager_InspectImage(Request *request)
{
        g_autoptr(GPtrArray) options = NULL;
        g_autoptr(GError) error = NULL;
        const char *path;

        sd_bus_message_read(request->message, "s", &path);
        options = options_read(request->message, rules, &error);
        if (!options)
                request_fail(request, error);
        else if (*path != '/')
                request_fail_new(request, BJ_ERROR_INVALID_ARGUMENT, "image '%s' is no absolute path", path);
        else
                engine_inspect_image(request->service->engine, path, options_text(options, "format"),
                                     on_seen, request);
}
