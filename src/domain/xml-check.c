/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "domain/xml-grammar.h"
#include "domain/xml-read.h"

#define IGNORED_MAX 1000
#define SHOWN_MAX 64 /* bytes of a value that a message repeats */

#define text_of(string) ((const char *) (string))

/* ---- messages ---- */

static char *shorten(const char *text)
{
        g_autofree char *start = NULL;

        if (strlen(text) <= SHOWN_MAX)
                return g_strdup(text);
        start = g_strndup(text, SHOWN_MAX);
        return g_strconcat(start, "…", NULL);
}

/* As it is written, with its prefix. */
static char *name_of(const xmlNs *namespace, const xmlChar *name)
{
        g_autofree char *whole = namespace && namespace->prefix
                                         ? g_strconcat(text_of(namespace->prefix), ":", text_of(name), NULL)
                                         : g_strdup(text_of(name));

        return shorten(whole);
}

static G_GNUC_PRINTF(2, 0) char *with_line(const xmlNode *node, const char *format, va_list list)
{
        g_autofree char *what = g_strdup_vprintf(format, list);
        g_autofree char *valid = g_utf8_make_valid(what, -1); /* where a value was cut */

        return g_strdup_printf("line %ld: %s", xmlGetLineNo(node), valid);
}

gboolean xml_refuse(Reader *reader, const xmlNode *node, const char *format, ...)
{
        g_autofree char *message = NULL;
        va_list list;

        va_start(list, format);
        message = with_line(node, format, list);
        va_end(list);
        if (!reader->error)
                reader->error = g_error_new_literal(BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, message);
        return FALSE;
}

static gboolean list_or_refuse(Reader *reader, char *message)
{
        g_autofree char *owned = message;

        if (reader->error)
                return FALSE;
        if (!reader->ignored)
                reader->error = g_error_new_literal(BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, message);
        else if (reader->ignored->len >= IGNORED_MAX)
                reader->error = g_error_new(BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED,
                                            "more than %d things are not understood", IGNORED_MAX);
        else
                g_ptr_array_add(reader->ignored, g_steal_pointer(&owned));
        return !reader->error;
}

static void drop(xmlNode *node)
{
        xmlUnlinkNode(node);
        xmlFreeNode(node);
}

gboolean xml_leave_out(Reader *reader, xmlNode *node, const char *attribute, const char *format, ...)
{
        char *message;
        va_list list;

        va_start(list, format);
        message = with_line(node, format, list);
        va_end(list);
        if (!list_or_refuse(reader, message))
                return FALSE;
        if (attribute)
                xmlUnsetProp(node, BAD_CAST attribute);
        else
                drop(node);
        return TRUE;
}

static gboolean G_GNUC_PRINTF(3, 4)
        not_understood(Reader *reader, const xmlNode *node, const char *format, ...)
{
        char *message;
        va_list list;

        va_start(list, format);
        message = with_line(node, format, list);
        va_end(list);
        return list_or_refuse(reader, message);
}

gboolean xml_is_unique(Reader *reader, const xmlNode *node, const char *name)
{
        gpointer line;

        if (g_hash_table_lookup_extended(reader->unique, name, NULL, &line))
                return xml_refuse(reader, node, "there is a second %s: the first is in line %d", name,
                                  GPOINTER_TO_INT(line));
        g_hash_table_insert(reader->unique, g_strdup(name), GINT_TO_POINTER((int) xmlGetLineNo(node)));
        return TRUE;
}

/* ---- access ---- */

static const char *value_of(const xmlAttr *attribute)
{
        return attribute->children && attribute->children->content ? text_of(attribute->children->content)
                                                                   : "";
}

const char *xml_attribute(const xmlNode *node, const char *name)
{
        for (const xmlAttr *attribute = node ? node->properties : NULL; attribute;
             attribute = attribute->next)
                if (strcmp(text_of(attribute->name), name) == 0)
                        return value_of(attribute);
        return NULL;
}

xmlNode *xml_child(const xmlNode *node, const char *name)
{
        for (xmlNode *child = node ? node->children : NULL; child; child = child->next)
                if (child->type == XML_ELEMENT_NODE && strcmp(text_of(child->name), name) == 0)
                        return child;
        return NULL;
}

const char *xml_child_attribute(const xmlNode *node, const char *child, const char *name)
{
        return xml_attribute(xml_child(node, child), name);
}

gboolean xml_has(const xmlNode *node, const char *attribute, const char *value)
{
        return g_strcmp0(xml_attribute(node, attribute), value) == 0;
}

char *xml_text(const xmlNode *node)
{
        g_autoptr(GString) text = g_string_new(NULL);

        if (!node)
                return NULL;
        for (const xmlNode *child = node->children; child; child = child->next)
                if (child->type == XML_TEXT_NODE || child->type == XML_CDATA_SECTION_NODE)
                        g_string_append(text, text_of(child->content));
        return g_strstrip(g_string_free(g_steal_pointer(&text), FALSE));
}

char *xml_child_text(const xmlNode *node, const char *child)
{
        return xml_text(xml_child(node, child));
}

/* FALSE where it is none. */
static gboolean parse_number(const char *text, gint64 *ret_number)
{
        gboolean is_hexadecimal = g_str_has_prefix(text, "0x");
        const char *digits = is_hexadecimal ? text + 2 : *text == '-' ? text + 1 : text;
        gsize length = strspn(digits, is_hexadecimal ? "0123456789abcdefABCDEF" : "0123456789");

        errno = 0;
        *ret_number = g_ascii_strtoll(text, NULL, is_hexadecimal ? 16 : 10);
        return length > 0 && !digits[length] && errno == 0;
}

guint64 xml_number(const char *text)
{
        gint64 number = 0;

        return text && parse_number(text, &number) && number > 0 ? (guint64) number : 0;
}

static gboolean has_only(const char *text, const char *more)
{
        for (const char *c = text; *c; c++)
                if (!g_ascii_isalnum(*c) && !strchr(more, *c))
                        return FALSE;
        return *text != '\0' && strlen(text) <= 255;
}

gboolean xml_is_name(const char *text)
{
        return has_only(text, "._-");
}

/* ---- values ---- */

static gboolean is_one_of(const char *value, const char *values)
{
        gsize length = strlen(value);

        for (const char *word = values; *word; word += *word == '|') {
                gsize end = strcspn(word, "|");

                if (end == length && strncmp(word, value, length) == 0)
                        return TRUE;
                word += end;
        }
        return FALSE;
}

static char *wanted(const char *values)
{
        g_auto(GStrv) words = g_strsplit(values, "|", -1);
        g_autoptr(GString) text = g_string_new(NULL);
        guint n = g_strv_length(words);

        for (guint i = 0; i < n; i++)
                g_string_append_printf(text, "%s'%s'", i == 0 ? "" : i + 1 < n ? ", " : " or ", words[i]);
        return g_string_free(g_steal_pointer(&text), FALSE);
}

/* NULL = fine, else what is wanted. `ret_is_wrong`: no new version of anything will understand it. */
static char *check_value(const char *value, const char *values, gboolean *ret_is_wrong)
{
        const char *range = strstr(values, "..");
        gint64 number;

        *ret_is_wrong = TRUE;
        if (strcmp(values, "*") == 0)
                return NULL;
        for (const char *c = value; *c; c++)
                if (g_ascii_iscntrl(*c))
                        return g_strdup("text on one line");
        if (!*values)
                return NULL;
        if (strcmp(values, "/") == 0 || strcmp(values, "/?") == 0)
                return g_path_is_absolute(value) || (!*value && values[1] == '?')
                               ? NULL
                               : g_strdup("an absolute path");
        if (*values == '@')
                return has_only(value, values[1] ? "._-:" : "._-")
                               ? NULL
                               : g_strdup_printf("a name of letters, digits and '%s'",
                                                 values[1] ? "._-:" : "._-");
        if (range) {
                g_autofree char *first = g_strndup(values, (gsize) (range - values));
                gint64 low = g_ascii_strtoll(first, NULL, 10);
                gint64 high = g_ascii_strtoll(range + 2, NULL, 10);

                if (parse_number(value, &number) && number >= low && number <= high)
                        return NULL;
                return low == high ? g_strdup(first)
                                   : g_strdup_printf("a number from %s to %s", first, range + 2);
        }
        *ret_is_wrong = FALSE;
        return is_one_of(value, values) ? NULL : wanted(values);
}

/* ---- attributes ---- */

typedef struct {
        const char *name;
        gsize length;
        char kind;    /* as in XmlElement, or '\0' */
        char *values; /* "" = any */
} Attribute;

/* The next one of `rest`; FALSE = there is none. */
static gboolean next_attribute(const char **rest, Attribute *ret_attribute)
{
        const char *name = *rest ? *rest + strspn(*rest, " ") : "";
        const char *end = name + strcspn(name, " ");
        gsize length = strcspn(name, " !?-=");
        const char *values;

        /* A "-" inside a name is none of the signs. */
        while (name[length] == '-' && name[length + 1] && !strchr(" =", name[length + 1]))
                length += 1 + strcspn(name + length + 1, " !?-=");
        values = name + length + (strchr("!?-", name[length]) && name[length] ? 1 : 0);
        *ret_attribute = (Attribute){ name, length, values > name + length ? name[length] : '\0' };
        ret_attribute->values = *values == '=' ? g_strndup(values + 1, (gsize) (end - values - 1)) : NULL;
        *rest = end;
        return length > 0;
}

static gboolean find_attribute(const XmlElement *element, const char *name, Attribute *ret_attribute)
{
        const char *rest = element->attributes;

        while (next_attribute(&rest, ret_attribute)) {
                if (strlen(name) == ret_attribute->length &&
                    strncmp(name, ret_attribute->name, ret_attribute->length) == 0)
                        return TRUE;
                g_free(ret_attribute->values);
        }
        return FALSE;
}

typedef enum { BROKEN, DROPPED, KEPT } Verdict;

/* DROPPED: the element is to be. */
static Verdict check_attribute(Reader *reader, xmlNode *node, xmlAttr *attribute, const XmlElement *element)
{
        g_autofree char *name = name_of(attribute->ns, attribute->name);
        g_autofree char *values = NULL, *problem = NULL, *shown = NULL;
        const char *value = value_of(attribute);
        gboolean is_wrong;
        Attribute known;

        if (attribute->ns || !find_attribute(element, name, &known)) {
                if (!not_understood(reader, node, "attribute '%s' of '%s' is not understood", name,
                                    element->name))
                        return BROKEN;
                xmlRemoveProp(attribute);
                return KEPT;
        }
        values = known.values;
        if (known.kind == '-') {
                xmlRemoveProp(attribute);
                return KEPT;
        }
        problem = check_value(value, values ? values : "", &is_wrong);
        if (!problem)
                return KEPT;
        shown = shorten(value);
        if (is_wrong)
                xml_refuse(reader, node, "value '%s' of attribute '%s' of '%s': %s is wanted", shown, name,
                           element->name, problem);
        else if (not_understood(reader, node,
                                "value '%s' of attribute '%s' of '%s' is not understood: %s is wanted",
                                shown, name, element->name, problem)) {
                if (known.kind)
                        return DROPPED;
                xmlRemoveProp(attribute);
                return KEPT;
        }
        return BROKEN;
}

static Verdict check_attributes(Reader *reader, xmlNode *node, const XmlElement *element)
{
        const char *rest = element->attributes;
        Attribute known;

        for (xmlAttr *attribute = node->properties, *next; attribute; attribute = next) {
                Verdict verdict;

                next = attribute->next;
                verdict = check_attribute(reader, node, attribute, element);
                if (verdict != KEPT)
                        return verdict;
        }
        while (next_attribute(&rest, &known)) {
                g_autofree char *name = g_strndup(known.name, known.length);

                g_free(known.values);
                if (known.kind == '!' && !xml_attribute(node, name)) {
                        xml_refuse(reader, node, "'%s' has no attribute '%s'", element->name, name);
                        return BROKEN;
                }
        }
        return KEPT;
}

/* ---- elements ---- */

static Verdict check_element(Reader *reader, xmlNode *node, const XmlElement *element);

static const XmlElement *find_child(const XmlElement *element, const xmlNode *node)
{
        for (const XmlElement *child = element->children; !node->ns && child && child->name; child++)
                if (strcmp(child->name, text_of(node->name)) == 0)
                        return child;
        return NULL;
}

static Verdict check_child(Reader *reader, xmlNode *node, const XmlElement *element, guint64 *seen)
{
        const XmlElement *child = find_child(element, node);
        guint64 bit = child ? G_GUINT64_CONSTANT(1) << (child - element->children) : 0;
        Verdict verdict;

        if (!child || (*seen & bit && !(child->flags & XML_MANY))) {
                g_autofree char *name = name_of(node->ns, node->name);

                return not_understood(reader, node, "%s '%s' in '%s' is not understood",
                                      child ? "a second element" : "element", name, element->name)
                               ? DROPPED
                               : BROKEN;
        }
        *seen |= bit;
        if (child->flags & XML_OPAQUE)
                return KEPT;
        if (child->flags & XML_OUTPUT)
                return DROPPED;
        verdict = check_element(reader, node, child);
        if (verdict == KEPT && child->flags & XML_ALIAS &&
            !g_str_has_prefix(xml_attribute(node, "name"), "ua-"))
                return DROPPED;
        return verdict;
}

static Verdict check_text(Reader *reader, xmlNode *node, const XmlElement *element)
{
        g_autofree char *text = xml_text(node), *problem = NULL, *shown = NULL;
        gboolean is_wrong;

        problem = check_value(text, element->text, &is_wrong);
        if (!problem)
                return KEPT;
        shown = shorten(text);
        if (is_wrong)
                xml_refuse(reader, node, "value '%s' of '%s': %s is wanted", shown, element->name, problem);
        else if (not_understood(reader, node, "value '%s' of '%s' is not understood: %s is wanted", shown,
                                element->name, problem))
                return DROPPED;
        return BROKEN;
}

/* Blanks between elements are gone after that, and comments are not: they belong to whoever wrote them. */
static Verdict check_stray_text(Reader *reader, xmlNode *node, const XmlElement *element)
{
        g_autofree char *text = g_strstrip(g_strdup(text_of(node->content)));
        g_autofree char *shown = shorten(text);

        if (*text &&
            !not_understood(reader, node, "text '%s' in '%s' is not understood", shown, element->name))
                return BROKEN;
        return DROPPED;
}

static Verdict check_element(Reader *reader, xmlNode *node, const XmlElement *element)
{
        Verdict verdict = check_attributes(reader, node, element);
        guint64 seen = 0;

        if (verdict != KEPT)
                return verdict;
        for (xmlNode *child = node->children, *next; child; child = next) {
                gboolean is_vital = FALSE;

                next = child->next;
                if (child->type == XML_ELEMENT_NODE) {
                        const XmlElement *known = find_child(element, child);

                        is_vital = known && known->flags & XML_VITAL;
                        verdict = check_child(reader, child, element, &seen);
                } else if (child->type == XML_COMMENT_NODE || child->type == XML_PI_NODE || element->text)
                        verdict = KEPT;
                else
                        verdict = check_stray_text(reader, child, element);
                if (verdict == BROKEN)
                        return BROKEN;
                if (verdict == KEPT)
                        continue;
                if (is_vital && !(find_child(element, child)->flags & XML_OUTPUT))
                        return not_understood(reader, node, "element '%s' is left out with its '%s'",
                                              element->name, text_of(child->name))
                                       ? DROPPED
                                       : BROKEN;
                drop(child);
        }
        return element->text ? check_text(reader, node, element) : KEPT;
}

gboolean xml_check(Reader *reader, xmlNode *root)
{
        g_autofree char *name = name_of(root->ns, root->name);

        if (root->ns || strcmp(name, xml_root.name) != 0)
                return xml_refuse(reader, root, "the document is a '%s', not a 'domain'", name);
        switch (check_element(reader, root, &xml_root)) {
        case KEPT:
                return TRUE;
        case DROPPED:
                return xml_refuse(reader, root, "this type of 'domain' is none of 'kvm' and 'qemu'");
        default:
                return FALSE;
        }
}
