/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/xml-read.h"

#include <string.h>

/* Where libvirt puts the sockets of channels that are given none. */
#define CHANNEL_DIRECTORIES "/var/lib/libvirt/qemu/channel/", "/run/libvirt/qemu/channel/"

static guint number(const xmlNode *node, const char *attribute)
{
        return (guint) xml_number(xml_attribute(node, attribute));
}

static char *text(const xmlNode *node, const char *attribute)
{
        return g_strdup(xml_attribute(node, attribute));
}

/* ---- places ---- */

gboolean xml_read_address(Reader *reader, const xmlNode *device, AddressType wanted,
                          DefinitionAddress *ret_address)
{
        static const struct {
                const char *type;
                AddressType address;
                const char *attributes;
        } types[] = {
                { "pci", ADDRESS_PCI, "type domain bus slot function multifunction" },
                { "drive", ADDRESS_DRIVE, "type controller bus target unit" },
                { "virtio-serial", ADDRESS_VIRTIO_SERIAL, "type controller bus port" },
                { "usb", ADDRESS_USB, "type bus port" },
        };
        const xmlNode *node = xml_child(device, "address");
        guint i = 0;

        if (!node)
                return TRUE;
        while (!xml_has(node, "type", types[i].type))
                i++;
        if (types[i].address != wanted)
                return xml_refuse(reader, node, "this '%s' has no address of type '%s'", device->name,
                                  types[i].type);
        for (const xmlAttr *attribute = node->properties; attribute; attribute = attribute->next)
                if (!strstr(types[i].attributes, (const char *) attribute->name))
                        return xml_refuse(reader, node, "an 'address' of type '%s' has no '%s'",
                                          types[i].type, attribute->name);
        *ret_address = (DefinitionAddress){
                .type = types[i].address,
                .bus = number(node, "bus"),
                .slot = number(node, "slot"),
                .function = number(node, "function"),
                .multifunction = xml_has(node, "multifunction", "on"),
                .controller = number(node, "controller"),
                .target = number(node, "target"),
                .unit = number(node, "unit"),
                .port = number(node, "port"),
        };
        return TRUE;
}

gboolean xml_read_boot_order(Reader *reader, const xmlNode *device, guint *ret_order)
{
        const xmlNode *boot = xml_child(device, "boot");
        g_autofree char *name = NULL;

        *ret_order = number(boot, "order");
        if (!boot)
                return TRUE;
        if (reader->definition->boot)
                return xml_refuse(reader, boot, "there is both 'boot' in 'os' and 'boot' in '%s'",
                                  device->name);
        name = g_strdup_printf("boot order %u", *ret_order);
        return xml_is_unique(reader, boot, name);
}

/* ---- controllers ---- */

static gboolean read_controller(Reader *reader, xmlNode *node)
{
        static const struct {
                const char *name;
                ControllerType type;
                const char *models;
        } types[] = {
                { "pci", CONTROLLER_PCI,
                  "|pci-root|pcie-root|pcie-root-port|pcie-to-pci-bridge|pci-bridge|" },
                { "scsi", CONTROLLER_SCSI, "|virtio-scsi|lsilogic|" },
                { "sata", CONTROLLER_SATA, "|" },
                { "ide", CONTROLLER_IDE, "|piix3|piix4|" },
                { "usb", CONTROLLER_USB, "|piix3-uhci|ich9-ehci1|nec-xhci|qemu-xhci|" },
                { "virtio-serial", CONTROLLER_VIRTIO_SERIAL, "|" },
        };
        const char *model = xml_attribute(node, "model");
        const xmlNode *target = xml_child(node, "target");
        g_autofree char *name = NULL, *word = NULL;
        DefinitionController *controller;
        guint i = 0;

        while (!xml_has(node, "type", types[i].name))
                i++;
        word = g_strdup_printf("|%s|", model ? model : "");
        if (model && !strstr(types[i].models, word))
                return xml_leave_out(
                        reader, node, NULL,
                        "value '%.64s' of attribute 'model' of a 'controller' of type '%s' is not "
                        "understood",
                        model, types[i].name);
        controller = g_new0(DefinitionController, 1);
        g_ptr_array_add(reader->definition->controllers, controller);
        controller->type = types[i].type;
        controller->index = number(node, "index");
        controller->model = g_strdup(model);
        controller->ports = number(node, "ports");
        controller->chassis = number(target, xml_attribute(target, "chassisNr") ? "chassisNr" : "chassis");
        controller->chassis_port = number(target, "port");
        name = g_strdup_printf("controller of type '%s' with index %u", types[i].name, controller->index);
        if (types[i].type == CONTROLLER_PCI && !model)
                return xml_refuse(reader, node, "a 'controller' of type 'pci' has no attribute 'model'");
        if (types[i].type != CONTROLLER_PCI && (target || xml_child(node, "model")))
                return xml_refuse(reader, node, "a 'controller' of type '%s' has no 'target' and no 'model'",
                                  types[i].name);
        if (controller->ports && types[i].type != CONTROLLER_USB &&
            types[i].type != CONTROLLER_VIRTIO_SERIAL)
                return xml_refuse(reader, node, "a 'controller' of type '%s' has no 'ports'", types[i].name);
        return xml_is_unique(reader, node, name) &&
               xml_read_address(reader, node, ADDRESS_PCI, &controller->address);
}

/* ---- interfaces ---- */

static gboolean read_mac(Reader *reader, const xmlNode *node, DefinitionInterface *interface)
{
        const xmlNode *mac = xml_child(node, "mac");
        const char *c = xml_attribute(mac, "address");
        gboolean is_valid = c && strlen(c) == strlen("52:54:00:00:00:01");

        for (guint i = 0; is_valid && c[i]; i++)
                is_valid = i % 3 == 2 ? c[i] == ':' : g_ascii_isxdigit(c[i]);
        if (!c)
                return TRUE;
        if (!is_valid || g_ascii_xdigit_value(c[1]) & 1)
                return xml_refuse(
                        reader, mac,
                        "value '%.64s' of attribute 'address' of 'mac' is no address of one device", c);
        interface->mac = g_ascii_strdown(c, -1);
        return TRUE;
}

/* The host's side of it. */
static gboolean read_link(Reader *reader, const xmlNode *node, DefinitionInterface *interface)
{
        xmlNode *source = xml_child(node, "source"), *target = xml_child(node, "target");
        const char *device = xml_attribute(target, "dev");

        interface->bridge = text(source, "bridge");
        if (source && interface->type != INTERFACE_BRIDGE)
                return xml_refuse(reader, source, "only an 'interface' of type 'bridge' has a 'source'");
        if (interface->type == INTERFACE_BRIDGE && !interface->bridge)
                return xml_refuse(reader, node,
                                  "an 'interface' of type 'bridge' has no 'source' with a 'bridge'");
        if (interface->type != INTERFACE_TAP) {
                if (!target)
                        return TRUE;
                /* A name that libvirt made up for this run; of others it would make a device of that name.
                 */
                if (g_str_has_prefix(device, "vnet")) {
                        xmlUnlinkNode(target);
                        xmlFreeNode(target);
                        return TRUE;
                }
                return xml_leave_out(
                        reader, target, NULL,
                        "a 'target' of an 'interface' that is not of type 'ethernet' is not understood");
        }
        if (!xml_has(target, "managed", "no"))
                return xml_refuse(reader, target ? target : node,
                                  "an 'interface' of type 'ethernet' needs <target dev='…' managed='no'>: a "
                                  "tap device "
                                  "that is there");
        interface->device = g_strdup(device);
        return TRUE;
}

static gboolean read_interface(Reader *reader, xmlNode *node)
{
        DefinitionInterface *interface = g_new0(DefinitionInterface, 1);
        const char *model = xml_child_attribute(node, "model", "type");

        g_ptr_array_add(reader->definition->interfaces, interface);
        interface->type = xml_has(node, "type", "user")     ? INTERFACE_USER
                          : xml_has(node, "type", "bridge") ? INTERFACE_BRIDGE
                                                            : INTERFACE_TAP;
        /* What libvirt takes where nothing is said. */
        interface->model = g_strdup(model ? model : "rtl8139");
        return read_mac(reader, node, interface) && read_link(reader, node, interface) &&
               xml_read_boot_order(reader, node, &interface->boot_order) &&
               xml_read_address(reader, node, ADDRESS_PCI, &interface->address);
}

/* ---- serial, console, channel ---- */

static gboolean is_path_of_libvirt(const char *path)
{
        static const char *const directories[] = { CHANNEL_DIRECTORIES };

        for (guint i = 0; i < G_N_ELEMENTS(directories); i++)
                if (g_str_has_prefix(path, directories[i]))
                        return TRUE;
        return FALSE;
}

static gboolean read_backend(Reader *reader, xmlNode *node, DefinitionCharacter *character)
{
        xmlNode *source = xml_child(node, "source");
        const char *path = xml_attribute(source, "path");
        gboolean is_file = strcmp(character->backend, "file") == 0;
        gboolean is_socket = strcmp(character->backend, "unix") == 0;

        if (path && is_socket && character->type == CHARACTER_CHANNEL && is_path_of_libvirt(path)) {
                xmlUnsetProp(source, BAD_CAST "path");
                path = NULL;
        }
        if (source && !is_file && !is_socket) {
                /* The terminal of this run. */
                xmlUnlinkNode(source);
                xmlFreeNode(source);
                return TRUE;
        }
        if (!path && (is_file || (is_socket && character->type != CHARACTER_CHANNEL)))
                return xml_refuse(reader, node, "a '%s' of type '%s' has no 'source' with a 'path'",
                                  node->name, character->backend);
        if (xml_attribute(source, is_file ? "mode" : "append"))
                return xml_refuse(reader, source, "a 'source' of type '%s' has no '%s'", character->backend,
                                  is_file ? "mode" : "append");
        character->path = g_strdup(path);
        return TRUE;
}

static gboolean read_character(Reader *reader, xmlNode *node, CharacterType type)
{
        DefinitionCharacter *character = g_new0(DefinitionCharacter, 1);
        const xmlNode *target = xml_child(node, "target");
        g_autofree char *name = NULL;

        g_ptr_array_add(reader->definition->characters, character);
        character->type = type;
        character->backend = text(node, "type");
        character->target = text(target, "type");
        character->name = text(target, "name");
        character->port = number(target, "port");
        if (type == CHARACTER_CHANNEL && !target)
                return xml_refuse(reader, node, "'channel' has no 'target'");
        name = g_strdup_printf("channel '%s'", character->name ? character->name : "");
        if (character->name && !xml_is_unique(reader, target, name))
                return FALSE;
        return read_backend(reader, node, character) &&
               xml_read_address(reader, node, ADDRESS_VIRTIO_SERIAL, &character->address);
}

static gboolean read_serial(Reader *reader, xmlNode *node)
{
        return read_character(reader, node, CHARACTER_SERIAL);
}

static gboolean read_console(Reader *reader, xmlNode *node)
{
        return read_character(reader, node, CHARACTER_CONSOLE);
}

static gboolean read_channel(Reader *reader, xmlNode *node)
{
        return read_character(reader, node, CHARACTER_CHANNEL);
}

/* libvirt's first console is the first serial line, under both names: a device only once. */
static void join_consoles(Definition *definition)
{
        g_autoptr(GPtrArray) all = g_steal_pointer(&definition->characters);
        gboolean has_serial = FALSE;

        definition->characters = g_ptr_array_new_with_free_func(definition_character_free);
        for (guint i = 0; i < all->len; i++)
                has_serial = has_serial || ((DefinitionCharacter *) all->pdata[i])->type == CHARACTER_SERIAL;
        for (guint i = 0; i < all->len; i++) {
                DefinitionCharacter *character = all->pdata[i];

                if (character->type == CHARACTER_CONSOLE && g_strcmp0(character->target, "virtio") != 0) {
                        if (has_serial)
                                continue;
                        character->type = CHARACTER_SERIAL;
                        g_clear_pointer(&character->target, g_free);
                        has_serial = TRUE;
                }
                all->pdata[i] = NULL;
                g_ptr_array_add(definition->characters, character);
        }
}

/* ---- graphics ---- */

static gboolean read_graphics(Reader *reader, xmlNode *node)
{
        DefinitionGraphics *graphics = g_new0(DefinitionGraphics, 1);
        const xmlNode *listen = xml_child(node, "listen");
        gboolean is_socket = xml_has(listen, "type", "socket");
        const char *attribute = is_socket ? "socket" : "address";
        const char *old = xml_attribute(node, is_socket ? "socket" : "listen");
        const char *place = xml_attribute(listen, attribute) ? xml_attribute(listen, attribute) : old;
        const char *port = xml_attribute(node, "port");

        g_ptr_array_add(reader->definition->graphics, graphics);
        if (!listen && xml_attribute(node, "socket")) {
                is_socket = TRUE;
                place = xml_attribute(node, "socket");
        }
        if (old && place && strcmp(old, place) != 0)
                return xml_refuse(reader, node,
                                  "'listen' says '%s', and attribute '%s' of 'graphics' says '%s'", place,
                                  is_socket ? "socket" : "listen", old);
        if (is_socket && !place)
                return xml_refuse(reader, node, "a 'listen' of type 'socket' has no attribute 'socket'");
        graphics->listen = g_strdup(is_socket || !place ? "" : place);
        graphics->socket = is_socket ? g_strdup(place) : NULL;
        graphics->port = -1;
        if (is_socket)
                return TRUE;
        if (xml_has(node, "autoport", "yes")) {
                /* What it was in some run. */
                if (port)
                        xmlSetProp(node, BAD_CAST "port", BAD_CAST "-1");
                return TRUE;
        }
        if (port && strcmp(port, "-1") != 0) {
                graphics->port = (gint32) xml_number(port);
                if (graphics->port < 5900)
                        return xml_refuse(reader, node,
                                          "value '%s' of attribute 'port' of 'graphics': -1 or a number "
                                          "from 5900 to 65535 is wanted",
                                          port);
        }
        return TRUE;
}

/* ---- the others ---- */

static DefinitionDevice *add_device(Reader *reader, DeviceType type, const char *model)
{
        DefinitionDevice *device = g_new0(DefinitionDevice, 1);

        device->type = type;
        device->model = g_strdup(model);
        g_ptr_array_add(reader->definition->devices, device);
        return device;
}

static gboolean read_input(Reader *reader, xmlNode *node)
{
        DefinitionDevice *device = add_device(reader, DEVICE_INPUT, xml_attribute(node, "type"));
        const char *bus = xml_attribute(node, "bus");
        gboolean is_tablet = strcmp(device->model, "tablet") == 0;

        device->bus = g_strdup(bus ? bus : is_tablet ? "usb" : "ps2");
        if (strcmp(device->bus, "ps2") == 0)
                return !is_tablet || xml_refuse(reader, node, "there is no tablet with bus='ps2'");
        return xml_read_address(reader, node, strcmp(device->bus, "usb") == 0 ? ADDRESS_USB : ADDRESS_PCI,
                                &device->address);
}

static gboolean read_video(Reader *reader, xmlNode *node)
{
        const xmlNode *model = xml_child(node, "model");
        DefinitionDevice *device;

        if (!model)
                return xml_refuse(reader, node, "'video' has no 'model'");
        if ((xml_attribute(model, "ram") || xml_attribute(model, "vgamem")) &&
            !xml_has(model, "type", "qxl"))
                return xml_refuse(reader, model, "only a 'model' of type 'qxl' has 'ram' and 'vgamem'");
        if (xml_has(model, "type", "none"))
                return TRUE;
        device = add_device(reader, DEVICE_VIDEO, xml_attribute(model, "type"));
        device->vram = xml_number(xml_attribute(model, "vram"));
        return xml_read_address(reader, node, ADDRESS_PCI, &device->address);
}

static gboolean read_balloon(Reader *reader, xmlNode *node)
{
        DefinitionDevice *device;

        if (xml_has(node, "model", "none"))
                return TRUE;
        device = add_device(reader, DEVICE_BALLOON, xml_attribute(node, "model"));
        return xml_read_address(reader, node, ADDRESS_PCI, &device->address);
}

static gboolean read_random(Reader *reader, xmlNode *node)
{
        DefinitionDevice *device = add_device(reader, DEVICE_RNG, xml_attribute(node, "model"));
        const xmlNode *rate = xml_child(node, "rate"), *backend = xml_child(node, "backend");

        if (!backend)
                return xml_refuse(reader, node, "'rng' has no 'backend'");
        device->backend = xml_text(backend);
        if (!*device->backend) {
                g_free(device->backend);
                device->backend = g_strdup("/dev/urandom");
        }
        device->rate_bytes = number(rate, "bytes");
        device->rate_period = !rate ? 0 : xml_attribute(rate, "period") ? number(rate, "period") : 1000;
        return xml_read_address(reader, node, ADDRESS_PCI, &device->address);
}

static gboolean read_watchdog(Reader *reader, xmlNode *node)
{
        DefinitionDevice *device = add_device(reader, DEVICE_WATCHDOG, xml_attribute(node, "model"));
        const char *action = xml_attribute(node, "action");

        device->backend = g_strdup(action ? action : "reset");
        return xml_read_address(reader, node, ADDRESS_PCI, &device->address);
}

gboolean xml_read_devices(Reader *reader, xmlNode *devices)
{
        static const struct {
                const char *name;
                gboolean (*read)(Reader *reader, xmlNode *node);
        } readers[] = {
                { "disk", xml_read_disk },       { "controller", read_controller },
                { "interface", read_interface }, { "serial", read_serial },
                { "console", read_console },     { "channel", read_channel },
                { "graphics", read_graphics },   { "input", read_input },
                { "video", read_video },         { "memballoon", read_balloon },
                { "rng", read_random },          { "watchdog", read_watchdog },
        };

        for (xmlNode *node = xmlFirstElementChild(devices), *next; node; node = next) {
                next = xmlNextElementSibling(node);
                for (guint i = 0; i < G_N_ELEMENTS(readers); i++)
                        if (strcmp((const char *) node->name, readers[i].name) == 0) {
                                if (!readers[i].read(reader, node))
                                        return FALSE;
                                break;
                        }
        }
        reader->definition->emulator = xml_child_text(devices, "emulator");
        join_consoles(reader->definition);
        return TRUE;
}
