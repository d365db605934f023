/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

#include "domain/definition.h"

/* Between the parts of what makes the command line. After the first refusal the rest goes on for nothing. */

typedef struct {
        const Definition *definition; /* NULL: of a storage daemon */
        const LaunchFacts *facts;
        gboolean is_q35;
        GPtrArray *words;
        GPtrArray
                *unplaced; /* JsonObject: devices that QEMU finds a place for, once all others have theirs */
        guint32 slots;     /* of the root bus, those that are taken, one bit each */
        GHashTable *controllers; /* those that are there: "scsi 0" */
        GHashTable *places;      /* of disks, those that are taken */
        guint taps;              /* of facts->taps, those that have their interface */
        GError *error;
} CommandLine;

/* ---- command-line.c ---- */

void line_add(CommandLine *line, const char *option, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* `object` is taken. */
void line_add_json(CommandLine *line, const char *option, JsonObject *object);
/* NotSupported */
void line_refuse(CommandLine *line, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* As it stands in an option that is a list: commas doubled. */
char *line_value(const char *text);
/* Of a device, which is the n-th to be booted from; 0 = never. */
guint line_boot_index(const CommandLine *line, gconstpointer device, guint boot_order);

/* ---- command-line-bus.c: where devices are plugged in ---- */

/* What the definition says of places, before anything is given one. */
void line_note_addresses(CommandLine *line);
void line_add_controllers(CommandLine *line);
/* One that the definition does not have is made. */
void line_need_controller(CommandLine *line, ControllerType type, guint index);
/* NULL = there is none, or there is one by default. */
const DefinitionController *line_controller(const CommandLine *line, ControllerType type, guint index);
/* These take `device`, and say in a refusal that it is `what`. */
void line_plug_pci(CommandLine *line, JsonObject *device, const DefinitionAddress *address,
                   const char *what);
void line_plug_usb(CommandLine *line, JsonObject *device, const DefinitionAddress *address,
                   const char *what);
/* A port of a virtio-serial controller; `first`: the lowest number that it can have. */
void line_plug_port(CommandLine *line, JsonObject *device, const DefinitionAddress *address, guint first,
                    const char *what);
/* Where a disk on a bus of drives is: as its address says, else by the letters of its name. */
DefinitionAddress line_place_drive(CommandLine *line, const DefinitionDisk *disk);

/* ---- command-line-disk.c ---- */

/* The nodes of a disk, the deepest first. */
void line_add_nodes(CommandLine *line, const char *option, const DefinitionDisk *disk,
                    const GPtrArray *chain);
void line_add_disks(CommandLine *line);

/* ---- command-line-device.c ---- */

void line_add_devices(CommandLine *line);
