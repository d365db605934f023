/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

typedef enum {
        XML_MANY = 1 << 0,   /* there may be more than one */
        XML_VITAL = 1 << 1,  /* where it is left out, so is what it is in */
        XML_OUTPUT = 1 << 2, /* libvirt writes it and does not read it: removed */
        XML_ALIAS = 1 << 3,  /* XML_OUTPUT, but for names that users gave */
        XML_OPAQUE = 1 << 4, /* none of our business: kept as it is */
} XmlFlags;

/* Values: NULL = none; "" = any text on one line; "*" = any text; "a|b" = one of these; "1..9" = a number;
 * "/" = an absolute path, "/?" = or nothing; "@" = a name of letters, digits and ._-, with "@:" also colons.
 *
 * Attributes: "name", "name=VALUES", with spaces between. Behind the name: "!" = must be there; "!" and "?"
 * = where it is not understood the whole element is left out, not the attribute alone; "-" = as XML_OUTPUT.
 */
typedef struct XmlElement {
        const char *name, *attributes, *text;
        const struct XmlElement *children;
        XmlFlags flags;
} XmlElement;

extern const XmlElement xml_root;
