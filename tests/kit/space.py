# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file system that can be full: a tmpfs of a few hundred kilobytes, in the tests' own mount namespace."""

import os

from kit.images import run


class SmallDisk:
    def __init__(self, path, kilobytes):
        self.path = path
        os.makedirs(path, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0755", "tmpfs", path)

    def used(self):
        """In bytes."""
        status = os.statvfs(self.path)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def resize(self, kilobytes):
        run("mount", "-o", f"remount,size={kilobytes}k", self.path)

    def fill(self):
        """Takes all the room that is left."""
        with open(f"{self.path}/ballast", "ab", buffering=0) as ballast:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        ballast.write(bytes(size))
                except OSError:
                    pass

    def free(self):
        os.unlink(f"{self.path}/ballast")

    def remove(self):
        # Lazily: a killed process may be about to close its last file.
        run("umount", "-l", self.path)
