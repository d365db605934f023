/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "domain/process.h"

/* A Launcher that has systemd start the process as a transient unit, so that it outlives the service, its
 * unit and its upgrades. `service`: a Service. */
void unit_launch(const LaunchRequest *request, Launched launched, gpointer data, gpointer service);
