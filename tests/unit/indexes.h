/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "image/index.h"
#include "images.h"

/* An index of directories in the test's own, and questions to it. All names are relative to that. */

/* Words with a NULL at the end; all of it is known when it returns. */
ImageIndex *open_index(const char *first, ...) G_GNUC_NULL_TERMINATED;
/* The same, and nobody has waited. */
ImageIndex *start_index(const char *first, ...) G_GNUC_NULL_TERMINATED;
/* Returns whether it is complete. */
gboolean refresh_within(ImageIndex *index, guint milliseconds);
void refresh(ImageIndex *index);

/* Who uses the file: "1 name, 2 other, 1 third (data)", and "?" in front where it is not complete. */
char *users_of(ImageIndex *index, const char *name, gboolean all);
void expect_users(ImageIndex *index, const char *name, const char *expected);
void expect_all_users(ImageIndex *index, const char *name, const char *expected);
/* By its name alone, which may be a URI. */
void expect_users_by_name(ImageIndex *index, const char *source, const char *expected);
/* The same as soon as it is so. */
void wait_for_users(ImageIndex *index, const char *name, const char *expected);

/* "name: why" in lines. */
void expect_unknown(ImageIndex *index, const char *expected);

/* As many qcow2 images as there are numbers from `first` to `last`, called `prefix` and the number in five
 * digits; each builds on the one of the number before, or with `base` on that of five letters. */
void make_images(const char *prefix, guint first, guint last, const char *base);
