/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What libvirt wrote is read and written again, and what of it a job changes. */
#include <string.h>

#include "domain/definition.h"

static char *fixture(const char *name)
{
        g_autofree char *path = g_build_filename(FIXTURES, name, NULL);
        GError *error = NULL;
        char *xml;

        g_file_get_contents(path, &xml, NULL, &error);
        g_assert_no_error(error);
        return xml;
}

static Definition *parse(const char *xml)
{
        GError *error = NULL;
        Definition *definition = definition_parse(xml, NULL, &error);

        g_assert_no_error(error);
        return definition;
}

static Definition *read_fixture(const char *name)
{
        g_autofree char *xml = fixture(name);

        return parse(xml);
}

/* From the line with `start` to the one with `end`, which is not in it. Inlined, GCC 12 takes the text for
 * one that is gone. */
static G_NO_INLINE char *part(const char *xml, const char *start, const char *end)
{
        const char *first = strstr(xml, start), *last;

        g_assert_nonnull(first);
        last = strstr(first, end);
        g_assert_nonnull(last);
        return g_strndup(first, (gsize) (last - first));
}

static char *disk_of(const char *xml)
{
        return part(xml, "<disk ", "<target ");
}

/* ---- what is not touched ---- */

static void unchanged(gconstpointer data)
{
        g_autofree char *xml = fixture(data), *again = NULL;
        g_autoptr(Definition) definition = parse(xml);

        /* virsh ends with an empty line */
        g_strchomp(xml);
        g_assert_cmpstr(g_strchomp(definition->xml), ==, xml);
        again = definition_to_xml(definition, NULL, 0, 0);
        g_assert_cmpstr(g_strchomp(again), ==, xml);
}

/* What only a domain that runs has is not kept; all else is the same as when it was off. */
static void running(gconstpointer data)
{
        g_autofree char *name = g_strdup_printf("%s-running.xml", (const char *) data);
        g_autofree char *other = g_strdup_printf("%s.xml", (const char *) data);
        g_autoptr(Definition) definition = read_fixture(name), off = read_fixture(other);
        g_autoptr(Definition) again = parse(definition->xml);
        static const char *const gone[] = { "<alias", "/dev/pts", "<label", "index='1'/>\n      <backing",
                                            "tty=",   "state=",   "5900",   "/channel/target" };

        for (guint i = 0; i < G_N_ELEMENTS(gone); i++)
                g_assert_null(strstr(definition->xml, gone[i]));
        g_assert_true(g_str_has_prefix(definition->xml, "<domain type='qemu'>\n"));
        g_assert_cmpstr(again->xml, ==, definition->xml);
        g_assert_cmpstr(definition->uuid, ==, off->uuid);
        g_assert_cmpuint(definition->devices->len, ==, off->devices->len);
        g_assert_cmpuint(definition->controllers->len, ==, off->controllers->len);
        g_assert_cmpuint(definition->characters->len, ==, off->characters->len);
        g_assert_cmpint(((DefinitionGraphics *) definition->graphics->pdata[0])->port, ==, -1);
}

/* ---- what is read of them ---- */

static void plain(void)
{
        g_autoptr(Definition) definition = read_fixture("plain-pc-running.xml");
        const DefinitionDisk *disk = definition->disks->pdata[0];
        const ImageName *base = disk->backing->pdata[0];
        const DefinitionInterface *interface = definition->interfaces->pdata[0];
        const DefinitionCharacter *serial = definition->characters->pdata[0];

        g_assert_cmpstr(definition->name, ==, "plain-pc");
        g_assert_false(definition->kvm);
        g_assert_cmpuint(definition->memory, ==, 256 << 20);
        g_assert_cmpuint(definition->vcpus, ==, 2);
        g_assert_cmpstr(definition->cpu, ==, "qemu64,hypervisor=on,lahf_lm=on");
        g_assert_cmpstr(definition->machine, ==, "pc-i440fx-7.2");
        g_assert_cmpstr(definition->emulator, ==, "/usr/bin/qemu-system-x86_64");
        g_assert_cmpstr(definition->boot[0], ==, "hd");
        g_assert_null(definition->boot[1]);
        g_assert_true(definition->acpi && definition->apic_given && definition->rtc_catchup);
        g_assert_true(definition->pit_delay && definition->hpet_off && definition->no_s3 &&
                      definition->no_s4);
        g_assert_false(definition->reboot_ends || definition->crash_keeps);
        g_assert_cmpstr(disk->target, ==, "vda");
        g_assert_cmpint(disk->bus, ==, DISK_BUS_VIRTIO);
        g_assert_cmpstr(disk->image.source, ==, "/var/lib/libvirt/images/disk.qcow2");
        g_assert_cmpstr(disk->image.format, ==, "qcow2");
        g_assert_cmpuint(disk->backing->len, ==, 1);
        g_assert_cmpstr(base->source, ==, "/var/lib/libvirt/images/base.qcow2");
        g_assert_cmpint(disk->address.type, ==, ADDRESS_PCI);
        g_assert_cmpuint(disk->address.slot, ==, 6);
        g_assert_cmpint(interface->type, ==, INTERFACE_USER);
        g_assert_cmpstr(interface->model, ==, "virtio");
        /* the console is the serial line */
        g_assert_cmpuint(definition->characters->len, ==, 2);
        g_assert_cmpint(serial->type, ==, CHARACTER_SERIAL);
        g_assert_cmpstr(serial->backend, ==, "pty");
        g_assert_null(serial->path);
        g_assert_cmpuint(definition->devices->len, ==, 6);
}

static void every_disk(void)
{
        static const struct {
                const char *target, *source;
                DiskBus bus;
        } expected[] = {
                { "vda", "/var/lib/libvirt/images/disk.qcow2", DISK_BUS_VIRTIO },
                { "vdb", "nbd://nbd.example.org:10809/disk", DISK_BUS_VIRTIO },
                { "vdc", "nbd+unix:///export?socket=/run/nbd.sock", DISK_BUS_VIRTIO },
                { "vdd", "rbd:pool/image", DISK_BUS_VIRTIO },
                { "vde", "iscsi://192.0.2.7:3260/iqn.2001-04.com.example:disk1/1", DISK_BUS_VIRTIO },
                { "sda", "/dev/vg0/data", DISK_BUS_SCSI },
                { "sdb", "", DISK_BUS_SATA },
                { "sdc", "/var/lib/libvirt/images/scratch.img", DISK_BUS_USB },
        };
        g_autoptr(Definition) definition = read_fixture("every-disk.xml");
        const DefinitionDisk *disk = definition_disk(definition, "vda");
        const DefinitionInterface *interface = definition->interfaces->pdata[1];
        const DefinitionGraphics *graphics = definition->graphics->pdata[0];

        g_assert_cmpuint(definition->disks->len, ==, G_N_ELEMENTS(expected));
        for (guint i = 0; i < G_N_ELEMENTS(expected); i++) {
                const DefinitionDisk *one = definition_disk(definition, expected[i].target);

                g_assert_cmpstr(one->image.source, ==, expected[i].source);
                g_assert_cmpint(one->bus, ==, expected[i].bus);
        }
        g_assert_null(definition_disk(definition, "vdz"));
        g_assert_cmpstr(disk->cache, ==, "none");
        g_assert_cmpstr(disk->io, ==, "native");
        g_assert_cmpstr(disk->discard, ==, "unmap");
        g_assert_cmpstr(disk->detect_zeroes, ==, "unmap");
        g_assert_cmpstr(disk->error_policy, ==, "stop");
        g_assert_cmpstr(disk->read_error_policy, ==, "report");
        g_assert_cmpstr(disk->serial, ==, "ABC-123");
        g_assert_cmpuint(disk->iothread, ==, 1);
        g_assert_cmpuint(disk->boot_order, ==, 1);
        g_assert_true(disk->throttled);
        g_assert_cmpuint(disk->throttle.total_bytes, ==, 1000000);
        g_assert_cmpuint(disk->throttle.total_bytes_max, ==, 2000000);
        g_assert_cmpuint(disk->throttle.read_iops, ==, 100);
        g_assert_true(definition_disk(definition, "vdb")->read_only);
        g_assert_true(definition_disk(definition, "sda")->shareable);
        g_assert_true(definition_disk(definition, "sdb")->cdrom);
        g_assert_null(definition_disk(definition, "vdb")->backing);
        g_assert_true(definition->kvm && definition->local_time && definition->kvmclock_off);
        g_assert_true(definition->vmport_off && definition->boot_menu && definition->loader_read_only);
        g_assert_cmpstr(definition->cpu, ==, "host,vmx=off");
        g_assert_cmpuint(definition->cores, ==, 2);
        g_assert_cmpstr(definition->loader, ==, "/usr/share/OVMF/OVMF_CODE_4M.fd");
        g_assert_cmpstr(definition->nvram_template, ==, "/usr/share/OVMF/OVMF_VARS_4M.fd");
        g_assert_cmpstr(definition->cmdline, ==, "root=/dev/vda console=ttyS0 a=<b>");
        g_assert_cmpint(interface->type, ==, INTERFACE_TAP);
        g_assert_cmpstr(interface->device, ==, "tap7");
        g_assert_cmpstr(graphics->socket, ==, "/run/every-disk-vnc.sock");
}

/* ---- what is changed ---- */

static GPtrArray *images(const char *first, ...)
{
        GPtrArray *all = g_ptr_array_new_with_free_func(g_free);
        va_list list;

        va_start(list, first);
        for (const char *source = first; source; source = va_arg(list, const char *)) {
                ImageName *image = g_new(ImageName, 1);

                *image = (ImageName){ (char *) source, (char *) va_arg(list, const char *) };
                g_ptr_array_add(all, image);
        }
        va_end(list);
        return all;
}

#define IMAGES "/var/lib/libvirt/images/"

static void cut(char *text, const char *place, const char *what)
{
        for (char *found = strstr(text, place); found; found = strstr(found, place))
                memmove(found, found + strlen(what), strlen(found + strlen(what)) + 1);
}

/* The same as libvirt's own, on the same disk, byte for byte. */
static void as_libvirt(gconstpointer data)
{
        static const char *const numbers[] = { " index='1'", " index='2'", " index='3'", " index='4'" };
        gboolean is_copy = strcmp(data, "plain-q35-copy.xml") == 0;
        gboolean is_commit = strcmp(data, "plain-q35-commit.xml") == 0;
        g_autofree char *theirs = fixture(data);
        g_autoptr(Definition) definition = read_fixture("plain-q35.xml");
        g_autoptr(GPtrArray) chain =
                is_commit ? images(IMAGES "overlay.qcow2", "qcow2", IMAGES "disk.qcow2", "qcow2",
                                   IMAGES "base.qcow2", "qcow2", NULL)
                          : images(IMAGES "disk.qcow2", "qcow2", IMAGES "base.qcow2", "qcow2", NULL);
        DiskImages disk = { "vda", chain, TRUE };
        g_autofree char *ours = NULL, *their_disk = NULL, *our_disk = NULL;

        if (is_copy || is_commit) {
                disk.mirror_job = is_copy ? "copy" : "active-commit";
                disk.mirror = (ImageName){ (char *) (is_copy ? IMAGES "copy.qcow2" : IMAGES "base.qcow2"),
                                           (char *) "qcow2" };
                disk.mirror_ready = TRUE;
        }
        ours = definition_to_xml(definition, &disk, 1, 7);
        g_assert_true(g_str_has_prefix(ours, "<domain type='qemu' id='7'>\n"));
        their_disk = disk_of(theirs);
        our_disk = disk_of(ours);
        if (is_copy)
                /* what is under the mirror is not told here */
                cut(their_disk, "        <backingStore/>\n      </mirror>", "        <backingStore/>\n");
        for (guint i = 0; is_commit && i < G_N_ELEMENTS(numbers); i++) {
                /* libvirt's numbers go on from job to job */
                cut(their_disk, numbers[i], numbers[i]);
                cut(our_disk, numbers[i], numbers[i]);
        }
        g_assert_cmpstr(our_disk, ==, their_disk);
}

typedef struct {
        const char *image, *format, *disk;
} Change;

static const Change changes[] = {
        { "/new.img", "raw",
          "<disk type='file' device='disk'>\n      <driver name='qemu' type='raw'/>\n      <source "
          "file='/new.img'/>\n" },
        { "/dev/vg/new", "raw",
          "<disk type='block' device='disk'>\n      <driver name='qemu' type='raw'/>\n      <source "
          "dev='/dev/vg/new'/>\n" },
        { "/a'<&\">", "qcow2",
          "<disk type='file' device='disk'>\n      <driver name='qemu' type='qcow2'/>\n"
          "      <source file='/a&apos;&lt;&amp;&quot;&gt;'/>\n" },
        { "nbd://[::1]:10809/a%20b", "raw",
          "<disk type='network' device='disk'>\n      <driver name='qemu' type='raw'/>\n"
          "      <source protocol='nbd' name='a b'>\n        <host name='::1' port='10809'/>\n      "
          "</source>\n" },
        { "nbd+unix:///x?socket=/run/s", "raw",
          "<disk type='network' device='disk'>\n      <driver name='qemu' type='raw'/>\n"
          "      <source protocol='nbd' name='x'>\n        <host transport='unix' socket='/run/s'/>\n      "
          "</source>\n" },
        { "rbd:pool/image:conf=/etc/ceph.conf:id=me", "raw",
          "<disk type='network' device='disk'>\n      <driver name='qemu' type='raw'/>\n"
          "      <source protocol='rbd' name='pool/image'>\n        <config file='/etc/ceph.conf'/>\n"
          "        <auth username='me'/>\n      </source>\n" },
        { "iscsi://me@[::1]:3260/iqn.2001-04.com.example/1", "raw",
          "<disk type='network' device='disk'>\n      <driver name='qemu' type='raw'/>\n"
          "      <source protocol='iscsi' name='iqn.2001-04.com.example/1'>\n"
          "        <host name='::1' port='3260'/>\n        <auth username='me'/>\n      </source>\n" },
};

static void is_changed(gconstpointer data)
{
        const Change *row = data;
        g_autoptr(Definition) definition = read_fixture("plain-pc-running.xml"), again = NULL;
        g_autoptr(GPtrArray) chain = images(row->image, row->format, NULL);
        const DiskImages disk = { "vda", chain, FALSE };
        g_autofree char *xml = definition_to_xml(definition, &disk, 1, 0), *written = disk_of(xml);

        if (!g_str_has_prefix(written, row->disk))
                g_assert_cmpstr(written, ==, row->disk);
        again = parse(xml);
        g_assert_cmpstr(definition_disk(again, "vda")->image.source, ==, row->image);
        g_assert_cmpstr(definition_disk(again, "vda")->image.format, ==, row->format);
        g_assert_null(definition_disk(again, "vda")->backing);
}

static void no_medium(void)
{
        g_autoptr(Definition) definition = read_fixture("every-disk.xml"), again = NULL, empty = NULL;
        g_autoptr(GPtrArray) chain = images("/cd.iso", "raw", NULL);
        DiskImages disk = { "sdb", chain, TRUE };
        g_autofree char *full = definition_to_xml(definition, &disk, 1, 0), *xml = NULL;

        again = parse(full);
        g_assert_cmpstr(definition_disk(again, "sdb")->image.source, ==, "/cd.iso");
        disk.images = NULL;
        xml = definition_to_xml(again, &disk, 1, 0);
        empty = parse(xml);
        g_assert_cmpstr(definition_disk(empty, "sdb")->image.source, ==, "");
        g_assert_cmpstr(xml, ==, definition->xml);
}

static void made_uuid(void)
{
        g_autoptr(Definition) definition = parse(
                "<domain type='qemu' xmlns:q='r'><!-- kept --><name>a</name><memory unit='MiB'>64</memory>"
                "<metadata><q:b c=\"ü\"/> ö</metadata><os><type>hvm</type></os></domain>");
        g_autofree char *expected = g_strdup_printf(
                "<domain type='qemu' xmlns:q='r'>\n  <!-- kept -->\n  <name>a</name>\n  <uuid>%s</uuid>\n"
                "  <memory unit='MiB'>64</memory>\n  <metadata><q:b c=\"ü\"/> ö</metadata>\n  <os>\n"
                "    <type>hvm</type>\n  </os>\n</domain>\n",
                definition->uuid);

        g_assert_true(g_uuid_string_is_valid(definition->uuid));
        g_assert_cmpstr(definition->xml, ==, expected);
}

int main(int argc, char **argv)
{
        static const char *const files[] = { "plain-pc.xml", "plain-q35.xml", "kvm-q35.xml",
                                             "every-disk.xml" };
        static const char *const live[] = { "plain-q35-running.xml", "plain-q35-copy.xml",
                                            "plain-q35-commit.xml" };

        g_test_init(&argc, &argv, NULL);
        for (guint i = 0; i < G_N_ELEMENTS(files); i++) {
                g_autofree char *name = g_strdup_printf("/definition-xml/unchanged/%s", files[i]);
                g_test_add_data_func(name, files[i], unchanged);
        }
        for (guint i = 0; i < G_N_ELEMENTS(live); i++) {
                g_autofree char *name = g_strdup_printf("/definition-xml/as-libvirt/%s", live[i]);
                g_test_add_data_func(name, live[i], as_libvirt);
        }
        for (guint i = 0; i < G_N_ELEMENTS(changes); i++) {
                g_autofree char *name = g_strdup_printf("/definition-xml/changed/%u", i + 1);
                g_test_add_data_func(name, &changes[i], is_changed);
        }
        g_test_add_data_func("/definition-xml/running/pc", "plain-pc", running);
        g_test_add_data_func("/definition-xml/running/q35", "plain-q35", running);
        g_test_add_func("/definition-xml/plain", plain);
        g_test_add_func("/definition-xml/every-disk", every_disk);
        g_test_add_func("/definition-xml/no-medium", no_medium);
        g_test_add_func("/definition-xml/made-uuid", made_uuid);
        return g_test_run();
}
