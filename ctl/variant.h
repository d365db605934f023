/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>
#include <systemd/sd-bus.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(sd_bus_message, sd_bus_message_unref)

/* Messages of sd-bus as GVariants, so that all other code reads and writes one kind of value. Both return a
 * negative errno of sd-bus where they fail. A handle is the number of a descriptor of this process, which
 * the message gets a copy of; none are received. */

/* What is left in the message, as a tuple. */
int variant_from_message(sd_bus_message *message, GVariant **value);

/* Appends each member of the tuple. */
int variant_to_message(sd_bus_message *message, GVariant *tuple);
