/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/xml-grammar.h"

/* All that is understood, and in the words that it is understood in. */

#define ADDRESS                                                                                           \
        {                                                                                                 \
                "address",                                                                                \
                        "type!=pci|drive|virtio-serial|usb domain?=0..0 bus=0..255 slot=0..31 "           \
                        "function=0..7"                                                                   \
                        " multifunction=on|off controller=0..255 target=0..255 unit=0..16383 port=0..255" \
        }
#define ALIAS                                        \
        {                                            \
                "alias", "name!", .flags = XML_ALIAS \
        }
#define BOOT                             \
        {                                \
                "boot", "order!=1..1024" \
        }
#define YES_NO "yes|no"
#define FORMAT "raw|qcow2"
#define COUNT "0..1000000000000000"

static const XmlElement source_of_disk[] = {
        { "host", "name=@: port=1..65535 transport?=tcp|unix socket=/", .flags = XML_MANY | XML_VITAL },
        { "config", "file!=/" },
        { "auth", "username!" },
        { NULL },
};

#define SOURCE_OF_DISK "file=/ dev=/ protocol?=nbd|rbd|iscsi name index-"

static const XmlElement backing_store[5] = {
        { "format", "type!=" FORMAT, .flags = XML_VITAL },
        { "source", SOURCE_OF_DISK, .children = source_of_disk, .flags = XML_VITAL },
        { "backingStore", "type?=file|block|network index- id-", .children = backing_store,
          .flags = XML_VITAL },
        { NULL },
};

static const XmlElement iotune[] = {
        { "total_bytes_sec", .text = COUNT },
        { "read_bytes_sec", .text = COUNT },
        { "write_bytes_sec", .text = COUNT },
        { "total_iops_sec", .text = COUNT },
        { "read_iops_sec", .text = COUNT },
        { "write_iops_sec", .text = COUNT },
        { "total_bytes_sec_max", .text = COUNT },
        { "read_bytes_sec_max", .text = COUNT },
        { "write_bytes_sec_max", .text = COUNT },
        { "total_iops_sec_max", .text = COUNT },
        { "read_iops_sec_max", .text = COUNT },
        { "write_iops_sec_max", .text = COUNT },
        { NULL },
};

static const XmlElement disk[] = {
        { "driver",
          "name?=qemu type?=" FORMAT " cache=default|none|writeback|writethrough|directsync|unsafe"
          " io=native|threads|io_uring discard=unmap|ignore detect_zeroes=off|on|unmap"
          " error_policy=stop|report|ignore|enospace rerror_policy=stop|report|ignore iothread=1..1024",
          .flags = XML_VITAL },
        { "source", SOURCE_OF_DISK, .children = source_of_disk, .flags = XML_VITAL },
        { "backingStore", "type?=file|block|network index- id-", .children = backing_store },
        { "mirror", .flags = XML_OUTPUT },
        { "target", "dev! bus?=virtio|scsi|sata|ide|usb tray=closed", .flags = XML_VITAL },
        { "iotune", .children = iotune },
        { "readonly" },
        { "shareable" },
        { "serial", .text = "" },
        BOOT,
        ALIAS,
        ADDRESS,
        { NULL },
};

static const XmlElement controller[] = {
        { "model", "name!=pcie-root-port|pcie-pci-bridge|pci-bridge", .flags = XML_VITAL },
        { "target", "chassis=0..255 port=0..255 chassisNr=1..255 hotplug=on" },
        ALIAS,
        ADDRESS,
        { NULL },
};

static const XmlElement interface[] = {
        { "mac", "address!" },
        { "source", "bridge=@ index-", .flags = XML_VITAL },
        { "target", "dev!=@ managed?=no" },
        { "model", "type!=virtio|e1000|e1000e|rtl8139", .flags = XML_VITAL },
        { "link", "state!=up" },
        BOOT,
        ALIAS,
        ADDRESS,
        { NULL },
};

static const XmlElement target_of_character[] = {
        { "model", "name!=isa-serial", .flags = XML_VITAL },
        { NULL },
};

#define CHARACTER "type!=pty|file|unix|null tty-"

static const XmlElement serial[] = {
        { "source", "path=/ mode?=bind append=off", .flags = XML_VITAL },
        { "target", "type?=isa-serial port=0..3", .children = target_of_character, .flags = XML_VITAL },
        ALIAS,
        { NULL },
};

static const XmlElement console[] = {
        { "source", "path=/ mode?=bind append=off", .flags = XML_VITAL },
        { "target", "type?=serial|virtio port=0..30", .flags = XML_VITAL },
        ALIAS,
        ADDRESS,
        { NULL },
};

static const XmlElement channel[] = {
        { "source", "path=/ mode?=bind append=off channel-", .flags = XML_VITAL },
        { "target", "type!=virtio name=@ state-", .flags = XML_VITAL },
        ALIAS,
        ADDRESS,
        { NULL },
};

static const XmlElement input[] = { ALIAS, ADDRESS, { NULL } };

static const XmlElement graphics[] = {
        { "listen", "type!=address|socket address=@: socket=/", .flags = XML_VITAL },
        { NULL },
};

/* What libvirt itself gives a qxl; another size cannot be had. */
static const XmlElement video[] = {
        { "model",
          "type!=vga|virtio|qxl|cirrus|bochs|none vram=1..1048576 heads=1..1 primary=yes ram=65536"
          " vgamem=16384",
          .flags = XML_VITAL },
        ALIAS,
        ADDRESS,
        { NULL },
};

static const XmlElement rng[] = {
        { "rate", "bytes!=1..4294967295 period=1..4294967295" },
        { "backend", "model!=random", .text = "/?", .flags = XML_VITAL },
        ALIAS,
        ADDRESS,
        { NULL },
};

static const XmlElement plain_device[] = { ALIAS, ADDRESS, { NULL } };

static const XmlElement devices[] = {
        { "emulator", .text = "/" },
        { "disk", "type?=file|block|network device?=disk|cdrom", .children = disk, .flags = XML_MANY },
        { "controller", "type!=pci|scsi|sata|ide|usb|virtio-serial index=0..255 model?=@ ports=1..31",
          .children = controller, .flags = XML_MANY },
        { "interface", "type!=user|bridge|ethernet", .children = interface, .flags = XML_MANY },
        { "serial", CHARACTER, .children = serial, .flags = XML_MANY },
        { "console", CHARACTER, .children = console, .flags = XML_MANY },
        { "channel", CHARACTER, .children = channel, .flags = XML_MANY },
        { "input", "type!=tablet|mouse|keyboard bus?=usb|ps2|virtio", .children = input, .flags = XML_MANY },
        { "graphics", "type!=vnc port=-1..65535 autoport=" YES_NO " listen=@: socket=/",
          .children = graphics, .flags = XML_MANY },
        { "video", .children = video, .flags = XML_MANY },
        { "audio", "id! type!=none", .children = plain_device, .flags = XML_MANY },
        { "memballoon", "model!=virtio|none", .children = plain_device },
        { "rng", "model!=virtio", .children = rng, .flags = XML_MANY },
        { "watchdog", "model!=i6300esb|ib700|itco action?=reset|shutdown|poweroff|pause|none|inject-nmi",
          .children = plain_device, .flags = XML_MANY },
        { NULL },
};

static const XmlElement resource[] = {
        { "partition", .text = "/machine", .flags = XML_VITAL },
        { NULL },
};

static const XmlElement firmware[] = {
        { "feature", "enabled!=" YES_NO " name!=secure-boot|enrolled-keys", .flags = XML_MANY },
        { NULL },
};

static const XmlElement os[] = {
        { "type", "arch?=x86_64 machine=@", .text = "hvm", .flags = XML_VITAL },
        { "firmware", .children = firmware },
        { "loader", "readonly=" YES_NO " type?=pflash secure=no format?=raw", .text = "/" },
        { "nvram", "template=/ format?=raw", .text = "/" },
        { "kernel", .text = "/" },
        { "initrd", .text = "/" },
        { "cmdline", .text = "" },
        { "boot", "dev!=hd|cdrom|network", .flags = XML_MANY },
        { "bootmenu", "enable!=" YES_NO },
        { NULL },
};

static const XmlElement features[] = {
        { "acpi" }, { "apic" }, { "pae" }, { "vmport", "state!=on|off" }, { "smm", "state!=on|off" },
        { NULL },
};

static const XmlElement cpu[] = {
        { "model", "fallback=forbid|allow", .text = "@" },
        { "topology", "sockets!=1..4096 dies=1..1 cores!=1..4096 threads!=1..4096" },
        { "feature", "policy?=require|force|optional|disable|forbid name!=@", .flags = XML_MANY },
        { NULL },
};

static const XmlElement clock_timers[] = {
        { "timer", "name!=rtc|pit|hpet|kvmclock tickpolicy?=catchup|delay present=" YES_NO,
          .flags = XML_MANY },
        { NULL },
};

static const XmlElement power[] = {
        { "suspend-to-mem", "enabled!=" YES_NO },
        { "suspend-to-disk", "enabled!=" YES_NO },
        { NULL },
};

static const XmlElement label[] = {
        { "label", .flags = XML_OUTPUT },
        { "imagelabel", .flags = XML_OUTPUT },
        { NULL },
};

static const XmlElement domain[] = {
        { "name", .text = "" },
        { "uuid", .text = "" },
        { "title", .text = "*" },
        { "description", .text = "*" },
        { "metadata", .flags = XML_OPAQUE },
        { "memory", "unit", .text = "" },
        { "currentMemory", "unit", .text = "" },
        { "vcpu", "placement=static current=1..4096", .text = "1..4096" },
        { "iothreads", .text = "0..1024" },
        { "resource", .children = resource },
        { "os", "firmware?=efi", .children = os },
        { "features", .children = features },
        { "cpu",
          "mode?=custom|host-model|host-passthrough|maximum match?=exact check=none|partial|full"
          " migratable=on|off",
          .children = cpu },
        { "clock", "offset!=utc|localtime", .children = clock_timers },
        { "on_poweroff", .text = "destroy" },
        { "on_reboot", .text = "restart|destroy" },
        { "on_crash", .text = "destroy|preserve" },
        { "pm", .children = power },
        { "devices", .children = devices },
        /* The confinement of the host's own choice. */
        { "seclabel", "type!=dynamic model=@ relabel=yes", .children = label, .flags = XML_MANY },
        { NULL },
};

const XmlElement xml_root = { "domain", "type!=kvm|qemu id-", .children = domain };
