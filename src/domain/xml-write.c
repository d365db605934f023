/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "base/json.h"
#include "domain/xml-read.h"
#include "job/target-uri.h"

#define INDENT 2

/* ---- text ---- */

/* How libvirt writes: its own elements itself, and <metadata>, which it only keeps, with libxml2. (That
 * would not do here: it does not escape the names of namespaces.) */
typedef struct {
        char quote;
        const char *in_text, *in_value; /* what is escaped */
} Style;

static const Style own_style = { '\'', "<>&'\"", "<>&'\"\r\n\t" };
static const Style metadata_style = { '"', "<>&", "<>&\"\r\n\t" };

/* What XML has no way to say becomes U+FFFD. */
static void append_escaped(GString *text, const char *value, const char *special)
{
        static const char all[] = "<>&'\"\n\t\r";
        static const char *const words[] = { "&lt;",   "&gt;",  "&amp;", "&apos;",
                                             "&quot;", "&#10;", "&#9;",  "&#13;" };

        for (const char *c = value; c && *c; c++)
                if (strchr(special, *c) || *c == '\r')
                        g_string_append(text, words[strchr(all, *c) - all]);
                else if (g_ascii_iscntrl(*c) && *c != '\n' && *c != '\t' && *c != '\x7f')
                        g_string_append(text, "\xef\xbf\xbd");
                else
                        g_string_append_c(text, *c);
}

static void append_name(GString *text, const xmlNs *namespace, const xmlChar *name)
{
        if (namespace && namespace->prefix)
                g_string_append_printf(text, "%s:", namespace->prefix);
        g_string_append(text, (const char *) name);
}

static void append_value(GString *text, const xmlChar *value, const Style *style)
{
        g_string_append_printf(text, "=%c", style->quote);
        append_escaped(text, (const char *) value, style->in_value);
        g_string_append_c(text, style->quote);
}

static void append_namespaces(GString *text, const xmlNode *node, const Style *style)
{
        for (const xmlNs *namespace = node->nsDef; namespace; namespace = namespace->next) {
                g_string_append(text, namespace->prefix ? " xmlns:" : " xmlns");
                g_string_append(text, namespace->prefix ? (const char *) namespace->prefix : "");
                append_value(text, namespace->href, style);
        }
}

static void append_start(GString *text, const xmlNode *node, const Style *style)
{
        g_string_append_c(text, '<');
        append_name(text, node->ns, node->name);
        if (style == &metadata_style)
                append_namespaces(text, node, style);
        for (const xmlAttr *attribute = node->properties; attribute; attribute = attribute->next) {
                g_string_append_c(text, ' ');
                append_name(text, attribute->ns, attribute->name);
                append_value(text, attribute->children ? attribute->children->content : NULL, style);
        }
        if (style != &metadata_style)
                append_namespaces(text, node, style);
        g_string_append(text, node->children ? ">" : "/>");
}

static gboolean has_text(const xmlNode *node)
{
        for (const xmlNode *child = node->children; child; child = child->next)
                if (child->type == XML_TEXT_NODE || child->type == XML_CDATA_SECTION_NODE)
                        return TRUE;
        return FALSE;
}

/* `depth` < 0: as it is, on no lines of its own. */
static void append_node(GString *text, const xmlNode *node, int depth, const Style *style)
{
        const char *content = node->type == XML_ELEMENT_NODE ? NULL : (const char *) node->content;
        gboolean is_metadata = depth == 1 && node->type == XML_ELEMENT_NODE && !node->ns &&
                               strcmp((const char *) node->name, "metadata") == 0;
        int below = depth < 0 || is_metadata || has_text(node) ? -1 : depth + 1;

        if (depth > 0)
                g_string_append_printf(text, "\n%*s", depth * INDENT, "");
        switch (node->type) {
        case XML_TEXT_NODE:
                append_escaped(text, content, style->in_text);
                return;
        case XML_CDATA_SECTION_NODE:
                g_string_append_printf(text, "<![CDATA[%s]]>", content ? content : "");
                return;
        case XML_COMMENT_NODE:
                g_string_append_printf(text, "<!--%s-->", content ? content : "");
                return;
        case XML_PI_NODE:
                g_string_append_printf(text, "<?%s%s%s?>", node->name, content ? " " : "",
                                       content ? content : "");
                return;
        default:
                break;
        }
        if (is_metadata)
                style = &metadata_style;
        append_start(text, node, style);
        for (const xmlNode *child = node->children; child; child = child->next)
                append_node(text, child, below, style);
        if (!node->children)
                return;
        if (below > 0)
                g_string_append_printf(text, "\n%*s", depth * INDENT, "");
        g_string_append(text, "</");
        append_name(text, node->ns, node->name);
        g_string_append_c(text, '>');
}

char *xml_dump(const xmlNode *root)
{
        GString *text = g_string_new(NULL);

        append_node(text, root, 0, &own_style);
        g_string_append_c(text, '\n');
        return g_string_free(text, FALSE);
}

/* ---- images ---- */

static void set(xmlNode *node, const char *attribute, const char *value)
{
        g_autofree char *valid = value ? g_utf8_make_valid(value, -1) : NULL;

        if (valid)
                xmlSetProp(node, BAD_CAST attribute, BAD_CAST valid);
}

static void set_number(xmlNode *node, const char *attribute, guint number)
{
        g_autofree char *text = g_strdup_printf("%u", number);

        set(node, attribute, text);
}

static xmlNode *add(xmlNode *parent, const char *name)
{
        return xmlAddChild(parent, xmlNewDocNode(parent->doc, NULL, BAD_CAST name, NULL));
}

static void drop_child(xmlNode *node, const char *name)
{
        xmlNode *child = xml_child(node, name);

        if (!child)
                return;
        xmlUnlinkNode(child);
        xmlFreeNode(child);
}

static void write_nbd(xmlNode *source, JsonObject *options)
{
        JsonObject *server = json_object(options, "server");
        xmlNode *host;

        set(source, "name", json_string(options, "export"));
        host = add(source, "host");
        set(host, "name", json_string(server, "host"));
        set(host, "port", json_string(server, "port"));
        if (json_string(server, "path"))
                set(host, "transport", "unix");
        set(host, "socket", json_string(server, "path"));
}

static void write_rbd(xmlNode *source, JsonObject *options)
{
        const char *namespace = json_string(options, "namespace");
        g_autofree char *name = g_strconcat(json_string(options, "pool"), "/", namespace ? namespace : "",
                                            namespace ? "/" : "", json_string(options, "image"), NULL);

        set(source, "name", name);
        if (json_string(options, "conf"))
                set(add(source, "config"), "file", json_string(options, "conf"));
}

static void write_iscsi(xmlNode *source, JsonObject *options)
{
        g_autofree char *host = g_strdup(json_string(options, "portal"));
        g_autofree char *name = g_strdup_printf("%s/%" G_GINT64_FORMAT, json_string(options, "target"),
                                                json_integer(options, "lun"));
        char *port = strrchr(host, ':');
        xmlNode *node;

        *port++ = '\0';
        set(source, "name", name);
        node = add(source, "host");
        if (*host == '[')
                host[strlen(host) - 1] = '\0';
        set(node, "name", host + (*host == '['));
        set(node, "port", port);
}

static const struct {
        const char *name;
        void (*write)(xmlNode *source, JsonObject *options);
} protocols[] = { { "nbd", write_nbd }, { "rbd", write_rbd }, { "iscsi", write_iscsi } };

/* The <source> of `holder`, before its child `next`, or as its last one. */
static xmlNode *write_source(xmlNode *holder, xmlNode *next, const char *image)
{
        xmlNode *source = xmlNewDocNode(holder->doc, NULL, BAD_CAST "source", NULL);
        const char *driver = NULL;
        g_autoptr(JsonObject) options =
                target_is_uri(image) ? target_uri_to_blockdev(image, &driver, NULL) : NULL;
        gboolean is_block = g_str_has_prefix(image, "/dev/");

        set(holder, "type", options ? "network" : is_block ? "block" : "file");
        if (next)
                xmlAddPrevSibling(next, source);
        else
                xmlAddChild(holder, source);
        if (!options)
                set(source, is_block ? "dev" : "file", image);
        for (guint i = 0; options && i < G_N_ELEMENTS(protocols); i++)
                if (strcmp(driver, protocols[i].name) == 0) {
                        set(source, "protocol", driver);
                        protocols[i].write(source, options);
                        if (json_string(options, "user"))
                                set(add(source, "auth"), "username", json_string(options, "user"));
                }
        return source;
}

/* ---- disks ---- */

static void write_format(xmlNode *disk, const char *format)
{
        xmlNode *driver = xml_child(disk, "driver");

        if (!driver) {
                driver = xmlNewDocNode(disk->doc, NULL, BAD_CAST "driver", NULL);
                set(driver, "name", "qemu");
                if (disk->children)
                        xmlAddPrevSibling(disk->children, driver);
                else
                        xmlAddChild(disk, driver);
        }
        set(driver, "type", format);
}

/* The images under the first, each with its number from `first` on, 0 = none has one. */
static xmlNode *write_backing(xmlNode *source, const DiskImages *images, guint first)
{
        xmlNode *chain = xmlNewDocNode(source->doc, NULL, BAD_CAST "backingStore", NULL), *store = chain;

        for (guint i = 1; i < images->images->len; i++) {
                const ImageName *image = images->images->pdata[i];

                set(store, "type", "file");
                if (first)
                        set_number(store, "index", first + i);
                set(add(store, "format"), "type", image->format);
                write_source(store, NULL, image->source);
                store = add(store, "backingStore");
        }
        xmlAddNextSibling(source, chain);
        return chain;
}

static void write_mirror(xmlNode *behind, const DiskImages *images, guint number)
{
        xmlNode *mirror = xmlNewDocNode(behind->doc, NULL, BAD_CAST "mirror", NULL);
        const ImageName *image = &images->mirror;

        set(mirror, "type", "file");
        if (image->format && *image->format)
                set(add(mirror, "format"), "type", image->format);
        if (image->source) {
                xmlNode *source = write_source(mirror, NULL, image->source);

                if (number)
                        set_number(source, "index", number);
                /* For those who knew libvirt when it copied to files alone. */
                if (strcmp(images->mirror_job, "copy") == 0 && xml_has(mirror, "type", "file")) {
                        set(mirror, "file", image->source);
                        set(mirror, "format", image->format);
                }
        }
        set(mirror, "job", images->mirror_job);
        if (images->mirror_ready)
                set(mirror, "ready", "yes");
        xmlAddNextSibling(behind, mirror);
}

/* Where in the chain the mirror is, as the target of a commit; behind its end if it is not. */
static guint mirror_depth(const DiskImages *images)
{
        guint depth = 0;

        while (depth < images->images->len &&
               g_strcmp0(((ImageName *) images->images->pdata[depth])->source, images->mirror.source) != 0)
                depth++;
        return depth;
}

/* Returns the number for the next image. */
static guint write_disk(xmlNode *disk, const DefinitionDisk *definition, const DiskImages *images,
                        guint first)
{
        const ImageName *top = images->images && images->images->len > 0 ? images->images->pdata[0] : NULL;
        xmlNode *source = xml_child(disk, "source"), *last;
        guint depth;

        drop_child(disk, "backingStore");
        if (!top || strcmp(top->source, definition->image.source) != 0) {
                xmlNode *next = source ? source->next : xml_child(disk, "target");

                drop_child(disk, "source");
                source = top ? write_source(disk, next, top->source) : NULL;
        }
        if (!source)
                return first;
        write_format(disk, top->format && *top->format ? top->format : definition->image.format);
        if (first)
                set_number(source, "index", first);
        last = images->whole_chain ? write_backing(source, images, first) : source;
        depth = images->mirror_job ? mirror_depth(images) : 0;
        if (images->mirror_job)
                write_mirror(last, images, first ? first + depth : 0);
        return first ? first + MAX(images->images->len, depth + 1) : 0;
}

char *definition_to_xml(const Definition *definition, const DiskImages *disks, guint n_disks, guint id)
{
        Reader reader = { NULL };
        xmlDoc *document = xml_open(&reader, definition->xml);
        xmlNode *root = document ? xmlDocGetRootElement(document) : NULL;
        guint number = id ? 1 : 0; /* of images, counted over all disks of a domain that runs */
        char *text;

        /* It was read before, or it had not been kept. */
        g_return_val_if_fail(document, g_strdup(definition->xml));
        if (id)
                set_number(root, "id", id);
        for (xmlNode *node = xmlFirstElementChild(xml_child(root, "devices")); node;
             node = xmlNextElementSibling(node)) {
                const char *target = xml_child_attribute(node, "target", "dev");

                if (strcmp((const char *) node->name, "disk") != 0)
                        continue;
                for (guint i = 0; i < n_disks; i++)
                        if (strcmp(disks[i].target, target) == 0)
                                number = write_disk(node, definition_disk(definition, target), &disks[i],
                                                    number);
        }
        text = xml_dump(root);
        xmlFreeDoc(document);
        return text;
}
