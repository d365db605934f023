/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The configuration file: what is taken, and what is refused with the name of the file. */
#include <glib/gstdio.h>

#include "base/error.h"
#include "config.h"

typedef struct {
        const char *text;
        const char *first, *second; /* of the directories; NULL: it is refused */
        const char *words;          /* of the error */
} Case;

static const Case cases[] = {
        { "", STATE_DIRECTORY "/images", "/var/lib/libvirt/images", NULL },
        { "[Images]\n", STATE_DIRECTORY "/images", "/var/lib/libvirt/images", NULL },
        { "[Images]\nImageDirectories=/a\n", "/a", NULL, NULL },
        { "# words\n[Images]\nImageDirectories=/a b:/c\n", "/a b", "/c", NULL },
        { "[Images]\nImageDirectories=\n", NULL, NULL, NULL },
        { "[Images]\nImageDirectories=/a:b\n", NULL, NULL, "'b' is no absolute path" },
        { "[Images]\nImageDirectory=/a\n", NULL, NULL, "no setting 'ImageDirectory'" },
        { "[Pictures]\n", NULL, NULL, "no section [Pictures]" },
        { "ImageDirectories=/a\n", NULL, NULL, "group" },
        { "[Jobs]\nImageDirectories=/a\n", NULL, NULL, "no setting 'ImageDirectories' in [Jobs]" },
        { "[Jobs]\nKeepFinishedSec=0\n", NULL, NULL,
          "KeepFinishedSec=: '0' is no number from 1 to 31536000" },
        { "[Jobs]\nKeepFinishedSec=1h\n", NULL, NULL, "'1h' is no number" },
        { "[Jobs]\nKeepFinished=-1\n", NULL, NULL, "KeepFinished=: '-1'" },
        { "[Jobs]\nKeepFinished=\n", NULL, NULL, "KeepFinished=: ''" },
        { "[Domains]\nUser=\n", NULL, NULL, "User=: there has to be a name" },
        { "[Domains]\nStartSec=99999999999999999999\n", NULL, NULL, "StartSec=" },
        { "[Images]\nImageDirectories=/\xff\n", NULL, NULL, "" },
};

static void check(gconstpointer data)
{
        const Case *row = data;
        g_autofree char *path = NULL;
        g_auto(Config) config = { 0 };
        g_autoptr(GError) error = NULL;
        int fd = g_file_open_tmp("test-config-XXXXXX", &path, NULL);
        gboolean read;

        g_assert_cmpint(fd, >=, 0);
        g_assert_true(g_file_set_contents(path, row->text, -1, NULL));
        read = config_read(&config, path, &error);
        g_close(fd, NULL);
        g_unlink(path);
        if (row->words) {
                g_assert_false(read);
                g_assert_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT);
                g_assert_nonnull(strstr(error->message, path));
                g_assert_nonnull(strstr(error->message, row->words));
                return;
        }
        g_assert_no_error(error);
        g_assert_cmpstr(config.image_directories[0], ==, row->first);
        if (row->first)
                g_assert_cmpstr(config.image_directories[1], ==, row->second);
}

static void read_text(Config *config, const char *text)
{
        g_autofree char *path = NULL;
        g_autoptr(GError) error = NULL;
        int fd = g_file_open_tmp("test-config-XXXXXX", &path, NULL);

        g_assert_cmpint(fd, >=, 0);
        g_assert_true(g_file_set_contents(path, text, -1, NULL));
        config_read(config, path, &error);
        g_close(fd, NULL);
        g_unlink(path);
        g_assert_no_error(error);
}

static void values(void)
{
        g_auto(Config) config = { 0 };

        read_text(&config,
                  "[Jobs]\nKeepFinishedSec = 7\nKeepFinished=10000\n[Domains]\nUser=qemu\nStartSec=1\n");
        g_assert_cmpuint(config.keep_finished_seconds, ==, 7);
        g_assert_cmpuint(config.keep_finished, ==, 10000);
        g_assert_cmpuint(config.start_seconds, ==, 1);
        g_assert_cmpstr(config.user, ==, "qemu");
        g_assert_cmpstr(config.image_directories[1], ==, "/var/lib/libvirt/images");
}

/* The file that is installed has every setting, commented out, with the value that it has without it. */
static void shipped(void)
{
        g_autofree char *text = NULL;
        g_autoptr(GRegex) comment = g_regex_new("^#(?=[A-Z][A-Za-z]*=)", G_REGEX_MULTILINE, 0, NULL);
        g_autofree char *uncommented = NULL;
        g_autoptr(GKeyFile) file = g_key_file_new();
        g_auto(Config) config = { 0 };
        guint count = 0;

        g_assert_true(g_file_get_contents(SHIPPED, &text, NULL, NULL));
        g_assert_true(g_key_file_load_from_data(file, text, (gsize) -1, G_KEY_FILE_NONE, NULL));
        for (const ConfigSetting *setting = config_settings; setting->name; setting++)
                g_assert_false(g_key_file_has_key(file, setting->section, setting->name, NULL));
        uncommented = g_regex_replace_literal(comment, text, -1, 0, "", 0, NULL);
        g_assert_true(g_key_file_load_from_data(file, uncommented, (gsize) -1, G_KEY_FILE_NONE, NULL));
        for (const ConfigSetting *setting = config_settings; setting->name; setting++, count++) {
                g_autofree char *value = g_key_file_get_string(file, setting->section, setting->name, NULL);
                g_assert_cmpstr(value, ==, setting->usual);
        }
        g_assert_cmpuint(count, ==, 5);
        read_text(&config, uncommented);
}

static void missing(void)
{
        g_auto(Config) config = { 0 };
        g_autoptr(GError) error = NULL;

        g_assert_false(config_read(&config, "/no/such/file", &error));
        g_assert_nonnull(strstr(error->message, "/no/such/file"));
        g_clear_error(&error);
        g_assert_true(config_read(&config, NULL, &error));
        g_assert_cmpstr(config.image_directories[1], ==, "/var/lib/libvirt/images");
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
                g_autofree char *name = g_strdup_printf("/config/%u", i);
                g_test_add_data_func(name, &cases[i], check);
        }
        g_test_add_func("/config/values", values);
        g_test_add_func("/config/shipped", shipped);
        g_test_add_func("/config/missing", missing);
        return g_test_run();
}
