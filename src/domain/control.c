/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/domain.h"

#include "base/error.h"

typedef struct {
        Domain *domain;
        DomainDone done;
        gpointer data;
} Control;

static void end(Domain *domain, const GError *error, gpointer data)
{
        Control *control = data;

        control->done(domain, error, control->data);
        domain_unref(control->domain);
        g_free(control);
}

static void on_reply(JsonNode *result, const GError *error, gpointer data)
{
        Control *control = data;

        (void) result;
        /* State is to be right before the caller has the reply. */
        if (error)
                end(control->domain, error, control);
        else
                domain_look_then(control->domain, end, control);
}

static void command(Domain *domain, const char *name, DomainDone done, gpointer data)
{
        g_autoptr(GError) error = NULL;

        if (domain->gone)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "domain '%s' is %s", domain->name,
                            domain_state_name(domain->state));
        else if (!domain->host.qmp)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_DISCONNECTED,
                            "there is no connection to the QEMU of domain '%s': %s", domain->name,
                            domain->reason);
        else if (!domain->host.capabilities->has[CAPABILITY_RUN_STATE])
                g_set_error(&error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED,
                            "domain '%s' has no run state: its QEMU lacks query-status", domain->name);
        if (error) {
                done(domain, error, data);
                return;
        }
        Control *control = g_new(Control, 1);
        *control = (Control){ domain_ref(domain), done, data };
        qmp_execute(domain->host.qmp, name, NULL, on_reply, control);
}

void domain_shutdown(Domain *domain, DomainDone done, gpointer data)
{
        command(domain, "system_powerdown", done, data);
}

void domain_suspend(Domain *domain, DomainDone done, gpointer data)
{
        command(domain, "stop", done, data);
}

void domain_resume(Domain *domain, DomainDone done, gpointer data)
{
        command(domain, "cont", done, data);
}
