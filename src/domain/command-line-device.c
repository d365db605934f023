/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/command-line.h"

#include <string.h>

#include "base/json.h"

#define AUDIO "bj-audio"
#define FIRST_DISPLAY_PORT 5900
#define LAST_DISPLAY 99
#define LISTEN "127.0.0.1" /* without a password nobody but this host */
#define RANDOM "/dev/urandom"
#define RATE_PERIOD 1000 /* ms, libvirt's */

/* ---- tables ---- */

typedef struct {
        const char *model, *bus; /* NULL: there is only one */
        const char *driver;      /* NULL: the machine has it, or it is none */
} Driver;

static const Driver interfaces[] = {
        { "virtio", NULL, "virtio-net-pci" },
        { "e1000", NULL, "e1000" },
        { "e1000e", NULL, "e1000e" },
        { "rtl8139", NULL, "rtl8139" },
        { NULL },
};

static const Driver inputs[] = {
        { "tablet", "usb", "usb-tablet" },
        { "mouse", "usb", "usb-mouse" },
        { "keyboard", "usb", "usb-kbd" },
        { "tablet", "virtio", "virtio-tablet-pci" },
        { "mouse", "virtio", "virtio-mouse-pci" },
        { "keyboard", "virtio", "virtio-keyboard-pci" },
        { "mouse", "ps2", NULL },
        { "keyboard", "ps2", NULL },
        { NULL },
};

/* The first one is what firmware shows itself on. */
static const Driver first_videos[] = {
        { "vga", NULL, "VGA" },
        { "virtio", NULL, "virtio-vga" },
        { "qxl", NULL, "qxl-vga" },
        { "cirrus", NULL, "cirrus-vga" },
        { "bochs", NULL, "bochs-display" },
        { "none", NULL, NULL },
        { NULL },
};

static const Driver more_videos[] = {
        { "virtio", NULL, "virtio-gpu-pci" },
        { "qxl", NULL, "qxl" },
        { "bochs", NULL, "bochs-display" },
        { "none", NULL, NULL },
        { NULL },
};

static const Driver balloons[] = {
        { "virtio", NULL, "virtio-balloon-pci" },
        { "none", NULL, NULL },
        { NULL },
};

static const Driver randoms[] = { { "virtio", NULL, "virtio-rng-pci" }, { NULL } };

static const Driver watchdogs[] = {
        { "i6300esb", "pci", "i6300esb" },
        { "ib700", "isa", "ib700" },
        { "itco", "machine", NULL },
        { NULL },
};

static const char *const watchdog_actions[] = { "reset",      "shutdown", "poweroff", "pause",
                                                "inject-nmi", "none",     "debug",    NULL };

/* NULL: refused. */
static const Driver *find_driver(CommandLine *line, const Driver *drivers, const char *model,
                                 const char *bus, const char *what)
{
        for (const Driver *driver = drivers; driver->model; driver++)
                if (g_strcmp0(driver->model, model) == 0 && (!bus || g_strcmp0(driver->bus, bus) == 0))
                        return driver;
        line_refuse(line, "%s: there is no model '%s'%s%s%s", what, model ? model : "",
                    bus ? " on the bus '" : "", bus ? bus : "", bus ? "'" : "");
        return NULL;
}

/* ---- interfaces ---- */

static void add_interface(CommandLine *line, const DefinitionInterface *interface, guint i)
{
        const char *model = interface->model ? interface->model : "rtl8139"; /* libvirt's */
        const Driver *driver = find_driver(line, interfaces, model, NULL, "interface");
        guint boot_index = line_boot_index(line, interface, interface->boot_order);
        g_autofree char *id = g_strdup_printf("bj-net%u", i);
        g_autofree char *device_id = g_strdup_printf("%s-device", id);
        const char *tap = interface->device;
        JsonObject *device;

        if (interface->type == INTERFACE_BRIDGE)
                tap = line->facts->taps ? line->facts->taps[line->taps++] : NULL;
        if (interface->type == INTERFACE_USER)
                line_add(line, "-netdev", "user,id=%s", id);
        else if (!tap)
                line_refuse(line, "interface: it has no device of the host");
        else {
                g_autofree char *name = line_value(tap);
                line_add(line, "-netdev", "tap,id=%s,ifname=%s,script=no,downscript=no,vhost=off", id, name);
        }
        if (!driver)
                return;
        device = json_make("s:driver", driver->driver, "s:id", device_id, "s:netdev", id, "s:mac",
                           interface->mac, NULL);
        if (boot_index)
                json_object_set_int_member(device, "bootindex", boot_index);
        line_plug_pci(line, device, &interface->address, "interface");
}

/* ---- characters ---- */

static void add_backend(CommandLine *line, const DefinitionCharacter *character, const char *id)
{
        const char *backend = character->backend ? character->backend : "";
        g_autofree char *path = line_value(character->path ? character->path : "");
        gboolean is_socket = strcmp(backend, "unix") == 0;

        /* libvirt gives a channel a socket of its own name: here nobody is at its other end. */
        if (strcmp(backend, "null") == 0 ||
            (is_socket && !character->path && character->type == CHARACTER_CHANNEL))
                line_add(line, "-chardev", "null,id=%s", id);
        else if (strcmp(backend, "pty") == 0)
                line_add(line, "-chardev", "pty,id=%s", id);
        else if ((is_socket || strcmp(backend, "file") == 0) && !character->path)
                line_refuse(line, "character device: a '%s' needs a path", backend);
        else if (is_socket)
                line_add(line, "-chardev", "socket,id=%s,path=%s,server=on,wait=off", id, path);
        else if (strcmp(backend, "file") == 0)
                line_add(line, "-chardev", "file,id=%s,path=%s", id, path);
        else
                line_refuse(line, "character device: there is no backend '%s'", backend);
}

static gboolean has_target(CommandLine *line, const DefinitionCharacter *character, const char *target)
{
        if (!character->target || strcmp(character->target, target) == 0)
                return TRUE;
        line_refuse(line, "character device: there is no target '%s'", character->target);
        return FALSE;
}

static void add_serial(CommandLine *line, const DefinitionCharacter *character)
{
        g_autofree char *id = g_strdup_printf("bj-serial%u", character->port);
        g_autofree char *device_id = g_strdup_printf("%s-device", id);

        add_backend(line, character, id);
        line_add_json(line, "-device",
                      json_make("s:driver", "isa-serial", "s:id", device_id, "s:chardev", id, "i:index",
                                (gint64) character->port, NULL));
}

static void add_port(CommandLine *line, const DefinitionCharacter *character, guint i)
{
        gboolean is_console = character->type == CHARACTER_CONSOLE;
        g_autofree char *id = g_strdup_printf("bj-%s%u", is_console ? "console" : "channel", i);
        g_autofree char *device_id = g_strdup_printf("%s-device", id);

        add_backend(line, character, id);
        /* Port 0 is for a console. */
        line_plug_port(line,
                       json_make("s:driver", is_console ? "virtconsole" : "virtserialport", "s:id",
                                 device_id, "s:chardev", id, "s:name", is_console ? NULL : character->name,
                                 NULL),
                       &character->address, is_console ? 0 : 1, "character device");
}

/* libvirt lists the first serial port as a console once more; a console alone is one. */
static gboolean is_listed_again(const CommandLine *line, const DefinitionCharacter *console)
{
        GPtrArray *characters = line->definition->characters;

        for (guint i = 0; i < characters->len; i++) {
                const DefinitionCharacter *other = characters->pdata[i];

                if (other->type == CHARACTER_SERIAL)
                        return TRUE;
        }
        for (guint i = 0; characters->pdata[i] != console; i++) {
                const DefinitionCharacter *other = characters->pdata[i];

                if (other->type == CHARACTER_CONSOLE && g_strcmp0(other->target, "virtio") != 0)
                        return TRUE;
        }
        return FALSE;
}

static void add_character(CommandLine *line, const DefinitionCharacter *character, guint i)
{
        switch (character->type) {
        case CHARACTER_SERIAL:
                if (has_target(line, character, "isa-serial"))
                        add_serial(line, character);
                break;
        case CHARACTER_CONSOLE:
                if (g_strcmp0(character->target, "virtio") == 0)
                        add_port(line, character, i);
                else if (has_target(line, character, "serial") && !is_listed_again(line, character))
                        add_serial(line, character);
                break;
        case CHARACTER_CHANNEL:
                if (has_target(line, character, "virtio"))
                        add_port(line, character, i);
                break;
        }
}

/* ---- what is one device ---- */

static void add_input(CommandLine *line, const DefinitionDevice *input, const char *id)
{
        const char *bus = input->bus ? input->bus : g_strcmp0(input->model, "tablet") == 0 ? "usb" : "ps2";
        const Driver *driver = find_driver(line, inputs, input->model, bus, "input");
        JsonObject *device;

        if (!driver || !driver->driver)
                return;
        device = json_make("s:driver", driver->driver, "s:id", id, NULL);
        if (strcmp(bus, "usb") == 0)
                line_plug_usb(line, device, &input->address, "input");
        else
                line_plug_pci(line, device, &input->address, "input");
}

static void add_video(CommandLine *line, const DefinitionDevice *video, const char *id, gboolean is_first)
{
        const Driver *driver = find_driver(line, is_first ? first_videos : more_videos, video->model, NULL,
                                           is_first ? "video" : "second video");
        gint64 kib = (gint64) video->vram;
        JsonObject *device;

        if (!driver || !driver->driver)
                return;
        device = json_make("s:driver", driver->driver, "s:id", id, NULL);
        /* The others have no use for it. */
        if (kib && strcmp(video->model, "vga") == 0)
                json_object_set_int_member(device, "vgamem_mb", MAX(kib / 1024, 1));
        else if (kib && strcmp(video->model, "qxl") == 0)
                json_object_set_int_member(device, "vram_size", kib * 1024);
        else if (kib && strcmp(video->model, "bochs") == 0)
                json_object_set_int_member(device, "vgamem", kib * 1024);
        line_plug_pci(line, device, &video->address, "video");
}

static void add_random(CommandLine *line, const DefinitionDevice *random, const char *id)
{
        const Driver *driver =
                find_driver(line, randoms, random->model ? random->model : "virtio", NULL, "rng");
        const char *file = random->backend && *random->backend ? random->backend : RANDOM;
        g_autofree char *device_id = g_strdup_printf("%s-device", id);
        JsonObject *device;

        if (!driver)
                return;
        line_add_json(line, "-object",
                      json_make("s:qom-type", "rng-random", "s:id", id, "s:filename", file, NULL));
        device = json_make("s:driver", driver->driver, "s:id", device_id, "s:rng", id, NULL);
        if (random->rate_bytes) {
                json_object_set_int_member(device, "max-bytes", (gint64) random->rate_bytes);
                json_object_set_int_member(device, "period",
                                           random->rate_period ? (gint64) random->rate_period : RATE_PERIOD);
        }
        line_plug_pci(line, device, &random->address, "rng");
}

static void add_balloon(CommandLine *line, const DefinitionDevice *balloon, const char *id)
{
        const Driver *driver = find_driver(line, balloons, balloon->model, NULL, "memballoon");

        if (driver && driver->driver)
                line_plug_pci(line, json_make("s:driver", driver->driver, "s:id", id, NULL),
                              &balloon->address, "memballoon");
}

static void add_watchdog(CommandLine *line, const DefinitionDevice *watchdog, const char *id)
{
        const Driver *driver = find_driver(line, watchdogs, watchdog->model, NULL, "watchdog");
        const char *action = watchdog->backend ? watchdog->backend : "reset";
        JsonObject *device;

        if (!driver)
                return;
        if (!g_strv_contains(watchdog_actions, action))
                line_refuse(line, "watchdog: QEMU has no action '%s'", action);
        line_add(line, "-action", "watchdog=%s", action);
        if (!driver->driver) {
                if (!line->is_q35)
                        line_refuse(line, "watchdog: only q35 has an itco");
                line_add(line, "-global", "ICH9-LPC.noreboot=off");
                return;
        }
        device = json_make("s:driver", driver->driver, "s:id", id, NULL);
        if (strcmp(driver->bus, "pci") == 0)
                line_plug_pci(line, device, &watchdog->address, "watchdog");
        else
                line_add_json(line, "-device", device);
}

static void add_device(CommandLine *line, guint i, gboolean *has_video)
{
        static const char *const names[] = { [DEVICE_INPUT] = "input",
                                             [DEVICE_VIDEO] = "video",
                                             [DEVICE_RNG] = "rng",
                                             [DEVICE_BALLOON] = "balloon",
                                             [DEVICE_WATCHDOG] = "watchdog" };
        const DefinitionDevice *device = line->definition->devices->pdata[i];
        g_autofree char *id = g_strdup_printf("bj-%s%u", names[device->type], i);

        switch (device->type) {
        case DEVICE_INPUT:
                add_input(line, device, id);
                break;
        case DEVICE_VIDEO:
                add_video(line, device, id, !*has_video);
                *has_video = TRUE;
                break;
        case DEVICE_RNG:
                add_random(line, device, id);
                break;
        case DEVICE_BALLOON:
                add_balloon(line, device, id);
                break;
        case DEVICE_WATCHDOG:
                add_watchdog(line, device, id);
                break;
        }
}

/* ---- graphics ---- */

static void add_graphics(CommandLine *line, const DefinitionGraphics *graphics)
{
        const char *listen = graphics->listen && *graphics->listen ? graphics->listen : LISTEN;
        gboolean is_ipv6 = strchr(listen, ':') != NULL;
        g_autofree char *address = line_value(graphics->socket ? graphics->socket : listen);

        if (graphics->socket)
                line_add(line, "-vnc", "unix:%s,audiodev=" AUDIO, address);
        else if (graphics->port == -1)
                line_add(line, "-vnc", "%s%s%s:0,to=%d,audiodev=" AUDIO, is_ipv6 ? "[" : "", address,
                         is_ipv6 ? "]" : "", LAST_DISPLAY);
        else if (graphics->port < FIRST_DISPLAY_PORT)
                line_refuse(line, "graphics: port %d is below %d", graphics->port, FIRST_DISPLAY_PORT);
        else
                line_add(line, "-vnc", "%s%s%s:%d,audiodev=" AUDIO, is_ipv6 ? "[" : "", address,
                         is_ipv6 ? "]" : "", graphics->port - FIRST_DISPLAY_PORT);
}

void line_add_devices(CommandLine *line)
{
        const Definition *definition = line->definition;
        gboolean has_video = FALSE;

        for (guint i = 0; i < definition->interfaces->len; i++)
                add_interface(line, definition->interfaces->pdata[i], i);
        for (guint i = 0; i < definition->characters->len; i++)
                add_character(line, definition->characters->pdata[i], i);
        for (guint i = 0; i < definition->devices->len; i++)
                add_device(line, i, &has_video);
        /* Or a viewer could have QEMU look for one on the host. */
        if (definition->graphics->len > 0)
                line_add(line, "-audiodev", "none,id=" AUDIO);
        for (guint i = 0; i < definition->graphics->len; i++)
                add_graphics(line, definition->graphics->pdata[i]);
}
