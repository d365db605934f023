/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Gives memory that was freed back to the system, a second after the last call: for after something large
 * was done in a worker thread, from whose part of the heap nothing goes back by itself. The main thread's.
 */
void trim_later(void);
