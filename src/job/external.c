/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/external.h"

#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "job/nodes.h"
#include "job/two-phase.h"

/* ---- what it is ---- */

/* QEMU's types; a commit is one or the other. */
static const struct {
        const char *type;
        guint driver;
        const char *source, *target; /* the job's edges in QEMU's graph, NULL = it has none that tells */
} types[] = {
        { "mirror", EXTERNAL_COPY, "main node", "target" },
        { "commit", EXTERNAL_ACTIVE_COMMIT, "main node", "target" },
        { "commit", EXTERNAL_COMMIT, "main node", "base" },
        { "stream", EXTERNAL_PULL, NULL, "main node" },
        { "backup", EXTERNAL_BACKUP, "main node", "target" },
};

static gboolean is_type(const Graph *graph, const char *id, const char *type, guint i)
{
        if (g_strcmp0(type, types[i].type) != 0)
                return FALSE;
        /* An active commit is a mirror inside QEMU, with a mirror's target. */
        return types[i].driver != EXTERNAL_ACTIVE_COMMIT || graph_job_node(graph, id, "target");
}

static GraphNode *edge_node(const Graph *graph, const char *id, const char *edge)
{
        return edge ? graph_skip_filters(graph_job_node(graph, id, edge)) : NULL;
}

Job *external_new(const Graph *graph, JsonObject *entry, const char *domain, const char *disk,
                  const char *device, const char *active)
{
        const char *id = json_string(entry, "id"), *type = json_string(entry, "type");
        GraphNode *source, *target;
        guint i = 0;
        Job *job;

        while (i < G_N_ELEMENTS(types) && !is_type(graph, id, type, i))
                i++;
        if (!id || i == G_N_ELEMENTS(types))
                return NULL;
        source = edge_node(graph, id, types[i].source);
        target = edge_node(graph, id, types[i].target);
        if (types[i].driver == EXTERNAL_PULL && target)
                source = graph_skip_filters(graph_child(target, "backing"));
        job = job_new(&external_drivers[types[i].driver], domain, disk, device);
        g_free(job->qemu_id);
        job->qemu_id = g_strdup(id);
        job->options = options_new();
        job->started_by = STARTED_BY_NOBODY;
        job->active = g_strdup(active);
        job->source = g_strdup(source ? graph_source(source) : "");
        job->target = g_strdup(target ? graph_source(target) : "");
        job->source_node = g_strdup(source ? source->name : "");
        job->target_node = g_strdup(target ? target->name : "");
        job->record.accepted = TRUE;
        return job;
}

/* ---- ask: what an Abort comes to ---- */

static StepState ask_external_state(const Job *job)
{
        if (job_has_ended(job) || job->record.decision == DECISION_NONE ||
            job->asked == job->record.decision)
                return STEP_DONE;
        return job_is_connected(job) ? STEP_DUE : STEP_WAIT;
}

/* ---- release: an orphan at PENDING is cancelled, for the source is the disk as long as nothing says else
 * ---- */

static StepState release_state(const Job *job)
{
        return job->orphan && job_is_pending(job) ? finalize_state(job) : STEP_DONE;
}

static void release_run(Job *job)
{
        finalize_command(job, FALSE);
}

/* ---- look: the outcome, as QEMU's events and graph tell ---- */

static void set_result_by_qemu(Job *job)
{
        gboolean pivoted = job->driver->two_phase && *job->target_node && job->host->graph &&
                           job->driver->is_in_graph(job);

        if (pivoted)
                set_result(job, RESULT_COMPLETED);
        else if (job_was_cancelled(job))
                set_result(job, RESULT_CANCELLED);
        else if (job->qemu_error)
                set_result_failed(job);
        else if (job->end_seen || job->status == STATUS_CONCLUDED)
                set_result(job, job->driver->two_phase ? RESULT_KEPT : RESULT_COMPLETED);
        else {
                set_result(job, RESULT_FAILED);
                job_set_error(
                        job, BJ_ERROR_FAILED,
                        "somebody else ended it while there was no connection to QEMU: how is not known");
        }
}

static void on_looked(Job *job, const GError *error)
{
        if (job->gone) {
                set_result(job, RESULT_LOST);
                job_set_error(job, BJ_ERROR_DISCONNECTED, "QEMU went away before the job could conclude");
        } else if (!g_error_matches(error, BJ_ERROR, BJ_ERROR_DISCONNECTED) && job_has_ended(job))
                set_result_by_qemu(job);
        job_step_end(job);
}

static void look_external_run(Job *job)
{
        look_command(job, on_looked);
}

/* ---- dismiss: nobody else does it for an orphan ---- */

static StepState dismiss_state(const Job *job)
{
        return job->orphan ? nodes_tidy_state(job) : STEP_DONE;
}

/* The image that a copy or a backup wrote into. */
static void leave(Job *job)
{
        g_autofree char *target = NULL;

        if (!job->orphan || (job->driver->is_in_graph && job->driver->is_in_graph(job)))
                return;
        target = g_strdup_printf("bj-%s-t", job_id_in(job->qemu_id));
        nodes_leave(job, target);
}

static const JobStep steps[] = {
        { "record-intent", record_intent_state, record_intent_run },
        { "announce", announce_state, announce_run },
        { "say-ready", say_ready_state, say_ready_run },
        { "record-decision", record_decision_state, record_decision_run },
        { "ask", ask_external_state, ask_run },
        { "release", release_state, release_run },
        { "conclude", conclude_state, NULL },
        { "look", look_state, look_external_run },
        { "record-outcome", record_outcome_state, record_outcome_run },
        { "dismiss", dismiss_state, nodes_tidy_run },
        { "tell", tell_state, tell_run },
        { NULL, NULL, NULL },
};

#define TWO_PHASE(type_name)                                                                               \
        {                                                                                                  \
                .name = "external-" type_name, .type = type_name, .kind = "", .mode = "background",        \
                .two_phase = TRUE, .external = TRUE, .steps = steps, .is_in_graph = two_phase_is_in_graph, \
                .leave = leave,                                                                            \
        }
#define SINGLE_PHASE(type_name)                                                                 \
        {                                                                                       \
                .name = "external-" type_name, .type = type_name, .kind = "", .external = TRUE, \
                .steps = steps, .leave = leave,                                                 \
        }

const JobDriver external_drivers[N_EXTERNAL] = {
        [EXTERNAL_ACTIVE_COMMIT] = TWO_PHASE("active-commit"),
        [EXTERNAL_COMMIT] = SINGLE_PHASE("commit"),
        [EXTERNAL_COPY] = TWO_PHASE("copy"),
        [EXTERNAL_PULL] = SINGLE_PHASE("pull"),
        [EXTERNAL_BACKUP] = SINGLE_PHASE("backup"),
};
