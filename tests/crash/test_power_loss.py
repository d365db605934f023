# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine loses its power at a step of a job: what was told is so, and which image is the disk is known.

State and images are on disks that lose what was not flushed (kit/power.py). The service stands still at the step while
the power is cut, and starts again on what the disks have then; there is no QEMU any more.
"""

import glob
import os

import pytest

from kit import images
from kit.crash_walk import HELD, KINDS, SIZE, Walk, small_chain, tables
from kit.images import KIB, MIB, Layer
from kit.objects import Job
from kit.power import EVERYTHING, IMAGES, NAMES, NOTHING, SOME, STATE, PowerSupply
from kit.waiting import wait_until

POWER_KINDS = ("active-commit", "pivoted-commit", "kept-commit", "commit", "copy", "shallow-copy", "kept-copy", "pull",
               "backup", "snapshot")

# Not a step: the caller has heard how it ended.
HEARD = "heard"


def steps_of(kind):
    """Those of its table, one that is run in a thread, and what comes behind all of them."""
    steps = list(tables()[kind.source, kind.table])
    if "delete" in steps:
        steps.insert(steps.index("delete") + 1, "delete-file")
    return steps + [HEARD]


class PowerWalk(Walk):
    """One job on vda; the service stands still at a step of it, or somebody has heard of its end."""

    def __init__(self, lab, power, name, step, **points):
        self.lab, self.power, self.step = lab, power, step
        self.kind = KINDS[name]
        lab.service.kill()
        if step != HEARD:
            points["wait_at"] = step
        lab.service.launch(state_directory=power.state.path, **points)
        self.chain = small_chain(power.images.path)
        power.images.sync()
        self.machine = lab.machine().add_virtio(self.chain).start()
        wait_until(lab.service.owned, "the daemon to take its name")
        self.pid = lab.service.pid()
        self.disk = lab.attach(self.machine).disk("vda")
        self.target = f"{power.images.path}/target.qcow2"
        self.lower = None
        self.position = lab.client.position()
        self.write(8, 512 * KIB)
        self.copied = self.chain.contents[-1].copy()
        self.heard, self.job = [], None

    # Before the cut.

    def is_behind(self, step):
        """Whether the service has gone through with the step."""
        steps = steps_of(self.kind)
        return step in steps and steps.index(self.step.rstrip("+")) > steps.index(step)

    def run(self):
        call = self.call()
        if self.kind.ends_by_hand and self.is_behind("say-ready"):
            job = self.job_that_is_told()
            job.wait_ready()
            call = self.end_later(job)
        if self.step == HEARD:
            assert self.lab.client.wait_reply(call).kind == "reply"
            if self.kind.member != "Snapshot":
                self.job_that_is_told().wait_completed(self.kind.result)
        else:
            self.lab.service.wait_stopped(self.pid)
        self._write_more()

    def _write_more(self):
        """By the guest, where it can; and not where its flush would take with it what a job has to flush."""
        if self.kind.two_phases and self.step in HELD:
            return
        if self.step == "finalize+":
            self.machine.wait_jobs(lambda jobs: not [job for job in jobs.values() if job["status"] == "pending"],
                                   "QEMU to have finalized the job")
        if self.kind.two_phases or self.kind.member == "Snapshot" or not self.is_behind("ask"):
            self.write(10, 2 * MIB)

    def cut(self, later=NOTHING, **keywords):
        self.heard = self.lab.client.heard(member="Completed", since=self.position)
        self.power.cut(self.lab.service, self.lab.machines, later, **keywords)
        self.lab.service.start(state_directory=self.power.state.path)

    # Behind it.

    def result(self):
        """What the job has come to; None: it never was."""
        if self.is_behind("record-outcome"):
            return self.kind.result
        if self.kind.result == "completed" and self.kind.two_phases and self.is_behind("record-target"):
            return "pivoted"
        # Whether QEMU had accepted it is not synced, and somebody may have been told.
        return "lost" if self.is_behind("record-intent") else None

    def assert_survived(self):
        assert not glob.glob(f"{self.power.state.path}/*/*.damaged*"), "a record was set aside"
        domain = self.lab.domain_of(self.machine)
        domain.wait("State", "crashed")
        self.disk = domain.disk("vda")
        result = self.result_of_snapshot() if self.kind.member == "Snapshot" else self.result_of_job()
        self.assert_disk(result)
        self.assert_claims(result)

    def result_of_snapshot(self):
        """Without a job that anybody knows of."""
        assert self.lab.manager.jobs(domain=self.machine.name) == []
        assert not self.lab.client.heard(member="Completed", since=self.position)
        wait_until(lambda: self.disk["Job"] == "/", "the snapshot to be over")
        return "completed" if self.is_behind("record-target") else None

    def result_of_job(self):
        listed = self.lab.manager.jobs(domain=self.machine.name)
        wanted = self.result()
        if not listed:
            assert wanted is None, "the job is not known any more"
            assert not self.lab.client.heard(member="Completed", since=self.position)
            return None
        self.job = job = Job(self.lab.client, listed[0]["Path"])
        assert len(listed) == 1
        job.wait("State", "concluded")
        self.lab.client.wait_signal(job.path, "Completed", since=self.position)
        ends = [heard.arguments for heard in self.lab.client.heard(job.path, "Completed", self.position)]
        # Who heard it before the cut went with the power; it may be told again, and then it is the same.
        assert len(ends) == 1 or len(ends) == 2 and self.heard and ends[0] == ends[1], ends
        result = ends[0][0]
        assert job["State"] == "concluded" and job["Result"] == result and job["Error"] == ends[0][1:]
        assert result == wanted, f"{job.path} ended as {result}"
        return result

    def assert_disk(self, result):
        """The image that is called the disk shows what the guest has flushed, through all that its header names."""
        moved = result in ("completed", "pivoted") and (self.kind.two_phases or self.kind.member == "Snapshot")
        if moved:
            path = self.chain.base.path if self.kind.member == "Commit" else self.target
        else:
            path = self.chain.top.path
        assert self.disk["Source"] == path, f"{self.disk['Source']} is the disk"
        assert self.disk["Job"] == "/"
        images.assert_contents(Layer(path, "qcow2", SIZE), self.chain.contents[-1])
        names = self.chain_by_headers(path)
        if self.kind.two_phases or self.kind.member == "Snapshot":
            assert self.disk.sources() == names

    @staticmethod
    def chain_by_headers(path):
        names = []
        while path:
            assert os.path.exists(path), f"{names[-1:]} has the backing file {path}, which is missing"
            images.assert_uncorrupted(Layer(path, "qcow2", SIZE))
            names.append(path)
            below = images.backing_string(Layer(path, "qcow2", SIZE))
            path = below and os.path.join(os.path.dirname(path), below)
        return names

    def assert_claims(self, result):
        """What a job says it has done is done; of what it takes away nothing was needed."""
        before = list(self.chain.layers)
        if result in ("completed", "kept", "pivoted") and self.kind.member != "Snapshot":
            self._update_model()
            names = self.chain_by_headers(self.chain.top.path)
            assert names == self.chain.paths(), f"the header leads to {names}"
            self.assert_written()
        deleted = [layer.path for layer in before if not os.path.exists(layer.path)]
        stale = [layer.path for layer in before if layer not in self.chain.layers]
        if result != "completed" or not self.kind.values.get("delete"):
            assert deleted == []
        else:
            assert deleted == stale


@pytest.fixture
def power(lab):
    for node in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(node):
            pytest.skip(f"a disk that loses its power needs {node}, which this kernel or container does not have")
    power = PowerSupply(lab.directory)
    yield power
    lab.service.kill()
    for machine in lab.machines:
        machine.kill()
    power.remove()


# Due only after a start of the service, after an Abort, for a chain that the job brings, or with a newer QEMU.
NEVER_DUE = {"": ["begin", "compare-images"], "commit": ["record-decision", "ask", "keep-top"],
             "copy": ["check-chain", "attach-chain"], "shallow-copy": ["check-chain", "decide"],
             "kept-copy": ["check-chain", "attach-chain"],
             "pull": ["record-decision", "ask"], "backup": ["record-decision", "ask", "check-snapshot"],
             "snapshot": ["check-overlay"], "pivoted-commit": ["decide", "delete", "delete-file"],
             "kept-commit": ["decide", "delete", "delete-file"]}
# The guest writes where it wants as soon as this has been sent, and nothing of it is recorded.
BEHIND = ["start+", "finalize+", "snapshot+"]


def all_steps(kind):
    steps = steps_of(KINDS[kind])
    due = [step for step in steps if step not in NEVER_DUE[""] + NEVER_DUE.get(kind, [])]
    return due + [step for step in BEHIND if step.rstrip("+") in steps]


# What every check has: steps at which something changes, with the worst that a cut can do.
FEW_STEPS = {
    "active-commit": ["start+", "record-accepted", "record-target", "finalize", "finalize+", "look", "record-outcome",
                      "tidy", "delete", "delete-file", "tell", HEARD],
    "pivoted-commit": ["finalize", "finalize+", "tidy"],
    "kept-commit": ["finalize", "tidy", HEARD],
    "commit": ["start", "finalize", "finalize+", "record-outcome", "delete", "delete-file", HEARD],
    "copy": ["record-target", "finalize+", "look", "record-outcome", HEARD],
    "shallow-copy": ["finalize+", HEARD],
    "kept-copy": ["finalize+", "tidy", HEARD],
    "pull": ["finalize", "finalize+", "record-outcome", "tell", HEARD],
    "backup": ["record-accepted", "finalize+", "record-outcome", "tell", HEARD],
    "snapshot": ["record-target", "snapshot", "snapshot+", "look", "record-domain", HEARD],
}
FEW = [(kind, step, NOTHING) for kind, steps in FEW_STEPS.items() for step in steps] + [
    *((kind, HEARD, NAMES) for kind in ("active-commit", "commit", "copy", "pull", "backup", "snapshot")),
    ("pivoted-commit", "say-ready", NAMES), ("kept-copy", "look", NAMES), ("backup", "look", NAMES),
    ("active-commit", "delete", EVERYTHING), ("copy", "finalize+", EVERYTHING), ("snapshot", "snapshot+", EVERYTHING),
    ("commit", HEARD, STATE), ("copy", "tidy", STATE), ("active-commit", "record-target", IMAGES),
    ("pull", "record-outcome", IMAGES),
    ("active-commit", "finalize+", SOME[0]), ("commit", "delete", SOME[1]), ("pull", "record-outcome", SOME[2]),
]
ALL = [(kind, step, later) for kind in POWER_KINDS for step in all_steps(kind)
       for later in (NOTHING, NAMES, EVERYTHING, STATE, IMAGES, *SOME)]
REST = [pytest.param(*case, marks=pytest.mark.long) for case in ALL if case not in FEW]


@pytest.mark.parametrize("kind, step, later", FEW + REST)
def test_power_loss(lab, power, kind, step, later):
    walk = PowerWalk(lab, power, kind, step)
    walk.run()
    walk.cut(later)
    walk.assert_survived()


@pytest.mark.parametrize("kind, step", [
    ("active-commit", "finalize+"), ("active-commit", "delete"), ("commit", "delete"), ("copy", "finalize+"),
])
def test_power_loss_with_other_device_numbers(lab, power, kind, step):
    """They are given anew at each boot. Nobody has moved or replaced a file."""
    walk = PowerWalk(lab, power, kind, step)
    walk.run()
    walk.cut(renumbered=True)
    walk.assert_survived()
    assert "another file" not in walk.job["Error"][1]


# The service leaves out one of its syncs: the same tests must miss it.

@pytest.mark.parametrize("omitted, kind, step, symptom", [
    ("record-sync", "active-commit", "finalize+", "was set aside"),
    ("record-sync", "snapshot", "snapshot+", "was set aside"),
    ("directory-sync", "active-commit", "finalize+", "ended as lost"),
    ("directory-sync", "copy", "finalize+", "ended as lost"),
    ("directory-sync", "snapshot", "snapshot+", "is the disk"),
    # The header still leads to what was deleted as no longer needed; the data is not there. A newer QEMU flushes at the
    # end of a pull by itself.
    ("node-flush", "commit", "tidy", "Could not open"),
    ("node-flush", "backup", "tidy", "blocks of 64 KiB differ"),
])
def test_missing_sync_is_found(lab, power, omitted, kind, step, symptom):
    walk = PowerWalk(lab, power, kind, step, omit=omitted)
    walk.run()
    walk.cut()
    with pytest.raises(AssertionError, match=symptom):
        walk.assert_survived()


@pytest.mark.parametrize("omitted", [None, "target-sync"])
def test_backup_without_data(lab, power, omitted):
    """QEMU flushes no image into which it has written nothing: that there is a file is for the service to sync."""
    lab.service.kill()
    lab.service.start(state_directory=power.state.path, omit=omitted)
    chain = images.Chain(power.images.path).add(size=SIZE)
    power.images.sync()
    machine = lab.machine().add_virtio(chain).start()
    disk = lab.attach(machine).disk("vda")
    target = Layer(f"{power.images.path}/target.raw", "raw", SIZE)
    disk.backup(target.path, format="raw", sync="top").wait_completed("completed")
    power.cut(lab.service, lab.machines)
    if omitted:
        assert not os.path.exists(target.path), "something else syncs it"
    else:
        images.assert_contents(target, chain.contents[-1])
