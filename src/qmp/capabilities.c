/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/capabilities.h"

#include "base/error.h"
#include "base/json.h"

/* A capability is there when the command has the member; without a member, when the command is there. A
 * `driver` is one of those that blockdev-add can open. */
static const struct {
        const char *name, *command, *member;
        gboolean required;
        const char *driver;
} table[N_CAPABILITIES] = {
        [CAPABILITY_COMMIT] = { "commit", "block-commit", "filter-node-name", TRUE },
        [CAPABILITY_REOPEN] = { "reopen", "blockdev-reopen", "options", FALSE },
        [CAPABILITY_GRAPH] = { "graph", "x-debug-query-block-graph", NULL, TRUE },
        [CAPABILITY_RUN_STATE] = { "run-state", "query-status", NULL, FALSE },
        [CAPABILITY_FLUSH] = { "flush", "human-monitor-command", NULL, FALSE },
        [CAPABILITY_NAME] = { "name", "query-name", NULL, FALSE },
        [CAPABILITY_SET_MODE] = { "set-mode", "block-job-change", NULL, FALSE },
        [CAPABILITY_BACKING_MASK_PROTOCOL] = { "backing-mask-protocol", "block-commit",
                                               "backing-mask-protocol", FALSE },
        [CAPABILITY_COPY] = { "copy", "blockdev-mirror", "filter-node-name", FALSE },
        [CAPABILITY_PULL] = { "pull", "block-stream", "filter-node-name", FALSE },
        [CAPABILITY_BACKUP] = { "backup", "blockdev-backup", "filter-node-name", FALSE },
        [CAPABILITY_SNAPSHOT] = { "snapshot", "blockdev-snapshot", NULL, FALSE },
        [CAPABILITY_CREATE] = { "create", "blockdev-create", NULL, FALSE },
        [CAPABILITY_RESIZE] = { "resize", "block_resize", "node-name", FALSE },
        [CAPABILITY_DESCRIPTORS] = { "descriptors", "add-fd", NULL, FALSE },
        [CAPABILITY_BREAK_SNAPSHOT] = { "backup-break-snapshot", "blockdev-backup", "on-cbw-error", FALSE },
        [CAPABILITY_SNAPSHOT_ACCESS] = { "snapshot-access", "blockdev-add", NULL, FALSE, "snapshot-access" },
        [CAPABILITY_BOCHS] = { "bochs", "blockdev-add", NULL, FALSE, "bochs" },
        [CAPABILITY_SET_ACTIVE] = { "set-active", "blockdev-set-active", NULL, FALSE },
        [CAPABILITY_NBD] = { "nbd", "blockdev-add", NULL, FALSE, "nbd" },
        [CAPABILITY_RBD] = { "rbd", "blockdev-add", NULL, FALSE, "rbd" },
        [CAPABILITY_ISCSI] = { "iscsi", "blockdev-add", NULL, FALSE, "iscsi" },
};

static JsonObject *find(GHashTable *entries, const char *meta_type, const char *name)
{
        g_autofree char *key = g_strdup_printf("%s:%s", meta_type, name);

        return g_hash_table_lookup(entries, key);
}

static gboolean has_member(JsonObject *arguments, const char *name)
{
        JsonArray *members = json_array(arguments, "members");

        for (guint i = 0; members && i < json_array_get_length(members); i++)
                if (g_strcmp0(json_string(json_element(members, i), "name"), name) == 0)
                        return TRUE;
        return FALSE;
}

static gboolean has_variant(JsonObject *arguments, const char *name)
{
        JsonArray *variants = json_array(arguments, "variants");

        for (guint i = 0; variants && i < json_array_get_length(variants); i++)
                if (g_strcmp0(json_string(json_element(variants, i), "case"), name) == 0)
                        return TRUE;
        return FALSE;
}

Capabilities *capabilities_new(JsonNode *schema)
{
        g_autoptr(GHashTable) entries = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        g_autoptr(GPtrArray) names = g_ptr_array_new();
        Capabilities *capabilities = g_new0(Capabilities, 1);
        JsonArray *array = JSON_NODE_HOLDS_ARRAY(schema) ? json_node_get_array(schema) : NULL;

        g_atomic_ref_count_init(&capabilities->references);
        for (guint i = 0; array && i < json_array_get_length(array); i++) {
                JsonObject *entry = json_element(array, i);
                const char *meta_type = json_string(entry, "meta-type"), *name = json_string(entry, "name");

                if (meta_type && name)
                        g_hash_table_insert(entries, g_strdup_printf("%s:%s", meta_type, name), entry);
        }
        for (int i = 0; i < N_CAPABILITIES; i++) {
                JsonObject *command = find(entries, "command", table[i].command);
                const char *type = json_string(command, "arg-type");
                JsonObject *arguments = type ? find(entries, "object", type) : NULL;

                capabilities->has[i] = command &&
                                       (!table[i].member || has_member(arguments, table[i].member)) &&
                                       (!table[i].driver || has_variant(arguments, table[i].driver));
                if (capabilities->has[i])
                        g_ptr_array_add(names, (gpointer) table[i].name);
        }
        g_ptr_array_add(names, NULL);
        capabilities->names = g_strdupv((char **) names->pdata);
        return capabilities;
}

Capabilities *capabilities_ref(Capabilities *capabilities)
{
        g_atomic_ref_count_inc(&capabilities->references);
        return capabilities;
}

void capabilities_unref(Capabilities *capabilities)
{
        if (!capabilities || !g_atomic_ref_count_dec(&capabilities->references))
                return;
        g_strfreev(capabilities->names);
        g_free(capabilities);
}

gboolean capabilities_suffice(const Capabilities *capabilities, GError **error)
{
        for (int i = 0; i < N_CAPABILITIES; i++) {
                if (capabilities->has[i] || !table[i].required)
                        continue;
                g_set_error(error, BJ_ERROR, BJ_ERROR_NOT_SUPPORTED,
                            "this QEMU lacks %s%s%s, without which blockjobd cannot keep its promise",
                            table[i].command, table[i].member ? " with " : "",
                            table[i].member ? table[i].member : "");
                return FALSE;
        }
        return TRUE;
}
