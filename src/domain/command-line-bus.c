/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/command-line.h"

#include <string.h>

#include "base/json.h"

#define SLOTS 32
#define NUMBERED_DISKS 100 /* further ones take what is free */
#define SCSI_UNITS 7
#define SATA_UNITS 6
#define IDE_UNITS 4 /* two on each of two buses */

/* ---- names ---- */

static const char *const type_names[] = {
        [CONTROLLER_PCI] = "pci", [CONTROLLER_SCSI] = "scsi", [CONTROLLER_SATA] = "sata",
        [CONTROLLER_IDE] = "ide", [CONTROLLER_USB] = "usb",   [CONTROLLER_VIRTIO_SERIAL] = "virtio-serial",
};

typedef struct {
        ControllerType type;
        const char *model, *driver;
} Model;

static const Model models[] = {
        { CONTROLLER_PCI, "pci-bridge", "pci-bridge" },
        { CONTROLLER_PCI, "pcie-root-port", "pcie-root-port" },
        { CONTROLLER_PCI, "pcie-to-pci-bridge", "pcie-pci-bridge" },
        { CONTROLLER_SCSI, "virtio-scsi", "virtio-scsi-pci" },
        { CONTROLLER_SCSI, "lsilogic", "lsi53c895a" },
        { CONTROLLER_SATA, NULL, "ich9-ahci" },
        { CONTROLLER_USB, "piix3-uhci", "piix3-usb-uhci" },
        { CONTROLLER_USB, "ich9-ehci1", "ich9-usb-ehci1" },
        { CONTROLLER_USB, "nec-xhci", "nec-usb-xhci" },
        { CONTROLLER_USB, "qemu-xhci", "qemu-xhci" },
        { CONTROLLER_VIRTIO_SERIAL, NULL, "virtio-serial-pci" },
};

/* Where the definition does not say one. */
static const char *usual_model(const CommandLine *line, ControllerType type)
{
        switch (type) {
        case CONTROLLER_PCI:
                return line->is_q35 ? "pcie-root-port" : "pci-bridge";
        case CONTROLLER_SCSI:
                return "virtio-scsi";
        case CONTROLLER_USB:
                return line->is_q35 ? "qemu-xhci" : "piix3-uhci";
        default:
                return NULL;
        }
}

static char *controller_key(ControllerType type, guint index)
{
        return g_strdup_printf("%s %u", type_names[type], index);
}

static gboolean has_controller(const CommandLine *line, ControllerType type, guint index)
{
        g_autofree char *key = controller_key(type, index);

        return g_hash_table_contains(line->controllers, key);
}

const DefinitionController *line_controller(const CommandLine *line, ControllerType type, guint index)
{
        GPtrArray *controllers = line->definition->controllers;

        for (guint i = 0; i < controllers->len; i++) {
                const DefinitionController *controller = controllers->pdata[i];

                if (controller->type == type && controller->index == index)
                        return controller;
        }
        return NULL;
}

/* ---- PCI ---- */

static void note_slot(CommandLine *line, const DefinitionAddress *address)
{
        if (address->type == ADDRESS_PCI && address->bus == 0 && address->slot < SLOTS)
                line->slots |= 1U << address->slot;
}

static guint take_slot(CommandLine *line, const char *what)
{
        for (guint slot = 1; slot < SLOTS; slot++)
                if (!(line->slots & 1U << slot)) {
                        line->slots |= 1U << slot;
                        return slot;
                }
        line_refuse(line, "%s: there is no room left on the PCI root bus, an address on another is needed",
                    what);
        return 0;
}

void line_plug_pci(CommandLine *line, JsonObject *device, const DefinitionAddress *address, const char *what)
{
        g_autofree char *bus = g_strdup(line->is_q35 ? "pcie.0" : "pci.0"), *place = NULL;

        if (address->type != ADDRESS_NONE && address->type != ADDRESS_PCI)
                line_refuse(line, "%s: its address is none on a PCI bus", what);
        if (address->type == ADDRESS_PCI && address->bus > 0) {
                g_free(bus);
                bus = g_strdup_printf("pci.%u", address->bus);
                if (!has_controller(line, CONTROLLER_PCI, address->bus))
                        line_refuse(line, "%s: there is no PCI controller %u", what, address->bus);
        }
        if (address->type == ADDRESS_PCI)
                place = g_strdup_printf("0x%x.0x%x", address->slot, address->function);
        else
                place = g_strdup_printf("0x%x", take_slot(line, what));
        json_object_set_string_member(device, "bus", bus);
        json_object_set_string_member(device, "addr", place);
        if (address->multifunction)
                json_object_set_boolean_member(device, "multifunction", TRUE);
        line_add_json(line, "-device", device);
}

/* ---- controllers ---- */

/* The machine has it already. */
static gboolean is_built_in(const CommandLine *line, ControllerType type, guint index)
{
        return index == 0 &&
               (type == CONTROLLER_PCI || type == (line->is_q35 ? CONTROLLER_SATA : CONTROLLER_IDE));
}

static void set_number(JsonObject *device, const char *name, guint number)
{
        if (number)
                json_object_set_int_member(device, name, number);
}

static void set_ports(JsonObject *device, const DefinitionController *controller, const char *driver)
{
        guint chassis = controller->chassis ? controller->chassis : controller->index;

        if (strcmp(driver, "pcie-root-port") == 0) {
                set_number(device, "chassis", chassis);
                set_number(device, "port", controller->chassis_port);
        } else if (strcmp(driver, "pci-bridge") == 0)
                set_number(device, "chassis_nr", chassis);
        else if (controller->type == CONTROLLER_VIRTIO_SERIAL)
                set_number(device, "max_ports", controller->ports);
        else if (controller->type == CONTROLLER_USB) {
                set_number(device, "p2", controller->ports);
                set_number(device, "p3", controller->ports);
        }
}

static const char *find_driver(CommandLine *line, const DefinitionController *controller)
{
        const char *model = controller->model ? controller->model : usual_model(line, controller->type);

        for (guint i = 0; i < G_N_ELEMENTS(models); i++)
                if (models[i].type == controller->type &&
                    (!models[i].model || g_strcmp0(models[i].model, model) == 0))
                        return models[i].driver;
        line_refuse(line, "machine type '%s' has no %s controller %u%s%s%s", line->is_q35 ? "q35" : "pc",
                    type_names[controller->type], controller->index, model ? " of model '" : "",
                    model ? model : "", model ? "'" : "");
        return "";
}

static void add_controller(CommandLine *line, const DefinitionController *controller)
{
        const char *separator = controller->type == CONTROLLER_PCI ? "." : "", *driver;
        g_autofree char *id = NULL, *what = NULL;
        JsonObject *device;

        if (is_built_in(line, controller->type, controller->index))
                return;
        driver = find_driver(line, controller);
        id = g_strdup_printf("%s%s%u", type_names[controller->type], separator, controller->index);
        what = g_strdup_printf("%s controller %u", type_names[controller->type], controller->index);
        device = json_make("s:driver", driver, "s:id", id, NULL);
        set_ports(device, controller, driver);
        g_hash_table_add(line->controllers, controller_key(controller->type, controller->index));
        line_plug_pci(line, device, &controller->address, what);
}

/* Each after the one that it is plugged into, in whatever order they are listed. */
static void add_pci_controllers(CommandLine *line)
{
        g_autoptr(GPtrArray) left = g_ptr_array_new();
        GPtrArray *controllers = line->definition->controllers;
        guint before;

        for (guint i = 0; i < controllers->len; i++)
                if (((DefinitionController *) controllers->pdata[i])->type == CONTROLLER_PCI)
                        g_ptr_array_add(left, controllers->pdata[i]);
        do {
                before = left->len;
                for (guint i = 0; i < left->len;) {
                        const DefinitionController *controller = left->pdata[i];
                        const DefinitionAddress *address = &controller->address;

                        if (address->type == ADDRESS_PCI && address->bus > 0 &&
                            !has_controller(line, CONTROLLER_PCI, address->bus)) {
                                i++;
                                continue;
                        }
                        add_controller(line, controller);
                        g_ptr_array_remove_index(left, i);
                }
        } while (left->len > 0 && left->len < before);
        for (guint i = 0; i < left->len; i++)
                add_controller(line, left->pdata[i]); /* for the refusal */
}

void line_add_controllers(CommandLine *line)
{
        GPtrArray *controllers = line->definition->controllers;

        add_pci_controllers(line);
        for (guint i = 0; i < controllers->len; i++)
                if (((DefinitionController *) controllers->pdata[i])->type != CONTROLLER_PCI)
                        add_controller(line, controllers->pdata[i]);
}

void line_need_controller(CommandLine *line, ControllerType type, guint index)
{
        /* Of those that are made unasked, the one with the most to plug in. */
        DefinitionController controller = { .type = type,
                                            .index = index,
                                            .model = type == CONTROLLER_USB ? (char *) "qemu-xhci" : NULL };

        if (!has_controller(line, type, index))
                add_controller(line, &controller);
}

/* ---- USB and ports ---- */

/* Those that QEMU places come last, so that they leave room for the others. */
static void plug(CommandLine *line, JsonObject *device, gboolean is_placed)
{
        if (is_placed)
                line_add_json(line, "-device", device);
        else
                g_ptr_array_add(line->unplaced, device);
}

static guint first_usb_controller(const CommandLine *line)
{
        GPtrArray *controllers = line->definition->controllers;

        for (guint i = 0; i < controllers->len; i++) {
                const DefinitionController *controller = controllers->pdata[i];

                if (controller->type == CONTROLLER_USB)
                        return controller->index;
        }
        return 0;
}

void line_plug_usb(CommandLine *line, JsonObject *device, const DefinitionAddress *address, const char *what)
{
        g_autofree char *bus = g_strdup_printf("usb%u.0", address->bus);
        g_autofree char *port = g_strdup_printf("%u", address->port);

        if (address->type != ADDRESS_NONE && address->type != ADDRESS_USB)
                line_refuse(line, "%s: its address is none on a USB bus", what);
        line_need_controller(line, CONTROLLER_USB,
                             address->type == ADDRESS_USB ? address->bus : first_usb_controller(line));
        if (address->type == ADDRESS_USB)
                json_object_set_string_member(device, "bus", bus);
        if (address->port)
                json_object_set_string_member(device, "port", port);
        plug(line, device, address->port != 0);
}

void line_plug_port(CommandLine *line, JsonObject *device, const DefinitionAddress *address, guint first,
                    const char *what)
{
        g_autofree char *bus = g_strdup_printf("virtio-serial%u.0", address->controller);
        gboolean is_placed = address->type == ADDRESS_VIRTIO_SERIAL && address->port >= first;

        if (address->type != ADDRESS_NONE && address->type != ADDRESS_VIRTIO_SERIAL)
                line_refuse(line, "%s: its address is none of a virtio-serial controller", what);
        line_need_controller(line, CONTROLLER_VIRTIO_SERIAL, address->controller);
        json_object_set_string_member(device, "bus", bus);
        if (is_placed)
                json_object_set_int_member(device, "nr", address->port);
        plug(line, device, is_placed);
}

/* ---- drives ---- */

/* "vda" and "xvda" are 0. */
static guint number_of_disk(const char *target)
{
        const char *letter = strchr(target, 'd');
        guint number = 0;

        while (letter && *++letter && number < NUMBERED_DISKS)
                number = number * 26 + (guint) (*letter - 'a') + 1;
        return number > 0 && number <= NUMBERED_DISKS ? number - 1 : 0;
}

static DefinitionAddress nth_place(DiskBus bus, guint n)
{
        DefinitionAddress place = { .type = ADDRESS_DRIVE };

        switch (bus) {
        case DISK_BUS_SCSI:
                place.controller = n / SCSI_UNITS;
                place.unit = n % SCSI_UNITS;
                break;
        case DISK_BUS_SATA:
                place.controller = n / SATA_UNITS;
                place.unit = n % SATA_UNITS;
                break;
        default:
                place.controller = n / IDE_UNITS;
                place.bus = n % IDE_UNITS / 2;
                place.unit = n % 2;
                break;
        }
        return place;
}

/* FALSE: it is taken already. */
static gboolean take_place(CommandLine *line, DiskBus bus, const DefinitionAddress *place)
{
        return g_hash_table_add(line->places, g_strdup_printf("%u: %u %u %u %u", bus, place->controller,
                                                              place->bus, place->target, place->unit));
}

DefinitionAddress line_place_drive(CommandLine *line, const DefinitionDisk *disk)
{
        DefinitionAddress place = disk->address;

        if (place.type != ADDRESS_NONE && place.type != ADDRESS_DRIVE)
                line_refuse(line, "disk '%s': its address is none of a drive", disk->target);
        if (place.type == ADDRESS_DRIVE)
                return place;
        for (guint n = number_of_disk(disk->target);; n++) {
                place = nth_place(disk->bus, n);
                if (take_place(line, disk->bus, &place))
                        return place;
        }
}

/* ---- what is taken ---- */

void line_note_addresses(CommandLine *line)
{
        const Definition *definition = line->definition;

        line->slots |= line->is_q35 ? 1U << 0 | 1U << 31 : 1U << 0 | 1U << 1; /* by the machine */
        for (guint i = 0; i < definition->disks->len; i++) {
                const DefinitionDisk *disk = definition->disks->pdata[i];

                note_slot(line, &disk->address);
                if (disk->address.type == ADDRESS_DRIVE)
                        take_place(line, disk->bus, &disk->address);
        }
        for (guint i = 0; i < definition->controllers->len; i++)
                note_slot(line, &((DefinitionController *) definition->controllers->pdata[i])->address);
        for (guint i = 0; i < definition->interfaces->len; i++)
                note_slot(line, &((DefinitionInterface *) definition->interfaces->pdata[i])->address);
        for (guint i = 0; i < definition->devices->len; i++)
                note_slot(line, &((DefinitionDevice *) definition->devices->pdata[i])->address);
}
