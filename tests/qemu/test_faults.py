# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images that cannot be read, written or flushed, and targets that are full: each job under each error policy."""

import pytest

from kit import images
from kit.bus import refused
from kit.every_job import KINDS, SLOW, TWO_PHASES, assert_disk_as_before, finish, slow_disk, start
from kit.faults import (EIO, ENOSPC, WRITE_AT, FaultyServer, flush_fault, layers, machine_with_faults,
                        new_cluster_fault, read_fault, write_fault)
from kit.images import MIB
from kit.space import SmallDisk

READERS = ("commit", "copy", "pull", "backup")


class Trouble:
    """A disk on which a job of this kind has an error when it reads or writes; and where its result is found."""

    def __init__(self, lab, kind, operation, once=True):
        self.lab, self.kind = lab, kind
        self.chain = layers(lab.directory)
        self.server = None
        self.arguments = {}
        faults = {}
        if operation == "read":
            faults[1] = read_fault(self.chain.layers[1], once)
        elif kind in ("copy", "backup"):
            sector = WRITE_AT // 512 if operation == "write" else None
            self.server = FaultyServer(lab.directory, operation, once, sector)
            self.arguments = {"target": self.server.uri, "format": "raw", "reuse": True}
        elif operation == "flush":
            faults[2 if kind == "pull" else 0] = flush_fault()
        else:
            faults.update({2: new_cluster_fault(once)} if kind == "pull"
                          else {0: write_fault(self.chain.base, once)})
        self.machine = machine_with_faults(lab, self.chain, faults).start()
        self.disk = lab.attach(self.machine).disk("vda")

    def start(self, policy, **keywords):
        return start(self.kind, self.lab, self.disk, policy, **self.arguments, **keywords)

    def end(self, job):
        """To a result with which the written image can be compared; the copy of a disk is kept as a copy."""
        if self.kind in TWO_PHASES:
            job.wait_ready()
            job.abort()
        job.wait_completed("kept" if self.kind in TWO_PHASES else "completed")
        self.machine.quit()
        if self.server:
            written, contents = self.server.layer, self.chain.contents[-1]
        elif self.kind in ("copy", "backup"):
            written = images.Layer(f"{self.lab.directory}/{self.kind}-target.qcow2", "qcow2", images.SIZE)
            contents = self.chain.contents[-1]
        else:
            written = self.chain.top if self.kind == "pull" else self.chain.base
            contents = self.chain.contents[-1 if self.kind == "pull" else 1]
        images.assert_contents(written, contents)
        images.assert_contents(self.chain.top, self.chain.contents[-1])

    def assert_failed(self, job, error, words):
        result, name, message = job.wait_completed("failed")
        assert name == f"org.blockjobd1.Error.{error}"
        assert words in message, "QEMU's own words are missing"
        assert_disk_as_before(self.machine, self.chain, self.disk)
        self.machine.quit()
        images.assert_contents(self.chain.top, self.chain.contents[-1])

    def clean(self):
        self.machine.clean()
        if self.server:
            self.server.stop()


@pytest.fixture
def trouble(lab):
    made = []

    def make(*arguments, **keywords):
        made.append(Trouble(lab, *arguments, **keywords))
        return made[0]

    yield make
    for one in made:
        one.clean()


@pytest.mark.parametrize("operation", ["read", "write"])
@pytest.mark.parametrize("kind", READERS)
def test_reported(trouble, kind, operation):
    with_error = trouble(kind, operation)
    with_error.assert_failed(with_error.start("report"), "QemuError", EIO)


@pytest.mark.parametrize("kind, operation, policy", [("commit", "write", "enospc"), ("backup", "read", "enospc"),
                                                     ("pull", "read", None)])
def test_policies_that_report_as_well(trouble, kind, operation, policy):
    """An input error is none of missing room; and to report is what happens where nothing is asked for."""
    with_error = trouble(kind, operation)
    with_error.assert_failed(with_error.start(policy), "QemuError", EIO)


@pytest.mark.parametrize("operation", ["read", "write"])
@pytest.mark.parametrize("kind", READERS)
def test_stopped_and_resumed(trouble, kind, operation):
    with_error = trouble(kind, operation)
    job = with_error.start("stop")
    job.wait("State", "paused")
    job.wait("IoStatus", "failed")
    assert job["Result"] == "" and with_error.disk["Job"] == job.path
    job.resume()
    with_error.end(job)
    assert job["IoStatus"] == "ok"


@pytest.mark.parametrize("kind, operation", [("commit", "read"), ("copy", "write"), ("pull", "read"),
                                             ("backup", "write")])
def test_stopped_and_aborted(trouble, kind, operation):
    """The image stays as bad as it is: resumed, the job stops again, and it can be ended."""
    with_error = trouble(kind, operation, once=False)
    job = with_error.start("stop")
    job.wait("IoStatus", "failed")
    position = with_error.lab.client.position()
    job.resume()
    with_error.machine.qmp.wait_event("BLOCK_JOB_ERROR", device=job["QemuJobId"])
    job.wait("State", "paused")
    job.wait("IoStatus", "failed")
    job.abort()
    job.wait_completed("cancelled")
    assert not with_error.lab.client.heard(job.path, "Ready", position)
    assert_disk_as_before(with_error.machine, with_error.chain, with_error.disk)


@pytest.mark.parametrize("kind, operation", [("commit", "read"), ("commit", "write"), ("copy", "read"),
                                             ("copy", "write"), ("backup", "write")])
def test_ignored(trouble, kind, operation):
    """It is tried again until it goes through."""
    with_error = trouble(kind, operation)
    with_error.end(with_error.start("ignore"))


def test_ignored_by_a_pull(trouble):
    """It copies what it can; but as the rest is missing, the layers below stay in the chain, and so they must."""
    with_error = trouble("pull", "read")
    with_error.assert_failed(with_error.start("ignore"), "QemuError", EIO)
    assert images.backing_string(with_error.chain.top) == with_error.chain.layers[1].path


@pytest.mark.parametrize("kind", ["commit", "pull", "backup"])
def test_flush_that_fails(trouble, kind):
    """QEMU takes the job for done before its data is on stable storage; here it never comes there."""
    with_error = trouble(kind, "flush", once=False)
    job = with_error.start("report")
    result, name, message = job.wait_completed("failed")
    assert EIO in message
    assert_disk_as_before(with_error.machine, with_error.chain, with_error.disk)
    if kind != "backup":
        # The header names what it named before.
        assert images.backing_string(with_error.chain.top) == with_error.chain.layers[1].path


def test_two_errors_of_two_kinds(trouble):
    """The policy for the source is not that of the target."""
    with_error = trouble("backup", "write")
    job = with_error.disk.backup(on_source_error="ignore", on_target_error="stop", **with_error.arguments)
    job.wait("IoStatus", "failed")
    job.resume()
    with_error.end(job)


# A full file system: what is written is on it, with less room than the job takes.

class Tight:
    def __init__(self, lab, kind):
        self.lab, self.kind = lab, kind
        self.small = SmallDisk(f"{lab.directory}/small", 2 * 1024)
        names = {"commit": ("small/base.qcow2", None, None), "pull": (None, None, "small/top.qcow2")}
        self.chain = images.Chain(lab.directory)
        for number, name in enumerate(names.get(kind, (None, None, None))):
            self.chain.add([(number + 1, 8 * number * MIB, (4 if number == 1 else 1) * MIB)], file_name=name)
        self.machine, _, self.disk = lab.standard(self.chain)
        self.target = f"{self.small.path}/target.qcow2" if kind in ("copy", "backup") else None

    def start(self, policy, **keywords):
        return start(self.kind, self.lab, self.disk, policy, self.target, **keywords)

    def clean(self):
        self.machine.clean()
        self.small.remove()


@pytest.fixture
def tight(lab):
    made = []

    def make(kind):
        made.append(Tight(lab, kind))
        return made[0]

    yield make
    for one in made:
        one.clean()


@pytest.mark.parametrize("kind", READERS)
def test_full(tight, kind):
    full = tight(kind)
    result, error, message = full.start(None, force=True).wait_completed("failed")
    assert error == "org.blockjobd1.Error.NoSpace"
    assert ENOSPC in message
    assert_disk_as_before(full.machine, full.chain, full.disk)
    full.machine.quit()
    # The comparison takes room next to the image.
    full.small.resize(64 * 1024)
    images.assert_contents(full.chain.top, full.chain.contents[-1])


@pytest.mark.parametrize("kind, policy", [("commit", "enospc"), ("copy", "stop"), ("pull", "enospc"),
                                          ("backup", "enospc")])
def test_full_until_there_is_room(tight, kind, policy):
    full = tight(kind)
    job = full.start(policy)
    job.wait("State", "paused")
    job.wait("IoStatus", "nospace")
    with refused("NotReady"):
        job.pivot()
    full.small.resize(32 * 1024)
    job.resume()
    if kind in TWO_PHASES:
        job.wait_ready()
        job.pivot()
    job.wait_completed("completed")
    assert job["IoStatus"] == "ok" and job["Error"] == ("", "")
    full.machine.quit()
    contents = full.chain.contents[1 if kind == "commit" else -1]
    written = full.chain.base if kind == "commit" else full.chain.top
    if full.target:
        written = images.Layer(full.target, "qcow2", images.SIZE)
    images.assert_contents(written, contents)


@pytest.mark.parametrize("kind", KINDS)
def test_moment_in_which_qemu_pauses(lab, kind):
    """QEMU holds every job for a moment when nodes come and go: nobody paused anything, and nobody is told so."""
    machine, chain, disk = slow_disk(lab)
    position = lab.client.position()
    job = start(kind, lab, disk, speed=SLOW)
    for _ in range(5):
        machine.qmp.execute("blockdev-add", driver="raw", node_name="another", file="vda-2", read_only=True)
        machine.qmp.wait_event("JOB_STATUS_CHANGE", id=job["QemuJobId"], status="paused")
        machine.qmp.execute("blockdev-del", node_name="another")
    finish(kind, job)
    assert "paused" not in job.changes("State", position)
    assert set(job.changes("IoStatus", position)) <= {"ok"}
