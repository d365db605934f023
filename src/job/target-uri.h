/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

/* Targets on the network, as QEMU's own file names of its protocol drivers write them. */

/* Whether a target has one of the schemes nbd:, nbd+tcp:, nbd+unix:, rbd: and iscsi:, well-formed or not. */
gboolean target_is_uri(const char *target);

/* The protocol node's options for blockdev-add, without "node-name", by QEMU's QAPI schema
 * (BlockdevOptionsNbd, BlockdevOptionsRbd, BlockdevOptionsIscsi, SocketAddress). Each form is one that the
 * driver of that name parses in QEMU (block/nbd.c, block/rbd.c, block/iscsi.c):
 *
 *   nbd://HOST[:PORT]/[EXPORT]  nbd+tcp://…  nbd+unix:///[EXPORT]?socket=PATH
 *   nbd:HOST:PORT[:exportname=NAME]  nbd:unix:PATH[:exportname=NAME]
 *   rbd:POOL/[NAMESPACE/]IMAGE[:conf=FILE][:id=USER]  (":" and the like escaped by a backslash)
 *   iscsi://[USER@]HOST[:PORT]/TARGET/LUN
 *
 * All else is InvalidArgument, also where QEMU's parser would take it: what it would ignore, snapshots,
 * which nobody can write to, and secrets, which have no place in what is logged; no message repeats them.
 * `ret_driver` is NULL or gets the driver's name, a constant. */
JsonObject *target_uri_to_blockdev(const char *target, const char **ret_driver, GError **error);
