/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "domain/domain.h"
#include "image/account.h"

/* The files that a domain of the service's own is made of, while no QEMU has them open. */

/* One for each disk of the definition: GPtrArray of OpenImage, top first; NULL where it was not looked at.
 */
typedef void (*ImagesInspected)(Domain *domain, GPtrArray *chains, const GError *error, gpointer data);

/* What a start needs: every image is there and can be used with the rights of `account`, and kernel and
 * firmware as well. `account` NULL: sees what there is to be seen, with the service's own rights, for the
 * disks' properties; that never fails. Errors: NoSuchImage, InvalidArgument, LimitExceeded, Failed. */
void images_inspect(Domain *domain, const Account *account, ImagesInspected done, gpointer data);
/* The same for the images of one disk. */
void images_inspect_disk(Disk *disk, const Account *account, ImagesInspected done, gpointer data);
