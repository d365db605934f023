/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "client.h"

/* What is printed, and how: everything on standard output goes through here. */

typedef enum {
        STYLE_PLAIN,
        STYLE_BOLD,
        STYLE_DIM,
        STYLE_GOOD,
        STYLE_WARNING,
        STYLE_BAD,
} Style;

/* The sequence that begins or ends (STYLE_PLAIN) a style; "" where colours are off: no terminal, NO_COLOR,
 * SYSTEMD_COLORS=0, TERM=dumb. */
const char *style(Style kind);

/* The same for another descriptor: standard error. */
const char *style_on(int fd, Style kind);

/* The text without what would move the cursor of a terminal: names of images come out of files that guests
 * can write. Control characters are written as \xNN. */
char *printable(const char *text);

/* Sends what follows through a pager, where standard output is a terminal and the options and the
 * environment (SYSTEMD_PAGER, PAGER; less otherwise) do not say no. Once; output_end() waits for its end. */
void output_begin_paged(const Client *client);
/* Columns of the terminal that the descriptor is, standard output before the pager stands in between; 0: it
 * is none. */
guint output_width(int fd);
void output_end(void);

/* With --json: prints the value as JSON, a variant as what is in it, and returns TRUE. Otherwise FALSE, and
 * the caller prints for people. */
gboolean output_json(const Client *client, GVariant *value);

/* A table for people: columns as wide as what is in them, no frame; the header in bold. A column whose title
 * begins with '>' is set right. Each row has as many cells as there are titles; table_free() does not print.
 */
typedef struct Table Table;

Table *table_new(const char *const *titles);
void table_add(Table *table, const char *const *cells);
void table_style_row(Table *table, Style kind); /* of the last row */
guint table_rows(const Table *table);
void table_print(const Table *table);
void table_free(Table *table);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Table, table_free)
