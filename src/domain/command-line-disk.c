/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/command-line.h"

#include <string.h>

#include "base/json.h"
#include "job/target-uri.h"

/* ---- nodes ---- */

typedef struct {
        const char *name;
        gboolean direct, no_flush, write_cache;
} CacheMode;

static const CacheMode cache_modes[] = {
        { "writeback", FALSE, FALSE, TRUE },  { "none", TRUE, FALSE, TRUE },
        { "unsafe", FALSE, TRUE, TRUE },      { "writethrough", FALSE, FALSE, FALSE },
        { "directsync", TRUE, FALSE, FALSE },
};

static const CacheMode *cache_mode(const DefinitionDisk *disk)
{
        for (guint i = 0; i < G_N_ELEMENTS(cache_modes); i++)
                if (g_strcmp0(disk->cache, cache_modes[i].name) == 0)
                        return &cache_modes[i];
        return &cache_modes[0];
}

static gboolean is_read_only(const DefinitionDisk *disk)
{
        return disk->read_only || disk->cdrom;
}

/* What all nodes of a disk have. What a lower layer has no use for yet, it has when a pivot makes it the
 * active one. */
static void add_common(JsonObject *node, const DefinitionDisk *disk)
{
        const CacheMode *mode = cache_mode(disk);

        json_object_set_object_member(
                node, "cache", json_make("b:direct", mode->direct, "b:no-flush", mode->no_flush, NULL));
        if (disk->discard)
                json_object_set_string_member(node, "discard", disk->discard);
}

static JsonObject *file_node(CommandLine *line, const DefinitionDisk *disk, const OpenImage *image)
{
        JsonObject *node;

        if (target_is_uri(image->source)) {
                g_autoptr(GError) error = NULL;

                node = target_uri_to_blockdev(image->source, NULL, &error);
                if (!node) {
                        line_refuse(line, "disk '%s': %s", disk->target, error->message);
                        node = json_object_new();
                }
                return node;
        }
        node = json_make("s:driver", image->is_block ? "host_device" : "file", "s:filename", image->source,
                         NULL);
        if (disk->io)
                json_object_set_string_member(node, "aio", disk->io);
        return node;
}

/* Whether a layer may be written is said at its format alone. Its file is opened for writing only as long as
 * that is needed, which jobs depend on. */
static void add_layer(CommandLine *line, const char *option, const DefinitionDisk *disk,
                      const GPtrArray *chain, guint i)
{
        const OpenImage *image = chain->pdata[i];
        gboolean is_qcow2 = strcmp(image->format, "qcow2") == 0, is_last = i + 1 == chain->len;
        g_autofree char *name = g_strdup_printf("%s-%u", disk->target, i);
        g_autofree char *file = g_strdup_printf("%s-file", name);
        g_autofree char *below = g_strdup_printf("%s-%u", disk->target, i + 1);
        JsonObject *node = file_node(line, disk, image);

        if (!is_qcow2 && strcmp(image->format, "raw") != 0)
                line_refuse(line, "disk '%s': format '%s' is none of raw and qcow2", disk->target,
                            image->format);
        if (!is_qcow2 && !is_last)
                line_refuse(line, "disk '%s': '%s' is raw and can have no image below it", disk->target,
                            image->source);
        json_object_set_string_member(node, "node-name", file);
        json_object_set_boolean_member(node, "auto-read-only", TRUE);
        add_common(node, disk);
        line_add_json(line, option, node);

        node = json_make("s:driver", image->format, "s:node-name", name, "s:file", file, "b:read-only",
                         i > 0 || is_read_only(disk), "s:detect-zeroes", disk->detect_zeroes, NULL);
        if (is_qcow2 && is_last)
                json_object_set_null_member(node, "backing"); /* whatever its header says */
        else if (is_qcow2)
                json_object_set_string_member(node, "backing", below);
        add_common(node, disk);
        line_add_json(line, option, node);
}

void line_add_nodes(CommandLine *line, const char *option, const DefinitionDisk *disk,
                    const GPtrArray *chain)
{
        for (guint i = chain->len; i > 0; i--)
                add_layer(line, option, disk, chain, i - 1);
}

static JsonObject *read_only_node(CommandLine *line, const DefinitionDisk *disk, const GPtrArray *chain,
                                  guint i)
{
        const OpenImage *image = chain->pdata[i];
        JsonObject *file = file_node(line, disk, image), *node;

        json_object_remove_member(file,
                                  "aio"); /* it may depend on a cache mode, which does not matter here */
        node = json_make("s:driver", image->format, "b:read-only", TRUE, "b:force-share", TRUE, "o:file",
                         file, NULL);
        if (i + 1 < chain->len)
                json_object_set_object_member(node, "backing", read_only_node(line, disk, chain, i + 1));
        else if (strcmp(image->format, "qcow2") == 0)
                json_object_set_null_member(node, "backing");
        return node;
}

char *definition_image(const DefinitionDisk *disk, const GPtrArray *chain, GError **error)
{
        CommandLine line = { 0 };
        JsonObject *node = read_only_node(&line, disk, chain, 0);
        g_autofree char *text = json_text(node);

        json_object_unref(node);
        if (!line.error)
                return g_strconcat("json:", text, NULL);
        g_propagate_error(error, line.error);
        return NULL;
}

static void add_throttle(CommandLine *line, const DefinitionDisk *disk, const char *file, const char *name)
{
        const DefinitionThrottle *throttle = &disk->throttle;
        const struct {
                const char *name;
                guint64 value;
        } limits[] = {
                { "bps-total", throttle->total_bytes },
                { "bps-read", throttle->read_bytes },
                { "bps-write", throttle->write_bytes },
                { "iops-total", throttle->total_iops },
                { "iops-read", throttle->read_iops },
                { "iops-write", throttle->write_iops },
                { "bps-total-max", throttle->total_bytes_max },
                { "bps-read-max", throttle->read_bytes_max },
                { "bps-write-max", throttle->write_bytes_max },
                { "iops-total-max", throttle->total_iops_max },
                { "iops-read-max", throttle->read_iops_max },
                { "iops-write-max", throttle->write_iops_max },
        };
        g_autofree char *group = g_strdup_printf("throttle-%s", disk->target);
        JsonObject *given = json_object_new(), *node;

        for (guint i = 0; i < G_N_ELEMENTS(limits); i++)
                if (limits[i].value)
                        json_object_set_int_member(given, limits[i].name, (gint64) limits[i].value);
        line_add_json(line, "-object",
                      json_make("s:qom-type", "throttle-group", "s:id", group, "o:limits", given, NULL));
        node = json_make("s:driver", "throttle", "s:node-name", name, "s:throttle-group", group, "s:file",
                         file, "b:read-only", is_read_only(disk), NULL);
        add_common(node, disk); /* a filter, too, keeps back what it does not pass on itself */
        line_add_json(line, "-blockdev", node);
}

/* ---- devices ---- */

static JsonObject *common_device(CommandLine *line, const DefinitionDisk *disk, const char *driver,
                                 const char *node)
{
        guint boot_index = line_boot_index(line, disk, disk->boot_order);
        const char *policy = disk->error_policy;
        JsonObject *device =
                json_make("s:driver", driver, "s:id", disk->target, "s:drive", node, "s:serial",
                          disk->serial, "s:werror", g_strcmp0(policy, "enospace") == 0 ? "enospc" : policy,
                          "s:rerror", disk->read_error_policy, NULL);

        if (boot_index)
                json_object_set_int_member(device, "bootindex", boot_index);
        if (disk->cache)
                json_object_set_string_member(device, "write-cache",
                                              cache_mode(disk)->write_cache ? "on" : "off");
        if (disk->shareable)
                json_object_set_boolean_member(device, "share-rw", TRUE);
        return device;
}

static void add_virtio_disk(CommandLine *line, const DefinitionDisk *disk, const char *node)
{
        JsonObject *device = common_device(line, disk, "virtio-blk-pci", node);
        g_autofree char *iothread = g_strdup_printf("bj-iothread%u", disk->iothread);
        g_autofree char *what = g_strdup_printf("disk '%s'", disk->target);

        if (disk->cdrom)
                line_refuse(line, "disk '%s': there are no CD-ROMs on the virtio bus", disk->target);
        if (disk->iothread > line->definition->iothreads)
                line_refuse(line, "disk '%s': there is no iothread %u", disk->target, disk->iothread);
        if (disk->iothread)
                json_object_set_string_member(device, "iothread", iothread);
        line_plug_pci(line, device, &disk->address, what);
}

static void add_scsi_disk(CommandLine *line, const DefinitionDisk *disk, const char *node)
{
        DefinitionAddress place = line_place_drive(line, disk);
        const DefinitionController *controller = line_controller(line, CONTROLLER_SCSI, place.controller);
        gboolean is_narrow = controller && g_strcmp0(controller->model, "lsilogic") == 0;
        JsonObject *device = common_device(line, disk, disk->cdrom ? "scsi-cd" : "scsi-hd", node);
        g_autofree char *bus = g_strdup_printf("scsi%u.0", place.controller);

        if (place.bus != 0 || (is_narrow && place.target != 0))
                line_refuse(line, "disk '%s': the SCSI controller has no such address", disk->target);
        line_need_controller(line, CONTROLLER_SCSI, place.controller);
        json_object_set_string_member(device, "bus", bus);
        json_object_set_int_member(device, "scsi-id", is_narrow ? place.unit : place.target);
        json_object_set_int_member(device, "lun", is_narrow ? 0 : place.unit);
        json_object_set_string_member(device, "device_id", disk->serial ? disk->serial : disk->target);
        line_add_json(line, "-device", device);
}

static void add_ide_disk(CommandLine *line, const DefinitionDisk *disk, const char *node)
{
        DefinitionAddress place = line_place_drive(line, disk);
        JsonObject *device = common_device(line, disk, disk->cdrom ? "ide-cd" : "ide-hd", node);
        gboolean is_sata = disk->bus == DISK_BUS_SATA;
        guint number = is_sata ? place.unit : place.bus;
        /* The machine's own controller has no name. */
        g_autofree char *bus = is_sata && (place.controller > 0 || !line->is_q35)
                                       ? g_strdup_printf("sata%u.%u", place.controller, number)
                                       : g_strdup_printf("ide.%u", number);

        if (disk->read_only && !disk->cdrom)
                line_refuse(line, "disk '%s': QEMU has no read-only disks on the %s bus", disk->target,
                            is_sata ? "SATA" : "IDE");
        if (place.target != 0 ||
            (is_sata ? place.bus != 0 || place.unit > 5 : place.bus > 1 || place.unit > 1))
                line_refuse(line, "disk '%s': the %s controller has no such address", disk->target,
                            is_sata ? "SATA" : "IDE");
        line_need_controller(line, is_sata ? CONTROLLER_SATA : CONTROLLER_IDE, place.controller);
        json_object_set_string_member(device, "bus", bus);
        json_object_set_int_member(device, "unit", is_sata ? 0 : place.unit);
        line_add_json(line, "-device", device);
}

static void add_usb_disk(CommandLine *line, const DefinitionDisk *disk, const char *node)
{
        g_autofree char *id = g_strdup_printf("bj-usb-%s", disk->target);
        g_autofree char *bus = g_strdup_printf("%s.0", id);
        g_autofree char *what = g_strdup_printf("disk '%s'", disk->target);
        JsonObject *device;

        if (!disk->cdrom) {
                line_plug_usb(line, common_device(line, disk, "usb-storage", node), &disk->address, what);
                return;
        }
        /* What usb-storage makes of a node is always a disk. */
        line_plug_usb(line, json_make("s:driver", "usb-bot", "s:id", id, NULL), &disk->address, what);
        device = common_device(line, disk, "scsi-cd", node);
        json_object_set_string_member(device, "bus", bus);
        json_object_set_int_member(device, "scsi-id", 0);
        json_object_set_int_member(device, "lun", 0);
        g_ptr_array_add(line->unplaced, device);
}

static void add_disk(CommandLine *line, const DefinitionDisk *disk, const GPtrArray *chain)
{
        g_autofree char *top = g_strdup_printf("%s-0", disk->target);
        g_autofree char *filter = g_strdup_printf("%s-throttle", disk->target);
        const char *node = NULL;

        if (chain && chain->len > 0) {
                line_add_nodes(line, "-blockdev", disk, chain);
                if (disk->throttled)
                        add_throttle(line, disk, top, filter);
                node = disk->throttled ? filter : top;
        } else if (!disk->cdrom)
                line_refuse(line, "disk '%s' has no image", disk->target);
        if (disk->iothread && disk->bus != DISK_BUS_VIRTIO)
                line_refuse(line, "disk '%s': only disks on the virtio bus have iothreads", disk->target);
        switch (disk->bus) {
        case DISK_BUS_VIRTIO:
                add_virtio_disk(line, disk, node);
                break;
        case DISK_BUS_SCSI:
                add_scsi_disk(line, disk, node);
                break;
        case DISK_BUS_SATA:
        case DISK_BUS_IDE:
                add_ide_disk(line, disk, node);
                break;
        case DISK_BUS_USB:
                add_usb_disk(line, disk, node);
                break;
        }
}

void line_add_disks(CommandLine *line)
{
        GPtrArray *disks = line->definition->disks;

        for (guint i = 0; i < disks->len; i++)
                add_disk(line, disks->pdata[i], line->facts->chains[i]);
}

char *definition_device_path(const DefinitionDisk *disk)
{
        if (disk->bus == DISK_BUS_VIRTIO)
                return g_strdup_printf("/machine/peripheral/%s/virtio-backend", disk->target);
        if (disk->bus == DISK_BUS_USB && !disk->cdrom)
                return g_strdup_printf("/machine/peripheral/%s/%s.0/legacy[0]", disk->target, disk->target);
        return g_strdup(disk->target);
}
