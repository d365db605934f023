/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "output.h"
#include "units.h"

/* The rate is that of the last few seconds. */
enum { SAMPLES = 32, NARROWEST_BAR = 10, WIDEST_BAR = 40 };
#define RATE_WINDOW (5 * G_USEC_PER_SEC)
#define RATE_SPAN (G_USEC_PER_SEC / 2) /* below that it would jump */

typedef struct {
        gint64 time;
        guint64 bytes;
} Sample;

struct Progress {
        const Client *client;
        gboolean wanted;
        gboolean is_terminal;
        gboolean is_drawn;
        Sample samples[SAMPLES];
        guint count;
        char *phase; /* as told last */
        guint tenth;
};

/* What a job's properties say. */
typedef struct {
        const char *type, *state, *io_status, *disk;
        guint64 current, total;
        gboolean ready;
} Look;

static const struct {
        const char *type, *word;
        gboolean has_two_phases;
} types[] = {
        { "active-commit", "commit", TRUE }, { "commit", "commit", FALSE }, { "copy", "copy", TRUE },
        { "pull", "pull", FALSE },           { "backup", "backup", FALSE },
};

const char *job_word(const char *type)
{
        for (gsize i = 0; i < G_N_ELEMENTS(types); i++)
                if (strcmp(types[i].type, type) == 0)
                        return types[i].word;
        return *type ? type : "job";
}

static gboolean has_two_phases(const char *type)
{
        for (gsize i = 0; i < G_N_ELEMENTS(types); i++)
                if (strcmp(types[i].type, type) == 0)
                        return types[i].has_two_phases;
        return FALSE;
}

Progress *progress_new(const Client *client)
{
        Progress *progress = g_new0(Progress, 1);

        progress->client = client;
        progress->is_terminal = isatty(STDERR_FILENO) && g_strcmp0(g_getenv("TERM"), "dumb") != 0;
        progress->wanted = !client->quiet && (progress->is_terminal || client->json == JSON_OFF);
        return progress;
}

static void clear(Progress *progress)
{
        if (progress->is_drawn)
                fputs("\r\033[K", stderr);
        progress->is_drawn = FALSE;
}

void progress_free(Progress *progress)
{
        clear(progress);
        g_free(progress->phase);
        g_free(progress);
}

static const char *phase_of(const Look *look, gboolean is_away)
{
        gboolean two = has_two_phases(look->type);

        if (is_away)
                return "the service is away, QEMU goes on";
        if (strcmp(look->state, "disconnected") == 0)
                return "no connection to QEMU";
        if (strcmp(look->state, "completing") == 0)
                return "coming to its end";
        if (strcmp(look->state, "paused") == 0)
                return strcmp(look->io_status, "nospace") == 0  ? "paused: no space left"
                       : strcmp(look->io_status, "failed") == 0 ? "paused: I/O error"
                                                                : "paused";
        if (look->ready)
                return "phase 2 of 2: ready, writes reach both images";
        if (strcmp(look->state, "running") == 0)
                return two ? "phase 1 of 2: copying" : "copying";
        return "starting";
}

static guint64 rate_of(Progress *progress, guint64 bytes)
{
        gint64 now = g_get_monotonic_time();
        Sample *samples = progress->samples;
        guint old = 0;

        if (progress->count > 0 && bytes < samples[progress->count - 1].bytes)
                progress->count = 0;
        while (old < progress->count &&
               (now - samples[old].time > RATE_WINDOW || progress->count - old >= SAMPLES))
                old++;
        /* one that is older stays: the job may be slow to tell */
        old = old == progress->count && old > 0 ? old - 1 : old;
        progress->count -= old;
        memmove(samples, samples + old, progress->count * sizeof(*samples));
        samples[progress->count++] = (Sample){ now, bytes };
        if (now - samples[0].time < RATE_SPAN)
                return 0;
        return (guint64) ((double) (bytes - samples[0].bytes) * G_USEC_PER_SEC /
                          (double) (now - samples[0].time));
}

/* "512 MiB of 1.0 GiB, 120 MiB/s, 4 s left, phase 1 of 2: copying" */
static char *describe(const Look *look, guint64 rate, const char *phase)
{
        g_autofree char *done = units_format_size(look->current);
        g_autofree char *total = units_format_size(look->total);
        g_autofree char *speed = units_format_speed(rate);
        g_autofree char *time = NULL;
        gboolean copies = rate && strcmp(look->state, "running") == 0 && !look->ready;
        guint64 left = look->total > look->current ? look->total - look->current : 0;
        GString *text = g_string_new(NULL);

        if (look->total)
                g_string_append_printf(text, "%s of %s, ", done, total);
        if (copies && left) {
                time = units_format_duration((guint64) ((double) left / (double) rate * G_USEC_PER_SEC));
                g_string_append_printf(text, "%s, %s left, ", speed, time);
        }
        g_string_append(text, phase);
        return g_string_free(text, FALSE);
}

static guint width_of_terminal(void)
{
        guint width = output_width(STDERR_FILENO);

        return width > 0 ? width : 80;
}

static void append_bar(GString *line, guint width, double share)
{
        gboolean fine = g_get_charset(NULL);
        guint full = (guint) (share * width);

        g_string_append(line, style_on(STDERR_FILENO, STYLE_GOOD));
        for (guint i = 0; i < width; i++) {
                if (i == full)
                        g_string_append(line, style_on(STDERR_FILENO, STYLE_PLAIN));
                g_string_append(line, i < full ? (fine ? "█" : "#") : (fine ? "░" : "-"));
        }
        g_string_append(line, style_on(STDERR_FILENO, STYLE_PLAIN));
        g_string_append_c(line, ' ');
}

/* Never longer than the terminal is wide, with room for the ^C that it may show: a line that wraps cannot be
 * drawn over. */
static void draw(Progress *progress, const char *name, const char *text, double share)
{
        g_autofree char *before = g_strdup_printf("%s ", name);
        g_autofree char *behind = g_strdup_printf("%3.0f%% %s", share * 100, text);
        g_autoptr(GString) line = g_string_new(NULL);
        glong width = (glong) width_of_terminal() - 3;
        glong room = width - g_utf8_strlen(before, -1) - g_utf8_strlen(behind, -1) - 1;

        if (room < NARROWEST_BAR) {
                g_autofree char *whole = g_strconcat(before, behind, NULL);
                glong length = MIN(g_utf8_strlen(whole, -1), width);
                g_autofree char *cut = g_utf8_substring(whole, 0, MAX(length, 0));

                g_string_append(line, cut);
        } else {
                g_string_append(line, before);
                append_bar(line, (guint) MIN(room, WIDEST_BAR), share);
                g_string_append(line, behind);
        }
        fprintf(stderr, "\r%s\033[K", line->str);
        fflush(stderr);
        progress->is_drawn = TRUE;
}

static void print_line(Progress *progress, const char *name, const char *phase, const char *text,
                       double share)
{
        guint tenth = (guint) (share * 10);

        if (g_strcmp0(phase, progress->phase) == 0 && tenth <= progress->tenth)
                return;
        progress->tenth = tenth;
        fprintf(stderr, "%s: %.0f%%, %s\n", name, share * 100, text);
        fflush(stderr);
}

/* A job that waits for somebody says so once, and what for. */
static void tell_trouble(const Progress *progress, GVariantDict *job, const char *name, const Look *look)
{
        static const struct {
                const char *io_status, *what;
        } troubles[] = {
                { "nospace", "there is no space left. Make room, and type" },
                { "failed", "an I/O error. When its cause is mended, type" },
        };
        const char *id = "";
        g_autofree char *command = NULL;

        g_variant_dict_lookup(job, "Id", "&s", &id);
        command = client_command(progress->client, "resume %s", id);
        for (gsize i = 0; i < G_N_ELEMENTS(troubles); i++)
                if (strcmp(look->io_status, troubles[i].io_status) == 0)
                        fprintf(stderr, "%s%s paused: %s%s: %s%s\n", progress->is_terminal ? "\r\033[K" : "",
                                name, style_on(STDERR_FILENO, STYLE_WARNING), troubles[i].what,
                                style_on(STDERR_FILENO, STYLE_PLAIN), command);
}

void progress_show(Progress *progress, GVariantDict *job, gboolean is_away)
{
        Look look = { "", "", "", "", 0, 0, FALSE };
        g_autofree char *disk = NULL, *shown = NULL, *text = NULL, *name = NULL;
        const char *phase;
        double share;

        /* Nothing is known before the first answer. */
        if (!progress->wanted || !g_variant_dict_lookup(job, "Type", "&s", &look.type))
                return;
        g_variant_dict_lookup(job, "State", "&s", &look.state);
        g_variant_dict_lookup(job, "IoStatus", "&s", &look.io_status);
        g_variant_dict_lookup(job, "Disk", "&o", &look.disk);
        g_variant_dict_lookup(job, "Current", "t", &look.current);
        g_variant_dict_lookup(job, "Total", "t", &look.total);
        g_variant_dict_lookup(job, "Ready", "b", &look.ready);
        disk = disk_name_of(look.disk);
        shown = printable(disk);
        name = g_strdup_printf("%s %s", job_word(look.type), shown);
        phase = phase_of(&look, is_away);
        text = describe(&look, rate_of(progress, look.current), phase);
        if (strcmp(look.state, "paused") == 0 && !is_away && g_strcmp0(phase, progress->phase) != 0)
                tell_trouble(progress, job, name, &look);
        share = look.total ? MIN((double) look.current / (double) look.total, 1.0) : look.ready;
        if (progress->is_terminal)
                draw(progress, name, text, share);
        else
                print_line(progress, name, phase, text, share);
        g_free(progress->phase);
        progress->phase = g_strdup(phase);
}
