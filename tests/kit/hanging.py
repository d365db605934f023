# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file system that hangs: whoever looks at anything on it waits until it is gone."""

import contextlib
import ctypes
import os

MNT_DETACH = 2
libc = ctypes.CDLL(None, use_errno=True)


def _check(result, path):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


@contextlib.contextmanager
def hanging(directory):
    """Of FUSE, with nobody at the other end of its device; over what lies in the directory meanwhile."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    _check(libc.mount(b"bj-test", directory.encode(), b"fuse", 0, options.encode()), directory)
    try:
        yield
    finally:
        os.close(device)
        _check(libc.umount2(directory.encode(), MNT_DETACH), directory)
