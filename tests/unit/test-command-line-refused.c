/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "machine.h"

/* What cannot be said to QEMU. */

static void refuse(const char *type, void (*spoil)(Machine *machine), const char *message)
{
        g_autoptr(Machine) machine = machine_new(type);

        spoil(machine);
        machine_expect_refused(machine, message);
}

#define SPOIL(name, ...)                              \
        static void spoil_##name(Machine *machine)    \
        {                                             \
                Definition *d = &machine->definition; \
                (void) d;                             \
                __VA_ARGS__;                          \
        }

SPOIL(nothing, )
SPOIL(architecture, d->architecture = (char *) "aarch64")
SPOIL(topology, d->sockets = d->cores = d->threads = 2)
SPOIL(empty_disk, machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, NULL))
SPOIL(virtio_cdrom, machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, NULL)->cdrom = TRUE)
SPOIL(iothread, machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, "/a")->iothread = 1)
SPOIL(scsi_iothread, machine_add_disk(machine, "sda", DISK_BUS_SCSI, "/a")->iothread = 1)
SPOIL(read_only, machine_add_disk(machine, "sda", DISK_BUS_SATA, "/a")->read_only = TRUE)
SPOIL(ide, machine_add_disk(machine, "hda", DISK_BUS_IDE, "/a"))
SPOIL(fifth_ide, machine_add_disk(machine, "hde", DISK_BUS_IDE, "/a"))
SPOIL(unit, machine_add_disk(machine, "sda", DISK_BUS_SATA, "/a")->address = drive_address(0, 0, 0, 6))
SPOIL(scsi_bus, machine_add_disk(machine, "sda", DISK_BUS_SCSI, "/a")->address = drive_address(0, 1, 0, 0))
SPOIL(pci_drive, machine_add_disk(machine, "sda", DISK_BUS_SCSI, "/a")->address = pci_address(0, 3, 0))
SPOIL(drive_pci,
      machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, "/a")->address = drive_address(0, 0, 0, 0))
SPOIL(bus, machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, "/a")->address = pci_address(3, 0, 0))
SPOIL(raw_backing, machine_add_layer(machine, machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, "/a"), "/b"))
SPOIL(uri, machine_add_disk(machine, "vda", DISK_BUS_VIRTIO, "nbd://host:0/"))
SPOIL(circle,
      machine_add_controller(machine, CONTROLLER_PCI, 1, "pci-bridge")->address = pci_address(2, 0, 0);
      machine_add_controller(machine, CONTROLLER_PCI, 2, "pci-bridge")->address = pci_address(1, 0, 0))
SPOIL(controller, machine_add_controller(machine, CONTROLLER_SCSI, 0, "buslogic"))
SPOIL(tap, machine_add_interface(machine, INTERFACE_BRIDGE, "virtio"))
SPOIL(model, machine_add_interface(machine, INTERFACE_USER, "ne2k_pci"))
SPOIL(backend, machine_add_character(machine, CHARACTER_SERIAL, "tcp", NULL))
SPOIL(path, machine_add_character(machine, CHARACTER_SERIAL, "unix", NULL))
SPOIL(target, machine_add_character(machine, CHARACTER_CHANNEL, "pty", "guestfwd"))
SPOIL(input, machine_add_device(machine, DEVICE_INPUT, "tablet")->bus = (char *) "ps2")
SPOIL(video, machine_add_device(machine, DEVICE_VIDEO, "xen"))
SPOIL(second_video, machine_add_device(machine, DEVICE_VIDEO, "vga");
      machine_add_device(machine, DEVICE_VIDEO, "vga"))
SPOIL(watchdog, machine_add_device(machine, DEVICE_WATCHDOG, "itco"))
SPOIL(action, machine_add_device(machine, DEVICE_WATCHDOG, "ib700")->backend = (char *) "dump")
SPOIL(port, machine_add_graphics(machine, "", 80))

static void test_refused(void)
{
        refuse("microvm", spoil_nothing, "machine type 'microvm' is none of pc and q35");
        refuse("pc", spoil_architecture, "architecture 'aarch64' is not supported");
        refuse("pc", spoil_topology, "1 processors are not 2 sockets with 2 cores of 2 threads");
        refuse("pc", spoil_empty_disk, "disk 'vda' has no image");
        refuse("pc", spoil_virtio_cdrom, "disk 'vda': there are no CD-ROMs on the virtio bus");
        refuse("pc", spoil_iothread, "disk 'vda': there is no iothread 1");
        refuse("pc", spoil_scsi_iothread, "disk 'sda': only disks on the virtio bus have iothreads");
        refuse("pc", spoil_read_only, "disk 'sda': QEMU has no read-only disks on the SATA bus");
        refuse("q35", spoil_ide, "machine type 'q35' has no ide controller 0");
        refuse("pc", spoil_fifth_ide, "machine type 'pc' has no ide controller 1");
        refuse("pc", spoil_unit, "disk 'sda': the SATA controller has no such address");
        refuse("pc", spoil_scsi_bus, "disk 'sda': the SCSI controller has no such address");
        refuse("pc", spoil_pci_drive, "disk 'sda': its address is none of a drive");
        refuse("pc", spoil_drive_pci, "disk 'vda': its address is none on a PCI bus");
        refuse("pc", spoil_bus, "disk 'vda': there is no PCI controller 3");
        refuse("pc", spoil_raw_backing, "disk 'vda': '/a' is raw and can have no image below it");
        refuse("pc", spoil_uri,
               "disk 'vda': target 'nbd://host:0/': the port is not a number from 1 to 65535");
        refuse("pc", spoil_circle, "pci controller 1: there is no PCI controller 2");
        refuse("pc", spoil_controller, "machine type 'pc' has no scsi controller 0 of model 'buslogic'");
        refuse("pc", spoil_tap, "interface: it has no device of the host");
        refuse("pc", spoil_model, "interface: there is no model 'ne2k_pci'");
        refuse("pc", spoil_backend, "character device: there is no backend 'tcp'");
        refuse("pc", spoil_path, "character device: a 'unix' needs a path");
        refuse("pc", spoil_target, "character device: there is no target 'guestfwd'");
        refuse("pc", spoil_input, "input: there is no model 'tablet' on the bus 'ps2'");
        refuse("pc", spoil_video, "video: there is no model 'xen'");
        refuse("pc", spoil_second_video, "second video: there is no model 'vga'");
        refuse("pc", spoil_watchdog, "watchdog: only q35 has an itco");
        refuse("pc", spoil_action, "watchdog: QEMU has no action 'dump'");
        refuse("pc", spoil_port, "graphics: port 80 is below 5900");
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/command-line-refused", test_refused);
        return g_test_run();
}
