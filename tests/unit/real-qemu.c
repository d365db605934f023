/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "real-qemu.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "domain/process.h"
#include "images.h"

/* A test that fails leaves nothing behind. */
static void die_with_the_test(gpointer data)
{
        (void) data;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
}

RealQemu real_qemu_start(GStrv command)
{
        g_autofree char *path = at("monitor");
        g_autoptr(GError) error = NULL;
        int fd = process_listen(path, &error), output;
        RealQemu process = { .monitor = monitor_new_unconnected() };

        g_assert_no_error(error);
        for (guint i = 0; command[i]; i++)
                g_test_message("%s", command[i]);
        /* A standard error that is given as the standard output is closed by GLib, and what QEMU opens next
         * has its number. */
        output = dup(STDERR_FILENO);
        g_spawn_async_with_pipes_and_fds(place, (const char *const *) command, NULL,
                                         G_SPAWN_DO_NOT_REAP_CHILD, die_with_the_test, NULL, fd, output,
                                         output, NULL, NULL, 0, &process.pid, NULL, NULL, NULL, &error);
        g_assert_no_error(error);
        close(fd);
        close(output);
        g_assert_true(qmp_connection_open(process.monitor->connection, path, &error));
        g_assert_no_error(error);
        expect_line(process.monitor, "ready");
        return process;
}

static const char *wait_for_line(const RealQemu *process, const char *begin)
{
        Monitor *monitor = process->monitor;
        const char *line;

        do {
                expect_line_starts(monitor, "");
                line = monitor->lines->pdata[monitor->checked - 1];
        } while (!g_str_has_prefix(line, begin));
        return line;
}

JsonNode *real_qemu_ask(const RealQemu *process, const char *command, JsonObject *arguments)
{
        static int tag;
        g_autofree char *begin = g_strdup_printf("reply %d ", ++tag);
        g_autoptr(GError) error = NULL;
        JsonNode *node;
        const char *line;

        monitor_execute(process->monitor, command, arguments, tag);
        line = wait_for_line(process, begin);
        node = json_from_string(line + strlen(begin), &error);
        if (!node)
                g_error("%s: %s", command, line);
        return node;
}

void real_qemu_tell(const RealQemu *process, const char *command, JsonObject *arguments)
{
        g_autoptr(JsonNode) node = real_qemu_ask(process, command, arguments);
}

const char *real_qemu_wait_for_event(const RealQemu *process, const char *name)
{
        g_autofree char *begin = g_strdup_printf("event %s ", name);

        return wait_for_line(process, begin);
}

void real_qemu_end(RealQemu *process)
{
        int status;

        real_qemu_tell(process, "quit", NULL);
        wait_for_line(process, "lost ");
        g_assert_cmpint(waitpid(process->pid, &status, 0), ==, process->pid);
        g_assert_cmpint(status, ==, 0);
        monitor_free(process->monitor);
}

JsonObject *find_element(const JsonNode *list, const char *member, const char *value)
{
        JsonArray *array = json_node_get_array((JsonNode *) list);

        for (guint i = 0; i < json_array_get_length(array); i++)
                if (g_strcmp0(json_string(json_element(array, i), member), value) == 0)
                        return json_element(array, i);
        g_error("there is no %s '%s'", member, value);
}
