/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "show.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "output.h"
#include "units.h"
#include "values.h"

/* A domain, its disks, the layers of each and who uses them, as a tree. */

static guint width; /* of the terminal; 0: as wide as it gets */

/* The lines of a tree, as the terminal can show them. */
static const char *line(gboolean last, gboolean name)
{
        gboolean utf8 = g_get_charset(NULL);

        if (name)
                return utf8 ? last ? "└─" : "├─" : last ? "`-" : "|-";
        return last ? "  " : utf8 ? "│ " : "| ";
}

static char *size_of(GVariant *values, const char *key)
{
        return units_format_size(value_number(values, key));
}

/* `own` is the user that need not be said, for it is what is shown. */
static void print_users(const char *indent, const char *const *users, const char *own)
{
        g_autoptr(GPtrArray) others = g_ptr_array_new();

        for (; users && *users; users++)
                if (g_strcmp0(*users, own) != 0)
                        g_ptr_array_add(others, (gpointer) *users);
        for (guint i = 0; i < others->len; i++) {
                g_autofree char *user = printable(others->pdata[i]);

                printf("%s%s%s%sused by %s%s\n", indent, line(i + 1 == others->len, TRUE),
                       style(STYLE_WARNING), own ? "also " : "", user, style(STYLE_PLAIN));
        }
}

/* "qcow2, 32 MiB, 6 MiB allocated, node vda, read-only" */
static char *details_of(GVariant *layer)
{
        g_autofree char *virtual_size = size_of(layer, "virtual-size");
        g_autofree char *allocated = size_of(layer, "allocated");
        g_autofree char *node = printable(value_text(layer, "node-name"));

        return g_strdup_printf("%s, %s, %s allocated%s%s%s", value_text(layer, "format"), virtual_size,
                               allocated, *node ? ", node " : "", node,
                               value_flag(layer, "read-only") ? ", read-only" : "");
}

/* The details stand on a line of their own where the terminal has no room for them behind the name. */
void show_layer(const char *indent, gboolean last, GVariant *layer, GVariant *seen, const char *own)
{
        g_autofree char *details = details_of(layer);
        g_autofree char *name = printable(value_text(layer, "source"));
        g_autofree char *deeper = g_strconcat(indent, line(last, FALSE), NULL);
        g_autofree char *number = NULL;
        g_autofree const char **users = NULL;
        gboolean stale = seen && value_flag(seen, "stale");
        guint depth = 0;
        glong needed;

        g_variant_lookup(layer, "depth", "u", &depth);
        number = g_strdup_printf("[%u] ", depth);
        printf("%s%s%s%s%s%s", indent, line(last, TRUE), number, depth == 0 ? style(STYLE_BOLD) : "", name,
               depth == 0 ? style(STYLE_PLAIN) : "");
        needed = g_utf8_strlen(deeper, -1) + g_utf8_strlen(number, -1) + g_utf8_strlen(name, -1) +
                 g_utf8_strlen(details, -1) + (glong) strlen(stale ? "  , stale" : "  ");
        if (width > 0 && needed > (glong) width)
                printf("\n%s%*s", deeper, (int) strlen(number), "");
        else
                fputs("  ", stdout);
        printf("%s%s%s%s%s\n", details, stale ? ", " : "", stale ? style(STYLE_BAD) : "",
               stale ? "stale" : "", stale ? style(STYLE_PLAIN) : "");
        if (seen)
                g_variant_lookup(seen, "users", "^a&s", &users);
        print_users(deeper, users, own);
}

/* What the headers say, and who uses the images: not told to everybody, and nobody is asked for a password
 * for it. NULL: it is not known. */
static GVariant *inspect(Client *client, const char *image)
{
        gboolean ask = client->ask_password;
        g_autoptr(GVariant) reply = NULL;

        if (*image != '/')
                return NULL;
        client->ask_password = FALSE;
        reply = client_call(client, BLOCKJOBD_ROOT, BLOCKJOBD_MANAGER, "InspectImage",
                            g_variant_new("(s@a{sv})", image, no_options()), NULL, NULL);
        client->ask_password = ask;
        return reply ? g_variant_get_child_value(reply, 0) : NULL;
}

/* Why a layer of which no user is told may have some all the same. `layers` NULL: nobody was asked. */
static void print_unknown(const char *indent, GVariant *layers)
{
        g_autoptr(GVariant) top =
                layers && g_variant_n_children(layers) ? g_variant_get_child_value(layers, 0) : NULL;
        g_autofree const char **unknown = NULL;

        if (!layers)
                printf("%s%swho else uses these is not known%s\n", indent, style(STYLE_DIM),
                       style(STYLE_PLAIN));
        if (top)
                g_variant_lookup(top, "unknown", "^a&s", &unknown);
        for (const char **why = unknown; why && *why; why++) {
                g_autofree char *clean = printable(*why);

                printf("%s%snot known: %s%s\n", indent, style(STYLE_WARNING), clean, style(STYLE_PLAIN));
        }
}

static GVariant *layer_named(GVariant *layers, const char *source)
{
        gsize count = layers ? g_variant_n_children(layers) : 0;

        for (gsize i = 0; i < count; i++) {
                g_autoptr(GVariant) layer = g_variant_get_child_value(layers, i);

                if (strcmp(value_text(layer, "source"), source) == 0)
                        return g_steal_pointer(&layer);
        }
        return NULL;
}

static char *job_text(Client *client, GVariant *disk)
{
        const char *path = value_text(disk, "Job");
        g_autoptr(GVariant) job =
                strcmp(path, "/") == 0 ? NULL : client_properties(client, path, BLOCKJOBD_JOB, NULL);
        double progress = 0;

        if (!job)
                return g_strdup("");
        g_variant_lookup(job, "Progress", "d", &progress);
        return g_strdup_printf(", job %s: %s, %s, %.0f %%", value_text(job, "Id"), value_text(job, "Type"),
                               value_text(job, "State"), progress * 100);
}

static void show_disk(Client *client, GVariant *disk, const char *indent, gboolean last)
{
        g_autofree char *capacity = size_of(disk, "Capacity");
        g_autofree char *job = job_text(client, disk);
        g_autofree char *deeper = g_strconcat(indent, line(last, FALSE), NULL);
        g_autofree char *domain = last_name_of(value_text(disk, "Domain"));
        g_autofree char *own = NULL, *target = printable(value_text(disk, "Target"));
        g_autoptr(GVariant) chain = g_variant_lookup_value(disk, "Chain", G_VARIANT_TYPE("aa{sv}"));
        g_autoptr(GVariant) seen = inspect(client, value_text(disk, "Source"));
        gsize count = chain ? g_variant_n_children(chain) : 0;

        own = g_strdup_printf("disk '%s' of domain '%s'", value_text(disk, "Target"), domain);
        printf("%s%s%s%s%s  %s%s%s\n", indent, line(last, TRUE), style(STYLE_BOLD), target,
               style(STYLE_PLAIN), count ? capacity : "empty",
               value_flag(disk, "ReadOnly") ? ", read-only" : "", job);
        for (gsize i = 0; i < count; i++) {
                g_autoptr(GVariant) layer = g_variant_get_child_value(chain, i);
                g_autoptr(GVariant) known = layer_named(seen, value_text(layer, "source"));

                show_layer(deeper, i + 1 == count, layer, known, own);
        }
        if (count)
                print_unknown(deeper, seen);
}

char *show_state(GVariant *domain)
{
        g_autofree char *reason = printable(value_text(domain, "StateReason"));
        const char *state = value_text(domain, "State");

        return *reason && strcmp(reason, state) != 0 ? g_strdup_printf("%s (%s)", state, reason)
                                                     : g_strdup(state);
}

static void show_heading(GVariant *domain)
{
        g_autofree char *state = show_state(domain);
        const char *version = value_text(domain, "QemuVersion");
        guint32 pid = 0;

        g_variant_lookup(domain, "Pid", "u", &pid);
        printf("%s%s%s  %s, %s", style(STYLE_BOLD), value_text(domain, "Name"), style(STYLE_PLAIN), state,
               value_text(domain, "Origin"));
        if (*version)
                printf(", QEMU %s", version);
        if (pid)
                printf(", process %u", pid);
        putchar('\n');
}

/* The domain's disks, or `only`, in the order in which the bus has them. */
static GPtrArray *read_disks(Client *client, GVariant *domain, const char *only)
{
        GPtrArray *disks = g_ptr_array_new_with_free_func((GDestroyNotify) g_variant_unref);
        g_autofree const char **paths = NULL;

        g_variant_lookup(domain, "Disks", "^a&o", &paths);
        for (const char **path = paths; path && *path; path++) {
                GVariant *disk = only && strcmp(*path, only) != 0
                                         ? NULL
                                         : client_properties(client, *path, BLOCKJOBD_DISK, NULL);

                if (disk)
                        g_ptr_array_add(disks, disk);
        }
        return disks;
}

static GVariant *as_json(GVariant *domain, const GPtrArray *disks)
{
        g_auto(GVariantDict) all = G_VARIANT_DICT_INIT(domain);
        g_auto(GVariantBuilder) list = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("aa{sv}"));

        for (guint i = 0; i < disks->len; i++)
                g_variant_builder_add_value(&list, disks->pdata[i]);
        g_variant_dict_insert_value(&all, "Disks", g_variant_builder_end(&list));
        return g_variant_ref_sink(g_variant_dict_end(&all));
}

/* "/org/blockjobd1/domain/web" of "…/disk/vda" */
static char *domain_path_of(const char *disk)
{
        g_auto(GStrv) parts = g_strsplit(disk, "/disk/", 2);

        return g_strdup(parts[0]);
}

Status run_show(Client *client, char **arguments, GError **error)
{
        gboolean one = strchr(arguments[0], '/') != NULL;
        g_autofree char *only = one ? client_disk_path(client, arguments[0], error) : NULL;
        g_autofree char *path = only  ? domain_path_of(only)
                                : one ? NULL
                                      : client_domain_path(client, arguments[0], error);
        g_autoptr(GVariant) domain = path ? client_properties(client, path, BLOCKJOBD_DOMAIN, error) : NULL;
        g_autoptr(GPtrArray) disks = domain ? read_disks(client, domain, only) : NULL;
        g_autoptr(GVariant) json = NULL;

        if (!domain || (only && disks->len == 0)) {
                if (error && !*error)
                        g_set_error(error, CLIENT_ERROR, STATUS_ERROR, "there is no '%s'", arguments[0]);
                return STATUS_ERROR;
        }
        json = as_json(domain, disks);
        if (output_json(client, json))
                return STATUS_DONE;
        width = output_width(STDOUT_FILENO);
        output_begin_paged(client);
        show_heading(domain);
        for (guint i = 0; i < disks->len; i++)
                show_disk(client, disks->pdata[i], "", i + 1 == disks->len);
        return STATUS_DONE;
}

Status run_inspect(Client *client, char **arguments, GError **error)
{
        g_autofree char *path = client_file(client, arguments[0]);
        g_auto(GVariantDict) options = G_VARIANT_DICT_INIT(NULL);
        g_autoptr(GVariant) reply = NULL, layers = NULL;
        gsize count;

        if (inspect_format)
                g_variant_dict_insert(&options, "format", "s", inspect_format);
        reply = client_call(client, BLOCKJOBD_ROOT, BLOCKJOBD_MANAGER, "InspectImage",
                            g_variant_new("(s@a{sv})", path, g_variant_dict_end(&options)), NULL, error);
        if (!reply)
                return STATUS_ERROR;
        layers = g_variant_get_child_value(reply, 0);
        if (output_json(client, layers))
                return STATUS_DONE;
        width = output_width(STDOUT_FILENO);
        output_begin_paged(client);
        count = g_variant_n_children(layers);
        for (gsize i = 0; i < count; i++) {
                g_autoptr(GVariant) layer = g_variant_get_child_value(layers, i);

                show_layer("", i + 1 == count, layer, layer, NULL);
        }
        print_unknown("", layers);
        return STATUS_DONE;
}
