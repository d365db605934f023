# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a disk can be copied to: new images in the form of the old one, prepared ones, block devices, servers."""

import os

import pytest

from kit import images
from kit.bus import options
from kit.images import KIB, MIB, Layer, SIZE
from kit.targets import SLOWLY, BlockDevice, NbdServer, assert_disk, assert_free, open_files, prepare, read_file
from kit.waiting import stays


@pytest.fixture
def path(lab):
    return f"{lab.directory}/target"


def pivot(job):
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")


# New files.

@pytest.mark.parametrize("shallow", [False, True], ids=["full", "shallow"])
def test_form_of_the_source(lab, path, shallow):
    """Size, clusters and subclusters; the size need not be one of whole clusters."""
    size = 16 * MIB + 512
    chain = images.Chain(lab.directory).add([(1, 0, 4 * MIB)], size=size)
    overlay = Layer(f"{lab.directory}/overlay.qcow2", "qcow2", size)
    images.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=128k,extended_l2=on",
               "-b", chain.base.path, "-F", "qcow2", overlay.path)
    chain.layers.append(overlay)
    chain.contents.append(chain.contents[-1].copy())
    machine, _, disk = lab.standard(chain)
    machine.write("vda", 9, 16 * MIB, 512)
    machine.write("vda", 10, 3 * MIB + 4 * KIB, 4 * KIB)
    pivot(disk.copy(path, shallow=shallow))
    assert disk["Capacity"] == size
    machine.write("vda", 11, 3 * MIB, 4 * KIB)
    machine.quit()
    target = Layer(path, "qcow2", size)
    found = images.information(target)
    assert found["virtual-size"] == size and found["cluster-size"] == 128 * KIB
    assert found["format-specific"]["data"]["extended-l2"] is True
    images.assert_contents(target, chain.contents[-1])
    images.assert_sound(target)


@pytest.mark.parametrize("image_format", [None, "qcow2", "raw"])
def test_format(lab, path, image_format):
    """The default is that of the source."""
    chain = images.Chain(lab.directory).add([(1, 0, 4 * MIB)], image_format="raw")
    machine, _, disk = lab.standard(chain)
    pivot(disk.copy(path, format=image_format))
    assert disk["Format"] == (image_format or "raw")
    machine.quit()
    images.assert_contents(Layer(path, image_format or "raw", SIZE), chain.contents[-1])


def test_raw_file(lab, path):
    """Its bytes are the disk's, also where they look like the header of an image; and what is empty takes no room."""
    machine, chain, disk = lab.standard()
    job = disk.copy(path, format="raw")
    job.wait_ready()
    header = Layer(f"{lab.directory}/header.qcow2", "qcow2", MIB)
    images.run("qemu-img", "create", "-q", "-f", "qcow2", header.path, str(MIB))
    line = f'qemu-io {machine.write_names["vda"]} "write -s {header.path} 0 64k"'
    seen = len(machine.output())
    assert "wrote 65536" in machine.qmp.human(line) + machine.output()[seen:]
    written = read_file(header.path, 0, 64 * KIB)
    chain.contents[-1][:64 * KIB] = written.ljust(64 * KIB, written[-1:])
    job.pivot()
    assert_disk(machine, disk, path)
    assert disk["Format"] == "raw" and disk["Capacity"] == SIZE
    machine.quit()
    assert read_file(path) == chain.contents[-1]
    assert os.stat(path).st_blocks * 512 < SIZE // 2


NAMES = ["with, comma,file=x and 'both' kinds of \"quotes\"", "  spaces, ünïcödé, 磁碟, 💾 ",
         "json:{100%20}\\n\nin two lines"]


@pytest.mark.parametrize("name", NAMES, ids=["quotes", "letters", "json"])
def test_name_of_the_file(lab, name):
    machine, chain, disk = lab.standard()
    path = f"{lab.directory}/{name}"
    job = disk.copy(path, shallow=True)
    assert job["Target"] == path
    pivot(job)
    assert_disk(machine, disk, path, chain.base.path)
    # And as the file on which the next target stands.
    machine.snapshot("vda", f"{lab.directory}/overlay.qcow2")
    pivot(disk.copy(f"{lab.directory}/sub {name}", shallow=True, relative=True))
    assert disk.sources()[:2] == [f"{lab.directory}/sub {name}", path]
    machine.quit()
    images.assert_contents(Layer(f"{lab.directory}/sub {name}", "qcow2", SIZE), chain.contents[-1])


# What is there already.

@pytest.mark.parametrize("end", ["pivot", "keep"])
@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_prepared_image(lab, path, image_format, end):
    """It is written over, all of it: nothing of what was in it shows through, and it is the same file."""
    target = prepare(path, image_format, pattern=77)
    inode = os.stat(path).st_ino
    machine, chain, disk = lab.standard()
    job = disk.copy(path, reuse=True, format=image_format)
    job.wait_ready()
    machine.write("vda", 9, 20 * MIB, MIB)
    if end == "pivot":
        job.pivot()
        assert_disk(machine, disk, path)
        machine.quit()
    else:
        job.abort()
        assert_disk(machine, disk, *chain.paths())
        assert_free(path, image_format=image_format)
    assert os.stat(path).st_ino == inode
    images.assert_contents(target, chain.contents[-1])


def test_prepared_image_of_another_form(lab, path):
    """What was prepared stays as it was prepared."""
    _, chain, disk = lab.standard()
    images.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M,compat=0.10", path, str(SIZE))
    disk.copy(path, reuse=True, auto="keep").wait_completed("kept")
    target = Layer(path, "qcow2", SIZE)
    found = images.information(target)
    assert found["cluster-size"] == 2 * MIB and found["format-specific"]["data"]["compat"] == "0.10"
    images.assert_contents(target, chain.contents[-1])


@pytest.mark.parametrize("reuse", [False, True])
def test_raw_block_device(lab, path, reuse):
    """It is there before and it is larger than the disk; the guest sees the size that it knows."""
    with BlockDevice(path, SIZE + MIB) as device:
        os.pwrite(device.descriptor, bytes([77]) * (SIZE + MIB), 0)
        machine, chain, disk = lab.standard()
        pivot(disk.copy(path, format="raw", reuse=reuse))
        assert disk["Capacity"] == SIZE
        assert_disk(machine, disk, path)
        machine.write("vda", 9, 20 * MIB, MIB)
        machine.quit()
        found = read_file(path)
        assert found[:SIZE] == chain.contents[-1]
        assert found[SIZE:] == bytes([77]) * MIB


def test_formatted_block_device(lab, path):
    with BlockDevice(path, SIZE + MIB):
        machine, chain, disk = lab.standard()
        pivot(disk.copy(path, shallow=True))
        assert_disk(machine, disk, path, chain.base.path)
        machine.write("vda", 9, 20 * MIB, MIB)
        machine.quit()
        images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])


# Servers.

@pytest.mark.parametrize("end, tcp", [("pivot", True), ("keep", True), ("pivot", False)])
def test_server(lab, path, end, tcp):
    target = prepare(path, "raw", pattern=77)
    with NbdServer(path, tcp) as server:
        machine, chain, disk = lab.standard()
        job = disk.copy(server.uri, format="raw", reuse=True)
        assert job["Target"] == server.uri
        job.wait_ready()
        machine.write("vda", 9, 20 * MIB, MIB)
        copy = chain.contents[-1].copy()
        if end == "pivot":
            job.pivot()
            assert_disk(machine, disk, server.uri)
            assert disk["Format"] == "raw" and disk["Capacity"] == SIZE
            machine.write("vda", 10, 21 * MIB, MIB)
            copy = chain.contents[-1]
            machine.quit()
        else:
            job.abort()
            assert_disk(machine, disk, *chain.paths())
            machine.write("vda", 10, 21 * MIB, MIB)
        server.stop()
    images.assert_contents(target, copy)


@pytest.mark.parametrize("end", ["pivot", "keep"])
def test_larger_export(lab, path, end):
    """What is behind the end of the disk is none of its business."""
    prepare(path, "raw", SIZE + MIB, pattern=77)
    with NbdServer(path) as server:
        machine, chain, disk = lab.standard()
        disk.copy(server.uri, format="raw", reuse=True, auto=end).wait_completed(
            "completed" if end == "pivot" else "kept")
        assert_disk(machine, disk, *([server.uri] if end == "pivot" else chain.paths()))
        assert disk["Capacity"] == SIZE
        machine.quit()
        server.stop()
    found = read_file(path)
    assert found[:SIZE] == chain.contents[-1] and found[SIZE:] == bytes([77]) * MIB


def test_image_in_an_export(lab, path):
    """Over a server too, an image with a header can be prepared and shallow."""
    machine, chain, disk = lab.standard()
    prepare(path, backing=chain.base.path)
    # As large as it may get: an export does not grow.
    os.truncate(path, SIZE)
    with NbdServer(path) as server:
        pivot(disk.copy(server.uri, reuse=True, shallow=True))
        assert_disk(machine, disk, server.uri, chain.base.path)
        machine.write("vda", 9, 20 * MIB, MIB)
        machine.quit()
        server.stop()
    images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])


@pytest.fixture
def two_disks(lab, path):
    """(machine, chains, disks, server): of vda there can be a slow copy to the server."""
    chains = {target: images.slow_layers(lab.directory, target) for target in ("vda", "vdb")}
    machine = lab.machine()
    for target, chain in chains.items():
        machine.add_virtio(chain, target)
    domain = lab.attach(machine.start())
    prepare(path, "raw")
    with NbdServer(path) as server:
        yield machine, chains, {target: domain.disk(target) for target in chains}, server


def abort_later(job, **values):
    return job.client.call_later(job.path, "Job", "Abort", "(a{sv})", options(values))


@pytest.mark.parametrize("ready, force, end", [
    (False, False, "goes-on"), (False, True, "dies"), (True, True, "goes-on"), (True, False, "goes-on"),
    (True, False, "dies"),
])
def test_server_that_does_not_answer(two_disks, ready, force, end):
    """QEMU ends the job when the request that is under way ends, and not before: when the server goes on, or when the
    connection breaks. Until then the guest is not held, and neither are the jobs of other disks; but a newer QEMU
    changes its graph of nodes only when no request is under way anywhere."""
    machine, chains, disks, server = two_disks
    job = disks["vda"].copy(server.uri, format="raw", reuse=True, **({} if ready else SLOWLY))
    if ready:
        job.wait_ready()
    server.hold()
    machine.write("vda", 9, 20 * MIB, MIB)
    job.set_speed(0)
    call = abort_later(job, force=force)
    job.wait("State", "completing")
    if machine.qmp.execute("query-version")["qemu"]["major"] < 10:
        disks["vdb"].commit(auto="pivot").wait_completed("completed")
    machine.write("vda", 10, 21 * MIB, MIB)
    assert job["State"] == "completing" and disks["vda"]["Job"] == job.path
    if end == "goes-on":
        server.go_on()
    else:
        server.kill()
    result, _, message = job.wait_completed()
    if end == "goes-on":
        assert result == ("kept" if ready and not force else "cancelled")
        assert job.client.wait_reply(call).kind == "reply"
    else:
        # Thrown away it was to be anyhow; but a copy that was to be kept is none.
        assert result == "failed" and message if ready and not force else result in ("cancelled", "failed")
    assert disks["vda"].sources() == chains["vda"].paths() and disks["vda"]["Job"] == "/"
    assert machine.active_file("vda") == chains["vda"].top.path
    assert machine.jobs() == {}
    assert server.uri not in open_files(machine)
    disks["vda"].commit(auto="keep").wait_completed("kept")


@pytest.mark.parametrize("ready", [False, True], ids=["running", "ready"])
def test_server_dies(two_disks, ready):
    machine, chains, disks, server = two_disks
    job = disks["vda"].copy(server.uri, format="raw", reuse=True, **({} if ready else SLOWLY))
    if ready:
        job.wait_ready()
    else:
        # In the middle of a request: a job that has found the server gone has no speed to be set any more.
        server.hold()
        job.set_speed(0)
    server.kill()
    # It is noticed when there is something to be written.
    machine.write("vda", 9, 20 * MIB, MIB)
    _, name, message = job.wait_completed("failed")
    assert name == "org.blockjobd1.Error.QemuError" and message
    assert disks["vda"]["Source"] == machine.active_file("vda") == chains["vda"].top.path
    assert server.uri not in open_files(machine) and machine.jobs() == {}
    machine.quit()
    images.assert_contents(chains["vda"].top, chains["vda"].contents[-1])


def test_pivot_to_a_server_that_does_not_answer(two_disks):
    """The guest goes on where it is, and may change its mind."""
    machine, chains, disks, server = two_disks
    job = disks["vda"].copy(server.uri, format="raw", reuse=True)
    job.wait_ready()
    server.hold()
    machine.write("vda", 9, 20 * MIB, MIB)
    call = job.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {})
    job.wait("State", "completing")
    machine.write("vda", 10, 21 * MIB, MIB)
    stays(lambda: job["Result"] == "", "pivoting", 0.2)
    abort = abort_later(job)
    server.go_on()
    assert job.client.wait_reply(call).kind == "error"
    assert job.client.wait_reply(abort).kind == "reply"
    job.wait_completed("kept")
    assert disks["vda"]["Source"] == machine.active_file("vda") == chains["vda"].top.path
    server.stop()
    images.assert_contents(Layer(server.path, "raw", SIZE), chains["vda"].contents[-1])
