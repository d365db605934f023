# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service is stopped in order and started again, as for an update: QEMU, the guest and the jobs do not notice.

Who waits for an answer at that moment gets one, from the service. The client stays on the bus all the while, and hears
of each job what it would have heard of a service that was never stopped.
"""

import os
import signal
import threading

import pytest

from kit import images
from kit.bus import ERRORS, ROOT, BusError
from kit.crash_walk import HELD, tables
from kit.every_job import (KINDS, SLOW, TWO_PHASES, assert_result, file_of_disk, finish, slow_chain, start,
                           target_path)
from kit.nbd import Writer
from kit.neighbours import stopped
from kit.objects import Job
from kit.waiting import DEADLINE, wait_until

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ROOM_FOR_WRITES = 20 * images.MIB

# Steps at which a call is under way that starts a job, and that ends one; those that are walked through every time.
START = ("start",)
END = {"two": ("ask", "finalize", "record-outcome"), "single": ("finalize", "record-outcome")}


def table_of(kind):
    source = {"active-commit": "commit.c"}.get(kind, f"{kind}.c")
    return tables()[source, "active_steps" if kind == "active-commit" else "steps"]


# What a plain job of these kinds that is ended by Pivot, or ends by itself, does not come to.
NOT_DUE = ("begin", "pass-descriptor", "check-chain", "decide", "attach-chain", "compare-images", "delete",
           "check-snapshot", "keep-top")


def split(kind):
    """The steps of a kind's start, and those of its end."""
    unasked = () if kind in TWO_PHASES else ("record-decision", "ask")
    steps = [step for step in table_of(kind) if step not in NOT_DUE + unasked]
    middle = steps.index("announce") + 1
    return steps[:middle], steps[middle:]


def cases(of_start):
    """(kind, step): the named ones, and all others as tests that take long."""
    found = []
    for kind in KINDS:
        steps = split(kind)[0 if of_start else 1]
        always = START if of_start else END["two" if kind in TWO_PHASES else "single"]
        assert set(always) <= set(steps)
        found += [pytest.param(kind, step, marks=[] if step in always else pytest.mark.long) for step in steps]
    return found


def stop(lab, number=signal.SIGTERM):
    """The service ends, by this signal and with status 0."""
    process = lab.service.processes[-1]
    lab.service.disturbed = True
    os.kill(process.pid, number)
    wait_end(lab)


def wait_end(lab):
    assert lab.service.processes[-1].wait(DEADLINE) == 0
    lab.service.wait_gone()


@pytest.fixture
def lab(lab):
    """With a service whose end can be waited for: one of the tests' own."""
    if not lab.service.processes or lab.service.processes[-1].poll() is not None:
        lab.service.restart()
    return lab


def block_jobs(machine):
    """What must be the same before and after."""
    return {job["device"]: (job["type"], job["speed"], job["status"], job["paused"], job["io-status"])
            for job in machine.qmp.execute("query-block-jobs")}


def one_of_each(lab, kinds=KINDS, **keywords):
    """A machine and a job of each kind: [(kind, machine, chain, job)]."""
    found = []
    for kind in kinds:
        machine, chain, disk = lab.standard(slow_chain(lab.directory, kind))
        found.append((kind, machine, chain, start(kind, lab, disk, **keywords)))
    return found


def assert_ended_well(lab, kind, machine, chain, job):
    assert len(job.completed()) == 1
    assert len(lab.client.heard(ROOT, "JobNew", where=lambda heard: heard.arguments[1] == job.path)) == 1
    assert len(lab.client.heard(ROOT, "JobRemoved", where=lambda heard: heard.arguments[1] == job.path)) == 1
    wait_until(lambda: machine.jobs() == {}, "the job to leave QEMU")
    disk = lab.domain_of(machine).disk("vda")
    assert disk["Source"] == file_of_disk(machine)
    assert disk["Job"] == "/"
    machine.quit()
    assert_result(kind, lab, chain)


# Whatever the job is doing.

@pytest.mark.parametrize("number, kind", [(SIGNALS[place % 2], kind) for place, kind in enumerate(KINDS)])
def test_stop_leaves_a_running_job_and_a_writing_guest_alone(lab, number, kind):
    chain = slow_chain(lab.directory)
    machine = lab.machine().add_virtio(chain, share=True).start()
    disk = lab.attach(machine).disk("vda")
    writer = Writer(machine.export("vda", "vda-2"), "vda", ROOM_FOR_WRITES, 64)
    job = start(kind, lab, disk, speed=SLOW)
    told = job.all()
    writer.wait_more()
    before = block_jobs(machine)
    stop(lab, number)
    assert block_jobs(machine) == before
    writer.wait_more()
    lab.service.start()
    assert block_jobs(machine) == before
    after = job.all()
    for name in ("Id", "Type", "State", "Speed", "QemuJobId", "StartedBy", "StartTime", "Source", "Target", "Options"):
        assert after[name] == told[name], name
    finish(kind, job)
    writer.wait_more()
    writer.stop()
    assert len(job.completed()) == 1
    assert disk["Source"] == file_of_disk(machine)
    machine.kill()
    writer.assert_all_in(images.read_image(disk["Source"], "qcow2"))


def test_stop_leaves_paused_jobs_alone(lab):
    every = one_of_each(lab, speed=SLOW)
    for _, _, _, job in every:
        job.pause()
        job.wait("State", "paused")
    before = [block_jobs(machine) for _, machine, _, _ in every]
    stop(lab)
    lab.service.start()
    assert [block_jobs(machine) for _, machine, _, _ in every] == before
    for kind, machine, chain, job in every:
        job.wait("State", "paused")
        job.resume()
        finish(kind, job)
        assert_ended_well(lab, kind, machine, chain, job)


def test_stop_leaves_ready_jobs_alone(lab):
    every = one_of_each(lab, TWO_PHASES)
    for _, _, _, job in every:
        job.wait_ready()
    before = [block_jobs(machine) for _, machine, _, _ in every]
    times = [job["ReadyTime"] for _, _, _, job in every]
    stop(lab, signal.SIGINT)
    lab.service.start()
    assert [block_jobs(machine) for _, machine, _, _ in every] == before
    for (kind, machine, chain, job), ready_time in zip(every, times):
        assert job["State"] == "ready" and job["ReadyTime"] == ready_time
        job.pivot()
        job.wait_completed("completed")
        assert len(lab.client.heard(job.path, "Ready")) == 1
        assert_ended_well(lab, kind, machine, chain, job)


def test_ten_restarts_in_a_row(lab):
    every = one_of_each(lab, ("active-commit", "pull", "backup"), speed=SLOW)
    before = [block_jobs(machine) for _, machine, _, _ in every]
    for turn in range(10):
        stop(lab, SIGNALS[turn % 2])
        lab.service.start()
    assert [block_jobs(machine) for _, machine, _, _ in every] == before
    for kind, machine, chain, job in every:
        assert job["State"] == "running"
        finish(kind, job)
        assert_ended_well(lab, kind, machine, chain, job)


# In the middle of something.

class Asked(threading.Thread):
    """A call that waits; its value or its error."""

    def __init__(self, call, *arguments):
        super().__init__(daemon=True)
        self.call = call
        self.arguments = arguments
        self.value = None
        self.error = None
        self.start()

    def run(self):
        try:
            self.value = self.call(*self.arguments)
        except BusError as error:
            self.error = error

    def wait_answer(self):
        """By the service; the bus answers for one that has left without a word."""
        self.join(DEADLINE)
        assert not self.is_alive(), "no answer"
        assert self.error is None or self.error.name.startswith(ERRORS), self.error
        return self.error


def stop_at_the_point(lab):
    """It stands there; the signal is the first that it sees when it goes on."""
    process = lab.service.processes[-1]
    lab.service.wait_stopped(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    lab.service.resume(process.pid)
    wait_end(lab)


def remove_target(kind, lab):
    """A target that nobody ever heard of may be left; who wants its place removes it."""
    if os.path.exists(target_path(kind, lab.directory)):
        os.unlink(target_path(kind, lab.directory))


@pytest.mark.parametrize("kind, step", cases(of_start=True))
def test_stop_in_the_middle_of_a_start(lab, kind, step):
    """The job was begun or was not; the caller is answered, and the next service knows which of both it is."""
    lab.service.restart(wait_at=step)
    machine, chain, disk = lab.standard(slow_chain(lab.directory))
    position = lab.client.position()
    asked = Asked(start, kind, lab, disk)
    stop_at_the_point(lab)
    error = asked.wait_answer()
    lab.service.start()
    listed = lab.manager.jobs(domain=machine.name)
    if error is None or listed:
        job = Job(lab.client, lab.client.wait_signal(ROOT, "JobNew", since=position).arguments[1])
        assert [entry["Path"] for entry in listed] == [job.path]
    else:
        # Nothing of it is left in the way of the same once more.
        assert not lab.client.heard(ROOT, "JobNew", since=position)
        wait_until(lambda: machine.jobs() == {} and disk["Job"] == "/", "what was begun to be undone")
        remove_target(kind, lab)
        job = start(kind, lab, disk)
    if kind in TWO_PHASES:
        job.wait_ready()
        job.pivot()
    job.wait_completed("completed")
    assert_ended_well(lab, kind, machine, chain, job)


@pytest.mark.parametrize("kind, step", cases(of_start=False))
def test_stop_in_the_middle_of_an_end(lab, kind, step):
    lab.service.restart(wait_at=step)
    machine, chain, disk = lab.standard(slow_chain(lab.directory))
    # A job of one phase comes to its end by itself.
    asked = [Asked(start, kind, lab, disk)]
    job = Job(lab.client, lab.client.wait_signal(ROOT, "JobNew").arguments[1])
    if kind in TWO_PHASES and step != "say-ready":
        job.wait_ready()
        asked.append(Asked(job.pivot))
    stop_at_the_point(lab)
    for call in asked:
        call.wait_answer()
    if step in HELD:
        # It stayed for as long as the guest would have been held.
        assert "pending" not in [entry["status"] for entry in machine.jobs().values()]
    lab.service.start()
    if kind in TWO_PHASES and job["State"] in ("running", "ready"):
        # As far as anybody can know no end was asked for.
        job.wait_ready()
        job.pivot()
    job.wait_completed("completed")
    assert_ended_well(lab, kind, machine, chain, job)


def test_stop_while_qemu_does_not_answer(lab):
    """Who waits for a pivot has an error of ours, not the bus's; the pivot is carried out by the next service."""
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    with stopped(machine):
        asked = Asked(job.pivot)
        job.wait("State", "completing")
        stop(lab)
        assert asked.wait_answer().short == "Disconnected"
    lab.service.start()
    # The decision was recorded; it is carried out now.
    job.wait_completed("completed")
    assert machine.active_file("vda") == disk["Source"] == chain.base.path


@pytest.mark.parametrize("point", ["connect-identify", "connect-looked"])
def test_stop_during_a_recovery(lab, point):
    """Before it has told anybody of a job, or right behind that it has its name."""
    every = one_of_each(lab, ("active-commit", "backup"), speed=SLOW)
    before = [block_jobs(machine) for _, machine, _, _ in every]
    stop(lab)
    position = lab.client.position()
    lab.service.launch(wait_at=point)
    stop_at_the_point(lab)
    assert [block_jobs(machine) for _, machine, _, _ in every] == before
    assert not [heard for heard in lab.client.heard(since=position) if heard.member in ("JobNew", "Completed")]
    lab.service.start()
    for kind, machine, chain, job in every:
        assert job["State"] == "running"
        finish(kind, job)
        assert_ended_well(lab, kind, machine, chain, job)


@pytest.mark.parametrize("kind", TWO_PHASES)
def test_stop_during_the_recovery_of_a_held_guest(lab, kind):
    """The service died at PENDING; the next one is stopped while it lets the guest go."""
    lab.service.restart(stop_at="finalize")
    machine, chain, disk = lab.standard(slow_chain(lab.directory))
    job = start(kind, lab, disk)
    job.wait_ready()
    asked = Asked(job.pivot)
    lab.service.wait_gone()
    asked.join(DEADLINE)
    lab.service.launch(wait_at="finalize")
    stop_at_the_point(lab)
    assert "pending" not in [entry["status"] for entry in machine.jobs().values()]
    lab.service.start()
    job.wait_completed("completed")
    assert_ended_well(lab, kind, machine, chain, job)
