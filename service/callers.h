/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "service.h"

/* Who is calling: the uid as the bus daemon knows it, asked once for each connection, and the requests that
 * the caller has pending. */

#define REQUESTS_PER_CALLER_MAX 256

typedef struct {
        Service *service;
        char *name; /* unique name on the bus */
        gboolean uid_known;
        guint32 uid;
        sd_bus_slot *uid_query, *vanished;
        guint requests;     /* of every kind */
        GPtrArray *pending; /* Request: not authorized yet */
} Caller;

/* The caller of a message; made where it is new. NULL if the bus is out of order. */
Caller *caller_of(Service *service, const char *sender);
void caller_free(Caller *caller);
