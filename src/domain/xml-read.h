/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <libxml/tree.h>

#include "domain/definition.h"

/* Between the parts of what reads and writes the XML of a definition.
 *
 * First the document is held against a table of all that is understood (xml-grammar.c): what is not there is
 * refused or left out, and so is what libvirt only ever writes and does not read. After that the readers
 * find nothing but elements, attributes and values that they know. */

typedef struct {
        Definition *definition;
        xmlDoc *document;
        GPtrArray *ignored; /* NULL: nothing is left out */
        GHashTable *unique; /* of what may be there only once: its name → line */
        GError *error;      /* the first one; all that returns FALSE has set it */
} Reader;

/* ---- definition.c ---- */

Definition *definition_new(void);
void definition_character_free(gpointer character);

/* ---- xml-grammar.c ---- */

gboolean xml_check(Reader *reader, xmlNode *root);

/* It is wrong, which nothing excuses: FALSE. */
gboolean xml_refuse(Reader *reader, const xmlNode *node, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* It is not understood: FALSE, or it is listed and `node`, or its attribute alone, is gone from the
 * document. */
gboolean xml_leave_out(Reader *reader, xmlNode *node, const char *attribute, const char *format, ...)
        G_GNUC_PRINTF(4, 5);
/* Names what is there a second time: FALSE. */
gboolean xml_is_unique(Reader *reader, const xmlNode *node, const char *name);

/* NULL = there is none. */
const char *xml_attribute(const xmlNode *node, const char *name);
xmlNode *xml_child(const xmlNode *node, const char *name);
const char *xml_child_attribute(const xmlNode *node, const char *child, const char *name);
gboolean xml_has(const xmlNode *node, const char *attribute, const char *value);
/* Without the blanks around it. */
char *xml_text(const xmlNode *node);
char *xml_child_text(const xmlNode *node, const char *child);
/* 0 for NULL; hexadecimal where it starts with 0x. */
guint64 xml_number(const char *text);
gboolean xml_is_name(const char *text);

/* ---- xml-read.c ---- */

/* The document, held against the table; NULL = error. */
xmlDoc *xml_open(Reader *reader, const char *xml);

/* ---- xml-read-disk.c, xml-read-device.c ---- */

gboolean xml_read_disk(Reader *reader, xmlNode *node);
gboolean xml_read_devices(Reader *reader, xmlNode *devices);
/* `wanted`: the kind of place that the device can be in. */
gboolean xml_read_address(Reader *reader, const xmlNode *device, AddressType wanted,
                          DefinitionAddress *ret_address);

gboolean xml_read_boot_order(Reader *reader, const xmlNode *device, guint *ret_order);

/* ---- xml-write.c ---- */

/* As virsh prints it. */
char *xml_dump(const xmlNode *root);
