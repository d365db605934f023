# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that writes all the time: numbered records over an NBD export of the disk, flushed and counted.

Unlike QEMU's own qemu-io, this guest can be held at a pivot and go on.
"""

import pytest

from kit import images
from kit.bus import refused
from kit.images import KIB, MIB
from kit.nbd import Writer


@pytest.fixture
def writing(lab):
    """(machine, chain, disk, writer): a slow chain whose guest writes already."""
    machine, chain, disk = lab.slow(share=True)
    writer = Writer(machine.export("vda", "vda-1"), "vda", 16 * MIB, 1024)
    writer.wait_more()
    yield machine, chain, disk, writer
    if writer.is_alive():
        writer.stopping.set()


def finish(writer, machine, layer):
    """The guest stops writing, QEMU is killed, and the image that is the disk has every record."""
    writer.wait_more()
    writer.stop()
    machine.kill()
    writer.assert_all_in(images.read_image(layer.path, layer.format))


def test_pivot_under_writes(writing):
    machine, chain, disk, writer = writing
    job = disk.commit(active=True, speed=512 * KIB)
    writer.wait_more()
    job.set_speed(0)
    job.wait_ready()
    writer.wait_more()
    job.pivot()
    job.wait_completed("completed")
    assert disk["Source"] == chain.base.path
    assert job["GuestHold"] > 0
    finish(writer, machine, chain.base)


def test_auto_pivot_under_writes(writing):
    machine, chain, disk, writer = writing
    disk.commit(auto="pivot").wait_completed("completed")
    assert machine.active_file("vda") == chain.base.path
    finish(writer, machine, chain.base)


def test_keep_under_writes(writing):
    machine, chain, disk, writer = writing
    job = disk.commit(active=True)
    job.wait_ready()
    writer.wait_more()
    job.abort()
    job.wait_completed("kept")
    assert machine.active_file("vda") == chain.top.path
    finish(writer, machine, chain.top)
    # The copy is of one moment: all that was acknowledged before it, and nothing torn.
    copy = images.read_image(chain.base.path, chain.base.format)
    found = [int.from_bytes(copy[start:start + 8], "big")
             for start in range(16 * MIB, 16 * MIB + 1024 * 4 * KIB, 4 * KIB)]
    newest = max(found)
    assert newest > 0
    for slot, number in enumerate(found):
        expected = max(newest - (newest - slot) % 1024, 0)
        assert number == expected, f"slot {slot} has record {number} instead of {expected}, newest {newest}"


def test_cancel_under_writes(writing):
    machine, chain, disk, writer = writing
    job = disk.commit(active=True, speed=64 * KIB)
    writer.wait_more()
    job.abort()
    job.wait_completed("cancelled")
    finish(writer, machine, chain.top)


def test_many_rounds_under_writes(writing):
    """Snapshot and commit, again and again, while the guest writes: no record may be missing at the end."""
    machine, chain, disk, writer = writing
    for number in range(5):
        disk.commit(auto="pivot").wait_completed("completed")
        writer.wait_more(16)
        machine.snapshot("vda", f"{machine.directory}/round-{number}.qcow2")
        writer.wait_more(16)
    disk.commit(auto="pivot").wait_completed("completed")
    assert machine.active_file("vda") == chain.base.path
    finish(writer, machine, chain.base)


def test_early_pivot_does_not_hold_the_guest(writing):
    machine, chain, disk, writer = writing
    job = disk.commit(active=True, speed=64 * KIB)
    with refused("NotReady"):
        job.pivot()
    writer.wait_more()
    job.abort()
    finish(writer, machine, chain.top)
