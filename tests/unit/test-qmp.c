/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A QMP connection while it holds: greeting, negotiation, commands and replies, events, deadlines. */
#include <string.h>

#include "base/json.h"
#include "monitor.h"

/* The connection's clock; the tests turn it back instead of waiting for deadlines. */
static gint64 clock_offset;

gint64 __real_g_get_monotonic_time(void);
gint64 __wrap_g_get_monotonic_time(void);

gint64 __wrap_g_get_monotonic_time(void)
{
        return __real_g_get_monotonic_time() + clock_offset;
}

/* What is done between these two has its deadline in `milliseconds` instead of in `seconds`. */
static void clock_back(int seconds, int milliseconds)
{
        clock_offset = -seconds * G_USEC_PER_SEC + milliseconds * G_TIME_SPAN_MILLISECOND;
}

static void clock_right(void)
{
        clock_offset = 0;
}

static JsonObject *parse(const char *text)
{
        g_autoptr(JsonNode) node = json_from_string(text, NULL);

        g_assert_true(node && JSON_NODE_HOLDS_OBJECT(node));
        return json_object_ref(json_node_get_object(node));
}

/* Takes the next command and compares its name; gives its id. */
static gint64 take(Monitor *monitor, const char *name)
{
        g_autofree char *text = monitor_take_command(monitor);
        g_autoptr(JsonObject) command = parse(text);

        g_assert_cmpstr(json_string(command, "execute"), ==, name);
        g_assert_cmpint(json_integer(command, "id"), >, 0);
        return json_integer(command, "id");
}

static void greet_whole(void)
{
        g_autoptr(Monitor) monitor = monitor_new();

        monitor_say(monitor, GREETING);
        g_assert_cmpint(take(monitor, "qmp_capabilities"), ==, 1);
        g_assert_cmpuint(monitor->lines->len, ==, 0);
        monitor_say(monitor, AGREED);
        expect_line(monitor, "ready");
        g_assert_cmpstr(qmp_connection_version(monitor->connection), ==, "7.2.22 (Debian 1:7.2)");
}

static void greet_byte_by_byte(void)
{
        g_autoptr(Monitor) monitor = monitor_new();
        static const char said[] = GREETING AGREED;

        for (gsize i = 0; i < strlen(said); i++) {
                monitor_say_bytes(monitor, &said[i], 1);
                while (g_main_context_iteration(NULL, FALSE))
                        ;
                if (i == strlen(GREETING) - 1)
                        take(monitor, "qmp_capabilities");
        }
        expect_line(monitor, "ready");
}

/* QEMU does not wait for anybody's question before it sends events. */
static void greet_in_one_go(void)
{
        g_autoptr(Monitor) monitor = monitor_new();

        monitor_say(monitor, GREETING AGREED "{\"event\": \"STOP\", \"data\": {}}\r\n");
        expect_line(monitor, "ready");
        expect_line(monitor, "event STOP {} 0");
}

static void greet_without_package(void)
{
        g_autoptr(Monitor) monitor = monitor_new();

        monitor_say(monitor, "\n{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 1, \"major\": "
                             "11}, \"package\": \"\"}}}\n");
        take(monitor, "qmp_capabilities");
        monitor_say(monitor, AGREED);
        expect_line(monitor, "ready");
        g_assert_cmpstr(qmp_connection_version(monitor->connection), ==, "11.1.0");
}

static void negotiation_refused(void)
{
        g_autoptr(Monitor) monitor = monitor_new();

        monitor_say(monitor, GREETING);
        take(monitor, "qmp_capabilities");
        monitor_say(monitor, "{\"id\": 1, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n");
        expect_line(monitor, "lost InvalidArgument: the passed socket refused QMP: no");
}

static void events(void)
{
        g_autoptr(Monitor) monitor = monitor_new();

        monitor_say(monitor, GREETING "{\"event\": \"EARLY\", \"data\": {}}\r\n");
        take(monitor, "qmp_capabilities");
        monitor_say(monitor,
                    "{\"event\": \"EARLY\", \"data\": {}}\r\n" AGREED
                    "{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 12}, "
                    "\"event\": \"JOB_STATUS_CHANGE\", \"data\": {\"status\": \"ready\"}}\r\n"
                    "{\"timestamp\": {\"seconds\": -1, \"microseconds\": -1}, \"event\": \"STOP\"}\n"
                    "\r\n\n"
                    "{\"event\": \"BARE\", \"data\": [], \"timestamp\": 7}\n");
        expect_line(monitor, "ready");
        expect_line(monitor, "event JOB_STATUS_CHANGE {\"status\":\"ready\"} 1700000000000012");
        /* QEMU's way to say that it could not read its clock */
        expect_line(monitor, "event STOP {} -1000001");
        expect_line(monitor, "event BARE {} 0");
}

static void commands(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();
        g_autofree char *text = NULL;

        monitor_execute(monitor, "query-jobs", NULL, 1);
        text = monitor_take_command(monitor);
        g_assert_cmpstr(text, ==, "{\"execute\":\"query-jobs\",\"id\":2}");
        g_clear_pointer(&text, g_free);

        monitor_execute(monitor, "job-pause", json_make("s:id", "a \"b\"\n", "i:n", (gint64) -1, NULL), 2);
        text = monitor_take_command(monitor);
        g_assert_cmpstr(
                text, ==,
                "{\"execute\":\"job-pause\",\"id\":3,\"arguments\":{\"id\":\"a \\\"b\\\"\\n\",\"n\":-1}}");

        monitor_say(monitor,
                    "{\"return\": [{\"id\": \"j\"}], \"id\": 2}\r\n{\"return\": null, \"id\": 3}\r\n");
        expect_line(monitor, "reply 1 [{\"id\":\"j\"}]");
        expect_line(monitor, "reply 2 null");
}

static void replies_by_id(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        for (int i = 0; i < 3; i++)
                monitor_execute(monitor, "query-jobs", NULL, i);
        monitor_say(monitor, "{\"return\": \"a\", \"id\": 2}\n"
                             "{\"event\": \"RESUME\", \"data\": {}}\n"
                             "{\"return\": \"b\", \"id\": 3}\n{\"return\": \"c\", \"id\": 4}\n");
        expect_line(monitor, "reply 0 \"a\"");
        expect_line(monitor, "event RESUME {} 0");
        expect_line(monitor, "reply 1 \"b\"");
        expect_line(monitor, "reply 2 \"c\"");
}

/* QEMU never does that, and who asked several things at once relies on it. */
static void reply_out_of_turn(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        for (int i = 0; i < 2; i++)
                monitor_execute(monitor, "query-jobs", NULL, i);
        monitor_say(monitor, "{\"return\": \"b\", \"id\": 3}\n{\"return\": \"a\", \"id\": 2}\n");
        expect_line_starts(monitor, "lost Disconnected: the passed socket does not speak QMP");
        expect_line_starts(monitor, "reply 0 Disconnected: ");
        expect_line_starts(monitor, "reply 1 Disconnected: ");
}

static void errors_of_qemu(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        for (int i = 0; i < 3; i++)
                monitor_execute(monitor, "job-dismiss", NULL, i);
        monitor_say(monitor,
                    "{\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"Job not found\"}}\n"
                    "{\"id\": 3, \"error\": {\"class\": \"GenericError\"}}\n"
                    "{\"id\": 4, \"error\": {\"desc\": \"100%s \\u00fc\"}}\n");
        expect_line(monitor, "reply 0 QemuError: Job not found");
        expect_line(monitor, "reply 1 QemuError: unknown error");
        expect_line(monitor, "reply 2 QemuError: 100%s ü");
}

/* QEMU reads late, so that most of it waits in the connection, and answers all at once. */
static void pipelined(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();
        g_autoptr(GString) answers = g_string_new(NULL);
        g_autofree char *filler = g_strnfill(4000, 'x');
        const int n = 500;

        g_source_remove(monitor->watch);
        monitor->watch = 0;
        for (int i = 0; i < n; i++)
                monitor_execute(monitor, "query-block",
                                json_make("i:number", (gint64) i, "s:filler", filler, NULL), i);
        expect_nothing(monitor);
        monitor_listen_again(monitor);
        for (int i = 0; i < n; i++) {
                g_autofree char *text = monitor_take_command(monitor);
                g_autoptr(JsonObject) command = parse(text);
                JsonObject *arguments = json_object(command, "arguments");

                g_assert_cmpint(json_integer(command, "id"), ==, i + 2);
                g_assert_cmpint(json_integer(arguments, "number"), ==, i);
                g_assert_cmpstr(json_string(arguments, "filler"), ==, filler);
                g_string_append_printf(answers, "{\"return\": %d, \"id\": %d}\r\n", i * i, i + 2);
        }
        monitor_say(monitor, answers->str);
        for (int i = 0; i < n; i++) {
                g_autofree char *line = g_strdup_printf("reply %d %d", i, i * i);
                expect_line(monitor, line);
        }
}

static void big_message(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();
        g_autofree char *filler = g_strnfill(QMP_MESSAGE_MAX - 100, 'x');
        g_autofree char *said = g_strdup_printf("{\"id\": 2, \"return\": \"%s\"}\n", filler);
        g_autofree char *line = g_strdup_printf("reply 0 \"%s\"", filler);

        monitor_execute(monitor, "query-named-block-nodes", NULL, 0);
        monitor_say(monitor, said);
        expect_line(monitor, line);
}

/* Commands without a reply handler, from within handlers. */
static void execute_in_handlers(void)
{
        g_autoptr(Monitor) monitor = monitor_new();

        monitor->execute_at = "ready";
        monitor_say(monitor, GREETING AGREED);
        expect_line(monitor, "ready");
        take(monitor, "qmp_capabilities");
        g_assert_cmpint(take(monitor, "more"), ==, 2);
        qmp_execute(monitor->connection, "cont", NULL, NULL, NULL);
        take(monitor, "cont");

        monitor->execute_at = "reply more 1";
        monitor_say(monitor, "{\"return\": 1, \"id\": 2}\n{\"return\": {}, \"id\": 3}\n");
        expect_line(monitor, "reply more 1");
        g_assert_cmpint(take(monitor, "more"), ==, 4);
        monitor->execute_at = "event STOP";
        monitor_say(monitor, "{\"event\": \"STOP\"}\n{\"return\": 2, \"id\": 4}\n");
        expect_line(monitor, "event STOP {} 0");
        expect_line(monitor, "reply more 2");
        g_assert_cmpint(take(monitor, "more"), ==, 5);
        monitor_say(monitor, "{\"return\": 3, \"id\": 5}\n");
        expect_line(monitor, "reply more 3");
}

static void greeting_never_comes(void)
{
        g_autoptr(Monitor) monitor = NULL;
        gint64 start = g_get_monotonic_time();

        clock_back(QMP_GREETING_SECONDS, 100);
        monitor = monitor_new();
        clock_right();
        monitor->deadline_of_the_test = start + 2 * G_USEC_PER_SEC;
        expect_line_starts(monitor, "lost Timeout: monitor busy: ");
        g_assert_cmpint(g_get_monotonic_time() - start, >=, 90 * G_TIME_SPAN_MILLISECOND);
}

/* What matters is that QMP is agreed on, not that something was said. */
static void greeting_half(void)
{
        g_autoptr(Monitor) monitor = NULL;

        clock_back(QMP_GREETING_SECONDS, 100);
        monitor = monitor_new();
        clock_right();
        monitor->deadline_of_the_test = g_get_monotonic_time() + 2 * G_USEC_PER_SEC;
        monitor_say(monitor, "{\"QMP\": {\"version\"");
        expect_line_starts(monitor, "lost Timeout: ");
}

static void late(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();
        gint64 start = g_get_monotonic_time();

        monitor->deadline_of_the_test = start + 2 * G_USEC_PER_SEC;
        clock_back(QMP_COMMAND_SECONDS, 100);
        monitor_execute(monitor, "query-block", NULL, 0);
        monitor_execute(monitor, "query-jobs", NULL, 1);
        clock_right();
        monitor_execute(monitor, "query-status", NULL, 2);
        expect_line(monitor, "late query-block");
        g_assert_cmpint(g_get_monotonic_time() - start, >=, 90 * G_TIME_SPAN_MILLISECOND);

        /* told once; an event is no sign that the monitor answers again; the connection stays */
        monitor_say(monitor, "{\"event\": \"STOP\"}\n");
        expect_line(monitor, "event STOP {} 0");
        expect_nothing(monitor);

        /* the next one is late too, the third is not */
        monitor_say(monitor, "{\"return\": 0, \"id\": 2}\n");
        expect_line(monitor, "caught up");
        expect_line(monitor, "reply 0 0");
        expect_line(monitor, "late query-jobs");
        monitor_say(monitor, "{\"return\": 1, \"id\": 3}\n");
        expect_line(monitor, "caught up");
        expect_line(monitor, "reply 1 1");
        expect_nothing(monitor);
        monitor_say(monitor, "{\"return\": 2, \"id\": 4}\n");
        expect_line(monitor, "reply 2 2");
}

/* A deadline belongs to its command: the one behind it has its own. */
static void answered_in_time(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();
        gint64 start = g_get_monotonic_time();

        clock_back(QMP_COMMAND_SECONDS, 100);
        monitor_execute(monitor, "query-block", NULL, 0);
        clock_back(QMP_COMMAND_SECONDS, 250);
        monitor_execute(monitor, "query-jobs", NULL, 1);
        clock_right();
        monitor_say(monitor, "{\"return\": 0, \"id\": 2}\n");
        expect_line(monitor, "reply 0 0");
        expect_line(monitor, "late query-jobs");
        g_assert_cmpint(g_get_monotonic_time() - start, >=, 240 * G_TIME_SPAN_MILLISECOND);
        monitor_say(monitor, "{\"return\": 1, \"id\": 3}\n");
        expect_line(monitor, "caught up");
        expect_line(monitor, "reply 1 1");
}

static void freed_when_late(void)
{
        g_autoptr(Monitor) monitor = monitor_new_ready();

        clock_back(QMP_COMMAND_SECONDS, 100);
        monitor_execute(monitor, "query-block", NULL, 0);
        monitor_execute(monitor, "query-jobs", NULL, 1);
        clock_right();
        monitor->free_at = "late query-block";
        expect_line(monitor, "late query-block");
        expect_line(monitor, "reply 0 Disconnected: the connection was given up");
        expect_line(monitor, "reply 1 Disconnected: the connection was given up");
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/qmp/greeting/whole", greet_whole);
        g_test_add_func("/qmp/greeting/byte-by-byte", greet_byte_by_byte);
        g_test_add_func("/qmp/greeting/in-one-go", greet_in_one_go);
        g_test_add_func("/qmp/greeting/without-package", greet_without_package);
        g_test_add_func("/qmp/greeting/refused", negotiation_refused);
        g_test_add_func("/qmp/greeting/never", greeting_never_comes);
        g_test_add_func("/qmp/greeting/half", greeting_half);
        g_test_add_func("/qmp/events", events);
        g_test_add_func("/qmp/commands", commands);
        g_test_add_func("/qmp/replies-by-id", replies_by_id);
        g_test_add_func("/qmp/reply-out-of-turn", reply_out_of_turn);
        g_test_add_func("/qmp/errors-of-qemu", errors_of_qemu);
        g_test_add_func("/qmp/pipelined", pipelined);
        g_test_add_func("/qmp/big-message", big_message);
        g_test_add_func("/qmp/execute-in-handlers", execute_in_handlers);
        g_test_add_func("/qmp/late/told", late);
        g_test_add_func("/qmp/late/answered-in-time", answered_in_time);
        g_test_add_func("/qmp/late/freed", freed_when_late);
        return g_test_run();
}
