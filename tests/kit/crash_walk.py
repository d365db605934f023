# SPDX-License-Identifier: LGPL-2.1-or-later
"""A job of each kind whose service dies at a step of it, and what both lives of the service must have come to."""

import functools
import glob
import os
import re
import tempfile
from typing import NamedTuple

from kit import images
from kit.bus import ROOT, options
from kit.chains import assert_headers, flush, merge
from kit.every_job import file_of_disk
from kit.faults import orphans
from kit.images import KIB, MIB
from kit.objects import Job
from kit.targets import assert_disk
from kit.waiting import wait_until

SIZE = 4 * MIB
# With the gaps of images.stripes: a job that is under way for as long as a test may take.
SLOW = 64 * KIB
SOURCES = os.path.join(os.path.dirname(__file__), "../../src/job")

# The guest is held from PENDING on: a write would hang the monitor.
HELD = ("record-target", "finalize")
# Before these the record says nothing yet of a pivot that was asked for.
UNDECIDED = ("record-accepted", "announce", "say-ready", "record-decision")


class Kind(NamedTuple):
    source: str  # the file of its tables
    member: str
    values: dict
    result: str = "completed"
    table: str = "steps"

    @property
    def has_target(self):
        return self.member in ("Copy", "Backup", "Snapshot")

    @property
    def two_phases(self):
        return self.member == "Copy" or self.table == "active_steps"

    @property
    def target_is_disk(self):
        return self.member == "Copy" and self.result == "completed"

    @property
    def ends_by_hand(self):
        return self.two_phases and "auto" not in self.values

    @property
    def ending(self):
        """The method that ends it, where it is ended by hand."""
        return "Abort" if self.result == "kept" else "Pivot"


KINDS = {
    "active-commit": Kind("commit.c", "Commit", {"auto": "pivot", "delete": True}, table="active_steps"),
    "pivoted-commit": Kind("commit.c", "Commit", {"active": True}, table="active_steps"),
    "kept-commit": Kind("commit.c", "Commit", {"active": True}, "kept", "active_steps"),
    "commit": Kind("commit.c", "Commit", {"top": "[1]", "delete": True}),
    "keep-top": Kind("commit.c", "Commit", {"top": "[1]", "keep_top": True}),
    "copy": Kind("copy.c", "Copy", {"auto": "pivot"}),
    "shallow-copy": Kind("copy.c", "Copy", {"shallow": True}),
    "kept-copy": Kind("copy.c", "Copy", {"auto": "keep"}, "kept"),
    "rebased-copy": Kind("copy.c", "Copy", {"shallow": True, "reuse": True, "auto": "pivot"}),
    "pull": Kind("pull.c", "Pull", {"base": "[2]"}),
    "backup": Kind("backup.c", "Backup", {}),
    "snapshot": Kind("snapshot.c", "Snapshot", {}),
}


@functools.lru_cache(maxsize=None)
def all_tables():
    """Of each table of steps in the sources, (file, name): its steps with something to run; the others only wait."""
    found = {}
    for path in sorted(glob.glob(f"{SOURCES}/*.c")):
        with open(path) as source:
            text = source.read()
        for name, rows in re.findall(r"JobStep (\w+)\[\] = \{\n(.*?)\n\};", text, re.DOTALL):
            found[os.path.basename(path), name] = [
                step for step, run in re.findall(r'\{\s*"([a-z-]+)",\s*\w+,\s*(\w+)\s*\}', rows) if run != "NULL"]
    return found


def of_defined(source):
    """Steps that are due for a domain of the service's own only: test_own_domains.py."""
    return {"close"} if source == "snapshot.c" else {"close", "record-domain"}


def tables():
    """The same without the steps that an attached domain never comes to."""
    return {(source, name): [step for step in steps if step not in of_defined(source)]
            for (source, name), steps in all_tables().items()}


def steps_of(kind):
    return tables()[KINDS[kind].source, KINDS[kind].table]


@functools.lru_cache(maxsize=None)
def template():
    """The three small images that each walk begins with, as bytes: made once, since there are many walks."""
    with tempfile.TemporaryDirectory() as directory:
        chain = images.Chain(directory)
        for number in range(3):
            chain.add(images.stripes(number + 1, start=number * 64 * KIB), size=SIZE,
                      backing=f"disk-{number - 1}.qcow2" if number else None)
        files = []
        for layer in chain.layers:
            with open(layer.path, "rb") as file:
                files.append(file.read())
    return files, chain.contents


def small_chain(directory):
    chain = images.Chain(directory)
    for number, (data, contents) in enumerate(zip(*template())):
        layer = images.Layer(f"{directory}/disk-{number}.qcow2", "qcow2", SIZE)
        with open(layer.path, "wb") as file:
            file.write(data)
        chain.layers.append(layer)
        chain.contents.append(contents.copy())
    return chain


class Walk:
    """One job on vda, which has three small layers. `copied` is what a target that is not the disk must show."""

    def __init__(self, lab, kind, step, target=None, **points):
        """With a service that dies at the step, or behaves as points say; it starts while the machine does, since
        there are many walks."""
        self.lab = lab
        self.kind = KINDS[kind]
        self.step = step
        lab.service.kill()
        lab.service.launch(**(points or {"stop_at": step}))
        self.chain = small_chain(lab.directory)
        self.machine = lab.machine().add_virtio(self.chain).start()
        wait_until(lab.service.owned, "the daemon to take its name")
        self.disk = lab.attach(self.machine).disk("vda")
        self.target = target or f"{lab.directory}/target.qcow2"
        self.lower = self._prepare_target() if self.kind.values.get("reuse") else None
        self.position = lab.client.position()
        self.copied = self.chain.contents[-1].copy()

    def _prepare_target(self):
        """An overlay on a copy of what is below the disk's active layer."""
        lower = images.Layer(f"{self.lab.directory}/lower.qcow2", "qcow2", SIZE)
        images.run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "qcow2", self.chain.layers[1].path, lower.path)
        images.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", lower.path, "-F", "qcow2", self.target)
        return lower

    # What happens.

    def write(self, pattern, offset):
        """A guest's write that is on disk, whatever becomes of QEMU."""
        self.machine.write("vda", pattern, offset, 64 * KIB)
        flush(self.machine, "vda")

    def call(self, **more):
        """Asks for the job, without waiting for an answer."""
        signature, arguments = ("(sa{sv})", [self.target]) if self.kind.has_target else ("(a{sv})", [])
        return self.lab.client.call_later(self.disk.path, "Disk", self.kind.member, signature, *arguments,
                                          options({**self.kind.values, **more}))

    def start(self, **more):
        """The job, in a service that lives to answer."""
        position = self.lab.client.position()
        assert self.lab.client.wait_reply(self.call(**more)).kind == "reply"
        return Job(self.lab.client, self.lab.client.wait_signal(ROOT, "JobNew", since=position).arguments[1])

    def run_until_death(self):
        """The service dies right before the step; then the guest writes, where it can."""
        call = self.call()
        if self.kind.ends_by_hand and self.step in self._steps_from("decide"):
            job = self.job_that_is_told()
            job.wait_ready()
            call = self.end_later(job)
        self.lab.client.wait_reply(call)
        self.lab.service.wait_gone()
        if self.kind.two_phases and self.step in HELD:
            return
        self.write(10, 2 * MIB)
        # A copy shows the disk at its end, a backup the disk at its start.
        if self.step not in self._steps_from("finalize" if self.kind.two_phases else "record-accepted"):
            self.copied = self.chain.contents[-1].copy()

    def _steps_from(self, first):
        steps = tables()[self.kind.source, self.kind.table]
        return steps[steps.index(first):] if first in steps else []

    @property
    def has_begun(self):
        """Whether QEMU had the job when the service died."""
        return self.step in self._steps_from("record-accepted")

    def job_that_is_told(self):
        return Job(self.lab.client,
                   self.lab.client.wait_signal(ROOT, "JobNew", since=self.position).arguments[1])

    def job_after_the_restart(self):
        """The only one there is, whether it was announced before or after the service died."""
        listed, = self.lab.manager.jobs(domain=self.machine.name)
        told = self.lab.client.heard(ROOT, "JobNew", self.position)
        assert [heard.arguments[1] for heard in told] in ([], [listed["Path"]])
        return Job(self.lab.client, listed["Path"])

    def end_by_hand(self, job):
        job.wait_ready()
        job.call(self.kind.ending, "(a{sv})", {})

    def end_later(self, job):
        """The same without waiting for an answer, behind a write of the guest."""
        self.write(9, MIB)
        self.copied = self.chain.contents[-1].copy()
        return self.lab.client.call_later(job.path, "Job", self.kind.ending, "(a{sv})", {})

    # What must be.

    def assert_never_began(self):
        """Nobody was told of a job, QEMU has nothing of it, and the disk is what it was."""
        wait_until(lambda: self.disk["Job"] == "/" and not orphans(self.machine) and self.machine.jobs() == {},
                   "what was begun to be undone")
        assert self.lab.manager.jobs(domain=self.machine.name) == []
        assert not self.lab.client.heard(ROOT, "JobNew", self.position)
        assert not self.lab.client.heard(member="Completed", since=self.position)
        assert not [name for name in self.machine.nodes() if name.startswith("bj-")]
        assert_disk(self.machine, self.disk, *self.chain.paths())

    def remove_target(self):
        """A target that nobody ever heard of may be left; who wants its place removes it."""
        if self.kind.has_target and not self.lower and os.path.exists(self.target):
            os.unlink(self.target)

    def run_again(self):
        """The same once more, with nothing in its way."""
        self.remove_target()
        job = self.start()
        if self.kind.ends_by_hand:
            self.end_by_hand(job)
        job.wait_completed(self.kind.result)
        return job

    def assert_result(self, job):
        """QEMU, the bus and the images agree that it did what it is for; nothing else of it is left."""
        removed = self._update_model()
        names = set()
        if self.kind.target_is_disk:
            names = {f"bj-{job['Id']}-{end}" for end in ("tfb" if self.lower else "tf")}
        assert {name for name in self.machine.nodes() if name.startswith("bj-")} == names
        assert file_of_disk(self.machine) == self.chain.top.path
        assert_disk(self.machine, self.disk, *self.chain.paths())
        assert_headers(self.chain)
        for layer in removed:
            assert os.path.exists(layer.path) != self.kind.values.get("delete", False)
            if self.kind.values.get("keep_top"):
                assert images.backing_string(layer) == self.chain.base.path
                assert images.information(layer)["backing-filename-format"] == "qcow2"

    def _update_model(self):
        """The layers that the job took out of the disk."""
        chain = self.chain
        before = list(chain.layers)
        if self.kind.result == "kept" and self.kind.member == "Commit":
            chain.contents[0] = self.copied
        elif self.kind.member == "Commit":
            merge(chain, 1 if "top" in self.kind.values else 2, 0)
        elif self.kind.member == "Pull":
            del chain.layers[1], chain.contents[1]
        elif self.kind.target_is_disk:
            below = slice(0, 2 if self.kind.values.get("shallow") else 0)
            chain.layers[:] = chain.layers[below] + [images.Layer(self.target, "qcow2", SIZE)]
            chain.contents[:] = chain.contents[below] + [chain.contents[-1]]
            if self.lower:
                chain.layers[:-1] = [self.lower]
                chain.contents[:-1] = [chain.contents[1]]
        return [layer for layer in before if layer not in chain.layers]

    def assert_next(self):
        """The disk takes another job, one for which its root must be free; and then all the bytes are compared."""
        path = f"{self.lab.directory}/next.qcow2"
        self.write(11, 3 * MIB)
        self.disk.copy(path, auto="keep").wait_completed("kept")
        self.machine.quit()
        images.assert_identical(images.Layer(path, "qcow2", SIZE), self.chain.top)
        images.assert_contents(self.chain.top, self.chain.contents[-1])

    def assert_written(self):
        """What the job wrote, where that is not the active layer; no QEMU may run."""
        if self.kind.has_target and self.chain.top.path != self.target:
            images.assert_contents(images.Layer(self.target, "qcow2", SIZE), self.copied)
        if self.kind.member == "Commit":
            images.assert_contents(self.chain.base, self.chain.contents[0])
