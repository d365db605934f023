/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service.h"

#include <errno.h>
#include <string.h>

static int append(const Property *properties, sd_bus *bus, const char *name, sd_bus_message *reply,
                  const void *object)
{
        for (const Property *property = properties; property->name; property++)
                if (strcmp(property->name, name) == 0)
                        return property->append(reply, object, service_of(bus));
        return -ENOENT; /* the vtable names a property that its table lacks: a test would have seen it */
}

#define GETTER(interface)                                                                         \
        int get_##interface##_property(sd_bus *bus, const char *path, const char *interface_name, \
                                       const char *name, sd_bus_message *reply, void *object,     \
                                       sd_bus_error *error)                                       \
        {                                                                                         \
                (void) path;                                                                      \
                (void) interface_name;                                                            \
                (void) error;                                                                     \
                return append(interface##_properties, bus, name, reply, object);                  \
        }

GETTER(manager)
GETTER(domain)
GETTER(disk)
GETTER(job)

int properties_append_all(const Property *properties, sd_bus_message *reply, const void *object,
                          Service *service)
{
        int r = 0;

        for (const Property *property = properties; r >= 0 && property->name; property++) {
                r = sd_bus_message_open_container(reply, 'e', "sv");
                if (r >= 0)
                        r = sd_bus_message_append(reply, "s", property->name);
                if (r >= 0)
                        r = sd_bus_message_open_container(reply, 'v', property->signature);
                if (r >= 0)
                        r = property->append(reply, object, service);
                if (r >= 0)
                        r = sd_bus_message_close_container(reply);
                if (r >= 0)
                        r = sd_bus_message_close_container(reply);
        }
        return r;
}
