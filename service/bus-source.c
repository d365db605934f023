/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus-source.h"

#include <errno.h>

/* Messages handled in one turn, so that a flood on the bus does not starve QEMU's events. */
#define TURN_MAX 64

typedef struct {
        GSource source;
        sd_bus *bus;
        gpointer fd;
        int events; /* as set last: setting them anew would wake the loop up each time */
        void (*closed)(int error, gpointer data);
        gpointer data;
} BusSource;

/* What sd-bus waits for changes with every message, so it is asked before each poll. */
static gboolean prepare(GSource *source, int *timeout)
{
        BusSource *self = (BusSource *) source;
        int events = sd_bus_get_events(self->bus);
        uint64_t until = UINT64_MAX;

        *timeout = -1;
        if (events < 0 || sd_bus_get_timeout(self->bus, &until) < 0)
                return TRUE; /* dispatch meets the error */
        /* sd-bus speaks of poll(2)'s bits, which GIOCondition's are. */
        if (events != self->events)
                g_source_modify_unix_fd(source, self->fd, (GIOCondition) events | G_IO_HUP | G_IO_ERR);
        self->events = events;
        g_source_set_ready_time(source, until == UINT64_MAX ? -1 : (gint64) until);
        return until == 0;
}

static gboolean check(GSource *source)
{
        BusSource *self = (BusSource *) source;
        gint64 ready = g_source_get_ready_time(source);

        return g_source_query_unix_fd(source, self->fd) != 0 ||
               (ready >= 0 && ready <= g_source_get_time(source));
}

static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer user_data)
{
        BusSource *self = (BusSource *) source;

        (void) callback;
        (void) user_data;
        for (int i = 0; i < TURN_MAX; i++) {
                int r = sd_bus_process(self->bus, NULL);

                if (r < 0) {
                        self->closed(r, self->data);
                        return G_SOURCE_REMOVE;
                }
                if (r == 0)
                        break;
        }
        return G_SOURCE_CONTINUE;
}

static void finalize(GSource *source)
{
        sd_bus_unref(((BusSource *) source)->bus);
}

static GSourceFuncs functions = {
        .prepare = prepare, .check = check, .dispatch = dispatch, .finalize = finalize
};

guint bus_source_attach(sd_bus *bus, void (*closed)(int error, gpointer data), gpointer data)
{
        g_autoptr(GSource) source = g_source_new(&functions, sizeof(BusSource));
        BusSource *self = (BusSource *) source;

        self->bus = sd_bus_ref(bus);
        self->closed = closed;
        self->data = data;
        self->fd = g_source_add_unix_fd(source, sd_bus_get_fd(bus), G_IO_IN);
        self->events = -1;
        g_source_set_name(source, "sd-bus");
        return g_source_attach(source, NULL);
}
