/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/index-image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "image/backing.h"
#include "image/file.h"

/* File systems count time in steps, of up to 2 s. */
#define SETTLED_NS (3 * G_GINT64_CONSTANT(1000000000))

void file_mark(FileMark *mark, const struct stat *st)
{
        gint64 now = g_get_real_time() * 1000;

        *mark = (FileMark){
                .device = st->st_dev,
                .inode = st->st_ino,
                .size = (guint64) st->st_size,
                .changed = st->st_ctim.tv_sec * G_GINT64_CONSTANT(1000000000) + st->st_ctim.tv_nsec,
        };
        mark->settled = mark->changed < now - SETTLED_NS;
}

gboolean file_mark_holds(const FileMark *seen, const FileMark *now)
{
        return seen->settled && seen->device == now->device && seen->inode == now->inode &&
               seen->size == now->size && seen->changed == now->changed;
}

IndexedImage *indexed_image_new(const char *path, const FileMark *own)
{
        IndexedImage *image = g_new0(IndexedImage, 1);

        image->references = 1;
        image->path = g_strdup(path);
        image->own = *own;
        return image;
}

IndexedImage *indexed_image_copy(const IndexedImage *image)
{
        IndexedImage *copy = g_memdup2(image, sizeof(*image));

        copy->references = 1;
        copy->path = g_strdup(image->path);
        copy->why = g_strdup(image->why);
        for (guint i = 0; i < image->n_parents; i++)
                copy->parents[i].source = g_strdup(image->parents[i].source);
        return copy;
}

IndexedImage *indexed_image_ref(IndexedImage *image)
{
        g_atomic_int_inc(&image->references);
        return image;
}

void indexed_image_unref(IndexedImage *image)
{
        if (!g_atomic_int_dec_and_test(&image->references))
                return;
        g_free(image->path);
        g_free(image->why);
        for (guint i = 0; i < image->n_parents; i++)
                g_free(image->parents[i].source);
        g_free(image);
}

void indexed_image_say(IndexedImage *image, const char *format, ...)
{
        va_list list;

        va_start(list, format);
        g_free(image->why);
        image->why = g_strdup_vprintf(format, list);
        va_end(list);
}

/* ---- what it says it builds on ---- */

/* `source` is taken; NULL: it is not understood, as `error` says. */
static void add_parent(IndexedImage *image, ImagePart part, char *source, gboolean remote,
                       const GError *error)
{
        if (source)
                image->parents[image->n_parents++] =
                        (ImageParent){ .part = part, .remote = remote, .source = source };
        else
                indexed_image_say(image, "%s", error->message);
}

static void read_names(IndexedImage *image, const ImageHeader *header)
{
        g_autoptr(GError) backing_error = NULL, data_error = NULL;
        g_auto(BackingName) name = { 0 };
        char *data_file;

        if (*header->backing) {
                backing_parse(header->backing, header->backing_format, image->path, &name, &backing_error);
                add_parent(image, IMAGE_PART_BACKING, g_steal_pointer(&name.source), name.remote,
                           backing_error);
        }
        if (header->has_data_file && !*header->data_file) {
                indexed_image_say(image, "it has a data file, but its name is not in there");
        } else if (header->has_data_file) {
                data_file = backing_parse_data_file(header->data_file, &data_error);
                add_parent(image, IMAGE_PART_DATA, data_file, FALSE, data_error);
        }
}

/* Formats in which it may stand, and which only QEMU reads. */
static gboolean may_build_on(const char *format)
{
        static const char *const formats[] = { "qcow", "qed", "vmdk", NULL };

        return g_strv_contains(formats, format);
}

/* Whatever has failed, it may end without a change to the file. */
static void unsettle(IndexedImage *image)
{
        image->own.settled = FALSE;
        image->target.settled = FALSE;
}

static void read_header(IndexedImage *image, int fd, guint64 size)
{
        g_autoptr(GError) error = NULL;
        ImageHeader header;
        int failure = image_file_read_header(fd, size, NULL, &header, &error);

        if (failure != 0) {
                indexed_image_say(image, failure > 0 ? "it cannot be read: %s" : "it is no plain image: %s",
                                  failure > 0 ? g_strerror(failure) : error->message);
                if (failure > 0)
                        unsettle(image);
                return;
        }
        image->format = header.format;
        if (may_build_on(header.format))
                indexed_image_say(image, "it is of the format '%s', which is not looked into",
                                  header.format);
        else
                read_names(image, &header);
}

int indexed_image_read(IndexedImage *image, int directory, const char *name, int flags)
{
        struct stat st;
        int fd, failure;

        failure = image_file_open(directory, name, flags, FALSE, &st, &fd) < 0 ? errno : 0;
        if (failure == ENOENT || failure == ENOTDIR)
                return -1;
        if (!failure && fd < 0 && !image->is_link)
                return -1; /* something else is there by now */
        if (failure) {
                unsettle(image);
                indexed_image_say(image, "it cannot be read: %s", g_strerror(failure));
                return 0;
        }
        if (image->is_link)
                file_mark(&image->target, &st);
        else
                file_mark(&image->own, &st);
        image->device = st.st_dev;
        image->inode = st.st_ino;
        if (S_ISDIR(st.st_mode))
                indexed_image_say(image, "it is a link to a directory, which is not followed");
        else if (S_ISBLK(st.st_mode))
                indexed_image_say(image, "it is a block device, which is not looked into");
        if (fd < 0)
                return 0;
        read_header(image, fd, (guint64) st.st_size);
        close(fd);
        return 0;
}

/* ---- one in the place of another ---- */

static gboolean take_parent(ImageParent *parent, const IndexedImage *old)
{
        for (guint i = 0; i < old->n_parents; i++)
                if (strcmp(parent->source, old->parents[i].source) == 0) {
                        parent->device = old->parents[i].device;
                        parent->inode = old->parents[i].inode;
                        parent->failure = old->parents[i].failure;
                        return TRUE;
                }
        return parent->remote;
}

gboolean indexed_image_take_parents(IndexedImage *image, const IndexedImage *old)
{
        gboolean all = !old->is_pending;

        for (guint i = 0; i < image->n_parents; i++)
                all = take_parent(&image->parents[i], old) && all;
        return all;
}

gboolean indexed_image_equal(const IndexedImage *a, const IndexedImage *b)
{
        if (a->device != b->device || a->inode != b->inode || g_strcmp0(a->format, b->format) != 0 ||
            g_strcmp0(a->why, b->why) != 0 || a->n_parents != b->n_parents)
                return FALSE;
        for (guint i = 0; i < a->n_parents; i++) {
                const ImageParent *one = &a->parents[i], *other = &b->parents[i];

                if (one->part != other->part || strcmp(one->source, other->source) != 0 ||
                    one->device != other->device || one->inode != other->inode ||
                    one->failure != other->failure)
                        return FALSE;
        }
        return TRUE;
}
