/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/xml-read.h"

#include <libxml/parser.h>
#include <libxml/SAX2.h>
#include <string.h>

#include "base/error.h"

#define TAG_MAX (16 * 1024) /* bytes of one tag: libxml2 compares each of its attributes with each other */
#define NAME_MAX_LENGTH 128
#define MEMORY_MIN (G_GUINT64_CONSTANT(1) << 20)
#define MEMORY_MAX (G_GUINT64_CONSTANT(1) << 46)

/* ---- document ---- */

static gboolean refuse_text(Reader *reader, int code, int line, const char *what)
{
        if (!reader->error)
                reader->error = g_error_new(BJ_ERROR, code, "line %d: %s", line, what);
        return FALSE;
}

static void stop(xmlParserCtxt *context, int code, const char *what)
{
        refuse_text(context->_private, code, context->input ? context->input->line : 1, what);
        xmlStopParser(context);
}

/* Before any of its declarations is read. */
static void on_document_type(void *data, const xmlChar *name, const xmlChar *public_id,
                             const xmlChar *system_id)
{
        (void) name;
        (void) public_id;
        (void) system_id;
        stop(data, BJ_ERROR_INVALID_ARGUMENT, "a document type with its entities has no place here");
}

static void on_element(void *data, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri,
                       int n_namespaces, const xmlChar **namespaces, int n_attributes, int n_defaulted,
                       const xmlChar **attributes)
{
        xmlParserCtxt *context = data;

        if (context->nodeNr >= DEFINITION_DEPTH_MAX) {
                g_autofree char *what =
                        g_strdup_printf("more than %d elements in each other", DEFINITION_DEPTH_MAX);

                stop(context, BJ_ERROR_LIMIT_EXCEEDED, what);
                return;
        }
        xmlSAX2StartElementNs(data, name, prefix, uri, n_namespaces, namespaces, n_attributes, n_defaulted,
                              attributes);
}

/* One pass over what libxml2 would take a time for that grows with the square of its size: tags with many
 * attributes, and comments with many "--", each of which is an error. What else is not well-formed is found
 * later. */
static gboolean check_tags(Reader *reader, const char *xml)
{
        static const struct {
                const char *start, *inside, *end;
        } sections[] = { { "<!--", "--", "-->" }, { "<![CDATA[", "]]>", "]]>" }, { "<?", "?>", "?>" } };
        g_autofree char *too_long = g_strdup_printf("a tag is longer than %d bytes", TAG_MAX);
        int line = 1;

        for (const char *c = xml; *c; c++) {
                const char *start = c;
                guint i = 0;

                line += *c == '\n';
                if (*c != '<')
                        continue;
                while (i < G_N_ELEMENTS(sections) && !g_str_has_prefix(c, sections[i].start))
                        i++;
                if (i < G_N_ELEMENTS(sections)) {
                        c = strstr(c + strlen(sections[i].start), sections[i].inside);
                        if (!c)
                                return TRUE;
                } else {
                        for (char quote = '\0'; *c && (quote || *c != '>'); c++) {
                                if (quote ? *c == quote : *c == '\'' || *c == '"')
                                        quote = quote ? '\0' : *c;
                                if (c - start > TAG_MAX)
                                        return refuse_text(reader, BJ_ERROR_LIMIT_EXCEEDED, line, too_long);
                        }
                        if (!*c)
                                return TRUE;
                }
                for (; start < c; start++)
                        line += *start == '\n';
                if (i < G_N_ELEMENTS(sections) && !g_str_has_prefix(c, sections[i].end))
                        return refuse_text(reader, BJ_ERROR_INVALID_ARGUMENT, line,
                                           "'--' has no place in a comment");
        }
        return TRUE;
}

static xmlDoc *parse(Reader *reader, const char *xml)
{
        /* XML_PARSE_NOENT replaces entities, of which there are none but XML's own five, since a document
         * type is not read. Without it libxml2 makes "&#38;" of each "&" in the name of a namespace. */
        const int options = XML_PARSE_NONET | XML_PARSE_NOENT | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
                            XML_PARSE_BIG_LINES;
        xmlParserCtxt *context = xmlNewParserCtxt();
        xmlDoc *document;

        if (!context) {
                refuse_text(reader, BJ_ERROR_FAILED, 1, "there is no memory to parse it");
                return NULL;
        }
        context->_private = reader;
        context->sax->internalSubset = on_document_type;
        context->sax->startElementNs = on_element;
        document = xmlCtxtReadMemory(context, xml, (int) strlen(xml), NULL, NULL, options);
        if (!document && !reader->error) {
                const xmlError *error = xmlCtxtGetLastError(context);
                g_autofree char *message =
                        g_utf8_make_valid(error && error->message ? error->message : "no XML", -1);

                refuse_text(reader, BJ_ERROR_INVALID_ARGUMENT, error ? error->line : 1, g_strchomp(message));
        }
        if (document && document->encoding &&
            g_ascii_strcasecmp((const char *) document->encoding, "UTF-8") != 0)
                refuse_text(reader, BJ_ERROR_INVALID_ARGUMENT, 1, "its encoding is to be UTF-8");
        /* Else what is not ASCII would be written as numbers. */
        if (document && !document->encoding)
                document->encoding = xmlStrdup(BAD_CAST "UTF-8");
        if (document && (reader->error || !xmlDocGetRootElement(document))) {
                refuse_text(reader, BJ_ERROR_INVALID_ARGUMENT, 1, "there is no element");
                g_clear_pointer(&document, xmlFreeDoc);
        }
        xmlFreeParserCtxt(context);
        return document;
}

static gboolean check_length(Reader *reader, const char *xml, const char *when)
{
        if (strlen(xml) <= DEFINITION_XML_MAX)
                return TRUE;
        reader->error = g_error_new(BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED, "the XML is longer than %d bytes%s",
                                    DEFINITION_XML_MAX, when);
        return FALSE;
}

xmlDoc *xml_open(Reader *reader, const char *xml)
{
        xmlDoc *document;

        if (!check_length(reader, xml, ""))
                return NULL;
        if (!g_utf8_validate(xml, -1, NULL)) {
                refuse_text(reader, BJ_ERROR_INVALID_ARGUMENT, 1, "its encoding is to be UTF-8");
                return NULL;
        }
        document = check_tags(reader, xml) ? parse(reader, xml) : NULL;
        if (document && !xml_check(reader, xmlDocGetRootElement(document)))
                g_clear_pointer(&document, xmlFreeDoc);
        return document;
}

/* ---- what the domain itself says ---- */

static gboolean read_name(Reader *reader, xmlNode *root)
{
        xmlNode *node = xml_child(root, "name");
        char *name = reader->definition->name = xml_text(node);

        if (!name)
                return xml_refuse(reader, root, "'domain' has no 'name'");
        if (!xml_is_name(name) || !g_ascii_isalnum(*name) || strlen(name) > NAME_MAX_LENGTH)
                return xml_refuse(reader, node,
                                  "value '%.64s' of 'name': up to %d letters, digits and '._-' are wanted, "
                                  "the first one a letter or a digit",
                                  name, NAME_MAX_LENGTH);
        return TRUE;
}

static void set_text(xmlNode *node, const char *text)
{
        xmlNodeSetContent(node, NULL);
        xmlNodeAddContent(node, BAD_CAST text);
}

/* libvirt takes it without the dashes as well. */
static gboolean read_uuid(Reader *reader, xmlNode *root)
{
        xmlNode *node = xml_child(root, "uuid");
        g_autofree char *given = node ? xml_text(node) : g_uuid_string_random();
        g_autoptr(GString) uuid = g_string_new(NULL);

        for (const char *c = given; *c; c++) {
                if (*c == '-')
                        continue;
                if (strchr("\x08\x0d\x12\x17", (int) uuid->len) && uuid->len)
                        g_string_append_c(uuid, '-');
                g_string_append_c(uuid, g_ascii_tolower(*c));
        }
        if (!g_uuid_string_is_valid(uuid->str))
                return xml_refuse(reader, node, "value '%.64s' of 'uuid' is no UUID", given);
        if (!node)
                node = xmlAddNextSibling(xml_child(root, "name"),
                                         xmlNewDocNode(reader->document, NULL, BAD_CAST "uuid", NULL));
        set_text(node, uuid->str);
        reader->definition->uuid = g_string_free(g_steal_pointer(&uuid), FALSE);
        return TRUE;
}

static gboolean unit_bytes(const char *unit, guint64 *ret_bytes)
{
        static const char letters[] = "kmgtpe";
        const char *letter = *unit ? strchr(letters, g_ascii_tolower(*unit)) : NULL;

        *ret_bytes = 1;
        if (g_ascii_strcasecmp(unit, "b") == 0 || g_ascii_strcasecmp(unit, "bytes") == 0)
                return TRUE;
        if (!letter ||
            !(!unit[1] || g_ascii_strcasecmp(unit + 1, "b") == 0 || g_ascii_strcasecmp(unit + 1, "ib") == 0))
                return FALSE;
        for (const char *l = letters; l <= letter; l++)
                *ret_bytes *= unit[1] && !unit[2] ? 1000 : 1024;
        return TRUE;
}

static gboolean read_size(Reader *reader, const xmlNode *node, guint64 *ret_bytes)
{
        const char *unit = xml_attribute(node, "unit");
        const char *name = (const char *) node->name;
        g_autofree char *text = xml_text(node);
        guint64 number, factor;

        if (!unit_bytes(unit ? unit : "KiB", &factor))
                return xml_refuse(reader, node,
                                  "value '%.64s' of attribute 'unit' of '%s' is none of bytes, KiB, "
                                  "MiB, GiB, TiB and the like",
                                  unit, name);
        if (!g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT64, &number, NULL))
                return xml_refuse(reader, node, "value '%.64s' of '%s' is no number", text, name);
        if (!g_uint64_checked_mul(ret_bytes, number, factor) || *ret_bytes < MEMORY_MIN ||
            *ret_bytes > MEMORY_MAX)
                return xml_refuse(reader, node, "value '%.64s' of '%s': from 1 MiB to 64 TiB are wanted",
                                  text, name);
        /* As libvirt, up to whole KiB. */
        *ret_bytes = (*ret_bytes + 1023) / 1024 * 1024;
        return TRUE;
}

static gboolean read_memory(Reader *reader, xmlNode *root)
{
        xmlNode *memory = xml_child(root, "memory"), *current = xml_child(root, "currentMemory");
        guint64 bytes;

        if (!memory)
                return xml_refuse(reader, root, "'domain' has no 'memory'");
        if (!read_size(reader, memory, &reader->definition->memory) ||
            (current && !read_size(reader, current, &bytes)))
                return FALSE;
        return !current || bytes == reader->definition->memory ||
               xml_leave_out(reader, current, NULL,
                             "a 'currentMemory' that is not all 'memory' is not understood");
}

static gboolean read_cpus(Reader *reader, xmlNode *root)
{
        Definition *definition = reader->definition;
        xmlNode *node = xml_child(root, "vcpu");
        xmlNode *topology = xml_child(xml_child(root, "cpu"), "topology");
        g_autofree char *count = xml_text(node), *iothreads = xml_child_text(root, "iothreads");

        definition->iothreads = (guint) xml_number(iothreads);
        definition->vcpus = node ? (guint) xml_number(count) : 1;
        if (xml_attribute(node, "current") &&
            xml_number(xml_attribute(node, "current")) != definition->vcpus &&
            !xml_leave_out(reader, node, "current",
                           "a 'current' of 'vcpu' that is another number than 'vcpu' is not understood"))
                return FALSE;
        if (!topology)
                return TRUE;
        definition->sockets = (guint) xml_number(xml_attribute(topology, "sockets"));
        definition->cores = (guint) xml_number(xml_attribute(topology, "cores"));
        definition->threads = (guint) xml_number(xml_attribute(topology, "threads"));
        if ((guint64) definition->sockets * definition->cores * definition->threads != definition->vcpus)
                return xml_refuse(reader, topology,
                                  "the 'topology' is of another number of CPUs than 'vcpu'");
        return TRUE;
}

/* The model as QEMU's -cpu has it. */
static gboolean read_cpu(Reader *reader, const xmlNode *root)
{
        xmlNode *cpu = xml_child(root, "cpu");
        const char *mode = xml_attribute(cpu, "mode");
        gboolean is_custom = !mode || strcmp(mode, "custom") == 0;
        g_autofree char *model = xml_child_text(cpu, "model");
        g_autoptr(GString) text = g_string_new(NULL);

        if (!cpu)
                return TRUE;
        if (!is_custom && model)
                return xml_refuse(reader, cpu, "a 'cpu' of mode '%s' has no 'model'", mode);
        if (is_custom && !model)
                return !xml_child(cpu, "feature") ||
                       xml_refuse(reader, cpu, "'cpu' has a 'feature' and no 'model'");
        if (is_custom)
                g_string_append(text, model);
        else
                g_string_append(text,
                                reader->definition->kvm && strcmp(mode, "maximum") != 0 ? "host" : "max");
        if (xml_attribute(cpu, "migratable")) {
                if (is_custom)
                        return xml_refuse(reader, cpu, "a 'cpu' with a 'model' has no 'migratable'");
                g_string_append_printf(text, ",migratable=%s", xml_attribute(cpu, "migratable"));
        }
        for (xmlNode *node = xmlFirstElementChild(cpu); node; node = xmlNextElementSibling(node)) {
                const char *policy = xml_attribute(node, "policy");

                if (strcmp((const char *) node->name, "feature") != 0)
                        continue;
                g_string_append_printf(text, ",%s=%s", xml_attribute(node, "name"),
                                       policy && (*policy == 'd' || strcmp(policy, "forbid") == 0) ? "off"
                                                                                                   : "on");
        }
        reader->definition->cpu = g_string_free(g_steal_pointer(&text), FALSE);
        return TRUE;
}

static gboolean read_firmware(Reader *reader, xmlNode *os)
{
        Definition *definition = reader->definition;
        xmlNode *loader = xml_child(os, "loader"), *nvram = xml_child(os, "nvram");

        if (loader && !xml_attribute(loader, "type")) {
                if (!xml_leave_out(reader, loader, NULL,
                                   "a 'loader' without type 'pflash' is not understood"))
                        return FALSE;
                loader = NULL;
        }
        if (xml_attribute(os, "firmware") && !loader &&
            !xml_leave_out(
                    reader, os, "firmware",
                    "a 'firmware' without 'loader' is not understood: which one it is has to be said"))
                return FALSE;
        if (nvram && !loader)
                return xml_leave_out(reader, nvram, NULL, "an 'nvram' without 'loader' is not understood");
        definition->loader = xml_text(loader);
        definition->loader_read_only = xml_has(loader, "readonly", "yes");
        definition->nvram = xml_text(nvram);
        definition->nvram_template = g_strdup(xml_attribute(nvram, "template"));
        return TRUE;
}

static gboolean read_os(Reader *reader, xmlNode *root)
{
        Definition *definition = reader->definition;
        xmlNode *os = xml_child(root, "os");
        g_autoptr(GPtrArray) boot = g_ptr_array_new_with_free_func(g_free);

        if (!os || !xml_child(os, "type"))
                return xml_refuse(reader, root, "'domain' has no 'type' in 'os'");
        definition->architecture = g_strdup("x86_64");
        definition->machine = g_strdup(xml_child_attribute(os, "type", "machine"));
        definition->kernel = xml_child_text(os, "kernel");
        definition->initrd = xml_child_text(os, "initrd");
        definition->cmdline = xml_child_text(os, "cmdline");
        definition->boot_menu = xml_has(xml_child(os, "bootmenu"), "enable", "yes");
        if (!definition->kernel && (definition->initrd || definition->cmdline))
                return xml_refuse(reader, os, "'initrd' and 'cmdline' are nothing without 'kernel'");
        for (xmlNode *node = xmlFirstElementChild(os); node; node = xmlNextElementSibling(node))
                if (strcmp((const char *) node->name, "boot") == 0) {
                        g_autofree char *name =
                                g_strdup_printf("boot from '%s'", xml_attribute(node, "dev"));

                        if (!xml_is_unique(reader, node, name))
                                return FALSE;
                        g_ptr_array_add(boot, g_strdup(xml_attribute(node, "dev")));
                }
        if (boot->len > 0) {
                g_ptr_array_add(boot, NULL);
                definition->boot = (GStrv) g_ptr_array_free(g_steal_pointer(&boot), FALSE);
        }
        return read_firmware(reader, os);
}

static void read_features(Reader *reader, const xmlNode *root)
{
        Definition *definition = reader->definition;
        const xmlNode *features = xml_child(root, "features"), *power = xml_child(root, "pm");
        g_autofree char *reboot = xml_child_text(root, "on_reboot");
        g_autofree char *crash = xml_child_text(root, "on_crash");

        definition->acpi = xml_child(features, "acpi") != NULL;
        definition->apic_given = xml_child(features, "apic") != NULL;
        definition->vmport_off = xml_has(xml_child(features, "vmport"), "state", "off");
        definition->smm_off = xml_has(xml_child(features, "smm"), "state", "off");
        definition->no_s3 = xml_has(xml_child(power, "suspend-to-mem"), "enabled", "no");
        definition->no_s4 = xml_has(xml_child(power, "suspend-to-disk"), "enabled", "no");
        definition->reboot_ends = g_strcmp0(reboot, "destroy") == 0;
        definition->crash_keeps = g_strcmp0(crash, "preserve") == 0;
}

/* What can be said of each timer besides what is so anyway; FALSE = it cannot be had. */
static gboolean read_timer(Definition *definition, const char *name, const char *policy, const char *present)
{
        gboolean is_off = g_strcmp0(present, "no") == 0;

        if (strcmp(name, "hpet") == 0)
                return !policy && (definition->hpet_off = is_off, TRUE);
        if (strcmp(name, "kvmclock") == 0)
                return !policy && (definition->kvmclock_off = is_off, TRUE);
        if (is_off)
                return FALSE;
        if (strcmp(name, "rtc") == 0)
                definition->rtc_catchup = g_strcmp0(policy, "catchup") == 0;
        else if (g_strcmp0(policy, "catchup") == 0)
                return FALSE;
        else
                definition->pit_delay = policy != NULL;
        return TRUE;
}

static gboolean read_clock(Reader *reader, const xmlNode *root)
{
        xmlNode *clock = xml_child(root, "clock");

        reader->definition->local_time = xml_has(clock, "offset", "localtime");
        for (xmlNode *node = xmlFirstElementChild(clock), *next; node; node = next) {
                const char *timer = xml_attribute(node, "name");
                g_autofree char *name = g_strdup_printf("timer '%s'", timer);

                next = xmlNextElementSibling(node);
                if (!xml_is_unique(reader, node, name) ||
                    (!read_timer(reader->definition, timer, xml_attribute(node, "tickpolicy"),
                                 xml_attribute(node, "present")) &&
                     !xml_leave_out(reader, node, NULL, "%s is not understood like this", name)))
                        return FALSE;
        }
        return TRUE;
}

static gboolean read_domain(Reader *reader, xmlNode *root)
{
        reader->definition->kvm = xml_has(root, "type", "kvm");
        read_features(reader, root);
        return read_name(reader, root) && read_uuid(reader, root) && read_memory(reader, root) &&
               read_cpus(reader, root) && read_cpu(reader, root) && read_os(reader, root) &&
               read_clock(reader, root) && xml_read_devices(reader, xml_child(root, "devices"));
}

Definition *definition_parse(const char *xml, GPtrArray *ignored, GError **error)
{
        g_autoptr(Definition) definition = definition_new();
        g_autoptr(GHashTable) unique = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        Reader reader = { .definition = definition, .ignored = ignored, .unique = unique };
        xmlDoc *document = reader.document = xml_open(&reader, xml);

        if (document && read_domain(&reader, xmlDocGetRootElement(document))) {
                definition->xml = xml_dump(xmlDocGetRootElement(document));
                /* What is kept is to be read again. */
                check_length(&reader, definition->xml, " with its elements on lines of their own");
        }
        g_clear_pointer(&document, xmlFreeDoc);
        if (reader.error) {
                g_propagate_error(error, reader.error);
                return NULL;
        }
        return g_steal_pointer(&definition);
}
