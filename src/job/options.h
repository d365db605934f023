/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

#define OPTIONS_MAX 64

/* The options that a caller gave with a method, checked against that method's table. */
typedef struct {
        char *key;
        char type; /* 's' text, 'b' number 0 or 1, 't' 64 bits, 'u' 32 bits: D-Bus's letters */
        char *text;
        guint64 number;
} Option;

typedef GPtrArray Options; /* Option */

Options *options_new(void);

/* `text` is copied. */
void options_add(Options *options, const char *key, char type, const char *text, guint64 number);

/* NULL, FALSE or 0 where the option was not given. */
const char *options_text(const Options *options, const char *key);
/* It is there; it is there and asks for something. */
gboolean options_has(const Options *options, const char *key);
gboolean options_given(const Options *options, const char *key);
gboolean options_flag(const Options *options, const char *key);
guint64 options_number(const Options *options, const char *key);

JsonObject *options_to_json(const Options *options);
Options *options_from_json(JsonObject *object);
