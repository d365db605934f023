/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "map.h"

#include <stdio.h>
#include <string.h>

#include "output.h"
#include "units.h"
#include "values.h"

/* Flags of a range. */
#define STORED 1
#define ZEROS 2
#define WIDTH_USUAL 64
#define WIDTH_MAX 256
#define LAYERS_DRAWN 36 /* each with a character of its own */

static char *offset, *length, *most;
static gboolean show_ranges;

const GOptionEntry map_options[] = {
        { "ranges", 0, 0, G_OPTION_ARG_NONE, &show_ranges, "List the ranges instead of drawing them", NULL },
        { "offset", 0, 0, G_OPTION_ARG_STRING, &offset, "From here on", "SIZE" },
        { "length", 0, 0, G_OPTION_ARG_STRING, &length, "So much, by default to the end", "SIZE" },
        { "max-ranges", 0, 0, G_OPTION_ARG_STRING, &most, "Refuse to answer with more than that", "NUMBER" },
        { 0 },
};

static char character_of(guint layer)
{
        return layer < 10 ? (char) ('0' + layer) : layer < LAYERS_DRAWN ? (char) ('a' + layer - 10) : '+';
}

/* Without an overflow for any size of a disk. */
static guint64 border(guint64 size, guint part, guint parts)
{
        return size / parts * part + size % parts * part / parts;
}

/* What holds the most of the bytes from `start` to `end`. */
static char character_for(GVariant *ranges, gsize *first, guint64 start, guint64 end)
{
        guint64 held[LAYERS_DRAWN + 1] = { 0 }, best = 0;
        char character = '.';

        for (gsize i = *first; i < g_variant_n_children(ranges); i++) {
                guint64 from, size, flags;
                guint32 depth;

                g_variant_get_child(ranges, i, "(tttu)", &from, &size, &flags, &depth);
                if (from >= end)
                        break;
                if (from + size <= start) {
                        *first = i + 1;
                        continue;
                }
                if (depth != MAP_NOTHING)
                        held[MIN(depth, LAYERS_DRAWN)] += MIN(from + size, end) - MAX(from, start);
        }
        for (guint layer = 0; layer <= LAYERS_DRAWN; layer++)
                if (held[layer] > best) {
                        best = held[layer];
                        character = character_of(layer);
                }
        return character;
}

char *map_bar(GVariant *ranges, guint64 start, guint64 size, guint width)
{
        GString *bar = g_string_new(NULL);
        gsize first = 0;

        for (guint i = 0; i < width; i++)
                g_string_append_c(bar, character_for(ranges, &first, start + border(size, i, width),
                                                     start + border(size, i + 1, width)));
        return g_string_free(bar, FALSE);
}

static Style style_of(char character)
{
        static const Style styles[] = { STYLE_GOOD, STYLE_WARNING, STYLE_BAD, STYLE_BOLD };

        return character == '.' ? STYLE_DIM : styles[(guint8) character % G_N_ELEMENTS(styles)];
}

static guint bar_width(void)
{
        guint width = output_width(STDOUT_FILENO);

        return width < 3 ? WIDTH_USUAL : MIN(width - 2, WIDTH_MAX);
}

static void print_bar(const char *bar)
{
        putchar('[');
        for (const char *character = bar; *character; character++)
                printf("%s%c%s", style(style_of(*character)), *character, style(STYLE_PLAIN));
        puts("]");
}

static const char *source_of(GVariant *chain, guint depth)
{
        g_autoptr(GVariant) layer =
                depth < g_variant_n_children(chain) ? g_variant_get_child_value(chain, depth) : NULL;

        return layer ? value_text(layer, "source") : ""; /* as long as the chain is there */
}

static char *depth_text(guint32 depth)
{
        return depth == MAP_NOTHING ? g_strdup("") : g_strdup_printf("[%u]", depth);
}

static void print_ranges(GVariant *ranges, GVariant *chain)
{
        static const char *const titles[] = { ">OFFSET", ">LENGTH", "HOLDS", "LAYER", "IMAGE", NULL };
        g_autoptr(Table) table = table_new(titles);

        for (gsize i = 0; i < g_variant_n_children(ranges); i++) {
                guint64 from, size, flags;
                guint32 depth;
                g_autofree char *from_text = NULL, *size_text = NULL, *layer = NULL;

                g_variant_get_child(ranges, i, "(tttu)", &from, &size, &flags, &depth);
                from_text = g_strdup_printf("%" G_GUINT64_FORMAT, from);
                size_text = g_strdup_printf("%" G_GUINT64_FORMAT, size);
                layer = depth_text(depth);
                table_add(table, (const char *const[]){
                                         from_text, size_text,
                                         flags & STORED  ? "data"
                                         : flags & ZEROS ? "zeros"
                                                         : "unknown",
                                         layer, depth == MAP_NOTHING ? "" : source_of(chain, depth), NULL });
        }
        table_print(table);
}

/* For each layer its character, and how much it gives to the disk. */
static void print_legend(GVariant *ranges, GVariant *chain)
{
        gsize count = g_variant_n_children(chain);
        g_autofree guint64 *bytes = g_new0(guint64, count + 1);

        for (gsize i = 0; i < g_variant_n_children(ranges); i++) {
                guint64 size;
                guint32 depth;

                g_variant_get_child(ranges, i, "(tttu)", NULL, &size, NULL, &depth);
                bytes[MIN(depth, count)] += size;
        }
        for (guint i = 0; i < count; i++) {
                g_autofree char *size = units_format_size(bytes[i]);
                g_autofree char *source = printable(source_of(chain, i));
                char character = character_of(i);

                printf("%s%c%s  %10s  [%u] %s\n", style(style_of(character)), character, style(STYLE_PLAIN),
                       size, i, source);
        }
        if (bytes[count]) {
                g_autofree char *size = units_format_size(bytes[count]);

                printf("%s.%s  %10s  in no layer, reads as zeros\n", style(STYLE_DIM), style(STYLE_PLAIN),
                       size);
        }
}

static void print_drawn(GVariant *ranges, GVariant *chain, guint width)
{
        guint64 start = 0, from = 0, size = 0;
        gsize count = g_variant_n_children(ranges);

        if (count > 0) {
                g_autofree char *bar = NULL;

                g_variant_get_child(ranges, 0, "(tttu)", &start, NULL, NULL, NULL);
                g_variant_get_child(ranges, count - 1, "(tttu)", &from, &size, NULL, NULL);
                bar = map_bar(ranges, start, from + size - start, width);
                print_bar(bar);
        }
        print_legend(ranges, chain);
}

static GVariant *map_arguments(GError **error)
{
        g_auto(GVariantDict) options = G_VARIANT_DICT_INIT(NULL);
        guint64 value;

        if (offset) {
                if (!units_parse_size(offset, "--offset", &value, error))
                        return NULL;
                g_variant_dict_insert(&options, "offset", "t", value);
        }
        if (length) {
                if (!units_parse_size(length, "--length", &value, error))
                        return NULL;
                g_variant_dict_insert(&options, "length", "t", value);
        }
        if (most) {
                if (!g_ascii_string_to_unsigned(most, 10, 1, G_MAXUINT32, &value, NULL)) {
                        g_set_error(error, CLIENT_ERROR, STATUS_USAGE, "--max-ranges: '%s' is no number",
                                    most);
                        return NULL;
                }
                g_variant_dict_insert(&options, "max-ranges", "u", (guint32) value);
        }
        return g_variant_ref_sink(g_variant_new("(@a{sv})", g_variant_dict_end(&options)));
}

Status run_map(Client *client, char **arguments, GError **error)
{
        g_autoptr(GVariant) options = map_arguments(error);
        g_autofree char *path = options ? client_disk_path(client, arguments[0], error) : NULL;
        g_autoptr(GVariant) reply = NULL, ranges = NULL, disk = NULL, chain = NULL;
        guint width;

        if (!options)
                return STATUS_USAGE;
        if (path)
                reply = client_call(client, path, BLOCKJOBD_DISK, "Map", options, NULL, error);
        if (!reply)
                return STATUS_ERROR;
        ranges = g_variant_get_child_value(reply, 0);
        if (output_json(client, ranges))
                return STATUS_DONE;
        disk = client_properties(client, path, BLOCKJOBD_DISK, error);
        chain = disk ? g_variant_lookup_value(disk, "Chain", G_VARIANT_TYPE("aa{sv}")) : NULL;
        if (!chain)
                return STATUS_ERROR;
        width = bar_width(); /* of the terminal, not of a pager's pipe */
        output_begin_paged(client);
        if (show_ranges)
                print_ranges(ranges, chain);
        else
                print_drawn(ranges, chain, width);
        return STATUS_DONE;
}
