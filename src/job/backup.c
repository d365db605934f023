/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/backup.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "job/nodes.h"
#include "job/plan.h"
#include "job/single-phase.h"
#include "job/target.h"

/* ---- plan: the active layer, or all of the chain, into a node of ours ---- */

static void on_found(Job *job, const Chain *chain, int top, int base)
{
        (void) top;
        (void) base;
        if (plan_take(job, chain, 0, 0))
                target_plan(job, chain, chain_layer(chain, 0),
                            g_strcmp0(options_text(job->options, "sync"), "top") == 0 ? chain_layer(chain, 1)
                                                                                      : NULL);
}

static void plan_run(Job *job)
{
        plan_find(job, on_found);
}

/* ---- start: QEMU's command ---- */

/* It can, and it can be seen afterwards whether it did. */
static gboolean can_break(const Job *job)
{
        const gboolean *has = job->host->capabilities->has;

        return has[CAPABILITY_BREAK_SNAPSHOT] && has[CAPABILITY_SNAPSHOT_ACCESS] && has[CAPABILITY_BOCHS];
}

/* Of the format node, so that reading is not counted by a throttle above it. */
static void start_run(Job *job)
{
        JsonObject *arguments = start_arguments(job);
        const char *sync = options_text(job->options, "sync");

        json_object_set_string_member(arguments, "device", job->source_node);
        json_object_set_string_member(arguments, "target", job->target_node);
        json_object_set_string_member(arguments, "sync", sync ? sync : "full");
        if (options_flag(job->options, "compress"))
                json_object_set_boolean_member(arguments, "compress", TRUE);
        start_text(job, arguments, "on-source-error");
        start_text(job, arguments, "on-target-error");
        /* What the guest overwrites is copied first. Where that fails, it is the backup that is to fail. */
        if (can_break(job))
                json_object_set_string_member(arguments, "on-cbw-error", "break-snapshot");
        start_command(job, "blockdev-backup", arguments);
}

/* ---- check-snapshot: a backup that QEMU gave up for the sake of the guest ends like any other ---- */

static StepState check_snapshot_state(const Job *job)
{
        StepState state = at_pending_state(job, job->checked);

        return state == STEP_DUE && !can_break(job) ? STEP_DONE : state;
}

static void on_snapshot_closed(JsonNode *result, const GError *error, gpointer data)
{
        (void) result;
        (void) error;
        job_step_end(data);
}

static void on_snapshot_read(JsonNode *result, const GError *error, gpointer data)
{
        Job *job = data;
        g_autofree char *name = g_strdup_printf("bj-%s-p", job->id);

        (void) result;
        if (g_error_matches(error, BJ_ERROR, BJ_ERROR_DISCONNECTED)) {
                job_step_end(job);
                return;
        }
        job->checked = TRUE;
        if (error && !strstr(error->message, "Bochs") && !job->refusal)
                job->refusal = g_error_new(BJ_ERROR, BJ_ERROR_QEMU,
                                           "what the guest overwrote could not be saved to '%s': %s",
                                           job->target, error->message);
        if (error)
                job_step_end(job);
        else
                job_execute(job, "blockdev-del", json_make("s:node-name", name, NULL), on_snapshot_closed);
}

/* A broken snapshot lets nothing be read. QEMU is made to read its first bytes by asking it to open them as
 * an image of the simplest kind, which they are not. */
static void check_snapshot_run(Job *job)
{
        g_autofree char *name = g_strdup_printf("bj-%s-p", job->id);

        job_execute(job, "blockdev-add",
                    json_make("s:driver", "bochs", "s:node-name", name, "b:read-only", TRUE, "o:file",
                              json_make("s:driver", "snapshot-access", "s:file", job->filter, NULL), NULL),
                    on_snapshot_read);
}

static const JobStep steps[] = {
        { "plan", plan_state, plan_run },
        { "record-intent", record_intent_state, record_intent_run },
        { "begin", begin_state, begin_run },
        { "pass-descriptor", pass_descriptor_state, pass_descriptor_run },
        { "create-file", create_file_state, create_file_run },
        { "open-file", open_file_state, open_file_run },
        { "create-format", create_format_state, create_format_run },
        { "open-format", open_format_state, open_format_run },
        { "check-target", check_target_state, check_target_run },
        { "sync-target", sync_target_state, sync_target_run },
        { "start", start_state, start_run },
        { "record-accepted", record_accepted_state, record_accepted_run },
        { "announce", announce_state, announce_run },
        { "record-decision", record_decision_state, record_decision_run },
        { "ask", ask_cancel_state, ask_cancel_run },
        { "reach-pending", reach_pending_state, NULL },
        { "check-snapshot", check_snapshot_state, check_snapshot_run },
        { "check-users", check_users_state, check_users_run },
        { "flush", flush_state, flush_run },
        { "finalize", finalize_state, finalize_single_run },
        { "conclude", conclude_state, NULL },
        { "look", look_state, look_single_run },
        { "flush-outcome", flush_outcome_state, flush_outcome_run },
        { "compare-images", compare_images_state, compare_images_run },
        { "record-outcome", record_outcome_state, record_outcome_run },
        { "tidy", nodes_tidy_state, nodes_tidy_run },
        { "record-domain", record_domain_state, record_domain_run },
        { "close", close_state, close_run },
        { "tell", tell_state, tell_run },
        { NULL, NULL, NULL },
};

const JobDriver backup_driver = {
        .name = "backup",
        .type = "backup",
        .kind = "backup",
        .steps = steps,
        .undo = target_undo,
        .check = target_check,
        .leave = target_leave,
};
