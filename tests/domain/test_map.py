# SPDX-License-Identifier: LGPL-2.1-or-later
"""Map of the disks of the service's own domains: off, running, and while a storage daemon works on them."""

import errno
import os
import shutil
import subprocess

import pytest

from kit import images
from kit.bus import refused
from kit.every_job import SLOW
from kit.images import MIB
from kit.maps import DATA, ZERO, layered, part, written
from kit.own import disk_xml, domain_xml
from kit.waiting import wait_until


def servers():
    """Processes that serve images for a map."""
    done = subprocess.run(["pgrep", "-x", "qemu-nbd"], stdout=subprocess.PIPE, text=True)
    return done.stdout.split()


@pytest.mark.parametrize("count", [1, 3, 5])
def test_off_and_running_alike(own, count):
    chain, expected = layered(own.directory, count)
    domain, disk = own.standard(chain)
    assert disk.map() == expected
    assert disk.map(offset=MIB + 1, length=7 * MIB) == part(expected, MIB + 1, 7 * MIB)
    assert not servers()
    images.assert_contents(chain.top, chain.contents[-1])
    domain.start()
    assert disk.map() == expected
    domain.destroy()
    domain.wait("State", "shutoff")
    assert disk.map() == expected


def test_zeros_holes_and_a_raw_base(own):
    chain = images.two_layers(own.directory, base_format="raw")
    images.run("qemu-io", "-f", "qcow2", "-c", "write -z 0 1M", chain.top.path)
    _, disk = own.standard(chain)
    assert disk.map() == written([(0, images.SIZE, ZERO), (0, 4 * MIB, DATA)],
                                 [(2 * MIB, 3 * MIB, DATA), (0, MIB, ZERO)])


def test_job_on_a_disk_that_is_off(own):
    """The storage daemon has the images; its export for the map is no disk."""
    chain = own.give(images.slow_layers(own.directory))
    domain, disk = own.standard(chain)
    expected = disk.map()
    job = disk.commit(active=True, speed=SLOW)
    assert disk.map() == expected
    assert domain["Disks"] == [disk.path] and disk.sources() == chain.paths()
    job.abort()
    job.wait_completed("cancelled")
    assert disk.map() == expected


def test_a_map_does_not_hold_the_disk(own):
    """A start that comes while the images are read is not refused, and the map is right all the same."""
    chain, expected = layered(own.directory, 3)
    domain, disk = own.standard(chain)
    serials = [own.client.call_later(disk.path, "Disk", "Map", "(a{sv})", {}) for _ in range(4)]
    domain.start()
    for serial in serials:
        heard = own.client.wait_reply(serial)
        assert heard.kind in ("reply", "error")
    assert disk.map() == expected and domain["State"] == "running"
    wait_until(lambda: not servers(), "the end of what reads images")


def test_part_that_is_not_there(own):
    _, disk = own.standard(images.two_layers(own.directory))
    with refused("InvalidArgument", images.SIZE, "offset"):
        disk.map(offset=images.SIZE + 1)
    assert not servers()


def test_with_the_rights_of_qemu_alone(own):
    """What its user may not read, a map does not."""
    chain = images.two_layers(own.directory)
    _, disk = own.standard(chain)
    os.chown(chain.base.path, 0, 0)
    os.chmod(chain.base.path, 0o600)
    with refused("InvalidArgument", chain.base.path):
        disk.map()
    assert not servers()


def test_image_is_damaged(own):
    """QEMU's own words."""
    chain = images.two_layers(own.directory)
    _, disk = own.standard(chain)
    with open(chain.top.path, "r+b") as file:
        file.seek(40)
        file.seek(int.from_bytes(file.read(8), "big"))
        # The second-level table of the first clusters is not at the start of one.
        file.write((1 << 63 | 0x50200).to_bytes(8, "big"))
    with refused("QemuError", os.strerror(errno.EIO)):
        disk.map()
    assert not servers()


def test_image_is_gone(own):
    chain = images.two_layers(own.directory)
    _, disk = own.standard(chain)
    os.unlink(chain.base.path)
    with refused("NoSuchImage", chain.base.path):
        disk.map()


def test_image_in_an_odd_place(own):
    """No character of a name means anything to QEMU or to a shell."""
    directory = f"{own.directory}/a, b=\"$(x)'; {{json:}}"
    os.mkdir(directory)
    shutil.chown(directory, "blockjobd-qemu")
    chain, expected = layered(directory, 2)
    own.give(chain)
    path = chain.top.path.replace("&", "&amp;").replace("'", "&apos;")
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(path)))
    assert domain.disk().map() == expected


def test_disk_without_medium(own):
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(None, "sda", "raw", "sata", device="cdrom")))
    with refused("InvalidState", "medium"):
        domain.disk("sda").map()
