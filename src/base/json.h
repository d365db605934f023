/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

/* Builds an object from pairs of key and value, ended by NULL. The key carries the value's type:
 * "s:name" const char * (NULL leaves the member out), "i:name" gint64, "b:name" gboolean,
 * "o:name" JsonObject * (taken), "a:name" JsonArray * (taken), "n:name" null, without a value. */
JsonObject *json_make(const char *first_key, ...) G_GNUC_NULL_TERMINATED;

/* Text of an object, on one line. */
char *json_text(JsonObject *object);

/* Members that may be missing or of another type than they should be, since they come from outside:
 * then the answer is NULL, 0 or FALSE. */
const char *json_string(JsonObject *object, const char *member);
gint64 json_integer(JsonObject *object, const char *member);
gboolean json_boolean(JsonObject *object, const char *member);
JsonObject *json_object(JsonObject *object, const char *member);
JsonArray *json_array(JsonObject *object, const char *member);

/* Element `i` if it is an object, else NULL. */
JsonObject *json_element(JsonArray *array, guint i);

/* Whether a text is safe to parse: no more than `depth` arrays and objects open at once, into each of which
 * the parser recurses, and nothing outside strings that is no JSON (the parser knows comments). */
gboolean json_is_shallow(const char *text, gsize length, guint depth);
