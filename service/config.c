/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <string.h>

#include "base/error.h"

#define DAY (24 * 60 * 60)

/* ---- kinds of values ---- */

static gboolean take_directories(const ConfigSetting *setting, const char *value, gpointer field,
                                 char **error)
{
        g_auto(GStrv) directories = g_strsplit(value, ":", -1);

        (void) setting;
        for (char **directory = directories; *directory; directory++)
                if (**directory != '/') {
                        *error = g_strdup_printf("'%s' is no absolute path", *directory);
                        return FALSE;
                }
        g_strfreev(*(GStrv *) field);
        *(GStrv *) field = g_steal_pointer(&directories);
        return TRUE;
}

static gboolean take_number(const ConfigSetting *setting, const char *value, gpointer field, char **error)
{
        guint64 number;

        if (g_ascii_string_to_unsigned(value, 10, setting->minimum, setting->maximum, &number, NULL)) {
                *(guint *) field = (guint) number;
                return TRUE;
        }
        *error = g_strdup_printf("'%s' is no number from %u to %u", value, setting->minimum,
                                 setting->maximum);
        return FALSE;
}

static gboolean take_user(const ConfigSetting *setting, const char *value, gpointer field, char **error)
{
        (void) setting;
        if (!*value) {
                *error = g_strdup("there has to be a name");
                return FALSE;
        }
        g_free(*(char **) field);
        *(char **) field = g_strdup(value);
        return TRUE;
}

const ConfigSetting config_settings[] = {
        { "Images", "ImageDirectories", STATE_DIRECTORY "/images:/var/lib/libvirt/images", take_directories,
          offsetof(Config, image_directories) },
        { "Jobs", "KeepFinishedSec", "3600", take_number, offsetof(Config, keep_finished_seconds), 1,
          365 * DAY },
        { "Jobs", "KeepFinished", "64", take_number, offsetof(Config, keep_finished), 1, 10000 },
        { "Domains", "User", QEMU_USER, take_user, offsetof(Config, user) },
        { "Domains", "StartSec", "60", take_number, offsetof(Config, start_seconds), 1, DAY },
        { .name = NULL },
};

/* ---- the file ---- */

void config_clear(Config *config)
{
        g_clear_pointer(&config->image_directories, g_strfreev);
        g_clear_pointer(&config->user, g_free);
}

/* `name` NULL: any of that section. */
static const ConfigSetting *find(const char *section, const char *name)
{
        for (const ConfigSetting *setting = config_settings; setting->name; setting++)
                if (strcmp(setting->section, section) == 0 && (!name || strcmp(setting->name, name) == 0))
                        return setting;
        return NULL;
}

static gboolean take(Config *config, const ConfigSetting *setting, const char *value, const char *path,
                     GError **error)
{
        g_autofree char *what = NULL;

        return setting->take(setting, value, (char *) config + setting->offset, &what) ||
               bj_refuse(error, "%s: %s=: %s", path, setting->name, what);
}

static gboolean read_section(Config *config, GKeyFile *file, const char *section, const char *path,
                             GError **error)
{
        g_auto(GStrv) keys = g_key_file_get_keys(file, section, NULL, NULL);

        if (!find(section, NULL))
                return bj_refuse(error, "%s: there is no section [%s]", path, section);
        for (char **key = keys; *key; key++) {
                const ConfigSetting *setting = find(section, *key);
                g_autoptr(GError) failure = NULL;
                g_autofree char *value = NULL;

                if (!setting)
                        return bj_refuse(error, "%s: there is no setting '%s' in [%s]", path, *key, section);
                value = g_key_file_get_string(file, section, *key, &failure);
                if (!value)
                        return bj_refuse(error, "%s: %s", path, failure->message);
                if (!take(config, setting, value, path, error))
                        return FALSE;
        }
        return TRUE;
}

gboolean config_read(Config *config, const char *path, GError **error)
{
        g_autoptr(GKeyFile) file = g_key_file_new();
        g_autoptr(GError) failure = NULL;
        g_auto(GStrv) sections = NULL;
        const char *name = path ? path : CONFIG_FILE;

        for (const ConfigSetting *setting = config_settings; setting->name; setting++)
                if (!take(config, setting, setting->usual, name, error))
                        return FALSE;
        if (!g_key_file_load_from_file(file, name, G_KEY_FILE_NONE, &failure) &&
            (path || !g_error_matches(failure, G_FILE_ERROR, G_FILE_ERROR_NOENT)))
                return bj_refuse(error, "%s: %s", name, failure->message);
        sections = g_key_file_get_groups(file, NULL);
        for (char **section = sections; *section; section++)
                if (!read_section(config, file, *section, name, error))
                        return FALSE;
        return TRUE;
}
