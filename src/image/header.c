/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/header.h"

#include <string.h>

#include "base/error.h"

#define SECTOR 512

/* A shorter piece of a longer file has no magic that one could be sure of. */
#define MAGIC_BYTES 512

/* QEMU's own limits (block/qcow2.h). */
#define L1_BYTES_MAX (32 * 1024 * 1024)
#define REFCOUNT_TABLE_BYTES_MAX (8 * 1024 * 1024)
#define SNAPSHOTS_MAX 65536
#define SNAPSHOT_BYTES_MIN 40

/* ---- formats by their magic ---- */

typedef struct {
        const char *format;
        gsize offset;
        const char *magic;
        gsize length;
} Magic;

#define MAGIC(format, offset, text)                    \
        {                                              \
                format, offset, text, sizeof(text) - 1 \
        }

static const Magic magics[] = {
        MAGIC("qcow2", 0, "QFI\xfb"), /* or "qcow", by its version */
        MAGIC("qed", 0, "QED\0"),
        MAGIC("vmdk", 0, "KDMV"),
        MAGIC("vmdk", 0, "COWD"),
        MAGIC("vdi", 64, "\x7f\x10\xda\xbe"),
        MAGIC("vhdx", 0, "vhdxfile"),
        MAGIC("vpc", 0, "conectix"),
        MAGIC("luks", 0, "LUKS\xba\xbe"),
        MAGIC("parallels", 0, "WithoutFreeSpace"),
        MAGIC("parallels", 0, "WithouFreSpacExt"),
        MAGIC("bochs", 0, "Bochs Virtual HD Image"),
        MAGIC("cloop", 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
};

static const Magic tail_magics[] = {
        MAGIC("dmg", 0, "koly"),
        MAGIC("vpc", 0, "conectix"),
};

static const char *find_magic(const Magic *table, gsize n, const guint8 *bytes, gsize length)
{
        for (gsize i = 0; i < n; i++)
                if (length >= table[i].offset + table[i].length &&
                    memcmp(bytes + table[i].offset, table[i].magic, table[i].length) == 0)
                        return table[i].format;
        return NULL;
}

/* The descriptor of a VMDK is a text of its own: comments and empty lines, then its version. */
static gboolean is_vmdk_descriptor(const guint8 *bytes, gsize length)
{
        static const char word[] = "version=";
        gsize i = 0;

        while (i < length) {
                if (bytes[i] == '#')
                        while (i < length && bytes[i] != '\n')
                                i++;
                else if (strchr(" \r\n", bytes[i]) && bytes[i])
                        i++;
                else
                        break;
        }
        return length - i > strlen(word) && memcmp(bytes + i, word, strlen(word)) == 0 &&
               bytes[i + strlen(word)] >= '1' && bytes[i + strlen(word)] <= '3';
}

static guint32 be32(const guint8 *bytes)
{
        guint32 value;

        memcpy(&value, bytes, sizeof(value));
        return GUINT32_FROM_BE(value);
}

static guint64 be64(const guint8 *bytes)
{
        guint64 value;

        memcpy(&value, bytes, sizeof(value));
        return GUINT64_FROM_BE(value);
}

/* "raw" where there is none. */
static const char *format_of(const guint8 *bytes, gsize length)
{
        const char *format = find_magic(magics, G_N_ELEMENTS(magics), bytes, length);

        if (!format)
                return is_vmdk_descriptor(bytes, length) ? "vmdk" : "raw";
        if (strcmp(format, "qcow2") == 0 && length >= 8 && be32(bytes + 4) == 1)
                return "qcow";
        return format;
}

const char *header_format_of_tail(const guint8 *bytes, gsize length)
{
        return length < HEADER_TAIL_BYTES
                       ? NULL
                       : find_magic(tail_magics, G_N_ELEMENTS(tail_magics),
                                    bytes + length - HEADER_TAIL_BYTES, HEADER_TAIL_BYTES);
}

static gboolean has_tail_magic(const char *format)
{
        for (guint i = 0; i < G_N_ELEMENTS(tail_magics); i++)
                if (strcmp(format, tail_magics[i].format) == 0)
                        return TRUE;
        return FALSE;
}

gboolean header_knows_format(const char *format)
{
        if (strcmp(format, "raw") == 0 || strcmp(format, "qcow") == 0 || has_tail_magic(format))
                return TRUE;
        for (guint i = 0; i < G_N_ELEMENTS(magics); i++)
                if (strcmp(format, magics[i].format) == 0)
                        return TRUE;
        return FALSE;
}

/* ---- qcow2, by docs/interop/qcow2.txt ---- */

enum {
        BACKING_OFFSET = 8,
        BACKING_LENGTH = 16,
        CLUSTER_BITS = 20,
        SIZE = 24,
        CRYPT_METHOD = 32,
        L1_SIZE = 36,
        L1_OFFSET = 40,
        REFCOUNT_TABLE_OFFSET = 48,
        REFCOUNT_TABLE_CLUSTERS = 56,
        N_SNAPSHOTS = 60,
        SNAPSHOTS_OFFSET = 64,
        VERSION_2_LENGTH = 72,
        INCOMPATIBLE = 72,
        REFCOUNT_ORDER = 96,
        HEADER_LENGTH = 100,
        VERSION_3_LENGTH = 104,
        COMPRESSION_TYPE = 104,
};

enum {
        FEATURE_DIRTY = 1 << 0,
        FEATURE_CORRUPT = 1 << 1,
        FEATURE_DATA_FILE = 1 << 2,
        FEATURE_COMPRESSION = 1 << 3,
        FEATURE_EXTENDED_L2 = 1 << 4,
        FEATURES_KNOWN = (1 << 5) - 1,
};

enum {
        EXTENSION_END = 0,
        EXTENSION_BACKING_FORMAT = 0xe2792aca,
        EXTENSION_DATA_FILE = 0x44415441,
};

typedef struct {
        const guint8 *bytes;
        gsize length;
        ImageHeader *header;
        guint64 header_length, extensions_end;
        guint64 backing_offset, features;
        guint32 backing_length;
} Qcow2;

static gboolean check_length(const Qcow2 *image, guint64 end, const char *what, GError **error)
{
        if (end <= image->length)
                return TRUE;
        return bj_refuse(error,
                         "its %s reach beyond the first %" G_GSIZE_FORMAT
                         " bytes, which is all there is to be read",
                         what, image->length);
}

static gboolean check_features(const Qcow2 *image, GError **error)
{
        g_autoptr(GString) bits = g_string_new(NULL);

        for (guint bit = 0; bit < 64; bit++)
                if ((image->features & ~(guint64) FEATURES_KNOWN) >> bit & 1)
                        g_string_append_printf(bits, "%s%u", bits->len ? ", " : "", bit);
        if (bits->len > 0)
                return bj_refuse(error, "it has incompatible features that are not known: bits %s",
                                 bits->str);
        return TRUE;
}

static gboolean read_version_3(Qcow2 *image, GError **error)
{
        const guint8 *bytes = image->bytes;
        guint compression = 0;

        if (!check_length(image, VERSION_3_LENGTH, "qcow2 header's fields", error))
                return FALSE;
        image->features = be64(bytes + INCOMPATIBLE);
        image->header_length = be32(bytes + HEADER_LENGTH);
        if (!check_features(image, error))
                return FALSE;
        if (image->header_length < VERSION_3_LENGTH || image->header_length % 8 != 0 ||
            image->header_length > image->header->cluster_size)
                return bj_refuse(error,
                                 "its header_length %" G_GUINT64_FORMAT
                                 " is not %d to one cluster, in steps of 8",
                                 image->header_length, VERSION_3_LENGTH);
        if (!check_length(image, image->header_length, "qcow2 header's fields", error))
                return FALSE;
        if (be32(bytes + REFCOUNT_ORDER) > 6)
                return bj_refuse(error, "its refcount_order is %u, which is more than 6",
                                 be32(bytes + REFCOUNT_ORDER));
        if (image->header_length > COMPRESSION_TYPE)
                compression = bytes[COMPRESSION_TYPE];
        if (compression > 1 || (compression != 0) != ((image->features & FEATURE_COMPRESSION) != 0))
                return bj_refuse(error, "its compression_type %u is not one that goes with its features",
                                 compression);
        return TRUE;
}

static gboolean check_table(const Qcow2 *image, const char *what, guint64 offset, guint64 size,
                            guint64 size_max, GError **error)
{
        if (size > size_max)
                return bj_refuse(error, "its %s is larger than %" G_GUINT64_FORMAT " bytes", what, size_max);
        if (offset % image->header->cluster_size != 0 || offset > G_MAXINT64 - size)
                return bj_refuse(error, "its %s is not at the start of a cluster", what);
        return TRUE;
}

static gboolean check_tables(const Qcow2 *image, GError **error)
{
        const guint8 *bytes = image->bytes;
        guint64 cluster_size = image->header->cluster_size, size = be64(bytes + SIZE);
        guint64 l1_size = be32(bytes + L1_SIZE);
        /* What one entry of the L1 table stands for; no more than 2^39 bytes. */
        guint64 l1_reach = cluster_size * (cluster_size / (image->header->extended_l2 ? 16 : 8));

        if (!check_table(image, "L1 table", be64(bytes + L1_OFFSET), l1_size * 8, L1_BYTES_MAX, error) ||
            !check_table(image, "refcount table", be64(bytes + REFCOUNT_TABLE_OFFSET),
                         be32(bytes + REFCOUNT_TABLE_CLUSTERS) * cluster_size, REFCOUNT_TABLE_BYTES_MAX,
                         error) ||
            !check_table(image, "snapshot table", be64(bytes + SNAPSHOTS_OFFSET),
                         (guint64) be32(bytes + N_SNAPSHOTS) * SNAPSHOT_BYTES_MIN,
                         (guint64) SNAPSHOTS_MAX * SNAPSHOT_BYTES_MIN, error))
                return FALSE;
        if (be32(bytes + REFCOUNT_TABLE_CLUSTERS) == 0)
                return bj_refuse(error, "it has no refcount table");
        if (size > G_MAXINT64 || size / l1_reach + (size % l1_reach != 0) > l1_size)
                return bj_refuse(error,
                                 "its size of %" G_GUINT64_FORMAT " bytes is more than its L1 table holds",
                                 size);
        image->header->virtual_size = size - size % SECTOR;
        return TRUE;
}

static gboolean read_fields(Qcow2 *image, GError **error)
{
        const guint8 *bytes = image->bytes;
        ImageHeader *header = image->header;
        guint32 cluster_bits;

        if (!check_length(image, VERSION_2_LENGTH, "qcow2 header's fields", error))
                return FALSE;
        header->version = be32(bytes + 4);
        if (header->version != 2 && header->version != 3)
                return bj_refuse(error, "it is qcow2 of version %u, which is not known", header->version);
        cluster_bits = be32(bytes + CLUSTER_BITS);
        if (cluster_bits < 9 || cluster_bits > 21)
                return bj_refuse(error, "its cluster_bits are %u, which is not 9 to 21", cluster_bits);
        header->cluster_size = G_GUINT64_CONSTANT(1) << cluster_bits;
        image->header_length = VERSION_2_LENGTH;
        if (header->version == 3 && !read_version_3(image, error))
                return FALSE;
        header->dirty = (image->features & FEATURE_DIRTY) != 0;
        header->corrupt = (image->features & FEATURE_CORRUPT) != 0;
        header->has_data_file = (image->features & FEATURE_DATA_FILE) != 0;
        header->extended_l2 = (image->features & FEATURE_EXTENDED_L2) != 0;
        if (header->extended_l2 && cluster_bits < 14)
                return bj_refuse(error, "its cluster_bits are %u, too few for extended L2 entries",
                                 cluster_bits);
        if (be32(bytes + CRYPT_METHOD) > 2)
                return bj_refuse(error, "its encryption %u is not known", be32(bytes + CRYPT_METHOD));
        header->encrypted = be32(bytes + CRYPT_METHOD) != 0;
        return check_tables(image, error);
}

/* ---- names in it ---- */

static gboolean read_text(const Qcow2 *image, const char *what, guint64 offset, guint64 length, char *text,
                          gsize size, GError **error)
{
        if (length >= size)
                return bj_refuse(
                        error, "its %s has %" G_GUINT64_FORMAT " bytes, which is more than %" G_GSIZE_FORMAT,
                        what, length, size - 1);
        if (length > image->length || offset > image->length - length)
                return bj_refuse(error,
                                 "its %s is beyond the first %" G_GSIZE_FORMAT
                                 " bytes, which is all there is to be read",
                                 what, image->length);
        if (!g_utf8_validate((const char *) image->bytes + offset, (gssize) length, NULL))
                return bj_refuse(error, "its %s is no text", what);
        memcpy(text, image->bytes + offset, length);
        text[length] = '\0';
        return TRUE;
}

/* Where its name stands, which is where the extensions end. */
static gboolean find_backing(Qcow2 *image, GError **error)
{
        guint64 cluster_size = image->header->cluster_size;

        image->backing_offset = be64(image->bytes + BACKING_OFFSET);
        image->backing_length = be32(image->bytes + BACKING_LENGTH);
        image->extensions_end = image->backing_offset ? image->backing_offset : cluster_size;
        if (image->backing_offset == 0)
                return TRUE;
        if (image->backing_offset < image->header_length || image->backing_offset > cluster_size ||
            image->backing_length > cluster_size - image->backing_offset)
                return bj_refuse(
                        error, "the name of its backing file is not in its first cluster, after the header");
        return TRUE;
}

static gboolean read_extension(Qcow2 *image, guint32 type, guint64 offset, guint32 length, GError **error)
{
        ImageHeader *header = image->header;

        if (type == EXTENSION_BACKING_FORMAT && *header->backing_format)
                return bj_refuse(error, "it has more than one format of its backing file");
        if (type == EXTENSION_BACKING_FORMAT)
                return read_text(image, "format of the backing file", offset, length, header->backing_format,
                                 sizeof(header->backing_format), error);
        if (type == EXTENSION_DATA_FILE && *header->data_file)
                return bj_refuse(error, "it has more than one name of its data file");
        if (type == EXTENSION_DATA_FILE)
                return read_text(image, "name of the data file", offset, length, header->data_file,
                                 sizeof(header->data_file), error);
        return TRUE;
}

static gboolean read_extensions(Qcow2 *image, GError **error)
{
        guint64 offset = image->header_length, end = image->extensions_end;

        while (offset < end) {
                guint32 type, length;

                if (end - offset < 8)
                        return bj_refuse(error, "its last header extension is cut off");
                if (!check_length(image, offset + 8, "header extensions", error))
                        return FALSE;
                type = be32(image->bytes + offset);
                length = be32(image->bytes + offset + 4);
                offset += 8;
                if (length > end - offset)
                        return bj_refuse(error, "its header extension 0x%08x is too long", type);
                if (type == EXTENSION_END)
                        return TRUE;
                if (!read_extension(image, type, offset, length, error))
                        return FALSE;
                offset += ((guint64) length + 7) & ~G_GUINT64_CONSTANT(7);
        }
        return TRUE;
}

static gboolean parse_qcow2(const guint8 *bytes, gsize length, ImageHeader *header, GError **error)
{
        Qcow2 image = { .bytes = bytes, .length = length, .header = header };

        if (!read_fields(&image, error) || !find_backing(&image, error) || !read_extensions(&image, error))
                return FALSE;
        if (image.backing_offset &&
            !read_text(&image, "name of the backing file", image.backing_offset, image.backing_length,
                       header->backing, sizeof(header->backing), error))
                return FALSE;
        if (!*header->backing)
                *header->backing_format = '\0';
        if (!header->has_data_file)
                *header->data_file = '\0';
        return TRUE;
}

/* ---- all formats ---- */

static gboolean parse(const char *format, const guint8 *bytes, gsize length, guint64 file_size,
                      ImageHeader *header, GError **error)
{
        header->format = format;
        if (strcmp(format, "qcow2") == 0)
                return parse_qcow2(bytes, length, header, error);
        if (strcmp(format, "raw") != 0)
                return TRUE;
        if (file_size > G_MAXINT64 - SECTOR)
                return bj_refuse(error, "its size of %" G_GUINT64_FORMAT " bytes is none", file_size);
        header->virtual_size = (file_size + SECTOR - 1) / SECTOR * SECTOR;
        return TRUE;
}

/* The format that it has a magic of; NULL = it cannot be known. */
static const char *probe(const guint8 *bytes, gsize length, guint64 file_size, GError **error)
{
        const char *format = format_of(bytes, length);

        if (strcmp(format, "raw") != 0 || length >= MIN(file_size, MAGIC_BYTES))
                return format;
        bj_refuse(error, "only %" G_GSIZE_FORMAT " of its bytes can be read", length);
        return NULL;
}

gboolean header_parse(const guint8 *bytes, gsize length, guint64 file_size, ImageHeader *header,
                      GError **error)
{
        const char *format = probe(bytes, length, file_size, error);

        memset(header, 0, sizeof(*header));
        return format && parse(format, bytes, length, file_size, header, error);
}

gboolean header_parse_as(const char *format, const guint8 *bytes, gsize length, guint64 file_size,
                         ImageHeader *header, GError **error)
{
        const char *seen;

        memset(header, 0, sizeof(*header));
        if (strcmp(format, "raw") == 0)
                return parse("raw", bytes, length, file_size, header, error);
        seen = probe(bytes, length, file_size, error);
        if (!seen)
                return FALSE;
        if (strcmp(seen, format) != 0 && !(strcmp(seen, "raw") == 0 && has_tail_magic(format)))
                return bj_refuse(error, "it is no %s image", format);
        return parse(format, bytes, length, file_size, header, error);
}
