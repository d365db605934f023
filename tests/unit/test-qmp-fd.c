/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptors that go out with commands. QEMU reads its monitor byte by byte and keeps the descriptor that
 * came last, so each must come with the first byte of its own command: not before, not after. None may be
 * left over, however the connection ends. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "monitor.h"

#define MIB (1024 * 1024)

static guint count_descriptors(void)
{
        g_autoptr(GDir) directory = g_dir_open("/proc/self/fd", 0, NULL);
        guint n = 0;

        g_assert_nonnull(directory);
        while (g_dir_read_name(directory))
                n++;
        return n;
}

/* A file of `size` bytes, by which it is known again. */
static int file_new(off_t size)
{
        int fd = memfd_create("passed", MFD_CLOEXEC);

        g_assert_cmpint(fd, >=, 0);
        g_assert_no_errno(ftruncate(fd, size));
        return fd;
}

static off_t file_size(int fd)
{
        struct stat st;

        g_assert_no_errno(fstat(fd, &st));
        return st.st_size;
}

/* The other end reads when the test says so. */
static Monitor *monitor_new_slow(void)
{
        Monitor *monitor = monitor_new_ready();

        g_source_remove(monitor->watch);
        monitor->watch = 0;
        return monitor;
}

/* As QEMU does it. Gives the size of the file that came along, -1 where none came. */
static off_t receive(Monitor *monitor, gsize length)
{
        g_autofree char *bytes = g_malloc(length);
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(4 * sizeof(int))];
        } control;
        struct iovec part = { bytes, length };
        struct msghdr message = {
                .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };
        gssize n = recvmsg(monitor->peer, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        struct cmsghdr *header;
        off_t size;
        int fd;

        while (n < 0 && errno == EAGAIN) {
                /* the connection has more, and is told that there is room */
                g_assert_true(g_main_context_iteration(NULL, FALSE));
                n = recvmsg(monitor->peer, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        }
        g_assert_cmpint(n, >, 0);
        g_assert_false(message.msg_flags & MSG_CTRUNC);
        g_string_append_len(monitor->received, bytes, n);
        header = message.msg_controllen ? CMSG_FIRSTHDR(&message) : NULL;
        if (!header)
                return -1;
        g_assert_cmpint(header->cmsg_level, ==, SOL_SOCKET);
        g_assert_cmpint(header->cmsg_type, ==, SCM_RIGHTS);
        g_assert_cmpuint(header->cmsg_len, ==, CMSG_LEN(sizeof(int)));
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
        size = file_size(fd);
        close(fd);
        return size;
}

/* Reads up to an offset of all that is said; nothing comes along there. */
static void receive_up_to(Monitor *monitor, gsize offset)
{
        while (monitor->received->len < offset)
                g_assert_cmpint(receive(monitor, MIN(offset - monitor->received->len, 65536)), ==, -1);
}

/* Sends a command, and adds its text to what is expected. */
static void execute(Monitor *monitor, GString *expected, int number, gsize filler_size, int fd)
{
        g_autofree char *filler = g_strnfill(filler_size, 'x');

        qmp_execute_fd(monitor->connection, "add-fd", json_make("s:opaque", filler, NULL), fd, NULL, NULL);
        g_string_append_printf(expected,
                               "{\"execute\":\"add-fd\",\"id\":%d,\"arguments\":{\"opaque\":\"%s\"}}\n",
                               number + 2, filler);
}

static void with_its_command(void)
{
        g_autoptr(Monitor) monitor = monitor_new_slow();
        g_autoptr(GString) expected = g_string_new(NULL);
        int fd = file_new(7);
        guint before = count_descriptors();

        execute(monitor, expected, 0, 10, fd);
        g_assert_cmpint(receive(monitor, 1000), ==, 7);
        g_assert_cmpstr(monitor->received->str, ==, expected->str);

        /* the duplicate is closed, the caller's own is not */
        g_assert_cmpuint(count_descriptors(), ==, before);
        g_assert_cmpint(file_size(fd), ==, 7);
        close(fd);
}

/* The caller closes his at once: that takes nothing away. */
static void in_order(void)
{
        g_autoptr(Monitor) monitor = monitor_new_slow();
        g_autoptr(GString) expected = g_string_new(NULL);
        guint before = count_descriptors();
        gsize starts[9];

        for (int i = 0; i < 9; i++) {
                int fd = i % 3 == 2 ? -1 : file_new(i);

                starts[i] = expected->len;
                execute(monitor, expected, i, 3, fd);
                if (fd >= 0)
                        close(fd);
        }
        for (int i = 0; i < 9; i++) {
                receive_up_to(monitor, starts[i]);
                g_assert_cmpint(receive(monitor, 1), ==, i % 3 == 2 ? -1 : i);
        }
        receive_up_to(monitor, expected->len);
        g_assert_cmpstr(monitor->received->str, ==, expected->str);
        g_assert_cmpuint(count_descriptors(), ==, before);
}

/* Nothing has been read yet for MiBs before, and a command with a descriptor is itself too long for one go.
 */
static void behind_a_full_socket(void)
{
        g_autoptr(Monitor) monitor = monitor_new_slow();
        g_autoptr(GString) expected = g_string_new(NULL);
        guint before = count_descriptors();
        gsize starts[40];

        for (int i = 0; i < 40; i++) {
                int fd = i >= 36 && i != 38 ? file_new(i) : -1;

                starts[i] = expected->len;
                execute(monitor, expected, i, i == 36 ? MIB : 100 * 1024 + (gsize) i, fd);
                if (fd >= 0)
                        close(fd);
        }
        g_assert_cmpuint(count_descriptors(), ==, before + 3);
        for (int i = 36; i < 40; i++) {
                receive_up_to(monitor, starts[i]);
                g_assert_cmpint(receive(monitor, 1), ==, i != 38 ? i : -1);
        }
        receive_up_to(monitor, expected->len);
        g_assert_true(g_string_equal(monitor->received, expected));
        g_assert_cmpuint(count_descriptors(), ==, before);
}

typedef enum { LOST, FREED, FREED_IN_LOST } End;

/* The command is still waiting to be sent, or a part of it. */
static void never_sent(gconstpointer data)
{
        const End end = (End) GPOINTER_TO_INT(data);
        guint before = count_descriptors();
        g_autoptr(Monitor) monitor = monitor_new_slow();
        g_autoptr(GString) expected = g_string_new(NULL);

        for (int i = 0; i < 3; i++) {
                int fd = file_new(i);

                execute(monitor, expected, i, 4 * MIB, fd);
                close(fd);
        }
        /* both ends of the pair and what watches one; the first file has gone, with the start of its
         * command, into the socket */
        g_assert_cmpuint(count_descriptors(), ==, before + 3 + 2);
        if (end == FREED_IN_LOST)
                monitor->free_at = "lost";
        if (end == FREED)
                qmp_connection_free(g_steal_pointer(&monitor->connection));
        monitor_hang_up(monitor);
        if (end != FREED)
                expect_line_starts(monitor, "lost Disconnected: ");
        g_assert_cmpuint(count_descriptors(), ==, before);
}

/* No descriptors are left to the process: the command goes without, so that QEMU has something to refuse. */
static void none_to_be_had(void)
{
        g_autoptr(Monitor) monitor = monitor_new_slow();
        g_autoptr(GString) expected = g_string_new(NULL);
        int fd = file_new(7), next = dup(fd);
        struct rlimit limit, less;

        g_assert_cmpint(next, >=, 0);
        close(next);
        g_assert_no_errno(getrlimit(RLIMIT_NOFILE, &limit));
        less = limit;
        less.rlim_cur = (rlim_t) next;
        g_assert_no_errno(setrlimit(RLIMIT_NOFILE, &less));
        execute(monitor, expected, 0, 10, fd);
        g_assert_no_errno(setrlimit(RLIMIT_NOFILE, &limit));
        close(fd);
        g_assert_cmpint(receive(monitor, 1000), ==, -1);
        g_assert_cmpstr(monitor->received->str, ==, expected->str);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/qmp-fd/with-its-command", with_its_command);
        g_test_add_func("/qmp-fd/in-order", in_order);
        g_test_add_func("/qmp-fd/behind-a-full-socket", behind_a_full_socket);
        g_test_add_data_func("/qmp-fd/never-sent/lost", GINT_TO_POINTER(LOST), never_sent);
        g_test_add_data_func("/qmp-fd/never-sent/freed", GINT_TO_POINTER(FREED), never_sent);
        g_test_add_data_func("/qmp-fd/never-sent/freed-in-lost", GINT_TO_POINTER(FREED_IN_LOST), never_sent);
        g_test_add_func("/qmp-fd/none-to-be-had", none_to_be_had);
        return g_test_run();
}
