/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <string.h>

#include "output.h"
#include "show.h"
#include "values.h"
#include "verb.h"

/* The commands that bring domains, start and stop them, and let them go. */

static gboolean force, lenient, now;

static const GOptionEntry detach_options[] = {
        { "force", 'f', 0, G_OPTION_ARG_NONE, &force, "Also while jobs run, which go on in QEMU", NULL },
        { 0 },
};

static const GOptionEntry define_options[] = {
        { "lenient", 0, 0, G_OPTION_ARG_NONE, &lenient,
          "Leave out what is not understood of the XML; the journal lists it", NULL },
        { 0 },
};

static const GOptionEntry start_options[] = {
        { "force", 'f', 0, G_OPTION_ARG_NONE, &force,
          "Also from an image that is in use, or that a commit has made invalid", NULL },
        { 0 },
};

static const GOptionEntry stop_options[] = {
        { "now", 0, 0, G_OPTION_ARG_NONE, &now, "Pull the plug instead of asking the guest", NULL },
        { 0 },
};

/* `name` is given to the bus where the option is. */
static GVariant *flag(const char *name, gboolean given)
{
        g_auto(GVariantDict) options = G_VARIANT_DICT_INIT(NULL);

        if (given)
                g_variant_dict_insert(&options, name, "b", TRUE);
        return g_variant_dict_end(&options);
}

/* One line about the domain, as it is now. */
static Status tell(Client *client, const char *path, GError **error)
{
        g_autoptr(GVariant) domain = client_properties(client, path, BLOCKJOBD_DOMAIN, error);
        g_autofree char *state = NULL, *next = NULL;

        if (!domain)
                return STATUS_ERROR;
        if (client->quiet || output_json(client, domain))
                return STATUS_DONE;
        state = show_state(domain);
        next = client_command(client, "show %s", value_text(domain, "Name"));
        printf("domain %s: %s\n", value_text(domain, "Name"), state);
        printf("  Next: %s  draws its disks\n", next);
        return STATUS_DONE;
}

static Status tell_gone(Client *client, const char *name, const char *what)
{
        g_autoptr(GVariant) value = g_variant_ref_sink(g_variant_new_string(name));

        if (!client->quiet && !output_json(client, value))
                printf("domain %s: %s\n", name, what);
        return STATUS_DONE;
}

/* A call of the manager's that answers with the domain. */
static Status bring(Client *client, const char *member, GVariant *parameters, GError **error)
{
        g_autoptr(GVariant) reply =
                client_call(client, BLOCKJOBD_ROOT, BLOCKJOBD_MANAGER, member, parameters, NULL, error);
        g_autofree char *path = NULL;

        if (!reply)
                return STATUS_ERROR;
        g_variant_get(reply, "(o)", &path);
        return tell(client, path, error);
}

static Status run_attach(Client *client, char **arguments, GError **error)
{
        g_autofree char *path = client_file(client, arguments[1]);

        return bring(client, "AttachDomain", g_variant_new("(ss@a{sv})", arguments[0], path, no_options()),
                     error);
}

static char *read_xml(const char *name, GError **error)
{
        const char *file = strcmp(name, "-") == 0 ? "/dev/stdin" : name;
        g_autoptr(GError) failure = NULL;
        g_autofree char *xml = NULL;
        gsize length;

        if (!g_file_get_contents(file, &xml, &length, &failure))
                g_set_error(error, CLIENT_ERROR, STATUS_ERROR, "%s", failure->message);
        else if (!g_utf8_validate(xml, (gssize) length, NULL))
                g_set_error(error, CLIENT_ERROR, STATUS_ERROR, "'%s' is not UTF-8", name);
        else
                return g_steal_pointer(&xml);
        return NULL;
}

static Status define(Client *client, const char *member, const char *file, GError **error)
{
        g_autofree char *xml = read_xml(file, error);

        return xml ? bring(client, member, g_variant_new("(s@a{sv})", xml, flag("lenient", lenient)), error)
                   : STATUS_ERROR;
}

static Status run_define(Client *client, char **arguments, GError **error)
{
        return define(client, "DefineDomain", arguments[0], error);
}

static Status run_create(Client *client, char **arguments, GError **error)
{
        return define(client, "CreateDomain", arguments[0], error);
}

/* A method of the domain's; *path is free()d by the caller. */
static gboolean call(Client *client, const char *domain, const char *member, GVariant *parameters,
                     char **path, GError **error)
{
        g_autoptr(GVariant) taken = parameters ? g_variant_ref_sink(parameters) : NULL;
        g_autoptr(GVariant) reply = NULL;

        *path = client_domain_path(client, domain, error);
        if (*path)
                reply = client_call(client, *path, BLOCKJOBD_DOMAIN, member, taken, NULL, error);
        return reply != NULL;
}

static Status change(Client *client, const char *domain, const char *member, GVariant *parameters,
                     GError **error)
{
        g_autofree char *path = NULL;

        return call(client, domain, member, parameters, &path, error) ? tell(client, path, error)
                                                                      : STATUS_ERROR;
}

static Status let_go(Client *client, const char *domain, const char *member, GVariant *options,
                     const char *what, GError **error)
{
        g_autofree char *path = NULL, *name = NULL;

        if (!call(client, domain, member, g_variant_new("(@a{sv})", options), &path, error))
                return STATUS_ERROR;
        name = last_name_of(path);
        return tell_gone(client, name, what);
}

static Status run_detach(Client *client, char **arguments, GError **error)
{
        return let_go(client, arguments[0], "Detach", flag("force", force),
                      "let go; its QEMU runs on, and so do jobs", error);
}

static Status run_undefine(Client *client, char **arguments, GError **error)
{
        return let_go(client, arguments[0], "Undefine", no_options(),
                      "not defined any more; its images are where they were", error);
}

static Status run_start(Client *client, char **arguments, GError **error)
{
        return change(client, arguments[0], "Start", g_variant_new("(@a{sv})", flag("force", force)), error);
}

/* One that was created is gone when it has ended. */
static Status run_stop(Client *client, char **arguments, GError **error)
{
        g_autofree char *path = NULL, *still = NULL, *name = NULL;

        if (!call(client, arguments[0], now ? "Destroy" : "Shutdown",
                  g_variant_new("(@a{sv})", no_options()), &path, error))
                return STATUS_ERROR;
        name = last_name_of(path);
        still = client_domain_path(client, name, NULL);
        return still ? tell(client, path, error) : tell_gone(client, name, "ended, and gone");
}

static Status run_suspend(Client *client, char **arguments, GError **error)
{
        return change(client, arguments[0], "Suspend", NULL, error);
}

static Status run_continue(Client *client, char **arguments, GError **error)
{
        return change(client, arguments[0], "Resume", NULL, error);
}

const Verb verbs_domain[] = {
        { "attach", "NAME SOCKET", "Adopt a running QEMU through a QMP socket of its own", 2, 2, NULL,
          run_attach },
        { "detach", "DOMAIN", "Let go of a QEMU, which runs on", 1, 1, detach_options, run_detach },
        { "define", "FILE", "Keep a domain from libvirt's XML; - reads standard input", 1, 1, define_options,
          run_define },
        { "undefine", "DOMAIN", "Forget a domain; its images stay", 1, 1, NULL, run_undefine },
        { "create", "FILE", "Start a domain that is gone when it ends", 1, 1, define_options, run_create },
        { "start", "DOMAIN", "Start a defined domain", 1, 1, start_options, run_start },
        { "stop", "DOMAIN", "Ask the guest to end", 1, 1, stop_options, run_stop },
        { "suspend", "DOMAIN", "Hold a running guest", 1, 1, NULL, run_suspend },
        { "continue", "DOMAIN", "Let a guest go on", 1, 1, NULL, run_continue },
        { 0 },
};
