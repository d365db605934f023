/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <string.h>

#include "base/error.h"

#define GROUP "Images"
#define KEY "ImageDirectories"

void config_clear(Config *config)
{
        g_clear_pointer(&config->image_directories, g_strfreev);
}

static gboolean check_names(GKeyFile *file, const char *path, GError **error)
{
        g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);

        for (char **group = groups; *group; group++) {
                g_auto(GStrv) keys = g_key_file_get_keys(file, *group, NULL, NULL);

                if (strcmp(*group, GROUP) != 0)
                        return bj_refuse(error, "%s: there is no section [%s]", path, *group);
                for (char **key = keys; *key; key++)
                        if (strcmp(*key, KEY) != 0)
                                return bj_refuse(error, "%s: there is no setting '%s' in [%s]", path, *key,
                                                 *group);
        }
        return TRUE;
}

static gboolean check_directories(const Config *config, const char *path, GError **error)
{
        for (char **directory = config->image_directories; *directory; directory++)
                if (**directory != '/')
                        return bj_refuse(error, "%s: " KEY ": '%s' is no absolute path", path, *directory);
        return TRUE;
}

gboolean config_read(Config *config, const char *path, GError **error)
{
        static const char *const usual_directories[] = { STATE_DIRECTORY "/images",
                                                         "/var/lib/libvirt/images", NULL };
        g_autoptr(GKeyFile) file = g_key_file_new();
        g_autoptr(GError) failure = NULL;
        const char *name = path ? path : CONFIG_FILE;

        g_key_file_set_list_separator(file, ':');
        if (!g_key_file_load_from_file(file, name, G_KEY_FILE_NONE, &failure) &&
            (path || !g_error_matches(failure, G_FILE_ERROR, G_FILE_ERROR_NOENT)))
                return bj_refuse(error, "%s: %s", name, failure->message);
        g_clear_error(&failure);
        if (!check_names(file, name, error))
                return FALSE;
        if (g_key_file_has_key(file, GROUP, KEY, NULL)) {
                config->image_directories = g_key_file_get_string_list(file, GROUP, KEY, NULL, &failure);
                if (!config->image_directories)
                        return bj_refuse(error, "%s: %s", name, failure->message);
        } else
                config->image_directories = g_strdupv((GStrv) usual_directories);
        return check_directories(config, name, error);
}
