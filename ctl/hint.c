/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hint.h"

#include <string.h>

#include "output.h"

#define OURS BLOCKJOBD ".Error."
#define DBUS "org.freedesktop.DBus.Error."

/* The first row that fits is taken. {ctl} is what reaches the same bus: "blockjobctl --host web". */
static const struct {
        const char *error;
        const char *verb; /* NULL: any */
        const char *hint;
} hints[] = {
        { OURS "NoSuchDomain", NULL, "{ctl}list shows the domains there are" },
        { OURS "NoSuchDisk", NULL, "{ctl}list and {ctl}show DOMAIN show the disks there are" },
        { OURS "NoSuchJob", NULL,
          "{ctl}jobs shows the jobs that are known; finished ones go after an hour" },
        { OURS "NoSuchImage", "copy", "without --reuse the target is made" },
        { OURS "NoSuchImage", "backup", "without --reuse the target is made" },
        { OURS "NoSuchImage", "snapshot", "without --reuse the overlay is made" },
        { OURS "NoSuchImage", NULL,
          "a layer is named by its file, as '[2]' (0 is the active one), or as node:NAME" },
        { OURS "Ambiguous", NULL, "name the layer by its depth instead: '[2]' (0 is the active one)" },
        { OURS "Exists", "copy", "choose another name, or take --reuse to write into what is there" },
        { OURS "Exists", "backup", "choose another name, or take --reuse to write into what is there" },
        { OURS "Exists", "snapshot", "choose another name, or take --reuse for an overlay that is there" },
        { OURS "JobActive", NULL, "wait for it, or end it: {ctl}jobs, {ctl}wait JOB, {ctl}abort JOB" },
        { OURS "NotReady", NULL, "{ctl}wait --ready JOB waits until it is" },
        { OURS "NotActive", NULL, "the job is over; {ctl}wait JOB tells how it ended" },
        { OURS "ImageInUse", NULL,
          "end the other use first; {ctl}inspect IMAGE tells who it is. With --force the image is written "
          "to "
          "all the same, and the other user's disk is damaged" },
        { OURS "NoSpace", NULL, "make room, or choose another file system; nothing of the disk is lost" },
        { OURS "Disconnected", NULL,
          "QEMU does not talk to the service at the moment; {ctl}list shows the domain's state" },
        { OURS "Timeout", NULL, "QEMU or its storage hangs; jobs go on when it answers again" },
        { OURS "LimitExceeded", NULL, "wait until something of what is there has ended" },
        { DBUS "AccessDenied", NULL,
          "you may not do this: be root, or have a polkit rule; blockjobd(8), AUTHORIZATION" },
        { DBUS "InteractiveAuthorizationRequired", NULL,
          "a password is needed: leave --no-ask-password out, or be root" },
        { DBUS "ServiceUnknown", NULL, "the service does not run: systemctl status blockjobd" },
        { DBUS "NameHasNoOwner", NULL, "the service does not run: systemctl status blockjobd" },
        { DBUS "NoReply", NULL,
          "the service went away; what was asked for may have begun. {ctl}jobs tells, when it is back" },
};

/* {ctl} is replaced by the beginning of a command. */
static char *expand(const Client *client, const char *text)
{
        g_autofree char *command = client_command_start(client);
        g_auto(GStrv) parts = g_strsplit(text, "{ctl}", -1);

        return g_strjoinv(command, parts);
}

char *hint_for(const Client *client, const char *error_name)
{
        for (gsize i = 0; i < G_N_ELEMENTS(hints); i++)
                if (strcmp(hints[i].error, error_name) == 0 &&
                    (!hints[i].verb || g_strcmp0(hints[i].verb, client->verb) == 0))
                        return expand(client, hints[i].hint);
        return NULL;
}

char *hint_explain(const Client *client, const char *error_name, const char *message)
{
        const char *dot = strrchr(error_name, '.');
        g_autofree char *hint = hint_for(client, error_name);
        g_autofree char *clean = printable(message);

        return g_strconcat(dot ? dot + 1 : "", dot ? ": " : "", clean, hint ? "\n  " : "", hint ? hint : "",
                           NULL);
}
