/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "outcome.h"

#include <stdio.h>
#include <string.h>

#include "hint.h"
#include "output.h"
#include "progress.h"
#include "units.h"
#include "values.h"

/* Which image the disk is, as far as a job tells. */
typedef enum {
        DISK_AS_BUS_SAYS, /* the job did not move it: what the disk's object says, where there is one */
        DISK_IS_SOURCE,
        DISK_IS_TARGET,
} Image;

/* The texts know: {source} {target} {disk} {domain} {id} {end} {start}, and {ctl}, which begins a command.
 * The first row that fits is taken; a line of `next` is a command, and what it does. */
typedef struct {
        const char *type;    /* NULL: any */
        const char *outcome; /* NULL: any. The result; "deleted" for one whose old layers were removed;
                                "ready" or "running" of a job that has not ended */
        const char *happened;
        Image image;
        const char *next;
} Outcome;

#define PART_OF_COMMIT "A part of {source} is in {target}, which is good below the other layers only."
#define DECIDE                                                            \
        "{ctl}wait --ready {id}\twaits until it is ready\n"               \
        "{ctl}pivot {id}\tmoves the disk to {target}, when it is ready\n" \
        "{ctl}abort {id}\tleaves it where it is"
#define NOT_COMPLETE "{target} is not complete; do not use it."
#define SHOW "{ctl}show {disk}\tdraws the chain as it is now"

static const Outcome outcomes[] = {
        { NULL, "ready", "What the guest writes reaches {source} and {target} now, for as long as you like.",
          DISK_IS_SOURCE,
          "{ctl}pivot {id}\tmoves the disk to {target}\n"
          "{ctl}abort {id}\tleaves it; {target} is a consistent copy then" },
        { "active-commit", "running", "{source} is merged into {target}; when that is done you decide.",
          DISK_IS_SOURCE, DECIDE },
        { "copy", "running", "{source} is copied to {target}; when that is done you decide.", DISK_IS_SOURCE,
          DECIDE },
        { NULL, "running", "It comes to its end by itself.", DISK_AS_BUS_SAYS,
          "{ctl}wait {id}\tshows how far it is, and how it ends\n{ctl}abort {id}\tends it" },
        { NULL, "pivoted",
          "QEMU went away when the pivot was decided and recorded. Start from this image and from no other.",
          DISK_IS_TARGET, "{ctl}show {domain}\ttells what state it is in" },

        { "active-commit", "deleted", "{source} was merged into {target} and removed.", DISK_IS_TARGET,
          SHOW },
        { "active-commit", "completed", "{source} was merged into {target} and is not valid any more.",
          DISK_IS_TARGET,
          SHOW "\n{ctl}inspect {source}\ttells who uses the old layer; if nobody does it can go" },
        { "active-commit", "kept", "{target} is a consistent copy of the disk as of {end}.", DISK_IS_SOURCE,
          "{ctl}commit {disk} --pivot\tmerges what has come since, and moves the disk" },
        { "active-commit", NULL, PART_OF_COMMIT, DISK_IS_SOURCE,
          "{ctl}commit {disk} --pivot\tbegins again" },

        { "commit", "deleted", "The layers from {source} down were merged into {target} and removed.",
          DISK_AS_BUS_SAYS, SHOW },
        { "commit", "completed",
          "The layers from {source} down were merged into {target} and are not valid any more.",
          DISK_AS_BUS_SAYS, SHOW },
        { "commit", NULL, PART_OF_COMMIT, DISK_AS_BUS_SAYS, SHOW "; the same commit can begin again" },

        { "copy", "completed", "{source} was copied, and stays as it was at {end}.", DISK_IS_TARGET, SHOW },
        { NULL, "kept", "{target} is a consistent copy of the disk as of {end}.", DISK_IS_SOURCE, SHOW },
        { "copy", NULL, NOT_COMPLETE, DISK_IS_SOURCE, SHOW },

        { "pull", "completed", "{target} holds itself what it showed of the layers below.", DISK_AS_BUS_SAYS,
          SHOW },
        { "pull", NULL, "{target} holds a part of it itself, and is good above the same layers as before.",
          DISK_AS_BUS_SAYS, "{ctl}pull {disk}\tgoes on with what is left" },

        { "backup", "completed", "{target} is a backup of the disk as of {start}.", DISK_AS_BUS_SAYS, SHOW },
        { "backup", NULL, NOT_COMPLETE, DISK_AS_BUS_SAYS, SHOW },

        /* jobs of somebody else */
        { NULL, NULL, "", DISK_AS_BUS_SAYS, "{ctl}jobs\tlists all jobs" },
};

static const struct {
        const char *result;
        Status status;
        Style style;
} results[] = {
        { "completed", STATUS_DONE, STYLE_GOOD },
        { "kept", STATUS_KEPT, STYLE_GOOD },
        { "cancelled", STATUS_CANCELLED, STYLE_WARNING },
        { "failed", STATUS_FAILED, STYLE_BAD },
        { "lost", STATUS_LOST, STYLE_BAD },
        { "pivoted", STATUS_PIVOTED, STYLE_WARNING },
};

static Status status_of(GVariant *job)
{
        for (gsize i = 0; i < G_N_ELEMENTS(results); i++)
                if (strcmp(results[i].result, value_text(job, "Result")) == 0)
                        return results[i].status;
        return STATUS_DONE;
}

static Style style_of(const char *outcome)
{
        for (gsize i = 0; i < G_N_ELEMENTS(results); i++)
                if (strcmp(results[i].result, outcome) == 0)
                        return results[i].style;
        return STYLE_BOLD;
}

static const Outcome *find_outcome(const char *type, const char *outcome)
{
        const Outcome *row = outcomes;

        while ((row->type && strcmp(row->type, type) != 0) ||
               (row->outcome && strcmp(row->outcome, outcome) != 0))
                row++;
        return row;
}

/* "completed", or what else the job has come to. */
static const char *word_of(GVariant *job)
{
        const char *result = value_text(job, "Result");

        return *result ? result : value_flag(job, "Ready") ? "ready" : "running";
}

gboolean outcome_is_decided(Client *client, GVariant *job)
{
        g_autoptr(GVariant) domain =
                client_properties(client, value_text(job, "Domain"), BLOCKJOBD_DOMAIN, NULL);

        return domain && strcmp(value_text(domain, "State"), "shutoff") == 0;
}

static const Outcome *outcome_of(Client *client, GVariant *job)
{
        g_autoptr(GVariant) options = g_variant_lookup_value(job, "Options", G_VARIANT_TYPE_VARDICT);
        const char *word = word_of(job);
        const char *name = "", *message = "";

        if (*value_text(job, "Result") == '\0' && outcome_is_decided(client, job))
                return find_outcome("", "running");
        g_variant_lookup(job, "Error", "(&s&s)", &name, &message);
        /* with a message it could not be done, or not all of it */
        if (options && value_flag(options, "delete") && strcmp(word, "completed") == 0 && *message == '\0')
                word = "deleted";
        return find_outcome(value_text(job, "Type"), word);
}

/* ---- the texts ---- */

static char *value_of(Client *client, GVariant *job, const char *key)
{
        if (strcmp(key, "ctl") == 0)
                return client_command_start(client);
        if (strcmp(key, "source") == 0)
                return g_strdup(value_text(job, "Source"));
        if (strcmp(key, "target") == 0)
                return g_strdup(value_text(job, "Target"));
        if (strcmp(key, "disk") == 0)
                return disk_name_of(value_text(job, "Disk"));
        if (strcmp(key, "domain") == 0)
                return last_name_of(value_text(job, "Domain"));
        if (strcmp(key, "id") == 0)
                return g_strdup(value_text(job, "Id"));
        return units_format_time(value_number(job, strcmp(key, "end") == 0 ? "EndTime" : "StartTime"));
}

/* A word of a command, as a shell needs it. */
static char *quoted(const char *text)
{
        static const char plain[] = G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "/._-+,:@%=";

        return *text && text[strspn(text, plain)] == '\0' ? g_strdup(text) : g_shell_quote(text);
}

/* One pass: a file may be called "{target}". */
static char *fill_in(Client *client, GVariant *job, const char *text, gboolean is_command)
{
        GString *filled = g_string_new(NULL);

        while (*text) {
                const char *end = *text == '{' ? strchr(text, '}') : NULL;

                if (end) {
                        g_autofree char *key = g_strndup(text + 1, (gsize) (end - text - 1));
                        g_autofree char *value = value_of(client, job, key);
                        g_autofree char *clean = printable(value);
                        g_autofree char *word =
                                is_command && strcmp(key, "ctl") != 0 ? quoted(clean) : g_strdup(clean);

                        g_string_append(filled, word);
                        text = end + 1;
                } else
                        g_string_append_c(filled, *text++);
        }
        return g_string_free(filled, FALSE);
}

/* Commands in one column, what they do in the next. */
static void print_next(Client *client, GVariant *job, const char *next)
{
        g_auto(GStrv) lines = g_strsplit(next, "\n", -1);
        glong width = 0;

        for (char **line = lines; *line; line++) {
                g_auto(GStrv) parts = g_strsplit(*line, "\t", 2);
                g_autofree char *command = fill_in(client, job, parts[0], TRUE);

                width = MAX(width, g_utf8_strlen(command, -1));
        }
        for (char **line = lines; *line; line++) {
                g_auto(GStrv) parts = g_strsplit(*line, "\t", 2);
                g_autofree char *command = fill_in(client, job, parts[0], TRUE);
                g_autofree char *purpose = fill_in(client, job, parts[1], FALSE);

                printf("  %s %s%s%s%*s  %s\n", line == lines ? "Next:" : "     ", style(STYLE_BOLD), command,
                       style(STYLE_PLAIN), (int) (width - g_utf8_strlen(command, -1)), "", purpose);
        }
}

/* What the disk is, where it can be told. */
static void print_disk(Client *client, GVariant *job, Image image)
{
        g_autoptr(GVariant) disk = NULL;
        const char *source = image == DISK_IS_TARGET ? value_text(job, "Target") : value_text(job, "Source");
        g_autofree char *clean = NULL;

        if (image == DISK_AS_BUS_SAYS) {
                disk = client_properties(client, value_text(job, "Disk"), BLOCKJOBD_DISK, NULL);
                source = disk ? value_text(disk, "Source") : "";
        }
        clean = printable(source);
        if (*source)
                printf("  The disk is %s %s%s%s.\n", image == DISK_IS_TARGET ? "now" : "still",
                       style(STYLE_BOLD), clean, style(STYLE_PLAIN));
        else
                puts("  The disk is what it was.");
}

static void print_error(Client *client, GVariant *job)
{
        const char *name = "", *message = "";
        g_autofree char *text = NULL;

        g_variant_lookup(job, "Error", "(&s&s)", &name, &message);
        if (!*name && !*message)
                return;
        text = hint_explain(client, name, message);
        printf("  %s%s%s\n", style(*name ? STYLE_BAD : STYLE_WARNING), text, style(STYLE_PLAIN));
}

static void print_head(GVariant *job)
{
        const char *word = word_of(job);
        guint64 start = value_number(job, "StartTime"), end = value_number(job, "EndTime");
        g_autofree char *disk = disk_name_of(value_text(job, "Disk"));
        g_autofree char *took = units_format_duration(end > start ? end - start : 0);

        printf("%s of %s, job %s: %s%s%s%s%s\n", job_word(value_text(job, "Type")), disk,
               value_text(job, "Id"), style(style_of(word)), strcmp(word, "running") == 0 ? "started" : word,
               style(STYLE_PLAIN), end ? " after " : "", end ? took : "");
}

Status outcome_report(Client *client, GVariant *job)
{
        const Outcome *outcome = outcome_of(client, job);
        Status status = status_of(job);
        g_autofree char *happened = NULL;

        /* what went wrong is never kept quiet about */
        if ((client->quiet && status != STATUS_FAILED && status != STATUS_LOST &&
             status != STATUS_PIVOTED) ||
            output_json(client, job))
                return status;
        happened = fill_in(client, job, outcome->happened, FALSE);
        print_head(job);
        print_error(client, job);
        if (*happened)
                printf("  %s\n", happened);
        print_disk(client, job, outcome->image);
        print_next(client, job, outcome->next);
        return status;
}

void outcome_disk(Client *client, GVariant *before, GVariant *after)
{
        g_autofree char *source = printable(value_text(after, "Source"));
        g_autofree char *old_source = printable(value_text(before, "Source"));
        g_autofree char *domain = last_name_of(value_text(after, "Domain"));
        g_autofree char *capacity = units_format_size(value_number(after, "Capacity"));
        g_autofree char *old_capacity = units_format_size(value_number(before, "Capacity"));
        gboolean moved = strcmp(source, old_source) != 0;

        if (client->quiet || output_json(client, after))
                return;
        printf("%s of %s/%s: %sdone%s\n", client->verb, domain, value_text(after, "Target"),
               style(STYLE_GOOD), style(STYLE_PLAIN));
        if (moved)
                printf("  %s stays as it is, below the new layer.\n", old_source);
        else
                printf("  Its size was %s and is %s now.\n", old_capacity, capacity);
        printf("  The disk is %s %s%s%s.\n", moved ? "now" : "still", style(STYLE_BOLD), source,
               style(STYLE_PLAIN));
        if (moved) {
                g_autofree char *command = client_command(client, "commit %s/%s --shallow --pivot --wait",
                                                          domain, value_text(after, "Target"));

                printf("  Next: %s%s%s  merges it again\n", style(STYLE_BOLD), command, style(STYLE_PLAIN));
        }
}
