/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

#include "image/name.h"

/* What a domain is made of, as its XML says: the part of libvirt's format that a disk-centred service needs
 * (https://libvirt.org/formatdomain.html). Read once and not changed after that, but for the images of its
 * disks, which jobs exchange. */

#define DEFINITION_XML_MAX (1024 * 1024) /* bytes */
#define DEFINITION_DEPTH_MAX 64

typedef enum { ADDRESS_NONE, ADDRESS_PCI, ADDRESS_DRIVE, ADDRESS_VIRTIO_SERIAL, ADDRESS_USB } AddressType;

/* Where a device is plugged in; ADDRESS_NONE: wherever there is room. */
typedef struct {
        AddressType type;
        guint bus, slot, function; /* pci; usb: bus and `port` */
        gboolean multifunction;
        guint controller, target, unit; /* drive: also `bus` */
        guint port;                     /* virtio-serial: also `controller` and `bus` */
} DefinitionAddress;

typedef enum { DISK_BUS_VIRTIO, DISK_BUS_SCSI, DISK_BUS_SATA, DISK_BUS_IDE, DISK_BUS_USB } DiskBus;

/* Bytes or requests a second, 0 = no limit. */
typedef struct {
        guint64 total_bytes, read_bytes, write_bytes;
        guint64 total_iops, read_iops, write_iops;
        guint64 total_bytes_max, read_bytes_max, write_bytes_max;
        guint64 total_iops_max, read_iops_max, write_iops_max;
} DefinitionThrottle;

typedef struct {
        char *target; /* <target dev>, which is the device's id in QEMU too: [a-z]+ */
        DiskBus bus;
        gboolean cdrom, read_only, shareable;
        ImageName image;
        /* ImageName, from the one under `image` down: what <backingStore> says. NULL: the headers of
         * the images say it. */
        GPtrArray *backing;
        char *cache;   /* "writeback", "none", "writethrough", "directsync", "unsafe"; NULL = writeback */
        char *io;      /* "threads", "native", "io_uring"; NULL = QEMU's own choice */
        char *discard; /* "unmap", "ignore"; NULL = ignore */
        char *detect_zeroes;                    /* "off", "on", "unmap"; NULL = off */
        char *error_policy, *read_error_policy; /* "stop", "report", "ignore", "enospace"; NULL = QEMU's */
        char *serial;                           /* NULL = none */
        guint iothread;                         /* 0 = none */
        guint boot_order;                       /* 0 = none */
        DefinitionThrottle throttle;
        gboolean throttled;
        DefinitionAddress address;
} DefinitionDisk;

typedef enum {
        CONTROLLER_PCI,
        CONTROLLER_SCSI,
        CONTROLLER_SATA,
        CONTROLLER_IDE,
        CONTROLLER_USB,
        CONTROLLER_VIRTIO_SERIAL
} ControllerType;

typedef struct {
        ControllerType type;
        guint index;
        char *model;                 /* NULL = the usual one of its type */
        guint ports;                 /* of usb and virtio-serial, 0 = the usual number */
        guint chassis, chassis_port; /* of a pcie-root-port */
        DefinitionAddress address;
} DefinitionController;

typedef enum { INTERFACE_USER, INTERFACE_TAP, INTERFACE_BRIDGE } InterfaceType;

typedef struct {
        InterfaceType type;
        char *mac;    /* NULL = one is made up and kept */
        char *model;  /* "virtio", "e1000", "e1000e", "rtl8139" */
        char *bridge; /* of INTERFACE_BRIDGE */
        char *device; /* the host's network device, for INTERFACE_TAP; NULL else */
        guint boot_order;
        DefinitionAddress address;
} DefinitionInterface;

typedef enum { CHARACTER_SERIAL, CHARACTER_CONSOLE, CHARACTER_CHANNEL } CharacterType;

typedef struct {
        CharacterType type;
        char *backend; /* "pty", "file", "unix", "null" */
        char *path;    /* of file and unix; NULL = none */
        char *target;  /* "isa-serial", "serial", "virtio", …; NULL = the usual one */
        char *name;    /* of a channel */
        guint port;
        DefinitionAddress address;
} DefinitionCharacter;

/* Anything else that is one device in QEMU. */
typedef enum { DEVICE_INPUT, DEVICE_VIDEO, DEVICE_RNG, DEVICE_BALLOON, DEVICE_WATCHDOG } DeviceType;

typedef struct {
        DeviceType type;
        char *model; /* input: "tablet", "mouse", "keyboard"; video: "vga", "virtio", "qxl", "cirrus", … */
        char *bus;   /* input: "usb", "ps2", "virtio" */
        char *backend;                   /* rng: the host's file; watchdog: what it does */
        guint64 vram;                    /* video: KiB, 0 = the usual */
        guint64 rate_bytes, rate_period; /* rng: bytes in milliseconds, 0 = no limit */
        DefinitionAddress address;
} DefinitionDevice;

typedef struct {
        char *listen; /* address, "" = 127.0.0.1 */
        char *socket; /* NULL = TCP */
        gint32 port;  /* -1 = a free one from 5900 */
} DefinitionGraphics;

typedef struct {
        char *name, *uuid;                    /* uuid: always there, made where the XML has none */
        gboolean kvm;                         /* else TCG */
        guint64 memory;                       /* bytes */
        guint vcpus, sockets, cores, threads; /* 0 0 0 = no topology */
        char *cpu;                            /* as QEMU's -cpu takes it; NULL = QEMU's own */
        char *architecture;                   /* "x86_64" */
        char *machine;                        /* NULL = "pc" */
        char *emulator;                       /* NULL = qemu-system-ARCHITECTURE */
        char *loader, *nvram; /* firmware as pflash: code, and variables; NULL = the machine's own */
        gboolean loader_read_only;
        char *nvram_template; /* what `nvram` is made of where it is not there yet; NULL = it is there */
        char *kernel, *initrd, *cmdline;
        GStrv boot; /* "hd", "cdrom", "network" in their order; NULL = by boot_order */
        gboolean boot_menu;
        gboolean acpi, apic_given, vmport_off, hpet_off, smm_off;
        gboolean local_time; /* the guest's clock; else UTC */
        gboolean rtc_catchup, pit_delay, kvmclock_off;
        gboolean no_s3, no_s4; /* <pm> */
        gboolean reboot_ends, crash_keeps;
        guint iothreads;
        GPtrArray *disks;       /* DefinitionDisk */
        GPtrArray *controllers; /* DefinitionController */
        GPtrArray *interfaces;  /* DefinitionInterface */
        GPtrArray *characters;  /* DefinitionCharacter */
        GPtrArray *devices;     /* DefinitionDevice */
        GPtrArray *graphics;    /* DefinitionGraphics */

        char *xml; /* as it was given, with name and uuid, without what was left out as lenient */
} Definition;

/* ---- definition.c ---- */

void definition_free(Definition *definition);
DefinitionDisk *definition_disk(const Definition *definition, const char *target);

/* ---- xml-read.c ---- */

/* Reads `xml`. What is not understood is refused by its name and line, or with `ignored` (char *, may be
 * NULL) listed there and left out. No external entities, no network, no entity at all but XML's own five.
 * Errors: InvalidArgument, with "line N:" in front, LimitExceeded. */
Definition *definition_parse(const char *xml, GPtrArray *ignored, GError **error);

/* ---- xml-write.c ---- */

/* What of a disk is another than in its definition now. */
typedef struct {
        const char *target;
        const GPtrArray *images; /* ImageName, top first; NULL or empty = no medium */
        gboolean whole_chain;    /* <backingStore> is to be written for all of them */
        /* A job that runs: NULL = none. libvirt's words "copy", "active-commit". */
        const char *mirror_job;
        ImageName mirror;
        gboolean mirror_ready;
} DiskImages;

/* definition->xml with these disks' <source>, <driver type>, <backingStore> and <mirror>, in libvirt's form.
 * `id`: of a domain that runs, 0 = none. */
char *definition_to_xml(const Definition *definition, const DiskImages *disks, guint n_disks, guint id);

/* ---- command-line.c ---- */

/* An image as it is opened: what a look at the file has shown. */
typedef struct {
        char *source, *format; /* as ImageName */
        gboolean is_block;     /* a block device of the host */
        guint64 device, inode; /* which file it is; 0 = none that can be seen */
} OpenImage;

/* What the definition does not say. */
typedef struct {
        const char *emulator;     /* program, absolute */
        int monitor_fd;           /* a listening UNIX socket that QEMU inherits, for QMP */
        GPtrArray *const *chains; /* one for each disk: OpenImage, top first; NULL or empty = no medium */
        const char *const
                *taps; /* one for each interface of INTERFACE_BRIDGE, in order: the tap made for it */
        const char *log_directory; /* unused where no device needs it */
} LaunchFacts;

/* The program and its arguments, for a QEMU that is paused (-S) and has the sandbox on. The nodes of disk
 * `vda` are "vda-0" (active layer), "vda-1", …, each over "vda-N-file"; its device's id is "vda".
 * NotSupported where something cannot be said to QEMU. */
GStrv definition_command_line(const Definition *definition, const LaunchFacts *facts, GError **error);

/* The same for a qemu-storage-daemon that serves one disk's images, with the same nodes, to jobs alone:
 * writable NBD export `target` on the UNIX socket `export_path`; NULL = none. */
GStrv definition_storage_command_line(const DefinitionDisk *disk, const GPtrArray *chain,
                                      const char *program, int monitor_fd, const char *export_path,
                                      GError **error);

/* The images of `disk` as one text "json:{…}" that a program of QEMU's opens, read-only and without locks.
 */
char *definition_image(const DefinitionDisk *disk, const GPtrArray *chain, GError **error);

/* The device of `disk` as QEMU's query-block names it: "/machine/peripheral/vda/virtio-backend" or the like.
 */
char *definition_device_path(const DefinitionDisk *disk);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Definition, definition_free)
