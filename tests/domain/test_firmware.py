# SPDX-License-Identifier: LGPL-2.1-or-later
"""Firmware and its variables: what they are made of where they are not there yet."""

import os
import stat

import pytest
from kit.bus import refused
from kit.own import USER, domain_xml, give

# As large as each of both may be, and a whole number of QEMU's blocks.
SIZE = 64 * 1024
VARIABLES = bytes(range(256)) * (SIZE // 256)


class Firmware:
    def __init__(self, own):
        self.own = own
        self.code, self.template, self.variables = (f"{own.directory}/{name}" for name in ("code", "template", "vars"))
        self.write(self.code, bytes(SIZE))
        self.write(self.template, VARIABLES)

    def write(self, path, contents):
        with open(path, "wb") as file:
            file.write(contents)

    def read(self):
        with open(self.variables, "rb") as file:
            return file.read()

    def define(self):
        xml = domain_xml(self.own.lab.unique_name()).replace(
            "<os>", f"<os><loader readonly='yes' type='pflash'>{self.code}</loader>"
                    f"<nvram template='{self.template}'>{self.variables}</nvram>")
        return self.own.define(xml)


@pytest.fixture
def firmware(own):
    return Firmware(own)


def test_variables_are_made_at_the_first_start(firmware):
    """And are the machine's own from then on."""
    domain = firmware.define()
    assert not os.path.exists(firmware.variables)
    domain.start()
    assert firmware.read() == VARIABLES
    status = os.stat(firmware.variables)
    assert stat.S_IMODE(status.st_mode) == 0o600
    domain.destroy()
    changed = bytes(reversed(VARIABLES))
    firmware.write(firmware.variables, changed)
    os.unlink(firmware.template)
    domain.start()
    assert firmware.read() == changed


@pytest.mark.parametrize("make, name", [
    (lambda firmware: os.unlink(firmware.template), "NoSuchImage"),
    (lambda firmware: (os.unlink(firmware.template), os.mkfifo(firmware.template)), "InvalidArgument"),
    (lambda firmware: (os.unlink(firmware.template), os.mkdir(firmware.template)), "InvalidArgument"),
    (lambda firmware: os.chmod(firmware.template, 0), "InvalidArgument"),
    (lambda firmware: os.truncate(firmware.template, 64 * 1024 * 1024 + 1), "InvalidArgument"),
], ids=["missing", "fifo", "directory", "unreadable", "too-large"])
def test_template_that_cannot_be_used(firmware, make, name):
    make(firmware)
    domain = firmware.define()
    with refused(name, domain["Name"], firmware.template):
        domain.start()
    assert domain["State"] == "shutoff" and not os.path.exists(firmware.variables)


def test_variables_that_cannot_be_made(firmware):
    """With the rights of QEMU's user, and nothing of it is left."""
    os.chown(firmware.own.directory, 0, 0)
    domain = firmware.define()
    with refused("Failed", firmware.variables, firmware.template, "Permission denied"):
        domain.start()
    assert sorted(os.listdir(firmware.own.directory)) == ["code", "template"]
    give(firmware.own.directory)
    domain.start()
    assert firmware.read() == VARIABLES, f"made with the rights of {USER}"
