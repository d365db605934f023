/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/engine-private.h"

#include <string.h>

#include "base/error.h"
#include "base/test-point.h"
#include "domain/images.h"
#include "domain/tap.h"
#include "job/copy.h"

/* A domain of the service's own is started: its files are looked at, its QEMU comes up with the guest held,
 * is put on record, begins the copies again that were cut off, and only then the guest runs. Dead before
 * that, the next start of the service ends that QEMU: its guest has not run. */

typedef struct {
        Engine *engine;
        Domain *domain;
        Account *account;
        guint next_copy;
        GPtrArray *chains; /* of OpenImage, as images_inspect() found them */
        gboolean force;
        GError *error;
        DomainDone done;
        gpointer data;
} Start;

static void finish(Start *start, const GError *error)
{
        start->domain->starting = FALSE;
        start->engine->starts--;
        start->done(start->domain, error, start->data);
        g_clear_error(&start->error);
        account_unref(start->account);
        g_clear_pointer(&start->chains, g_ptr_array_unref);
        domain_unref(start->domain);
        g_free(start);
}

/* ---- what would go wrong ---- */

static gboolean names(const Disk *disk, guint from, const char *source)
{
        for (guint i = from; i < disk->chain->layers->len; i++)
                if (strcmp(chain_layer(disk->chain, i)->source, source) == 0)
                        return TRUE;
        return FALSE;
}

static gboolean is_shared(const Domain *domain, const Disk *disk)
{
        const DefinitionDisk *definition =
                domain->definition ? definition_disk(domain->definition, disk->target) : NULL;

        return definition && (definition->shareable || definition->read_only || definition->cdrom);
}

/* What one of them writes, nobody else may have open. By name: two names of one file are found by QEMU's
 * locks. */
static const char *find_collision(const Domain *domain, const Disk *mine, const Domain *other,
                                  const Disk *theirs)
{
        const char *source = disk_source(mine), *their_source = disk_source(theirs);

        if (*source && !is_shared(domain, mine) && names(theirs, 0, source))
                return source;
        return *their_source && !is_shared(other, theirs) && names(mine, 0, their_source) ? their_source
                                                                                          : NULL;
}

gboolean engine_check_images_free(Engine *engine, const Domain *domain, const Disk *mine, GError **error)
{
        for (guint i = 0; i < engine->domains->len; i++) {
                const Domain *other = engine->domains->pdata[i];

                for (guint j = 0; other != domain && j < other->disks->len; j++) {
                        const Disk *theirs = other->disks->pdata[j];
                        const char *image = !other->gone || theirs->job
                                                    ? find_collision(domain, mine, other, theirs)
                                                    : NULL;

                        if (!image)
                                continue;
                        g_set_error(error, BJ_ERROR, BJ_ERROR_IMAGE_IN_USE,
                                    "disk '%s' of domain '%s' has image '%s', which disk '%s' of domain "
                                    "'%s' uses",
                                    mine->target, domain->name, image, theirs->target, other->name);
                        return FALSE;
                }
        }
        return TRUE;
}

gboolean engine_check_starts_allowed(const Engine *engine, GError **error)
{
        if (!engine->stopping)
                return TRUE;
        g_set_error(error, BJ_ERROR, BJ_ERROR_DISCONNECTED, "the service is stopping");
        return FALSE;
}

static gboolean check(Engine *engine, const Domain *domain, GError **error)
{
        if (!engine_check_starts_allowed(engine, error) || !engine_check_own(domain, "starts it", error))
                return FALSE;
        if (!domain->gone || domain->starting) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_INVALID_STATE, "domain '%s' is %s already",
                            domain->name,
                            domain->starting ? "being started" : domain_state_name(domain->state));
                return FALSE;
        }
        if (!engine_check_idle(domain, error))
                return FALSE;
        for (guint i = 0; i < domain->disks->len; i++)
                if (!engine_check_images_free(engine, domain, domain->disks->pdata[i], error))
                        return FALSE;
        return TRUE;
}

char *engine_find_program(const char *given, const char *name, GError **error)
{
        g_autofree char *program = given ? g_strdup(given) : g_find_program_in_path(name);

        if (!program)
                g_set_error(error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED, "'%s' is not installed", name);
        else if (!g_file_test(program, G_FILE_TEST_IS_EXECUTABLE)) {
                g_set_error(error, BJ_ERROR, BJ_ERROR_FAILED, "emulator '%s' %s", program,
                            g_file_test(program, G_FILE_TEST_EXISTS) ? "is no program that can be started"
                                                                     : "does not exist");
                g_clear_pointer(&program, g_free);
        }
        return g_steal_pointer(&program);
}

/* ---- the last steps: the guest runs ---- */

static void on_given_up(Domain *domain, const GError *error, gpointer data)
{
        Start *start = data;

        (void) domain;
        (void) error;
        finish(start, start->error);
}

static void give_up(Start *start, const GError *error)
{
        start->error = g_error_copy(error);
        domain_close(start->domain, "the start failed", on_given_up, start);
}

/* Where it cannot be written the guest runs all the same, and it is tried again. */
static void on_running_saved(Domain *domain, const GError *error, gpointer data)
{
        (void) domain;
        (void) error;
        finish(data, NULL);
}

static void on_guest_runs(Domain *domain, const GError *error, gpointer data)
{
        Start *start = data;

        if (error) {
                give_up(start, error);
                return;
        }
        domain->starting = FALSE;
        domain_save_then(domain, on_running_saved, start);
}

static void on_process_saved(Domain *domain, const GError *error, gpointer data)
{
        Start *start = data;

        if (error) {
                give_up(start, error);
                return;
        }
        test_point("start-continue");
        domain_resume(domain, on_guest_runs, start);
}

/* ---- copies that were cut off ---- */

static void go_on(Start *start);

static void on_copy_started(Job *job, const GError *error, gpointer data)
{
        Start *start = data;
        GPtrArray *disks = start->domain->disks;
        Disk *disk = start->next_copy < disks->len ? disks->pdata[start->next_copy] : NULL;

        (void) job;
        if (error && disk && disk->copy) {
                g_autofree char *text =
                        g_strdup_printf("the copy of disk '%s' to '%s' was not begun again: %s",
                                        disk->target, disk->copy->target, error->message);

                start->engine->observer->warning(start->domain, NULL, text, start->engine->data);
                disk_set_copy(disk, NULL, NULL, 0);
        }
        start->next_copy++;
        go_on(start);
}

/* Its target is there by now, with what its header was to name. */
static Options *options_of_copy(const struct DiskCopy *copy)
{
        Options *options = options_new();

        for (guint i = 0; i < copy->options->len; i++) {
                const Option *option = copy->options->pdata[i];

                if (strcmp(option->key, "reuse") != 0 && strcmp(option->key, "relative") != 0)
                        options_add(options, option->key, option->type, option->text, option->number);
        }
        options_add(options, "reuse", 'b', NULL, TRUE);
        return options;
}

static void go_on(Start *start)
{
        Domain *domain = start->domain;

        for (; start->next_copy < domain->disks->len; start->next_copy++) {
                Disk *disk = domain->disks->pdata[start->next_copy];
                const struct DiskCopy *copy = disk->copy;

                if (!copy)
                        continue;
                engine_start_job(disk, &copy_driver, options_of_copy(copy), copy->target, -1, copy->uid,
                                 on_copy_started, start);
                return;
        }
        test_point("start-record");
        domain_save_then(domain, on_process_saved, start);
}

/* ---- the first steps ---- */

static void on_launched(Domain *domain, const GError *error, gpointer data)
{
        Start *start = data;

        (void) domain;
        if (error)
                finish(start, error);
        else
                go_on(start);
}

/* The QEMU of a domain whose images are in order. */
static void launch(Start *start)
{
        Domain *domain = start->domain;
        g_autofree char *name = g_strdup_printf("qemu-system-%s", domain->definition->architecture);
        g_autoptr(GError) failure = NULL;
        g_autofree char *program = engine_find_program(domain->definition->emulator, name, &failure);
        GStrv command = NULL;

        if (!failure) {
                g_auto(GStrv) taps = taps_names(domain->definition);
                LaunchFacts facts = { .emulator = program,
                                      .monitor_fd = 0,
                                      .chains = (GPtrArray *const *) start->chains->pdata,
                                      .taps = (const char *const *) taps };
                command = definition_command_line(domain->definition, &facts, &failure);
        }
        /* The service may have been asked for much meanwhile. */
        for (guint i = 0; !failure && i < domain->disks->len; i++)
                engine_check_images_free(start->engine, domain, domain->disks->pdata[i], &failure);
        if (!failure)
                taps_make(domain->definition, start->account, &failure);
        if (failure) {
                g_strfreev(command);
                finish(start, failure);
                return;
        }
        domain_launch(domain, start->engine->surroundings, start->account, command, on_launched, start);
}

static gboolean check_stale(const Start *start, const GPtrArray *stale, GError **error)
{
        for (guint i = 0; i < start->chains->len; i++) {
                const GPtrArray *chain = start->chains->pdata[i];

                for (guint j = 0; chain && j < chain->len; j++) {
                        const OpenImage *image = chain->pdata[j];
                        const char *base = stale_base(stale, image->device, image->inode);

                        if (!base)
                                continue;
                        g_set_error(
                                error, BJ_ERROR, BJ_ERROR_IMAGE_IN_USE,
                                "image '%s' of domain '%s' is invalid: a commit has changed '%s' under it; "
                                "option 'force' starts it all the same",
                                image->source, start->domain->name, base);
                        return FALSE;
                }
        }
        return TRUE;
}

static void on_stale_seen(const GPtrArray *stale, gpointer data)
{
        Start *start = data;
        g_autoptr(GError) error = NULL;

        if (start->domain->removed)
                g_set_error(&error, BJ_ERROR, BJ_ERROR_NO_SUCH_DOMAIN, "domain '%s' is gone",
                            start->domain->name);
        else if (engine_check_starts_allowed(start->engine, &error) && !start->force)
                check_stale(start, stale, &error);
        if (error)
                finish(start, error);
        else
                launch(start);
}

static void on_inspected(Domain *domain, GPtrArray *chains, const GError *error, gpointer data)
{
        Start *start = data;

        (void) domain;
        if (error) {
                finish(start, error);
                return;
        }
        start->chains = g_ptr_array_ref(chains);
        engine_see_stale(start->engine, FALSE, on_stale_seen, start);
}

void engine_start_domain(Engine *engine, Domain *domain, gboolean force, DomainDone done, gpointer data)
{
        g_autoptr(GError) error = NULL;
        g_autoptr(Account) account = NULL;
        Start *start;

        if (check(engine, domain, &error))
                account = account_find(engine->surroundings->user, &error);
        if (error) {
                done(domain, error, data);
                return;
        }
        start = g_new0(Start, 1);
        *start = (Start){ .engine = engine,
                          .domain = domain_ref(domain),
                          .account = g_steal_pointer(&account),
                          .force = force,
                          .done = done,
                          .data = data };
        domain->starting = TRUE;
        engine->starts++;
        test_point("start-inspect");
        images_inspect(domain, start->account, on_inspected, start);
}

static void ignore(Domain *domain, const GError *error, gpointer data)
{
        (void) domain;
        (void) error;
        (void) data;
}

void engine_refuse_starts(Engine *engine)
{
        g_autoptr(GError) error = g_error_new(BJ_ERROR, BJ_ERROR_DISCONNECTED, "the service is stopping");

        engine->stopping = TRUE;
        for (guint i = 0; i < engine->domains->len; i++)
                domain_end_maps(engine->domains->pdata[i], error);
}

gboolean engine_end_starts(Engine *engine)
{
        const GPtrArray *const lists[] = { engine->domains, engine->attaching, engine->storages };

        for (guint i = 0; i < G_N_ELEMENTS(lists); i++)
                for (guint j = lists[i]->len; j-- > 0;) {
                        Domain *domain = lists[i]->pdata[j];

                        if (domain->starting)
                                domain_close(domain, "the service is stopping", ignore, NULL);
                }
        return engine->starts > 0;
}
