# SPDX-License-Identifier: LGPL-2.1-or-later
"""The walk of kit/crash_pairs.py through a job on a disk of a domain of the service's own, which is off, or runs."""

import os
import signal
from typing import NamedTuple

from kit import crash_walk, images
from kit.bus import options
from kit.chains import assert_headers
from kit.crash_pairs import NEVER, NOT_DUE, Pair
from kit.crash_walk import SIZE, Kind, all_tables, small_chain
from kit.images import MIB
from kit.own import disk_xml, domain_xml, give, processes_of_the_user
from kit.waiting import wait_until

DEFINE = ["define-record", "define-show"]
UNDEFINE = ["undefine-record", "undefine-answer"]
LAUNCH = ["launch-record", "launch-process", "launch-connect", "connect-identify", "connect-looked"]
START = ["start-inspect", *LAUNCH, "start-record", "start-continue"]
STORAGE = ["storage-inspect", *LAUNCH, "storage-record", "storage-job"]
# There is no process yet, or no more.
NO_PROCESS = ("start-inspect", "storage-inspect", "launch-record", "launch-process", "close+", "tell", "tell+",
              "answer", "answer+")

LARGER = SIZE + MIB

# While a domain is off nobody waits for a decision.
KINDS = {name: crash_walk.KINDS[name] for name in ("active-commit", "commit", "keep-top", "copy", "rebased-copy",
                                                   "kept-copy", "pull", "backup", "snapshot")}
KINDS["kept-commit"] = Kind("commit.c", "Commit", {"active": True, "auto": "keep"}, "kept", "active_steps")
KINDS["resize"] = Kind("resize.c", "Resize", {})
# Of a disk whose definition names all of its images.
EXPLICIT = ("explicit-commit", "explicit-pull")
KINDS |= {kind: KINDS[kind.removeprefix("explicit-")] for kind in EXPLICIT}
SILENT = ("snapshot", "resize")
# Steps to which an undisturbed job of the kind does not come.
LEFT_OUT = NOT_DUE | {"kept-commit": {"delete", "check-users"}, "keep-top": NOT_DUE["pull"] | {"delete", "next-layer"}, "rebased-copy": set(),
                      "resize": set()} | {kind: NOT_DUE[kind.removeprefix("explicit-")] for kind in EXPLICIT}


def steps_of(kind):
    return all_tables()[KINDS[kind].source, KINDS[kind].table]


def points_of(kind, running=False):
    """All the points that an undisturbed job of the kind comes to, in order."""
    left_out = LEFT_OUT[kind] | NEVER | ({"close"} if running else set())
    return ([] if running else STORAGE) + [point for step in steps_of(kind) if step not in left_out
                                           for point in (step, f"{step}+")]


def processes(directory):
    """QEMUs and storage daemons that work on files in the directory."""
    return processes_of_the_user(f"{directory}/")


def kill_processes(directory):
    found = processes(directory)
    assert found, "there is nothing to be killed"
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes(directory), "the end of the killed")


def assert_unharmed(chain):
    """Each image leads to the next one, and every byte of each is there. Nobody has them open."""
    assert_headers(chain)
    for layer, contents in zip(chain.layers, chain.contents):
        images.assert_contents(layer, contents)
        images.assert_uncorrupted(layer)


def backing_store(chain):
    """What a definition says of all the images under the active one."""
    text = "<backingStore/>"
    for layer in chain.layers[:-1]:
        text = (f"<backingStore type='file'><format type='{layer.format}'/><source file='{layer.path}'/>{text}"
                "</backingStore>")
    return text


class Named(NamedTuple):
    """What the walk asks of a machine that is the service's own."""

    name: str


class OwnPair(Pair):
    """A job that is disturbed at a point. Its guest writes nothing: nobody but the service talks to QEMU."""

    def __init__(self, own, kind, point, running=False, **points):
        self.lab, self.name, self.point, self.running = own.lab, kind, point, running
        self.kind = KINDS[kind]
        self.step = point.rstrip("+")
        self.serial = 0  # of the call
        self.service_lived = False  # when the storage daemon or QEMU died
        self.lab.service.kill()
        self.lab.service.launch(**points)
        self.chain = own.give(small_chain(self.lab.directory))
        self.target = f"{self.lab.directory}/target.qcow2"
        self.lower = self._prepare_target() if self.kind.values.get("reuse") else None
        wait_until(self.lab.service.owned, "the daemon to take its name")
        self.machine = Named(self.lab.unique_name())
        inside = backing_store(self.chain) if kind in EXPLICIT else ""
        self.domain = own.define(domain_xml(self.machine.name, disk_xml(self.chain.top.path, inside=inside)))
        self.disk = self.domain.disk()
        if running:
            self.domain.start()
        self.pid = self.lab.service.pid()
        self.position = self.lab.client.position()
        self.copied = self.chain.contents[-1].copy()
        self.right = [self.chain.paths()]  # what may be told of the chain

    def _prepare_target(self):
        lower = super()._prepare_target()
        give(lower.path, self.target)
        return lower

    def place(self, step):
        return [*STORAGE, *steps_of(self.name)].index(step.rstrip("+")) + (0.5 if step.endswith("+") else 0)

    # What happens.

    def call(self, **more):
        if self.name != "resize":
            return super().call(**more)
        return self.lab.client.call_later(self.disk.path, "Disk", "Resize", "(ta{sv})", LARGER, options(more))

    def run_until_it_stands(self):
        self.serial = self.call()
        wait_until(self.stands, f"the point {self.point}")

    def kill_qemu(self):
        kill_processes(self.lab.directory)

    def wait_quiet(self):
        """Nothing works on the disk any more."""
        wait_until(lambda: self.disk["Job"] == "/" and not self.domain["Jobs"], "the disk to be free")
        if self.domain["State"] != "running":
            wait_until(lambda: not processes(self.lab.directory), "all that was started to end")

    # What must be.

    def assert_never_began(self):
        self.wait_quiet()
        assert self.lab.manager.jobs(domain=self.machine.name) == []
        assert not self._heard("JobNew") and not self._heard("Completed")
        self.assert_disk()

    def assert_disk(self):
        """Bus, definition and headers say the same of it."""
        assert self.disk["Job"] == "/" and self.disk["Source"] == self.chain.top.path
        wait_until(lambda: self.disk.sources() in self.right, f"the chain to be {self.right}")
        depth = None if self.name in EXPLICIT else 1
        assert self.domain.xml_source(inactive=True) == self.disk.sources()[:depth]
        assert_headers(self.chain)

    def assert_result(self, job):
        result = job["Result"]
        removed = []
        if result in (self.kind.result, "pivoted") or self._is_done():
            removed = self._update_model()
            # Nothing is wrong with an image too many where the definition names them all.
            self.right = [self.chain.paths()] + (self.right if result == "lost" and self.name in EXPLICIT else [])
        self.assert_disk()
        for layer in removed:
            assert result != "completed" or os.path.exists(layer.path) != self.kind.values.get("delete", False)
            if self.kind.values.get("keep_top") and result == "completed":
                assert images.backing_string(layer) == self.chain.base.path

    def _is_done(self):
        """A job of one phase that was lost has done the last that it does, or has not: the header says which."""
        return not self.kind.two_phases and self.kind.member in ("Commit", "Pull") \
            and images.backing_string(self.chain.top) == self.chain.base.path

    def assert_written(self):
        """What the job wrote, where that is not the active layer; nobody may have it open."""
        if self.kind.has_target and self.chain.top.path != self.target:
            images.assert_contents(images.Layer(self.target, "qcow2", SIZE), self.copied)
        if self.kind.member == "Commit":
            images.assert_contents(self.chain.base, self.chain.contents[0])

    def assert_next(self):
        """The disk takes a job, and the machine starts on the image that was named; all the bytes are compared."""
        path = f"{self.lab.directory}/next.qcow2"
        if self.domain["State"] == "running":
            self.domain.destroy()
        self.disk.backup(path).wait_completed("completed")
        self.wait_quiet()
        self.domain.start()
        assert self.disk.sources() in self.right and self.disk.sources() == self.domain.xml_source()
        self.domain.destroy()
        contents = self.chain.contents[-1]
        images.assert_contents(images.Layer(path, "qcow2", len(contents)), contents)
        images.assert_contents(self.chain.top, contents)
        images.assert_uncorrupted(self.chain.top)
        self.domain.undefine()
        assert not self.domain.exists()

    def assert_all_of_living(self):
        """Everything, after deaths of the service alone."""
        if self.name in SILENT:
            self.assert_all_of_silent()
            return
        job = self.finish()
        if not job:
            assert not self.is_from("record-accepted"), f"the job was forgotten at {self.point}"
            self.assert_never_began()
            job = self.run_again()
        self.wait_quiet()
        self.assert_told_once(job, {self.kind.result})
        self.assert_result(job)
        self.assert_next()
        self.assert_written()

    def assert_all_of_dead(self, service_lived):
        """Everything, after an end of QEMU or of the storage daemon at the point."""
        self.service_lived = service_lived
        wait_until(lambda: self.has_reply(self.serial), "the call to be answered")
        if self.name in SILENT:
            self.assert_all_of_silent()
            return
        job = self.finish()
        if self.running:
            wait_until(lambda: self.domain["State"] != "running", "its end to be seen")
        self.wait_quiet()
        result = self.assert_told_once(job, self.results_of_dead_qemu(service_lived))
        state = self.domain["State"]
        assert state == ("crashed" if self.running else "shutoff"), (state, self.domain["StateReason"])
        if job:
            self.assert_result(job)
        else:
            self.assert_disk()
        self.restart()
        self.assert_told_once(job, {result})
        assert self.domain["State"] == state
        self.assert_disk()
        images.assert_contents(self.chain.top, self.chain.contents[-1])
        if result == self.kind.result:
            self.assert_written()
        if result in (None, "lost") and not self.lower and not self.running:
            self.assert_made_good()
        self.assert_next()

    def assert_made_good(self):
        """What was lost, by the next one of its kind."""
        if len(self.chain.layers) < 3:
            return
        self.position = self.lab.client.position()
        job = self.run_again()
        self.wait_quiet()
        self.assert_result(job)

    def assert_all_of_silent(self):
        """It was done, or it was not, and everybody says the same; if not, it can be done."""
        self.wait_quiet()
        assert not self._heard("JobNew") and not self._heard("Completed")
        if self.name == "snapshot":
            self._see_snapshot()
        else:
            self._see_resize()
        self.assert_disk()
        assert self.lab.manager.jobs(domain=self.machine.name) == []
        self.assert_next()

    def _see_snapshot(self):
        done = self.disk["Source"] == self.target
        assert done or not self.is_from("snapshot"), f"recorded, and not done, at {self.point}"
        # A service that lives may record it before it hears of the end, and says so in its answer.
        assert not done or self.is_from("check-target+" if self.service_lived else "record-target+")
        if not done:
            self.assert_disk()
            self.remove_target()
            if self.running and self.domain["State"] != "running":
                self.domain.start()
            self.disk.snapshot(self.target)
            self.wait_quiet()
        self.chain.layers.append(images.Layer(self.target, "qcow2", SIZE))
        self.chain.contents.append(self.chain.contents[-1].copy())
        self.right = [self.chain.paths()]

    def _see_resize(self):
        size = images.information(self.chain.top)["virtual-size"]
        assert size == SIZE or self.is_from("resize")
        assert size == LARGER or not self.is_from("look")
        self.disk.wait("Capacity", size)
        if size == SIZE:
            self.disk.resize(LARGER)
            self.wait_quiet()
        self.disk.wait("Capacity", LARGER)
        self.chain.top.size = LARGER
        self.chain.contents[-1].extend(bytes(MIB))
