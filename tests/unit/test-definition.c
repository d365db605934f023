/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the XML of a domain says, and what of it is refused, and in which words. */
#include <string.h>

#include "base/error.h"
#include "domain/definition.h"

/* What is beside the devices is in line 5, the devices are in line 7. */
#define DOMAIN(more, devices)                                                                            \
        "<domain type='kvm'>\n<name>vm</name>\n<memory>65536</memory>\n<os><type>hvm</type></os>\n" more \
        "\n<devices>\n" devices "\n</devices>\n</domain>"
#define DISK(more) "<disk><target dev='vda'/>" more "</disk>"
#define FILE_DISK(more) DISK("<source file='/a'/>" more)
#define NETWORK(source) "<disk type='network'><target dev='vda'/>" source "</disk>"

static Definition *parse(const char *xml)
{
        GError *error = NULL;
        Definition *definition = definition_parse(xml, NULL, &error);

        g_assert_no_error(error);
        return definition;
}

/* ---- what is refused ---- */

typedef struct {
        const char *xml, *message;
} Bad;

static const Bad bad[] = {
        /* not the text it should be */
        { "", "line 1: Document is empty" },
        { "<domain type='kvm'>\n<name>", "line 2: Premature end" },
        { "<domain>\n&undefined;</domain>", "line 2: Entity 'undefined' not defined" },
        { "<domain type='kvm' type='kvm'/>", "line 1: Attribute type redefined" },
        { "\xff", "line 1: its encoding is to be UTF-8" },
        { "<?xml version='1.0' encoding='ISO-8859-1'?><domain/>", "line 1: its encoding is to be UTF-8" },
        { "<!DOCTYPE domain SYSTEM 'file:///etc/passwd'>\n<domain/>", "line 1: a document type" },
        { "<!DOCTYPE d [<!ENTITY x SYSTEM 'http://localhost/'>]><domain>&x;</domain>",
          "line 1: a document type" },
        { "<!DOCTYPE d [<!ENTITY a 'aaa'>]><domain>&a;</domain>", "line 1: a document type" },
        { "<domain>\n<!-- a -- b -->\n</domain>", "line 2: '--' has no place in a comment" },
        { "<machine/>", "line 1: the document is a 'machine', not a 'domain'" },
        { "<q:domain xmlns:q='a'/>", "line 1: the document is a 'q:domain', not a 'domain'" },

        /* the domain */
        { "<domain/>", "line 1: 'domain' has no attribute 'type'" },
        { "<domain type='xen'/>", "line 1: value 'xen' of attribute 'type' of 'domain' is not understood: "
                                  "'kvm' or 'qemu' is wanted" },
        { "<domain type='kvm'>\n<memory>1</memory></domain>", "line 1: 'domain' has no 'name'" },
        { "<domain type='kvm'>\n<name>a</name></domain>", "line 1: 'domain' has no 'memory'" },
        { "<domain type='kvm'>\n<name>a/b</name></domain>",
          "line 2: value 'a/b' of 'name': up to 128 letters" },
        { "<domain type='kvm'>\n<name>.a</name></domain>", "line 2: value '.a' of 'name'" },
        { "<domain type='kvm'>\n<name/></domain>", "line 2: value '' of 'name'" },
        { "<domain type='kvm'>\n<name>a</name>\n<uuid>b</uuid></domain>",
          "line 3: value 'b' of 'uuid' is no UUID" },
        { "<domain type='kvm'><name>a</name>\n<memory unit='GiB'>two</memory></domain>",
          "line 2: value 'two' of 'memory' is no number" },
        { "<domain type='kvm'><name>a</name>\n<memory>two GiB</memory></domain>",
          "line 2: value 'two GiB' of 'memory' is no number" },
        { "<domain type='kvm'><name>a</name>\n<memory>-1</memory></domain>",
          "line 2: value '-1' of 'memory'" },
        { "<domain type='kvm'><name>a</name>\n<memory>18446744073709551616</memory></domain>",
          "is no number" },
        { "<domain type='kvm'><name>a</name>\n<memory unit='TiB'>18446744073709551615</memory></domain>",
          "line 2: value '18446744073709551615' of 'memory': from 1 MiB to 64 TiB are wanted" },
        { "<domain type='kvm'><name>a</name>\n<memory>0</memory></domain>",
          "from 1 MiB to 64 TiB are wanted" },
        { "<domain type='kvm'><name>a</name>\n<memory unit='pages'>1</memory></domain>",
          "line 2: value 'pages' of attribute 'unit' of 'memory' is none of" },
        { DOMAIN("<currentMemory>32768</currentMemory>", ""), "line 5: a 'currentMemory' that is not all" },
        { DOMAIN("<vcpu>0</vcpu>", ""), "line 5: value '0' of 'vcpu': a number from 1 to 4096 is wanted" },
        { DOMAIN("<vcpu>5000</vcpu>", ""), "line 5: value '5000' of 'vcpu'" },
        { DOMAIN("<vcpu>99999999999999999999</vcpu>", ""),
          "line 5: value '99999999999999999999' of 'vcpu'" },
        { DOMAIN("<vcpu current='1'>2</vcpu>", ""), "line 5: a 'current' of 'vcpu'" },
        { DOMAIN("<vcpu cpuset='1'>2</vcpu>", ""),
          "line 5: attribute 'cpuset' of 'vcpu' is not understood" },
        { DOMAIN("<vcpu>2</vcpu><cpu><topology sockets='1' cores='1' threads='1'/></cpu>", ""),
          "line 5: the 'topology' is of another number of CPUs" },
        { DOMAIN("<cpu mode='host-model'><model>a</model></cpu>", ""),
          "line 5: a 'cpu' of mode 'host-model'" },
        { DOMAIN("<cpu><feature name='a'/></cpu>", ""), "line 5: 'cpu' has a 'feature' and no 'model'" },
        { DOMAIN("<cpu><model>a,b</model></cpu>", ""), "line 5: value 'a,b' of 'model': a name of letters" },
        { DOMAIN("<on_crash>restart</on_crash>", ""),
          "line 5: value 'restart' of 'on_crash' is not understood: 'destroy' or 'preserve' is wanted" },
        { DOMAIN("<clock offset='variable'/>", ""),
          "line 5: value 'variable' of attribute 'offset' of 'clock'" },
        { DOMAIN("<clock offset='utc'><timer name='rtc' track='guest'/></clock>", ""),
          "line 5: attribute 'track' of 'timer' is not understood" },
        { DOMAIN("<clock offset='utc'><timer name='pit' tickpolicy='catchup'/></clock>", ""),
          "line 5: timer 'pit' is not understood like this" },
        { DOMAIN("<features>\n<hyperv/></features>", ""),
          "line 6: element 'hyperv' in 'features' is not understood" },
        { DOMAIN("<memoryBacking/>", ""), "line 5: element 'memoryBacking' in 'domain' is not understood" },
        { DOMAIN("<x:commandline xmlns:x='y'/>", ""), "line 5: element 'x:commandline' in 'domain'" },
        { DOMAIN("stray", ""), "text 'stray' in 'domain' is not understood" },
        { DOMAIN("<name>other</name>", ""),
          "line 5: a second element 'name' in 'domain' is not understood" },
        { DOMAIN("<resource><partition>/other</partition></resource>", ""),
          "line 5: value '/other' of 'partition'" },
        { DOMAIN("<seclabel type='static' model='dac'/>", ""),
          "line 5: value 'static' of attribute 'type'" },
        { "<domain type='kvm'><name>a</name><memory>65536</memory></domain>",
          "'domain' has no 'type' in 'os'" },
        { "<domain type='kvm'><name>a</name><memory>65536</memory>\n<os "
          "firmware='efi'><type>hvm</type></os></domain>",
          "line 2: a 'firmware' without 'loader' is not understood" },
        { "<domain "
          "type='kvm'><name>a</name><memory>65536</memory>\n<os><type>hvm</type><loader>/a</loader></os></"
          "domain>",
          "line 2: a 'loader' without type 'pflash' is not understood" },
        { "<domain "
          "type='kvm'><name>a</name><memory>65536</memory>\n<os><type>hvm</type><initrd>/a</initrd></os></"
          "domain>",
          "line 2: 'initrd' and 'cmdline' are nothing without 'kernel'" },

        /* disks */
        { DOMAIN("", "<disk/>"), "line 7: 'disk' has no 'target'" },
        { DOMAIN("", DISK("")), "line 7: disk 'vda' has no 'source'" },
        { DOMAIN("", FILE_DISK("") "\n" FILE_DISK("")),
          "line 8: there is a second disk 'vda': the first is in line 7" },
        { DOMAIN("", "<disk><target dev='vd'/></disk>"),
          "line 7: value 'vd' of attribute 'dev' of 'target'" },
        { DOMAIN("", "<disk><target dev='vda1'/></disk>"), "line 7: value 'vda1'" },
        { DOMAIN("", "<disk><target dev='vdaaa'/></disk>"), "line 7: value 'vdaaa'" },
        { DOMAIN("", "<disk><target dev='xvda'/></disk>"), "line 7: 'target' has no attribute 'bus'" },
        { DOMAIN("", "<disk type='dir'/>"), "line 7: value 'dir' of attribute 'type' of 'disk' is not "
                                            "understood: 'file', 'block' or 'network' is wanted" },
        { DOMAIN("", "<disk device='floppy'/>"), "line 7: value 'floppy' of attribute 'device' of 'disk'" },
        { DOMAIN("", DISK("<source file='a'/>")),
          "line 7: value 'a' of attribute 'file' of 'source': an absolute path is wanted" },
        { DOMAIN("", DISK("<source file='/a&#10;b'/>")), "text on one line is wanted" },
        { DOMAIN("", DISK("<source dev='/a'/>")), "line 7: attribute 'dev' of 'source' has no place" },
        { DOMAIN("", FILE_DISK("<driver type='vmdk'/>")), "value 'vmdk' of attribute 'type' of 'driver'" },
        { DOMAIN("", FILE_DISK("<driver cache='always'/>")),
          "value 'always' of attribute 'cache' of 'driver'" },
        { DOMAIN("", FILE_DISK("<driver io='native'/>")), "io='native' needs cache='none'" },
        { DOMAIN("", FILE_DISK("<driver iothread='1'/>")), "there is no iothread 1: 'iothreads' is 0" },
        { DOMAIN("", FILE_DISK("<encryption/>")), "element 'encryption' in 'disk' is not understood" },
        { DOMAIN("", FILE_DISK("<serial>a,b</serial>")), "value 'a,b' of 'serial'" },
        { DOMAIN("", FILE_DISK("<boot order='0'/>")), "a number from 1 to 1024 is wanted" },
        { DOMAIN("", FILE_DISK("<iotune><read_iops_sec>-1</read_iops_sec></iotune>")),
          "value '-1' of 'read_iops_sec'" },
        { DOMAIN("", FILE_DISK("<iotune><read_iops_sec_max>1</read_iops_sec_max></iotune>")),
          "'read_iops_sec_max' is nothing without 'read_iops_sec'" },
        { DOMAIN("", FILE_DISK("<iotune><read_iops_sec>1</read_iops_sec><total_iops_sec>1</total_iops_sec></"
                               "iotune>")),
          "there is both 'total_iops_sec' and 'read_iops_sec'" },
        { DOMAIN("", FILE_DISK("<address type='usb'/>")), "this 'disk' has no address of type 'usb'" },
        { DOMAIN("", FILE_DISK("<address type='pci' slot='0x20'/>")), "value '0x20' of attribute 'slot'" },
        { DOMAIN("", FILE_DISK("<address type='pci' unit='1'/>")),
          "an 'address' of type 'pci' has no 'unit'" },
        { DOMAIN("", FILE_DISK("<backingStore><format type='raw'/></backingStore>")),
          "an image of format 'raw' has nothing under it" },
        { DOMAIN("",
                 FILE_DISK("<driver type='qcow2'/><backingStore><format type='qcow2'/><source file='/b'/>"
                           "</backingStore>")),
          "a 'backingStore' that does not end with an empty one is not understood" },
        { DOMAIN("", FILE_DISK("<driver type='qcow2'/><backingStore><source file='/b'/></backingStore>")),
          "'backingStore' has no 'format'" },
        { DOMAIN("", NETWORK("<source name='a'/>")), "'source' has no attribute 'protocol'" },
        { DOMAIN("", NETWORK("<source protocol='gluster'/>")), "value 'gluster' of attribute 'protocol'" },
        { DOMAIN("", NETWORK("<source protocol='nbd'/>")), "'source' has no 'host' with a 'name'" },
        { DOMAIN("", NETWORK("<source protocol='nbd'><host name='a,b'/></source>")),
          "value 'a,b' of attribute 'name'" },
        { DOMAIN("", NETWORK("<source protocol='nbd'><host name='a'/><host name='b'/></source>")),
          "a second element 'host' in 'source' is not understood" },
        { DOMAIN("", NETWORK("<source protocol='nbd'><host transport='unix'/></source>")),
          "has a 'socket'" },
        { DOMAIN("", NETWORK("<source protocol='rbd' name='image'/>")), "rbd:POOL/IMAGE" },
        { DOMAIN("", NETWORK("<source protocol='rbd' name='a/b'><host name='a'/></source>")),
          "element 'host' in 'source' is not understood with protocol 'rbd'" },
        { DOMAIN("",
                 NETWORK("<source protocol='rbd' name='a/b'><auth username='u'><secret/></auth></source>")),
          "element 'secret' in 'auth' is not understood" },
        { DOMAIN("", NETWORK("<source protocol='iscsi' name='iqn/x'><host name='a'/></source>")),
          "the LUN is not a number" },

        /* other devices */
        { DOMAIN("", "<hostdev/>"), "line 7: element 'hostdev' in 'devices' is not understood" },
        { DOMAIN("", "<sound model='ich9'/>"), "element 'sound' in 'devices' is not understood" },
        { DOMAIN("", "<controller type='usb' model='none'/>"),
          "value 'none' of attribute 'model' of a 'controller'" },
        { DOMAIN("", "<controller type='usb'/><controller type='usb'/>"),
          "there is a second controller of type 'usb' with index 0" },
        { DOMAIN("", "<interface type='network'/>"), "value 'network' of attribute 'type' of 'interface'" },
        { DOMAIN("", "<interface type='bridge'/>"), "has no 'source' with a 'bridge'" },
        { DOMAIN("", "<interface type='ethernet'/>"), "needs <target dev='…' managed='no'>" },
        { DOMAIN("", "<interface type='user'><mac address='01:00:00:00:00:00'/></interface>"),
          "no address of one device" },
        { DOMAIN("", "<interface type='user'><mac address='52:54:00:00:00:0g'/></interface>"),
          "no address of one device" },
        { DOMAIN("", "<serial type='tcp'/>"), "value 'tcp' of attribute 'type' of 'serial'" },
        { DOMAIN("", "<serial type='file'/>"), "a 'serial' of type 'file' has no 'source' with a 'path'" },
        { DOMAIN("", "<serial type='pty'><log file='/a'/></serial>"), "element 'log' in 'serial'" },
        { DOMAIN("", "<graphics type='spice'/>"), "value 'spice' of attribute 'type' of 'graphics'" },
        { DOMAIN("", "<graphics type='vnc' passwd='x'/>"), "attribute 'passwd' of 'graphics'" },
        { DOMAIN("", "<graphics type='vnc' port='80'/>"), "value '80' of attribute 'port' of 'graphics'" },
        { DOMAIN("", "<graphics type='vnc'><listen type='address' address='::,to=9'/></graphics>"),
          "value '::,to=9'" },
        { DOMAIN("", "<rng model='virtio'><backend model='egd'/></rng>"),
          "value 'egd' of attribute 'model'" },
        { DOMAIN("", "<input type='tablet' bus='ps2'/>"), "there is no tablet with bus='ps2'" },
};

static void is_refused(gconstpointer data)
{
        const Bad *row = data;
        g_autoptr(Definition) definition = NULL;
        g_autoptr(GError) error = NULL;

        definition = definition_parse(row->xml, NULL, &error);
        g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
        g_assert_null(definition);
        g_assert_true(g_str_has_prefix(error->message, "line "));
        if (!strstr(error->message, row->message))
                g_assert_cmpstr(error->message, ==, row->message);
}

/* ---- limits ---- */

static char *repeat(const char *text, guint n)
{
        GString *all = g_string_new(NULL);

        for (guint i = 0; i < n; i++)
                g_string_append(all, text);
        return g_string_free(all, FALSE);
}

static void assert_limit(const char *xml, GPtrArray *ignored, const char *message)
{
        g_autoptr(GError) error = NULL;

        g_assert_null(definition_parse(xml, ignored, &error));
        g_assert_error(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED);
        if (!strstr(error->message, message))
                g_assert_cmpstr(error->message, ==, message);
}

static void size(void)
{
        g_autoptr(Definition) without = parse(DOMAIN("<title>x</title>", ""));
        g_autofree char *fill = g_strnfill(DEFINITION_XML_MAX - strlen(without->xml) + 1, 'x');
        g_autofree char *most = g_strdup_printf(DOMAIN("<title>%s</title>", ""), fill);
        g_autofree char *more = g_strdup_printf(DOMAIN("<title>%sx</title>", ""), fill);
        g_autofree char *long_text = g_strnfill(DEFINITION_XML_MAX + 1, ' ');
        g_autofree char *value = g_strdup_printf(DOMAIN("", "<disk type='%.1000s'/>"), fill);
        g_autofree char *tag = g_strdup_printf(DOMAIN("", "\n<disk type='%.17000s'/>"), fill);
        g_autoptr(Definition) definition = parse(most);
        g_autoptr(GError) error = NULL;

        g_assert_cmpuint(strlen(definition->xml), ==, DEFINITION_XML_MAX);
        assert_limit(more, NULL,
                     "the XML is longer than 1048576 bytes with its elements on lines of their own");
        assert_limit(long_text, NULL, "the XML is longer than 1048576 bytes");
        assert_limit(tag, NULL, "line 8: a tag is longer than");
        g_assert_null(definition_parse(value, NULL, &error));
        g_assert_cmpuint(strlen(error->message), <, 300);
}

static void depth(void)
{
        g_autofree char *open = repeat("<a>\n", 62), *close = repeat("</a>", 62);
        g_autofree char *most = g_strdup_printf(DOMAIN("<metadata>%s%s</metadata>", ""), open, close);
        g_autofree char *more = g_strdup_printf(DOMAIN("<metadata>%s<b/>%s</metadata>", ""), open, close);
        g_autoptr(Definition) definition = parse(most);

        assert_limit(more, NULL, "line 67: more than 64 elements in each other");
}

static void left_out(void)
{
        g_autofree char *unknown = repeat("<x/>", 1001);
        g_autofree char *xml = g_strdup_printf(DOMAIN("%s", ""), unknown);
        g_autoptr(GPtrArray) ignored = g_ptr_array_new_with_free_func(g_free);

        assert_limit(xml, ignored, "more than 1000 things are not understood");
}

/* What takes libxml2 or a careless reader a time that grows with the square of the size. */
static void hostile_shapes(void)
{
        static const char *const shapes[] = { "<!--",
                                              "<",
                                              "<disk a='",
                                              "<console type='pty'/>",
                                              "<?a?>",
                                              "<![CDATA[x]]>",
                                              "<a xmlns:b='c' d='e'/>",
                                              "&lt;",
                                              "\n",
                                              "<!--- -->" };

        for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
                g_autofree char *many = repeat(shapes[i], 200000 / (guint) strlen(shapes[i]));
                g_autofree char *xml = g_strdup_printf(DOMAIN("", "%s"), many);
                g_autoptr(Definition) definition = NULL;
                gint64 start = g_get_monotonic_time();

                definition = definition_parse(xml, NULL, NULL);
                g_assert_cmpint(g_get_monotonic_time() - start, <, 10 * G_USEC_PER_SEC);
        }
}

/* ---- lenient ---- */

static void lenient(void)
{
        static const char *const expected[] = {
                "line 1: attribute 'other' of 'domain' is not understood",
                "line 5: element 'memoryBacking' in 'domain' is not understood",
                "line 6: text 'stray' in 'domain' is not understood",
                "line 7: value 'network' of attribute 'type' of 'interface' is not understood: 'user', "
                "'bridge' or "
                "'ethernet' is wanted",
                "line 8: value 'vmdk' of attribute 'type' of 'driver' is not understood: 'raw' or 'qcow2' "
                "is wanted",
                "line 8: element 'disk' is left out with its 'driver'",
                "line 9: value 'odd' of attribute 'cache' of 'driver' is not understood: 'default', 'none', "
                "'writeback', 'writethrough', 'directsync' or 'unsafe' is wanted",
                "line 9: a 'backingStore' that does not end with an empty one is not understood",
        };
        const char *xml = "<domain type='kvm' other='1'>\n<name>vm</name>\n<memory>65536</memory>\n"
                          "<os><type>hvm</type></os>\n<memoryBacking/>\nstray<devices>\n"
                          "<interface type='network'/>\n"
                          "<disk><driver type='vmdk'/><source file='/a'/><target dev='vda'/></disk>\n"
                          "<disk><driver type='qcow2' cache='odd' discard='unmap'/><source file='/b'/>"
                          "<backingStore><format type='qcow2'/><source file='/c'/></backingStore>"
                          "<target dev='vdb'/></disk>\n</devices>\n</domain>";
        g_autoptr(GPtrArray) ignored = g_ptr_array_new_with_free_func(g_free);
        g_autoptr(Definition) definition = NULL, again = NULL;
        const DefinitionDisk *disk;
        GError *error = NULL;

        definition = definition_parse(xml, ignored, &error);
        g_assert_no_error(error);
        for (guint i = 0; i < MIN(ignored->len, G_N_ELEMENTS(expected)); i++)
                g_assert_cmpstr(ignored->pdata[i], ==, expected[i]);
        g_assert_cmpuint(ignored->len, ==, G_N_ELEMENTS(expected));
        g_assert_cmpuint(definition->interfaces->len, ==, 0);
        g_assert_null(definition_disk(definition, "vda"));
        disk = definition_disk(definition, "vdb");
        g_assert_null(disk->cache);
        g_assert_null(disk->backing);
        g_assert_cmpstr(disk->discard, ==, "unmap");

        again = parse(definition->xml);
        g_assert_cmpstr(again->xml, ==, definition->xml);
        g_assert_null(strstr(definition->xml, "vmdk"));
        g_assert_null(strstr(definition->xml, "odd"));
}

/* What is wrong is not what is not understood. */
static void wrong_is_refused_by_lenient(void)
{
        g_autoptr(GPtrArray) ignored = g_ptr_array_new_with_free_func(g_free);
        g_autoptr(GError) error = NULL;

        g_assert_null(definition_parse(DOMAIN("<vcpu>0</vcpu>", ""), ignored, &error));
        g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
                g_autofree char *name = g_strdup_printf("/definition/bad/%u", i + 1);
                g_test_add_data_func(name, &bad[i], is_refused);
        }
        g_test_add_func("/definition/size", size);
        g_test_add_func("/definition/depth", depth);
        g_test_add_func("/definition/left-out", left_out);
        g_test_add_func("/definition/hostile-shapes", hostile_shapes);
        g_test_add_func("/definition/lenient", lenient);
        g_test_add_func("/definition/wrong-is-refused-by-lenient", wrong_is_refused_by_lenient);
        return g_test_run();
}
