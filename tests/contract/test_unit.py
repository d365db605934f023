# SPDX-License-Identifier: LGPL-2.1-or-later
"""The systemd unit: systemd understands it, it confines the service, and it never leaves a guest held."""

import configparser
import subprocess

import pytest
from contract.interfaces import text

TEMPLATE = "units/blockjobd.service.in"


@pytest.fixture
def unit(tmp_path):
    """The unit as it is installed, with a program that is there."""
    program = tmp_path / "libexec/blockjobd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "blockjobd.service"
    path.write_text(text(TEMPLATE).replace("@libexecdir@", str(program.parent)))
    assert "@" not in "".join(line for line in path.read_text().splitlines(True)
                              if not line.startswith(("#", "SystemCallFilter")))
    return path


def analyze(*arguments):
    done = subprocess.run(["systemd-analyze", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    return done.returncode, done.stdout


def settings():
    parser = configparser.RawConfigParser(comment_prefixes=("#",), strict=False)
    parser.optionxform = str
    parser.read_string(text(TEMPLATE))
    return {**dict(parser["Unit"]), **dict(parser["Service"])}


def test_systemd_understands_it(unit):
    assert analyze("verify", "--man=no", str(unit)) == (0, "")


def test_exposure_is_at_most_3(unit):
    status, said = analyze("security", "--offline=true", "--threshold=30", "--no-pager", str(unit))
    assert status == 0, said


def test_it_never_leaves_a_guest_held():
    found = settings()
    assert found["ExecStopPost"] == found["ExecStart"].replace("/blockjobd ", "/blockjobd --settle ")
    assert found["Restart"] == "on-failure" and found["RestartSec"] == "100ms"
    assert found["StartLimitIntervalSec"] == "0"
    assert found["BusName"] == "org.blockjobd1" and found["Type"] == "notify"


def test_what_the_sandbox_must_not_take_away():
    found = settings()
    # /proc/PID/stat of QEMUs of other users; their sockets, wherever these lie; stat() of their images.
    assert found["ProtectProc"] == "default"
    # The rights of QEMU's user, and an end for QEMUs; taps that are plugged into bridges.
    assert found["CapabilityBoundingSet"].split() == ["CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID",
                                                      "CAP_KILL", "CAP_NET_ADMIN"]
    # The monitors of QEMUs that outlive the service.
    assert found["RuntimeDirectory"] == "blockjobd" and found["RuntimeDirectoryPreserve"] == "yes"
    # Images that a job has made invalid are removed where they lie.
    assert found["ProtectSystem"] == "full" and found["ProtectHome"] == "no" and found["PrivateTmp"] == "no" and found["PrivateDevices"] == "no"
    assert "PrivateUsers" not in found
    assert found["StateDirectory"] == "blockjobd" and found["StateDirectoryMode"] == "0711"
    # Wherever the program was built to look for its state.
    assert found["ExecStart"].endswith("/blockjobd --state-dir ${STATE_DIRECTORY}")
