/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-bus.h>

#include "domain/engine.h"

/* The daemon: the engine shown on the bus. */

#define BUS_NAME "org.blockjobd1"
#define ROOT_PATH "/org/blockjobd1"
#define INTERFACE(name) BUS_NAME "." name
#define ERROR_PREFIX BUS_NAME ".Error."

typedef struct Authority Authority;

typedef struct {
        sd_bus *bus;
        Engine *engine;
        Authority *authority;
        GHashTable *callers;        /* unique name → Caller */
        sd_bus_slot *callers_match; /* tells of those that are gone */
        guint nameless;             /* requests of callers whose uid is not known yet */
        guint most_waiting;         /* so many may be nameless, and so many wait for polkit */
        GPtrArray *waiting;         /* Request: until a job concludes */
        GPtrArray *asking;          /* Request: until QEMU has answered a command */
        GHashTable *changes;        /* object path → what PropertiesChanged has to tell */
        guint changes_idle;
} Service;

/* tree.c: object paths, and the vtables on them */
int tree_register(Service *service);
/* The service, from within a handler or getter that sd-bus calls: their userdata is the object. */
Service *service_of(sd_bus *bus);
char *domain_path(const Domain *domain);
char *disk_path(const Disk *disk);
char *job_path(const Job *job);
char *job_domain_path(const Job *job);
char *job_disk_path(const Job *job);
/* NULL where the path names none that is there. */
Domain *domain_at(Service *service, const char *path);
Disk *disk_at(Service *service, const char *path);
Job *job_at(Service *service, const char *path);

/* properties.c: one getter for all; what it answers comes from the model and never fails */
typedef struct {
        const char *name, *signature;
        int (*append)(sd_bus_message *reply, const void *object, Service *service);
} Property;

#define PROPERTY_TABLE_END       \
        {                        \
                NULL, NULL, NULL \
        }

/* The getters of the vtables. */
int get_manager_property(sd_bus *bus, const char *path, const char *interface, const char *name,
                         sd_bus_message *reply, void *object, sd_bus_error *error);
int get_domain_property(sd_bus *bus, const char *path, const char *interface, const char *name,
                        sd_bus_message *reply, void *object, sd_bus_error *error);
int get_disk_property(sd_bus *bus, const char *path, const char *interface, const char *name,
                      sd_bus_message *reply, void *object, sd_bus_error *error);
int get_job_property(sd_bus *bus, const char *path, const char *interface, const char *name,
                     sd_bus_message *reply, void *object, sd_bus_error *error);

/* Every property of a table, as entries of an a{sv} that is open already. */
int properties_append_all(const Property *properties, sd_bus_message *reply, const void *object,
                          Service *service);

/* NAME-bus.c: the interfaces */
extern const sd_bus_vtable manager_vtable[], domain_vtable[], disk_vtable[], job_vtable[];
extern const Property manager_properties[], domain_properties[], disk_properties[], job_properties[];

/* changes.c: PropertiesChanged, gathered until the main loop comes round, or until a signal or a reply that
 * must not be overtaken */
void changes_add(Service *service, char *path, const char *interface, const char *const *properties);
void changes_flush(Service *service);
void changes_forget(Service *service, const char *path);

/* signals.c: what the engine tells, as signals */
extern const EngineObserver signals_observer;
