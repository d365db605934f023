/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/target-uri.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"

#define NBD_PORT 10809
#define ISCSI_PORT 3260
#define EXPORT_NAME ":exportname="
#define ISCSI_PREFIX "iscsi://"

/* The target as far as it may be seen: without passwords and without the values of RBD's options, among
 * which may be its key. */
static char *shown(const char *target)
{
        g_autofree char *valid = g_utf8_make_valid(target, -1);
        const char *start = strstr(valid, "://"), *end = NULL, *secret;

        if (g_str_has_prefix(valid, "rbd:")) {
                for (secret = valid + strlen("rbd:"); *secret && *secret != ':'; secret++)
                        if (secret[0] == '\\' && secret[1])
                                secret++;
                if (*secret)
                        return g_strdup_printf("%.*s:…", (int) (secret - valid), valid);
        } else if (start) {
                start += strlen("://");
                /* A password may hold anything, but no iSCSI name an "@". */
                end = g_strrstr_len(
                        start, g_str_has_prefix(valid, ISCSI_PREFIX) ? -1 : (gssize) strcspn(start, "/?#"),
                        "@");
                secret = start + strcspn(start, "%:");
                if (end && secret < end)
                        return g_strdup_printf("%.*s…%s", (int) (secret + 1 - valid), valid, end);
        }
        return g_steal_pointer(&valid);
}

static gpointer G_GNUC_PRINTF(3, 4) refuse(GError **error, const char *target, const char *format, ...)
{
        g_autofree char *name = shown(target);
        g_autofree char *what = NULL;
        va_list list;

        va_start(list, format);
        what = g_strdup_vprintf(format, list);
        va_end(list);
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "target '%s': %s", name, what);
        return NULL;
}

/* ---- parts ---- */

/* NULL where it is no text. */
static char *decode(const char *text)
{
        g_autofree char *decoded = g_uri_unescape_string(text, NULL);

        return decoded && g_utf8_validate(decoded, -1, NULL) ? g_steal_pointer(&decoded) : NULL;
}

static gboolean has_only_host_characters(const char *text)
{
        for (const char *c = text; *c; c++)
                if (!g_ascii_isalnum(*c) && !strchr("-._", *c))
                        return FALSE;
        return *text != '\0';
}

/* A name, an address, or an IPv6 address with its zone ("fe80::1%eth0"). */
static gboolean is_host(const char *host)
{
        g_auto(GStrv) parts = NULL;

        if (!strchr(host, ':'))
                return has_only_host_characters(host);
        parts = g_strsplit(host, "%", 2);
        return g_hostname_is_ip_address(parts[0]) && (!parts[1] || has_only_host_characters(parts[1]));
}

/* It must not hold what has a meaning in a portal or to QEMU's parser of addresses. */
static gboolean check_host(const char *target, const char *host, GError **error)
{
        if (!host || !*host)
                refuse(error, target, "there is no host");
        else if (!is_host(host))
                refuse(error, target, "the host is neither a name nor an address");
        else
                return TRUE;
        return FALSE;
}

static gboolean check_port(const char *target, const char *text, GError **error)
{
        if (g_ascii_string_to_unsigned(text, 10, 1, G_MAXUINT16, NULL, NULL))
                return TRUE;
        refuse(error, target, "the port is not a number from 1 to 65535");
        return FALSE;
}

/* In its encoded form, so that an encoded "/" is no separator. */
static GUri *parse_uri(const char *target, GError **error)
{
        g_autoptr(GError) cause = NULL;
        g_autoptr(GUri) uri = g_uri_parse(target, G_URI_FLAGS_ENCODED, &cause);

        if (!uri)
                return refuse(error, target, "%s", cause->message);
        if (g_uri_get_fragment(uri))
                return refuse(error, target, "'#' has no meaning in it");
        return g_steal_pointer(&uri);
}

/* The port as text; `otherwise` where there is none, NULL where it is none. */
static char *uri_port(const char *target, GUri *uri, int otherwise, GError **error)
{
        int port = g_uri_get_port(uri);
        g_autofree char *text = g_strdup_printf("%d", port < 0 ? otherwise : port);

        return check_port(target, text, error) ? g_steal_pointer(&text) : NULL;
}

/* ---- NBD ---- */

static JsonObject *nbd_options(JsonObject *server, const char *export)
{
        return json_make("s:driver", "nbd", "o:server", server, "s:export",
                         export && *export ? export : NULL, NULL);
}

static JsonObject *inet_server(const char *host, const char *port)
{
        return json_make("s:type", "inet", "s:host", host, "s:port", port, NULL);
}

/* Relative to what is QEMU's affair, and QEMU is not who is asked. */
static JsonObject *unix_server(const char *target, const char *path, GError **error)
{
        if (!g_path_is_absolute(path))
                return refuse(error, target, "the path of the socket is not absolute");
        return json_make("s:type", "unix", "s:path", path, NULL);
}

/* nbd:HOST:PORT[:exportname=NAME], nbd:unix:PATH[:exportname=NAME]; nothing is decoded here */
static JsonObject *parse_old_nbd(const char *target, GError **error)
{
        const char *place = target + strlen("nbd:");
        const char *option = strstr(place, EXPORT_NAME), *export = NULL;
        g_autofree char *server = option ? g_strndup(place, (gsize) (option - place)) : g_strdup(place);
        gboolean has_brackets = *server == '[';
        char *host = server, *end, *port;

        if (option)
                export = option + strlen(EXPORT_NAME);
        if (g_str_has_prefix(server, "unix:")) {
                JsonObject *address = unix_server(target, server + strlen("unix:"), error);

                return address ? nbd_options(address, export) : NULL;
        }
        end = strchr(server, has_brackets ? ']' : ':');
        port = end && has_brackets ? end + 1 : end;
        if (!port || *port != ':')
                return refuse(error, target, "nbd:HOST:PORT or nbd:unix:PATH is wanted");
        *port++ = '\0';
        if (has_brackets) {
                host++;
                *end = '\0';
                if (!strchr(host, ':'))
                        return refuse(error, target, "there is no IPv6 address in the brackets");
        }
        if (!check_host(target, host, error) || !check_port(target, port, error))
                return NULL;
        return nbd_options(inet_server(host, port), export);
}

static JsonObject *parse_socket(const char *target, const char *query, GError **error)
{
        g_auto(GStrv) parameters = g_strsplit_set(query ? query : "", "&;", -1);
        g_autofree char *path = NULL;

        for (char **parameter = parameters; *parameter; parameter++) {
                char *value = strchr(*parameter, '=');

                if (value)
                        *value++ = '\0';
                if (strcmp(*parameter, "socket") != 0)
                        return refuse(error, target, "parameter '%s' is not understood", *parameter);
                if (path)
                        return refuse(error, target, "there is more than one socket");
                path = decode(value ? value : "");
                if (!path)
                        return refuse(error, target, "the path of the socket is no text");
        }
        return path ? unix_server(target, path, error)
                    : refuse(error, target, "there is no socket: '?socket=PATH' is wanted");
}

static JsonObject *parse_nbd(const char *target, GError **error)
{
        gboolean is_unix = g_str_has_prefix(target, "nbd+unix:");
        g_autoptr(GUri) uri = NULL;
        g_autofree char *port = NULL, *export = NULL;
        const char *host, *path;
        JsonObject *server;

        if (g_str_has_prefix(target, "nbd:") && !g_str_has_prefix(target, "nbd://"))
                return parse_old_nbd(target, error);
        uri = parse_uri(target, error);
        if (!uri)
                return NULL;
        if (g_uri_get_userinfo(uri))
                return refuse(error, target, "NBD knows no users");
        path = g_uri_get_path(uri);
        export = decode(path + strspn(path, "/"));
        if (!export)
                return refuse(error, target, "the name of the export is no text");
        host = g_uri_get_host(uri);
        if (is_unix) {
                if ((host && *host) || g_uri_get_port(uri) >= 0)
                        return refuse(error, target, "a Unix socket is on no host: nbd+unix:/// is wanted");
                server = parse_socket(target, g_uri_get_query(uri), error);
                return server ? nbd_options(server, export) : NULL;
        }
        if (g_uri_get_query(uri))
                return refuse(error, target, "parameters ('?') are not understood");
        if (!check_host(target, host, error) || !(port = uri_port(target, uri, NBD_PORT, error)))
                return NULL;
        return nbd_options(inet_server(host, port), export);
}

/* ---- RBD ---- */

/* The text up to one of `ends` that has no backslash before it, without its backslashes. `rest` stops at
 * that character, or at the end. */
static char *next_token(const char **rest, const char *ends)
{
        g_autoptr(GString) token = g_string_new(NULL);
        const char *c;

        for (c = *rest; *c && !strchr(ends, *c); c++) {
                if (c[0] == '\\' && c[1])
                        c++;
                g_string_append_c(token, *c);
        }
        *rest = c;
        return g_string_free(g_steal_pointer(&token), FALSE);
}

static JsonObject *parse_rbd(const char *target, GError **error)
{
        const char *rest = target + strlen("rbd:");
        g_autofree char *pool = next_token(&rest, "/:");
        g_autofree char *namespace = NULL, *image = NULL, *conf = NULL, *user = NULL;

        if (*rest == '/') {
                rest++;
                image = next_token(&rest, "/:@");
                if (*rest == '/') {
                        rest++;
                        namespace = g_steal_pointer(&image);
                        image = next_token(&rest, "/:@");
                }
        }
        if (!*pool || !image || !*image || (namespace && !*namespace) || *rest == '/')
                return refuse(error, target, "rbd:POOL/IMAGE or rbd:POOL/NAMESPACE/IMAGE is wanted");
        if (*rest == '@')
                return refuse(error, target, "a snapshot cannot be written to");
        while (*rest == ':') {
                g_autofree char *key = (rest++, next_token(&rest, "=:"));
                g_autofree char *value = *rest == '=' ? (rest++, next_token(&rest, ":")) : NULL;
                char **place = NULL;

                if (strcmp(key, "conf") == 0)
                        place = &conf;
                else if (strcmp(key, "id") == 0 || strcmp(key, "user") == 0)
                        place = &user;
                if (!place)
                        return refuse(error, target,
                                      "option '%s' is not understood, only 'conf' and 'id' are", key);
                if (!value || !*value)
                        return refuse(error, target, "option '%s' has no value", key);
                if (*place)
                        return refuse(error, target, "option '%s' is given twice", key);
                *place = g_steal_pointer(&value);
        }
        return json_make("s:driver", "rbd", "s:pool", pool, "s:namespace", namespace, "s:image", image,
                         "s:conf", conf, "s:user", user, NULL);
}

/* ---- iSCSI ---- */

static JsonObject *parse_iscsi(const char *target, GError **error)
{
        g_autoptr(GUri) uri = NULL;
        g_auto(GStrv) path = NULL;
        g_autofree char *user = NULL, *port = NULL, *portal = NULL, *name = NULL;
        const char *host, *at = strrchr(target, '@');
        guint64 lun;

        if (!g_str_has_prefix(target, ISCSI_PREFIX))
                return refuse(error, target, "iscsi://HOST/TARGET/LUN is wanted");
        /* Before GUri sees it, to which "%" is the start of an encoded byte and not of a password. */
        if (at) {
                user = g_strndup(target + strlen(ISCSI_PREFIX),
                                 (gsize) (at - target) - strlen(ISCSI_PREFIX));
                if (strpbrk(user, "%:"))
                        return refuse(error, target,
                                      "a password has no place in it, since it would be logged");
                if (!*user || strpbrk(user, "/?#@"))
                        return refuse(error, target, "there is no user before the '@'");
        }
        uri = parse_uri(target, error);
        if (!uri)
                return NULL;
        host = g_uri_get_host(uri);
        if (!check_host(target, host, error) || !(port = uri_port(target, uri, ISCSI_PORT, error)))
                return NULL;
        portal = g_strdup_printf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
        if (g_uri_get_query(uri))
                return refuse(error, target, "parameters ('?') are not understood");
        path = g_strsplit(g_uri_get_path(uri), "/", -1);
        if (g_strv_length(path) != 3 || !*path[1])
                return refuse(error, target, "iscsi://HOST/TARGET/LUN is wanted");
        name = decode(path[1]);
        if (!name)
                return refuse(error, target, "the name of the iSCSI target is no text");
        if (!g_ascii_string_to_unsigned(path[2], 10, 0, G_MAXINT, &lun, NULL))
                return refuse(error, target, "the LUN is not a number");
        return json_make("s:driver", "iscsi", "s:transport", "tcp", "s:portal", portal, "s:target", name,
                         "i:lun", (gint64) lun, "s:user", user, NULL);
}

/* ---- all of them ---- */

static const struct {
        const char *prefix, *driver;
        JsonObject *(*parse)(const char *target, GError **error);
} schemes[] = {
        { "nbd:", "nbd", parse_nbd }, { "nbd+tcp:", "nbd", parse_nbd },   { "nbd+unix:", "nbd", parse_nbd },
        { "rbd:", "rbd", parse_rbd }, { "iscsi:", "iscsi", parse_iscsi },
};

static int find_scheme(const char *target)
{
        for (guint i = 0; i < G_N_ELEMENTS(schemes); i++)
                if (g_str_has_prefix(target, schemes[i].prefix))
                        return (int) i;
        return -1;
}

gboolean target_is_uri(const char *target)
{
        return find_scheme(target) >= 0;
}

JsonObject *target_uri_to_blockdev(const char *target, const char **ret_driver, GError **error)
{
        int scheme = find_scheme(target);
        JsonObject *options;

        if (scheme < 0)
                return refuse(error, target, "it begins with none of nbd: nbd+tcp: nbd+unix: rbd: iscsi:");
        if (!g_utf8_validate(target, -1, NULL))
                return refuse(error, target, "it is no text");
        options = schemes[scheme].parse(target, error);
        if (options && ret_driver)
                *ret_driver = schemes[scheme].driver;
        return options;
}
