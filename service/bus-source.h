/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>
#include <systemd/sd-bus.h>

/* Lets a GLib main loop drive an sd_bus. `closed` is called once, when the bus is gone. */
guint bus_source_attach(sd_bus *bus, void (*closed)(int error, gpointer data), gpointer data);
