# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a reader of the documents has: blockjobd installed, and a place for machines in which nothing else is."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from kit.images import run
from kit.pages import PROJECT


def build_directory():
    return os.environ.get("BLOCKJOBD_BUILD", str(PROJECT / "build"))


@pytest.fixture(scope="session")
def installed():
    """Where `meson install` has put everything, as a root directory of its own."""
    with tempfile.TemporaryDirectory(prefix="bj-installed-") as root:
        run("meson", "install", "-C", build_directory(), "--no-rebuild", "--quiet", "--destdir", root)
        yield root


def found(root, path):
    """The one file or directory of the installation that ends so, whatever the prefix."""
    matching = [os.path.join(directory, name) for directory, directories, files in os.walk(root)
                for name in directories + files if os.path.join(directory, name).endswith("/" + path)]
    assert len(matching) == 1, f"{path} in the installation: {matching}"
    return matching[0]


@pytest.fixture(scope="session")
def interfaces(installed):
    """The XML of the interfaces in its usual place, of this namespace alone: tests/with-service made one."""
    usual = "/usr/share/dbus-1/interfaces"
    os.makedirs(usual, exist_ok=True)
    run("mount", "--bind", found(installed, "dbus-1/interfaces"), usual)
    yield usual
    run("umount", "-l", usual)


@pytest.fixture
def place():
    """/srv, with nothing in it but what the documents put there, which goes with the test."""
    with tempfile.TemporaryDirectory(prefix="bj-srv-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        os.makedirs("/srv", exist_ok=True)
        run("mount", "--bind", directory, "/srv")
        try:
            yield "/srv"
        finally:
            subprocess.run(["umount", "-l", "/srv"], check=True)


@pytest.fixture
def desk():
    """A directory that looks like that of the project, in which a document may leave what it makes."""
    with tempfile.TemporaryDirectory(prefix="bj-desk-") as directory:
        for entry in PROJECT.iterdir():
            if not entry.name.startswith((".git", "build")):
                (Path(directory) / entry.name).symlink_to(entry)
        yield Path(directory)
