/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Commits the active layer of a disk into its base while the guest runs, and moves the disk there.
 *
 * usage: commit-gdbus /org/blockjobd1/domain/NAME/disk/TARGET
 */
#include "blockjobd.h" /* made by gdbus-codegen */

#define SERVICE "org.blockjobd1"

typedef struct Program {
        GMainLoop *loop;
        BlockjobdDisk *disk;
        BlockjobdJob *job;
        gboolean asked; /* for the pivot; until its signal is here, the proxy still says "ready" */
        gboolean over;
        int status;
} Program;

static void look(Program *program);
static void on_owner(Program *program);

G_GNUC_NORETURN static void give_up(GError *error)
{
        g_dbus_error_strip_remote_error(error);
        g_printerr("commit-gdbus: %s\n", error->message);
        exit(1);
}

/* The service went away, before the call or in the middle of it: what it did is seen when it is back. */
static gboolean is_away(GError *error)
{
        return g_error_matches(error, G_DBUS_ERROR, G_DBUS_ERROR_NO_REPLY) ||
               g_error_matches(error, G_DBUS_ERROR, G_DBUS_ERROR_SERVICE_UNKNOWN) ||
               g_error_matches(error, G_DBUS_ERROR, G_DBUS_ERROR_NAME_HAS_NO_OWNER);
}

/* QEMU went away, or somebody else ends the job: the properties change once more. */
static gboolean is_ending(GError *error)
{
        static const char *const names[] = { SERVICE ".Error.Disconnected", SERVICE ".Error.InvalidState",
                                             SERVICE ".Error.NotActive", NULL };
        g_autofree char *name = g_dbus_error_get_remote_error(error);

        return name && g_strv_contains(names, name);
}

static GVariant *option(const char *name)
{
        GVariantBuilder options;

        g_variant_builder_init(&options, G_VARIANT_TYPE_VARDICT);
        g_variant_builder_add(&options, "{sv}", name, g_variant_new_boolean(TRUE));
        return g_variant_builder_end(&options);
}

/* A proxy listens first and reads the properties then, and again when the service comes back: what it holds
 * is never older than the last signal. While the service is away it holds NULL, and of a service that has
 * just come back only what signals have told, until the answer is there. */
static void watch(Program *program, gpointer proxy)
{
        g_dbus_proxy_set_default_timeout(G_DBUS_PROXY(proxy), G_MAXINT);
        g_signal_connect_swapped(proxy, "g-properties-changed", G_CALLBACK(look), program);
        g_signal_connect_swapped(proxy, "notify::g-name-owner", G_CALLBACK(on_owner), program);
}

static gboolean take(Program *program, const char *path)
{
        g_autoptr(GError) error = NULL;

        program->job = blockjobd_job_proxy_new_for_bus_sync(G_BUS_TYPE_SYSTEM, G_DBUS_PROXY_FLAGS_NONE,
                                                            SERVICE, path, NULL, &error);
        if (!program->job)
                give_up(error);
        watch(program, program->job);
        g_print("job %s\n", path);
        return TRUE;
}

/* The job that is there already, since this program or the service was interrupted say; else a new one. */
static gboolean find_or_start(Program *program)
{
        g_autoptr(GError) error = NULL;
        g_autofree char *path = blockjobd_disk_dup_job(program->disk);

        if (!path)
                return FALSE; /* the service is away */
        if (!g_str_equal(path, "/"))
                return take(program, path);
        g_clear_pointer(&path, g_free);
        if (blockjobd_disk_call_commit_sync(program->disk, option("active"), &path, NULL, &error))
                return take(program, path);
        if (!is_away(error))
                give_up(error);
        return FALSE;
}

static void tell_the_end(Program *program, const char *result)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(BlockjobdDisk) disk = NULL;

        /* afresh: what the proxy holds is as of the signals that have been handled */
        disk = blockjobd_disk_proxy_new_for_bus_sync(
                G_BUS_TYPE_SYSTEM, G_DBUS_PROXY_FLAGS_NONE, SERVICE,
                g_dbus_proxy_get_object_path(G_DBUS_PROXY(program->disk)), NULL, &error);
        if (!disk)
                give_up(error);
        if (!blockjobd_disk_get_source(disk))
                return; /* the service is away just now */
        g_print("%s: %s is %s\n", result, blockjobd_disk_get_target(disk), blockjobd_disk_get_source(disk));
        program->over = TRUE;
        program->status = g_str_equal(result, "completed") || g_str_equal(result, "pivoted") ? 0 : 1;
        g_main_loop_quit(program->loop);
}

/* Where do things stand, and what is due? */
static void look(Program *program)
{
        g_autoptr(GError) error = NULL;
        const char *type, *state, *result;

        if (program->over || (!program->job && !find_or_start(program)))
                return;
        type = blockjobd_job_get_type_(program->job);
        state = blockjobd_job_get_state(program->job);
        result = blockjobd_job_get_result(program->job);
        if (!type || !state || !result)
                return;
        if (!g_str_equal(type, "active-commit")) {
                g_printerr("commit-gdbus: another job is at work on this disk\n");
                exit(1);
        }
        if (*result) {
                tell_the_end(program, result);
        } else if (g_str_equal(state, "ready") && !program->asked) {
                program->asked = blockjobd_job_call_pivot_sync(program->job, option("async"), NULL, &error);
                if (program->asked)
                        g_print("ready, pivot\n");
                else if (!is_away(error) && !is_ending(error))
                        give_up(error);
        }
}

/* The service has gone away, and may have done so before it had recorded the pivot; or it is back. */
static void on_owner(Program *program)
{
        program->asked = FALSE;
        look(program);
}

int main(int argc, char *argv[])
{
        g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);
        Program program = { .loop = loop, .status = 1 };
        g_autoptr(GError) error = NULL;

        if (argc != 2) {
                g_printerr("usage: commit-gdbus DISK-PATH\n");
                return 1;
        }
        program.disk = blockjobd_disk_proxy_new_for_bus_sync(G_BUS_TYPE_SYSTEM, G_DBUS_PROXY_FLAGS_NONE,
                                                             SERVICE, argv[1], NULL, &error);
        if (!program.disk)
                give_up(error);
        watch(&program, program.disk);
        look(&program);
        if (!program.over)
                g_main_loop_run(loop);
        g_clear_object(&program.job);
        g_clear_object(&program.disk);
        return program.status;
}
