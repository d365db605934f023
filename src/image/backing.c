/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/backing.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"

#define JSON_DEPTH_MAX 4

void backing_clear(BackingName *name)
{
        g_clear_pointer(&name->source, g_free);
        g_clear_pointer(&name->format, g_free);
}

/* What is before a colon that no slash comes before; NULL = none. */
static char *scheme_of(const char *text)
{
        gsize length = strcspn(text, ":/");

        return text[length] == ':' ? g_strndup(text, length) : NULL;
}

static gboolean is_remote_scheme(const char *scheme)
{
        static const char *const remote[] = { "nbd", "nbd+tcp", "nbd+unix", "rbd", "iscsi", NULL };

        return g_strv_contains(remote, scheme);
}

static gboolean is_file_driver(const char *driver)
{
        return strcmp(driver, "file") == 0 || strcmp(driver, "host_device") == 0;
}

/* As a format it is how QEMU says that there is none above it. */
static gboolean is_protocol(const char *format)
{
        return is_file_driver(format) || is_remote_scheme(format);
}

gboolean backing_is_remote(const char *source)
{
        g_autofree char *scheme = scheme_of(source);

        return scheme && is_remote_scheme(scheme);
}

/* ---- json: ---- */

typedef struct {
        const char *driver, *file_driver, *filename;
} JsonName;

/* Where a member of that name goes; NULL: it is none of those that are understood. */
static const char **json_field(JsonName *name, const char *member, gboolean in_file)
{
        if (!in_file && strcmp(member, "driver") == 0)
                return &name->driver;
        if (!in_file && strcmp(member, "filename") == 0)
                return &name->filename;
        if (!in_file && g_str_has_prefix(member, "file."))
                return json_field(name, member + strlen("file."), TRUE);
        if (in_file && strcmp(member, "driver") == 0)
                return &name->file_driver;
        return in_file && strcmp(member, "filename") == 0 ? &name->filename : NULL;
}

static gboolean read_json_object(JsonName *name, JsonObject *object, gboolean in_file, GError **error)
{
        JsonObjectIter iter;
        const char *member;
        JsonNode *node;

        json_object_iter_init(&iter, object);
        while (json_object_iter_next(&iter, &member, &node)) {
                JsonObject *file = in_file ? NULL : json_object(object, member);
                const char **field = json_field(name, member, in_file);

                if (file && strcmp(member, "file") == 0) {
                        if (!read_json_object(name, file, TRUE, error))
                                return FALSE;
                        continue;
                }
                if (!field)
                        return bj_refuse(error, "'%s' in the name of its backing file is not understood",
                                         member);
                if (*field || !json_string(object, member))
                        return bj_refuse(error,
                                         "'%s' in the name of its backing file is there twice, or no text",
                                         member);
                *field = json_string(object, member);
        }
        return TRUE;
}

/* A file without a format above it is "raw", and QEMU takes no recorded format for it but that name. */
static gboolean read_plain_json(const JsonName *json, const char *format, BackingName *name, GError **error)
{
        if (*format && strcmp(format, json->driver) != 0)
                return bj_refuse(error,
                                 "its backing file's format is '%s', but its name has the driver '%s'",
                                 format, json->driver);
        if (json->file_driver)
                return bj_refuse(error, "the name of its backing file has a file below the driver '%s'",
                                 json->driver);
        name->source = g_strdup(json->filename);
        name->format = g_strdup("raw");
        return TRUE;
}

static gboolean read_json_name(const JsonName *json, gboolean nested, const char *format, BackingName *name,
                               GError **error)
{
        const char *driver = json->driver, *file_driver = json->file_driver;

        if (!json->filename)
                return bj_refuse(error, "the name of its backing file has no 'filename'");
        if (*json->filename != '/')
                return bj_refuse(error, "its backing file '%s' is not an absolute path", json->filename);
        if (driver && is_file_driver(driver) && !nested)
                return read_plain_json(json, format, name, error);
        if (!nested)
                return bj_refuse(error, "the name of its backing file has no 'file'");
        if (file_driver && !is_file_driver(file_driver))
                return bj_refuse(error, "driver '%s' in the name of its backing file is not understood",
                                 file_driver);
        if (driver && strcmp(driver, "raw") != 0 && strcmp(driver, "qcow2") != 0)
                return bj_refuse(error, "driver '%s' in the name of its backing file is not understood",
                                 driver);
        if (driver && *format && strcmp(driver, format) != 0)
                return bj_refuse(error,
                                 "its backing file's format is '%s', but its name has the driver '%s'",
                                 format, driver);
        name->source = g_strdup(json->filename);
        name->format = driver ? g_strdup(driver) : *format ? g_strdup(format) : NULL;
        return TRUE;
}

static gboolean parse_json(const char *text, const char *format, BackingName *name, GError **error)
{
        g_autoptr(JsonParser) parser = json_parser_new();
        JsonName json = { 0 };
        JsonNode *root;
        JsonObject *object;
        gboolean nested;

        if (!json_is_shallow(text, strlen(text), JSON_DEPTH_MAX) ||
            !json_parser_load_from_data(parser, text, -1, NULL) || !(root = json_parser_get_root(parser)) ||
            !JSON_NODE_HOLDS_OBJECT(root))
                return bj_refuse(error, "the name of its backing file is not a JSON object");
        object = json_node_get_object(root);
        if (!read_json_object(&json, object, FALSE, error))
                return FALSE;
        nested = !json_object_has_member(object, "filename");
        return read_json_name(&json, nested, format, name, error);
}

/* ---- all of them ---- */

gboolean backing_parse(const char *text, const char *format, const char *image, BackingName *name,
                       GError **error)
{
        g_autofree char *scheme = scheme_of(text);

        *name = (BackingName){ 0 };
        if (scheme && strcmp(scheme, "json") == 0)
                return parse_json(text + strlen("json:"), format, name, error);
        if (scheme && strcmp(scheme, "file") == 0) {
                text += strlen("file:");
                if (*text != '/')
                        return bj_refuse(error, "its backing file 'file:%s' is not an absolute path", text);
        } else if (scheme && is_remote_scheme(scheme)) {
                name->remote = TRUE;
        } else if (scheme) {
                return bj_refuse(error, "its backing file has the protocol '%s', which is not understood",
                                 scheme);
        }
        if (!*text)
                return bj_refuse(error, "the name of its backing file is empty");
        if (name->remote || *text == '/')
                name->source = g_strdup(text);
        else
                name->source =
                        g_strdup_printf("%.*s%s", (int) (strrchr(image, '/') + 1 - image), image, text);
        if (*format)
                name->format = g_strdup(is_protocol(format) ? "raw" : format);
        return TRUE;
}

char *backing_parse_data_file(const char *text, GError **error)
{
        if (g_str_has_prefix(text, "file:/"))
                text += strlen("file:");
        if (*text == '/')
                return g_strdup(text);
        bj_refuse(error, "its data file '%s' is not an absolute path", text);
        return NULL;
}
