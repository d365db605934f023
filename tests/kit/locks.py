# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program that has an image locked in a way that is none of QEMU's, which QEMU would not heed."""

import contextlib
import subprocess
import sys

LOCKER = """
import fcntl, sys
with open(sys.argv[1], "rb") as file:
    fcntl.lockf(file, fcntl.LOCK_SH, 1)
    print("locked", flush=True)
    sys.stdin.read()
"""


def let_go(process):
    process.stdin.close()
    process.wait(20)


@contextlib.contextmanager
def locked(path):
    """The process; it may be told to let go before the end."""
    with subprocess.Popen([sys.executable, "-c", LOCKER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        try:
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            let_go(process)
