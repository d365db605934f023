/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Targets on the network, and the options of QEMU's nodes that they become. */
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "job/target-uri.h"

typedef struct {
        const char *target, *options;
} Good;

#define INET(host, port) \
        "{\"driver\":\"nbd\",\"server\":{\"type\":\"inet\",\"host\":\"" host "\",\"port\":\"" port "\"}"
#define UNIX(path) "{\"driver\":\"nbd\",\"server\":{\"type\":\"unix\",\"path\":\"" path "\"}"
#define EXPORT(name) ",\"export\":\"" name "\"}"
#define ISCSI(portal, target, lun)                                                                   \
        "{\"driver\":\"iscsi\",\"transport\":\"tcp\",\"portal\":\"" portal "\",\"target\":\"" target \
        "\",\"lun\":" lun

static const Good good[] = {
        { "nbd://example.org", INET("example.org", "10809") "}" },
        { "nbd://example.org/", INET("example.org", "10809") "}" },
        { "nbd://example.org:1", INET("example.org", "1") "}" },
        { "nbd://example.org:65535/disk", INET("example.org", "65535") EXPORT("disk") },
        { "nbd://example.org:/disk", INET("example.org", "10809") EXPORT("disk") },
        { "nbd+tcp://192.0.2.7:10810/a/b", INET("192.0.2.7", "10810") EXPORT("a/b") },
        { "nbd://[2001:db8::1]:10810/disk", INET("2001:db8::1", "10810") EXPORT("disk") },
        { "nbd://[::1]", INET("::1", "10809") "}" },
        { "nbd://[fe80::1%25eth0]/disk", INET("fe80::1%eth0", "10809") EXPORT("disk") },
        { "nbd://host/my%20disk%2F1%3f", INET("host", "10809") EXPORT("my disk/1?") },
        { "nbd://host//disk", INET("host", "10809") EXPORT("disk") },
        { "nbd://host/%2fdisk", INET("host", "10809") EXPORT("/disk") },
        { "nbd://host/a@b:c+d", INET("host", "10809") EXPORT("a@b:c+d") },
        { "nbd://host/\xc3\xbc", INET("host", "10809") EXPORT("\xc3\xbc") },
        { "nbd://host/%C3%BC", INET("host", "10809") EXPORT("\xc3\xbc") },
        { "nbd+unix:///?socket=/run/nbd", UNIX("/run/nbd") "}" },
        { "nbd+unix:///disk?socket=/run/nbd", UNIX("/run/nbd") EXPORT("disk") },
        { "nbd+unix:///disk?socket=%2Frun%2Fn%26b%20d+1", UNIX("/run/n&b d+1") EXPORT("disk") },
        { "nbd+unix:///disk?socket=/run/a=b", UNIX("/run/a=b") EXPORT("disk") },
        { "nbd:host:10809", INET("host", "10809") "}" },
        { "nbd:host:10809:exportname=disk", INET("host", "10809") EXPORT("disk") },
        { "nbd:host:10809:exportname=", INET("host", "10809") "}" },
        { "nbd:host:10809:exportname=a%20b:exportname=c",
          INET("host", "10809") EXPORT("a%20b:exportname=c") },
        { "nbd:[::1]:10809:exportname=disk", INET("::1", "10809") EXPORT("disk") },
        { "nbd:unix:/run/nbd", UNIX("/run/nbd") "}" },
        { "nbd:unix:/run/n:b%20d?#:exportname=a/b", UNIX("/run/n:b%20d?#") EXPORT("a/b") },
        { "rbd:pool/image", "{\"driver\":\"rbd\",\"pool\":\"pool\",\"image\":\"image\"}" },
        { "rbd:pool/space/image",
          "{\"driver\":\"rbd\",\"pool\":\"pool\",\"namespace\":\"space\",\"image\":\"image\"}" },
        { "rbd:pool/image:id=admin:conf=/etc/ceph/a@b=c.conf",
          "{\"driver\":\"rbd\",\"pool\":\"pool\",\"image\":\"image\",\"conf\":\"/etc/ceph/a@b=c.conf\","
          "\"user\":\"admin\"}" },
        { "rbd:pool/image:user=admin",
          "{\"driver\":\"rbd\",\"pool\":\"pool\",\"image\":\"image\",\"user\":\"admin\"}" },
        { "rbd:p\\/o\\:ol/sp\\@ace/im\\\\a\\g\\@e\\:1:conf=/a\\:b",
          "{\"driver\":\"rbd\",\"pool\":\"p/o:ol\",\"namespace\":\"sp@ace\",\"image\":\"im\\\\ag@e:1\","
          "\"conf\":\"/a:b\"}" },
        { "rbd:pool/image%20", "{\"driver\":\"rbd\",\"pool\":\"pool\",\"image\":\"image%20\"}" },
        { "iscsi://host/iqn.2001-04.com.example:disk1/0",
          ISCSI("host:3260", "iqn.2001-04.com.example:disk1", "0") "}" },
        { "iscsi://192.0.2.7:860/iqn.2001-04.com.example%3Adisk1/255",
          ISCSI("192.0.2.7:860", "iqn.2001-04.com.example:disk1", "255") "}" },
        { "iscsi://[2001:db8::1]/iqn.2001-04.com.example/1",
          ISCSI("[2001:db8::1]:3260", "iqn.2001-04.com.example", "1") "}" },
        { "iscsi://[2001:db8::1]:3261/iqn.2001-04.com.example/1",
          ISCSI("[2001:db8::1]:3261", "iqn.2001-04.com.example", "1") "}" },
        { "iscsi://me@host/iqn.2001-04.com.example/1",
          ISCSI("host:3260", "iqn.2001-04.com.example", "1") ",\"user\":\"me\"}" },
};

static void is_understood(gconstpointer data)
{
        const Good *row = data;
        g_autofree char *text = NULL, *without = NULL;
        g_autoptr(JsonObject) options = NULL, again = NULL;
        const char *driver = NULL;
        GError *error = NULL;

        g_assert_true(target_is_uri(row->target));
        options = target_uri_to_blockdev(row->target, &driver, &error);
        g_assert_no_error(error);
        text = json_text(options);
        g_assert_cmpstr(text, ==, row->options);
        g_assert_cmpstr(driver, ==, json_string(options, "driver"));

        again = target_uri_to_blockdev(row->target, NULL, NULL);
        without = json_text(again);
        g_assert_cmpstr(without, ==, text);
}

/* What the message says besides the target, of which it shows `shown` where that is not all. */
typedef struct {
        const char *target, *message, *shown;
} Bad;

#define NO_HOST "there is no host"
#define HOST "the host is neither a name nor an address"
#define PORT "the port is not a number from 1 to 65535"
#define QUERY "parameters ('?') are not understood"
#define NBD "nbd:HOST:PORT or nbd:unix:PATH is wanted"
#define RBD "rbd:POOL/IMAGE or rbd:POOL/NAMESPACE/IMAGE is wanted"
#define ISCSI_FORM "iscsi://HOST/TARGET/LUN is wanted"
#define PASSWORD "a password has no place in it, since it would be logged"
#define SOCKET "the path of the socket is not absolute"

static const Bad bad[] = {
        { "nbd:///disk", NO_HOST },
        { "nbd://:10809/disk", NO_HOST },
        { "nbd://", NO_HOST },
        { "nbd+tcp:host", NO_HOST },
        { "nbd://a b/", HOST },
        { "nbd://a%2Fb/", HOST },
        { "nbd://a,ipv4/", HOST },
        { "nbd://a%3A80/", HOST },
        { "nbd://a%25b/", HOST },
        { "nbd://[fe80::1%25a%2Cb]/", HOST },
        { "nbd://[::1/", "Invalid IPv6 address" },
        { "nbd://[host]/", "Invalid IPv6 address" },
        { "nbd://host:0/", PORT },
        { "nbd://host:65536/", "out of range" },
        { "nbd://host:-1/", "port" },
        { "nbd://host:1x/", "port" },
        { "nbd://host:99999999999999999999/", "out of range" },
        { "nbd://host/%zz", "%-encoding" },
        { "nbd://host/%00", "the name of the export is no text" },
        { "nbd://host/%FF", "the name of the export is no text" },
        { "nbd://host/disk?socket=/run/nbd", QUERY },
        { "nbd://host/disk?", QUERY },
        { "nbd://host/disk#1", "'#' has no meaning in it" },
        { "nbd://me@host/disk", "NBD knows no users" },
        { "nbd://me:secret@host/disk", "NBD knows no users", "nbd://me:…@host/disk" },
        { "nbd+unix:///disk", "'?socket=PATH' is wanted" },
        { "nbd+unix:///disk?", "'?socket=PATH' is wanted" },
        { "nbd+unix:///disk?socket", SOCKET },
        { "nbd+unix:///disk?socket=", SOCKET },
        { "nbd+unix:///disk?socket=nbd", SOCKET },
        { "nbd+unix:///disk?socket=/a%00b", "the path of the socket is no text" },
        { "nbd+unix:///disk?socket=/a&socket=/b", "there is more than one socket" },
        { "nbd+unix:///disk?socket=/a&tls-creds=x", "parameter 'tls-creds' is not understood" },
        { "nbd+unix:///disk?path=/a", "parameter 'path' is not understood" },
        { "nbd+unix://host/disk?socket=/a", "nbd+unix:/// is wanted" },
        { "nbd+unix://:1/disk?socket=/a", "nbd+unix:/// is wanted" },
        { "nbd:", NBD },
        { "nbd:host", NBD },
        { "nbd:[::1]", NBD },
        { "nbd:[::1:10809", NBD },
        { "nbd:/run/nbd", NBD },
        { "nbd:host:exportname=disk", NBD },
        { "nbd::10809", NO_HOST },
        { "nbd:host:", PORT },
        { "nbd:host:0", PORT },
        { "nbd:host:65536", PORT },
        { "nbd:host:+80", PORT },
        { "nbd:host: 80", PORT },
        { "nbd:host:80,ipv4=on", PORT },
        { "nbd:::1:10809", NO_HOST },
        { "nbd:[host]:10809", "there is no IPv6 address in the brackets" },
        { "nbd:[]:10809", "there is no IPv6 address in the brackets" },
        { "nbd:[::x]:10809", HOST },
        { "nbd:a/b:10809", HOST },
        { "nbd:unix:", SOCKET },
        { "nbd:unix:nbd", SOCKET },
        { "nbd:unix::exportname=disk", SOCKET },
        { "rbd:", RBD },
        { "rbd:image", RBD },
        { "rbd:/image", RBD },
        { "rbd:pool/", RBD },
        { "rbd:pool//image", RBD },
        { "rbd:pool/space/", RBD },
        { "rbd:pool/a/b/c", RBD },
        { "rbd:pool/@snap", RBD },
        { "rbd:image:conf=/a/b", RBD, "rbd:image:…" },
        { "rbd:pool/image@snap", "a snapshot cannot be written to" },
        { "rbd:pool/image@", "a snapshot cannot be written to" },
        { "rbd:pool/image@snap:id=admin", "a snapshot cannot be written to", "rbd:pool/image@snap:…" },
        { "rbd:pool/image:key=secret", "option 'key' is not understood, only 'conf' and 'id' are",
          "rbd:pool/image:…" },
        { "rbd:po\\:ol/image:id=admin:key=secret", "option 'key' is not understood", "rbd:po\\:ol/image:…" },
        { "rbd:pool/image:", "option '' is not understood", "rbd:pool/image:…" },
        { "rbd:pool/image:id", "option 'id' has no value", "rbd:pool/image:…" },
        { "rbd:pool/image:id=", "option 'id' has no value", "rbd:pool/image:…" },
        { "rbd:pool/image:id=:conf=/a", "option 'id' has no value", "rbd:pool/image:…" },
        { "rbd:pool/image:id=a:user=b", "option 'user' is given twice", "rbd:pool/image:…" },
        { "iscsi:", ISCSI_FORM },
        { "iscsi:host/iqn/0", ISCSI_FORM },
        { "iscsi://host", ISCSI_FORM },
        { "iscsi://host/", ISCSI_FORM },
        { "iscsi://host/iqn", ISCSI_FORM },
        { "iscsi://host//0", ISCSI_FORM },
        { "iscsi://host/iqn/0/", ISCSI_FORM },
        { "iscsi://host/iqn/0/1", ISCSI_FORM },
        { "iscsi:///iqn/0", NO_HOST },
        { "iscsi://host:0/iqn/0", PORT },
        { "iscsi://host%3A1/iqn/0", HOST },
        { "iscsi://host/iqn/", "the LUN is not a number" },
        { "iscsi://host/iqn/-1", "the LUN is not a number" },
        { "iscsi://host/iqn/x", "the LUN is not a number" },
        { "iscsi://host/iqn/0x1", "the LUN is not a number" },
        { "iscsi://host/iqn/2147483648", "the LUN is not a number" },
        { "iscsi://host/%00/0", "the name of the iSCSI target is no text" },
        { "iscsi://host/iqn/0?header_digest=crc32c", QUERY },
        { "iscsi://host/iqn/0#1", "'#' has no meaning in it" },
        { "iscsi://@host/iqn/0", "there is no user before the '@'" },
        { "iscsi://host/iqn@a/0", "there is no user before the '@'" },
        { "iscsi://me%secret@host/iqn/0", PASSWORD, "iscsi://me%…@host/iqn/0" },
        { "iscsi://me%20secret@host/iqn/0", PASSWORD, "iscsi://me%…@host/iqn/0" },
        { "iscsi://me:secret@host/iqn/0", PASSWORD, "iscsi://me:…@host/iqn/0" },
        { "iscsi://me%sec/re?t@secret@host/iqn/0", PASSWORD, "iscsi://me%…@host/iqn/0" },
        { "iscsi://me%@host/iqn/0", PASSWORD, "iscsi://me%…@host/iqn/0" },
        { "nbd://host/\xff", "it is no text", "nbd://host/\xef\xbf\xbd" },
        { "", "it begins with none of nbd:" },
        { "/images/a.qcow2", "it begins with none of nbd:" },
        { "nbds://host/disk", "it begins with none of nbd:" },
        { "NBD://host/disk", "it begins with none of nbd:" },
        { " nbd://host/disk", "it begins with none of nbd:" },
        { "http://me:secret@host/disk", "it begins with none of nbd:", "http://me:…@host/disk" },
};

static void is_refused(gconstpointer data)
{
        const Bad *row = data;
        g_autoptr(GError) error = NULL;
        g_autofree char *start = g_strdup_printf("target '%s': ", row->shown ? row->shown : row->target);
        const char *driver = NULL;

        g_assert_null(target_uri_to_blockdev(row->target, &driver, &error));
        g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
        g_assert_null(driver);
        if (!g_str_has_prefix(error->message, start) ||
            !strstr(error->message + strlen(start), row->message))
                g_assert_cmpstr(error->message, ==, row->message);
        g_assert_null(strstr(error->message, "secret"));
}

static void schemes(void)
{
        static const char *const uris[] = { "nbd:", "nbd://", "nbd+tcp:", "nbd+unix:", "rbd:", "iscsi:" };
        static const char *const others[] = { "",      "nbd",        "nbd/a:b", "/nbd:a", "nbds://host",
                                              "nbd+:", "nbd+vsock:", "file:/a", "iser:",  "Iscsi://host" };

        for (guint i = 0; i < G_N_ELEMENTS(uris); i++)
                g_assert_true(target_is_uri(uris[i]));
        for (guint i = 0; i < G_N_ELEMENTS(others); i++)
                g_assert_false(target_is_uri(others[i]));
}

static const char *any_target(GRand *random)
{
        guint i = (guint) g_rand_int_range(random, 0, G_N_ELEMENTS(good) + G_N_ELEMENTS(bad));

        return i < G_N_ELEMENTS(good) ? good[i].target : bad[i - G_N_ELEMENTS(good)].target;
}

static void mutate(GRand *random, GString *text)
{
        static const char telling[] = ":/?#[]@%\\=&;,+ \n\xff\xc3'019afx";
        gssize at = g_rand_int_range(random, 0, (gint32) text->len + 1);
        gssize rest = (gssize) text->len - at;
        const char *other = any_target(random);

        switch (g_rand_int_range(random, 0, 5)) {
        case 0:
                g_string_insert_c(text, at, telling[g_rand_int_range(random, 0, sizeof(telling) - 1)]);
                break;
        case 1:
                g_string_insert_c(text, at, (char) g_rand_int_range(random, 1, 256));
                break;
        case 2:
                g_string_erase(text, at, g_rand_int_range(random, 0, (gint32) MIN(rest, 8) + 1));
                break;
        case 3:
                g_string_truncate(text, (gsize) at);
                g_string_append(text, other + g_rand_int_range(random, 0, (gint32) strlen(other) + 1));
                break;
        default:
                if (rest > 0)
                        text->str[at] = telling[g_rand_int_range(random, 0, sizeof(telling) - 1)];
        }
}

/* Whatever comes, it is either options that can be sent to QEMU or an error that can be sent to the caller.
 */
static void mutations(void)
{
        g_autoptr(GRand) random = g_rand_new_with_seed(20240607);
        guint understood = 0;

        for (int i = 0; i < 20000; i++) {
                g_autoptr(GString) target = g_string_new(any_target(random));
                g_autoptr(JsonObject) options = NULL;
                g_autoptr(GError) error = NULL;
                const char *driver = NULL;

                for (int n = g_rand_int_range(random, 0, 4); n >= 0; n--)
                        mutate(random, target);
                options = target_uri_to_blockdev(target->str, &driver, &error);
                if (options) {
                        g_autofree char *text = json_text(options);

                        understood++;
                        g_assert_true(target_is_uri(target->str));
                        g_assert_cmpstr(driver, ==, json_string(options, "driver"));
                        g_assert_true(g_utf8_validate(text, -1, NULL));
                        continue;
                }
                g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
                g_assert_true(g_utf8_validate(error->message, -1, NULL));
        }
        g_assert_cmpuint(understood, >, 1000);
        g_assert_cmpuint(understood, <, 19000);
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        for (guint i = 0; i < G_N_ELEMENTS(good); i++) {
                g_autofree char *name = g_strdup_printf("/target-uri/good/%u", i + 1);
                g_test_add_data_func(name, &good[i], is_understood);
        }
        for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
                g_autofree char *name = g_strdup_printf("/target-uri/bad/%u", i + 1);
                g_test_add_data_func(name, &bad[i], is_refused);
        }
        g_test_add_func("/target-uri/schemes", schemes);
        g_test_add_func("/target-uri/mutations", mutations);
        return g_test_run();
}
