/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/command-line.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"

#define MONITOR "bj-monitor"
#define FIRMWARE "bj-firmware"
#define VARIABLES "bj-variables"
#define SANDBOX "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

/* ---- the line ---- */

void line_add(CommandLine *line, const char *option, const char *format, ...)
{
        va_list list;

        va_start(list, format);
        g_ptr_array_add(line->words, g_strdup(option));
        g_ptr_array_add(line->words, g_strdup_vprintf(format, list));
        va_end(list);
}

static void add_flag(CommandLine *line, const char *option)
{
        g_ptr_array_add(line->words, g_strdup(option));
}

void line_add_json(CommandLine *line, const char *option, JsonObject *object)
{
        g_autofree char *text = json_text(object);

        line_add(line, option, "%s", text);
        json_object_unref(object);
}

void line_refuse(CommandLine *line, const char *format, ...)
{
        g_autofree char *text = NULL;
        va_list list;

        va_start(list, format);
        text = g_strdup_vprintf(format, list);
        va_end(list);
        if (!line->error)
                line->error = g_error_new_literal(BJ_ERROR, BJ_ERROR_NOT_SUPPORTED, text);
}

char *line_value(const char *text)
{
        g_autoptr(GString) value = g_string_new(text);

        g_string_replace(value, ",", ",,", 0);
        return g_strdup(value->str);
}

static void unref_object(gpointer object)
{
        json_object_unref(object);
}

static void line_init(CommandLine *line, const char *program)
{
        line->words = g_ptr_array_new_with_free_func(g_free);
        line->unplaced = g_ptr_array_new_with_free_func(unref_object);
        line->controllers = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        line->places = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        add_flag(line, program);
}

static GStrv line_end(CommandLine *line, GError **error)
{
        GStrv words = NULL;

        g_ptr_array_add(line->words, NULL);
        if (line->error) {
                g_propagate_error(error, line->error);
                g_ptr_array_unref(line->words);
        } else
                words = (GStrv) g_ptr_array_free(line->words, FALSE);
        g_ptr_array_unref(line->unplaced);
        g_hash_table_unref(line->controllers);
        g_hash_table_unref(line->places);
        return words;
}

/* ---- what it is booted from ---- */

/* As libvirt has it: the first of each kind. */
static gconstpointer first_of_kind(const Definition *definition, const char *kind)
{
        gboolean cdrom = strcmp(kind, "cdrom") == 0;

        if (strcmp(kind, "network") == 0)
                return definition->interfaces->len > 0 ? definition->interfaces->pdata[0] : NULL;
        for (guint i = 0; i < definition->disks->len; i++) {
                const DefinitionDisk *disk = definition->disks->pdata[i];

                if (disk->cdrom == cdrom)
                        return disk;
        }
        return NULL;
}

guint line_boot_index(const CommandLine *line, gconstpointer device, guint boot_order)
{
        GStrv boot = line->definition->boot;

        for (guint i = 0; boot && boot[i]; i++)
                if (first_of_kind(line->definition, boot[i]) == device)
                        return i + 1;
        return boot ? 0 : boot_order;
}

static gboolean has_boot_order(const Definition *definition)
{
        for (guint i = 0; i < definition->disks->len; i++)
                if (((DefinitionDisk *) definition->disks->pdata[i])->boot_order)
                        return TRUE;
        for (guint i = 0; i < definition->interfaces->len; i++)
                if (((DefinitionInterface *) definition->interfaces->pdata[i])->boot_order)
                        return TRUE;
        return definition->boot != NULL;
}

static void add_boot(CommandLine *line)
{
        const Definition *definition = line->definition;
        /* Nothing else than what is listed. */
        gboolean strict = has_boot_order(definition);

        if (strict || definition->boot_menu)
                line_add(line, "-boot", "%s%s%s", definition->boot_menu ? "menu=on" : "",
                         strict && definition->boot_menu ? "," : "", strict ? "strict=on" : "");
        if (definition->kernel)
                line_add(line, "-kernel", "%s", definition->kernel);
        if (definition->initrd)
                line_add(line, "-initrd", "%s", definition->initrd);
        if (definition->cmdline)
                line_add(line, "-append", "%s", definition->cmdline);
}

/* ---- the machine ---- */

static void add_flash(CommandLine *line, const char *path, const char *node, gboolean read_only)
{
        g_autofree char *file = g_strdup_printf("%s-file", node);

        line_add_json(line, "-blockdev",
                      json_make("s:driver", "file", "s:node-name", file, "s:filename", path,
                                "b:auto-read-only", TRUE, NULL));
        line_add_json(line, "-blockdev",
                      json_make("s:driver", "raw", "s:node-name", node, "s:file", file, "b:read-only",
                                read_only, NULL));
}

static void add_machine(CommandLine *line)
{
        const Definition *definition = line->definition;
        const char *type = definition->machine ? definition->machine : "pc";
        g_autofree char *value = line_value(type);
        g_autoptr(GString) text = g_string_new(value);

        line->is_q35 = strcmp(type, "q35") == 0 || g_str_has_prefix(type, "pc-q35-");
        if (g_strcmp0(definition->architecture, "x86_64") != 0)
                line_refuse(line, "architecture '%s' is not supported", definition->architecture);
        if (!line->is_q35 && strcmp(type, "pc") != 0 && !g_str_has_prefix(type, "pc-i440fx-"))
                line_refuse(line, "machine type '%s' is none of pc and q35", type);
        g_string_append_printf(text, ",accel=%s", definition->kvm ? "kvm" : "tcg");
        if (!definition->acpi)
                g_string_append(text, ",acpi=off");
        if (definition->vmport_off)
                g_string_append(text, ",vmport=off");
        if (definition->hpet_off)
                g_string_append(text, ",hpet=off");
        if (definition->smm_off)
                g_string_append(text, ",smm=off");
        if (definition->loader) {
                add_flash(line, definition->loader, FIRMWARE, definition->loader_read_only);
                g_string_append(text, ",pflash0=" FIRMWARE);
        }
        if (definition->nvram) {
                add_flash(line, definition->nvram, VARIABLES, FALSE);
                g_string_append(text, ",pflash1=" VARIABLES);
        }
        line_add(line, "-machine", "%s", text->str);
}

static void add_processors(CommandLine *line)
{
        const Definition *definition = line->definition;
        guint n = definition->vcpus;

        if (definition->cpu || definition->kvmclock_off)
                line_add(line, "-cpu", "%s%s", definition->cpu ? definition->cpu : "qemu64",
                         definition->kvmclock_off ? ",kvmclock=off" : "");
        if (definition->sockets == 0) {
                line_add(line, "-smp", "cpus=%u", n);
                return;
        }
        if ((guint64) definition->sockets * definition->cores * definition->threads != n)
                line_refuse(line, "%u processors are not %u sockets with %u cores of %u threads", n,
                            definition->sockets, definition->cores, definition->threads);
        line_add(line, "-smp", "cpus=%u,sockets=%u,cores=%u,threads=%u", n, definition->sockets,
                 definition->cores, definition->threads);
}

static void add_clock(CommandLine *line)
{
        const Definition *definition = line->definition;

        line_add(line, "-rtc", "base=%s%s", definition->local_time ? "localtime" : "utc",
                 definition->rtc_catchup ? ",driftfix=slew" : "");
        if (definition->pit_delay && definition->kvm) /* TCG's knows no other way */
                line_add(line, "-global", "kvm-pit.lost_tick_policy=delay");
}

static void add_power(CommandLine *line)
{
        const Definition *definition = line->definition;
        const char *chip = line->is_q35 ? "ICH9-LPC" : "PIIX4_PM";

        if (definition->no_s3)
                line_add(line, "-global", "%s.disable_s3=1", chip);
        if (definition->no_s4)
                line_add(line, "-global", "%s.disable_s4=1", chip);
        if (definition->reboot_ends)
                line_add(line, "-action", "reboot=shutdown");
        if (definition->crash_keeps)
                line_add(line, "-action", "panic=pause");
}

static void add_basics(CommandLine *line)
{
        const Definition *definition = line->definition;
        g_autofree char *name = line_value(definition->name);

        line_add(line, "-name", "guest=%s,debug-threads=on", name);
        line_add(line, "-uuid", "%s", definition->uuid);
        add_flag(line, "-S");
        add_flag(line, "-nodefaults");
        add_flag(line, "-no-user-config");
        line_add(line, "-display", "none");
        line_add(line, "-sandbox", SANDBOX);
        line_add(line, "-msg", "timestamp=off");
        line_add(line, "-m", "size=%" G_GUINT64_FORMAT "k", (definition->memory + 1023) / 1024);
        for (guint i = 1; i <= definition->iothreads; i++) {
                g_autofree char *id = g_strdup_printf("bj-iothread%u", i);
                line_add_json(line, "-object", json_make("s:qom-type", "iothread", "s:id", id, NULL));
        }
}

static void add_monitor(CommandLine *line, int fd, const char *prefix)
{
        g_autofree char *option = g_strconcat(prefix, "-chardev", NULL);

        line_add(line, option, "socket,id=" MONITOR ",fd=%d,server=on,wait=off", fd);
}

GStrv definition_command_line(const Definition *definition, const LaunchFacts *facts, GError **error)
{
        CommandLine line = { .definition = definition, .facts = facts };

        line_init(&line, facts->emulator);
        add_basics(&line);
        add_machine(&line);
        add_processors(&line);
        add_clock(&line);
        add_power(&line);
        add_boot(&line);
        add_monitor(&line, facts->monitor_fd, "");
        line_add(&line, "-mon", "chardev=" MONITOR ",mode=control");
        line_note_addresses(&line);
        line_add_controllers(&line);
        line_add_disks(&line);
        line_add_devices(&line);
        for (guint i = 0; i < line.unplaced->len; i++)
                line_add_json(&line, "-device", json_object_ref(line.unplaced->pdata[i]));
        return line_end(&line, error);
}

GStrv definition_storage_command_line(const DefinitionDisk *disk, const GPtrArray *chain,
                                      const char *program, int monitor_fd, const char *export_path,
                                      GError **error)
{
        g_autofree char *node = g_strdup_printf("%s-0", disk->target);
        CommandLine line = { 0 };

        line_init(&line, program);
        add_monitor(&line, monitor_fd, "-");
        line_add(&line, "--monitor", "chardev=" MONITOR);
        line_add_nodes(&line, "--blockdev", disk, chain);
        if (export_path) {
                line_add_json(
                        &line, "--nbd-server",
                        json_make("o:addr", json_make("s:type", "unix", "s:path", export_path, NULL), NULL));
                line_add_json(&line, "--export",
                              json_make("s:type", "nbd", "s:id", disk->target, "s:node-name", node, "s:name",
                                        disk->target, "b:writable", !disk->read_only && !disk->cdrom, NULL));
        }
        return line_end(&line, error);
}
