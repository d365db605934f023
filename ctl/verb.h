/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "client.h"

/* A command of blockjobctl. Its options are read into variables of its own file before it runs; --help
 * prints what the table says. */
typedef struct {
        const char *name;
        const char *arguments; /* as help shows them: "DOMAIN/DISK TARGET" */
        const char *summary;
        guint minimum;
        guint maximum;
        const GOptionEntry *options; /* NULL: none of its own */
        Status (*run)(Client *client, char **arguments, GError **error);
} Verb;

/* The tables, one for each file of commands, in the order of --help; each ends with a row without a name. */
extern const Verb verbs_look[];
extern const Verb verbs_domain[];
extern const Verb verbs_start[];
extern const Verb verbs_control[];
extern const Verb verbs_monitor[];

/* All of them, and a NULL; the options that any command takes. */
extern const Verb *const verb_tables[];
extern const GOptionEntry global_options[];

/* NULL: there is none. */
const Verb *verb_find(const char *name);
