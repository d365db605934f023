/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain/domain.h"

/* What a QEMU can do, by its schema, which is large: of all QEMUs of one version one is asked, and the
 * others wait for that. */

/* Then the next one is asked as well: one that hangs is not to delay the others for long. */
#define PATIENCE_MILLISECONDS 250

typedef struct {
        Capabilities *capabilities; /* NULL: not known yet */
        guint asked;                /* how many have been, and have not answered */
        GPtrArray *waiting;         /* Domain, borrowed: whoever loses its connection leaves */
        guint timer;
        DomainCapabilitiesFound found;
} Version;

typedef struct {
        Domain *domain;
        Version *version;
} Question;

static void version_free(gpointer data)
{
        Version *version = data;

        g_clear_handle_id(&version->timer, g_source_remove);
        capabilities_unref(version->capabilities);
        g_ptr_array_unref(version->waiting);
        g_free(version);
}

GHashTable *capability_cache_new(void)
{
        return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, version_free);
}

/* A storage daemon has QEMU's version and not its commands. */
static char *key_of(const Domain *domain)
{
        return g_strdup_printf("%s %s", domain->version, domain->has_guest ? "qemu" : "storage-daemon");
}

static Version *version_of(const Domain *domain)
{
        g_autofree char *key = key_of(domain);
        Version *version = g_hash_table_lookup(domain->capability_cache, key);

        if (!version) {
                version = g_new0(Version, 1);
                version->waiting = g_ptr_array_new();
                g_hash_table_insert(domain->capability_cache, g_steal_pointer(&key), version);
        }
        return version;
}

static void give(const Version *version, Domain *domain, Capabilities *capabilities)
{
        g_clear_pointer(&domain->host.capabilities, capabilities_unref);
        domain->host.capabilities = capabilities_ref(capabilities);
        version->found(domain, NULL);
}

static void on_schema(JsonNode *result, const GError *error, gpointer data);

static void ask(Version *version, Domain *domain)
{
        Question *question = g_new(Question, 1);

        *question = (Question){ domain_ref(domain), version };
        version->asked++;
        qmp_execute(domain->connection, "query-qmp-schema", NULL, on_schema, question);
}

/* One after the other: what comes of the first may be the end of another. */
static Domain *take_waiting(Version *version)
{
        return version->waiting->len > 0 ? domain_ref(g_ptr_array_steal_index(version->waiting, 0)) : NULL;
}

static void ask_next(Version *version)
{
        g_autoptr(Domain) next = take_waiting(version);

        if (next)
                ask(version, next);
}

static gboolean on_long_wait(gpointer data)
{
        Version *version = data;

        ask_next(version);
        if (version->waiting->len > 0)
                return G_SOURCE_CONTINUE;
        version->timer = 0;
        return G_SOURCE_REMOVE;
}

static void on_schema(JsonNode *result, const GError *error, gpointer data)
{
        g_autofree Question *question = data;
        g_autoptr(Domain) domain = question->domain;
        Version *version = question->version;
        g_autoptr(Capabilities) capabilities = error ? NULL : capabilities_new(result);

        version->asked--;
        /* What cannot be served is not remembered: it may have lied about its version. */
        if (capabilities && !version->capabilities && capabilities_suffice(capabilities, NULL))
                version->capabilities = capabilities_ref(capabilities);
        if (domain->connection && error)
                version->found(domain, error);
        else if (domain->connection)
                give(version, domain, capabilities);
        if (!version->capabilities) {
                ask_next(version);
                return;
        }
        for (;;) {
                g_autoptr(Domain) waiting = take_waiting(version);

                if (!waiting)
                        return;
                give(version, waiting, version->capabilities);
        }
}

void domain_find_capabilities(Domain *domain, DomainCapabilitiesFound found)
{
        Version *version = version_of(domain);

        version->found = found;
        if (version->capabilities)
                give(version, domain, version->capabilities);
        else if (version->asked == 0)
                ask(version, domain);
        else {
                g_ptr_array_add(version->waiting, domain);
                if (!version->timer)
                        version->timer = g_timeout_add(PATIENCE_MILLISECONDS, on_long_wait, version);
        }
}

void domain_stop_finding_capabilities(Domain *domain)
{
        g_autofree char *key = key_of(domain);
        Version *version = g_hash_table_lookup(domain->capability_cache, key);

        if (version)
                g_ptr_array_remove(version->waiting, domain);
}
