/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Runs a function over files as they are, then over those changed at random, N times or for S seconds:
 *
 * PROGRAM [--runs N] [--seconds S] [--seed N] FILE… */

typedef struct {
        char *text; /* with a NUL behind it */
        gsize length;
} FuzzInput;

typedef struct {
        const char *left_behind; /* the file in which an input that fails is left */
        gboolean is_text;        /* an input ends at its first NUL */
        /* What it is likely that an input contains, ended by NULL. */
        const char *const *words;
        /* Whether the input was taken, not refused. */
        gboolean (*check)(const char *text, gsize length, GRand *random);
        /* Of inputs as they are, before. NULL = nothing more. */
        void (*check_whole)(const char *text, gsize length);
        /* A change by which it is likely that it is still taken; `other` is another input. */
        void (*change_well)(GRand *random, GString *text, const FuzzInput *other);
} FuzzTarget;

int fuzz_main(int argc, char **argv, const FuzzTarget *target);

/* Ends it all, and leaves the input behind. */
void fuzz_fail(const char *what, const char *text) G_GNUC_NORETURN;

/* Any number below `end`, or 0. */
gsize fuzz_below(GRand *random, gsize end);
