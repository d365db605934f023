/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/definition.h"

#include <string.h>

#include "domain/xml-read.h"

static void disk_free(gpointer data)
{
        DefinitionDisk *disk = data;

        g_free(disk->target);
        image_name_clear(&disk->image);
        g_clear_pointer(&disk->backing, g_ptr_array_unref);
        g_free(disk->cache);
        g_free(disk->io);
        g_free(disk->discard);
        g_free(disk->detect_zeroes);
        g_free(disk->error_policy);
        g_free(disk->read_error_policy);
        g_free(disk->serial);
        g_free(disk);
}

static void controller_free(gpointer data)
{
        DefinitionController *controller = data;

        g_free(controller->model);
        g_free(controller);
}

static void interface_free(gpointer data)
{
        DefinitionInterface *interface = data;

        g_free(interface->mac);
        g_free(interface->model);
        g_free(interface->bridge);
        g_free(interface->device);
        g_free(interface);
}

void definition_character_free(gpointer data)
{
        DefinitionCharacter *character = data;

        if (!character)
                return;
        g_free(character->backend);
        g_free(character->path);
        g_free(character->target);
        g_free(character->name);
        g_free(character);
}

static void device_free(gpointer data)
{
        DefinitionDevice *device = data;

        g_free(device->model);
        g_free(device->bus);
        g_free(device->backend);
        g_free(device);
}

static void graphics_free(gpointer data)
{
        DefinitionGraphics *graphics = data;

        g_free(graphics->listen);
        g_free(graphics->socket);
        g_free(graphics);
}

Definition *definition_new(void)
{
        Definition *definition = g_new0(Definition, 1);

        definition->disks = g_ptr_array_new_with_free_func(disk_free);
        definition->controllers = g_ptr_array_new_with_free_func(controller_free);
        definition->interfaces = g_ptr_array_new_with_free_func(interface_free);
        definition->characters = g_ptr_array_new_with_free_func(definition_character_free);
        definition->devices = g_ptr_array_new_with_free_func(device_free);
        definition->graphics = g_ptr_array_new_with_free_func(graphics_free);
        return definition;
}

void definition_free(Definition *definition)
{
        if (!definition)
                return;
        g_free(definition->name);
        g_free(definition->uuid);
        g_free(definition->cpu);
        g_free(definition->architecture);
        g_free(definition->machine);
        g_free(definition->emulator);
        g_free(definition->loader);
        g_free(definition->nvram);
        g_free(definition->nvram_template);
        g_free(definition->kernel);
        g_free(definition->initrd);
        g_free(definition->cmdline);
        g_strfreev(definition->boot);
        g_ptr_array_unref(definition->disks);
        g_ptr_array_unref(definition->controllers);
        g_ptr_array_unref(definition->interfaces);
        g_ptr_array_unref(definition->characters);
        g_ptr_array_unref(definition->devices);
        g_ptr_array_unref(definition->graphics);
        g_free(definition->xml);
        g_free(definition);
}

DefinitionDisk *definition_disk(const Definition *definition, const char *target)
{
        for (guint i = 0; i < definition->disks->len; i++) {
                DefinitionDisk *disk = definition->disks->pdata[i];

                if (strcmp(disk->target, target) == 0)
                        return disk;
        }
        return NULL;
}
