# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pulls that cannot be, which are refused before anything is touched, and pulls that end in an error."""

import hashlib
import os

import pytest
from gi.repository import GLib

from kit import images
from kit.bus import ROOT, refused
from kit.images import MIB
from kit.single_phase import SLOW, assert_each_refused, assert_nodes, faulty_disk
from kit.space import SmallDisk


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


@pytest.fixture
def untouched(lab):
    """A disk of three layers that must be as it was afterwards, down to the last byte of its files."""
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    digests = [digest(path) for path in chain.paths()]
    position = lab.client.position()
    yield disk
    assert not lab.client.heard(ROOT, "JobNew", position)
    assert_nodes(machine, "vda-0", "vda-1", "vda-2")
    assert disk.sources() == chain.paths() and disk["Job"] == "/"
    assert [layer["read-only"] for layer in disk["Chain"]] == [False, True, True]
    assert [digest(path) for path in chain.paths()] == digests
    # And it still can be pulled.
    disk.pull().wait_completed("completed")


def test_base_that_is_not_below_top(untouched):
    cases = ({"base": "[0]"}, {"base": "node:vda-2"}, {"top": "[1]", "base": "[1]"}, {"top": "[1]", "base": "[0]"})
    assert_each_refused("InvalidArgument", [(values, "base") for values in cases],
                        lambda values: untouched.pull(**values))


@pytest.mark.parametrize("option", ["base", "top"])
def test_no_such_image(untouched, option):
    for name in ("[3]", "/no/such/file", "node:nothing"):
        with refused("NoSuchImage", option, name, *untouched.sources()):
            untouched.pull(**{option: name})
    with refused("InvalidArgument", option, "vdb[1]"):
        untouched.pull(**{option: "vdb[1]"})


SENSELESS = [
    ({"relative": True}, "relative"), ({"backing": "base.qcow2"}, "backing"),
    ({"top": "[1]", "relative": True}, "relative"),
    ({"base": "[2]", "relative": True, "backing": "base.qcow2"}, "relative"),
    ({"base": "[2]", "backing": "x" * 1100}, "backing"), ({"base": "[2]", "backing": "x" * 1024}, "backing"),
    ({"delete": True}, "delete"), ({"shallow": True}, "shallow"), ({"active": True}, "active"),
    ({"auto": "pivot"}, "auto"), ({"on-error": "never"}, "on-error"), ({"speed": 1 << 63}, "speed"),
    ({"top": True}, "top"), ({"relative": "yes"}, "relative"), ({"speed": GLib.Variant("u", 1)}, "speed"),
]


def test_options_that_make_no_sense(untouched):
    assert_each_refused("InvalidArgument", SENSELESS, lambda values: untouched.pull(**values))


def test_longest_backing_string(lab):
    """1023 bytes is what a header takes."""
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    name = chain.base.path.replace("/disk-0", "/" + "./" * 500 + "disk-0")[:1023 - len("disk-0.qcow2")]
    name = name[:name.rindex("/") + 1].ljust(1023 - len("disk-0.qcow2"), "/") + "disk-0.qcow2"
    assert len(name) == 1023
    disk.pull(base="[2]", backing=name).wait_completed("completed")
    machine.kill()
    assert images.backing_string(chain.top) == name
    images.assert_contents(chain.top, chain.contents[-1])


@pytest.mark.parametrize("top", [None, "[2]"])
def test_nothing_below(lab, top):
    chain = images.layers(lab.directory, 1 if top is None else 3)
    machine, _, disk = lab.standard(chain)
    with refused("InvalidArgument", chain.base.path):
        disk.pull(top=top)
    assert machine.jobs() == {} and disk["Job"] == "/"


def test_two_layers_that_are_one_file(lab):
    chain = images.layers(lab.directory, 3)
    double = f"{lab.directory}/double.qcow2"
    os.link(chain.layers[1].path, double)
    chain.layers.insert(2, images.Layer(double, "qcow2", images.SIZE))
    machine, _, disk = lab.standard(chain)
    for option in ("base", "top"):
        with refused("Ambiguous", option, double):
            disk.pull(**{option: double})
    assert machine.jobs() == {}


def test_drive_without_a_medium(lab):
    machine = lab.machine().add_empty_cd("cd").start()
    with refused("InvalidState", "cd"):
        lab.attach(machine).disk("cd").pull()


def test_disk_that_is_busy(lab):
    machine, chain, disk = lab.slow()
    job = disk.pull(speed=SLOW)
    with refused("JobActive", job["Id"]):
        disk.pull()
    with refused("JobActive", job["Id"]):
        disk.commit(active=True)
    assert job["State"] == "running" and len(machine.jobs()) == 1
    job.abort()
    commit = disk.commit(active=True, speed=SLOW)
    with refused("JobActive", commit["Id"]):
        disk.pull()
    commit.abort()
    disk.pull().wait_completed("completed")


def test_job_of_somebody_else_further_down(lab):
    """What it works on is not to be pulled; it goes on."""
    chain = images.slow_layers(lab.directory).add([(3, 8 * MIB, MIB)])
    machine, _, disk = lab.standard(chain)
    machine.qmp.execute("block-stream", job_id="theirs", device="vda-1", speed=SLOW, auto_dismiss=False)
    with refused("JobActive", "theirs"):
        disk.pull()
    assert machine.jobs()["theirs"]["status"] == "running"


@pytest.fixture
def middle_layer_that_stays_read_only(lab):
    """(machine, chain, disk): the middle one of three layers is on a mount that cannot be written to."""
    chain = images.layers(lab.directory, 3)
    path = chain.layers[1].path
    images.run("mount", "--bind", path, path)
    try:
        images.run("mount", "-o", "remount,bind,ro", path)
        yield lab.standard(chain)
    finally:
        images.run("umount", "-l", path)


def test_middle_layer_that_cannot_be_written(middle_layer_that_stays_read_only):
    machine, chain, disk = middle_layer_that_stays_read_only
    digests = [digest(path) for path in chain.paths()]
    with refused("InvalidState", chain.layers[1].path, os.strerror(30)):
        disk.pull(top="[1]")
    assert_nodes(machine, "vda-0", "vda-1", "vda-2")
    assert disk.sources() == chain.paths() and disk["Job"] == "/"
    assert machine.nodes()["vda-1"]["ro"] is True
    assert [digest(path) for path in chain.paths()] == digests
    # It is to be read only, so the guest's own image can be filled from it.
    disk.pull().wait_completed("completed")
    machine.kill()
    images.assert_contents(chain.top, chain.contents[-1])


def test_middle_layer_that_another_process_uses(lab):
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    lower = images.Chain(lab.directory)
    lower.layers, lower.contents = chain.layers[:2], chain.contents[:2]
    other = lab.machine().add_virtio(lower, read_only=True).start()
    with refused("ImageInUse"):
        disk.pull(top="[1]")
    assert_nodes(machine, "vda-0", "vda-1", "vda-2")
    assert machine.nodes()["vda-1"]["ro"] is True
    other.quit()
    disk.pull(top="[1]").wait_completed("completed")
    machine.kill()
    images.assert_contents(chain.top, chain.contents[-1])


# Errors on the way.

EIO, ENOSPC = 5, 28


def assert_unchanged(machine, chain, disk):
    assert set(machine.nodes()) == {"vda-0", "vda-0-file", "vda-0-faults", "vda-1", "vda-1-file"}
    assert machine.jobs() == {}
    assert disk.sources() == chain.paths() and disk["Job"] == "/"
    assert images.backing_string(chain.top) == chain.base.path


@pytest.mark.parametrize("policy", [None, "report", "enospc", "ignore"])
def test_base_that_cannot_be_read(lab, policy):
    """With "ignore" QEMU goes on to the end, and leaves the header as it is: something is missing."""
    machine, chain, disk = faulty_disk(lab, EIO)
    job = disk.pull(on_error=policy)
    result, error, message = job.wait_completed("failed")
    assert error == "org.blockjobd1.Error.QemuError" and os.strerror(EIO) in message
    assert_unchanged(machine, chain, disk)
    machine.write("vda", 9, 20 * MIB, MIB)
    # The fault was there once.
    disk.pull(on_error=policy).wait_completed("completed")
    machine.kill()
    images.assert_contents(chain.top, chain.contents[-1])


@pytest.mark.parametrize("policy, error_number, io_status", [
    ("stop", EIO, "failed"), ("stop", ENOSPC, "nospace"), ("enospc", ENOSPC, "nospace"),
])
def test_stopped_and_resumed(lab, policy, error_number, io_status):
    machine, chain, disk = faulty_disk(lab, error_number)
    job = disk.pull(on_error=policy)
    job.wait("IoStatus", io_status)
    job.wait("State", "paused")
    machine.write("vda", 9, 20 * MIB, MIB)
    job.resume()
    job.wait_completed("completed")
    assert job["IoStatus"] == "ok"
    machine.kill()
    assert images.backing_string(chain.top) == ""
    images.assert_contents(chain.top, chain.contents[-1])


def test_stopped_and_aborted(lab):
    machine, chain, disk = faulty_disk(lab, EIO, once=False)
    job = disk.pull(on_error="stop")
    job.wait("State", "paused")
    # The fault is still there: it stops again.
    job.resume()
    job.wait("State", "paused")
    assert job["IoStatus"] == "failed"
    job.abort()
    job.wait_completed("cancelled")
    assert_unchanged(machine, chain, disk)


@pytest.fixture
def tight(lab):
    """(machine, chain, disk, small disk): 4 MiB are to be pulled into an overlay that can grow by one."""
    small = SmallDisk(f"{lab.directory}/small", 1536)
    chain = images.Chain(lab.directory).add([(1, 0, 4 * MIB)]).add(file_name="small/top.qcow2")
    machine, _, disk = lab.standard(chain)
    yield machine, chain, disk, small
    machine.kill()
    small.remove()


def test_no_room(tight):
    machine, chain, disk, small = tight
    job = disk.pull()
    result, error, message = job.wait_completed("failed")
    assert error == "org.blockjobd1.Error.NoSpace" and os.strerror(ENOSPC) in message
    assert_nodes(machine, "vda-0", "vda-1")
    assert images.backing_string(chain.top) == chain.base.path
    small.resize(64 * 1024)
    images.assert_contents(chain.top, chain.contents[-1])
    disk.pull().wait_completed("completed")
    machine.kill()
    images.assert_contents(chain.top, chain.contents[-1])


def test_no_room_for_a_while(tight):
    machine, chain, disk, small = tight
    job = disk.pull(on_error="enospc")
    job.wait("IoStatus", "nospace")
    job.wait("State", "paused")
    small.resize(64 * 1024)
    job.resume()
    job.wait_completed("completed")
    machine.kill()
    images.assert_contents(chain.top, chain.contents[-1])
