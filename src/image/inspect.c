/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "image/backing.h"
#include "image/file.h"
#include "image/make.h"

#define LINKS_MAX 40

typedef struct {
        char *path, *format, *template;
        GPtrArray *chain; /* ImageName */
        Account *account;
        gboolean want_write, follow, any_format;
        InspectDone done;
        gpointer data;

        GArray *seen; /* FileId */
        GPtrArray *layers;
        GError *error;
} Inspection;

/* One file that is looked at. */
typedef struct {
        const char *path;
        const char *subject; /* how messages call it */
        int fd;
        FileId id;
        guint64 size, allocated;
        gboolean is_block;
        int write_error; /* why it cannot be written, 0 = it can */
} File;

static void layer_free(gpointer data)
{
        ImageLayer *layer = data;

        g_free(layer->source);
        g_free(layer->format);
        g_free(layer->backing);
        g_free(layer->backing_format);
        g_free(layer->data_file);
        g_free(layer);
}

static gboolean G_GNUC_PRINTF(3, 4) refuse(GError **error, const File *file, const char *format, ...)
{
        g_autofree char *what = NULL;
        va_list list;

        va_start(list, format);
        what = g_strdup_vprintf(format, list);
        va_end(list);
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "%s %s", file->subject, what);
        return FALSE;
}

/* ---- what cannot be opened ---- */

/* The directory on the way to `path` that the thread may not pass, also behind links; NULL = none. */
static char *find_closed_directory(const char *path, guint n_links)
{
        for (const char *slash = strchr(path, '/'); slash && n_links < LINKS_MAX;
             slash = strchr(slash + 1, '/')) {
                g_autofree char *directory = g_strndup(path, (gsize) (MAX(slash - path, 1)));
                g_autofree char *link = NULL, *to = NULL, *closed = NULL;

                if (faccessat(AT_FDCWD, directory, X_OK, AT_EACCESS) == 0 || errno != EACCES)
                        continue;
                link = g_file_read_link(directory, NULL);
                if (!link)
                        return g_steal_pointer(&directory);
                to = g_path_is_absolute(link)
                             ? g_strconcat(link, "/", NULL)
                             : g_strdup_printf("%.*s/%s/", (int) (strrchr(directory, '/') - directory),
                                               directory, link);
                closed = find_closed_directory(to, n_links + 1);
                return closed ? g_steal_pointer(&closed) : g_steal_pointer(&directory);
        }
        return NULL;
}

/* The same where `path` may itself be a link. */
static char *find_closed(const char *path)
{
        g_autofree char *at = g_strdup(path);

        for (guint i = 0; i < LINKS_MAX; i++) {
                g_autofree char *link = NULL, *directory = NULL;
                char *closed = find_closed_directory(at, 0);

                if (closed || !(link = g_file_read_link(at, NULL)))
                        return closed;
                directory = g_path_get_dirname(at);
                g_free(at);
                at = g_path_is_absolute(link) ? g_steal_pointer(&link)
                                              : g_build_filename(directory, link, NULL);
        }
        return NULL;
}

static gboolean fail(GError **error, const Inspection *inspection, const File *file, const char *what,
                     int code)
{
        g_autofree char *closed = code == EACCES ? find_closed(file->path) : NULL;
        g_autofree char *who = inspection->account
                                       ? g_strdup_printf(" by user '%s'", inspection->account->name)
                                       : g_strdup("");
        g_autofree char *where =
                closed ? g_strdup_printf(": directory '%s' cannot be passed", closed) : g_strdup("");
        gboolean is_theirs =
                code == EACCES || code == EPERM || code == EROFS || code == ELOOP || code == ENAMETOOLONG;

        if (code == ENOENT || code == ENOTDIR)
                g_set_error(error, BJ_ERROR, BJ_ERROR_NO_SUCH_IMAGE, "%s does not exist", file->subject);
        else
                g_set_error(error, BJ_ERROR, is_theirs ? BJ_ERROR_INVALID_ARGUMENT : BJ_ERROR_FAILED,
                            "%s cannot be %s%s: %s%s", file->subject, what, who, g_strerror(code), where);
        return FALSE;
}

/* ---- one file ---- */

static const char *type_name(mode_t mode)
{
        return S_ISDIR(mode)    ? "a directory"
               : S_ISFIFO(mode) ? "a FIFO"
               : S_ISSOCK(mode) ? "a socket"
               : S_ISCHR(mode)  ? "a character device"
                                : "neither file nor block device";
}

static gboolean open_file(const Inspection *inspection, File *file, GError **error)
{
        struct stat st;
        int read_only = 0;
        g_autofree char *again = NULL;
        off_t end;

        if (image_file_open(AT_FDCWD, file->path, 0, TRUE, &st, &file->fd) < 0)
                return fail(error, inspection, file, "read", errno);
        if (file->fd < 0)
                return refuse(error, file, "is %s, no image", type_name(st.st_mode));

        again = g_strdup_printf("/proc/self/fd/%d", file->fd);
        file->write_error = faccessat(AT_FDCWD, again, W_OK, AT_EACCESS) == 0 ? 0 : errno;
        file->is_block = S_ISBLK(st.st_mode);
        file->id = file_id(&st);
        file->allocated = (guint64) st.st_blocks * 512;
        if (file->is_block && ioctl(file->fd, BLKROGET, &read_only) == 0 && read_only)
                file->write_error = EROFS;
        end = lseek(file->fd, 0, SEEK_END);
        if (end < 0)
                return fail(error, inspection, file, "read", errno);
        file->size = (guint64) end;
        return TRUE;
}

static void file_close(File *file)
{
        if (file->fd >= 0)
                close(file->fd);
        file->fd = -1;
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(File, file_close)

static gboolean check_write(const Inspection *inspection, const File *file, GError **error)
{
        return file->write_error == 0 || fail(error, inspection, file, "written", file->write_error);
}

/* No file may be there twice, under whatever names. */
static gboolean check_new(Inspection *inspection, const File *file, GError **error)
{
        for (guint i = 0; i < inspection->seen->len; i++) {
                const FileId *id = &g_array_index(inspection->seen, FileId, i);
                if (id->device == file->id.device && id->inode == file->id.inode)
                        return refuse(error, file, "is in the chain of '%s' twice", inspection->path);
        }
        g_array_append_val(inspection->seen, file->id);
        return TRUE;
}

/* ---- one layer ---- */

static gboolean read_header(const Inspection *inspection, const File *file, const char *format,
                            ImageHeader *header, GError **error)
{
        int failure = image_file_read_header(file->fd, file->size, format, header, error);

        if (failure > 0)
                return fail(error, inspection, file, "read", failure);
        if (failure < 0)
                g_prefix_error(error, "%s is no plain image: ", file->subject);
        return failure == 0;
}

static gboolean look_at_data_file(Inspection *inspection, const File *image, const ImageHeader *header,
                                  gboolean want_write, ImageLayer *layer, GError **error)
{
        g_auto(File) file = { .fd = -1 };
        g_autofree char *subject = NULL, *path = NULL;

        if (!*header->data_file)
                return refuse(error, image, "has a data file, but its name is not in there");
        path = backing_parse_data_file(header->data_file, error);
        if (!path) {
                g_prefix_error(error, "%s: ", image->subject);
                return FALSE;
        }
        subject = g_strdup_printf("file '%s' (data of '%s')", path, image->path);
        file.path = path;
        file.subject = subject;
        if (!open_file(inspection, &file, error) || !check_new(inspection, &file, error) ||
            (want_write && !check_write(inspection, &file, error)))
                return FALSE;
        layer->allocated += file.allocated;
        g_free(layer->data_file);
        layer->data_file = g_steal_pointer(&path);
        return TRUE;
}

static gboolean check_format(const Inspection *inspection, const File *file, const char *format,
                             GError **error)
{
        if (strcmp(format, "raw") == 0 || strcmp(format, "qcow2") == 0 || inspection->any_format)
                return TRUE;
        return refuse(error, file, "is of the format '%s', but only raw and qcow2 are supported", format);
}

static ImageLayer *layer_new(Inspection *inspection, const char *source, const char *format)
{
        ImageLayer *layer = g_new0(ImageLayer, 1);

        layer->source = g_strdup(source);
        layer->format = g_strdup(format);
        layer->backing = g_strdup("");
        layer->backing_format = g_strdup("");
        layer->data_file = g_strdup("");
        g_ptr_array_add(inspection->layers, layer);
        return layer;
}

static void layer_take_header(ImageLayer *layer, const ImageHeader *header)
{
        g_free(layer->backing);
        g_free(layer->backing_format);
        layer->backing = g_strdup(header->backing);
        layer->backing_format = g_strdup(header->backing_format);
        layer->virtual_size = header->virtual_size;
        layer->encrypted = header->encrypted;
        layer->dirty = header->dirty;
        layer->corrupt = header->corrupt;
}

/* Looks at the file at `path`; `parent` has recorded its format, or NULL for none. */
static ImageLayer *look_at_file(Inspection *inspection, const char *path, const char *format,
                                const char *parent, GError **error)
{
        gboolean want_write = inspection->want_write && !parent;
        g_autofree char *subject =
                parent ? g_strdup_printf("image '%s' (backing file of '%s')", path, parent)
                       : g_strdup_printf("image '%s'", path);
        g_auto(File) file = { .path = path, .subject = subject, .fd = -1 };
        ImageHeader header;
        ImageLayer *layer;

        if (format && !header_knows_format(format)) {
                refuse(error, &file, "is of the format '%s', which is not known", format);
                return NULL;
        }
        if (!open_file(inspection, &file, error) || !check_new(inspection, &file, error) ||
            !read_header(inspection, &file, format, &header, error))
                return NULL;
        if (parent && !format && strcmp(header.format, "raw") != 0) {
                refuse(error, &file,
                       "looks like %s, but '%s' does not record its format, and formats are not guessed",
                       header.format, parent);
                return NULL;
        }
        if (!check_format(inspection, &file, header.format, error) ||
            (want_write && !check_write(inspection, &file, error)))
                return NULL;
        if (want_write && header.corrupt) {
                refuse(error, &file, "is marked as corrupt and cannot be written");
                return NULL;
        }
        layer = layer_new(inspection, path, header.format);
        layer_take_header(layer, &header);
        layer->allocated = file.allocated;
        layer->is_block = file.is_block;
        layer->writable = file.write_error == 0;
        layer->device = file.id.device;
        layer->inode = file.id.inode;
        if (header.has_data_file && !look_at_data_file(inspection, &file, &header, want_write, layer, error))
                return NULL;
        return layer;
}

/* Its name may have secrets in it, and is not told. */
static ImageLayer *look_at_remote(Inspection *inspection, const char *source, const char *format,
                                  const char *parent, GError **error)
{
        g_autofree char *subject =
                parent ? g_strdup_printf("the image on the network that is the backing file of '%s'", parent)
                       : g_strdup("an image on the network");
        const File file = { .path = source, .subject = subject };
        ImageLayer *layer;

        if (!format) {
                refuse(error, &file, "has no recorded format, and formats are not guessed");
                return NULL;
        }
        if (!check_format(inspection, &file, format, error))
                return NULL;
        layer = layer_new(inspection, source, format);
        layer->remote = TRUE;
        return layer;
}

static ImageLayer *look_at(Inspection *inspection, const char *source, const char *format,
                           const char *parent, GError **error)
{
        const char *rest;

        if (inspection->layers->len == IMAGE_CHAIN_MAX) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED,
                            "the chain of '%s' has more than %d layers", inspection->path, IMAGE_CHAIN_MAX);
                return NULL;
        }
        if (*source == '/')
                return look_at_file(inspection, source, format, parent, error);
        if (backing_is_remote(source))
                return look_at_remote(inspection, source, format, parent, error);
        rest = strstr(source, "://");
        g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT, "image '%.*s%s' is not an absolute path",
                    rest ? (int) (rest - source) : G_MAXINT, source, rest ? "://…" : "");
        return NULL;
}

/* ---- the chain ---- */

static gboolean follow_names(Inspection *inspection, GError **error)
{
        const char *parent = inspection->path;

        for (guint i = 0; i < inspection->chain->len; i++) {
                const ImageName *name = inspection->chain->pdata[i];

                if (!look_at(inspection, name->source, name->format, parent, error))
                        return FALSE;
                parent = name->source;
        }
        return TRUE;
}

static gboolean follow_headers(Inspection *inspection, const ImageLayer *layer, GError **error)
{
        while (*layer->backing) {
                g_auto(BackingName) name = { 0 };

                if (!backing_parse(layer->backing, layer->backing_format, layer->source, &name, error)) {
                        g_prefix_error(error, "image '%s': ", layer->source);
                        return FALSE;
                }
                layer = look_at(inspection, name.source, name.format, layer->source, error);
                if (!layer)
                        return FALSE;
        }
        return TRUE;
}

static gboolean inspect(Inspection *inspection, GError **error)
{
        const ImageLayer *first;

        if (inspection->account && !account_enter_thread(inspection->account, error))
                return FALSE;
        if (inspection->template && !image_make(inspection->path, inspection->template, error))
                return FALSE;
        first = look_at(inspection, inspection->path, inspection->format, NULL, error);
        if (!first || !inspection->follow)
                return first != NULL;
        return inspection->chain ? follow_names(inspection, error)
                                 : follow_headers(inspection, first, error);
}

/* ---- the thread, and back ---- */

static gboolean finish(gpointer data)
{
        Inspection *inspection = data;

        inspection->done(inspection->error ? NULL : inspection->layers, inspection->error, inspection->data);
        return G_SOURCE_REMOVE;
}

static void inspection_free(gpointer data)
{
        Inspection *inspection = data;

        g_free(inspection->path);
        g_free(inspection->format);
        g_free(inspection->template);
        g_clear_pointer(&inspection->chain, g_ptr_array_unref);
        account_unref(inspection->account);
        g_array_unref(inspection->seen);
        g_ptr_array_unref(inspection->layers);
        g_clear_error(&inspection->error);
        g_free(inspection);
}

/* As an idle source, since g_main_context_invoke() may call back from here, with the account's rights. */
static void hand_back(Inspection *inspection)
{
        g_idle_add_full(G_PRIORITY_DEFAULT, finish, inspection, inspection_free);
}

static gpointer inspect_thread(gpointer data)
{
        Inspection *inspection = data;

        inspect(inspection, &inspection->error);
        hand_back(inspection);
        return NULL;
}

static gpointer copy_name(gconstpointer source, gpointer data)
{
        const ImageName *name = source;

        (void) data;
        return image_name_new(name->source, name->format);
}

static GPtrArray *copy_names(const GPtrArray *names)
{
        GPtrArray *copy = image_names_new();

        g_ptr_array_extend(copy, (GPtrArray *) names, copy_name, NULL);
        return copy;
}

void image_inspect(const InspectRequest *request, InspectDone done, gpointer data)
{
        Inspection *inspection = g_new0(Inspection, 1);
        g_autoptr(GError) error = NULL;
        GThread *thread;

        *inspection = (Inspection){
                .path = g_strdup(request->path),
                .format = g_strdup(request->format),
                .template = g_strdup(request->template),
                .chain = request->chain ? copy_names(request->chain) : NULL,
                .account = request->account ? account_ref((Account *) request->account) : NULL,
                .want_write = request->want_write,
                .follow = request->follow,
                .any_format = request->any_format,
                .done = done,
                .data = data,
                .seen = g_array_new(FALSE, FALSE, sizeof(FileId)),
                .layers = g_ptr_array_new_with_free_func(layer_free),
        };
        thread = g_thread_try_new("image", inspect_thread, inspection, &error);
        if (thread) {
                g_thread_unref(thread);
                return;
        }
        inspection->error = g_error_new(BJ_ERROR, BJ_ERROR_FAILED, "image '%s' cannot be looked at: %s",
                                        request->path, error->message);
        hand_back(inspection);
}
