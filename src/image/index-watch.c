/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/index-watch.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

/* Not IN_MODIFY: that is every write of a guest. */
#define EVENTS                                                                              \
        (IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_CLOSE_WRITE | IN_ATTRIB | \
         IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
#define MORE_EVENTS (IN_Q_OVERFLOW | IN_UNMOUNT | IN_DELETE_SELF | IN_MOVE_SELF | IN_ISDIR)

#define QUIET_MS 20
#define LONGEST_MS 250
#define PATHS_MAX 1000 /* with more of them it is less work to look through it all */

struct Watch {
        int inotify, wake;
        GHashTable *paths, *old; /* by the kernel's number */
};

Watch *watch_new(void)
{
        Watch *watch = g_new0(Watch, 1);

        watch->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        watch->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        watch->paths = g_hash_table_new_full(NULL, NULL, NULL, g_free);
        return watch;
}

static void close_one(int fd)
{
        if (fd >= 0)
                close(fd);
}

void watch_free(Watch *watch)
{
        close_one(watch->inotify);
        close_one(watch->wake);
        g_hash_table_unref(watch->paths);
        g_free(watch);
}

void watch_wake(Watch *watch)
{
        eventfd_write(watch->wake, 1);
}

void watch_begin(Watch *watch)
{
        watch->old = watch->paths;
        watch->paths = g_hash_table_new_full(NULL, NULL, NULL, g_free);
}

void watch_add(Watch *watch, int fd, const char *path)
{
        g_autofree char *name = g_strdup_printf("/proc/self/fd/%d", fd);
        int number = watch->inotify < 0 ? -1 : inotify_add_watch(watch->inotify, name, EVENTS);

        if (number >= 0)
                g_hash_table_insert(watch->paths, GINT_TO_POINTER(number), g_strdup(path));
}

void watch_end(Watch *watch)
{
        GHashTableIter iter;
        gpointer number;

        g_hash_table_iter_init(&iter, watch->old);
        while (g_hash_table_iter_next(&iter, &number, NULL))
                if (!g_hash_table_contains(watch->paths, number))
                        inotify_rm_watch(watch->inotify, GPOINTER_TO_INT(number));
        g_clear_pointer(&watch->old, g_hash_table_unref);
}

/* ---- events ---- */

typedef struct {
        Watch *watch;
        GHashTable *paths;
        gboolean some, more;
} Events;

static void take_event(Events *events, const struct inotify_event *event)
{
        const char *directory = g_hash_table_lookup(events->watch->paths, GINT_TO_POINTER(event->wd));

        if (event->mask & IN_Q_OVERFLOW)
                events->more = TRUE;
        if (!directory)
                return; /* of one that is no longer watched */
        events->some = TRUE;
        if (event->mask & MORE_EVENTS)
                events->more = TRUE;
        else if (event->len > 0 && !events->more)
                g_hash_table_add(events->paths, g_build_filename(directory, event->name, NULL));
        if (g_hash_table_size(events->paths) > PATHS_MAX)
                events->more = TRUE;
}

static void read_events(Events *events)
{
        char buffer[16 * 1024] __attribute__((aligned(__alignof__(struct inotify_event))));
        gssize length;

        while ((length = read(events->watch->inotify, buffer, sizeof(buffer))) > 0)
                for (gssize at = 0; at < length;) {
                        const struct inotify_event *event = (const struct inotify_event *) (buffer + at);

                        take_event(events, event);
                        at += (gssize) (sizeof(*event) + event->len);
                }
}

gboolean watch_wait(Watch *watch, GHashTable *paths)
{
        Events events = { .watch = watch, .paths = paths };
        struct pollfd polled[] = { { watch->wake, POLLIN, 0 }, { watch->inotify, POLLIN, 0 } };
        gint64 end = 0;
        eventfd_t count;

        for (;;) {
                gint64 left = events.some || events.more ? end - g_get_monotonic_time() : 0;
                int quiet = events.some || events.more ? (int) CLAMP(left / 1000, 0, QUIET_MS) : -1;
                int n = poll(polled, G_N_ELEMENTS(polled), quiet);

                if (n == 0)
                        break;
                if (n < 0 && errno != EINTR)
                        break;
                if (n > 0 && polled[1].revents) {
                        if (!events.some && !events.more)
                                end = g_get_monotonic_time() + LONGEST_MS * 1000;
                        else if (left <= 0)
                                break;
                        read_events(&events);
                }
                if (n > 0 && polled[0].revents) {
                        eventfd_read(watch->wake, &count);
                        break;
                }
        }
        return !events.more;
}
