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
        g_test_add_func("/config/missing", missing);
        return g_test_run();
}
