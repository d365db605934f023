# SPDX-License-Identifier: LGPL-2.1-or-later
"""A commit that goes layer by layer, and the service or QEMU dies: at every point of the first layer and of the second.

Whatever has happened, every image that is still in the chain shows what it has always shown, and the same call goes on
with the layers that are left.
"""

import os
import signal

import pytest
from kit import images
from kit.bus import options
from kit.chains import flush
from kit.crash_walk import all_tables
from kit.images import KIB, MIB
from kit.objects import Job
from kit.waiting import wait_until

SIZE = 4 * MIB
LAYERS = 5
# Of a domain of the service's own, and what an undisturbed one does not come to.
NOT_DUE = {"close", "record-domain", "begin", "compare-images", "record-decision", "ask", "keep-top"}
STEPS = [step for step in all_tables()["commit.c", "steps"] if step not in NOT_DUE]
# Once for all layers.
ONCE = {"plan", "record-intent", "announce"}
# Of the last layer alone: by then both deaths have been at its points twice.
LAST = {"tell"}
POINTS = [(point, turn) for step in STEPS for point in (step, f"{step}+") for turn in (0, 1)
          if not (turn and step in ONCE | LAST)]
ALWAYS = {("start+", 0), ("start+", 1), ("finalize+", 0), ("record-outcome+", 0), ("next-layer", 0), ("next-layer+", 0),
          ("record-accepted", 1), ("tidy+", 1)}


def cases():
    return [pytest.param(point, turn, id=f"{point}-{turn + 1}",
                         marks=[] if (point, turn) in ALWAYS else pytest.mark.long) for point, turn in POINTS]


class Range:
    """Commit of the layers 1 to 3 (from the bottom) of five into the lowest."""

    def __init__(self, lab, **points):
        self.lab = lab
        lab.service.restart(**points)
        self.chain = images.Chain(lab.directory)
        for number in range(LAYERS):
            self.chain.add(images.stripes(number + 1, 4, start=number * 64 * KIB), size=SIZE)
        self.values = {"top": self.chain.layers[3].path, "base": self.chain.base.path, "restartable": True, "delete": True}
        self.machine, _, self.disk = lab.standard(self.chain)
        self.position = lab.client.position()
        self.pid = lab.service.pid()

    def call(self):
        return self.lab.client.call_later(self.disk.path, "Disk", "Commit", "(a{sv})", options(self.values))

    def jobs(self):
        return [Job(self.lab.client, listed["Path"]) for listed in self.lab.manager.jobs(domain=self.machine.name)]

    def write(self):
        """A guest's write that is on disk."""
        self.machine.write("vda", 9, 3 * MIB, 64 * KIB)
        flush(self.machine, "vda")
        self.chain.contents[-1].fill(9, 3 * MIB, 64 * KIB)

    def left(self):
        """The numbers of the layers that the disk still has, by the headers."""
        number_of = {layer.path: number for number, layer in enumerate(self.chain.layers)}
        numbers = [LAYERS - 1]
        while numbers[-1]:
            numbers.append(number_of[images.backing_string(self.chain.layers[numbers[-1]])])
        return numbers

    def finish(self):
        """The job that is there, or else a new one, comes to the end of it all."""
        wait_until(lambda: self.disk["Job"] == "/" or self.jobs(), "the job to be there, or not")
        jobs = self.jobs()
        job = jobs[0] if jobs else self.disk.commit(**self.values)
        job.wait_completed("completed")
        assert len(self.lab.client.heard(job.path, "Completed", self.position)) == 1

    def assert_done(self):
        assert self.left() == [4, 0]
        assert self.disk.sources() == [self.chain.top.path, self.chain.base.path]
        assert [os.path.exists(layer.path) for layer in self.chain.layers] == [True, False, False, False, True]

    def assert_images(self):
        """No QEMU runs: all bytes, of each image that is left."""
        for number in self.left():
            layer = self.chain.layers[number]
            if number:
                images.assert_contents(layer, self.chain.contents[number])
            images.assert_uncorrupted(layer)


@pytest.mark.parametrize("point, turn", cases())
def test_service_killed(lab, point, turn):
    ranged = Range(lab, stop_at=point, **{"pass": str(turn)})
    ranged.call()
    lab.service.wait_gone()
    ranged.write()
    lab.service.start()
    ranged.finish()
    ranged.assert_done()
    assert not [name for name in ranged.machine.nodes() if name.startswith("bj-")] and ranged.machine.jobs() == {}
    ranged.machine.quit()
    ranged.assert_images()
    images.assert_contents(ranged.chain.base, ranged.chain.contents[3])


def next_machine(ranged):
    """The machine starts again on the image that is the disk, and the same call does what is left."""
    before = ranged.left()
    source = images.Layer(ranged.disk["Source"], "qcow2", SIZE)
    assert source.path == ranged.chain.top.path
    ranged.assert_images()
    successor = ranged.lab.machine(ranged.machine.name, suffix="-next")
    successor.arguments += ["-drive", f"file={source.path},format=qcow2,if=none,id=vda-root",
                            "-device", "virtio-blk-pci,id=vda,drive=vda-root"]
    successor.chains["vda"], successor.write_names["vda"] = ranged.chain, "vda-root"
    successor.start()
    ranged.disk = ranged.lab.attach(successor).disk("vda")
    assert ranged.disk.sources() == [ranged.chain.layers[number].path for number in before]
    if before != [4, 0]:
        ranged.disk.commit(**ranged.values).wait_completed("completed")
    assert ranged.left() == [4, 0]
    successor.quit()
    ranged.assert_images()
    images.assert_contents(ranged.chain.base, ranged.chain.contents[3])


@pytest.mark.parametrize("point, turn", cases())
def test_qemu_killed_under_the_service(lab, point, turn):
    ranged = Range(lab, wait_at=point, **{"pass": str(turn)})
    ranged.call()
    lab.service.wait_stopped(ranged.pid)
    ranged.machine.kill()
    os.kill(ranged.pid, signal.SIGCONT)
    end_of_both(ranged)


@pytest.mark.parametrize("point, turn", cases())
def test_service_killed_and_then_qemu(lab, point, turn):
    ranged = Range(lab, stop_at=point, **{"pass": str(turn)})
    ranged.call()
    lab.service.wait_gone()
    ranged.machine.kill()
    lab.service.start()
    end_of_both(ranged)


def end_of_both(ranged):
    lab = ranged.lab
    wait_until(lambda: lab.domain_of(ranged.machine)["State"] in ("crashed", "shutoff"), "the end to be seen")
    wait_until(lambda: ranged.disk["Job"] == "/", "the disk to be free")
    told = lab.client.heard(member="Completed", since=ranged.position)
    assert [heard.path for heard in told] == [job.path for job in ranged.jobs()]
    assert [heard.arguments[0] for heard in told] in ([], ["lost"], ["completed"])
    next_machine(ranged)
