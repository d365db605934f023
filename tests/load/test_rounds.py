# SPDX-License-Identifier: LGPL-2.1-or-later
"""One commit after the other, ever so many, in one QEMU: nothing piles up in the service, its records or QEMU."""

import os

import pytest
from kit import images
from kit.bus import NAME
from kit.counting import CountingClient, Samples, allocated, descriptors, recorded
from kit.images import KIB, MIB
from kit.objects import Disk, Manager
from kit.waiting import DEADLINE, wait_until

# What a round writes, where no other round does, so that each can be seen at the end.
WRITTEN = 4 * KIB
KEPT = 64  # finished jobs of a domain, as the service does without a configuration
# KiB, after the first thousand, in which the heaps of the threads that look at files become as large as they will: what
# is allocated in between leaves holes of some pages, which are used again. It is 32 bytes for each round.
GROWTH = 256


class Rounds:
    def __init__(self, lab, count):
        self.client = CountingClient("Completed")
        chain = images.Chain(lab.directory).add([(255, 0, MIB)], size=max(MIB, count * WRITTEN))
        self.machine = lab.machine().add_virtio(chain).start()
        self.base, self.contents = chain.base, chain.contents[-1]
        self.disk = Disk(self.client, lab.attach(self.machine).disk("vda").path)
        self.overlay = f"{lab.directory}/overlay.qcow2"
        self.paths = []

    def one(self):
        number = len(self.paths)
        self.disk.snapshot(self.overlay)
        self.machine.write("vda", number % 255 + 1, number * WRITTEN, WRITTEN)
        job = self.disk.commit(auto="pivot", delete=True)
        self.paths.append(job.path)
        assert self.client.end_of(job.path, DEADLINE) == "completed", f"round {number}: {job.all()}"

    def assert_right(self):
        """What every round wrote is in the one image that is left, in QEMU too."""
        self.client.driver("GetId")  # behind all the signals
        assert self.client.counts["Completed"] == {path: 1 for path in self.paths}
        assert self.disk["Source"] == self.base.path == self.machine.active_file("vda")
        assert sorted(node["file"] for node in self.machine.nodes().values()) == 2 * [self.base.path]
        assert self.machine.jobs() == {} and not os.path.exists(self.overlay)
        self.machine.quit()
        images.assert_sound(self.base)
        images.assert_contents(self.base, self.contents)


def let_run(lab, count, every):
    """All of it but what memory became; samples of that in KiB, one after so many rounds."""
    lab.client.driver("RemoveMatch", "(s)", f"type='signal',sender='{NAME}'")  # its log would hold all of it
    rounds = Rounds(lab, count)
    manager = Manager(rounds.client)
    pid = lab.service.pid()
    before = descriptors(pid)
    samples = Samples(lambda: [allocated(pid)])
    for number in range(1, count + 1):
        rounds.one()
        if number % every == 0:
            samples.take()
            assert len(manager.jobs()) == min(KEPT, number)
            wait_until(lambda: len(recorded(lab.service, "jobs")) <= KEPT, "records to be removed")
    took = samples.seconds()
    print(f"{count} rounds in {took:.0f} s, {took / count * 1000:.1f} ms each")
    assert lab.service.pid() == pid
    wait_until(lambda: len(descriptors(pid)) <= len(before), f"descriptors to be closed beside {before}")
    rounds.assert_right()
    rounds.client.close()
    return samples


def test_a_hundred_commits(lab):
    let_run(lab, 100, 50)


@pytest.mark.long
def test_ten_thousand_commits(release, lab):
    samples = let_run(lab, 10000, 100)
    values = [value for _, (value,) in samples.taken]
    early, late = sorted(values[10:20])[5], sorted(values[-10:])[5]
    print(f"memory: {early} KiB in the second tenth, {late} KiB in the last; {values}")
    assert late - early <= GROWTH
