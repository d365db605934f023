/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bar of "blockjobctl map": which layer holds the most of each part of a disk. */
#include "map.h"

typedef struct {
        guint64 from, size;
        guint32 depth;
} Range;

static void check(const Range *ranges, gsize count, guint64 start, guint64 size, guint width,
                  const char *expected)
{
        g_auto(GVariantBuilder) builder = G_VARIANT_BUILDER_INIT(G_VARIANT_TYPE("a(tttu)"));
        g_autoptr(GVariant) value = NULL;
        g_autofree char *bar = NULL;

        for (gsize i = 0; i < count; i++)
                g_variant_builder_add(&builder, "(tttu)", ranges[i].from, ranges[i].size,
                                      G_GUINT64_CONSTANT(0), ranges[i].depth);
        value = g_variant_ref_sink(g_variant_builder_end(&builder));
        bar = map_bar(value, start, size, width);
        g_assert_cmpstr(bar, ==, expected);
}

#define CHECK(ranges, ...) check(ranges, G_N_ELEMENTS(ranges), __VA_ARGS__)

static void layers(void)
{
        const Range ranges[] = { { 0, 40, 0 }, { 40, 20, MAP_NOTHING }, { 60, 20, 2 }, { 80, 20, 1 } };

        CHECK(ranges, 0, 100, 10, "0000..2211");
        CHECK(ranges, 0, 100, 1, "0");
        CHECK(ranges, 40, 40, 4, "..22");
        check(NULL, 0, 0, 100, 3, "...");
}

/* A part that several share goes to the one that holds the most, and any data before none. */
static void shared(void)
{
        const Range ranges[] = {
                { 0, 3, 0 }, { 3, 4, 1 }, { 7, 2, 0 }, { 9, 1, MAP_NOTHING }, { 10, 9, MAP_NOTHING },
                { 19, 1, 3 }
        };

        CHECK(ranges, 0, 20, 2, "03");
}

static void characters(void)
{
        const Range ranges[] = { { 0, 1, 9 }, { 1, 1, 10 }, { 2, 1, 35 }, { 3, 1, 36 }, { 4, 1, 255 } };

        CHECK(ranges, 0, 5, 5, "9az++");
}

/* More characters than bytes, and as many bytes as a disk can have. */
static void sizes(void)
{
        const Range small[] = { { 0, 1, 0 }, { 1, 1, 1 } };
        const guint64 half = G_GUINT64_CONSTANT(1) << 62;
        const Range large[] = { { 0, half, 0 }, { half, half - 1, 1 } };

        CHECK(small, 0, 2, 2, "01");
        CHECK(small, 0, 2, 4, ".0.1");
        CHECK(large, 0, 2 * half - 1, 4, "0011");
        CHECK(large, 0, 2 * half - 1, 256 / 64, "0011");
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/map-bar/layers", layers);
        g_test_add_func("/map-bar/shared", shared);
        g_test_add_func("/map-bar/characters", characters);
        g_test_add_func("/map-bar/sizes", sizes);
        return g_test_run();
}
