/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/fd-watch.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <glib-unix.h>

#define BATCH 64 /* in one turn of the main loop */

struct FdWatch {
        int fd;
        FdReady ready;
        gpointer data;
        gboolean is_over;
};

/* There while there are watches. */
static struct {
        int fd;
        guint source, watches;
        gboolean is_telling;
        GSList *over; /* FdWatch: freed when all of a batch have been told */
} all;

static void let_go(gpointer watch)
{
        g_free(watch);
        if (--all.watches > 0)
                return;
        g_clear_handle_id(&all.source, g_source_remove);
        close(all.fd);
}

static gboolean on_ready(int fd, GIOCondition condition, gpointer data)
{
        struct epoll_event events[BATCH];
        int n = epoll_wait(fd, events, BATCH, 0);

        (void) condition;
        (void) data;
        all.is_telling = TRUE;
        for (int i = 0; i < n; i++) {
                const FdWatch *watch = events[i].data.ptr;

                if (!watch->is_over)
                        watch->ready(watch->data);
        }
        all.is_telling = FALSE;
        g_slist_free_full(g_steal_pointer(&all.over), let_go);
        return G_SOURCE_CONTINUE;
}

FdWatch *fd_watch_new(int fd, FdReady ready, gpointer data)
{
        FdWatch *watch = g_new(FdWatch, 1);
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = watch };

        *watch = (FdWatch){ .fd = fd, .ready = ready, .data = data };
        if (all.watches++ == 0) {
                all.fd = epoll_create1(EPOLL_CLOEXEC);
                if (all.fd < 0)
                        g_error("no epoll: %s", g_strerror(errno));
                all.source = g_unix_fd_add(all.fd, G_IO_IN, on_ready, NULL);
        }
        if (epoll_ctl(all.fd, EPOLL_CTL_ADD, fd, &event) < 0)
                g_error("descriptor %d cannot be watched: %s", fd, g_strerror(errno));
        return watch;
}

void fd_watch_free(FdWatch *watch)
{
        if (!watch)
                return;
        epoll_ctl(all.fd, EPOLL_CTL_DEL, watch->fd, NULL);
        watch->is_over = TRUE;
        if (all.is_telling)
                all.over = g_slist_prepend(all.over, watch);
        else
                let_go(watch);
}
