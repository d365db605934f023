/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A QMP connection that cannot be made, that ends, that is ended from within its own handlers, and the other
 * end telling what is no QMP. Each command gets its reply exactly once (a second one is a use after free
 * here, none at all a leak), and no handler is called after the end. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "base/error.h"
#include "base/json.h"
#include "monitor.h"

#define LOST "Disconnected: the connection to QEMU was lost: "
#define GIVEN_UP "Disconnected: the connection was given up"

static void execute_three(Monitor *monitor)
{
        for (int i = 0; i < 3; i++)
                monitor_execute(monitor, "query-jobs", NULL, i);
        qmp_execute(monitor->connection, "cont", NULL, NULL, NULL);
}

/* ---- what the other end does ---- */

static void closed(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        execute_three(monitor);
        monitor_hang_up(monitor);
        expect_line(monitor, "lost Disconnected: the passed socket was closed by QEMU");
        for (int i = 0; i < 3; i++) {
                g_autofree char *line =
                        g_strdup_printf("reply %d " LOST "the passed socket was closed by QEMU", i);
                expect_line(monitor, line);
        }
}

/* QEMU's last words count: a SHUTDOWN, or the reply that it still gave. */
static void closed_after_last_words(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        execute_three(monitor);
        monitor_say(monitor,
                    "{\"return\": 0, \"id\": 2}\n{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true}}\n");
        monitor_hang_up(monitor);
        expect_line(monitor, "reply 0 0");
        expect_line(monitor, "event SHUTDOWN {\"guest\":true} 0");
        expect_line_starts(monitor, "lost Disconnected: ");
        expect_line_starts(monitor, "reply 1 " LOST);
        expect_line_starts(monitor, "reply 2 " LOST);
}

/* The command cannot be sent any more; what QEMU said before is read all the same. */
static void execute_on_a_broken_pipe(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        monitor_say(monitor, "{\"event\": \"SHUTDOWN\"}\n");
        monitor_hang_up(monitor);
        execute_three(monitor);
        g_assert_cmpuint(monitor->lines->len, ==, monitor->checked);
        expect_line(monitor, "event SHUTDOWN {} 0");
        expect_line_starts(monitor, "lost Disconnected: ");
        for (int i = 0; i < 3; i++)
                expect_line_starts(monitor, "reply ");
}

/* What cannot be sent ends the connection, or the command would stay without a reply for ever. */
static void execute_to_deaf_ears(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        monitor_say(monitor, "{\"event\": \"STOP\"}\n");
        g_assert_no_errno(shutdown(monitor->peer, SHUT_RD));
        monitor_execute(monitor, "query-jobs", NULL, 0);
        expect_line(monitor, "event STOP {} 0");
        expect_line_starts(monitor, "lost Disconnected: ");
        expect_line_starts(monitor, "reply 0 " LOST);
}

static void closed_before_the_greeting(void)
{
        g_autoptr(Monitor) monitor = monitor_new();

        monitor_hang_up(monitor);
        expect_line(monitor,
                    "lost Disconnected: the passed socket closed the connection before QMP was agreed on");
}

static void closed_in_negotiation(void)
{
        g_autoptr(Monitor) monitor = monitor_new();

        monitor_say(monitor, GREETING);
        g_free(monitor_take_command(monitor));
        monitor_hang_up(monitor);
        expect_line(monitor,
                    "lost Disconnected: the passed socket closed the connection before QMP was agreed on");
}

static void reply_cut_in_half(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        execute_three(monitor);
        monitor_say(monitor, "{\"return\": {}, \"id\": 2}\r\n{\"return\": {}, \"id\"");
        monitor_hang_up(monitor);
        expect_line(monitor, "reply 0 {}");
        expect_line(monitor, "lost Disconnected: the passed socket was closed by QEMU");
        expect_line_starts(monitor, "reply 1 " LOST);
        expect_line_starts(monitor, "reply 2 " LOST);
}

static const char *const no_greetings[] = {
        "SSH-2.0-OpenSSH_9.2p1 Debian", /* no line end: it must not be waited for */
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "\177ELF\1\2\3",
        "\xff\xfe\n",
        "[]\n",
        "7\n",
        "{\"hello\": \"world\"}\n",
        "{\"QMP\": {}}\n",
        "{\"QMP\": {\"version\": {}}}\n",
        "{\"QMP\": {\"version\": {\"qemu\": \"7.2\"}}}\n",
        "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}}\n", /* one brace short */
        "{\"event\": \"STOP\"}\n",
        AGREED,
};

static void garbage_for_a_greeting(gconstpointer said)
{
        g_autoptr(Monitor) monitor = monitor_new();

        monitor_say(monitor, said);
        expect_line_starts(monitor,
                           "lost InvalidArgument: the passed socket does not speak QMP: it sent \"");
        g_assert_true(g_utf8_validate(monitor->lines->pdata[0], -1, NULL));
        g_assert_null(strpbrk(monitor->lines->pdata[0], "\n\r\177"));
}

static const char *const no_messages[] = {
        "hello\n",
        "[]\n",
        "{}\n",
        "\xff\xfe\n",
        "{\"return\": {}, \"id\": 2\n",
        "{\"return\": {}, \"id\": 99}\n",
        "{\"return\": {}, \"id\": -1}\n",
        "{\"return\": {}, \"id\": 1}\n",
        "{\"return\": {}, \"id\": \"2\"}\n",
        "{\"return\": {}}\n",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\n",
        "{\"error\": \"no\", \"id\": 2}\n",
        "{\"event\": {}, \"id\": 2}\n",
};

static void garbage_later(gconstpointer said)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        monitor_execute(monitor, "query-jobs", NULL, 0);
        monitor_say(monitor, said);
        monitor_say(monitor, "{\"return\": {}, \"id\": 2}\n{\"event\": \"AFTER\"}\n");
        expect_line_starts(monitor, "lost Disconnected: the passed socket does not speak QMP: it sent \"");
        expect_line_starts(monitor, "reply 0 " LOST "the passed socket does not speak QMP");
}

static void same_reply_twice(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        execute_three(monitor);
        monitor_say(monitor, "{\"return\": 0, \"id\": 2}\n{\"return\": 0, \"id\": 2}\n");
        expect_line(monitor, "reply 0 0");
        expect_line_starts(monitor, "lost Disconnected: ");
        expect_line_starts(monitor, "reply 1 " LOST);
        expect_line_starts(monitor, "reply 2 " LOST);
}

/* A message that never ends: the service's memory has an end. */
static void flood(gconstpointer start)
{
        g_autoptr(Monitor) monitor = *(const char *) start ? monitor_new_ready() : monitor_new();
        g_autofree char *block = g_strnfill(1024 * 1024, 'x');

        if (!*(const char *) start)
                start = "{\"QMP\": \"";
        else
                monitor_execute(monitor, "query-jobs", NULL, 0);
        monitor_say(monitor, start);
        for (int i = 0; i < 20 && monitor->lines->len == monitor->checked; i++)
                monitor_say(monitor, block);
        expect_line(monitor, "lost LimitExceeded: the passed socket sent a message of more than 16 MiB");
        if (monitor->lines->len > 1)
                expect_line_starts(monitor, "reply 0 " LOST);
}

/* JSON that is legal, but as deep as it is long. Alone in a process, since it might take the stack. */
static const char *const deep_starts[] = {
        "{\"id\": 2, \"return\": [",
        "{\"id\": 2, \"return\": {\"\\\"\": [",
        "{\"id\": 2, \"return\": {\"a\": ",
        "{\"id\": 2, /* \" */ \"return\": [", /* json-glib takes comments */
        "{\"id\": 2, \"return\": '\"' [",     /* no JSON at all */
};

static void deep(gconstpointer start)
{
        if (g_test_subprocess()) {
                g_autoptr(Monitor) monitor = monitor_new_ready();
                g_autoptr(GString) text = g_string_new(start);

                for (int i = 0; i < 500000; i++)
                        g_string_append(text, i % 2 ? "{\"a\":" : "[");
                for (int i = 500000; i-- > 0;)
                        g_string_append(text, i % 2 ? "}" : "]");
                g_string_append(text, "]}\n");
                monitor_execute(monitor, "query-jobs", NULL, 0);
                monitor_say(monitor, text->str);
                expect_line_starts(monitor, "lost Disconnected: ");
                expect_line_starts(monitor, "reply 0 " LOST);
                return;
        }
        g_test_trap_subprocess(NULL, 30 * G_USEC_PER_SEC, 0);
        g_test_trap_assert_passed();
}

/* What QEMU has to tell of 256 layers, when it nests them as query-block does. */
static void deep_enough(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();
        g_autoptr(GString) text = g_string_new("{\"id\": 2, \"return\": [{\"inserted\": {\"image\": ");
        g_autoptr(GString) line = g_string_new("reply 0 [{\"inserted\":{\"image\":");

        monitor_execute(monitor, "query-block", NULL, 0);
        for (int i = 0; i < 256; i++) {
                g_string_append(text, "{\"backing-image\": ");
                g_string_append(line, "{\"backing-image\":");
        }
        g_string_append(text, "{\"filename\": \"[[\\\"{{\"}");
        g_string_append(line, "{\"filename\":\"[[\\\"{{\"}");
        for (int i = 0; i < 256; i++) {
                g_string_append_c(text, '}');
                g_string_append_c(line, '}');
        }
        g_string_append(text, "}}]}\n");
        g_string_append(line, "}}]");
        monitor_say(monitor, text->str);
        expect_line(monitor, line->str);
}

/* ---- freed within its own calls ---- */

static void freed_idle(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        execute_three(monitor);
        qmp_connection_free(g_steal_pointer(&monitor->connection));
        /* at once, without a turn of the main loop */
        g_assert_cmpuint(monitor->lines->len, ==, 4);
        for (int i = 0; i < 3; i++) {
                g_autofree char *line = g_strdup_printf("reply %d " GIVEN_UP, i);
                expect_line(monitor, line);
        }
        monitor_say(monitor, "{\"return\": {}, \"id\": 2}\n{\"event\": \"STOP\"}\n");
}

static void freed_in_greeting(void)
{
        g_autoptr(Monitor) monitor = monitor_new();

        monitor_say(monitor, GREETING);
        g_free(monitor_take_command(monitor));
        qmp_connection_free(g_steal_pointer(&monitor->connection));
        monitor_say(monitor, AGREED);
}

static void freed_unopened(void)
{
        g_autoptr(Monitor) monitor = monitor_new_unconnected();

        qmp_connection_free(g_steal_pointer(&monitor->connection));
        qmp_connection_free(NULL);
}

/* Everything that may come is on its way already when the connection is freed inside one call. */
static void freed_in(gconstpointer call)
{
        g_autoptr(Monitor) monitor = NULL;

        if (strcmp(call, "ready") == 0) {
                monitor = monitor_new();
                monitor->free_at = call;
                monitor->execute_at = call;
                monitor_say(monitor, GREETING AGREED "{\"event\": \"STOP\"}\n");
                expect_line(monitor, "ready");
                expect_line(monitor, "reply more " GIVEN_UP);
                return;
        }
        monitor = monitor_new_ready();
        execute_three(monitor);
        monitor->free_at = call;
        monitor_say(monitor, "{\"return\": 0, \"id\": 2}\n{\"event\": \"STOP\"}\n");
        if (strcmp(call, "reply 0") != 0 && strcmp(call, "event") != 0)
                monitor_hang_up(monitor);
        else
                monitor_say(monitor, "{\"event\": \"STOP\"}\n{\"return\": 0, \"id\": 3}\nrubbish\n");

        expect_line(monitor, "reply 0 0");
        if (strcmp(call, "reply 0") != 0)
                expect_line(monitor, "event STOP {} 0");
        if (strcmp(call, "reply 0") != 0 && strcmp(call, "event") != 0)
                expect_line_starts(monitor, "lost Disconnected: ");
        if (strcmp(call, "reply 1") == 0)
                expect_line_starts(monitor, "reply 1 " LOST);
        else
                expect_line(monitor, "reply 1 " GIVEN_UP);
        expect_line(monitor, "reply 2 " GIVEN_UP);
        g_assert_null(monitor->connection);
}

static void freed_in_lost_by_garbage(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        monitor_execute(monitor, "query-jobs", NULL, 0);
        monitor->free_at = "lost";
        monitor_say(monitor, "rubbish\n{\"event\": \"STOP\"}\n");
        expect_line_starts(monitor, "lost Disconnected: ");
        expect_line(monitor, "reply 0 " GIVEN_UP);
}

/* ---- what cannot be opened ---- */

typedef struct {
        char *directory, *path;
} Place;

static void place_set_up(Place *place, gconstpointer data)
{
        (void) data;
        place->directory = g_dir_make_tmp("bj-XXXXXX", NULL);
        g_assert_nonnull(place->directory);
        place->path = g_build_filename(place->directory, "qmp", NULL);
}

static void place_tear_down(Place *place, gconstpointer data)
{
        (void) data;
        if (unlink(place->path) < 0 && errno != ENOENT)
                g_rmdir(place->path);
        g_assert_no_errno(g_rmdir(place->directory));
        g_free(place->directory);
        g_free(place->path);
}

static int bind_to(const char *path)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        /* The kernel takes all of sun_path, without an end. */
        g_assert_cmpuint(strlen(path), <=, sizeof(address.sun_path));
        memcpy(address.sun_path, path, strlen(path));
        g_assert_no_errno(bind(fd, (struct sockaddr *) &address, sizeof(address)));
        return fd;
}

static void expect_refusal(const char *path, BjErrorCode code, const char *text)
{
        g_autoptr(Monitor) monitor = monitor_new_unconnected();
        g_autoptr(GError) error = NULL;

        g_assert_false(qmp_connection_open(monitor->connection, path, &error));
        g_assert_error(error, BJ_ERROR, (int) code);
        g_assert_nonnull(strstr(error->message, text));
        g_assert_nonnull(strstr(error->message, path));
}

static void no_socket(Place *place, gconstpointer data)
{
        g_autofree char *below = g_build_filename(place->path, "below", NULL);

        (void) data;
        expect_refusal(place->path, BJ_ERROR_INVALID_ARGUMENT, "No such file or directory");
        expect_refusal("", BJ_ERROR_INVALID_ARGUMENT, "");
        g_assert_true(g_file_set_contents(place->path, GREETING, -1, NULL));
        expect_refusal(place->path, BJ_ERROR_INVALID_ARGUMENT, "is not a socket");
        expect_refusal(below, BJ_ERROR_INVALID_ARGUMENT, "Not a directory");
        g_assert_no_errno(unlink(place->path));
        g_assert_no_errno(g_mkdir(place->path, 0700));
        expect_refusal(place->path, BJ_ERROR_INVALID_ARGUMENT, "is not a socket");
}

static void dead_socket(Place *place, gconstpointer data)
{
        (void) data;
        close(bind_to(place->path));
        expect_refusal(place->path, BJ_ERROR_DISCONNECTED, "nothing listens on");
}

/* A monitor that was made without "nowait" and others are waiting for it already. */
static void full_queue(Place *place, gconstpointer data)
{
        int listener = bind_to(place->path);
        g_autoptr(GPtrArray) waiting = g_ptr_array_new_with_free_func((GDestroyNotify) monitor_free);
        g_autoptr(GError) error = NULL;

        (void) data;
        g_assert_no_errno(listen(listener, 0));
        while (!error && waiting->len < 100) {
                Monitor *monitor = monitor_new_unconnected();

                g_ptr_array_add(waiting, monitor);
                qmp_connection_open(monitor->connection, place->path, &error);
        }
        g_assert_error(error, BJ_ERROR, BJ_ERROR_TIMEOUT);
        g_assert_true(g_str_has_prefix(error->message, "monitor busy: "));
        g_assert_cmpuint(waiting->len, >, 1);
        close(listener);
        for (guint i = 0; i + 1 < waiting->len; i++)
                expect_line_starts(waiting->pdata[i], "lost Disconnected: ");
}

static void long_path(Place *place, gconstpointer data)
{
        const gsize longest = sizeof(((struct sockaddr_un *) NULL)->sun_path) - 1;
        g_autofree char *filler = g_strnfill(longest - strlen(place->path) + 1, 'x');
        g_autoptr(Monitor) monitor = monitor_new_unconnected();
        g_autofree char *path = g_strconcat(place->path, filler, NULL);
        GError *error = NULL;
        int listener;

        (void) data;
        expect_refusal(path, BJ_ERROR_INVALID_ARGUMENT, "longer than the 107 bytes");

        path[longest] = '\0';
        listener = bind_to(path);
        g_assert_no_errno(listen(listener, 1));
        qmp_connection_open(monitor->connection, path, &error);
        g_assert_no_error(error);
        monitor->peer = accept(listener, NULL, NULL);
        g_assert_no_errno(monitor->peer);
        close(listener);
        g_assert_no_errno(unlink(path));
        monitor_say(monitor, GREETING AGREED);
        expect_line(monitor, "ready");
        g_assert_cmpuint(qmp_connection_pid(monitor->connection), ==, (guint) getpid());

        /* messages name the socket */
        g_autofree char *line = g_strdup_printf("lost Disconnected: '%s' was closed by QEMU", path);
        monitor_hang_up(monitor);
        expect_line(monitor, line);
}

/* Every close() of the connection itself: of nothing that is closed already, since that number may be
 * somebody else's by then. */
int __real_close(int fd);
int __wrap_close(int fd);

int __wrap_close(int fd)
{
        int result = __real_close(fd);

        g_assert_true(result == 0 || errno != EBADF);
        return result;
}

static void expect_fd_refused(int fd)
{
        g_autoptr(Monitor) monitor = monitor_new_unconnected();
        g_autoptr(GError) error = NULL;

        g_assert_cmpint(fd, >=, 0);
        g_assert_false(qmp_connection_open_fd(monitor->connection, fd, &error));
        g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
        g_assert_cmpint(fcntl(fd, F_GETFD), ==, -1);
        g_assert_cmpint(errno, ==, EBADF);
}

static void bad_descriptors(Place *place, gconstpointer data)
{
        int pair[2], listener;

        (void) data;
        g_assert_no_errno(pipe(pair));
        expect_fd_refused(pair[0]);
        expect_fd_refused(pair[1]);
        expect_fd_refused(open("/dev/null", O_RDWR));
        g_assert_no_errno(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
        expect_fd_refused(pair[0]);
        close(pair[1]);
        g_assert_no_errno(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
        expect_fd_refused(pair[0]);
        close(pair[1]);
        expect_fd_refused(socket(AF_UNIX, SOCK_STREAM, 0));
        listener = bind_to(place->path);
        g_assert_no_errno(listen(listener, 1));
        expect_fd_refused(listener);
}

static void add_each(const char *path, const char *const *what, guint n, GTestDataFunc function)
{
        for (guint i = 0; i < n; i++) {
                g_autofree char *name = g_strdup_printf("%s/%u", path, i + 1);
                g_test_add_data_func(name, what[i], function);
        }
}

int main(int argc, char **argv)
{
        static const char *const calls[] = { "ready", "reply 0", "event", "lost", "reply 1" };

        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/qmp-end/closed/at-once", closed);
        g_test_add_func("/qmp-end/closed/last-words", closed_after_last_words);
        g_test_add_func("/qmp-end/closed/broken-pipe", execute_on_a_broken_pipe);
        g_test_add_func("/qmp-end/closed/deaf", execute_to_deaf_ears);
        g_test_add_func("/qmp-end/closed/before-greeting", closed_before_the_greeting);
        g_test_add_func("/qmp-end/closed/in-negotiation", closed_in_negotiation);
        g_test_add_func("/qmp-end/closed/half-a-reply", reply_cut_in_half);
        add_each("/qmp-end/garbage/greeting", no_greetings, G_N_ELEMENTS(no_greetings),
                 garbage_for_a_greeting);
        add_each("/qmp-end/garbage/later", no_messages, G_N_ELEMENTS(no_messages), garbage_later);
        g_test_add_func("/qmp-end/garbage/reply-twice", same_reply_twice);
        g_test_add_data_func("/qmp-end/garbage/flood-later", "{\"return\": \"", flood);
        g_test_add_data_func("/qmp-end/garbage/flood-at-once", "", flood);
        add_each("/qmp-end/garbage/deep", deep_starts, G_N_ELEMENTS(deep_starts), deep);
        g_test_add_func("/qmp-end/garbage/deep-enough", deep_enough);
        g_test_add_func("/qmp-end/freed/idle", freed_idle);
        g_test_add_func("/qmp-end/freed/in-greeting", freed_in_greeting);
        g_test_add_func("/qmp-end/freed/unopened", freed_unopened);
        add_each("/qmp-end/freed/inside", calls, G_N_ELEMENTS(calls), freed_in);
        g_test_add_func("/qmp-end/freed/by-garbage", freed_in_lost_by_garbage);
#define ADD(name, function) \
        g_test_add("/qmp-end/open/" name, Place, NULL, place_set_up, function, place_tear_down)
        ADD("no-socket", no_socket);
        ADD("dead-socket", dead_socket);
        ADD("full-queue", full_queue);
        ADD("long-path", long_path);
        ADD("bad-descriptors", bad_descriptors);
        return g_test_run();
}
