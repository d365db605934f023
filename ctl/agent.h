/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "client.h"

/* polkit's agent for a terminal, pkttyagent, beside this process: it asks for the password that a call
 * needs. Only where somebody sits at a terminal, may be asked, and is not root; once. Where another agent is
 * registered, that of a desktop say, it leaves the question to that one. */
void agent_open(const Client *client);
void agent_close(void);
