/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "domain/domain.h"
#include "domain/process.h"

/* Where images lie, and how domains of the service's own are run: its directories, whose rights QEMU has,
 * who starts it. */
typedef struct {
        GStrv image_directories; /* where overlays are looked for */
        char *runtime_directory; /* sockets, gone with the machine */
        char *log_directory;
        char *user;                                 /* whose rights QEMU has */
        guint start_seconds;                        /* in which it opens its monitor */
        guint keep_finished_seconds, keep_finished; /* jobs, of each domain at most so many */
        Launcher launcher;
        gpointer launcher_data;
} Surroundings;

void surroundings_free(Surroundings *surroundings);

/* A socket of that QEMU. */
char *launch_path(const Surroundings *surroundings, const Domain *domain, const char *file);

/* Starts `command` (taken) as the QEMU of `domain`, which has none, and connects to it, up to the first
 * look; what it has for standard input is its monitor. It is on record before it is there. Where that fails
 * nothing of it is left, and the error has its own words. */
void domain_launch(Domain *domain, const Surroundings *surroundings, const Account *account, GStrv command,
                   DomainDone done, gpointer data);
