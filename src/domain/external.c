/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/external.h"

#include <string.h>

#include "base/json.h"
#include "domain/domain.h"

/* Jobs of somebody else, found in what QEMU says of its jobs. */

#define EXTERNAL_MAX 64

static gboolean works_on(const GraphRoot *root, const char *id)
{
        const GraphNode *node = root ? root->node : NULL;

        while (node && g_strcmp0(node->job, id) != 0)
                node = graph_is_filter(node) ? graph_filtered(node) : graph_child(node, "backing");
        return node != NULL;
}

static const Disk *disk_of(Domain *domain, const char *id)
{
        for (guint i = 0; i < domain->disks->len; i++) {
                const Disk *disk = domain->disks->pdata[i];
                if (works_on(graph_root(domain->host.graph, disk->device), id))
                        return disk;
        }
        return NULL;
}

static gboolean is_orphan(const Domain *domain, const char *qemu_id)
{
        const char *id = job_id_in(qemu_id);

        return id && journal_has_set_aside(domain->host.journal, JOURNAL_JOBS, id);
}

/* It ended before the record was set aside, or nobody was there: what it did is in the graph. */
static void dismiss_orphan(Domain *domain, const char *id)
{
        if (domain->host.qmp)
                qmp_execute(domain->host.qmp, "job-dismiss", json_make("s:id", id, NULL), NULL, NULL);
}

static void adopt(Domain *domain, JsonObject *entry)
{
        gboolean orphan, over = g_strcmp0(json_string(entry, "status"), "concluded") == 0;
        const char *id = json_string(entry, "id");
        const Disk *disk;

        if (!id || domain_job_by_qemu_id(domain, id) || domain_job_by_part_id(domain, id) ||
            domain->jobs->len >= EXTERNAL_MAX)
                return;
        orphan = is_orphan(domain, id);
        if (orphan && over)
                dismiss_orphan(domain, id);
        /* One that is over and kept since long is nobody's news. */
        if (!g_hash_table_remove(domain->begun, id) && over)
                return;
        disk = disk_of(domain, id);
        g_autoptr(Job) job = external_new(domain->host.graph, entry, domain->name, disk ? disk->target : "",
                                          disk ? disk->device : "", disk ? disk_source(disk) : "");
        if (!job)
                return;
        job->instance = g_strdup(domain->instance);
        job->orphan = orphan;
        domain_add_job(domain, job);
        job->synced = TRUE;
        job_seen_query(job, entry);
        job_advance(job);
}

void domain_find_external_jobs(Domain *domain)
{
        JsonArray *jobs = domain->jobs_seen && JSON_NODE_HOLDS_ARRAY(domain->jobs_seen)
                                  ? json_node_get_array(domain->jobs_seen)
                                  : NULL;

        for (guint i = 0; domain->shown && domain->host.graph && jobs && i < json_array_get_length(jobs);
             i++)
                adopt(domain, json_element(jobs, i));
        g_clear_pointer(&domain->jobs_seen, json_node_unref);
}
