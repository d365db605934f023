/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/map.h"

#include <errno.h>
#include <string.h>

#include <gio/gio.h>

#include "base/error.h"

/* https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md */
#define GREETING_MAGIC G_GUINT64_CONSTANT(0x4e42444d41474943)
#define OPTION_MAGIC G_GUINT64_CONSTANT(0x49484156454f5054)
#define OPTION_REPLY_MAGIC G_GUINT64_CONSTANT(0x3e889045565a9)
#define REQUEST_MAGIC 0x25609513
#define CHUNK_MAGIC 0x668e33ef
#define FIXED_NEWSTYLE 1
#define NO_ZEROES 2

enum { OPTION_GO = 7, OPTION_STRUCTURED_REPLY = 8, OPTION_SET_META_CONTEXT = 10 };
enum { OPTION_REPLY_ACK = 1, OPTION_REPLY_INFO = 3, OPTION_REPLY_CONTEXT = 4 };
enum { INFO_EXPORT = 0 };
enum { COMMAND_DISCONNECT = 2, COMMAND_BLOCK_STATUS = 7 };
enum { CHUNK_DONE = 1 };
enum { CHUNK_NONE = 0, CHUNK_BLOCK_STATUS = 5, CHUNK_ERROR = 1 << 15 };
enum { STATE_HOLE = 1, STATE_ZERO = 2 };

#define EXTENTS_MAX 131072                /* of one reply */
#define PAYLOAD_MAX (4 + 8 * EXTENTS_MAX) /* and an option's reply is far below that */
#define OPTION_REPLIES_MAX 16             /* to one option */
#define REQUEST_FIRST (G_GUINT64_CONSTANT(128) << 20)
#define REQUEST_MAX (G_GUINT64_CONSTANT(2) << 30) /* a request has a length of 32 bits */
#define QUICK_MICROSECONDS (G_USEC_PER_SEC / 4)   /* of an answer: the next request may be longer */
#define READ_SIZE (64 * 1024)                     /* in one turn of the main loop */

typedef enum { CONTEXT_ALLOCATION, CONTEXT_DEPTH, N_CONTEXTS } Context;

static const char *const context_names[N_CONTEXTS] = { "base:allocation", "qemu:allocation-depth" };

typedef struct {
        guint32 length, flags;
} Extent;

struct NbdMap {
        GSocket *socket;
        GSource *readable;
        guint still_timer, whole_timer, idle;
        GError *error;
        char *export_name;
        MapPart part;
        NbdMapDone done;
        gpointer data;

        GByteArray *input;
        gsize wanted; /* bytes that `take` needs next */
        gboolean (*take)(NbdMap *map, const guint8 *bytes, gsize length, GError **error);

        guint32 option;
        guint option_replies;
        guint32 header_type, header_flags; /* of the reply whose payload comes next */

        guint32 context_ids[N_CONTEXTS];
        gboolean has_context[N_CONTEXTS];
        guint64 size;
        gboolean size_known;

        guint64 position, end, cookie;
        guint64 step; /* bytes of the next request */
        gint64 asked_at;
        guint64 asked;               /* bytes of the request under way */
        GArray *extents[N_CONTEXTS]; /* Extent, of its reply */
        GArray *ranges;
};

void map_add(GArray *ranges, const MapRange *range)
{
        MapRange *last = ranges->len > 0 ? &g_array_index(ranges, MapRange, ranges->len - 1) : NULL;

        if (last && last->flags == range->flags && last->depth == range->depth &&
            last->offset + last->length == range->offset)
                last->length += range->length;
        else
                g_array_append_val(ranges, *range);
}

/* ---- numbers, as they go over the wire ---- */

static guint16 get16(const guint8 *bytes)
{
        return (guint16) (bytes[0] << 8 | bytes[1]);
}

static guint32 get32(const guint8 *bytes)
{
        return (guint32) get16(bytes) << 16 | get16(bytes + 2);
}

static guint64 get64(const guint8 *bytes)
{
        return (guint64) get32(bytes) << 32 | get32(bytes + 4);
}

static void put(GByteArray *output, guint64 number, guint bytes)
{
        while (bytes-- > 0) {
                guint8 byte = (guint8) (number >> (8 * bytes));

                g_byte_array_append(output, &byte, 1);
        }
}

static void put_text(GByteArray *output, const char *text)
{
        put(output, strlen(text), 4);
        g_byte_array_append(output, (const guint8 *) text, (guint) strlen(text));
}

/* ---- the end ---- */

static void clear_source(GSource **source)
{
        if (*source)
                g_source_destroy(*source);
        g_clear_pointer(source, g_source_unref);
}

static void stop(NbdMap *map)
{
        clear_source(&map->readable);
        g_clear_handle_id(&map->still_timer, g_source_remove);
        g_clear_handle_id(&map->whole_timer, g_source_remove);
        g_clear_object(&map->socket);
}

void nbd_map_free(NbdMap *map)
{
        if (!map)
                return;
        stop(map);
        g_clear_handle_id(&map->idle, g_source_remove);
        g_clear_error(&map->error);
        for (guint i = 0; i < N_CONTEXTS; i++)
                g_array_unref(map->extents[i]);
        g_array_unref(map->ranges);
        g_byte_array_unref(map->input);
        g_free(map->export_name);
        g_free(map);
}

static gboolean tell(gpointer data)
{
        NbdMap *map = data;

        map->idle = 0;
        map->done(map->error ? NULL : map->ranges, map->error, map->data);
        return G_SOURCE_REMOVE;
}

/* Who is told may free the map, which is in use up the stack. */
static void finish(NbdMap *map, const GError *error)
{
        stop(map);
        map->error = error ? g_error_copy(error) : NULL;
        map->idle = g_idle_add(tell, map);
}

static gboolean refuse(GError **error, const char *what)
{
        g_set_error(error, BJ_ERROR, BJ_ERROR_FAILED, "QEMU's NBD server says what makes no sense: %s",
                    what);
        return FALSE;
}

static gboolean on_still(gpointer data)
{
        NbdMap *map = data;
        g_autoptr(GError) error = g_error_new(
                BJ_ERROR, BJ_ERROR_TIMEOUT,
                "QEMU has not said for %d seconds where the data lies; its storage may hang, or the "
                "guest is held",
                NBD_STILL_SECONDS);

        map->still_timer = 0;
        finish(map, error);
        return G_SOURCE_REMOVE;
}

static gboolean on_whole(gpointer data)
{
        NbdMap *map = data;
        g_autoptr(GError) error = g_error_new(BJ_ERROR, BJ_ERROR_TIMEOUT,
                                              "after %d seconds %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT
                                              " bytes are known: ask for a part with 'offset' and 'length'",
                                              NBD_WHOLE_SECONDS, map->position - map->part.offset,
                                              map->end - map->part.offset);

        map->whole_timer = 0;
        finish(map, error);
        return G_SOURCE_REMOVE;
}

/* ---- sending: one small request at a time, for which a socket always has room ---- */

static gboolean send_bytes(NbdMap *map, const GByteArray *output, GError **error)
{
        g_autoptr(GError) failure = NULL;
        gssize sent = g_socket_send(map->socket, (const char *) output->data, output->len, NULL, &failure);

        if (sent == (gssize) output->len)
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_DISCONNECTED, "QEMU's NBD server takes no request: %s",
                    failure ? failure->message : "its socket is full");
        return FALSE;
}

static gboolean send_option(NbdMap *map, guint32 option, const GByteArray *payload, GError **error)
{
        g_autoptr(GByteArray) output = g_byte_array_new();

        map->option = option;
        map->option_replies = 0;
        put(output, OPTION_MAGIC, 8);
        put(output, option, 4);
        put(output, payload->len, 4);
        g_byte_array_append(output, payload->data, payload->len);
        return send_bytes(map, output, error);
}

static gboolean send_command(NbdMap *map, guint16 command, guint64 offset, guint32 length, GError **error)
{
        g_autoptr(GByteArray) output = g_byte_array_new();

        put(output, REQUEST_MAGIC, 4);
        put(output, 0, 2);
        put(output, command, 2);
        put(output, ++map->cookie, 8);
        put(output, offset, 8);
        put(output, length, 4);
        return send_bytes(map, output, error);
}

static gboolean take_chunk(NbdMap *map, const guint8 *bytes, gsize length, GError **error);
static gboolean take_option_reply(NbdMap *map, const guint8 *bytes, gsize length, GError **error);

static void want(NbdMap *map, gsize bytes,
                 gboolean (*take)(NbdMap *map, const guint8 *bytes, gsize length, GError **error))
{
        map->wanted = bytes;
        map->take = take;
}

/* ---- asking what is where ---- */

static gboolean ask(NbdMap *map, GError **error)
{
        for (guint i = 0; i < N_CONTEXTS; i++)
                g_array_set_size(map->extents[i], 0);
        map->asked = MIN(map->end - map->position, map->step);
        map->asked_at = g_get_monotonic_time();
        want(map, 20, take_chunk);
        return send_command(map, COMMAND_BLOCK_STATUS, map->position, (guint32) map->asked, error);
}

static gboolean check_part(NbdMap *map, GError **error)
{
        const MapPart *part = &map->part;

        if (part->offset > map->size || part->length > map->size - part->offset) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_ARGUMENT,
                            "the disk ends at %" G_GUINT64_FORMAT ": 'offset' %" G_GUINT64_FORMAT
                            " and 'length' %" G_GUINT64_FORMAT " go beyond that",
                            map->size, part->offset, part->length);
                return FALSE;
        }
        map->position = part->offset;
        map->end = part->length ? part->offset + part->length : map->size;
        return TRUE;
}

static gboolean add_range(NbdMap *map, guint64 length, guint32 state, guint32 depth, GError **error)
{
        const MapRange range = { map->position, length,
                                 (state & STATE_HOLE ? 0 : RANGE_DATA) |
                                         (state & STATE_ZERO ? RANGE_ZERO : 0),
                                 depth };

        map_add(map->ranges, &range);
        map->position += length;
        if (map->ranges->len <= map->part.max_ranges)
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_LIMIT_EXCEEDED,
                    "there are more than %u ranges, the first of them up to %" G_GUINT64_FORMAT
                    ": ask for a part with 'offset' and 'length', or for more with 'max-ranges'",
                    map->part.max_ranges, range.offset);
        return FALSE;
}

/* The two contexts have boundaries of their own, and may reach differently far. */
static gboolean take_extents(NbdMap *map, GError **error)
{
        const GArray *states = map->extents[CONTEXT_ALLOCATION], *depths = map->extents[CONTEXT_DEPTH];
        guint64 stop = map->position + map->asked;
        guint32 state_used = 0, depth_used = 0;

        if (states->len == 0 || depths->len == 0)
                return refuse(error, "a reply without extents");
        for (guint i = 0, j = 0; i < states->len && j < depths->len && map->position < stop;) {
                const Extent *state = &g_array_index(states, Extent, i);
                const Extent *depth = &g_array_index(depths, Extent, j);
                guint32 length = MIN(state->length - state_used, depth->length - depth_used);

                /* The last one may go beyond what was asked for. */
                if (!add_range(map, MIN(length, stop - map->position), state->flags, depth->flags, error))
                        return FALSE;
                state_used += length;
                depth_used += length;
                if (state_used == state->length)
                        i++, state_used = 0;
                if (depth_used == depth->length)
                        j++, depth_used = 0;
        }
        if (g_get_monotonic_time() - map->asked_at < QUICK_MICROSECONDS)
                map->step = MIN(2 * map->step, REQUEST_MAX);
        else
                map->step = MAX(map->step / 4, READ_SIZE);
        if (map->position < map->end)
                return ask(map, error);
        send_command(map, COMMAND_DISCONNECT, 0, 0, NULL);
        finish(map, NULL);
        return TRUE;
}

static gboolean take_status(NbdMap *map, const guint8 *bytes, gsize length, GError **error)
{
        GArray *extents = NULL;

        if (length < 12 || length % 8 != 4)
                return refuse(error, "extents of a wrong length");
        for (guint i = 0; i < N_CONTEXTS; i++)
                if (map->context_ids[i] == get32(bytes))
                        extents = map->extents[i];
        if (!extents || extents->len > 0)
                return refuse(error, "extents that nobody asked for");
        for (gsize at = 4; at < length; at += 8) {
                const Extent extent = { get32(bytes + at), get32(bytes + at + 4) };

                if (extent.length == 0)
                        return refuse(error, "an extent without length");
                g_array_append_val(extents, extent);
        }
        return TRUE;
}

static gboolean take_chunk_payload(NbdMap *map, const guint8 *bytes, gsize length, GError **error)
{
        if (map->header_type & CHUNK_ERROR) {
                guint32 code = length >= 4 ? get32(bytes) : 0;

                g_set_error(error, BJ_ERROR, BJ_ERROR_QEMU, "QEMU cannot say where the data lies: %s",
                            code > 0 && code <= G_MAXINT16 ? g_strerror((int) code) : "unknown error");
                return FALSE;
        }
        if (map->header_type == CHUNK_BLOCK_STATUS && !take_status(map, bytes, length, error))
                return FALSE;
        if (map->header_type == CHUNK_NONE && length > 0)
                return refuse(error, "an empty chunk with contents");
        if (map->header_type != CHUNK_BLOCK_STATUS && map->header_type != CHUNK_NONE)
                return refuse(error, "a chunk of an unknown type");
        if (map->header_flags & CHUNK_DONE)
                return take_extents(map, error);
        want(map, 20, take_chunk);
        return TRUE;
}

static gboolean take_chunk(NbdMap *map, const guint8 *bytes, gsize length, GError **error)
{
        guint32 payload = get32(bytes + 16);

        (void) length;
        if (get32(bytes) != CHUNK_MAGIC || get64(bytes + 8) != map->cookie)
                return refuse(error, "no chunk of a reply");
        if (payload > PAYLOAD_MAX)
                return refuse(error, "a chunk that is too long");
        map->header_flags = get16(bytes + 4);
        map->header_type = get16(bytes + 6);
        want(map, payload, take_chunk_payload);
        return TRUE;
}

/* ---- the negotiation ---- */

static gboolean ask_contexts(NbdMap *map, GError **error)
{
        g_autoptr(GByteArray) payload = g_byte_array_new();

        put_text(payload, map->export_name);
        put(payload, N_CONTEXTS, 4);
        for (guint i = 0; i < N_CONTEXTS; i++)
                put_text(payload, context_names[i]);
        return send_option(map, OPTION_SET_META_CONTEXT, payload, error);
}

static gboolean ask_to_go(NbdMap *map, GError **error)
{
        g_autoptr(GByteArray) payload = g_byte_array_new();

        for (guint i = 0; i < N_CONTEXTS; i++)
                if (!map->has_context[i]) {
                        g_set_error(error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED,
                                    "this QEMU's NBD server has no '%s'", context_names[i]);
                        return FALSE;
                }
        if (map->context_ids[CONTEXT_ALLOCATION] == map->context_ids[CONTEXT_DEPTH])
                return refuse(error, "two contexts with one id");
        put_text(payload, map->export_name);
        put(payload, 0, 2); /* no information beside what comes anyway */
        return send_option(map, OPTION_GO, payload, error);
}

static gboolean option_is_over(NbdMap *map, GError **error)
{
        switch (map->option) {
        case OPTION_STRUCTURED_REPLY:
                return ask_contexts(map, error);
        case OPTION_SET_META_CONTEXT:
                return ask_to_go(map, error);
        default:
                if (!map->size_known)
                        return refuse(error, "an export without a size");
                if (!check_part(map, error))
                        return FALSE;
                if (map->position < map->end)
                        return ask(map, error);
                finish(map, NULL);
                return TRUE;
        }
}

static void note_context(NbdMap *map, const guint8 *bytes, gsize length)
{
        for (guint i = 0; length > 4 && i < N_CONTEXTS; i++) {
                gsize name = strlen(context_names[i]);

                if (length - 4 != name || memcmp(bytes + 4, context_names[i], name) != 0)
                        continue;
                map->context_ids[i] = get32(bytes);
                map->has_context[i] = TRUE;
        }
}

static gboolean take_option_payload(NbdMap *map, const guint8 *bytes, gsize length, GError **error)
{
        want(map, 20, take_option_reply);
        switch (map->header_type) {
        case OPTION_REPLY_ACK:
                return option_is_over(map, error);
        case OPTION_REPLY_CONTEXT:
                note_context(map, bytes, length);
                return TRUE;
        case OPTION_REPLY_INFO:
                if (length == 12 && get16(bytes) == INFO_EXPORT) {
                        map->size = get64(bytes + 2);
                        map->size_known = map->size <= G_MAXINT64;
                }
                return TRUE;
        default: {
                g_autofree char *said =
                        g_utf8_make_valid(length ? (const char *) bytes : "", (gssize) MIN(length, 200));

                g_set_error(error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED,
                            "QEMU's NBD server refuses what a map needs: %s", said);
                return FALSE;
        }
        }
}

static gboolean take_option_reply(NbdMap *map, const guint8 *bytes, gsize length, GError **error)
{
        guint32 payload = get32(bytes + 16);

        (void) length;
        if (get64(bytes) != OPTION_REPLY_MAGIC || get32(bytes + 8) != map->option)
                return refuse(error, "no reply to an option");
        if (payload > 4096 || ++map->option_replies > OPTION_REPLIES_MAX)
                return refuse(error, "too much in reply to an option");
        map->header_type = get32(bytes + 12);
        want(map, payload, take_option_payload);
        return TRUE;
}

static gboolean take_greeting(NbdMap *map, const guint8 *bytes, gsize length, GError **error)
{
        g_autoptr(GByteArray) flags = g_byte_array_new(), nothing = g_byte_array_new();

        (void) length;
        if (get64(bytes) != GREETING_MAGIC || get64(bytes + 8) != OPTION_MAGIC ||
            !(get16(bytes + 16) & FIXED_NEWSTYLE))
                return refuse(error, "no greeting of the NBD protocol");
        put(flags, FIXED_NEWSTYLE | (get16(bytes + 16) & NO_ZEROES), 4);
        want(map, 20, take_option_reply);
        return send_bytes(map, flags, error) && send_option(map, OPTION_STRUCTURED_REPLY, nothing, error);
}

/* ---- receiving ---- */

static gboolean take_input(NbdMap *map, GError **error)
{
        while (map->socket && map->input->len >= map->wanted) {
                gsize taken = map->wanted;
                g_autofree guint8 *bytes = g_memdup2(map->input->data, taken);

                g_byte_array_remove_range(map->input, 0, (guint) taken);
                if (!map->take(map, bytes, taken, error))
                        return FALSE;
        }
        return TRUE;
}

static gboolean on_readable(GSocket *socket, GIOCondition condition, gpointer data)
{
        NbdMap *map = data;
        g_autoptr(GError) error = NULL, failure = NULL;
        guint before = map->input->len;
        gssize received;

        (void) condition;
        g_byte_array_set_size(map->input, before + READ_SIZE);
        received = g_socket_receive(socket, (char *) map->input->data + before, READ_SIZE, NULL, &failure);
        g_byte_array_set_size(map->input, before + (guint) MAX(received, 0));
        if (g_error_matches(failure, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK))
                return G_SOURCE_CONTINUE;
        if (received <= 0)
                error = g_error_new(BJ_ERROR, BJ_ERROR_DISCONNECTED, "QEMU's NBD server went away: %s",
                                    failure ? failure->message : "it closed the connection");
        else {
                g_clear_handle_id(&map->still_timer, g_source_remove);
                map->still_timer = g_timeout_add_seconds(NBD_STILL_SECONDS, on_still, map);
                take_input(map, &error);
        }
        if (error)
                finish(map, error);
        return G_SOURCE_CONTINUE;
}

NbdMap *nbd_map_new(int fd, const char *export_name, const MapPart *part, NbdMapDone done, gpointer data)
{
        NbdMap *map = g_new0(NbdMap, 1);

        map->socket = g_socket_new_from_fd(fd, NULL);
        g_assert(map->socket); /* it is one of ours */
        g_socket_set_blocking(map->socket, FALSE);
        map->export_name = g_strdup(export_name);
        map->part = *part;
        map->step = REQUEST_FIRST;
        map->done = done;
        map->data = data;
        map->input = g_byte_array_new();
        map->ranges = g_array_new(FALSE, FALSE, sizeof(MapRange));
        for (guint i = 0; i < N_CONTEXTS; i++)
                map->extents[i] = g_array_new(FALSE, FALSE, sizeof(Extent));
        map->readable = g_socket_create_source(map->socket, G_IO_IN, NULL);
        g_source_set_callback(map->readable, G_SOURCE_FUNC(on_readable), map, NULL);
        g_source_attach(map->readable, NULL);
        map->still_timer = g_timeout_add_seconds(NBD_STILL_SECONDS, on_still, map);
        map->whole_timer = g_timeout_add_seconds(NBD_WHOLE_SECONDS, on_whole, map);
        want(map, 18, take_greeting);
        return map;
}
