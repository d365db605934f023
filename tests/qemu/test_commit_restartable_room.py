# SPDX-License-Identifier: LGPL-2.1-or-later
"""A restartable commit that runs out of room in the middle of its second layer: what is done is done, whoever reads
any image that is still in the chain finds what was always there, and with room again the job, or the same call, does
what is left and no more."""

import json
import os
import struct
import subprocess
import tempfile

import pytest

from kit import images
from kit.images import KIB, MIB
from kit.space import SmallDisk
from kit.waiting import wait_until

NAMES = ["base", "mid2", "mid1", "top", "act"]


def written(machine):
    """Bytes that this QEMU has written to files."""
    with open(f"/proc/{machine.process.pid}/io") as file:
        return int(next(line for line in file if line.startswith("wchar:")).split()[1])


class Range:
    """top, mid1 and mid2 with 1 MiB each are to go into base, which lies on a small file system of its own."""

    def __init__(self, lab):
        self.lab = lab
        self.small = SmallDisk(f"{lab.directory}/small", 16 * 1024)
        self.chain = images.Chain(lab.directory)
        for number, name in enumerate(NAMES):
            self.chain.add(images.stripes(number + 1, start=number * 4 * MIB),
                           file_name=f"{'small/' if number == 0 else ''}{name}.qcow2")
        self.machine, _, self.disk = lab.standard(self.chain)
        self.values = {"top": self.chain.layers[3].path, "base": self.chain.base.path, "restartable": True}

    def run_out(self, **values):
        """The job, when mid2 is done and mid1 finds room for half of it."""
        service = self.lab.service
        service.restart(wait_at="next-layer", **{"pass": "0"})
        job = self.disk.commit(**self.values, **values)
        service.wait_stopped(service.pid())
        self.small.resize(self.small.used() // KIB + 512)
        service.resume(service.pid())
        return job

    def stale(self, number):
        """What InspectImage says of this image, and of those that it stands on."""
        layers, = self.lab.client.call("/org/blockjobd1", "Manager", "InspectImage", "(sa{sv})",
                                       self.chain.layers[number].path, {})
        return [layer["stale"] for layer in layers]

    def assert_in_the_middle(self):
        """mid2 is done and mid1 is not. To anybody who reads beside this QEMU all that is left is what it was, by
        every byte; of mid2, which is not in the chain any more, that cannot be said."""
        assert self.disk.sources() == [self.chain.layers[number].path for number in (4, 3, 2, 0)]
        for number in (4, 3, 2):
            assert read(self.chain.layers[number].path) == self.chain.contents[number], NAMES[number]
        assert_no_errors(self.chain.base)
        assert self.stale(4) == [False] * 4
        assert self.stale(1)[0] is True

    def assert_done(self, disk=None):
        disk = disk or self.disk
        assert disk.sources() == [self.chain.top.path, self.chain.base.path]
        assert self.stale(4) == [False] * 2
        self.lab.machines[-1].quit()
        images.assert_contents(self.chain.top, self.chain.contents[4])
        images.assert_contents(self.chain.base, self.chain.contents[3])
        images.assert_uncorrupted(self.chain.base)


def node(path):
    """The chain as its headers name it, for a reader that does not heed locks: those of QEMU keep others of its kind
    from a layer that is being merged, though not from the ones above it."""
    with open(path, "rb") as file:
        file.seek(8)
        offset, length = struct.unpack(">QI", file.read(12))
        file.seek(offset)
        backing = file.read(length).decode() if offset else None
    return {"driver": "qcow2", "file": {"driver": "file", "filename": path, "locking": "off"},
            "backing": node(backing) if backing else None}


def read(path):
    with tempfile.NamedTemporaryFile() as raw:
        images.run("qemu-img", "convert", "-U", "-O", "raw", f"json:{json.dumps(node(path))}", raw.name)
        return raw.read()


def assert_no_errors(layer):
    """qemu-img check beside a QEMU that writes: clusters that nothing refers to yet are no error."""
    done = subprocess.run(["qemu-img", "check", "-U", "-q", f"json:{json.dumps(node(layer.path))}"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode in (0, 3), f"{layer.path}: {done.stdout}"


@pytest.fixture
def ranged(lab):
    ranged = Range(lab)
    yield ranged
    for machine in lab.machines:
        machine.kill()
    ranged.small.remove()


@pytest.mark.parametrize("policy", [None, "report"])
def test_reported(ranged, policy):
    """The job fails; the same call does not copy mid2 once more."""
    job = ranged.run_out(on_error=policy)
    _, error, message = job.wait_completed("failed")
    assert error == "org.blockjobd1.Error.NoSpace" and os.strerror(28) in message
    assert message.endswith(f"1 of 3 layers are in '{ranged.chain.base.path}' for good")
    ranged.assert_in_the_middle()
    ranged.disk.commit(**ranged.values).wait_completed("failed")
    ranged.assert_in_the_middle()
    ranged.small.resize(16 * 1024)
    before = written(ranged.machine)
    ranged.disk.commit(**ranged.values, on_error=policy).wait_completed("completed")
    assert 2 * MIB <= written(ranged.machine) - before < 2.5 * MIB, "mid1 and top"
    ranged.assert_done()


@pytest.mark.parametrize("policy", ["stop", "enospc"])
def test_stopped_and_resumed(ranged, policy):
    """It waits for room, also over a crash of the service, and copies nothing twice."""
    before = written(ranged.machine)
    job = ranged.run_out(on_error=policy)
    job.wait("IoStatus", "nospace")
    job.wait("State", "paused")
    ranged.assert_in_the_middle()
    # Still no room: it stops again.
    job.resume()
    job.wait("State", "paused")
    job.wait("IoStatus", "nospace")
    ranged.lab.service.restart()
    job.wait("State", "paused")
    job.wait("IoStatus", "nospace")
    ranged.small.resize(16 * 1024)
    job.resume()
    job.wait_completed("completed")
    assert job["IoStatus"] == "ok" and job["Current"] == job["Total"] == 3 * images.SIZE
    assert 3 * MIB <= written(ranged.machine) - before < 4 * MIB, "no layer twice"
    ranged.assert_done()


def test_aborted_for_want_of_room(ranged):
    job = ranged.run_out(on_error="stop")
    job.wait("IoStatus", "nospace")
    job.abort()
    job.wait_completed("cancelled")
    assert job["Error"][1].endswith(f"1 of 3 layers are in '{ranged.chain.base.path}' for good")
    ranged.assert_in_the_middle()
    ranged.small.resize(16 * 1024)
    before = written(ranged.machine)
    ranged.disk.commit(**ranged.values).wait_completed("completed")
    assert 2 * MIB <= written(ranged.machine) - before < 2.5 * MIB, "mid1 and top"
    ranged.assert_done()


def test_qemu_killed_for_want_of_room(ranged):
    """The machine starts again on the chain that is left, and the same call does the rest."""
    lab = ranged.lab
    job = ranged.run_out(on_error="enospc")
    job.wait("IoStatus", "nospace")
    ranged.machine.kill()
    job.wait_completed("lost")
    assert f"1 of 3 layers are in '{ranged.chain.base.path}' for good" in job["Error"][1]
    wait_until(lambda: ranged.disk["Job"] == "/", "the disk to be free")
    ranged.assert_in_the_middle()
    ranged.small.resize(16 * 1024)
    next_one = lab.machine(ranged.machine.name, suffix="-next")
    left = images.Chain(lab.directory)
    left.layers = [ranged.chain.layers[number] for number in (0, 2, 3, 4)]
    left.contents = [ranged.chain.contents[number] for number in (0, 2, 3, 4)]
    disk = lab.attach(next_one.add_virtio(left).start()).disk("vda")
    before = written(next_one)
    disk.commit(**ranged.values).wait_completed("completed")
    assert 2 * MIB <= written(next_one) - before < 2.5 * MIB, "mid1 and top"
    ranged.assert_done(disk)


def test_read_all_the_while(ranged):
    """Another program reads the disk and the layer below it, again and again, while the layers under them leave."""
    job = ranged.disk.commit(**ranged.values, speed=2 * MIB)
    seen = set()
    while job["State"] != "concluded":
        seen.add(len(ranged.disk["Chain"]))
        for number in (4, 3):
            assert read(ranged.chain.layers[number].path) == ranged.chain.contents[number], NAMES[number]
        assert_no_errors(ranged.chain.base)
    assert len(seen) >= 3, "it was read at each of the layers"
    job.wait_completed("completed")
    ranged.assert_done()
