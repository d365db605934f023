/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "base/error.h"
#include "machine.h"

/* The words that are made of a definition. What is refused is in test-command-line-refused.c; whether QEMU
 * takes the rest is tried in test-command-line-qemu.c. */

/* ---- looking at them ---- */

static gboolean has(char *const *command, const char *option, const char *value)
{
        for (guint i = 0; command[i]; i++)
                if (strcmp(command[i], option) == 0 &&
                    (!value || (command[i + 1] && strcmp(command[i + 1], value) == 0)))
                        return TRUE;
        return FALSE;
}

static guint count(char *const *command, const char *part)
{
        guint n = 0;

        for (guint i = 0; command[i]; i++)
                n += strstr(command[i], part) != NULL;
        return n;
}

static void show(char *const *command)
{
        for (guint i = 0; command[i]; i++)
                g_test_message("%s", command[i]);
}

static void expect(const Machine *machine, const char *option, const char *value)
{
        g_auto(GStrv) command = machine_command(machine);

        if (has(command, option, value))
                return;
        show(command);
        g_error("no %s %s", option, value);
}

static void expect_without(const Machine *machine, const char *option, const char *value)
{
        g_auto(GStrv) command = machine_command(machine);

        g_assert_false(has(command, option, value));
}

static void expect_words(char *const *command, const char *words)
{
        g_autofree char *text = g_strjoinv(" ", (GStrv) command);

        g_assert_cmpstr(text, ==, words);
}

#define DEVICE(text) expect(machine, "-device", "{" text "}")
#define NODE(text) expect(machine, "-blockdev", "{" text "}")
#define CACHE "\"cache\":{\"direct\":false,\"no-flush\":false}"

/* ---- the machine ---- */

static void test_bare(void)
{
        g_autoptr(Machine) machine = machine_new(NULL);
        g_auto(GStrv) command = NULL;

        machine->facts.monitor_fd = 3;
        command = machine_command(machine);
        expect_words(
                command,
                "/usr/bin/qemu-system-x86_64 -name guest=mail,debug-threads=on"
                " -uuid 1f0c4cb4-3d3a-4a55-9f0e-2f6d9a1c7b10 -S -nodefaults -no-user-config -display none"
                " -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
                " -msg timestamp=off -m size=65536k -machine pc,accel=tcg -smp cpus=1 -rtc base=utc"
                " -chardev socket,id=bj-monitor,fd=3,server=on,wait=off"
                " -mon chardev=bj-monitor,mode=control");
}

static void test_machine(void)
{
        g_autoptr(Machine) machine = machine_new("pc-q35-7.2");
        Definition *definition = &machine->definition;

        definition->memory = (1 << 20) + 1;
        definition->kvm = TRUE;
        definition->acpi = FALSE;
        definition->vmport_off = definition->hpet_off = definition->smm_off = TRUE;
        definition->cpu = (char *) "host,-svm";
        definition->vcpus = 8;
        definition->sockets = definition->cores = definition->threads = 2;
        definition->local_time = definition->rtc_catchup = definition->pit_delay = TRUE;
        definition->kvmclock_off = definition->no_s3 = definition->no_s4 = TRUE;
        definition->reboot_ends = definition->crash_keeps = TRUE;
        definition->iothreads = 2;
        expect(machine, "-m", "size=1025k");
        expect(machine, "-machine", "pc-q35-7.2,accel=kvm,acpi=off,vmport=off,hpet=off,smm=off");
        expect(machine, "-cpu", "host,-svm,kvmclock=off");
        expect(machine, "-smp", "cpus=8,sockets=2,cores=2,threads=2");
        expect(machine, "-rtc", "base=localtime,driftfix=slew");
        expect(machine, "-global", "kvm-pit.lost_tick_policy=delay");
        expect(machine, "-global", "ICH9-LPC.disable_s3=1");
        expect(machine, "-global", "ICH9-LPC.disable_s4=1");
        expect(machine, "-action", "reboot=shutdown");
        expect(machine, "-action", "panic=pause");
        expect(machine, "-object", "{\"qom-type\":\"iothread\",\"id\":\"bj-iothread1\"}");
        expect(machine, "-object", "{\"qom-type\":\"iothread\",\"id\":\"bj-iothread2\"}");
        definition->machine = (char *) "pc-i440fx-7.2";
        definition->kvm = FALSE;
        definition->cpu = NULL;
        expect(machine, "-cpu", "qemu64,kvmclock=off");
        expect(machine, "-global", "PIIX4_PM.disable_s3=1");
        expect_without(machine, "-global", "kvm-pit.lost_tick_policy=delay");
}

static void test_firmware(void)
{
        g_autoptr(Machine) machine = machine_new("pc");

        machine->definition.loader = (char *) "/code,1";
        expect(machine, "-machine", "pc,accel=tcg,pflash0=bj-firmware");
        NODE("\"driver\":\"raw\",\"node-name\":\"bj-firmware\",\"file\":\"bj-firmware-file\","
             "\"read-only\":false");
        machine->definition.loader_read_only = TRUE;
        machine->definition.nvram = (char *) "/variables";
        expect(machine, "-machine", "pc,accel=tcg,pflash0=bj-firmware,pflash1=bj-variables");
        NODE("\"driver\":\"file\",\"node-name\":\"bj-firmware-file\",\"filename\":\"/code,1\","
             "\"auto-read-only\":true");
        NODE("\"driver\":\"raw\",\"node-name\":\"bj-firmware\",\"file\":\"bj-firmware-file\","
             "\"read-only\":true");
        NODE("\"driver\":\"raw\",\"node-name\":\"bj-variables\",\"file\":\"bj-variables-file\","
             "\"read-only\":false");
}

static void test_boot(void)
{
        static char *const order[] = { (char *) "network", (char *) "cdrom", (char *) "hd", NULL };
        g_autoptr(Machine) machine = machine_new("pc");
        Definition *definition = &machine->definition;

        expect_without(machine, "-boot", NULL);
        definition->boot_menu = TRUE;
        expect(machine, "-boot", "menu=on");
        machine_add_disk(machine, "hda", DISK_BUS_IDE, NULL)->cdrom = TRUE;
        machine_add_disk(machine, "hdb", DISK_BUS_IDE, "/b");
        machine_add_disk(machine, "hdc", DISK_BUS_IDE, "/c")->boot_order = 3;
        machine_add_interface(machine, INTERFACE_USER, "virtio")->boot_order = 1;
        machine_add_interface(machine, INTERFACE_USER, "virtio");
        expect(machine, "-boot", "menu=on,strict=on");
        DEVICE("\"driver\":\"ide-hd\",\"id\":\"hdc\",\"drive\":\"hdc-0\",\"bootindex\":3,\"bus\":\"ide.1\","
               "\"unit\":0");
        DEVICE("\"driver\":\"virtio-net-pci\",\"id\":\"bj-net0-device\",\"netdev\":\"bj-net0\","
               "\"bootindex\":1,"
               "\"bus\":\"pci.0\",\"addr\":\"0x2\"");
        definition->boot = (GStrv) order;
        definition->boot_menu = FALSE;
        definition->kernel = (char *) "/kernel,1";
        definition->initrd = (char *) "/initrd,1";
        definition->cmdline = (char *) "root=/dev/vda,rw";
        expect(machine, "-boot", "strict=on");
        expect(machine, "-kernel", "/kernel,1");
        expect(machine, "-initrd", "/initrd,1");
        expect(machine, "-append", "root=/dev/vda,rw");
        DEVICE("\"driver\":\"ide-cd\",\"id\":\"hda\",\"bootindex\":2,\"bus\":\"ide.0\",\"unit\":0");
        DEVICE("\"driver\":\"ide-hd\",\"id\":\"hdb\",\"drive\":\"hdb-0\",\"bootindex\":3,\"bus\":\"ide.0\","
               "\"unit\":1");
        DEVICE("\"driver\":\"ide-hd\",\"id\":\"hdc\",\"drive\":\"hdc-0\",\"bus\":\"ide.1\",\"unit\":0");
        DEVICE("\"driver\":\"virtio-net-pci\",\"id\":\"bj-net1-device\",\"netdev\":\"bj-net1\",\"bus\":"
               "\"pci.0\","
               "\"addr\":\"0x3\"");
}

/* ---- disks ---- */

static guint index_of(char *const *command, const char *part)
{
        for (guint i = 0; command[i]; i++)
                if (strstr(command[i], part))
                        return i;
        g_error("no %s", part);
}

static void test_nodes(void)
{
        g_autoptr(Machine) machine = machine_new("pc");
        DefinitionDisk *disk = machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, "/a \"1\".qcow2");
        g_auto(GStrv) command = NULL;

        machine_add_layer(machine, disk, "nbd://host/export.qcow2");
        machine_add_layer(machine, disk, "/dev/sdx");
        ((OpenImage *) machine_chain(machine, disk)->pdata[2])->is_block = TRUE;
        NODE("\"driver\":\"host_device\",\"filename\":\"/dev/sdx\",\"node-name\":\"vda-2-file\","
             "\"auto-read-only\":true," CACHE);
        NODE("\"driver\":\"raw\",\"node-name\":\"vda-2\",\"file\":\"vda-2-file\",\"read-only\":true," CACHE);
        NODE("\"driver\":\"nbd\",\"server\":{\"type\":\"inet\",\"host\":\"host\",\"port\":\"10809\"},"
             "\"export\":\"export.qcow2\",\"node-name\":\"vda-1-file\",\"auto-read-only\":true," CACHE);
        NODE("\"driver\":\"qcow2\",\"node-name\":\"vda-1\",\"file\":\"vda-1-file\",\"read-only\":true,"
             "\"backing\":\"vda-2\"," CACHE);
        NODE("\"driver\":\"file\",\"filename\":\"/a \\\"1\\\".qcow2\",\"node-name\":\"vda-0-file\","
             "\"auto-read-only\":true," CACHE);
        NODE("\"driver\":\"qcow2\",\"node-name\":\"vda-0\",\"file\":\"vda-0-file\",\"read-only\":false,"
             "\"backing\":\"vda-1\"," CACHE);
        DEVICE("\"driver\":\"virtio-blk-pci\",\"id\":\"vda\",\"drive\":\"vda-0\",\"bus\":\"pci.0\",\"addr\":"
               "\"0x2\"");
        command = machine_command(machine);
        g_assert_cmpuint(index_of(command, "\"vda-2\""), <, index_of(command, "\"vda-1\""));
        g_assert_cmpuint(index_of(command, "\"vda-1\""), <, index_of(command, "\"vda-0\""));
        g_assert_cmpuint(index_of(command, "\"vda-0\""), <, index_of(command, "virtio-blk-pci"));
}

#define DIRECT "\"cache\":{\"direct\":true,\"no-flush\":false}"

static void test_disk_options(void)
{
        g_autoptr(Machine) machine = machine_new("q35");
        DefinitionDisk *disk = machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, "/a.qcow2");

        machine->definition.iothreads = 1;
        disk->iothread = 1;
        disk->read_only = disk->shareable = TRUE;
        disk->cache = (char *) "directsync";
        disk->io = (char *) "io_uring";
        disk->discard = disk->detect_zeroes = (char *) "unmap";
        disk->error_policy = (char *) "enospace";
        disk->read_error_policy = (char *) "ignore";
        disk->serial = (char *) "S 1";
        disk->throttled = TRUE;
        disk->throttle = (DefinitionThrottle){ 1, 0, 0, 0, 5, 6, 7, 0, 0, 0, 11, G_MAXINT64 };
        disk->address = pci_address(0, 30, 7);
        disk->address.multifunction = TRUE;
        NODE("\"driver\":\"file\",\"filename\":\"/"
             "a.qcow2\",\"aio\":\"io_uring\",\"node-name\":\"vda-0-file\","
             "\"auto-read-only\":true," DIRECT ",\"discard\":\"unmap\"");
        NODE("\"driver\":\"qcow2\",\"node-name\":\"vda-0\",\"file\":\"vda-0-file\",\"read-only\":true,"
             "\"detect-zeroes\":\"unmap\",\"backing\":null," DIRECT ",\"discard\":\"unmap\"");
        expect(machine, "-object",
               "{\"qom-type\":\"throttle-group\",\"id\":\"throttle-vda\",\"limits\":{\"bps-total\":1,"
               "\"iops-read\":5,\"iops-write\":6,\"bps-total-max\":7,\"iops-read-max\":11,"
               "\"iops-write-max\":9223372036854775807}}");
        NODE("\"driver\":\"throttle\",\"node-name\":\"vda-throttle\",\"throttle-group\":\"throttle-vda\","
             "\"file\":\"vda-0\",\"read-only\":true," DIRECT ",\"discard\":\"unmap\"");
        DEVICE("\"driver\":\"virtio-blk-pci\",\"id\":\"vda\",\"drive\":\"vda-throttle\",\"serial\":\"S 1\","
               "\"werror\":\"enospc\",\"rerror\":\"ignore\",\"write-cache\":\"off\",\"share-rw\":true,"
               "\"iothread\":\"bj-iothread1\",\"bus\":\"pcie.0\",\"addr\":\"0x1e.0x7\",\"multifunction\":"
               "true");
}

static void test_disk_buses(void)
{
        g_autoptr(Machine) machine = machine_new("pc");
        g_autoptr(Machine) q35 = machine_new("q35");

        machine_add_disk(machine, "sda", DISK_BUS_SCSI, "/a");
        machine_add_disk(machine, "sdb", DISK_BUS_SCSI, NULL)->cdrom = TRUE;
        machine_add_disk(machine, "sdc", DISK_BUS_SATA, "/c");
        machine_add_disk(machine, "sdd", DISK_BUS_USB, "/d");
        machine_add_disk(machine, "sde", DISK_BUS_USB, "/e")->cdrom = TRUE;
        DEVICE("\"driver\":\"virtio-scsi-pci\",\"id\":\"scsi0\",\"bus\":\"pci.0\",\"addr\":\"0x2\"");
        DEVICE("\"driver\":\"scsi-hd\",\"id\":\"sda\",\"drive\":\"sda-0\",\"bus\":\"scsi0.0\",\"scsi-id\":0,"
               "\"lun\":0,\"device_id\":\"sda\"");
        DEVICE("\"driver\":\"scsi-cd\",\"id\":\"sdb\",\"bus\":\"scsi0.0\",\"scsi-id\":0,\"lun\":1,"
               "\"device_id\":\"sdb\"");
        DEVICE("\"driver\":\"ich9-ahci\",\"id\":\"sata0\",\"bus\":\"pci.0\",\"addr\":\"0x3\"");
        DEVICE("\"driver\":\"ide-hd\",\"id\":\"sdc\",\"drive\":\"sdc-0\",\"bus\":\"sata0.2\",\"unit\":0");
        DEVICE("\"driver\":\"qemu-xhci\",\"id\":\"usb0\",\"bus\":\"pci.0\",\"addr\":\"0x4\"");
        DEVICE("\"driver\":\"usb-storage\",\"id\":\"sdd\",\"drive\":\"sdd-0\"");
        DEVICE("\"driver\":\"usb-bot\",\"id\":\"bj-usb-sde\"");
        DEVICE("\"driver\":\"scsi-cd\",\"id\":\"sde\",\"drive\":\"sde-0\",\"bus\":\"bj-usb-sde.0\",\"scsi-"
               "id\":0,"
               "\"lun\":0");
        machine_add_disk(q35, "sda", DISK_BUS_SATA, NULL)->cdrom = TRUE;
        expect(q35, "-device", "{\"driver\":\"ide-cd\",\"id\":\"sda\",\"bus\":\"ide.0\",\"unit\":0}");
        machine_add_disk(q35, "sdb", DISK_BUS_SATA, "/b")->address = drive_address(1, 0, 0, 5);
        expect(q35, "-device",
               "{\"driver\":\"ich9-ahci\",\"id\":\"sata1\",\"bus\":\"pcie.0\",\"addr\":\"0x1\"}");
        expect(q35, "-device",
               "{\"driver\":\"ide-hd\",\"id\":\"sdb\",\"drive\":\"sdb-0\",\"bus\":\"sata1.5\",\"unit\":0}");
}

static void test_device_paths(void)
{
        static const struct {
                DiskBus bus;
                gboolean cdrom;
                const char *path;
        } cases[] = {
                { DISK_BUS_VIRTIO, FALSE, "/machine/peripheral/sda/virtio-backend" },
                { DISK_BUS_SCSI, FALSE, "sda" },
                { DISK_BUS_SCSI, TRUE, "sda" },
                { DISK_BUS_SATA, FALSE, "sda" },
                { DISK_BUS_IDE, TRUE, "sda" },
                { DISK_BUS_USB, FALSE, "/machine/peripheral/sda/sda.0/legacy[0]" },
                { DISK_BUS_USB, TRUE, "sda" },
        };

        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                DefinitionDisk disk = { .target = (char *) "sda",
                                        .bus = cases[i].bus,
                                        .cdrom = cases[i].cdrom };
                g_autofree char *path = definition_device_path(&disk);

                g_assert_cmpstr(path, ==, cases[i].path);
        }
}

/* ---- places ---- */

static void test_slots(void)
{
        static char names[32][4];
        g_autoptr(Machine) machine = machine_new("q35");
        g_auto(GStrv) command = NULL;

        for (guint i = 0; i < G_N_ELEMENTS(names); i++)
                memcpy(names[i], (char[]){ i < 26 ? 'v' : 's', 'd', (char) ('a' + i % 26), '\0' }, 4);
        for (guint i = 0; i < 30; i++)
                machine_add_disk(machine, names[i], DISK_BUS_VIRTIO, "/a")->address =
                        i % 2 == 0 ? pci_address(0, 30 - i, 0) : (DefinitionAddress){ 0 };
        command = machine_command(machine);
        for (guint slot = 1; slot < 31; slot++) {
                g_autofree char *whole = g_strdup_printf("\"addr\":\"0x%x\"", slot);
                g_autofree char *part = g_strdup_printf("\"addr\":\"0x%x.0x0\"", slot);

                g_assert_cmpuint(count(command, slot % 2 == 1 ? whole : part), ==, 1);
        }
        machine_add_disk(machine, names[30], DISK_BUS_VIRTIO, "/a");
        machine_expect_refused(
                machine, "disk 'sde': there is no room left on the PCI root bus, an address on another is "
                         "needed");
        machine_add_controller(machine, CONTROLLER_PCI, 1, "pci-bridge")->address = pci_address(0, 30, 1);
        ((DefinitionDisk *) machine->definition.disks->pdata[30])->address = pci_address(1, 1, 0);
        DEVICE("\"driver\":\"pci-bridge\",\"id\":\"pci.1\",\"chassis_nr\":1,\"bus\":\"pcie.0\",\"addr\":"
               "\"0x1e.0x1\"");
        DEVICE("\"driver\":\"virtio-blk-pci\",\"id\":\"sde\",\"drive\":\"sde-0\",\"bus\":\"pci.1\",\"addr\":"
               "\"0x1.0x0\"");
}

static void test_drive_places(void)
{
        g_autoptr(Machine) machine = machine_new("pc");

        machine_add_disk(machine, "hdd", DISK_BUS_IDE, "/1");
        machine_add_disk(machine, "hdzz", DISK_BUS_IDE, "/2");
        machine_add_disk(machine, "hdb", DISK_BUS_IDE, "/3")->address = drive_address(0, 0, 0, 0);
        machine_add_disk(machine, "sdi", DISK_BUS_SCSI, "/4");
        machine_add_disk(machine, "xvdc", DISK_BUS_SATA, "/5");
        machine_add_disk(machine, "sdaa", DISK_BUS_SATA, "/6");
        machine_add_controller(machine, CONTROLLER_SCSI, 2, "lsilogic");
        machine_add_disk(machine, "sdb", DISK_BUS_SCSI, "/7")->address = drive_address(2, 0, 0, 5);
        machine_add_disk(machine, "sdc", DISK_BUS_SCSI, "/8")->address = drive_address(0, 0, 4, 3);
        DEVICE("\"driver\":\"ide-hd\",\"id\":\"hdd\",\"drive\":\"hdd-0\",\"bus\":\"ide.1\",\"unit\":1");
        DEVICE("\"driver\":\"ide-hd\",\"id\":\"hdzz\",\"drive\":\"hdzz-0\",\"bus\":\"ide.0\",\"unit\":1");
        DEVICE("\"driver\":\"ide-hd\",\"id\":\"hdb\",\"drive\":\"hdb-0\",\"bus\":\"ide.0\",\"unit\":0");
        DEVICE("\"driver\":\"scsi-hd\",\"id\":\"sdi\",\"drive\":\"sdi-0\",\"bus\":\"scsi1.0\",\"scsi-id\":0,"
               "\"lun\":1,\"device_id\":\"sdi\"");
        DEVICE("\"driver\":\"ide-hd\",\"id\":\"xvdc\",\"drive\":\"xvdc-0\",\"bus\":\"sata0.2\",\"unit\":0");
        DEVICE("\"driver\":\"ide-hd\",\"id\":\"sdaa\",\"drive\":\"sdaa-0\",\"bus\":\"sata4.2\",\"unit\":0");
        DEVICE("\"driver\":\"scsi-hd\",\"id\":\"sdb\",\"drive\":\"sdb-0\",\"bus\":\"scsi2.0\",\"scsi-id\":5,"
               "\"lun\":0,\"device_id\":\"sdb\"");
        DEVICE("\"driver\":\"scsi-hd\",\"id\":\"sdc\",\"drive\":\"sdc-0\",\"bus\":\"scsi0.0\",\"scsi-id\":4,"
               "\"lun\":3,\"device_id\":\"sdc\"");
}

static void test_controllers(void)
{
        g_autoptr(Machine) machine = machine_new("q35");
        DefinitionController *controller;
        g_auto(GStrv) command = NULL;

        machine_add_controller(machine, CONTROLLER_PCI, 2, "pcie-to-pci-bridge")->address =
                pci_address(1, 0, 0);
        controller = machine_add_controller(machine, CONTROLLER_PCI, 1, NULL);
        controller->chassis = 7;
        controller->chassis_port = 16;
        machine_add_controller(machine, CONTROLLER_PCI, 0, "pcie-root");
        machine_add_controller(machine, CONTROLLER_SATA, 0, NULL)->address = pci_address(0, 31, 2);
        machine_add_controller(machine, CONTROLLER_USB, 0, NULL)->ports = 15;
        machine_add_controller(machine, CONTROLLER_USB, 1, "piix3-uhci")->address = pci_address(2, 4, 0);
        machine_add_controller(machine, CONTROLLER_VIRTIO_SERIAL, 3, NULL)->ports = 16;
        DEVICE("\"driver\":\"pcie-root-port\",\"id\":\"pci.1\",\"chassis\":7,\"port\":16,\"bus\":\"pcie.0\","
               "\"addr\":\"0x1\"");
        DEVICE("\"driver\":\"pcie-pci-bridge\",\"id\":\"pci.2\",\"bus\":\"pci.1\",\"addr\":\"0x0.0x0\"");
        DEVICE("\"driver\":\"qemu-xhci\",\"id\":\"usb0\",\"p2\":15,\"p3\":15,\"bus\":\"pcie.0\",\"addr\":"
               "\"0x2\"");
        DEVICE("\"driver\":\"piix3-usb-uhci\",\"id\":\"usb1\",\"bus\":\"pci.2\",\"addr\":\"0x4.0x0\"");
        DEVICE("\"driver\":\"virtio-serial-pci\",\"id\":\"virtio-serial3\",\"max_ports\":16,\"bus\":\"pcie."
               "0\","
               "\"addr\":\"0x3\"");
        command = machine_command(machine);
        g_assert_cmpuint(index_of(command, "\"pci.1\""), <, index_of(command, "\"pci.2\""));
        g_assert_cmpuint(count(command, "\"driver\""), ==, 5);
}

/* ---- the other devices ---- */

static void test_interfaces(void)
{
        static const char *const taps[] = { "bj0123456789-0", "bj0123456789-1", NULL };
        g_autoptr(Machine) machine = machine_new("pc");

        machine->facts.taps = taps;
        machine_add_interface(machine, INTERFACE_USER, "virtio")->mac = (char *) "52:54:00:00:00:01";
        machine_add_interface(machine, INTERFACE_BRIDGE, "e1000");
        machine_add_interface(machine, INTERFACE_TAP, "rtl8139")->device = (char *) "tap,0";
        machine_add_interface(machine, INTERFACE_BRIDGE, "e1000e")->address = pci_address(0, 2, 0);
        expect(machine, "-netdev", "user,id=bj-net0");
        expect(machine, "-netdev", "tap,id=bj-net1,ifname=bj0123456789-0,script=no,downscript=no,vhost=off");
        expect(machine, "-netdev", "tap,id=bj-net2,ifname=tap,,0,script=no,downscript=no,vhost=off");
        expect(machine, "-netdev", "tap,id=bj-net3,ifname=bj0123456789-1,script=no,downscript=no,vhost=off");
        DEVICE("\"driver\":\"virtio-net-pci\",\"id\":\"bj-net0-device\",\"netdev\":\"bj-net0\",\"mac\":"
               "\"52:54:00:00:00:01\",\"bus\":\"pci.0\",\"addr\":\"0x3\"");
        DEVICE("\"driver\":\"e1000e\",\"id\":\"bj-net3-device\",\"netdev\":\"bj-net3\",\"bus\":\"pci.0\","
               "\"addr\":\"0x2.0x0\"");
}

static void test_characters(void)
{
        g_autoptr(Machine) machine = machine_new("pc"), alone = machine_new("pc");
        DefinitionCharacter *character;
        g_auto(GStrv) command = NULL, command_alone = NULL;

        machine_add_character(machine, CHARACTER_CONSOLE, "pty", "serial");
        machine_add_character(machine, CHARACTER_SERIAL, "pty", "isa-serial");
        character = machine_add_character(machine, CHARACTER_SERIAL, "file", NULL);
        character->path = (char *) "/log,1";
        character->port = 1;
        machine_add_character(machine, CHARACTER_CONSOLE, "null", "virtio");
        character = machine_add_character(machine, CHARACTER_CHANNEL, "unix", "virtio");
        character->path = (char *) "/socket,1";
        character->name = (char *) "agent";
        character->address = port_address(1, 3);
        machine_add_character(machine, CHARACTER_CHANNEL, "unix", NULL)->address = port_address(0, 0);
        expect(machine, "-chardev", "pty,id=bj-serial0");
        expect(machine, "-chardev", "file,id=bj-serial1,path=/log,,1");
        expect(machine, "-chardev", "null,id=bj-console3");
        expect(machine, "-chardev", "socket,id=bj-channel4,path=/socket,,1,server=on,wait=off");
        expect(machine, "-chardev", "null,id=bj-channel5");
        DEVICE("\"driver\":\"isa-serial\",\"id\":\"bj-serial1-device\",\"chardev\":\"bj-serial1\",\"index\":"
               "1");
        DEVICE("\"driver\":\"virtconsole\",\"id\":\"bj-console3-device\",\"chardev\":\"bj-console3\","
               "\"bus\":"
               "\"virtio-serial0.0\"");
        DEVICE("\"driver\":\"virtserialport\",\"id\":\"bj-channel4-device\",\"chardev\":\"bj-channel4\","
               "\"name\":"
               "\"agent\",\"bus\":\"virtio-serial1.0\",\"nr\":3");
        DEVICE("\"driver\":\"virtserialport\",\"id\":\"bj-channel5-device\",\"chardev\":\"bj-channel5\","
               "\"bus\":"
               "\"virtio-serial0.0\"");
        command = machine_command(machine);
        g_assert_cmpuint(count(command, "\"isa-serial\""), ==, 2);
        g_assert_cmpuint(count(command, "\"virtio-serial-pci\""), ==, 2);

        machine_add_character(alone, CHARACTER_CONSOLE, "pty", NULL);
        machine_add_character(alone, CHARACTER_CONSOLE, "pty", "serial");
        command_alone = machine_command(alone);
        g_assert_cmpuint(count(command_alone, "\"isa-serial\""), ==, 1);
}

static void test_devices(void)
{
        g_autoptr(Machine) machine = machine_new("pc");
        DefinitionDevice *device;

        machine_add_controller(machine, CONTROLLER_USB, 1, NULL);
        machine_add_device(machine, DEVICE_INPUT, "tablet")->address = usb_address(1, 2);
        machine_add_device(machine, DEVICE_INPUT, "mouse");
        machine_add_device(machine, DEVICE_VIDEO, "virtio");
        machine_add_device(machine, DEVICE_VIDEO, "virtio");
        machine_add_device(machine, DEVICE_BALLOON, "virtio");
        device = machine_add_device(machine, DEVICE_RNG, "virtio");
        device->backend = (char *) "/dev/hwrng";
        device->rate_bytes = G_GUINT64_CONSTANT(1) << 40;
        machine_add_device(machine, DEVICE_WATCHDOG, "ib700")->backend = (char *) "inject-nmi";
        DEVICE("\"driver\":\"piix3-usb-uhci\",\"id\":\"usb1\",\"bus\":\"pci.0\",\"addr\":\"0x2\"");
        DEVICE("\"driver\":\"usb-tablet\",\"id\":\"bj-input0\",\"bus\":\"usb1.0\",\"port\":\"2\"");
        DEVICE("\"driver\":\"virtio-vga\",\"id\":\"bj-video2\",\"bus\":\"pci.0\",\"addr\":\"0x3\"");
        DEVICE("\"driver\":\"virtio-gpu-pci\",\"id\":\"bj-video3\",\"bus\":\"pci.0\",\"addr\":\"0x4\"");
        DEVICE("\"driver\":\"virtio-balloon-pci\",\"id\":\"bj-balloon4\",\"bus\":\"pci.0\",\"addr\":"
               "\"0x5\"");
        expect(machine, "-object",
               "{\"qom-type\":\"rng-random\",\"id\":\"bj-rng5\",\"filename\":\"/dev/hwrng\"}");
        DEVICE("\"driver\":\"virtio-rng-pci\",\"id\":\"bj-rng5-device\",\"rng\":\"bj-rng5\",\"max-bytes\":"
               "1099511627776,\"period\":1000,\"bus\":\"pci.0\",\"addr\":\"0x6\"");
        DEVICE("\"driver\":\"ib700\",\"id\":\"bj-watchdog6\"");
        expect(machine, "-action", "watchdog=inject-nmi");
}

static void test_graphics(void)
{
        g_autoptr(Machine) machine = machine_new("pc");

        machine_add_graphics(machine, "", -1);
        machine_add_graphics(machine, "::", 5901);
        machine_add_graphics(machine, "0.0.0.0", 65535);
        machine_add_graphics(machine, "", 0)->socket = (char *) "/vnc,1";
        expect(machine, "-audiodev", "none,id=bj-audio");
        expect(machine, "-vnc", "127.0.0.1:0,to=99,audiodev=bj-audio");
        expect(machine, "-vnc", "[::]:1,audiodev=bj-audio");
        expect(machine, "-vnc", "0.0.0.0:59635,audiodev=bj-audio");
        expect(machine, "-vnc", "unix:/vnc,,1,audiodev=bj-audio");
}

/* ---- the storage daemon ---- */

#define MONITOR_WORDS \
        "/qsd --chardev socket,id=bj-monitor,fd=4,server=on,wait=off --monitor chardev=bj-monitor"
#define NODE_WORDS                                                                                 \
        " --blockdev {\"driver\":\"file\",\"filename\":\"/b\",\"node-name\":\"vda-1-file\","       \
        "\"auto-read-only\":true," CACHE "}"                                                       \
        " --blockdev {\"driver\":\"raw\",\"node-name\":\"vda-1\",\"file\":\"vda-1-file\","         \
        "\"read-only\":true," CACHE "}"                                                            \
        " --blockdev {\"driver\":\"file\",\"filename\":\"/a.qcow2\",\"node-name\":\"vda-0-file\"," \
        "\"auto-read-only\":true," CACHE "}"                                                       \
        " --blockdev {\"driver\":\"qcow2\",\"node-name\":\"vda-0\",\"file\":\"vda-0-file\","       \
        "\"read-only\":false,\"backing\":\"vda-1\"," CACHE "}"

static void test_storage_daemon(void)
{
        g_autoptr(Machine) machine = machine_new("pc");
        DefinitionDisk *disk = machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, "/a.qcow2");
        const GPtrArray *chain = machine_chain(machine, disk);
        g_autoptr(GError) error = NULL;
        g_auto(GStrv) command = NULL, bare = NULL, read_only = NULL;

        machine_add_layer(machine, disk, "/b");
        disk->throttled = TRUE; /* jobs are not held back */
        command = definition_storage_command_line(disk, chain, "/qsd", 4, "/export,1", &error);
        g_assert_no_error(error);
        expect_words(command, MONITOR_WORDS NODE_WORDS
                     " --nbd-server {\"addr\":{\"type\":\"unix\",\"path\":\"/export,1\"}}"
                     " --export "
                     "{\"type\":\"nbd\",\"id\":\"vda\",\"node-name\":\"vda-0\",\"name\":\"vda\","
                     "\"writable\":true}");
        bare = definition_storage_command_line(disk, chain, "/qsd", 4, NULL, &error);
        g_assert_no_error(error);
        expect_words(bare, MONITOR_WORDS NODE_WORDS);
        disk->read_only = TRUE;
        read_only = definition_storage_command_line(disk, chain, "/qsd", 4, "/export,1", &error);
        g_assert_no_error(error);
        g_assert_cmpuint(count(read_only, "\"read-only\":true"), ==, 2);
        g_assert_cmpuint(count(read_only, "\"writable\":false"), ==, 1);
        ((OpenImage *) chain->pdata[1])->format = (char *) "vmdk";
        g_assert_null(definition_storage_command_line(disk, chain, "/qsd", 4, NULL, &error));
        g_assert_error(error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED);
        g_assert_cmpstr(error->message, ==, "disk 'vda': format 'vmdk' is none of raw and qcow2");
}

int main(int argc, char **argv)
{
        static const struct {
                const char *name;
                void (*function)(void);
        } tests[] = {
                { "bare", test_bare },
                { "machine", test_machine },
                { "firmware", test_firmware },
                { "boot", test_boot },
                { "nodes", test_nodes },
                { "disk-options", test_disk_options },
                { "disk-buses", test_disk_buses },
                { "device-paths", test_device_paths },
                { "slots", test_slots },
                { "drive-places", test_drive_places },
                { "controllers", test_controllers },
                { "interfaces", test_interfaces },
                { "characters", test_characters },
                { "devices", test_devices },
                { "graphics", test_graphics },
                { "storage-daemon", test_storage_daemon },
        };

        g_test_init(&argc, &argv, NULL);
        for (guint i = 0; i < G_N_ELEMENTS(tests); i++) {
                g_autofree char *path = g_strconcat("/command-line/", tests[i].name, NULL);
                g_test_add_func(path, tests[i].function);
        }
        return g_test_run();
}
