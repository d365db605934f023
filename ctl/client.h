/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>
#include <systemd/sd-bus.h>

/* The bus as blockjobctl sees it: connection, calls, names of things. */

#define BLOCKJOBD "org.blockjobd1"
#define BLOCKJOBD_ROOT "/org/blockjobd1"
#define BLOCKJOBD_MANAGER BLOCKJOBD ".Manager"
#define BLOCKJOBD_DOMAIN BLOCKJOBD ".Domain"
#define BLOCKJOBD_DISK BLOCKJOBD ".Disk"
#define BLOCKJOBD_JOB BLOCKJOBD ".Job"

/* The exit status of the program, as blockjobctl(1) has it. */
typedef enum {
        STATUS_DONE = 0,  /* also: the job is completed */
        STATUS_ERROR = 1, /* the service refused the call, or it went wrong */
        STATUS_USAGE = 2, /* the command line is wrong; nothing was called */
        STATUS_KEPT = 3,  /* the job ended so, from here on */
        STATUS_CANCELLED = 4,
        STATUS_FAILED = 5,
        STATUS_LOST = 6,
        STATUS_PIVOTED = 7,      /* QEMU is gone, the target is the disk */
        STATUS_REFUSED = 8,      /* not authorized */
        STATUS_NO_SERVICE = 9,   /* no bus, or nobody on it has the name, or it went away */
        STATUS_INTERRUPTED = 10, /* Ctrl-C while waiting: the job runs on */
} Status;

typedef enum {
        TRANSPORT_LOCAL,
        TRANSPORT_HOST,
        TRANSPORT_MACHINE,
} Transport;

typedef struct {
        sd_bus *bus;
        Transport transport;
        const char *where; /* USER@HOST or the machine's name */
        const char *verb;  /* the command that runs, "commit" say */
        gboolean ask_password;
        gboolean quiet;
        gboolean use_pager;
        guint64 patience; /* µs for what is only read; 0: as usual */
        enum { JSON_OFF, JSON_SHORT, JSON_PRETTY } json;
} Client;

/* Errors of this domain have a Status as their code; the message is for the user as it stands. */
#define CLIENT_ERROR (client_error_quark())
GQuark client_error_quark(void);

/* Connects. FALSE: STATUS_NO_SERVICE. */
gboolean client_connect(Client *client, GError **error);
void client_close(Client *client);

/* Calls a method and waits as long as it takes. `parameters`: a tuple, taken where it is floating; NULL =
 * none. Returns the reply's body, a tuple; NULL with an error of CLIENT_ERROR. *name, where asked for: the
 * D-Bus name of the error, "" where there is none; free it. */
GVariant *client_call(Client *client, const char *path, const char *interface, const char *member,
                      GVariant *parameters, char **name, GError **error);

/* The message of such a call, as a negative errno where it fails; what asks for passwords is started before.
 */
int client_new_call(Client *client, const char *path, const char *interface, const char *member,
                    GVariant *tuple, sd_bus_message **call);

/* What a call that failed says, as an error of CLIENT_ERROR with a hint; `r` is what sd-bus returned, with
 * `bus_error` (NULL = none). */
void client_take_error(const Client *client, const sd_bus_error *bus_error, int r, char **name,
                       GError **error);

/* A command for the user to type next, which reaches the same bus: "blockjobctl --host web show vm/vda"; and
 * what each begins with, up to the space before "show". */
char *client_command(const Client *client, const char *format, ...) G_GNUC_PRINTF(2, 3);
char *client_command_start(const Client *client);

/* All properties of an interface of an object: a{sv}. */
GVariant *client_properties(Client *client, const char *path, const char *interface, GError **error);

/* GetManagedObjects: a{oa{sa{sv}}}. */
GVariant *client_objects(Client *client, GError **error);

/* Those in what client_objects() gave that have the interface, with its properties. */
typedef void (*ObjectFound)(const char *path, GVariant *properties, gpointer data);
void objects_each(GVariant *objects, const char *interface, ObjectFound found, gpointer data);

/* What a user types, as object paths. The domain is looked for by the service (name or UUID), which says
 * what there is none of. A disk: DOMAIN/DISK, or DOMAIN alone where that has one disk only. A job: its id,
 * or what names a disk for the job that runs on it. */
char *client_domain_path(Client *client, const char *domain, GError **error);
char *client_disk_path(Client *client, const char *disk, GError **error);
char *client_job_path(Client *client, const char *job, GError **error);

/* The other way, for output: "web/vda" of a disk's path, "web" of a domain's, the id of a job's. */
char *disk_name_of(const char *path);
char *last_name_of(const char *path);

/* A file as seen from here, where the service sees the same files: absolute, or as it stands where it is
 * another host's. */
char *client_file(const Client *client, const char *file);
