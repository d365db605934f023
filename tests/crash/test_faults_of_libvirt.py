# SPDX-License-Identifier: LGPL-2.1-or-later
"""What libvirt, 9.0 to 11.3, was seen to do to a block job and its disk when something died or hung, one test by its
name for each; and what is expected here instead.

Where it is said that a service dies behind a command, QEMU has carried the command out and nobody has read its answer.
"""

import contextlib
import os
import signal
import socket
import threading
import time

import pytest

from kit import ends, images
from kit.bus import ROOT
from kit.every_job import KINDS, SLOW, TWO_PHASES, file_of_disk, finish, slow_chain, slow_disk, start
from kit.fake_qmp import end, lines, send
from kit.targets import SLOWLY, NbdServer, prepare
from kit.waiting import wait_until


class Case:
    """A job on vda that gets ready, in a service that stops at a point; then the guest writes."""

    def __init__(self, lab, kind, point=None):
        self.lab = lab
        self.kind = kind
        self.machine, self.chain, self.disk = slow_disk(lab)
        if point:
            lab.service.restart(wait_at=point)
        self.job = start(kind, lab, self.disk)
        if kind in TWO_PHASES:
            self.job.wait_ready()
            ends.write(self.machine, 9)
        self.old = list(reversed(self.chain.layers))
        self.new = [ends.image_of_pivot(kind, lab, self.chain)]

    def kill_service(self, status):
        """It stands at its point, or comes there; QEMU's job is to have this status first."""
        self.lab.service.wait_stopped(self.lab.service.pid())
        found = self.machine.wait_jobs(
            lambda jobs: [job["status"] for job in jobs.values()] == ([status] if status else []) and [jobs],
            f"the job to be {status or 'gone'} in QEMU")[0]
        self.lab.service.kill()
        return found

    def assert_outcome(self, result, layers):
        """The bus, QEMU's own graph and the images agree, in this service and in the next one."""
        self.job.wait_completed(result)
        for _ in range(2):
            assert self.disk["Source"] == file_of_disk(self.machine) == layers[0].path
            ends.assert_disk(self.disk, layers)
            assert self.machine.jobs() == {}
            assert self.job["Result"] == result and len(self.job.completed()) == 1
            self.lab.service.restart()
        self.assert_next_boot(layers)

    def assert_next_boot(self, layers):
        """Who starts the guest again, with the image that is told, has all that the guest wrote before and after."""
        ends.write(self.machine, 10, offset=21 * images.MIB)
        ends.end(self.machine, "SIGKILL")
        self.lab.domain_of(self.machine).wait("State", "crashed")
        ends.assert_disk(self.disk, layers)
        ends.assert_image(layers[0], self.chain.contents[-1])


# 1. A soft cancel and a pivot look alike.

@pytest.mark.parametrize("command, result", [("block-job-cancel", "kept"), ("job-complete", "completed")])
@pytest.mark.parametrize("kind", TWO_PHASES)
def test_soft_cancel_is_never_taken_for_a_pivot(lab, kind, command, result):
    """libvirt tells from the job how it ended; but to its end, events and all, a soft cancel is QEMU's job without an
    error, as a pivot is. Here it is done by somebody else while nobody looks, and QEMU's graph tells which it was."""
    case = Case(lab, kind)
    lab.service.kill()
    identity, = case.machine.jobs()
    name = "device" if command == "block-job-cancel" else "id"
    case.machine.qmp.execute(command, **{name: identity})
    case.machine.qmp.wait_event("BLOCK_JOB_PENDING", id=identity)
    case.machine.qmp.execute("job-finalize", id=identity)
    over, = case.machine.jobs().values()
    assert over["status"] == "concluded" and "error" not in over, "it does look different"
    lab.service.start()
    case.assert_outcome(result, case.old if result == "kept" else case.new)


# 2 and 3. The service dies behind the command, and before the outcome is written down.

LONG = pytest.mark.long
BEHIND = [("ask+", "pending"), ("finalize+", "concluded"), pytest.param("look", "concluded", marks=LONG),
          pytest.param("record-outcome", "concluded", marks=LONG)]


@pytest.mark.parametrize("point, status", BEHIND)
@pytest.mark.parametrize("kind", TWO_PHASES)
def test_killed_after_cancel_is_not_recorded_as_pivoted(lab, kind, point, status):
    """libvirt, killed there in the abort of a commit, records that the disk is base; QEMU goes on with the overlay, and
    all that the guest writes is missing at its next boot."""
    case = Case(lab, kind, point)
    ends.call_later(case.job, "Abort")
    case.kill_service(status)
    lab.service.start()
    case.assert_outcome("kept", case.old)


@pytest.mark.parametrize("point, status", BEHIND)
@pytest.mark.parametrize("kind", TWO_PHASES)
def test_killed_after_pivot_is_not_recorded_as_aborted(lab, kind, point, status):
    """libvirt, killed there in the pivot of a copy, records that the disk is the old image, and takes away what lets
    QEMU use the new one."""
    case = Case(lab, kind, point)
    ends.call_later(case.job, "Pivot")
    case.kill_service(status)
    lab.service.start()
    case.assert_outcome("completed", case.new)


# 4. The service dies behind the dismissal.

@pytest.mark.parametrize("kind", KINDS)
def test_killed_after_dismiss_leaves_no_stale_job(lab, kind):
    """libvirt, killed when QEMU has forgotten the job and its own files have not, says to every new job that there is
    one already, and to an abort that there is none, until the machine is switched off."""
    case = Case(lab, kind, "tidy+")
    if kind in TWO_PHASES:
        ends.call_later(case.job, "Pivot")
    case.kill_service(None)
    lab.service.start()
    case.job.wait_completed("completed")
    assert case.disk["Job"] == "/" and case.disk["Source"] == file_of_disk(case.machine)
    assert lab.domain_of(case.machine)["Jobs"] == []
    again = case.disk.copy(f"{lab.directory}/again.qcow2")
    finish("copy", again)
    assert len(case.job.completed()) == 1
    case.assert_next_boot([images.Layer(f"{lab.directory}/again.qcow2", "qcow2", images.SIZE)])


# 5. QEMU dies around the pivot.

@pytest.mark.parametrize("point, status, result", [
    ("ask+", "pending", "lost"), ("record-target", "pending", "lost"), ("finalize", "pending", "pivoted"),
    ("finalize+", "concluded", "pivoted"), pytest.param("look", "concluded", "pivoted", marks=LONG),
])
@pytest.mark.parametrize("kind", TWO_PHASES)
def test_qemu_dead_in_the_pivot_window_names_the_right_image(lab, kind, point, status, result):
    """Nobody who comes after libvirt looks at which image it was: an overlay is booted whose base has changed under it.
    Here the record tells, from before QEMU can let the guest write to one image alone."""
    case = Case(lab, kind, point)
    ends.call_later(case.job, "Pivot")
    lab.service.wait_stopped(lab.service.pid())
    case.machine.wait_jobs(lambda jobs: [job["status"] for job in jobs.values()] == [status], f"{status} in QEMU")
    if status == "concluded":
        ends.write(case.machine, 10, offset=21 * images.MIB)
    lab.service.kill()
    ends.end(case.machine, "SIGKILL")
    lab.service.start()
    case.job.wait_completed(result)
    layers = case.new if result == "pivoted" else case.old
    for _ in range(2):
        ends.assert_disk(case.disk, layers)
        assert case.job["Result"] == result and len(case.job.completed()) == 1
        lab.service.restart()
    ends.assert_image(layers[0], case.chain.contents[-1])


# 6. QEMU dies, and nothing is said of its jobs.

@pytest.mark.parametrize("there", [True, False], ids=["service-there", "service-dead"])
def test_end_of_qemu_is_told_for_each_job(lab, there):
    """libvirt tells that the domain is off, and nothing of what was going on in it."""
    machine = lab.machine()
    busy = ends.busy_machine(lab, machine)
    for number, one in enumerate(busy):
        ends.write(machine, 9 + number, one.target)
    if not there:
        lab.service.kill()
    gone = ends.end(machine, "SIGKILL")
    if not there:
        lab.service.start()
        gone = time.monotonic()
    for one in busy:
        ends.assert_told(one.job, "lost", gone)
    lab.service.restart()
    for one in busy:
        assert one.job["Result"] == "lost" and len(one.job.completed()) == 1
        ends.assert_disk(one.disk, reversed(one.chain.layers))
        ends.assert_image(one.chain.top, one.chain.contents[-1])


# 7. The first look after a restart fails.

class Objector:
    """A script of a FakePeer: the monitor of a real QEMU, which refuses commands that it would carry out, each so
    many times; in turn, as a QEMU does, or hastily, before it has answered those that came before."""

    def __init__(self, machine):
        self.path = machine.monitor_path
        self.refused = {}
        self.hasty = False

    def __call__(self, connection, peer):
        with socket.socket(socket.AF_UNIX) as qemu:
            qemu.connect(self.path)
            threading.Thread(target=self._pass_on, args=(qemu.makefile("rb"), connection), daemon=True).start()
            try:
                self._listen(connection, qemu)
            finally:
                # However the daemon went: a QEMU has one client at a time.
                qemu.shutdown(socket.SHUT_RDWR)

    def _listen(self, connection, qemu):
        for message in lines(connection):
            if self.refused.get(message["execute"]):
                self.refused[message["execute"]] -= 1
                if self.hasty:
                    send(connection, {"error": {"class": "GenericError", "desc": "no"}, "id": message["id"]})
                    continue
                message["execute"] = "not-now"
            send(qemu, message)

    def _pass_on(self, answers, connection):
        with contextlib.suppress(OSError):
            for line in answers:
                connection.sendall(line)
            end(connection)


def objecting(lab):
    """A slow job, in a machine behind an objector: (machine, chain, disk, job, objector)."""
    chain = slow_chain(lab.directory)
    machine = lab.machine().add_virtio(chain).start()
    objector = Objector(machine)
    lab.attached.append(machine.name)
    disk = lab.manager.attach(machine.name, lab.peer(objector).path).disk("vda")
    return machine, chain, disk, start("active-commit", lab, disk, speed=SLOW), objector


def assert_taken_up(lab, machine, chain, disk, job):
    """The guest and the job are as they were, and the service knows the job when it is answered."""
    assert [entry["status"] for entry in machine.jobs().values()] == ["running"]
    job.wait("State", "running")
    assert machine.running() and not job.completed()
    finish("active-commit", job)
    assert disk["Source"] == file_of_disk(machine) == chain.base.path
    lab.service.restart()
    assert disk["Source"] == chain.base.path and len(job.completed()) == 1
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


@pytest.mark.parametrize("command", ["query-jobs", "query-block", "query-named-block-nodes",
                                     "x-debug-query-block-graph", "query-qmp-schema"])
def test_failed_first_look_after_a_restart_kills_no_guest(lab, command):
    """libvirt that cannot ask for the jobs when it comes back gives up the domain, and kills the guest for it."""
    machine, chain, disk, job, objector = objecting(lab)
    lab.service.kill()
    objector.refused[command] = 1
    lab.service.start()
    wait_until(lambda: not objector.refused[command], "the service to ask QEMU")
    assert_taken_up(lab, machine, chain, disk, job)


def test_answer_out_of_turn_harms_nobody(lab):
    """No QEMU gives one; what a QEMU does that somebody has broken into is no matter of the service's memory."""
    machine, chain, disk, job, objector = objecting(lab)
    lab.service.kill()
    objector.hasty = True
    objector.refused["x-debug-query-block-graph"] = 1
    lab.service.start()
    wait_until(lambda: not objector.refused["x-debug-query-block-graph"], "the service to ask QEMU")
    assert_taken_up(lab, machine, chain, disk, job)


# What waits for a lock that somebody else holds.

@pytest.fixture
def stuck(lab):
    """An abort that does not come to its end: of a slow copy of vda to a server that does not answer.
    (machine, chains, disks, job, server, the abort's serial number)"""
    chains = {target: slow_chain(lab.directory, target) for target in ("vda", "vdb")}
    machine = lab.machine()
    for target, chain in chains.items():
        machine.add_virtio(chain, target)
    domain = lab.attach(machine.start())
    disks = {target: domain.disk(target) for target in chains}
    prepare(f"{lab.directory}/served", "raw")
    with NbdServer(f"{lab.directory}/served") as server:
        job = disks["vda"].copy(server.uri, format="raw", reuse=True, **SLOWLY)
        other = disks["vdb"].commit(auto="pivot", speed=SLOW)
        server.hold()
        # Something is under way to the server.
        job.set_speed(0)
        abort = ends.call_later(job, "Abort")
        job.wait("State", "completing")
        yield machine, chains, disks, (job, other), server, abort


def test_abort_that_hangs_on_one_disk_drops_no_end_of_another(lab, stuck):
    """libvirt tells of an end when it has the domain's lock, waits half a minute for that, and then forgets the event:
    the job of the other disk is at 99 % from then on, and its disk is busy."""
    machine, chains, disks, (job, other), server, abort = stuck
    # A newer QEMU changes its graph, as a pivot does, when no request is under way on any disk.
    waits_itself = machine.qmp.execute("query-version")["qemu"]["major"] >= 10
    other.set_speed(0)
    if waits_itself:
        server.go_on()
    other.wait_completed("completed")
    assert disks["vdb"]["Source"] == file_of_disk(machine, "vdb") == chains["vdb"].base.path
    if not waits_itself:
        assert job["State"] == "completing" and not job.completed()
        # And the disk takes its next job.
        disks["vdb"].copy(f"{lab.directory}/next.qcow2", auto="keep").wait_completed("kept")
        server.go_on()
    assert lab.client.wait_reply(abort).kind == "reply"
    job.wait_completed("cancelled")
    for _ in range(2):
        ends.assert_disk(disks["vda"], reversed(chains["vda"].layers))
        ends.assert_disk(disks["vdb"], [chains["vdb"].base])
        assert file_of_disk(machine, "vda") == chains["vda"].top.path
        assert len(job.completed()) == len(other.completed()) == 1
        lab.service.restart()
    machine.quit()
    images.assert_contents(chains["vda"].top, chains["vda"].contents[-1])
    images.assert_contents(chains["vdb"].base, chains["vdb"].contents[-1])


@pytest.mark.parametrize("whole", [False, True], ids=["server-hangs", "qemu-hangs"])
def test_reads_do_not_wait_for_a_job(lab, stuck, whole):
    """To read how far a job is, libvirt waits for the lock that the abort holds, and gives up after half a minute."""
    machine, _, disks, jobs, server, abort = stuck
    domain = lab.domain_of(machine)
    if whole:
        os.kill(machine.process.pid, signal.SIGSTOP)
        # A command that cannot be answered is under way.
        lab.client.call_later(jobs[1].path, "Job", "SetSpeed", "(t)", 2 * SLOW)
    begin = time.monotonic()
    for one in (*jobs, *disks.values(), domain, lab.manager):
        assert one.all()
    assert jobs[0]["State"] == "completing" and jobs[1]["State"] == "running"
    assert len(lab.manager.jobs(domain=machine.name)) == 2
    assert lab.manager.job(jobs[1]["Id"]).path == jobs[1].path
    assert {job.path for job in jobs} < set(lab.client.managed_objects())
    assert time.monotonic() - begin < 1
    assert not jobs[0].completed()
    if whole:
        os.kill(machine.process.pid, signal.SIGCONT)
    server.go_on()
    assert lab.client.wait_reply(abort).kind == "reply"
    jobs[0].wait_completed("cancelled")


@LONG
def test_domain_is_found_while_qemu_hangs(lab):
    """It is looked at for what somebody else has added, and not for longer than any command may take."""
    machine, _, disk = slow_disk(lab)
    domain = disk["Domain"]
    os.kill(machine.process.pid, signal.SIGSTOP)
    try:
        call = lab.client.call_later(ROOT, "Manager", "GetDomain", "(s)", machine.name)
        assert lab.client.wait_reply(call).kind == "reply"
        assert lab.domain_of(machine).path == domain
    finally:
        os.kill(machine.process.pid, signal.SIGCONT)
