/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "outcome.h"
#include "units.h"
#include "values.h"
#include "verb.h"
#include "watch.h"

/* The commands that do something to a disk. An option of theirs is the option of the same name on the bus.
 */

static GVariantDict *given; /* what the bus gets: a{sv} */
static gboolean wait_for_it, open_target;
static const char *created; /* a file that was made for the job; NULL: none */

static void give(const char *key, GVariant *value)
{
        if (!given)
                given = g_variant_dict_new(NULL);
        g_variant_dict_insert_value(given, key, value);
}

/* "--on-error" as GLib hands it to a callback */
static const char *key_of(const char *name)
{
        return name + strspn(name, "-");
}

static gboolean take_text(const char *name, const char *value, gpointer data, GError **error)
{
        (void) data;
        (void) error;
        give(key_of(name), g_variant_new_string(value));
        return TRUE;
}

static gboolean take_flag(const char *name, const char *value, gpointer data, GError **error)
{
        (void) value;
        (void) data;
        (void) error;
        give(key_of(name), g_variant_new_boolean(TRUE));
        return TRUE;
}

typedef gboolean (*Parse)(const char *text, const char *what, guint64 *number, GError **error);

static gboolean take_number(Parse parse, const char *name, const char *value, GError **error)
{
        guint64 number;

        if (!parse(value, name, &number, error))
                return FALSE;
        give(key_of(name), g_variant_new_uint64(number));
        return TRUE;
}

static gboolean take_size(const char *name, const char *value, gpointer data, GError **error)
{
        (void) data;
        return take_number(units_parse_size, name, value, error);
}

static gboolean take_small_size(const char *name, const char *value, gpointer data, GError **error)
{
        guint64 bytes;

        (void) data;
        if (!units_parse_size(value, name, &bytes, error))
                return FALSE;
        if (bytes > G_MAXUINT32) {
                g_set_error(error, CLIENT_ERROR, STATUS_USAGE, "%s: %s is too large", name, value);
                return FALSE;
        }
        give(key_of(name), g_variant_new_uint32((guint32) bytes));
        return TRUE;
}

static gboolean take_speed(const char *name, const char *value, gpointer data, GError **error)
{
        (void) data;
        return take_number(units_parse_speed, name, value, error);
}

static char *target_of(const Client *client, const char *target)
{
        static const char *const schemes[] = { "nbd:", "nbd+unix:", "rbd:", "iscsi:" };

        for (gsize i = 0; i < G_N_ELEMENTS(schemes); i++)
                if (g_str_has_prefix(target, schemes[i]))
                        return g_strdup(target);
        return client_file(client, target);
}

/* "[2]", "vda[2]" and node:NAME are what the bus takes; a bare number is a depth, anything else a file. */
static char *layer_of(const Client *client, const char *layer)
{
        if (*layer && layer[strspn(layer, "0123456789")] == '\0')
                return g_strdup_printf("[%s]", layer);
        if (*layer == '\0' || g_str_has_suffix(layer, "]") || g_str_has_prefix(layer, "node:"))
                return g_strdup(layer);
        return client_file(client, layer);
}

static void resolve_layer(const Client *client, const char *key)
{
        g_autofree char *layer = NULL;
        g_autofree char *resolved = NULL;

        if (!given || !g_variant_dict_lookup(given, key, "s", &layer))
                return;
        resolved = layer_of(client, layer);
        give(key, g_variant_new_string(resolved));
}

static gboolean take_auto(const char *name, const char *value, gpointer data, GError **error)
{
        g_autofree char *before = NULL;

        (void) value;
        (void) data;
        if (given && g_variant_dict_lookup(given, "auto", "s", &before) &&
            strcmp(before, key_of(name)) != 0) {
                g_set_error(error, CLIENT_ERROR, STATUS_USAGE, "one of --pivot and --keep");
                return FALSE;
        }
        give("auto", g_variant_new_string(key_of(name)));
        return TRUE;
}

/* Rows of the tables below. */
#define TAKES(name, function, argument, help)                               \
        {                                                                   \
                name, 0, 0, G_OPTION_ARG_CALLBACK, function, help, argument \
        }
#define FLAG(name, function, help)                                                         \
        {                                                                                  \
                name, 0, G_OPTION_FLAG_NO_ARG, G_OPTION_ARG_CALLBACK, function, help, NULL \
        }
#define POLICY "report, stop, ignore or enospc"

#define SPEED TAKES("speed", take_speed, "SPEED", "Copy at most so much in a second: 50M, 1.5GiB/s")
#define WAIT                                                             \
        {                                                                \
                "wait", 'w', 0, G_OPTION_ARG_NONE, &wait_for_it,         \
                        "Show how far it is, and wait for its end", NULL \
        }
#define TWO_PHASES                                                                           \
        FLAG("pivot", take_auto, "Move the disk to the other image as soon as it is ready"), \
                FLAG("keep", take_auto, "End it as soon as it is ready, and leave the disk where it is")
#define OPEN                                                                                             \
        {                                                                                                \
                "open", 0, 0, G_OPTION_ARG_NONE, &open_target, "Open TARGET with your own rights, here", \
                        NULL                                                                             \
        }
#define FORCE FLAG("force", take_flag, "Also where somebody else uses an image, or it may not fit")
#define REUSE FLAG("reuse", take_flag, "Write into an image that is there")
#define FORMAT TAKES("format", take_text, "FORMAT", "Format of the new image: qcow2 or raw")
#define RELATIVE FLAG("relative", take_flag, "Record the backing file relative to the image's directory")
#define BACKING TAKES("backing", take_text, "TEXT", "Record this as the backing file")
#define ON_ERROR TAKES("on-error", take_text, "POLICY", "What an I/O error does: " POLICY)
#define ON_BOTH_ERRORS                                                                            \
        TAKES("on-source-error", take_text, "POLICY", "What an error of the disk does: " POLICY), \
                TAKES("on-target-error", take_text, "POLICY", "What an error of the target does: " POLICY)

static const GOptionEntry commit_options[] = {
        WAIT,
        TWO_PHASES,
        TAKES("base", take_text, "LAYER", "The layer to merge into; otherwise the lowest"),
        TAKES("top", take_text, "LAYER", "The uppermost layer to merge; otherwise the active one"),
        FLAG("shallow", take_flag, "Merge into the layer right below"),
        FLAG("active", take_flag, "The layer of --top is the active one, and the commit has two phases"),
        FLAG("delete", take_flag, "Remove the files of the layers that were merged"),
        FLAG("keep-top", take_flag, "Leave the top layer valid, for others that stand on it"),
        FLAG("restartable", take_flag, "Go layer by layer, so that the same command can take it up again"),
        RELATIVE,
        BACKING,
        SPEED,
        ON_ERROR,
        FORCE,
        { 0 },
};

static const GOptionEntry copy_options[] = {
        WAIT,
        TWO_PHASES,
        OPEN,
        FORMAT,
        FLAG("shallow", take_flag, "Copy the active layer only"),
        REUSE,
        TAKES("mode", take_text, "MODE",
              "background, or write-blocking: the guest's writes wait for the target"),
        SPEED,
        TAKES("granularity", take_small_size, "SIZE", "Unit of copying, a power of two from 512 to 64M"),
        TAKES("buffer", take_size, "SIZE", "Data on the way at most; otherwise 16M"),
        RELATIVE,
        FLAG("resume", take_flag, "Begin again by itself when the machine was stopped before the end"),
        ON_BOTH_ERRORS,
        FORCE,
        { 0 },
};

static const GOptionEntry pull_options[] = {
        WAIT,
        TAKES("base", take_text, "LAYER", "Stop above this layer; otherwise pull everything"),
        TAKES("top", take_text, "LAYER", "The layer to fill; otherwise the active one"),
        RELATIVE,
        BACKING,
        SPEED,
        ON_ERROR,
        FORCE,
        { 0 },
};

static const GOptionEntry backup_options[] = {
        WAIT,
        OPEN,
        FORMAT,
        TAKES("sync", take_text, "WHAT", "full, or top: the active layer only"),
        FLAG("compress", take_flag, "Compress the data; for qcow2"),
        REUSE,
        SPEED,
        ON_BOTH_ERRORS,
        FORCE,
        { 0 },
};

static const GOptionEntry snapshot_options[] = {
        TAKES("format", take_text, "FORMAT", "Format of the new layer: qcow2"),
        FLAG("reuse", take_flag, "The new layer is there already"),
        RELATIVE,
        FORCE,
        { 0 },
};

static const GOptionEntry resize_options[] = {
        FLAG("shrink", take_flag, "Also to a smaller size: what is behind it is lost"),
        FORCE,
        { 0 },
};

/* The arguments of the method: what comes before the options, where there is such, and these. */
static GVariant *parameters_of(GVariant *first)
{
        GVariant *options = given ? g_variant_dict_end(given) : no_options();
        GVariant *members[] = { first ? first : options, options };

        g_clear_pointer(&given, g_variant_dict_unref);
        return g_variant_new_tuple(members, first ? 2 : 1);
}

/* A new file, or a device: what the service may then write into without a right of its own to the name. */
static int open_file(const Client *client, const char *target, GError **error)
{
        struct stat status;
        gboolean is_device = stat(target, &status) == 0 && S_ISBLK(status.st_mode);
        int fd = -1;

        if (client->transport != TRANSPORT_LOCAL) {
                g_set_error(error, CLIENT_ERROR, STATUS_USAGE, "--open is for files of this host");
                return -1;
        }
        fd = open(target, is_device ? O_RDWR | O_CLOEXEC : O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
        if (fd < 0)
                g_set_error(error, CLIENT_ERROR, STATUS_ERROR, "cannot open '%s': %s", target,
                            g_strerror(errno));
        else if (!is_device)
                created = target;
        return fd;
}

/* The file goes again where it is certain that no job writes into it. */
static void forget_target(GError **error)
{
        if (created && (g_error_matches(*error, CLIENT_ERROR, STATUS_ERROR) ||
                        g_error_matches(*error, CLIENT_ERROR, STATUS_REFUSED)))
                unlink(created);
}

/* To its end, or to where somebody has to decide. */
static GVariant *follow(Client *client, Watch *watch, const char *path, gboolean decided, GError **error)
{
        g_autoptr(GVariant) job = client_properties(client, path, BLOCKJOBD_JOB, NULL);
        Until until = decided || (job && outcome_is_decided(client, job)) ? UNTIL_END : UNTIL_READY;

        return watch_follow(watch, path, until, error);
}

/* Starts a job, and follows it where that is wanted. */
static Status start(Client *client, const char *name, const char *method, GVariant *first, GError **error)
{
        g_autoptr(GVariant) argument = first ? g_variant_ref_sink(first) : NULL;
        gboolean decided = given && g_variant_dict_contains(given, "auto");
        g_autofree char *disk = client_disk_path(client, name, error);
        g_autoptr(Watch) watch = disk ? watch_new(client, error) : NULL;
        g_autoptr(GVariant) reply = NULL;
        g_autoptr(GVariant) job = NULL;
        const char *path;

        if (watch)
                reply = watch_call(watch, disk, BLOCKJOBD_DISK, method, parameters_of(argument), NULL,
                                   error);
        if (!reply) {
                forget_target(error);
                return STATUS_ERROR;
        }
        g_variant_get(reply, "(&o)", &path);
        job = wait_for_it ? follow(client, watch, path, decided, error)
                          : client_properties(client, path, BLOCKJOBD_JOB, error);
        return job ? outcome_report(client, job) : STATUS_ERROR;
}

static Status run_commit(Client *client, char **arguments, GError **error)
{
        resolve_layer(client, "base");
        resolve_layer(client, "top");
        /* Whoever types neither is told of both phases, by the answer. */
        if (!given || !(g_variant_dict_contains(given, "auto") || g_variant_dict_contains(given, "top")))
                give("active", g_variant_new_boolean(TRUE));
        return start(client, arguments[0], "Commit", NULL, error);
}

static Status start_with_target(Client *client, char **arguments, const char *method,
                                const char *method_to_fd, GError **error)
{
        g_autofree char *target = NULL;
        Status status;
        int fd;

        if (!open_target) {
                target = target_of(client, arguments[1]);
                return start(client, arguments[0], method, g_variant_new_string(target), error);
        }
        fd = open_file(client, arguments[1], error);
        if (fd < 0)
                return STATUS_ERROR;
        status = start(client, arguments[0], method_to_fd, g_variant_new_handle(fd), error);
        close(fd);
        return status;
}

static Status run_copy(Client *client, char **arguments, GError **error)
{
        return start_with_target(client, arguments, "Copy", "CopyToFd", error);
}

static Status run_pull(Client *client, char **arguments, GError **error)
{
        resolve_layer(client, "base");
        resolve_layer(client, "top");
        return start(client, arguments[0], "Pull", NULL, error);
}

static Status run_backup(Client *client, char **arguments, GError **error)
{
        return start_with_target(client, arguments, "Backup", "BackupToFd", error);
}

/* What is done when the call returns: no job. */
static Status change(Client *client, const char *name, const char *method, GVariant *first, GError **error)
{
        g_autoptr(GVariant) argument = first ? g_variant_ref_sink(first) : NULL;
        g_autofree char *path = client_disk_path(client, name, error);
        g_autoptr(GVariant) before = path ? client_properties(client, path, BLOCKJOBD_DISK, error) : NULL;
        g_autoptr(Watch) watch = before ? watch_new(client, error) : NULL;
        g_autoptr(GVariant) reply = NULL;
        g_autoptr(GVariant) disk = NULL;

        if (watch)
                reply = watch_call(watch, path, BLOCKJOBD_DISK, method, parameters_of(argument), NULL,
                                   error);
        if (reply)
                disk = client_properties(client, path, BLOCKJOBD_DISK, error);
        if (disk)
                outcome_disk(client, before, disk);
        return disk ? STATUS_DONE : STATUS_ERROR;
}

static Status run_snapshot(Client *client, char **arguments, GError **error)
{
        g_autofree char *overlay = client_file(client, arguments[1]);

        return change(client, arguments[0], "Snapshot", g_variant_new_string(overlay), error);
}

static Status run_resize(Client *client, char **arguments, GError **error)
{
        guint64 size;

        if (!units_parse_size(arguments[1], "SIZE", &size, error))
                return STATUS_USAGE;
        return change(client, arguments[0], "Resize", g_variant_new_uint64(size), error);
}

const Verb verbs_start[] = {
        { "snapshot", "DOMAIN/DISK OVERLAY", "A new layer on top, that the guest writes into", 2, 2,
          snapshot_options, run_snapshot },
        { "commit", "DOMAIN/DISK", "Merge upper layers into a lower one", 1, 1, commit_options, run_commit },
        { "copy", "DOMAIN/DISK TARGET", "Copy the disk, and move it to the copy or not", 2, 2, copy_options,
          run_copy },
        { "pull", "DOMAIN/DISK", "Fill a layer from those below it", 1, 1, pull_options, run_pull },
        { "backup", "DOMAIN/DISK TARGET", "Copy the disk as it is now", 2, 2, backup_options, run_backup },
        { "resize", "DOMAIN/DISK SIZE", "Give the disk another size", 2, 2, resize_options, run_resize },
        { 0 },
};
