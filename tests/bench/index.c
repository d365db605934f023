/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long it takes until the image index knows a directory, until it knows it again, and what a question
 * costs.
 *
 * bench-index [IMAGES [DIRECTORY]]: so many images (10,000) in chains of ten, over a single base each; made
 * in the directory ($TMPDIR or /tmp), and removed afterwards. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "image/index.h"

#define LAYERS 10
#define QUESTIONS 10000
#define REFRESHES 20
#define PATIENCE_MS 60000
#define NAME "00000000" /* as long as each of them */
#define NAME_OFFSET 112
#define HEADER_SIZE 512
#define FILE_SIZE (192 * 1024)

static void put32(guint8 *at, guint32 value)
{
        value = GUINT32_TO_BE(value);
        memcpy(at, &value, sizeof(value));
}

/* A qcow2 header of version 2 over a backing file, and its tables where they may be. */
static void make_header(guint8 *bytes, const char *backing)
{
        memset(bytes, 0, HEADER_SIZE);
        memcpy(bytes, "QFI\xfb", 4);
        put32(bytes + 4, 2);
        put32(bytes + 20, 16);          /* cluster bits */
        put32(bytes + 28, 1024 * 1024); /* size */
        put32(bytes + 36, 1);           /* L1 table */
        put32(bytes + 44, 128 * 1024);
        put32(bytes + 52, 64 * 1024); /* refcount table */
        put32(bytes + 56, 1);
        put32(bytes + 72, 0xe2792aca);
        put32(bytes + 76, strlen("qcow2"));
        memcpy(bytes + 80, "qcow2", strlen("qcow2"));
        if (!backing)
                return;
        put32(bytes + 12, NAME_OFFSET);
        put32(bytes + 16, (guint32) strlen(backing));
        memcpy(bytes + NAME_OFFSET, backing, strlen(backing));
}

static char *path_of(const char *directory, guint number)
{
        return g_strdup_printf("%s/%08u", directory, number);
}

static void make_images(const char *directory, guint n)
{
        for (guint i = 0; i < n; i++) {
                g_autofree char *path = path_of(directory, i);
                char backing[sizeof(NAME)];
                guint8 bytes[HEADER_SIZE];
                FILE *file = g_fopen(path, "we");

                g_snprintf(backing, sizeof(backing), "%08u", i - 1);
                make_header(bytes, i % LAYERS ? backing : NULL);
                if (!file || fwrite(bytes, sizeof(bytes), 1, file) != 1 ||
                    ftruncate(fileno(file), FILE_SIZE) < 0)
                        g_error("%s cannot be made", path);
                fclose(file);
        }
}

static void remove_images(const char *directory, guint n)
{
        for (guint i = 0; i < n; i++) {
                g_autofree char *path = path_of(directory, i);
                g_unlink(path);
        }
        g_rmdir(directory);
}

/* ---- times ---- */

static void on_done(gboolean complete, gpointer data)
{
        if (!complete)
                g_error("it takes longer than %d s", PATIENCE_MS / 1000);
        *(gboolean *) data = TRUE;
}

static double refresh(ImageIndex *index)
{
        gint64 start = g_get_monotonic_time();
        gboolean is_done = FALSE;

        image_index_refresh(index, PATIENCE_MS, on_done, &is_done);
        while (!is_done)
                g_main_context_iteration(NULL, TRUE);
        return (double) (g_get_monotonic_time() - start) / 1000;
}

static int compare(gconstpointer a, gconstpointer b)
{
        double first = *(const double *) a, second = *(const double *) b;

        return first < second ? -1 : first > second;
}

static void show(const char *name, double *values, guint n, const char *unit)
{
        qsort(values, n, sizeof(*values), compare);
        g_print("%-32s median %8.2f %s   min %8.2f   p99 %8.2f   max %8.2f\n", name, values[n / 2], unit,
                values[0], values[n * 99 / 100], values[n - 1]);
}

static void bench_refresh(ImageIndex *index, const char *name)
{
        double values[REFRESHES];

        for (guint i = 0; i < REFRESHES; i++)
                values[i] = refresh(index);
        show(name, values, REFRESHES, "ms");
}

static void bench_questions(ImageIndex *index, const char *directory, guint n, gboolean all)
{
        g_autofree double *values = g_new(double, QUESTIONS);

        for (guint i = 0; i < QUESTIONS; i++) {
                g_autofree char *path = path_of(directory, (guint) rand() % n / LAYERS * LAYERS);
                g_autoptr(GPtrArray) users = NULL;
                struct stat st;
                gint64 start;

                if (stat(path, &st) < 0)
                        g_error("%s is gone", path);
                start = g_get_monotonic_time();
                users = image_index_users(index, &(ImageId){ st.st_dev, st.st_ino, path }, all, NULL);
                values[i] = (double) (g_get_monotonic_time() - start);
                if (users->len != (all ? LAYERS - 1 : 1))
                        g_error("%s has %u users", path, users->len);
        }
        show(all ? "users of a base, all nine" : "users of a base, the direct one", values, QUESTIONS, "us");
}

static guint64 memory_kib(void)
{
        g_autofree char *text = NULL;
        const char *line;

        if (!g_file_get_contents("/proc/self/status", &text, NULL, NULL) || !(line = strstr(text, "VmRSS:")))
                return 0;
        return g_ascii_strtoull(line + strlen("VmRSS:"), NULL, 10);
}

int main(int argc, char **argv)
{
        guint n = argc > 1 ? (guint) atoi(argv[1]) / LAYERS * LAYERS : 10000;
        const char *parent = argc > 2 ? argv[2] : g_get_tmp_dir();
        g_autofree char *directory = g_build_filename(parent, "bench-index-XXXXXX", NULL);
        guint64 memory = memory_kib();
        double first;
        ImageIndex *index;
        gint64 start;

        if (n < LAYERS || !g_mkdtemp(directory))
                g_error("usage: %s [IMAGES [DIRECTORY]]", argv[0]);
        make_images(directory, n);
        start = g_get_monotonic_time();
        index = image_index_new((const char *const[]){ directory, NULL }, NULL, NULL);
        refresh(index);
        first = (double) (g_get_monotonic_time() - start) / 1000;
        show("to index them", &first, 1, "ms");
        g_print("%u images, %.2f KiB each in memory\n", n, (double) (memory_kib() - memory) / n);
        bench_refresh(index, "refresh, files of this moment");
        /* until a change of the same moment would be seen by its time */
        for (gint64 end = start + 4 * G_USEC_PER_SEC; g_get_monotonic_time() < end;)
                refresh(index);
        bench_refresh(index, "refresh, nothing new");
        bench_questions(index, directory, n, FALSE);
        bench_questions(index, directory, n, TRUE);
        image_index_free(index);
        remove_images(directory, n);
        return 0;
}
