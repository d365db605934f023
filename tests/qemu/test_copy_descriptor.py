# SPDX-License-Identifier: LGPL-2.1-or-later
"""CopyToFd: the caller opens the file, and the service needs no way to it by a name."""

import os
import socket

import pytest

from kit import images
from kit.bus import ROOT, refused
from kit.images import MIB, Layer, SIZE
from kit.targets import SLOWLY, BlockDevice, assert_disk, assert_free, child_of, prepare, read_file
from kit.waiting import wait_until


@pytest.fixture
def path(lab):
    return f"{lab.directory}/target"


@pytest.fixture
def opened():
    """Opens descriptors, and closes them in the end."""
    descriptors = []

    def keep(path, flags=os.O_RDWR | os.O_CREAT):
        descriptors.append(os.open(path, flags, 0o600))
        return descriptors[-1]

    yield keep
    for descriptor in descriptors:
        os.close(descriptor)


def pivot(job):
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")


def source_of_disk(machine):
    """What QEMU calls the file that the guest writes to."""
    node = machine.block("vda")["inserted"]["node-name"]
    return machine.nodes()[child_of(machine, node, "file")]["file"]


@pytest.mark.parametrize("values, image_format", [
    ({}, "qcow2"), ({"format": "raw"}, "raw"), ({"shallow": True}, "qcow2"),
], ids=["qcow2", "raw", "shallow"])
def test_pivot(lab, path, opened, values, image_format):
    machine, chain, disk = lab.standard()
    job = disk.copy_to_descriptor(opened(path), **values)
    assert job["Type"] == "copy" and job["Source"] == chain.top.path and job["Target"] == path
    job.wait_ready()
    machine.write("vda", 9, 20 * MIB, MIB)
    job.pivot()
    paths = [path, chain.base.path] if values.get("shallow") else [path]
    assert disk.sources() == paths and disk["Source"] == path and disk["Format"] == image_format
    assert disk["Capacity"] == SIZE
    # QEMU knows the descriptor, and none of its names.
    assert source_of_disk(machine).startswith("/dev/fdset/")
    assert not {"vda-1", "vda-1-file"} & set(machine.nodes())
    machine.write("vda", 10, 21 * MIB, MIB)
    machine.quit()
    assert disk["Source"] == path
    target = Layer(path, image_format, SIZE)
    images.assert_contents(target, chain.contents[-1])
    assert images.backing_string(target) == (chain.base.path if values.get("shallow") else "")


@pytest.mark.parametrize("end", ["keep", "cancel"])
def test_keep(lab, path, opened, end):
    """QEMU lets go of the descriptor, which it does while the guest runs only."""
    machine, chain, disk = lab.standard()
    machine.qmp.execute("cont")
    job = disk.copy_to_descriptor(opened(path), **(SLOWLY if end == "cancel" else {}))
    if end == "keep":
        job.wait_ready()
        machine.write("vda", 9, 20 * MIB, MIB)
    before = chain.contents[-1].copy()
    job.abort()
    job.wait_completed("kept" if end == "keep" else "cancelled")
    assert_disk(machine, disk, *chain.paths())
    assert machine.qmp.execute("query-fdsets") == []
    assert_free(path)
    if end == "keep":
        images.assert_contents(Layer(path, "qcow2", SIZE), before)


def test_what_was_in_it(lab, path, opened):
    """It is overwritten, and cut where it was longer."""
    for image_format in ("raw", "qcow2"):
        name = f"{path}.{image_format}"
        with open(name, "wb") as file:
            file.write(bytes([77]) * (SIZE + MIB))
        machine, chain, disk = lab.standard(images.two_layers(lab.directory, image_format))
        disk.copy_to_descriptor(opened(name), format=image_format, auto="keep").wait_completed("kept")
        machine.quit()
        images.assert_contents(Layer(name, image_format, SIZE), chain.contents[-1])
        assert image_format == "qcow2" or os.path.getsize(name) == SIZE


def test_descriptor_of_a_renamed_file(lab, path, opened):
    """It is the file that is written, and not what has come under its name."""
    machine, chain, disk = lab.standard()
    descriptor = opened(path)
    os.rename(path, f"{path}-moved")
    with open(path, "w") as other:
        other.write("something else")
    job = disk.copy_to_descriptor(descriptor)
    assert job["Target"] == f"{path}-moved"
    pivot(job)
    assert disk["Source"] == f"{path}-moved"
    machine.quit()
    assert read_file(path) == b"something else"
    images.assert_contents(Layer(f"{path}-moved", "qcow2", SIZE), chain.contents[-1])


@pytest.mark.parametrize("end", ["pivot", "keep"])
def test_file_without_a_name(lab, opened, end):
    """It works: the caller has what is in it by the descriptor. What the kernel tells for a path says that there is
    none."""
    machine, chain, disk = lab.standard()
    descriptor = opened(lab.directory, os.O_RDWR | os.O_TMPFILE)
    job = disk.copy_to_descriptor(descriptor, format="raw")
    assert job["Target"] == os.readlink(f"/proc/self/fd/{descriptor}") and job["Target"].endswith(" (deleted)")
    job.wait_ready()
    if end == "pivot":
        job.pivot()
        assert disk.sources() == [job["Target"]]
        machine.write("vda", 9, 20 * MIB, MIB)
        machine.quit()
    else:
        job.abort()
        job.wait_completed("kept")
        assert_disk(machine, disk, *chain.paths())
    assert os.pread(descriptor, 2 * SIZE, 0) == chain.contents[-1]


def test_descriptor_of_a_block_device(lab, path, opened):
    with BlockDevice(path, SIZE + MIB):
        machine, chain, disk = lab.standard()
        pivot(disk.copy_to_descriptor(opened(path, os.O_RDWR), format="raw"))
        assert disk["Source"] == path and disk["Capacity"] == SIZE
        machine.write("vda", 9, 20 * MIB, MIB)
        machine.quit()
        assert read_file(path, 0, SIZE) == chain.contents[-1]


def test_after_a_restart_of_the_service(lab, path, opened):
    """The name of what QEMU knows as a number is not forgotten, and the next jobs work on it."""
    machine, chain, disk = lab.standard()
    machine.qmp.execute("cont")
    pivot(disk.copy_to_descriptor(opened(path)))
    lab.service.restart()
    assert disk["Source"] == path and disk.sources() == [path]
    with refused("InvalidArgument", path):
        disk.copy(path, reuse=True)
    disk.snapshot(f"{path}-overlay")
    assert disk.sources() == [f"{path}-overlay", path]
    machine.write("vda", 9, 20 * MIB, MIB)
    disk.commit(auto="pivot").wait_completed("completed")
    assert disk.sources() == [path]
    pivot(disk.copy(f"{path}-2"))
    assert_disk(machine, disk, f"{path}-2")
    assert machine.qmp.execute("query-fdsets") == []
    machine.quit()
    images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])
    images.assert_contents(Layer(f"{path}-2", "qcow2", SIZE), chain.contents[-1])


# Refused.

def test_wrong_descriptors(lab, path, opened):
    machine, chain, disk = lab.standard()
    there = prepare(path).path
    content = read_file(there)
    position = lab.client.position()
    reader, writer = os.pipe()
    one, other = socket.socketpair()
    with one, other, os.fdopen(reader), os.fdopen(writer, "w"):
        descriptors = {
            "pipe": writer, "socket": one.fileno(), "directory": opened(lab.directory, os.O_RDONLY),
            "character device": opened("/dev/zero", os.O_RDWR), "read-only": opened(there, os.O_RDONLY),
            "write-only": opened(there, os.O_WRONLY), "path alone": opened(there, os.O_PATH),
            "appending": opened(there, os.O_RDWR | os.O_APPEND), "source": opened(chain.top.path, os.O_RDWR),
            "backing file": opened(chain.base.path, os.O_RDWR),
        }
        wrong = []
        for what, descriptor in descriptors.items():
            try:
                with refused("InvalidArgument"):
                    disk.copy_to_descriptor(descriptor)
            except AssertionError as error:
                wrong.append(f"{what}: {error}")
        assert not wrong, "\n".join(wrong)
    for values, word in (({"reuse": True}, "reuse"), ({"format": "raw", "shallow": True}, "raw"),
                         ({"relative": True}, "relative"), ({"sync": "full"}, "sync")):
        with refused("InvalidArgument", word):
            disk.copy_to_descriptor(opened(there), **values)
    assert_disk(machine, disk, *chain.paths())
    assert machine.qmp.execute("query-fdsets") == []
    assert not lab.client.heard(ROOT, "JobNew", position)
    assert read_file(there) == content
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


def test_descriptor_of_an_image_in_use(lab, path, opened):
    """Of another disk here, or of a QEMU that the service does not know."""
    there = prepare(path)
    machine, _, disk = lab.standard()
    machine.qmp.execute("cont")
    other_chain = images.Chain(lab.directory)
    other_chain.layers.append(there)
    other_chain.contents.append(images.Contents(SIZE))
    other = lab.machine().add_virtio(other_chain).start()
    for known in (False, True):
        if known:
            lab.attach(other)
        with refused("ImageInUse", path, *([other.name] if known else [])):
            disk.copy_to_descriptor(opened(path))
        assert disk["Job"] == "/" and machine.jobs() == {} and machine.qmp.execute("query-fdsets") == []
        assert {name for name in machine.nodes() if not name.startswith("vda-")} == set()
    other.quit()
    images.assert_contents(there, images.Contents(SIZE))


def test_service_lets_go_of_the_descriptor(lab, path, opened):
    """When QEMU has it, and where the copy does not start: a file that is removed may not take room for an hour."""
    _, _, disk = lab.standard()
    directory = f"/proc/{lab.service.pid()}/fd"

    def held():
        return [name for name in (os.readlink(f"{directory}/{number}") for number in os.listdir(directory))
                if name.startswith(lab.directory)]

    with refused("InvalidArgument"):
        disk.copy_to_descriptor(opened(path, os.O_RDONLY | os.O_CREAT))
    wait_until(lambda: not held(), "the service to close what it refused", 2)
    job = disk.copy_to_descriptor(opened(path))
    wait_until(lambda: not held(), "the service to close what QEMU has", 2)
    job.wait_ready()
    job.abort()
    job.wait_completed("kept")
    assert not held()
