/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/xml-read.h"

#include <string.h>

#include "job/target-uri.h"

#define SERIAL_MAX 247

/* ---- sources ---- */

static char *escape(const char *text, const char *allowed)
{
        return g_uri_escape_string(text, allowed, FALSE);
}

/* HOST[:PORT] as a URI has it; NULL = error. */
static char *authority(Reader *reader, const xmlNode *source, const xmlNode *host)
{
        const char *name = xml_attribute(host, "name"), *port = xml_attribute(host, "port");
        g_autofree char *escaped = NULL;

        if (!name || xml_attribute(host, "socket") || xml_has(host, "transport", "unix")) {
                xml_refuse(reader, host ? host : source, "'source' has no 'host' with a 'name'");
                return NULL;
        }
        escaped = escape(name, ":");
        return g_strdup_printf(strchr(name, ':') ? "[%s]%s%s" : "%s%s%s", escaped, port ? ":" : "",
                               port ? port : "");
}

static char *nbd_uri(Reader *reader, const xmlNode *source)
{
        const xmlNode *host = xml_child(source, "host");
        const char *name = xml_attribute(source, "name"), *socket = xml_attribute(host, "socket");
        /* One "/" at the start is the name's own. */
        gsize slash = name && *name == '/' ? 1 : 0;
        g_autofree char *rest = name ? escape(name + slash, "/!$&'()*+,;=:@") : g_strdup("");
        g_autofree char *export = g_strconcat(slash ? "%2F" : "", rest, NULL);
        g_autofree char *place = NULL, *path = NULL;

        if (xml_has(host, "transport", "unix")) {
                if (!socket || xml_attribute(host, "name") || xml_attribute(host, "port")) {
                        xml_refuse(reader, host,
                                   "a 'host' with transport 'unix' has a 'socket' and nothing else");
                        return NULL;
                }
                path = escape(socket, "/");
                return g_strdup_printf("nbd+unix:///%s?socket=%s", export, path);
        }
        place = authority(reader, source, host);
        return place ? g_strdup_printf("nbd://%s/%s", place, export) : NULL;
}

static char *rbd_escape(const char *text, const char *special)
{
        GString *escaped = g_string_new(NULL);

        for (const char *c = text; *c; c++) {
                if (strchr(special, *c))
                        g_string_append_c(escaped, '\\');
                g_string_append_c(escaped, *c);
        }
        return g_string_free(escaped, FALSE);
}

static char *rbd_uri(Reader *reader, const xmlNode *source)
{
        const char *name = xml_attribute(source, "name");
        const char *conf = xml_child_attribute(source, "config", "file");
        const char *user = xml_child_attribute(source, "auth", "username");
        g_autofree char *image = name ? rbd_escape(name, "\\:@") : NULL;
        g_autofree char *file = conf ? rbd_escape(conf, "\\:") : NULL;
        g_autofree char *id = user ? rbd_escape(user, "\\:") : NULL;

        if (!name) {
                xml_refuse(reader, source, "'source' has no 'name'");
                return NULL;
        }
        return g_strconcat("rbd:", image, file ? ":conf=" : "", file ? file : "", id ? ":id=" : "",
                           id ? id : "", NULL);
}

static char *iscsi_uri(Reader *reader, const xmlNode *source)
{
        const char *name = xml_attribute(source, "name");
        const char *user = xml_child_attribute(source, "auth", "username");
        g_autofree char *place = authority(reader, source, xml_child(source, "host"));
        g_auto(GStrv) parts = name ? g_strsplit(name, "/", 2) : NULL;
        g_autofree char *target = parts && parts[0] ? escape(parts[0], ":") : NULL;

        if (place && !target)
                xml_refuse(reader, source, "'source' has no 'name'");
        if (!place || !target)
                return NULL;
        return g_strconcat("iscsi://", user ? user : "", user ? "@" : "", place, "/", target, "/",
                           parts[1] ? parts[1] : "0", NULL);
}

static const struct {
        const char *name;
        char *(*uri)(Reader *reader, const xmlNode *source);
        const char *children; /* that have a meaning with it */
} protocols[] = {
        { "nbd", nbd_uri, "host" },
        { "rbd", rbd_uri, "config auth" },
        { "iscsi", iscsi_uri, "host auth" },
};

/* FALSE where a child has no meaning with that protocol. */
static gboolean check_children(Reader *reader, xmlNode *source, const char *protocol, const char *known)
{
        guint hosts = 0;

        for (xmlNode *child = xmlFirstElementChild(source), *next; child; child = next) {
                const char *name = (const char *) child->name;
                gboolean is_host = strcmp(name, "host") == 0;

                next = xmlNextElementSibling(child);
                if (!strstr(known, name) || (is_host && hosts++ > 0)) {
                        if (!xml_leave_out(reader, child, NULL,
                                           is_host && hosts > 1
                                                   ? "a second element '%s' in 'source' is not understood"
                                                   : "element '%s' in 'source' is not understood with "
                                                     "protocol '%s'",
                                           name, protocol))
                                return FALSE;
                }
        }
        return TRUE;
}

static char *read_network(Reader *reader, xmlNode *source)
{
        const char *protocol = xml_attribute(source, "protocol");
        g_autofree char *uri = NULL;
        g_autoptr(GError) error = NULL;
        g_autoptr(JsonObject) options = NULL;

        for (guint i = 0; i < G_N_ELEMENTS(protocols); i++)
                if (g_strcmp0(protocol, protocols[i].name) == 0 &&
                    check_children(reader, source, protocol, protocols[i].children))
                        uri = protocols[i].uri(reader, source);
        if (!uri) {
                if (!protocol)
                        xml_refuse(reader, source, "'source' has no attribute 'protocol'");
                return NULL;
        }
        options = target_uri_to_blockdev(uri, NULL, &error);
        if (options)
                return g_steal_pointer(&uri);
        xml_refuse(reader, source, "%s", error->message);
        return NULL;
}

/* What is in `holder`, a disk or a <backingStore>: its text, "" = none; NULL = error. */
static char *read_source(Reader *reader, xmlNode *holder)
{
        static const struct {
                const char *type, *attribute, *others[3];
        } types[] = {
                { "file", "file", { "dev", "protocol", "name" } },
                { "block", "dev", { "file", "protocol", "name" } },
                { "network", "protocol", { "file", "dev" } },
        };
        const char *type = xml_attribute(holder, "type");
        xmlNode *source = xml_child(holder, "source");
        guint i = 0;

        if (!source)
                return g_strdup("");
        while (type && strcmp(type, types[i].type) != 0)
                i++;
        for (guint j = 0; j < G_N_ELEMENTS(types[i].others) && types[i].others[j]; j++)
                if (xml_attribute(source, types[i].others[j])) {
                        xml_refuse(reader, source,
                                   "attribute '%s' of 'source' has no place where the type is '%s'",
                                   types[i].others[j], types[i].type);
                        return NULL;
                }
        if (i == G_N_ELEMENTS(types) - 1)
                return read_network(reader, source);
        if (xmlFirstElementChild(source)) {
                xml_refuse(reader, source, "element '%s' of 'source' has no place where the type is '%s'",
                           xmlFirstElementChild(source)->name, types[i].type);
                return NULL;
        }
        if (!xml_attribute(source, types[i].attribute)) {
                xml_refuse(reader, source, "'source' has no attribute '%s'", types[i].attribute);
                return NULL;
        }
        return g_strdup(xml_attribute(source, types[i].attribute));
}

/* ---- chain ---- */

static gboolean is_qcow2(const char *format)
{
        return g_strcmp0(format, "qcow2") == 0;
}

/* A chain that is given is all of it: what comes below is not looked up. */
static gboolean read_chain(Reader *reader, xmlNode *node, DefinitionDisk *disk)
{
        xmlNode *first = xml_child(node, "backingStore");
        const char *format = disk->image.format;
        g_autoptr(GPtrArray) images = NULL;

        if (!first || !*disk->image.source)
                return !first || xmlFirstElementChild(first) == NULL ||
                       xml_refuse(reader, first, "a 'backingStore' is under an image, and there is none");
        images = image_names_new();
        for (xmlNode *store = first;; store = xml_child(store, "backingStore")) {
                ImageName *image;

                if (!store && is_qcow2(format))
                        return xml_leave_out(reader, first, NULL,
                                             "a 'backingStore' that does not end with an empty one is not "
                                             "understood");
                if (!store || !xmlFirstElementChild(store))
                        break;
                if (!is_qcow2(format))
                        return xml_refuse(reader, store, "an image of format '%s' has nothing under it",
                                          format);
                if (!xml_child(store, "format") || !xml_child(store, "source"))
                        return xml_refuse(reader, store, "'backingStore' has no '%s'",
                                          xml_child(store, "format") ? "source" : "format");
                image = image_name_new(NULL, xml_child_attribute(store, "format", "type"));
                g_ptr_array_add(images, image);
                image->source = read_source(reader, store);
                if (!image->source)
                        return FALSE;
                format = image->format;
        }
        disk->backing = g_steal_pointer(&images);
        return TRUE;
}

/* ---- device ---- */

static gboolean is_target(const char *target)
{
        static const char *const prefixes[] = { "vd", "sd", "hd", "xvd" };
        guint i = 0;
        const char *rest;

        while (i < G_N_ELEMENTS(prefixes) && !g_str_has_prefix(target, prefixes[i]))
                i++;
        if (i == G_N_ELEMENTS(prefixes))
                return FALSE;
        rest = target + strlen(prefixes[i]);
        return strspn(rest, "abcdefghijklmnopqrstuvwxyz") == strlen(rest) && *rest && strlen(rest) <= 2;
}

static gboolean read_target(Reader *reader, xmlNode *node, DefinitionDisk *disk)
{
        static const struct {
                const char *name, *prefix;
                DiskBus bus;
                AddressType address;
        } buses[] = {
                { "virtio", "vd", DISK_BUS_VIRTIO, ADDRESS_PCI },
                { "scsi", "sd", DISK_BUS_SCSI, ADDRESS_DRIVE },
                { "ide", "hd", DISK_BUS_IDE, ADDRESS_DRIVE },
                { "sata", "", DISK_BUS_SATA, ADDRESS_DRIVE },
                { "usb", "", DISK_BUS_USB, ADDRESS_USB },
        };
        const xmlNode *target = xml_child(node, "target");
        const char *bus = xml_attribute(target, "bus");
        g_autofree char *name = NULL;
        guint i = 0;

        if (!target)
                return xml_refuse(reader, node, "'disk' has no 'target'");
        disk->target = g_strdup(xml_attribute(target, "dev"));
        if (!is_target(disk->target))
                return xml_refuse(reader, target,
                                  "value '%.64s' of attribute 'dev' of 'target': a name as 'vda' is wanted, "
                                  "of vd, sd, "
                                  "hd or xvd and one or two letters",
                                  disk->target);
        name = g_strdup_printf("disk '%s'", disk->target);
        if (!xml_is_unique(reader, target, name))
                return FALSE;
        while (i < G_N_ELEMENTS(buses) &&
               (bus ? strcmp(bus, buses[i].name) != 0
                    : !*buses[i].prefix || !g_str_has_prefix(disk->target, buses[i].prefix)))
                i++;
        if (i == G_N_ELEMENTS(buses))
                return xml_refuse(reader, target, "'target' has no attribute 'bus'");
        disk->bus = buses[i].bus;
        return xml_read_address(reader, node, buses[i].address, &disk->address);
}

static gboolean read_throttle(Reader *reader, const xmlNode *node, DefinitionDisk *disk)
{
        DefinitionThrottle *throttle = &disk->throttle;
        const struct {
                const char *kind;
                guint64 *rate, *most;
        } limits[] = {
                { "total_bytes", &throttle->total_bytes, &throttle->total_bytes_max },
                { "read_bytes", &throttle->read_bytes, &throttle->read_bytes_max },
                { "write_bytes", &throttle->write_bytes, &throttle->write_bytes_max },
                { "total_iops", &throttle->total_iops, &throttle->total_iops_max },
                { "read_iops", &throttle->read_iops, &throttle->read_iops_max },
                { "write_iops", &throttle->write_iops, &throttle->write_iops_max },
        };
        const xmlNode *iotune = xml_child(node, "iotune");

        for (guint i = 0; i < G_N_ELEMENTS(limits); i++) {
                g_autofree char *rate_name = g_strdup_printf("%s_sec", limits[i].kind);
                g_autofree char *most_name = g_strdup_printf("%s_sec_max", limits[i].kind);
                g_autofree char *rate = xml_child_text(iotune, rate_name);
                g_autofree char *most = xml_child_text(iotune, most_name);

                *limits[i].rate = xml_number(rate);
                *limits[i].most = xml_number(most);
                disk->throttled = disk->throttled || *limits[i].rate > 0;
                if (*limits[i].most > 0 && *limits[i].most < MAX(*limits[i].rate, 1))
                        return xml_refuse(reader, iotune, "'%s' is less than '%s'", most_name, rate_name);
                if (*limits[i].most > 0 && *limits[i].rate == 0)
                        return xml_refuse(reader, iotune, "'%s' is nothing without '%s'", most_name,
                                          rate_name);
                if (i % 3 > 0 && *limits[i].rate > 0 && *limits[i - i % 3].rate > 0)
                        return xml_refuse(reader, iotune, "there is both '%s_sec' and '%s'",
                                          limits[i - i % 3].kind, rate_name);
        }
        return TRUE;
}

static gboolean read_driver(Reader *reader, const xmlNode *node, DefinitionDisk *disk)
{
        xmlNode *driver = xml_child(node, "driver");
        const char *cache = xml_attribute(driver, "cache"), *format = xml_attribute(driver, "type");
        const char *iothread = xml_attribute(driver, "iothread");
        const struct {
                char **place;
                const char *attribute;
        } texts[] = {
                { &disk->io, "io" },
                { &disk->discard, "discard" },
                { &disk->detect_zeroes, "detect_zeroes" },
                { &disk->error_policy, "error_policy" },
                { &disk->read_error_policy, "rerror_policy" },
        };

        disk->image.format = g_strdup(format ? format : "raw");
        disk->cache = g_strcmp0(cache, "default") == 0 ? NULL : g_strdup(cache);
        for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
                *texts[i].place = g_strdup(xml_attribute(driver, texts[i].attribute));
        if (g_strcmp0(disk->io, "native") == 0 && g_strcmp0(disk->cache, "none") != 0 &&
            g_strcmp0(disk->cache, "directsync") != 0)
                return xml_refuse(reader, driver, "io='native' needs cache='none' or cache='directsync'");
        disk->iothread = (guint) xml_number(iothread);
        if (disk->iothread > reader->definition->iothreads)
                return xml_refuse(reader, driver, "there is no iothread %u: 'iothreads' is %u",
                                  disk->iothread, reader->definition->iothreads);
        if (disk->iothread > 0 && disk->bus != DISK_BUS_VIRTIO)
                return xml_refuse(reader, driver,
                                  "only a disk with bus='virtio' has an iothread of its own");
        return TRUE;
}

static gboolean read_serial(Reader *reader, const xmlNode *node, DefinitionDisk *disk)
{
        disk->serial = xml_child_text(node, "serial");
        if (!disk->serial)
                return TRUE;
        for (const char *c = disk->serial; *c; c++)
                if (!g_ascii_isalnum(*c) && !strchr("+.-_ ", *c))
                        return xml_refuse(
                                reader, xml_child(node, "serial"),
                                "value '%.64s' of 'serial': letters, digits, blanks and '+.-_' are wanted",
                                disk->serial);
        return strlen(disk->serial) <= SERIAL_MAX ||
               xml_refuse(reader, xml_child(node, "serial"), "'serial' is longer than %d", SERIAL_MAX);
}

gboolean xml_read_disk(Reader *reader, xmlNode *node)
{
        DefinitionDisk *disk = g_new0(DefinitionDisk, 1);

        g_ptr_array_add(reader->definition->disks, disk);
        disk->cdrom = xml_has(node, "device", "cdrom");
        disk->read_only = disk->cdrom || xml_child(node, "readonly");
        disk->shareable = xml_child(node, "shareable") != NULL;
        if (!read_target(reader, node, disk) || !read_driver(reader, node, disk) ||
            !read_throttle(reader, node, disk) || !read_serial(reader, node, disk) ||
            !xml_read_boot_order(reader, node, &disk->boot_order))
                return FALSE;
        disk->image.source = read_source(reader, node);
        if (!disk->image.source)
                return FALSE;
        if (!*disk->image.source && !disk->cdrom)
                return xml_refuse(reader, node, "disk '%s' has no 'source'", disk->target);
        return read_chain(reader, node, disk);
}
