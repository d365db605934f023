# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package of this tree, built once for all suites that want it."""

import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent


def _state_of_the_tree():
    """What a build depends on: every file that is not built itself."""
    known = hashlib.sha256()
    for directory, names, files in os.walk(PROJECT):
        names[:] = sorted(name for name in names if not name.startswith(("build", ".git", "__pycache__")))
        for name in sorted(files):
            path = os.path.join(directory, name)
            entry = os.lstat(path)
            known.update(f"{path} {entry.st_size} {entry.st_mtime_ns}\n".encode())
    return known.hexdigest()


def build():
    """The file. Its build fails for an error or a warning of lintian's."""
    directory = Path(os.environ["BLOCKJOBD_BUILD"]).resolve() / "package"
    directory.mkdir(exist_ok=True)
    with open(directory / "built-of", "a+") as record:
        fcntl.flock(record, fcntl.LOCK_EX)
        record.seek(0)
        state = _state_of_the_tree()
        if record.read() != state:
            record.truncate(0)
            for path in directory.glob("*.*deb"):
                path.unlink()
            subprocess.run([PROJECT / "tests/tools/build-package", directory], check=True, stdout=subprocess.DEVNULL)
            record.write(state)
    found, = (path for path in directory.glob("*.deb") if "dbgsym" not in path.name)
    return found
