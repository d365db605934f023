/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "machine.h"

#include <string.h>

#include "base/error.h"

Machine *machine_new(const char *type)
{
        Machine *machine = g_new0(Machine, 1);

        machine->definition = (Definition){
                .name = (char *) "mail",
                .uuid = (char *) "1f0c4cb4-3d3a-4a55-9f0e-2f6d9a1c7b10",
                .memory = 64 << 20,
                .vcpus = 1,
                .architecture = (char *) "x86_64",
                .machine = (char *) type,
                .acpi = TRUE,
                .disks = g_ptr_array_new_with_free_func(g_free),
                .controllers = g_ptr_array_new_with_free_func(g_free),
                .interfaces = g_ptr_array_new_with_free_func(g_free),
                .characters = g_ptr_array_new_with_free_func(g_free),
                .devices = g_ptr_array_new_with_free_func(g_free),
                .graphics = g_ptr_array_new_with_free_func(g_free),
        };
        machine->facts.emulator = "/usr/bin/qemu-system-x86_64";
        machine->chains = g_ptr_array_new_with_free_func((GDestroyNotify) g_ptr_array_unref);
        machine->texts = g_string_chunk_new(1024);
        return machine;
}

void machine_free(Machine *machine)
{
        g_ptr_array_unref(machine->definition.disks);
        g_ptr_array_unref(machine->definition.controllers);
        g_ptr_array_unref(machine->definition.interfaces);
        g_ptr_array_unref(machine->definition.characters);
        g_ptr_array_unref(machine->definition.devices);
        g_ptr_array_unref(machine->definition.graphics);
        g_ptr_array_unref(machine->chains);
        g_string_chunk_free(machine->texts);
        g_free(machine);
}

char *machine_text(Machine *machine, const char *format, ...)
{
        g_autofree char *text = NULL;
        va_list list;

        va_start(list, format);
        text = g_strdup_vprintf(format, list);
        va_end(list);
        return g_string_chunk_insert(machine->texts, text);
}

DefinitionDisk *machine_add_disk(Machine *machine, const char *target, DiskBus bus, const char *source)
{
        DefinitionDisk *disk = g_new0(DefinitionDisk, 1);

        disk->target = (char *) target;
        disk->bus = bus;
        g_ptr_array_add(machine->definition.disks, disk);
        g_ptr_array_add(machine->chains, g_ptr_array_new_with_free_func(g_free));
        if (source)
                machine_add_layer(machine, disk, source);
        return disk;
}

GPtrArray *machine_chain(const Machine *machine, const DefinitionDisk *disk)
{
        guint i;

        g_assert_true(g_ptr_array_find(machine->definition.disks, disk, &i));
        return machine->chains->pdata[i];
}

void machine_add_layer(Machine *machine, const DefinitionDisk *disk, const char *source)
{
        OpenImage *image = g_new0(OpenImage, 1);

        image->source = machine_text(machine, "%s", source);
        image->format = (char *) (g_str_has_suffix(source, ".qcow2") ? "qcow2" : "raw");
        g_ptr_array_add(machine_chain(machine, disk), image);
}

DefinitionController *machine_add_controller(Machine *machine, ControllerType type, guint index,
                                             const char *model)
{
        DefinitionController *controller = g_new0(DefinitionController, 1);

        controller->type = type;
        controller->index = index;
        controller->model = (char *) model;
        g_ptr_array_add(machine->definition.controllers, controller);
        return controller;
}

DefinitionInterface *machine_add_interface(Machine *machine, InterfaceType type, const char *model)
{
        DefinitionInterface *interface = g_new0(DefinitionInterface, 1);

        interface->type = type;
        interface->model = (char *) model;
        g_ptr_array_add(machine->definition.interfaces, interface);
        return interface;
}

DefinitionCharacter *machine_add_character(Machine *machine, CharacterType type, const char *backend,
                                           const char *target)
{
        DefinitionCharacter *character = g_new0(DefinitionCharacter, 1);

        character->type = type;
        character->backend = (char *) backend;
        character->target = (char *) target;
        g_ptr_array_add(machine->definition.characters, character);
        return character;
}

DefinitionDevice *machine_add_device(Machine *machine, DeviceType type, const char *model)
{
        DefinitionDevice *device = g_new0(DefinitionDevice, 1);

        device->type = type;
        device->model = (char *) model;
        g_ptr_array_add(machine->definition.devices, device);
        return device;
}

DefinitionGraphics *machine_add_graphics(Machine *machine, const char *listen, gint32 port)
{
        DefinitionGraphics *graphics = g_new0(DefinitionGraphics, 1);

        graphics->listen = (char *) listen;
        graphics->port = port;
        g_ptr_array_add(machine->definition.graphics, graphics);
        return graphics;
}

DefinitionAddress pci_address(guint bus, guint slot, guint function)
{
        return (DefinitionAddress){ .type = ADDRESS_PCI, .bus = bus, .slot = slot, .function = function };
}

DefinitionAddress drive_address(guint controller, guint bus, guint target, guint unit)
{
        return (DefinitionAddress){
                .type = ADDRESS_DRIVE, .controller = controller, .bus = bus, .target = target, .unit = unit
        };
}

DefinitionAddress port_address(guint controller, guint port)
{
        return (DefinitionAddress){ .type = ADDRESS_VIRTIO_SERIAL, .controller = controller, .port = port };
}

DefinitionAddress usb_address(guint bus, guint port)
{
        return (DefinitionAddress){ .type = ADDRESS_USB, .bus = bus, .port = port };
}

GStrv machine_command(const Machine *machine)
{
        g_autoptr(GError) error = NULL;
        LaunchFacts facts = machine->facts;
        GStrv command;

        facts.chains = (GPtrArray *const *) machine->chains->pdata;
        command = definition_command_line(&machine->definition, &facts, &error);
        g_assert_no_error(error);
        return command;
}

void machine_expect_refused(const Machine *machine, const char *message)
{
        g_autoptr(GError) error = NULL;
        LaunchFacts facts = machine->facts;

        facts.chains = (GPtrArray *const *) machine->chains->pdata;
        g_assert_null(definition_command_line(&machine->definition, &facts, &error));
        g_assert_error(error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED);
        g_assert_cmpstr(error->message, ==, message);
}
