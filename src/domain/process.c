/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/process.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"

#define LAST_WORDS_MAX 1024

/* ---- a child ---- */

/* Between fork and exec. */
static void prepare_child(gpointer data)
{
        setsid();
        if (account_enter_child(data) < 0)
                _exit(126);
}

static void on_child_over(GPid pid, int status, gpointer data)
{
        (void) status;
        (void) data;
        g_spawn_close_pid(pid);
}

void process_launch(const LaunchRequest *request, Launched launched, gpointer data, gpointer launcher_data)
{
        g_autoptr(GError) failure = NULL, error = NULL;
        GPid pid = 0;

        (void) launcher_data;
        if (g_spawn_async_with_pipes_and_fds(
                    "/", (const char *const *) request->command, NULL, G_SPAWN_DO_NOT_REAP_CHILD,
                    prepare_child, (gpointer) request->account, request->input, request->output,
                    request->output, NULL, NULL, 0, &pid, NULL, NULL, NULL, &failure))
                g_child_watch_add(pid, on_child_over, NULL);
        else
                error = g_error_new(BJ_ERROR, BJ_ERROR_FAILED, "cannot start '%s': %s", request->command[0],
                                    failure->message);
        launched((guint32) pid, error, data);
}

/* ---- what it is given ---- */

int process_listen(const char *path, GError **error)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        g_autofree char *directory = g_path_get_dirname(path);
        int fd;

        if (strlen(path) >= sizeof(address.sun_path)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "the name of the socket '%s' is longer than %zu bytes", path,
                            sizeof(address.sun_path) - 1);
                return -1;
        }
        strcpy(address.sun_path, path);
        if (g_mkdir_with_parents(directory, 0711) < 0) {
                bj_fail_errno(error, "make", directory);
                return -1;
        }
        unlink(path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof(address)) < 0 || chmod(path, 0600) < 0 ||
            listen(fd, 1) < 0) {
                bj_fail_errno(error, "listen on", path);
                if (fd >= 0)
                        close(fd);
                return -1;
        }
        return fd;
}

int process_open_log(const char *path, goffset *ret_start, GError **error)
{
        g_autofree char *directory = g_path_get_dirname(path);
        int fd = -1;

        if (g_mkdir_with_parents(directory, 0750) == 0)
                fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
        if (fd < 0)
                bj_fail_errno(error, "open", path);
        else
                *ret_start = lseek(fd, 0, SEEK_END);
        return fd;
}

char *process_last_words(const char *path, goffset start)
{
        char text[LAST_WORDS_MAX + 1];
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        ssize_t length = -1;
        goffset end;

        if (fd < 0)
                return NULL;
        end = lseek(fd, 0, SEEK_END);
        length = pread(fd, text, LAST_WORDS_MAX, MAX(start, end - LAST_WORDS_MAX));
        close(fd);
        if (length <= 0)
                return NULL;
        text[length] = '\0';
        g_autofree char *valid = g_utf8_make_valid(g_strstrip(text), -1);
        return *valid ? g_strdelimit(g_steal_pointer(&valid), "\n\r", ' ') : NULL;
}
