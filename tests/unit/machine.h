/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "domain/definition.h"

/* A definition that is made by hand, with what its images are, and the command line that comes of it. Texts
 * that are set are to stay: constants, or machine_text(). */
typedef struct {
        Definition definition;
        LaunchFacts facts;
        GPtrArray *chains; /* GPtrArray of OpenImage */
        GStringChunk *texts;
} Machine;

/* With 64 MiB, one processor, TCG and nothing else. */
Machine *machine_new(const char *type);
void machine_free(Machine *machine);
char *machine_text(Machine *machine, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* `source` NULL = no medium. Names that end in ".qcow2" are of that format, others raw. */
DefinitionDisk *machine_add_disk(Machine *machine, const char *target, DiskBus bus, const char *source);
/* One more image, below the others. */
void machine_add_layer(Machine *machine, const DefinitionDisk *disk, const char *source);
/* The images of a disk, top first. */
GPtrArray *machine_chain(const Machine *machine, const DefinitionDisk *disk);
DefinitionController *machine_add_controller(Machine *machine, ControllerType type, guint index,
                                             const char *model);
DefinitionInterface *machine_add_interface(Machine *machine, InterfaceType type, const char *model);
DefinitionCharacter *machine_add_character(Machine *machine, CharacterType type, const char *backend,
                                           const char *target);
DefinitionDevice *machine_add_device(Machine *machine, DeviceType type, const char *model);
DefinitionGraphics *machine_add_graphics(Machine *machine, const char *listen, gint32 port);

DefinitionAddress pci_address(guint bus, guint slot, guint function);
DefinitionAddress drive_address(guint controller, guint bus, guint target, guint unit);
DefinitionAddress port_address(guint controller, guint port);
DefinitionAddress usb_address(guint bus, guint port);

/* Which it has to have. */
GStrv machine_command(const Machine *machine);
/* It has none, for that reason. */
void machine_expect_refused(const Machine *machine, const char *message);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Machine, machine_free)
