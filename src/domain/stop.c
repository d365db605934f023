/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include "base/error.h"

/* A domain of the service's own is ended, and with it its jobs: who asked for that can start it again when
 * he has the answer. */

typedef struct {
        DomainDone done;
        gpointer data;
} Stop;

static void on_closed(Domain *domain, const GError *error, gpointer data)
{
        (void) error;
        g_ptr_array_add(domain->stopping, data);
        engine_jobs_ended(domain);
}

void engine_jobs_ended(Domain *domain)
{
        /* A transient one is to be no more when the caller hears of it. */
        while (domain->gone && domain->jobs->len == 0 && domain->stopping->len > 0 &&
               (domain->persistent || domain->removed)) {
                g_autofree Stop *stop = g_ptr_array_steal_index(domain->stopping, 0);
                stop->done(domain, NULL, stop->data);
        }
}

void engine_destroy(Domain *domain, DomainDone done, gpointer data)
{
        g_autoptr(GError) error = NULL;
        Stop *stop;

        if (engine_check_own(domain, "ends it", &error) && domain->gone)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "domain '%s' is %s", domain->name,
                            domain->starting ? "being started" : domain_state_name(domain->state));
        if (error) {
                done(domain, error, data);
                return;
        }
        stop = g_new(Stop, 1);
        *stop = (Stop){ done, data };
        domain_close(domain, "destroyed", on_closed, stop);
}
