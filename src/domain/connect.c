/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/domain.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/boot.h"
#include "base/error.h"
#include "base/json.h"
#include "base/test-point.h"

#define RETRY_FIRST_MILLISECONDS 10
#define RETRY_LAST_MILLISECONDS 2000
#define CLOSE_SECONDS 5   /* how long a QEMU may take to end when it is told to */
#define LASTING_SECONDS 5 /* a connection that held so long was a good one */

static void connect_again(Domain *domain);
static void on_first_look(Domain *domain, const GError *error, gpointer data);

/* ---- which process it is ---- */

/* Field 22 of /proc/PID/stat: with the pid it names a process for as long as the machine is up. */
static guint64 start_time_of(guint32 pid)
{
        g_autofree char *path = g_strdup_printf("/proc/%u/stat", pid), *text = NULL;
        const char *end;
        guint64 start = 0;

        if (!g_file_get_contents(path, &text, NULL, NULL) || !(end = strrchr(text, ')')))
                return 0;
        if (sscanf(end + 1,
                   " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
                   "%" G_GINT64_MODIFIER "u",
                   &start) != 1)
                return 0;
        return start;
}

/* A process in a namespace that is not ours has no pid. Its socket is one that it made at its start, or that
 * was made for it; when, tells it from a later one that got the same inode. */
static char *socket_of(const char *path)
{
        struct statx st;

        if (!path || statx(AT_FDCWD, path, 0, STATX_INO | STATX_BTIME, &st) < 0)
                return g_strdup("0");
        return g_strdup_printf("%" G_GUINT64_FORMAT "-%" G_GINT64_FORMAT ".%u", (guint64) st.stx_ino,
                               (gint64) st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
}

static char *instance_of(const Domain *domain, guint32 pid)
{
        g_autofree char *socket = pid ? NULL : socket_of(domain->path);

        return socket ? g_strdup_printf("%s/0-%s", boot_id(), socket)
                      : g_strdup_printf("%s/%u-%" G_GUINT64_FORMAT, boot_id(), pid, start_time_of(pid));
}

static gboolean process_is_over(const Domain *domain)
{
        struct pollfd fd = { domain->pidfd, POLLIN, 0 };

        if (domain->pid == 0)
                return FALSE; /* in a namespace that is not ours: it cannot be seen */
        if (domain->pidfd >= 0)
                return poll(&fd, 1, 0) > 0;
        g_autofree char *instance = instance_of(domain, domain->pid);
        return strcmp(instance, domain->instance) != 0;
}

static void tell_jobs_that_qemu_is_gone(Domain *domain)
{
        g_autoptr(GPtrArray) jobs = domain_copy_jobs(domain);

        for (guint i = 0; i < jobs->len; i++)
                job_qemu_gone(jobs->pdata[i]);
}

/* Who waits for QEMU's end. */
typedef struct {
        DomainDone closed;
        gpointer data;
} Closer;

static void tell_closers(Domain *domain)
{
        g_clear_handle_id(&domain->kill_timer, g_source_remove);
        while (domain->closing->len > 0) {
                g_autofree Closer *closer = g_ptr_array_steal_index(domain->closing, 0);
                closer->closed(domain, NULL, closer->data);
        }
}

static void become_gone(Domain *domain, const char *reason)
{
        g_autoptr(Domain) self = domain_ref(domain);
        gboolean ran = !domain->starting;

        if (domain->gone)
                return;
        domain->gone = TRUE;
        domain->starting = FALSE;
        domain_drop_connection(domain);
        domain_set_state(domain, domain->shutdown_reason || !ran ? DOMAIN_SHUTOFF : DOMAIN_CRASHED,
                         domain->shutdown_reason ? domain->shutdown_reason
                         : ran                   ? reason
                                                 : "the start was not completed");
        domain->observer->gone(domain, domain->observer_data);
        tell_jobs_that_qemu_is_gone(domain);
        domain_save(domain);
        tell_closers(domain);
}

static void on_process_over(gpointer data)
{
        Domain *domain = data;

        g_clear_pointer(&domain->pid_watch, fd_watch_free);
        /* With a connection still there, what QEMU said last is read first, up to its end. */
        if (domain->connection || domain->gone)
                return;
        if (domain->attached) { /* it was to be tried again */
                g_autoptr(GError) error = g_error_new(BJ_ERROR, BJ_ERROR_DISCONNECTED, "QEMU went away");

                domain_drop_connection(domain);
                domain_end_attach(domain, error);
        } else
                become_gone(domain, "QEMU went away");
}

static void watch_process(Domain *domain)
{
        if (domain->pid == 0 || domain->pidfd >= 0)
                return;
        domain->pidfd = (int) syscall(SYS_pidfd_open, domain->pid, 0);
        if (domain->pidfd >= 0)
                domain->pid_watch = fd_watch_new(domain->pidfd, on_process_over, domain);
}

void domain_renew(Domain *domain)
{
        g_clear_pointer(&domain->pid_watch, fd_watch_free);
        if (domain->pidfd >= 0)
                close(domain->pidfd);
        domain->pidfd = -1;
        domain->pid = domain->launched = 0;
        domain->gone = domain->lost = FALSE;
        domain->retry_delay = 0;
        g_free(domain->instance), domain->instance = g_strdup("");
        g_clear_pointer(&domain->shutdown_reason, g_free);
        g_clear_pointer(&domain->run_state, g_free);
        g_clear_pointer(&domain->host.graph, graph_free);
        g_hash_table_remove_all(domain->paths);
}

gboolean domain_process_runs(const Domain *domain)
{
        return domain->pidfd >= 0 && !process_is_over(domain);
}

void domain_set_process(Domain *domain, guint32 pid)
{
        domain->pid = domain->launched = pid;
        g_free(domain->instance);
        domain->instance = instance_of(domain, pid);
        watch_process(domain);
}

static void send_signal(Domain *domain, int number)
{
        /* By pid where there is no pidfd would be another process one day. */
        if (domain->pidfd >= 0)
                syscall(SYS_pidfd_send_signal, domain->pidfd, number, NULL, 0);
        else if (domain->host.qmp && number == SIGTERM)
                qmp_execute(domain->host.qmp, "quit", NULL, NULL, NULL);
}

static gboolean on_kill(gpointer data)
{
        Domain *domain = data;

        domain->kill_timer = 0;
        send_signal(domain, SIGKILL);
        return G_SOURCE_REMOVE;
}

void domain_close(Domain *domain, const char *reason, DomainDone closed, gpointer data)
{
        Closer *closer;

        if (domain->gone) {
                closed(domain, NULL, data);
                return;
        }
        closer = g_new(Closer, 1);
        *closer = (Closer){ closed, data };
        g_ptr_array_add(domain->closing, closer);
        if (!domain->shutdown_reason)
                domain->shutdown_reason = g_strdup(reason);
        if (!domain->connection && !domain->launching &&
            (domain->pid == 0 ? !domain->retry : process_is_over(domain))) {
                become_gone(domain, reason); /* it never came to be */
                return;
        }
        if (!domain->kill_timer)
                domain->kill_timer = g_timeout_add_seconds(CLOSE_SECONDS, on_kill, domain);
        watch_process(domain);
        send_signal(domain, SIGTERM);
}

/* ---- the connection ---- */

void domain_drop_connection(Domain *domain)
{
        QmpConnection *connection = g_steal_pointer(&domain->connection);

        domain->host.qmp = NULL;
        domain->streams_possible = TRUE;
        g_hash_table_remove_all(domain->begun);
        g_clear_pointer(&domain->late_command, g_free);
        g_clear_handle_id(&domain->retry, g_source_remove);
        g_clear_handle_id(&domain->poll, g_source_remove);
        for (guint i = 0; i < domain->jobs->len; i++)
                job_connection_lost(domain->jobs->pdata[i]);
        domain_stop_finding_capabilities(domain);
        qmp_connection_free(connection);
        domain_map_connection_is_lost(domain);
}

void domain_detach(Domain *domain)
{
        domain->detached = TRUE;
        domain_drop_connection(domain);
}

void domain_remove(Domain *domain)
{
        domain->removed = TRUE;
        domain_drop_connection(domain);
        g_clear_pointer(&domain->pid_watch, fd_watch_free);
        g_clear_handle_id(&domain->save_retry, g_source_remove);
        g_clear_handle_id(&domain->kill_timer, g_source_remove);
        for (guint i = 0; i < domain->jobs->len; i++)
                job_set_host(domain->jobs->pdata[i], NULL);
        g_ptr_array_set_size(domain->jobs, 0);
}

void domain_end_attach(Domain *domain, const GError *error)
{
        DomainDone attached = domain->attached;

        domain->attached = NULL;
        if (attached)
                attached(domain, error, domain->attached_data);
}

static gboolean on_retry(gpointer data)
{
        Domain *domain = data;

        domain->retry = 0;
        if (domain->host.qmp)
                domain_look_then(domain, on_first_look, NULL);
        else
                connect_again(domain);
        return G_SOURCE_REMOVE;
}

static void set_retry(Domain *domain)
{
        domain->retry_delay =
                CLAMP(domain->retry_delay * 2, RETRY_FIRST_MILLISECONDS, RETRY_LAST_MILLISECONDS);
        domain->retry = g_timeout_add(domain->retry_delay, on_retry, domain);
}

static void retry_later(Domain *domain, const GError *error)
{
        domain_set_state(domain, DOMAIN_DISCONNECTED, error->message);
        if (domain->path)
                set_retry(domain);
}

static void open_connection(Domain *domain, int fd);

/* The connection is gone; is QEMU? Nobody listening and no process, as far as that can be seen, is a proof,
 * anything else is not. */
static void connect_again(Domain *domain)
{
        g_autoptr(GError) error = NULL;

        if (domain->path) {
                open_connection(domain, -1);
                return;
        }
        if (process_is_over(domain)) {
                become_gone(domain, "QEMU went away");
                return;
        }
        g_set_error(&error, BJ_ERROR, BJ_ERROR_DISCONNECTED,
                    "the passed connection was lost: attach the domain again");
        retry_later(domain, error);
}

static void fail_connection(Domain *domain, const GError *cause)
{
        g_autoptr(Domain) self = domain_ref(domain);
        g_autoptr(GError) error = g_error_copy(cause);
        gboolean was_ready = domain->host.qmp != NULL, lasted;
        gboolean nobody = g_error_matches(error, BJ_ERROR, BJ_ERROR_DISCONNECTED) ||
                          g_error_matches(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);

        domain_drop_connection(domain);
        if (domain->attached) {
                domain_end_attach(domain, error);
                return;
        }
        if (was_ready) {
                domain->lost = TRUE;
                domain->observer->connection_lost(domain, error, domain->observer_data);
                domain_update_state(domain);
                lasted = g_get_monotonic_time() - domain->connected_at > LASTING_SECONDS * G_USEC_PER_SEC;
                if (lasted)
                        domain->retry_delay = 0;
                /* A connection that breaks again and again is not to keep the service busy. */
                if (lasted || process_is_over(domain))
                        connect_again(domain);
                else
                        retry_later(domain, error);
        } else if (nobody && (domain->pid == 0 || process_is_over(domain)))
                become_gone(domain, "QEMU went away");
        else
                retry_later(domain, error);
}

static void on_lost(const GError *error, gpointer data)
{
        fail_connection(data, error);
}

static void on_event(const char *event, JsonObject *event_data, gint64 when, gpointer data)
{
        g_autoptr(Domain) domain = domain_ref(data);

        domain_handle_event(domain, event, event_data, when);
}

static void on_late(const char *command, gpointer data)
{
        g_autoptr(Domain) domain = domain_ref(data);
        g_autoptr(GPtrArray) jobs = domain_copy_jobs(domain);
        g_autoptr(GError) error = NULL;

        g_free(domain->late_command);
        domain->late_command = g_strdup(command);
        domain_update_state(domain);
        domain->observer->late(domain, command, domain->observer_data);
        if (!command)
                return;
        g_set_error(&error, BJ_ERROR, BJ_ERROR_TIMEOUT, "QEMU has not answered '%s' for %d s", command,
                    QMP_COMMAND_SECONDS);
        for (guint i = 0; i < jobs->len; i++)
                job_start_is_late(jobs->pdata[i], error);
        if (domain->attached) {
                domain_drop_connection(domain);
                domain_end_attach(domain, error);
        }
}

/* ---- the first exchange ---- */

static void on_first_look(Domain *domain, const GError *error, gpointer data)
{
        (void) data;
        test_point("connect-looked");
        if (!domain->host.qmp)
                return; /* lost meanwhile, which was said there */
        if (error && domain->attached) {
                g_autoptr(GError) copy = g_error_copy(error);
                domain_drop_connection(domain);
                domain_end_attach(domain, copy);
                return;
        }
        gboolean first = domain->attached != NULL;
        domain->connected_at = g_get_monotonic_time();
        domain_update_state(domain);
        domain_schedule_poll(domain);
        if (domain->attached)
                domain_end_attach(domain, NULL);
        else if (domain->lost)
                domain->observer->connection_regained(domain, domain->observer_data);
        domain->lost = FALSE;
        if (!error)
                domain_clear_maps(domain, first);
        /* Nothing can be said of the jobs before QEMU has told of them. JobActive: it must not be asked, and
         * an event will tell when it may be. */
        if (error && !g_error_matches(error, BJ_ERROR, BJ_ERROR_JOB_ACTIVE))
                set_retry(domain);
}

static void on_uuid(JsonNode *result, const GError *error, gpointer data)
{
        Domain *domain = data;

        if (error || !domain->connection || !JSON_NODE_HOLDS_OBJECT(result))
                return;
        const char *uuid = json_string(json_node_get_object(result), "UUID");
        /* QEMU's word for "none was given". */
        if (uuid && strcmp(uuid, "00000000-0000-0000-0000-000000000000") != 0) {
                g_free(domain->uuid);
                domain->uuid = g_strdup(uuid);
        }
}

static void go_on(Domain *domain)
{
        g_autoptr(GError) error = NULL;

        if (!capabilities_suffice(domain->host.capabilities, &error)) {
                fail_connection(domain, error);
                return;
        }
        domain->host.qmp = domain->connection;
        domain->observer->changed(domain, DOMAIN_CHANGED_QEMU | DOMAIN_CHANGED_PID, domain->observer_data);
        if (domain->host.capabilities->has[CAPABILITY_NAME])
                qmp_execute(domain->host.qmp, "query-uuid", NULL, on_uuid, domain);
        domain_look_then(domain, on_first_look, NULL);
}

static void on_capabilities_found(Domain *domain, const GError *error)
{
        if (error)
                fail_connection(domain, error);
        else
                go_on(domain);
}

static gboolean is_the_same_qemu(Domain *domain, guint32 pid)
{
        /* Who listens was the service, before QEMU did: in a start that was cut off that tells nothing. */
        guint32 process = domain->launched || domain->starting ? domain->launched : pid;
        g_autofree char *instance = instance_of(domain, process);

        if (*domain->instance && strcmp(domain->instance, instance) != 0)
                return FALSE;
        g_free(domain->instance);
        domain->instance = g_steal_pointer(&instance);
        domain->pid = process;
        return TRUE;
}

static void on_name(JsonNode *result, const GError *error, gpointer data)
{
        Domain *domain = data;

        (void) error;
        if (!domain->connection)
                return;
        domain->has_guest = result != NULL;
        domain_find_capabilities(domain, on_capabilities_found);
}

static void on_ready(gpointer data)
{
        g_autoptr(Domain) domain = domain_ref(data);

        test_point("connect-identify");
        if (!is_the_same_qemu(domain, qmp_connection_pid(domain->connection))) {
                become_gone(domain, "QEMU went away; another one answers on its socket");
                return;
        }
        watch_process(domain);
        g_free(domain->version);
        domain->version = g_strdup(qmp_connection_version(domain->connection));
        qmp_execute(domain->connection, "query-name", NULL, on_name, domain);
}

static const QmpHandlers handlers = { on_ready, on_event, on_lost, on_late };

static void open_connection(Domain *domain, int fd)
{
        g_autoptr(GError) error = NULL;
        gboolean opened;

        domain->connection = qmp_connection_new(&handlers, domain);
        opened = fd >= 0 ? qmp_connection_open_fd(domain->connection, fd, &error)
                         : qmp_connection_open(domain->connection, domain->path, &error);
        if (!opened)
                fail_connection(domain, error);
}

void domain_attach(Domain *domain, int fd, DomainDone attached, gpointer data)
{
        domain->attached = attached;
        domain->attached_data = data;
        open_connection(domain, fd);
}

void domain_attach_again(Domain *domain, DomainDone attached, gpointer data)
{
        domain->attached = attached;
        domain->attached_data = data;
        set_retry(domain);
}

void domain_recover(Domain *domain)
{
        g_autofree char *instance = instance_of(domain, domain->pid);

        if (domain->gone) {
                tell_jobs_that_qemu_is_gone(domain);
                return;
        }
        /* The end of a process that is over already shows as well, also where nobody has waited for it yet.
         */
        if (strcmp(instance, domain->instance) == 0)
                watch_process(domain);
        if (!domain->detached)
                connect_again(domain);
        else if (process_is_over(domain))
                become_gone(domain, "QEMU went away");
}
