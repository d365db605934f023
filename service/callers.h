/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "service.h"

/* Who is calling: the uid as the bus daemon knows it, asked once for each connection, and the requests that
 * the caller has pending. */

#define REQUESTS_PER_CALLER_MAX 256

/* What becomes of those who wait to know who calls. */
typedef struct {
        void (*known)(gpointer request);
        void (*gone)(gpointer request);
} CallerHandlers;

typedef struct {
        Service *service;
        const CallerHandlers *handlers;
        char *name; /* unique name on the bus */
        gboolean uid_known;
        guint32 uid;
        sd_bus_slot *uid_query;
        guint requests;     /* of every kind */
        GPtrArray *pending; /* the requests that are not authorized yet */
} Caller;

/* The caller of a message; made where it is new. NULL if the bus is out of order. */
Caller *caller_of(Service *service, const char *sender, const CallerHandlers *handlers);
void caller_free(Caller *caller);
