/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

/* What a QEMU can do, read from its query-qmp-schema and never from its version. */
typedef enum {
        CAPABILITY_COMMIT,
        CAPABILITY_REOPEN,
        CAPABILITY_GRAPH,
        CAPABILITY_RUN_STATE,
        CAPABILITY_FLUSH,
        CAPABILITY_NAME,
        CAPABILITY_SET_MODE,
        CAPABILITY_BACKING_MASK_PROTOCOL,
        CAPABILITY_COPY,
        CAPABILITY_PULL,
        CAPABILITY_BACKUP,
        CAPABILITY_SNAPSHOT,
        CAPABILITY_CREATE,
        CAPABILITY_RESIZE,
        CAPABILITY_DESCRIPTORS,
        CAPABILITY_BREAK_SNAPSHOT,
        CAPABILITY_SNAPSHOT_ACCESS,
        CAPABILITY_BOCHS,
        CAPABILITY_SET_ACTIVE,
        CAPABILITY_NBD,
        CAPABILITY_RBD,
        CAPABILITY_ISCSI,
        N_CAPABILITIES
} Capability;

typedef struct {
        gatomicrefcount references;
        gboolean has[N_CAPABILITIES];
        char **names; /* of those that it has, for the bus */
} Capabilities;

/* `schema` is the reply of query-qmp-schema. */
Capabilities *capabilities_new(JsonNode *schema);
Capabilities *capabilities_ref(Capabilities *capabilities);
void capabilities_unref(Capabilities *capabilities);

/* Fails with NotSupported, naming what is missing, where a QEMU cannot be served at all. */
gboolean capabilities_suffice(const Capabilities *capabilities, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Capabilities, capabilities_unref)
