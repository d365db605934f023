/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Commits the active layer of a disk into its base while the guest runs, and moves the disk there.
 *
 * usage: commit-sdbus /org/blockjobd1/domain/NAME/disk/TARGET
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>

#define SERVICE "org.blockjobd1"
#define DISK SERVICE ".Disk"
#define JOB SERVICE ".Job"
#define ERROR SERVICE ".Error."

typedef struct Program {
        sd_bus *bus;
        const char *disk;
        char *job;
        int news; /* something happened: look again */
} Program;

static int on_signal(sd_bus_message *message, void *data, sd_bus_error *error)
{
        Program *program = data;

        (void) message;
        (void) error;
        program->news = 1;
        return 0;
}

static void give_up(const char *what, const char *why)
{
        fprintf(stderr, "commit-sdbus: %s: %s\n", what, why);
        exit(1);
}

static void check(int r, const char *what)
{
        if (r < 0)
                give_up(what, strerror(-r));
}

/* The service went away, before the call or in the middle of it: what it did is seen when it is back. */
static int is_away(const sd_bus_error *error)
{
        return sd_bus_error_has_names(error, SD_BUS_ERROR_NO_REPLY, SD_BUS_ERROR_SERVICE_UNKNOWN,
                                      SD_BUS_ERROR_NAME_HAS_NO_OWNER);
}

/* QEMU went away, or somebody else ends the job: Completed follows. */
static int is_ending(const sd_bus_error *error)
{
        return sd_bus_error_has_names(error, ERROR "Disconnected", ERROR "InvalidState", ERROR "NotActive");
}

/* Whether it worked; if not, a signal follows. All other errors are the end. */
static int worked(Program *program, int r, sd_bus_error *error, const char *what)
{
        if (r < 0 && !is_away(error) && !(program->job && is_ending(error)))
                give_up(what, error->message ? error->message : strerror(-r));
        sd_bus_error_free(error);
        return r >= 0;
}

/* A property of the type "s" or "o", or NULL where the service is away. To be freed. */
static char *get(Program *program, const char *path, const char *interface, const char *name,
                 const char *type)
{
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *reply = NULL;
        const char *value;
        char *copy = NULL;
        int r = sd_bus_get_property(program->bus, SERVICE, path, interface, name, &error, &reply, type);

        if (worked(program, r, &error, name)) {
                check(sd_bus_message_read_basic(reply, type[0], &value), name);
                copy = strdup(value);
        }
        sd_bus_message_unref(reply);
        return copy;
}

/* The job that is there already, since this program or the service was interrupted say; else a new one. */
static void find_or_start(Program *program)
{
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *reply = NULL;
        const char *path;
        char *job = get(program, program->disk, DISK, "Job", "o");

        if (!job)
                return;
        if (strcmp(job, "/") == 0) {
                int r = sd_bus_call_method(program->bus, SERVICE, program->disk, DISK, "Commit", &error,
                                           &reply, "a{sv}", 1, "active", "b", 1);

                free(job);
                if (!worked(program, r, &error, "Commit"))
                        return;
                check(sd_bus_message_read(reply, "o", &path), "Commit");
                job = strdup(path);
                sd_bus_message_unref(reply);
        } else {
                char *type = get(program, job, JOB, "Type", "s");

                if (type && strcmp(type, "active-commit") != 0)
                        give_up(job, "another job is at work on this disk");
                free(type);
        }
        program->job = job;
        printf("job %s\n", job);
}

/* Looks where things stand, and does what is due. Returns the result when the job has one. */
static char *step(Program *program)
{
        sd_bus_error error = SD_BUS_ERROR_NULL;
        char *result, *state;

        if (!program->job)
                find_or_start(program);
        if (!program->job)
                return NULL;
        result = get(program, program->job, JOB, "Result", "s");
        if (result && *result)
                return result;
        free(result);
        state = get(program, program->job, JOB, "State", "s");
        if (state && strcmp(state, "ready") == 0) {
                int r = sd_bus_call_method(program->bus, SERVICE, program->job, JOB, "Pivot", &error, NULL,
                                           "a{sv}", 1, "async", "b", 1);

                if (worked(program, r, &error, "Pivot"))
                        puts("ready, pivot");
        }
        free(state);
        return NULL;
}

static void listen_to(Program *program, const char *rule)
{
        check(sd_bus_add_match(program->bus, NULL, rule, on_signal, program), rule);
}

int main(int argc, char *argv[])
{
        Program program = { .news = 1 };
        char *result = NULL, *source = NULL, *words;
        int moved;

        if (argc != 2)
                give_up("usage", "commit-sdbus DISK-PATH");
        setlinebuf(stdout);
        program.disk = argv[1];
        check(sd_bus_open_system(&program.bus), "system bus");
        sd_bus_set_method_call_timeout(program.bus, UINT64_MAX);

        /* Before the job is started, so that none of its signals can be missed. */
        listen_to(&program, "type='signal',sender='" SERVICE "',interface='" JOB "'");
        listen_to(&program,
                  "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='" SERVICE
                  "'");

        while (!result) {
                int r;

                if (program.news) {
                        program.news = 0;
                        result = step(&program);
                        continue;
                }
                r = sd_bus_process(program.bus, NULL);
                check(r, "bus");
                if (r == 0)
                        check(sd_bus_wait(program.bus, UINT64_MAX), "bus");
        }

        words = get(&program, program.job, JOB, "DiskTarget", "s");
        source = get(&program, program.disk, DISK, "Source", "s");
        printf("%s: %s is %s\n", result, words ? words : "the disk",
               source ? source : "not known: the service is away");
        moved = strcmp(result, "completed") == 0 || strcmp(result, "pivoted") == 0;
        free(words);
        free(source);
        free(result);
        free(program.job);
        sd_bus_flush_close_unref(program.bus);
        return moved ? 0 : 1;
}
