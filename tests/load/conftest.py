# SPDX-License-Identifier: LGPL-2.1-or-later
"""A service without sanitizers, for what they make meaningless; and tests that take minutes."""

import faulthandler
import os
from pathlib import Path

import pytest
from kit.images import run

PROJECT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def may_take_minutes(request):
    """What takes as long as a test that hangs would be taken for one. Everything here has a deadline of its own."""
    if request.node.get_closest_marker("long"):
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def binary(service):
    """That of the daemon."""
    return os.readlink(f"/proc/{service.pid()}/exe")


@pytest.fixture
def release_build(binary):
    """The directory of a build without sanitizers, made here."""
    build = Path(binary).parent.parent / "release"
    if not (build / "build.ninja").exists():
        run("meson", "setup", str(build), str(PROJECT), "--buildtype=release", "-Dtests=false")
    run("ninja", "-C", str(build), "service/blockjobd")
    return build


@pytest.fixture
def release(service, binary, release_build, monkeypatch, tmp_path):
    """For the time of the test the daemon is a release build.

    The address sanitizer keeps what was freed apart, hundreds of megabytes of it, so that what the service holds
    cannot be seen through it.
    """
    usual = os.environ["BLOCKJOBD"]
    script = Path(usual.split()[1]).read_text()
    assert binary in script
    start = tmp_path / "start"
    start.write_text(script.replace(binary, str(release_build / "service" / "blockjobd")))
    service.terminate()
    monkeypatch.setenv("BLOCKJOBD", f"/bin/sh {start}")
    service.start()
    yield service
    service.terminate()
    monkeypatch.setenv("BLOCKJOBD", usual)
    service.start()
