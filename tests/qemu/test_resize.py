# SPDX-License-Identifier: LGPL-2.1-or-later
"""Resize: the size that the guest sees."""

import pytest

from kit import images
from kit.bus import refused
from kit.every_job import SLOW
from kit.images import MIB


def single(lab, image_format, **keywords):
    """(machine, chain, disk): one layer with data at its start and at its end."""
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, 2 * MIB), (2, images.SIZE - MIB, MIB)], image_format=image_format)
    return lab.standard(chain, **keywords)


def resized(machine, size):
    """The model after that."""
    chain = machine.chains["vda"]
    contents = chain.contents[-1]
    del contents[size:]
    contents.extend(bytes(size - len(contents)))
    chain.top.size = size
    return chain.top, contents


def assert_size(machine, disk, size):
    assert disk["Capacity"] == size
    assert disk["Chain"][0]["virtual-size"] == size
    assert machine.block("vda")["inserted"]["image"]["virtual-size"] == size


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_larger(lab, image_format):
    machine, _, disk = single(lab, image_format)
    position = lab.client.position()
    disk.resize(48 * MIB)
    # The reply says that it is so, and it was told before.
    assert disk.changes("Capacity", position) == [48 * MIB]
    assert_size(machine, disk, 48 * MIB)
    assert disk["Job"] == "/"
    layer, contents = resized(machine, 48 * MIB)
    machine.write("vda", 9, 47 * MIB, MIB)
    machine.quit()
    images.assert_contents(layer, contents)


def test_size_outlives_qemu(lab):
    machine, _, disk = single(lab, "qcow2")
    disk.resize(48 * MIB)
    machine.kill()
    lab.domain_of(machine).wait("State", "crashed")
    assert disk["Capacity"] == 48 * MIB
    images.assert_contents(*resized(machine, 48 * MIB))


def test_overlay_alone_grows(lab):
    """The layers below stay as they are, and end before the disk does."""
    machine, chain, disk = lab.standard()
    disk.resize(48 * MIB)
    assert [layer["virtual-size"] for layer in disk["Chain"]] == [48 * MIB, images.SIZE]
    layer, contents = resized(machine, 48 * MIB)
    machine.write("vda", 9, 40 * MIB, MIB)
    machine.quit()
    images.assert_contents(layer, contents)
    images.assert_contents(chain.base, chain.contents[0])


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_smaller(lab, image_format):
    machine, _, disk = single(lab, image_format)
    for values in ({}, {"shrink": False}):
        with refused("InvalidArgument", "shrink", images.SIZE):
            disk.resize(16 * MIB, **values)
    assert_size(machine, disk, images.SIZE)
    disk.resize(16 * MIB, shrink=True)
    assert_size(machine, disk, 16 * MIB)
    layer, contents = resized(machine, 16 * MIB)
    machine.quit()
    images.assert_contents(layer, contents)


@pytest.mark.parametrize("values", [{}, {"shrink": True}])
def test_same_size(lab, values):
    machine, chain, disk = single(lab, "qcow2")
    disk.resize(images.SIZE, **values)
    assert_size(machine, disk, images.SIZE)
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


@pytest.mark.parametrize("size", [0, 1, 511, 48 * MIB + 1, 48 * MIB - 511, (1 << 63), (1 << 64) - 512])
def test_no_size_of_a_disk(lab, size):
    machine, _, disk = single(lab, "qcow2")
    with refused("InvalidArgument", size):
        disk.resize(size, shrink=True)
    assert_size(machine, disk, images.SIZE)


@pytest.mark.parametrize("key", ["grow", "shrink"])
def test_option_that_is_not_right(lab, key):
    machine, _, disk = single(lab, "qcow2")
    with refused("InvalidArgument", key):
        disk.resize(48 * MIB, **{key: "yes"})
    assert_size(machine, disk, images.SIZE)


def test_size_that_no_file_has(lab):
    """QEMU's own words, and the old size."""
    machine, _, disk = single(lab, "raw")
    with refused("QemuError"):
        disk.resize((1 << 63) - 512)
    assert_size(machine, disk, images.SIZE)


def test_with_a_job_on_the_disk(lab):
    machine, _, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    with refused("JobActive", job["Id"]):
        disk.resize(48 * MIB)
    assert job["State"] == "running"
    assert_size(machine, disk, images.SIZE)
    job.abort()
    disk.resize(48 * MIB)
    assert_size(machine, disk, 48 * MIB)


def test_read_only_disk(lab):
    machine, _, disk = lab.standard(read_only=True)
    with refused("InvalidState", "vda"):
        disk.resize(48 * MIB)
    assert_size(machine, disk, images.SIZE)


def test_drive_without_a_medium(lab):
    machine = lab.machine().add_empty_cd("cd").start()
    with refused("InvalidState", "cd"):
        lab.attach(machine).disk("cd").resize(48 * MIB)


def test_of_a_machine_that_has_ended(lab):
    machine, _, disk = single(lab, "qcow2")
    machine.kill()
    lab.domain_of(machine).wait("State", "crashed")
    with refused("InvalidState"):
        disk.resize(48 * MIB)


def test_through_a_throttle(lab):
    """The filter stays, and shows the new size to the guest."""
    machine, _, disk = single(lab, "qcow2", throttle={"bps-total": 100 * MIB})
    disk.resize(48 * MIB)
    assert_size(machine, disk, 48 * MIB)
    assert disk["Filters"] == ["throttle"]
    layer, contents = resized(machine, 48 * MIB)
    machine.write("vda", 9, 47 * MIB, MIB)
    machine.quit()
    images.assert_contents(layer, contents)


def test_legacy_drive(lab):
    machine = lab.machine().add_legacy(images.two_layers(lab.directory), "drive0").start()
    disk = lab.attach(machine).disk("drive0")
    disk.resize(48 * MIB)
    assert disk["Capacity"] == machine.block("drive0")["inserted"]["image"]["virtual-size"] == 48 * MIB


def test_snapshot_and_commit_afterwards(lab):
    """The overlay has the size that the disk has now, and not the one in the images below."""
    machine, chain, disk = single(lab, "qcow2")
    disk.resize(48 * MIB)
    resized(machine, 48 * MIB)
    disk.snapshot(f"{lab.directory}/new.qcow2")
    assert_size(machine, disk, 48 * MIB)
    disk.resize(64 * MIB)
    machine.write("vda", 9, 10 * MIB, MIB)
    disk.commit(auto="pivot").wait_completed("completed")
    assert_size(machine, disk, 64 * MIB)
    layer, contents = resized(machine, 64 * MIB)
    machine.quit()
    images.assert_contents(layer, contents)
