/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "images.h"
#include "machine.h"
#include "real-qemu.h"

/* Command lines, each tried with a real QEMU, whose monitor is its standard input. $QEMU is another one. */

#define BLOCK_SIZE "1M"
#define FIRMWARE_BYTES (1024 * 1024)

static char *qemu, *storage_daemon;

/* ---- a machine ---- */

static char *node_of(const Machine *machine, const DefinitionDisk *disk)
{
        if (machine_chain(machine, disk)->len == 0)
                return NULL;
        return g_strdup_printf("%s-%s", disk->target, disk->throttled ? "throttle" : "0");
}

static void expect_disks(const RealQemu *process, const Machine *machine)
{
        const GPtrArray *disks = machine->definition.disks;
        g_autoptr(JsonNode) devices = real_qemu_ask(process, "query-block", NULL);

        for (guint i = 0; i < disks->len; i++) {
                g_autofree char *path = definition_device_path(disks->pdata[i]);
                g_autofree char *node = node_of(machine, disks->pdata[i]);
                JsonObject *inserted = json_object(find_element(devices, "qdev", path), "inserted");

                g_assert_cmpstr(json_string(inserted, "node-name"), ==, node);
        }
}

static RealQemu start_machine(const Machine *machine)
{
        g_auto(GStrv) command = machine_command(machine);
        g_autoptr(JsonNode) status = NULL;
        RealQemu process = real_qemu_start(command);

        status = real_qemu_ask(&process, "query-status", NULL);
        g_assert_cmpstr(json_string(json_node_get_object(status), "status"), ==, "prelaunch");
        expect_disks(&process, machine);
        return process;
}

static void try(const Machine *machine)
{
        RealQemu process = start_machine(machine);

        real_qemu_end(&process);
}

static Machine *new_machine(const char *type)
{
        Machine *machine = machine_new(type);

        machine->facts.emulator = qemu;
        return machine;
}

/* ---- parts of a machine ---- */

static DefinitionDisk *add_disk(Machine *machine, const char *target, DiskBus bus)
{
        g_autofree char *name = g_strdup_printf("%s,%s.qcow2", target, target);
        g_autofree char *path = at(name);

        CREATE("qcow2", path, BLOCK_SIZE);
        return machine_add_disk(machine, target, bus, path);
}

static DefinitionDisk *add_cdrom(Machine *machine, const char *target, DiskBus bus)
{
        DefinitionDisk *disk = machine_add_disk(machine, target, bus, NULL);

        disk->cdrom = TRUE;
        return disk;
}

static void add_flash(Machine *machine)
{
        g_autofree char *code = at("code,1.fd"), *variables = at("variables.fd");
        g_autofree char *zeros = g_malloc0(FIRMWARE_BYTES);

        g_assert_true(g_file_set_contents(code, zeros, FIRMWARE_BYTES, NULL));
        g_assert_true(g_file_set_contents(variables, zeros, FIRMWARE_BYTES, NULL));
        machine->definition.loader = machine_text(machine, "%s", code);
        machine->definition.loader_read_only = TRUE;
        machine->definition.nvram = machine_text(machine, "%s", variables);
}

/* Serial lines and ports, one of each kind. */
static void add_characters(Machine *machine)
{
        g_autofree char *log = at("serial,1.log"), *socket = at("channel,1");
        DefinitionCharacter *file, *channel;

        machine_add_character(machine, CHARACTER_SERIAL, "pty", "isa-serial");
        machine_add_character(machine, CHARACTER_CONSOLE, "pty", "serial");
        file = machine_add_character(machine, CHARACTER_SERIAL, "file", NULL);
        file->path = machine_text(machine, "%s", log);
        file->port = 1;
        machine_add_character(machine, CHARACTER_SERIAL, "null", NULL)->port = 2;
        machine_add_character(machine, CHARACTER_CONSOLE, "pty", "virtio");
        channel = machine_add_character(machine, CHARACTER_CHANNEL, "unix", "virtio");
        channel->path = machine_text(machine, "%s", socket);
        channel->name = (char *) "org.qemu.guest_agent.0";
        machine_add_character(machine, CHARACTER_CHANNEL, "unix", "virtio")->name = (char *) "second";
}

static void add_devices(Machine *machine)
{
        g_autofree char *socket = at("vnc,1");
        DefinitionDevice *input;

        machine_add_device(machine, DEVICE_INPUT, "tablet")->bus = (char *) "usb";
        input = machine_add_device(machine, DEVICE_INPUT, "keyboard");
        input->bus = (char *) "virtio";
        machine_add_device(machine, DEVICE_INPUT, "mouse")->bus = (char *) "ps2";
        machine_add_device(machine, DEVICE_VIDEO, "vga")->vram = 16384;
        machine_add_device(machine, DEVICE_BALLOON, "virtio");
        machine_add_device(machine, DEVICE_RNG, "virtio")->rate_bytes = 1024;
        machine_add_device(machine, DEVICE_WATCHDOG, "i6300esb")->backend = (char *) "poweroff";
        machine_add_graphics(machine, "", -1);
        machine_add_graphics(machine, NULL, 0)->socket = machine_text(machine, "%s", socket);
}

/* All that a machine can have, wherever there is room. */
static Machine *full_machine(const char *type)
{
        Machine *machine = new_machine(type);
        Definition *definition = &machine->definition;
        gboolean is_q35 = strcmp(type, "q35") == 0;
        DefinitionDisk *disk;

        definition->iothreads = 2;
        definition->vcpus = 4;
        definition->sockets = definition->cores = 2;
        definition->threads = 1;
        definition->no_s3 = definition->no_s4 = TRUE;
        definition->kvmclock_off = definition->rtc_catchup = TRUE;
        definition->reboot_ends = definition->crash_keeps = TRUE;
        disk = add_disk(machine, "vda", DISK_BUS_VIRTIO);
        disk->iothread = 2;
        disk->boot_order = 1;
        disk->throttled = TRUE;
        disk->throttle = (DefinitionThrottle){
                .total_bytes = 1 << 20, .total_bytes_max = 2 << 20, .read_iops = 100, .write_iops = 200
        };
        disk->discard = (char *) "unmap";
        disk->detect_zeroes = (char *) "unmap";
        disk->error_policy = (char *) "enospace";
        disk->read_error_policy = (char *) "report";
        disk->serial = (char *) "1234";
        disk = add_disk(machine, "vdb", DISK_BUS_VIRTIO);
        disk->read_only = disk->throttled = TRUE;
        disk->throttle.total_iops = 10;
        add_disk(machine, "sda", DISK_BUS_SCSI)->serial = (char *) "a,b";
        add_cdrom(machine, "sdb", DISK_BUS_SCSI);
        add_disk(machine, "sdc", DISK_BUS_SATA)->cache = (char *) "writethrough";
        add_disk(machine, "sdd", DISK_BUS_USB)->cache = (char *) "unsafe";
        disk = add_disk(machine, "sde", DISK_BUS_USB);
        disk->cdrom = disk->throttled = TRUE;
        disk->throttle.read_bytes = 1 << 20;
        if (!is_q35) {
                add_disk(machine, "hda", DISK_BUS_IDE)->serial = (char *) "5678";
                add_cdrom(machine, "hdd", DISK_BUS_IDE);
        } else
                add_cdrom(machine, "sdf", DISK_BUS_SATA);
        machine_add_interface(machine, INTERFACE_USER, "virtio")->mac = (char *) "52:54:00:00:00:01";
        machine_add_interface(machine, INTERFACE_USER, "e1000");
        machine_add_interface(machine, INTERFACE_USER, is_q35 ? "e1000e" : "rtl8139")->boot_order = 2;
        add_characters(machine);
        add_devices(machine);
        return machine;
}

/* ---- what is tried ---- */

static void test_bare(gconstpointer type)
{
        g_autoptr(Machine) machine = new_machine(type);

        machine->definition.acpi = FALSE;
        machine->definition.local_time = machine->definition.boot_menu = TRUE;
        machine->definition.smm_off = machine->definition.vmport_off = machine->definition.hpet_off = TRUE;
        try(machine);
}

static void test_full(gconstpointer type)
{
        g_autoptr(Machine) machine = full_machine(type);
        RealQemu process = start_machine(machine);
        g_autoptr(JsonNode) status = NULL;

        /* Inside the sandbox. */
        real_qemu_tell(&process, "cont", NULL);
        status = real_qemu_ask(&process, "query-status", NULL);
        g_assert_cmpstr(json_string(json_node_get_object(status), "status"), ==, "running");
        real_qemu_end(&process);
}

static DefinitionController *add_controller_at(Machine *machine, ControllerType type, guint index,
                                               const char *model, DefinitionAddress address)
{
        DefinitionController *controller = machine_add_controller(machine, type, index, model);

        controller->address = address;
        return controller;
}

/* As `virsh dumpxml` has it of a machine that virt-install made. */
static void test_addresses_of_q35(void)
{
        static const ControllerType types[] = { CONTROLLER_USB, CONTROLLER_SCSI, CONTROLLER_VIRTIO_SERIAL };
        g_autoptr(Machine) machine = full_machine("q35");
        Definition *definition = &machine->definition;
        DefinitionController *controller;
        guint bus = 1;

        machine_add_controller(machine, CONTROLLER_PCI, 0, "pcie-root");
        machine_add_controller(machine, CONTROLLER_SATA, 0, NULL)->address = pci_address(0, 31, 2);
        for (guint i = 1; i <= 14; i++) {
                controller = add_controller_at(machine, CONTROLLER_PCI, i, "pcie-root-port",
                                               pci_address(0, i <= 8 ? 2 : 3, (i - 1) % 8));
                controller->chassis = i;
                controller->chassis_port = 0xf + i;
                controller->address.multifunction = i % 8 == 1;
        }
        /* The port that it is plugged into may be listed later. */
        g_ptr_array_insert(definition->controllers, 0,
                           g_memdup2(add_controller_at(machine, CONTROLLER_PCI, 16, "pcie-to-pci-bridge",
                                                       pci_address(14, 0, 0)),
                                     sizeof(DefinitionController)));
        g_ptr_array_remove_index(definition->controllers, definition->controllers->len - 1);
        for (guint i = 0; i < G_N_ELEMENTS(types); i++)
                add_controller_at(machine, types[i], 0, types[i] == CONTROLLER_USB ? "qemu-xhci" : NULL,
                                  pci_address(bus++, 0, 0))
                        ->ports = types[i] == CONTROLLER_SCSI ? 0 : 15;
        for (guint i = 0; i < definition->disks->len; i++) {
                DefinitionDisk *disk = definition->disks->pdata[i];

                switch (disk->bus) {
                case DISK_BUS_VIRTIO:
                        disk->address = pci_address(bus++, 0, 0);
                        break;
                case DISK_BUS_USB:
                        disk->address = usb_address(0, i);
                        break;
                case DISK_BUS_SCSI:
                        disk->address = drive_address(0, 0, i, 16383);
                        break;
                default:
                        disk->address = drive_address(0, 0, 0, i % 6);
                }
        }
        for (guint i = 0; i < definition->interfaces->len; i++)
                ((DefinitionInterface *) definition->interfaces->pdata[i])->address =
                        i == 1 ? pci_address(16, 1, 0) : pci_address(bus++, 0, 0);
        for (guint i = 4; i < definition->characters->len; i++)
                ((DefinitionCharacter *) definition->characters->pdata[i])->address =
                        port_address(0, definition->characters->len - i);
        ((DefinitionDevice *) definition->devices->pdata[0])->address = usb_address(0, 1);
        ((DefinitionDevice *) definition->devices->pdata[3])->address = pci_address(0, 1, 0);
        ((DefinitionDevice *) definition->devices->pdata[4])->address = pci_address(bus++, 0, 0);
        ((DefinitionDevice *) definition->devices->pdata[6])->address = pci_address(16, 2, 0);
        try(machine);
}

static void test_addresses_of_pc(void)
{
        g_autoptr(Machine) machine = full_machine("pc");
        Definition *definition = &machine->definition;
        guint slot = 3;

        machine_add_controller(machine, CONTROLLER_PCI, 0, "pci-root");
        machine_add_controller(machine, CONTROLLER_IDE, 0, NULL)->address = pci_address(0, 1, 1);
        add_controller_at(machine, CONTROLLER_USB, 0, "piix3-uhci", pci_address(0, 1, 2));
        add_controller_at(machine, CONTROLLER_PCI, 1, "pci-bridge", pci_address(0, slot++, 0));
        add_controller_at(machine, CONTROLLER_SATA, 0, NULL, pci_address(0, slot++, 0));
        add_controller_at(machine, CONTROLLER_SCSI, 0, "lsilogic", pci_address(1, 7, 0));
        machine_add_controller(machine, CONTROLLER_SCSI, 1, "virtio-scsi");
        add_controller_at(machine, CONTROLLER_USB, 1, "ich9-ehci1", pci_address(1, 8, 7));
        add_controller_at(machine, CONTROLLER_USB, 2, "nec-xhci", pci_address(0, slot++, 0));
        for (guint i = 0; i < definition->disks->len; i++) {
                DefinitionDisk *disk = definition->disks->pdata[i];

                switch (disk->bus) {
                case DISK_BUS_VIRTIO:
                        disk->address = pci_address(1, i + 1, 0);
                        break;
                case DISK_BUS_USB:
                        disk->address = usb_address(i % 2 + 1, 1);
                        break;
                case DISK_BUS_SCSI:
                        disk->address = disk->cdrom ? drive_address(1, 0, 3, 2) : drive_address(0, 0, 0, 5);
                        break;
                case DISK_BUS_IDE:
                        disk->address = disk->cdrom ? drive_address(0, 0, 0, 1) : drive_address(0, 1, 0, 0);
                        break;
                default:
                        disk->address = drive_address(0, 0, 0, 5);
                }
        }
        /* What has no address leaves it to those that have. */
        ((DefinitionDevice *) definition->devices->pdata[5])->address = pci_address(0, 2, 0);
        ((DefinitionDevice *) definition->devices->pdata[6])->address = pci_address(0, 9, 0);
        try(machine);
}

static void test_firmware(gconstpointer type)
{
        g_autoptr(Machine) machine = new_machine(type);

        add_flash(machine);
        try(machine);
}

static void test_kernel(void)
{
        g_autoptr(Machine) machine = new_machine("pc");
        g_autofree char *path = at("kernel,1");

        /* A boot sector that has no version, which QEMU takes to be a Linux from before 2.0. */
        char kernel[8192] = { 0 };
        memcpy(kernel + 510, "\x55\xaa", 2);
        g_assert_true(g_file_set_contents(path, kernel, sizeof(kernel), NULL));
        machine->definition.kernel = machine_text(machine, "%s", path);
        machine->definition.cmdline = (char *) "root=/dev/vda,ro \"a b\"";
        try(machine);
}

static void test_videos(gconstpointer type)
{
        static const char *const models[] = { "cirrus", "bochs", "virtio", "qxl" };
        g_autoptr(Machine) machine = new_machine(type);

        const char *const help[] = { qemu, "-device", "help", NULL };
        g_autofree char *known = NULL, *complaint = NULL;

        try_command(help, &known, &complaint);
        for (guint i = 0; i < G_N_ELEMENTS(models); i++) {
                /* It may have been built, or packaged, without. */
                if (i >= 2 && !strstr(known, i == 2 ? "\"virtio-gpu-pci\"" : "\"qxl\"")) {
                        g_test_message("this QEMU has no %s", models[i]);
                        continue;
                }
                machine_add_device(machine, DEVICE_VIDEO, models[i])->vram = i == 0 ? 0 : 16384;
                if (i == 0)
                        continue; /* the first one, beside each of the others */
                try(machine);
                g_ptr_array_set_size(machine->definition.devices, 1);
        }
}

static void test_watchdogs(void)
{
        g_autoptr(Machine) pc = new_machine("pc"), q35 = new_machine("q35");

        machine_add_device(pc, DEVICE_WATCHDOG, "ib700")->backend = (char *) "inject-nmi";
        try(pc);
        machine_add_device(q35, DEVICE_WATCHDOG, "itco")->backend = (char *) "none";
        machine_add_device(q35, DEVICE_BALLOON, "none");
        machine_add_graphics(q35, "127.0.0.1", -1);
        try(q35);
}

static gboolean has_direct_io(void)
{
        g_autofree char *path = at("direct");
        int fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);

        if (fd >= 0)
                close(fd);
        return fd >= 0;
}

static void test_caches(void)
{
        static const struct {
                const char *target, *cache, *io;
        } cases[] = {
                { "vda", "writeback", "threads" }, { "vdb", "writethrough", NULL },
                { "vdc", "unsafe", NULL },         { "vdd", "none", "native" },
                { "vde", "directsync", NULL },
        };
        g_autoptr(Machine) machine = new_machine("pc");
        g_autoptr(JsonNode) devices = NULL;
        gboolean can_direct = has_direct_io();
        RealQemu process;

        for (guint i = 0; i < (can_direct ? G_N_ELEMENTS(cases) : 3); i++) {
                DefinitionDisk *disk = add_disk(machine, cases[i].target, DISK_BUS_VIRTIO);

                disk->cache = (char *) cases[i].cache;
                disk->io = (char *) cases[i].io;
        }
        process = start_machine(machine);
        devices = real_qemu_ask(&process, "query-block", NULL);
        for (guint i = 0; i < machine->definition.disks->len; i++) {
                g_autofree char *path = definition_device_path(machine->definition.disks->pdata[i]);
                JsonObject *cache =
                        json_object(json_object(find_element(devices, "qdev", path), "inserted"), "cache");

                g_assert_cmpint(json_boolean(cache, "writeback"), ==, i != 1 && i != 4);
                g_assert_cmpint(json_boolean(cache, "direct"), ==, i >= 3);
                g_assert_cmpint(json_boolean(cache, "no-flush"), ==, i == 2);
        }
        real_qemu_end(&process);
}

/* Two machines may share what neither of them has for itself. */
static void test_shareable(void)
{
        g_autoptr(Machine) machine = new_machine("pc");
        g_autofree char *path = at("shared.img");

        CREATE("raw", path, BLOCK_SIZE);
        machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, path)->shareable = TRUE;
        machine_add_disk(machine, "vdb", DISK_BUS_VIRTIO, path)->shareable = TRUE;
        machine_add_disk(machine, "sda", DISK_BUS_SCSI, path)->shareable = TRUE;
        try(machine);
}

/* ---- chains ---- */

static DefinitionDisk *add_chain(Machine *machine)
{
        g_autofree char *base = at("base.img"), *middle = at("middle.qcow2"), *top = at("top.qcow2");
        DefinitionDisk *disk;

        CREATE("raw", base, BLOCK_SIZE);
        CREATE("qcow2", "-b", base, "-F", "raw", middle);
        /* What stands in a header is not looked at. */
        CREATE("qcow2", "-u", "-b", "/gone", "-F", "raw", top, BLOCK_SIZE);
        RUN("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", middle);
        disk = machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, top);
        machine_add_layer(machine, disk, middle);
        machine_add_layer(machine, disk, base);
        return disk;
}

static void expect_chain(const RealQemu *process, gboolean top_is_read_only)
{
        static const char *const names[] = { "vda-0", "vda-1", "vda-2" };
        g_autoptr(JsonNode) nodes =
                real_qemu_ask(process, "query-named-block-nodes", json_make("b:flat", TRUE, NULL));

        for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
                g_autofree char *file = g_strdup_printf("%s-file", names[i]);

                g_assert_cmpint(json_boolean(find_element(nodes, "node-name", names[i]), "ro"), ==,
                                i > 0 || top_is_read_only);
                find_element(nodes, "node-name", file);
        }
}

/* Which needs a base that can become writable. */
static void commit_middle(const RealQemu *process)
{
        g_autofree char *base = at("base.img");

        real_qemu_tell(process, "block-commit",
                       json_make("s:job-id", "j", "s:device", "vda-0", "s:top-node", "vda-1", "s:base-node",
                                 "vda-2", "s:backing-file", base, NULL));
        g_assert_null(strstr(real_qemu_wait_for_event(process, "BLOCK_JOB_COMPLETED"), "error"));
}

static void expect_committed(void)
{
        RUN("qemu-io", "-f", "raw", "-c", "read -P 7 0 64k", "base.img");
}

static void test_chain(void)
{
        g_autoptr(Machine) machine = new_machine("pc");
        RealQemu process;

        add_chain(machine);
        process = start_machine(machine);
        expect_chain(&process, FALSE);
        commit_middle(&process);
        real_qemu_end(&process);
        expect_committed();
}

static RealQemu start_storage_daemon(const Machine *machine, const DefinitionDisk *disk, const char *export)
{
        g_autoptr(GError) error = NULL;
        g_auto(GStrv) command = definition_storage_command_line(disk, machine_chain(machine, disk),
                                                                storage_daemon, 0, export, &error);

        g_assert_no_error(error);
        return real_qemu_start(command);
}

static void test_storage_daemon(void)
{
        g_autoptr(Machine) machine = new_machine("pc");
        DefinitionDisk *disk = add_chain(machine);
        g_autofree char *export = at("export,1"), *overlay = at("top.qcow2");
        g_autofree char *uri = g_strdup_printf("nbd+unix:///vda?socket=%s", export);
        g_autofree char *output = NULL;
        g_autoptr(JsonNode) exports = NULL;
        RealQemu process = start_storage_daemon(machine, disk, export);

        expect_chain(&process, FALSE);
        exports = real_qemu_ask(&process, "query-block-exports", NULL);
        g_assert_cmpstr(json_string(find_element(exports, "id", "vda"), "node-name"), ==, "vda-0");
        RUN("qemu-io", "-f", "raw", "-c", "read -P 7 0 64k", "-c", "write -P 9 128k 64k", uri);
        commit_middle(&process);
        real_qemu_end(&process);
        expect_committed();
        output = run("qemu-img", "map", "-U", "--output=json", overlay, NULL);
        g_assert_nonnull(strstr(output, "\"start\": 131072, \"length\": 65536, \"depth\": 0"));
}

static void test_storage_daemon_read_only(void)
{
        g_autoptr(Machine) machine = new_machine("pc");
        DefinitionDisk *disk = add_chain(machine);
        g_autofree char *export = at("export");
        RealQemu process;

        disk->read_only = disk->throttled = TRUE;
        process = start_storage_daemon(machine, disk, export);
        expect_chain(&process, TRUE);
        real_qemu_end(&process);
        process = start_storage_daemon(machine, disk, NULL);
        expect_chain(&process, TRUE);
        real_qemu_end(&process);
}

int main(int argc, char **argv)
{
        int result;

        g_test_init(&argc, &argv, NULL);
        qemu = g_getenv("QEMU") ? g_strdup(g_getenv("QEMU")) : g_find_program_in_path("qemu-system-x86_64");
        storage_daemon = g_find_program_in_path("qemu-storage-daemon");
        g_assert_true(qemu && storage_daemon);
        images_set_up();
        for (guint i = 0; i < 2; i++) {
                static const char *const types[] = { "pc", "q35" };
                static const struct {
                        const char *name;
                        GTestDataFunc function;
                } tests[] = { { "bare", test_bare },
                              { "full", test_full },
                              { "firmware", test_firmware },
                              { "videos", test_videos } };

                for (guint j = 0; j < G_N_ELEMENTS(tests); j++) {
                        g_autofree char *path =
                                g_strdup_printf("/command-line-qemu/%s/%s", types[i], tests[j].name);
                        g_test_add_data_func(path, types[i], tests[j].function);
                }
        }
        g_test_add_func("/command-line-qemu/pc/addresses", test_addresses_of_pc);
        g_test_add_func("/command-line-qemu/q35/addresses", test_addresses_of_q35);
        g_test_add_func("/command-line-qemu/kernel", test_kernel);
        g_test_add_func("/command-line-qemu/watchdogs", test_watchdogs);
        g_test_add_func("/command-line-qemu/caches", test_caches);
        g_test_add_func("/command-line-qemu/shareable", test_shareable);
        g_test_add_func("/command-line-qemu/chain", test_chain);
        g_test_add_func("/command-line-qemu/storage-daemon", test_storage_daemon);
        g_test_add_func("/command-line-qemu/storage-daemon/read-only", test_storage_daemon_read_only);
        result = g_test_run();
        images_tear_down();
        g_free(qemu);
        g_free(storage_daemon);
        return result;
}
