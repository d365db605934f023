/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a server says of where data lies, from one that says it as QEMU does to those that say what no server
 * may. What a client asks is known beforehand, so that a server's part is written down in whole. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "nbd/map.h"

#define SIZE G_GUINT64_CONSTANT(1048576)
#define REPLY_MAGIC G_GUINT64_CONSTANT(0x3e889045565a9)

enum { ALLOCATION = 7, DEPTH = 9 }; /* ids of the contexts */

typedef struct {
        GMainLoop *loop;
        GArray *ranges;
        GError *error;
} Answer;

static void answer_clear(Answer *answer)
{
        g_clear_pointer(&answer->ranges, g_array_unref);
        g_clear_error(&answer->error);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Answer, answer_clear)

static void on_mapped(GArray *ranges, const GError *error, gpointer data)
{
        Answer *answer = data;

        g_assert_true((ranges != NULL) == (error == NULL));
        answer->ranges = ranges ? g_array_ref(ranges) : NULL;
        answer->error = error ? g_error_copy(error) : NULL;
        g_main_loop_quit(answer->loop);
}

/* ---- the server's part ---- */

static void put(GByteArray *text, guint64 number, guint bytes)
{
        while (bytes-- > 0)
                g_byte_array_append(text, &(guint8){ (guint8) (number >> (8 * bytes)) }, 1);
}

static void put_reply(GByteArray *text, guint32 option, guint32 type, guint32 length)
{
        put(text, REPLY_MAGIC, 8);
        put(text, option, 4);
        put(text, type, 4);
        put(text, length, 4);
}

static void put_context(GByteArray *text, guint32 id, const char *name)
{
        put_reply(text, 10, 4, (guint32) (4 + strlen(name)));
        put(text, id, 4);
        g_byte_array_append(text, (const guint8 *) name, (guint) strlen(name));
}

static GByteArray *greeting(void)
{
        GByteArray *text = g_byte_array_new();

        g_byte_array_append(text, (const guint8 *) "NBDMAGICIHAVEOPT", 16);
        put(text, 3, 2);
        return text;
}

static GByteArray *negotiation(guint64 size)
{
        GByteArray *text = greeting();

        put_reply(text, 8, 1, 0);
        put_context(text, ALLOCATION, "base:allocation");
        put_context(text, DEPTH, "qemu:allocation-depth");
        put_reply(text, 10, 1, 0);
        put_reply(text, 7, 3, 12);
        put(text, 0, 2);
        put(text, size, 8);
        put(text, 0, 2);
        put_reply(text, 7, 1, 0);
        return text;
}

static void put_chunk(GByteArray *text, guint flags, guint type, guint64 cookie, guint32 length)
{
        put(text, 0x668e33ef, 4);
        put(text, flags, 2);
        put(text, type, 2);
        put(text, cookie, 8);
        put(text, length, 4);
}

/* `extents`: pairs of length and flags, ended by a pair of zeros. */
static void put_status(GByteArray *text, guint flags, guint64 cookie, guint32 id, const guint32 *extents)
{
        guint n = 0;

        while (extents[2 * n] || extents[2 * n + 1])
                n++;
        put_chunk(text, flags, 5, cookie, 4 + 8 * n);
        put(text, id, 4);
        for (guint i = 0; i < 2 * n; i++)
                put(text, extents[i], 4);
}

#define EXTENTS(...) ((const guint32[]){ __VA_ARGS__, 0, 0 })

static void run(const GByteArray *says, const MapPart *part, Answer *answer)
{
        int ends[2];
        NbdMap *map;

        g_assert_no_errno(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
        g_assert_cmpint(write(ends[1], says->data, says->len), ==, says->len);
        g_assert_no_errno(shutdown(ends[1], SHUT_WR));
        *answer = (Answer){ .loop = g_main_loop_new(NULL, FALSE) };
        map = nbd_map_new(ends[0], "x", part, on_mapped, answer);
        g_main_loop_run(answer->loop);
        nbd_map_free(map);
        g_main_loop_unref(answer->loop);
        close(ends[1]);
}

static const MapPart whole = { 0, 0, 100 };

static void assert_range(const Answer *answer, guint i, guint64 offset, guint64 length, guint64 flags,
                         guint32 depth)
{
        const MapRange *range = &g_array_index(answer->ranges, MapRange, i);

        g_assert_cmpuint(i, <, answer->ranges->len);
        g_assert_cmpuint(range->offset, ==, offset);
        g_assert_cmpuint(range->length, ==, length);
        g_assert_cmpuint(range->flags, ==, flags);
        g_assert_cmpuint(range->depth, ==, depth);
}

/* ---- what is right ---- */

static void two_contexts(void)
{
        g_autoptr(GByteArray) says = negotiation(SIZE);
        g_auto(Answer) answer = { 0 };

        /* Boundaries that are not the same, and one that ends before the other and is asked again. */
        put_status(says, 0, 1, DEPTH, EXTENTS(4096, 1, 4096, 2, 8192, 0));
        put_status(says, 1, 1, ALLOCATION, EXTENTS(6144, 0, 4096, 3));
        put_status(says, 0, 2, ALLOCATION, EXTENTS(4194304, 3));
        put_status(says, 0, 2, DEPTH, EXTENTS(6144, 0, 4194304, 3));
        put_chunk(says, 1, 0, 2, 0);
        run(says, &whole, &answer);
        g_assert_no_error(answer.error);
        assert_range(&answer, 0, 0, 4096, RANGE_DATA, 1);
        assert_range(&answer, 1, 4096, 2048, RANGE_DATA, 2);
        assert_range(&answer, 2, 6144, 2048, RANGE_ZERO, 2);
        assert_range(&answer, 3, 8192, 8192, RANGE_ZERO, 0);
        assert_range(&answer, 4, 16384, SIZE - 16384, RANGE_ZERO, 3);
        g_assert_cmpuint(answer.ranges->len, ==, 5);
}

static void empty_disk(void)
{
        g_autoptr(GByteArray) says = negotiation(0);
        g_auto(Answer) answer = { 0 };

        run(says, &whole, &answer);
        g_assert_no_error(answer.error);
        g_assert_cmpuint(answer.ranges->len, ==, 0);
}

static void largest_disk(void)
{
        g_autoptr(GByteArray) says = negotiation(G_MAXINT64);
        g_auto(Answer) answer = { 0 };
        const MapPart end = { G_MAXINT64 - 1, 1, 1 };

        put_status(says, 0, 1, DEPTH, EXTENTS(G_MAXUINT32, 1));
        put_status(says, 1, 1, ALLOCATION, EXTENTS(G_MAXUINT32, 0));
        run(says, &end, &answer);
        g_assert_no_error(answer.error);
        assert_range(&answer, 0, G_MAXINT64 - 1, 1, RANGE_DATA, 1);
}

/* ---- what is not ---- */

static void assert_fails(const GByteArray *says, const MapPart *part, int code)
{
        g_auto(Answer) answer = { 0 };

        run(says, part, &answer);
        g_assert_error(answer.error, BJ_ERROR, code);
}

static GByteArray *whole_answer(void)
{
        GByteArray *says = negotiation(SIZE);

        put_status(says, 0, 1, DEPTH, EXTENTS(SIZE, 1));
        put_status(says, 1, 1, ALLOCATION, EXTENTS(SIZE, 0));
        return says;
}

static void cut_everywhere(void)
{
        g_autoptr(GByteArray) says = whole_answer();
        g_auto(Answer) answer = { 0 };

        run(says, &whole, &answer);
        g_assert_no_error(answer.error);
        while (says->len > 0) {
                g_byte_array_set_size(says, says->len - 1);
                assert_fails(says, &whole, BJ_ERROR_DISCONNECTED);
        }
}

/* Whatever byte is another one, there is an answer, and ranges that follow each other. */
static void changed_everywhere(void)
{
        g_autoptr(GByteArray) says = whole_answer();

        for (guint i = 0; i < says->len; i++)
                for (guint bit = 0; bit < 8; bit++) {
                        g_auto(Answer) answer = { 0 };
                        guint64 end = 0;

                        says->data[i] ^= (guint8) (1 << bit);
                        run(says, &whole, &answer);
                        says->data[i] ^= (guint8) (1 << bit);
                        for (guint j = 0; answer.ranges && j < answer.ranges->len; j++) {
                                const MapRange *range = &g_array_index(answer.ranges, MapRange, j);

                                g_assert_cmpuint(range->offset, ==, end);
                                g_assert_cmpuint(range->length, >, 0);
                                end += range->length;
                        }
                        g_assert_cmpuint(end, <=, SIZE);
                }
}

static void parts_beyond_the_end(void)
{
        static const MapPart parts[] = {
                { SIZE + 1, 0, 100 },
                { 0, SIZE + 1, 100 },
                { 1, SIZE, 100 },
                { SIZE, 1, 100 },
                { G_MAXUINT64, 2, 100 },
                { 2, G_MAXUINT64, 100 },
                { G_MAXUINT64, G_MAXUINT64, 100 },
        };
        g_autoptr(GByteArray) says = whole_answer();

        for (guint i = 0; i < G_N_ELEMENTS(parts); i++)
                assert_fails(says, &parts[i], BJ_ERROR_INVALID_ARGUMENT);
}

static void too_many_ranges(void)
{
        g_autoptr(GByteArray) says = negotiation(SIZE);
        const MapPart few = { 0, 0, 2 };

        put_status(says, 0, 1, DEPTH, EXTENTS(1, 1, 1, 2, 1, 3, SIZE, 4));
        put_status(says, 1, 1, ALLOCATION, EXTENTS(SIZE, 0));
        assert_fails(says, &few, BJ_ERROR_LIMIT_EXCEEDED);
}

static void no_such_context(void)
{
        g_autoptr(GByteArray) says = greeting();

        put_reply(says, 8, 1, 0);
        put_context(says, ALLOCATION, "base:allocation");
        put_reply(says, 10, 1, 0);
        assert_fails(says, &whole, BJ_ERROR_NOT_SUPPORTED);
}

static void no_structured_replies(void)
{
        g_autoptr(GByteArray) says = greeting();

        put_reply(says, 8, 0x80000001, 3);
        g_byte_array_append(says, (const guint8 *) "\xff no", 3);
        assert_fails(says, &whole, BJ_ERROR_NOT_SUPPORTED);
}

/* Each of these is a whole answer to the first question. */
static void nonsense(void)
{
        static const guint32 with_nothing[] = { 4096, 1, 0, 3, SIZE, 1, 0, 0 };
        GByteArray *all[8];
        guint n = 0;

        for (guint i = 0; i < G_N_ELEMENTS(all); i++)
                all[i] = negotiation(SIZE);
        put_status(all[n], 0, 1, DEPTH, with_nothing); /* an extent without length */
        put_status(all[n++], 1, 1, ALLOCATION, EXTENTS(SIZE, 0));
        put_status(all[n], 0, 1, DEPTH, EXTENTS(SIZE, 1)); /* twice */
        put_status(all[n++], 1, 1, DEPTH, EXTENTS(SIZE, 1));
        put_status(all[n++], 1, 1, DEPTH, EXTENTS(SIZE, 1)); /* only one */
        put_status(all[n++], 1, 1, 1234, EXTENTS(SIZE, 1));  /* a context that nobody knows */
        put_status(all[n++], 0, 2, DEPTH, EXTENTS(SIZE, 1)); /* of another request */
        put_chunk(all[n++], 1, 0, 1, 0);                     /* nothing at all */
        put_chunk(all[n++], 1, 5, 1, G_MAXUINT32);           /* without end */
        put_chunk(all[n], 1, 1, 1, 1);                       /* data */
        put(all[n++], 0, 1);
        g_assert_cmpuint(n, ==, G_N_ELEMENTS(all));
        for (guint i = 0; i < n; i++) {
                assert_fails(all[i], &whole, BJ_ERROR_FAILED);
                g_byte_array_unref(all[i]);
        }
}

static void options_without_end(void)
{
        g_autoptr(GByteArray) says = greeting();

        put_reply(says, 8, 1, 0);
        for (guint i = 0; i < 100; i++)
                put_context(says, i, "base:allocation");
        assert_fails(says, &whole, BJ_ERROR_FAILED);
}

static void disk_without_measure(void)
{
        g_autoptr(GByteArray) says = negotiation((guint64) G_MAXINT64 + 1);

        assert_fails(says, &whole, BJ_ERROR_FAILED);
}

static void error_of_the_disk(void)
{
        g_autoptr(GByteArray) says = negotiation(SIZE);

        put_chunk(says, 1, 32769, 1, 6);
        put(says, 5, 4);
        put(says, 0, 2);
        assert_fails(says, &whole, BJ_ERROR_QEMU);
}

/* ---- sockets ---- */

static void nothing_is_left(void)
{
        g_autofree char *place = g_dir_make_tmp("nbd-XXXXXX", NULL);
        g_autofree char *below = g_build_filename(place, "run", NULL);
        g_autofree char *long_name = g_strdup_printf("%s/%0100d", place, 0);
        g_autoptr(GError) error = NULL;
        GDir *dir;
        int listener, client, server;

        g_assert_true(nbd_prepare(below, &listener, &client, &error));
        server = accept(listener, NULL, NULL);
        g_assert_cmpint(server, >=, 0);
        g_assert_cmpint(write(server, "x", 1), ==, 1);
        g_assert_cmpint(read(client, &(char){ 0 }, 1), ==, 1);
        dir = g_dir_open(below, 0, NULL);
        g_assert_null(g_dir_read_name(dir));
        g_dir_close(dir);
        close(listener), close(client), close(server);
        g_assert_false(nbd_prepare(long_name, &listener, &client, &error));
        g_assert_error(error, BJ_ERROR, BJ_ERROR_FAILED);
        g_clear_error(&error);
        g_assert_cmpint(nbd_connect(below, &error), ==, -1);
        g_assert_error(error, BJ_ERROR, BJ_ERROR_DISCONNECTED);
        g_assert_no_errno(rmdir(below));
        g_assert_no_errno(rmdir(long_name));
        g_assert_no_errno(rmdir(place));
}

int main(int argc, char **argv)
{
        g_test_init(&argc, &argv, NULL);
        g_test_add_func("/nbd-map/two-contexts", two_contexts);
        g_test_add_func("/nbd-map/empty-disk", empty_disk);
        g_test_add_func("/nbd-map/largest-disk", largest_disk);
        g_test_add_func("/nbd-map/cut-everywhere", cut_everywhere);
        g_test_add_func("/nbd-map/changed-everywhere", changed_everywhere);
        g_test_add_func("/nbd-map/parts-beyond-the-end", parts_beyond_the_end);
        g_test_add_func("/nbd-map/too-many-ranges", too_many_ranges);
        g_test_add_func("/nbd-map/no-such-context", no_such_context);
        g_test_add_func("/nbd-map/no-structured-replies", no_structured_replies);
        g_test_add_func("/nbd-map/nonsense", nonsense);
        g_test_add_func("/nbd-map/options-without-end", options_without_end);
        g_test_add_func("/nbd-map/disk-without-measure", disk_without_measure);
        g_test_add_func("/nbd-map/error-of-the-disk", error_of_the_disk);
        g_test_add_func("/nbd-map/nothing-is-left", nothing_is_left);
        return g_test_run();
}
