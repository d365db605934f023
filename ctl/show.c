/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "show.h"

#include <langinfo.h>
#include <stdio.h>
#include <string.h>

#include "output.h"
#include "units.h"

/* A domain, its disks, the layers of each and who uses them, as a tree. */

static guint width; /* of the terminal; 0: as wide as it gets */

/* The lines of a tree, as the terminal can show them. */
static const char *line(gboolean last, gboolean name)
{
        gboolean utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;

        if (name)
                return utf8 ? last ? "└─" : "├─" : last ? "`-" : "|-";
        return last ? "  " : utf8 ? "│ " : "| ";
}

static const char *text_of(GVariant *values, const char *key)
{
        const char *text = "";

        g_variant_lookup(values, key, "&s", &text);
        return text;
}

static char *size_of(GVariant *values, const char *key)
{
        guint64 bytes = 0;

        g_variant_lookup(values, key, "t", &bytes);
        return units_format_size(bytes);
}

static gboolean flag_of(GVariant *values, const char *key)
{
        gboolean flag = FALSE;

        return g_variant_lookup(values, key, "b", &flag) && flag;
}

static void print_branch(const char *indent, gboolean last, const char *text, Style kind)
{
        g_autofree char *clean = printable(text);

        printf("%s%s%s%s%s\n", indent, line(last, TRUE), kind == STYLE_PLAIN ? "" : style(kind), clean,
               kind == STYLE_PLAIN ? "" : style(STYLE_PLAIN));
}

/* `own` is the user that need not be said, for it is what is shown. */
static void print_users(const char *indent, const char *const *users, const char *own)
{
        g_autoptr(GPtrArray) others = g_ptr_array_new();

        for (; users && *users; users++)
                if (g_strcmp0(*users, own) != 0)
                        g_ptr_array_add(others, (gpointer) *users);
        for (guint i = 0; i < others->len; i++) {
                g_autofree char *text = g_strdup_printf("%s by %s", own ? "also used" : "used",
                                                        (const char *) others->pdata[i]);

                print_branch(indent, i + 1 == others->len, text, STYLE_WARNING);
        }
}

/* "qcow2, 32 MiB, 6 MiB allocated, node vda, read-only" */
static char *details_of(GVariant *layer)
{
        g_autofree char *virtual_size = size_of(layer, "virtual-size");
        g_autofree char *allocated = size_of(layer, "allocated");
        g_autofree char *node = printable(text_of(layer, "node-name"));

        return g_strdup_printf("%s, %s, %s allocated%s%s%s", text_of(layer, "format"), virtual_size,
                               allocated, *node ? ", node " : "", node,
                               flag_of(layer, "read-only") ? ", read-only" : "");
}

/* The details stand on a line of their own where the terminal has no room for them behind the name. */
void show_layer(const char *indent, gboolean last, GVariant *layer, GVariant *seen, const char *own)
{
        g_autofree char *details = details_of(layer);
        g_autofree char *name = printable(text_of(layer, "source"));
        g_autofree char *deeper = g_strconcat(indent, line(last, FALSE), NULL);
        g_autofree char *number = NULL;
        g_autofree const char **users = NULL;
        gboolean stale = seen && flag_of(seen, "stale");
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
        reply = client_call(
                client, BLOCKJOBD_ROOT, BLOCKJOBD_MANAGER, "InspectImage",
                g_variant_new("(s@a{sv})", image, g_variant_new_array(G_VARIANT_TYPE("{sv}"), NULL, 0)),
                NULL, NULL);
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

                if (strcmp(text_of(layer, "source"), source) == 0)
                        return g_steal_pointer(&layer);
        }
        return NULL;
}

static char *job_text(GVariant *objects, GVariant *disk)
{
        const char *path = "/";
        g_autoptr(GVariant) job = NULL;
        double progress = 0;

        g_variant_lookup(disk, "Job", "&o", &path);
        job = strcmp(path, "/") == 0 ? NULL : objects_find(objects, path, BLOCKJOBD_JOB);
        if (!job)
                return g_strdup("");
        g_variant_lookup(job, "Progress", "d", &progress);
        return g_strdup_printf(", job %s: %s, %s, %.0f %%", text_of(job, "Id"), text_of(job, "Type"),
                               text_of(job, "State"), progress * 100);
}

static void show_disk(Client *client, GVariant *objects, GVariant *disk, const char *indent, gboolean last)
{
        g_autofree char *capacity = size_of(disk, "Capacity");
        g_autofree char *job = job_text(objects, disk);
        g_autofree char *deeper = g_strconcat(indent, line(last, FALSE), NULL);
        g_autofree char *domain = NULL, *own = NULL, *target = printable(text_of(disk, "Target"));
        g_autoptr(GVariant) chain = g_variant_lookup_value(disk, "Chain", G_VARIANT_TYPE("aa{sv}"));
        g_autoptr(GVariant) seen = inspect(client, text_of(disk, "Source"));
        const char *domain_path = "/";
        gsize count = chain ? g_variant_n_children(chain) : 0;

        g_variant_lookup(disk, "Domain", "&o", &domain_path);
        domain = last_name_of(domain_path);
        own = g_strdup_printf("disk '%s' of domain '%s'", text_of(disk, "Target"), domain);
        printf("%s%s%s%s%s  %s%s%s\n", indent, line(last, TRUE), style(STYLE_BOLD), target,
               style(STYLE_PLAIN), count ? capacity : "empty",
               flag_of(disk, "ReadOnly") ? ", read-only" : "", job);
        for (gsize i = 0; i < count; i++) {
                g_autoptr(GVariant) layer = g_variant_get_child_value(chain, i);
                g_autoptr(GVariant) known = layer_named(seen, text_of(layer, "source"));

                show_layer(deeper, i + 1 == count, layer, known, own);
        }
        if (count)
                print_unknown(deeper, seen);
}

static void show_heading(GVariant *domain)
{
        g_autofree char *reason = printable(text_of(domain, "StateReason"));
        const char *state = text_of(domain, "State"), *version = text_of(domain, "QemuVersion");
        guint32 pid = 0;

        g_variant_lookup(domain, "Pid", "u", &pid);
        if (strcmp(reason, state) == 0)
                *reason = '\0';
        printf("%s%s%s  %s%s%s%s, %s", style(STYLE_BOLD), text_of(domain, "Name"), style(STYLE_PLAIN), state,
               *reason ? " (" : "", reason, *reason ? ")" : "", text_of(domain, "Origin"));
        if (*version)
                printf(", QEMU %s", version);
        if (pid)
                printf(", process %u", pid);
        putchar('\n');
}

/* The domain's disks, or `only`, in the order in which the bus has them. */
static GPtrArray *find_disks(GVariant *objects, GVariant *domain, const char *only)
{
        GPtrArray *disks = g_ptr_array_new_with_free_func((GDestroyNotify) g_variant_unref);
        g_autofree const char **paths = NULL;

        g_variant_lookup(domain, "Disks", "^a&o", &paths);
        for (const char **path = paths; path && *path; path++) {
                GVariant *disk = only && strcmp(*path, only) != 0
                                         ? NULL
                                         : objects_find(objects, *path, BLOCKJOBD_DISK);

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

Status run_show(Client *client, char **arguments, GError **error)
{
        const char *slash = strchr(arguments[0], '/');
        g_autofree char *name = slash ? g_strndup(arguments[0], (gsize) (slash - arguments[0])) : NULL;
        g_autofree char *path = client_domain_path(client, name ? name : arguments[0], error);
        g_autofree char *only = path && slash ? client_disk_path(client, arguments[0], error) : NULL;
        g_autoptr(GVariant) objects = path && (only || !slash) ? client_objects(client, error) : NULL;
        g_autoptr(GVariant) domain = objects ? objects_find(objects, path, BLOCKJOBD_DOMAIN) : NULL;
        g_autoptr(GPtrArray) disks = domain ? find_disks(objects, domain, only) : NULL;
        g_autoptr(GVariant) json = NULL;

        if (!domain || (only && disks->len == 0)) {
                if (error && !*error)
                        g_set_error(error, CLIENT_ERROR, STATUS_ERROR, "there is no '%s'", arguments[0]);
                return STATUS_ERROR;
        }
        json = as_json(domain, disks);
        if (output_json(client, json))
                return STATUS_DONE;
        width = output_width();
        output_begin_paged(client);
        show_heading(domain);
        for (guint i = 0; i < disks->len; i++)
                show_disk(client, objects, disks->pdata[i], "", i + 1 == disks->len);
        return STATUS_DONE;
}

Status run_inspect(Client *client, char **arguments, GError **error)
{
        g_autofree char *path = client->transport == TRANSPORT_LOCAL
                                        ? g_canonicalize_filename(arguments[0], NULL)
                                        : g_strdup(arguments[0]);
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
        width = output_width();
        output_begin_paged(client);
        count = g_variant_n_children(layers);
        for (gsize i = 0; i < count; i++) {
                g_autoptr(GVariant) layer = g_variant_get_child_value(layers, i);

                show_layer("", i + 1 == count, layer, layer, NULL);
        }
        print_unknown("", layers);
        return STATUS_DONE;
}
