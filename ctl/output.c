/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "output.h"

#include <errno.h>
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t pager;

static gboolean has_colours(int fd)
{
        static int answers[STDERR_FILENO + 1] = { -1, -1, -1 };
        int known = answers[fd];
        const char *systemd = g_getenv("SYSTEMD_COLORS");
        const char *terminal = g_getenv("TERM");
        const char *no_color = g_getenv("NO_COLOR");

        if (known >= 0)
                return known;
        if (systemd)
                known = strcmp(systemd, "0") != 0 && g_ascii_strcasecmp(systemd, "no") != 0 &&
                        g_ascii_strcasecmp(systemd, "false") != 0;
        else
                known = !(no_color && *no_color) && isatty(fd) && terminal && strcmp(terminal, "dumb") != 0;
        answers[fd] = known;
        return known;
}

const char *style_on(int fd, Style kind)
{
        static const char *const sequences[] = {
                [STYLE_PLAIN] = "\033[0m", [STYLE_BOLD] = "\033[1m",     [STYLE_DIM] = "\033[2m",
                [STYLE_GOOD] = "\033[32m", [STYLE_WARNING] = "\033[33m", [STYLE_BAD] = "\033[31m",
        };

        return has_colours(fd) ? sequences[kind] : "";
}

const char *style(Style kind)
{
        return style_on(STDOUT_FILENO, kind);
}

char *printable(const char *text)
{
        GString *clean = g_string_new(NULL);

        while (*text) {
                gunichar character = g_utf8_get_char_validated(text, -1);
                gboolean valid = character != (gunichar) -1 && character != (gunichar) -2;

                if (valid && !g_unichar_iscntrl(character))
                        g_string_append_unichar(clean, character);
                else
                        g_string_append_printf(clean, "\\x%02x", valid ? character : (guint8) *text);
                text = valid ? g_utf8_next_char(text) : text + 1;
        }
        return g_string_free(clean, FALSE);
}

/* NULL: none is wanted. */
static const char *pager_command(void)
{
        static const char *const variables[] = { "SYSTEMD_PAGER", "PAGER" };

        for (gsize i = 0; i < G_N_ELEMENTS(variables); i++) {
                const char *command = g_getenv(variables[i]);

                if (command)
                        return *command && strcmp(command, "cat") != 0 ? command : NULL;
        }
        return "less";
}

guint output_width(int fd)
{
        struct winsize size;

        return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

void output_begin_paged(const Client *client)
{
        const char *command = pager_command();
        int ends[2];

        if (!client->use_pager || client->json == JSON_SHORT || !command || pager ||
            !isatty(STDOUT_FILENO) || g_strcmp0(g_getenv("TERM"), "dumb") == 0 || pipe(ends) < 0)
                return;
        (void) has_colours(STDOUT_FILENO); /* as the terminal is, not the pipe */
        fflush(stdout);
        pager = fork();
        if (pager == 0) {
                /* ends at once where all fits, keeps colours, leaves the screen as it was */
                g_setenv("LESS", "FRSXMK", FALSE);
                dup2(ends[0], STDIN_FILENO);
                close(ends[0]);
                close(ends[1]);
                execl("/bin/sh", "sh", "-c", command, NULL);
                _exit(EXIT_FAILURE);
        }
        if (pager > 0)
                dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
}

void output_end(void)
{
        fflush(stdout);
        if (pager <= 0)
                return;
        fclose(stdout);
        while (waitpid(pager, NULL, 0) < 0 && errno == EINTR)
                ;
        pager = 0;
}

gboolean output_json(const Client *client, GVariant *value)
{
        g_autoptr(JsonGenerator) generator = NULL;
        g_autofree char *text = NULL;
        JsonNode *node;

        if (client->json == JSON_OFF)
                return FALSE;
        node = json_gvariant_serialize(value);
        generator = json_generator_new();
        json_generator_set_pretty(generator, client->json == JSON_PRETTY);
        json_generator_set_root(generator, node);
        json_node_unref(node);
        text = json_generator_to_data(generator, NULL);
        puts(text);
        return TRUE;
}

typedef struct {
        GStrv cells;
        Style style;
} Row;

struct Table {
        GStrv titles;
        GPtrArray *rows; /* Row */
};

static void row_free(Row *row)
{
        g_strfreev(row->cells);
        g_free(row);
}

Table *table_new(const char *const *titles)
{
        Table *table = g_new0(Table, 1);

        table->titles = g_strdupv((GStrv) titles);
        table->rows = g_ptr_array_new_with_free_func((GDestroyNotify) row_free);
        return table;
}

void table_free(Table *table)
{
        g_strfreev(table->titles);
        g_ptr_array_unref(table->rows);
        g_free(table);
}

void table_add(Table *table, const char *const *cells)
{
        Row *row = g_new0(Row, 1);

        row->cells = g_new0(char *, g_strv_length((GStrv) cells) + 1);
        for (gsize i = 0; cells[i]; i++)
                row->cells[i] = printable(cells[i]);
        g_ptr_array_add(table->rows, row);
}

void table_style_row(Table *table, Style kind)
{
        ((Row *) table->rows->pdata[table->rows->len - 1])->style = kind;
}

guint table_rows(const Table *table)
{
        return table->rows->len;
}

static gboolean is_right(const char *title)
{
        return *title == '>';
}

static guint width_of(const Table *table, guint column)
{
        glong width = g_utf8_strlen(table->titles[column], -1) - is_right(table->titles[column]);

        for (guint i = 0; i < table->rows->len; i++)
                width = MAX(width, g_utf8_strlen(((Row *) table->rows->pdata[i])->cells[column], -1));
        return (guint) width;
}

static void print_cells(const Table *table, const guint *widths, GStrv cells, gboolean is_title, Style kind)
{
        guint columns = g_strv_length(table->titles);
        g_autoptr(GString) line = g_string_new(NULL);

        for (guint i = 0; i < columns; i++) {
                gboolean right = is_right(table->titles[i]);
                const char *cell = is_title && right ? cells[i] + 1 : cells[i];
                int padding = (int) (widths[i] - (guint) g_utf8_strlen(cell, -1));

                g_string_append_printf(line, "%s%*s%s%*s", i > 0 ? "  " : "", right ? padding : 0, "", cell,
                                       right ? 0 : padding, "");
        }
        while (line->len > 0 && line->str[line->len - 1] == ' ')
                g_string_truncate(line, line->len - 1);
        if (kind == STYLE_PLAIN)
                puts(line->str);
        else
                printf("%s%s%s\n", style(kind), line->str, style(STYLE_PLAIN));
}

void table_print(const Table *table)
{
        guint columns = g_strv_length(table->titles);
        g_autofree guint *widths = g_new0(guint, columns);

        for (guint i = 0; i < columns; i++)
                widths[i] = width_of(table, i);
        print_cells(table, widths, table->titles, TRUE, STYLE_BOLD);
        for (guint i = 0; i < table->rows->len; i++) {
                const Row *row = table->rows->pdata[i];

                print_cells(table, widths, row->cells, FALSE, row->style);
        }
}
