/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "journal/journal.h"

/* A journal in a directory of the test's own, and what it told. */
typedef struct {
        char *directory;
        Journal *journal;
        GPtrArray *lines;      /* "done TAG[ ERROR: TEXT]", "record NAME TEXT", "damaged PATH: WHY" */
        const char *senseless; /* the record that makes no sense to its reader */
} Place;

typedef struct {
        Place *place;
        char *tag;
} Tagged;

/* for g_test_add() */
void place_set_up(Place *place, gconstpointer data);
void place_tear_down(Place *place, gconstpointer data);

Journal *open_journal(const char *directory);
void wait_idle(Place *place);

/* A write's `done` and its data: what came of it is told with `text`. */
void on_done(const GError *error, gpointer data);
Tagged *tag(Place *place, const char *text);

/* Writes {"text": text}, synced. */
void write_record(Place *place, JournalKind kind, const char *name, const char *text);
void write_late_record(Place *place, JournalKind kind, const char *name, const char *text);
/* What is found is told in the order of the alphabet. */
void read_records(Place *place, JournalKind kind);

/* Compares what was told since the last time, line by line. */
void expect_lines(Place *place, const char *wanted);
/* Where the order is nobody's business. */
void sort_lines(Place *place);

/* Names are relative to the state directory. */
char *path_of(Place *place, const char *name);
void put_file(Place *place, const char *name, const char *text, gsize length);
/* All entries of a directory, sorted: "a b". */
void expect_files(Place *place, const char *directory, const char *wanted);
