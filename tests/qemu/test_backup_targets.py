# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a backup can be written to, and what is refused before anything is touched."""

import contextlib
import os
import socket

import pytest
from gi.repository import GLib

from kit import images
from kit.backup_targets import NbdServer, assert_backup, create, layer
from kit.bus import ROOT, BusError, refused
from kit.images import MIB
from kit.single_phase import SLOW, assert_each_refused, assert_nodes
from kit.space import SmallDisk


@pytest.fixture
def target(lab):
    return f"{lab.directory}/backup.image"


@contextlib.contextmanager
def opened(path, flags):
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_image_that_is_there(lab, target, image_format):
    """With "reuse" it is written over, all of it: nothing of what was in it shows through."""
    create(target, image_format, pattern=77)
    inode = os.stat(target).st_ino
    machine, chain, disk = lab.standard()
    disk.backup(target, reuse=True, format=image_format).wait_completed("completed")
    machine.kill()
    assert os.stat(target).st_ino == inode
    assert_backup(target, image_format, chain.contents[-1])


def test_form_of_the_source(lab, target):
    """A new qcow2 image is made like the source: its size, its clusters, their subclusters."""
    path = f"{lab.directory}/disk.qcow2"
    size = 16 * MIB + 512
    images.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=128k,extended_l2=on", path, str(size))
    chain = images.Chain(lab.directory)
    chain.layers.append(images.Layer(path, "qcow2", size))
    chain.contents.append(images.Contents(size))
    machine, _, disk = lab.standard(chain)
    machine.write("vda", 9, 16 * MIB, 512)
    machine.write("vda", 10, MIB, MIB)
    disk.backup(target).wait_completed("completed")
    machine.kill()
    found = images.information(layer(target))
    assert found["virtual-size"] == size and found["cluster-size"] == 128 * 1024
    assert found["format-specific"]["data"]["extended-l2"] is True
    assert_backup(target, "qcow2", chain.contents[-1])


@pytest.mark.parametrize("way", ["nbd+unix", "nbd"])
def test_another_machine(lab, target, way):
    """Over NBD, raw; an export that is larger than the disk keeps what is behind its end."""
    larger = images.SIZE + 8 * MIB
    create(target, "raw", larger, pattern=77)
    server = NbdServer(lab.directory, target)
    try:
        uri = server.uris()[way]
        machine, chain, disk = lab.standard()
        job = disk.backup(uri, format="raw", reuse=True)
        assert job["Target"] == uri
        job.wait_completed("completed")
        assert_nodes(machine, "vda-0", "vda-1")
        machine.kill()
    finally:
        server.stop()
    found = images.read_image(target, "raw")
    assert found[:images.SIZE] == chain.contents[-1]
    assert found[images.SIZE:] == bytes([77]) * (larger - images.SIZE)


def test_nobody_listens(lab):
    machine, _, disk = lab.standard()
    with refused("QemuError", "no.socket"):
        disk.backup(f"nbd+unix:///disk?socket={lab.directory}/no.socket", format="raw", reuse=True)
    assert_nodes(machine, "vda-0", "vda-1")


@pytest.mark.parametrize("values, image_format", [
    ({}, "qcow2"), ({"format": "raw"}, "raw"), ({"compress": True}, "qcow2"), ({"reuse": True}, "qcow2"),
], ids=["qcow2", "raw", "compressed", "reuse"])
def test_descriptor(lab, target, values, image_format):
    """The caller opens the file; the service needs no way to it by its name, but tells the name."""
    machine, chain, disk = lab.standard()
    if "reuse" in values:
        create(target, pattern=77)
    with opened(target, os.O_RDWR | os.O_CREAT) as descriptor:
        job = disk.backup_to_descriptor(descriptor, **values)
    assert job["Type"] == "backup" and job["Target"] == target and job["Source"] == chain.top.path
    job.wait_completed("completed")
    assert_nodes(machine, "vda-0", "vda-1")
    machine.kill()
    assert_backup(target, image_format, chain.contents[-1])


def test_descriptor_of_a_file_that_was_renamed(lab, target):
    """It is the file that is written, not what has come to stand under its name."""
    machine, chain, disk = lab.standard()
    with opened(target, os.O_RDWR | os.O_CREAT) as descriptor:
        os.rename(target, target + ".moved")
        with open(target, "wb") as other:
            other.write(b"something else")
        job = disk.backup_to_descriptor(descriptor)
    assert job["Target"] == target + ".moved"
    job.wait_completed("completed")
    machine.kill()
    with open(target, "rb") as other:
        assert other.read() == b"something else"
    assert_backup(target + ".moved", "qcow2", chain.contents[-1])


# Refused.

@pytest.fixture
def untouched(lab, target):
    """A disk that must be as it was afterwards: no job, no signal of one, no node, no new file."""
    machine, chain, disk = lab.standard()
    files = set(os.listdir(lab.directory))
    position = lab.client.position()
    yield disk
    assert not lab.client.heard(ROOT, "JobNew", position)
    assert_nodes(machine, "vda-0", "vda-1")
    assert disk.sources() == chain.paths() and disk["Job"] == "/"
    assert set(os.listdir(lab.directory)) == files
    # And it still can be had.
    disk.backup(target + "-after").wait_completed("completed")


SENSELESS = [
    ({"compress": True, "format": "raw"}, "compress"), ({"sync": "top", "format": "raw"}, "raw"),
    ({"sync": "none"}, "sync"), ({"sync": "incremental"}, "sync"), ({"sync": ""}, "sync"),
    ({"format": "vmdk"}, "format"), ({"format": ""}, "format"), ({"on-source-error": "never"}, "on-source-error"),
    ({"on-target-error": ""}, "on-target-error"), ({"speed": 1 << 63}, "speed"), ({"shallow": True}, "shallow"),
    ({"auto": "pivot"}, "auto"), ({"on-error": "stop"}, "on-error"), ({"reuse": "yes"}, "reuse"),
    ({"compress": GLib.Variant("i", 1)}, "compress"), ({"sync": True}, "sync"),
]


def test_options_that_make_no_sense(untouched, target):
    assert_each_refused("InvalidArgument", SENSELESS, lambda values: untouched.backup(target, **values))


def test_no_name_of_a_target(untouched):
    names = ("", "backup.image", "./backup.image", "http://example.org/backup", "file:/tmp/x",
             "json:{\"driver\":\"file\"}", "nbd", "fat:rw:/tmp")
    assert_each_refused("InvalidArgument", [(name, name) for name in names], untouched.backup)


def test_directory_that_is_missing(lab, untouched):
    with refused("InvalidArgument", f"{lab.directory}/missing"):
        untouched.backup(f"{lab.directory}/missing/backup.image")


def test_directory_as_a_target(lab, untouched):
    for values in ({}, {"reuse": True}):
        with pytest.raises(BusError) as error:
            untouched.backup(lab.directory, **values)
        assert error.value.short in ("Exists", "InvalidArgument", "QemuError") and lab.directory in str(error.value)


def test_reuse_of_nothing(untouched, target):
    with refused("NoSuchImage", target):
        untouched.backup(target, reuse=True)


@pytest.fixture
def there(target):
    """An image of which nothing is lost by a backup that is refused."""
    create(target, pattern=77)
    with open(target, "rb") as file:
        before = file.read()
    yield target
    with open(target, "rb") as file:
        assert file.read() == before


def test_image_that_is_there_without_reuse(lab, there):
    machine, _, disk = lab.standard()
    for values in ({}, {"reuse": False}, {"format": "raw"}):
        with refused("Exists", there):
            disk.backup(there, **values)
    assert_nodes(machine, "vda-0", "vda-1")


def test_image_of_another_format(lab, there):
    """What is said of it counts, not what it looks like: as raw it has another size."""
    machine, _, disk = lab.standard()
    with refused("InvalidArgument", there, images.SIZE, os.path.getsize(there)):
        disk.backup(there, reuse=True, format="raw")
    assert_nodes(machine, "vda-0", "vda-1")


def chain_of(lab, path):
    chain = images.Chain(lab.directory)
    chain.layers.append(layer(path))
    chain.contents.append(images.Contents(images.SIZE))
    return chain


@pytest.mark.parametrize("attached", [False, True])
def test_image_of_another_machine(lab, there, attached):
    machine, _, disk = lab.standard()
    other = lab.machine().add_virtio(chain_of(lab, there)).start()
    if attached:
        lab.attach(other)
    with refused("ImageInUse", there, *([other.name] if attached else [])):
        disk.backup(there, reuse=True)
    assert_nodes(machine, "vda-0", "vda-1")
    other.quit()


def test_image_of_another_disk(lab, there):
    machine = lab.machine().add_virtio(images.two_layers(lab.directory))
    machine.add_virtio(chain_of(lab, there), "vdb").start()
    with refused("ImageInUse", there, "vdb"):
        lab.attach(machine).disk("vda").backup(there, reuse=True)
    assert_nodes(machine, "vda-0", "vda-1", "vdb-0")
    machine.quit()


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_size_that_is_not_the_disks(lab, target, image_format):
    machine, _, disk = lab.standard()
    for size in (images.SIZE - 512, images.SIZE + 512):
        create(target, image_format, size)
        with refused("InvalidArgument", target, size, images.SIZE):
            disk.backup(target, reuse=True, format=image_format)
        assert_nodes(machine, "vda-0", "vda-1")
        assert images.information(layer(target, image_format))["virtual-size"] == size


def test_image_of_the_disk_itself(untouched):
    active, base = untouched.sources()
    folder, name = os.path.split(active)
    dots = f"{folder}/../{os.path.basename(folder)}/{name}"
    assert_each_refused("InvalidArgument", [(active, active), (base, base), (dots, name)],
                        lambda path: untouched.backup(path, reuse=True))
    with opened(active, os.O_RDWR) as descriptor, refused("InvalidArgument", active):
        untouched.backup_to_descriptor(descriptor)


def test_descriptor_that_cannot_be_a_target(lab):
    """Not to be written, not to be read, to be written at its end only, or nothing that has a size."""
    path = create(f"{lab.directory}/there.image", "raw")
    machine, _, disk = lab.standard()
    with contextlib.ExitStack() as stack:
        cases = {f"{name} {flags:#x}": stack.enter_context(opened(name, flags)) for name, flags in (
            (path, os.O_RDONLY), (path, os.O_WRONLY), (path, os.O_RDWR | os.O_APPEND), (lab.directory, os.O_RDONLY),
            ("/dev/null", os.O_RDWR))}
        cases["pipe"], other = os.pipe()
        stack.callback(os.close, cases["pipe"])
        stack.callback(os.close, other)
        cases["socket"] = stack.enter_context(socket.socket(socket.AF_UNIX)).fileno()
        assert_each_refused("InvalidArgument", [(kind, "") for kind in cases],
                            lambda kind: disk.backup_to_descriptor(cases[kind]))
    assert_nodes(machine, "vda-0", "vda-1")
    assert disk["Job"] == "/"


def test_disk_that_is_busy(lab, target):
    machine, chain, disk = lab.slow()
    job = disk.backup(target, speed=MIB)
    for start in (lambda: disk.backup(target + "-other"), lambda: disk.commit(active=True), disk.pull):
        with refused("JobActive", job["Id"]):
            start()
    assert job["State"] == "running" and not os.path.exists(target + "-other")
    job.abort()
    commit = disk.commit(active=True, speed=SLOW)
    with refused("JobActive", commit["Id"]):
        disk.backup(target + "-other")
    assert not os.path.exists(target + "-other")


def test_drive_without_a_medium(lab, target):
    machine = lab.machine().add_empty_cd("cd").start()
    with refused("InvalidState", "cd"):
        lab.attach(machine).disk("cd").backup(target)
    assert not os.path.exists(target)


def test_start_that_fails(lab):
    """The file can be made, but not the image in it: it is removed again, and so is what QEMU had of it."""
    machine, chain, disk = lab.standard()
    small = SmallDisk(f"{lab.directory}/small", 96)
    try:
        small.fill()
        target = f"{small.path}/backup.image"
        with refused("NoSpace", os.strerror(28)):
            disk.backup(target)
        assert not os.path.exists(target)
        assert_nodes(machine, "vda-0", "vda-1")
        small.free()
        small.resize(64 * 1024)
        disk.backup(target).wait_completed("completed")
        machine.kill()
        assert_backup(target, "qcow2", chain.contents[-1])
    finally:
        machine.kill()
        small.remove()


def test_start_that_fails_in_a_file_of_the_callers(lab):
    """What somebody else has made is never removed."""
    machine, chain, disk = lab.standard()
    small = SmallDisk(f"{lab.directory}/small", 96)
    try:
        target = f"{small.path}/backup.image"
        with opened(target, os.O_RDWR | os.O_CREAT) as descriptor:
            small.fill()
            with refused("NoSpace", os.strerror(28)):
                disk.backup_to_descriptor(descriptor)
        assert os.path.exists(target)
        assert_nodes(machine, "vda-0", "vda-1")
    finally:
        machine.kill()
        small.remove()


def test_file_that_qemu_may_not_make(lab):
    """QEMU's own words; a folder on a mount that cannot be written to."""
    folder = f"{lab.directory}/folder"
    os.mkdir(folder)
    images.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder)
    try:
        machine, _, disk = lab.standard()
        with refused("QemuError", f"{folder}/backup.image", os.strerror(30)):
            disk.backup(f"{folder}/backup.image")
        assert_nodes(machine, "vda-0", "vda-1")
    finally:
        images.run("umount", "-l", folder)
