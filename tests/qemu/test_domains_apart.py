# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QEMU that is silent, slow or too loud delays no other domain, no read and no other disk; and when it is back,
all that happened meanwhile is caught up."""

import contextlib
import json
import threading
import time

import pytest

from kit import images, relay
from kit.bus import ROOT, options, refused
from kit.chains import slow_middle
from kit.faults import machine_with_faults, read_fault
from kit.faults import layers as layers_for_faults
from kit.images import KIB, MIB
from kit.neighbours import Neighbour, assert_reads_answered, resident, stopped, when_it_runs
from kit.targets import NbdServer, prepare
from kit.waiting import wait_until

SLOW = 64 * KIB
# What the service allows QEMU for an answer.
PATIENCE = 10


# Silent.

def pivot_later(lab, job):
    return lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {})


@contextlib.contextmanager
def stopped_in_phase(lab, phase, machine, disk):
    """QEMU stopped while its job is in this phase: (job, the call to Pivot that has been made or None)."""
    job = disk.commit(active=True, speed=SLOW if phase == "running" else 0)
    call = None
    if phase != "running":
        job.wait_ready()
    if phase == "pending":
        pid = lab.service.pid()
        call = pivot_later(lab, job)
        lab.service.wait_stopped(pid)
        with stopped(machine):
            lab.service.resume(pid)
            yield job, call
        return
    with stopped(machine):
        if phase == "pivot":
            call = pivot_later(lab, job)
            job.wait("State", "completing")
        yield job, call


@pytest.mark.parametrize("phase", ["running", "ready", "pivot", "pending"])
def test_stopped_qemu_delays_nobody_else(lab, phase):
    if phase == "pending":
        lab.service.restart(wait_at="finalize")
    machine, chain, disk = lab.slow()
    neighbour = Neighbour(lab)
    with stopped_in_phase(lab, phase, machine, disk) as (job, call):
        disturbed = neighbour.measure()
        assert_reads_answered(lab, job, disk, lab.manager.domain(neighbour.machine.name))
    if phase == "running":
        job.set_speed(0)
        job.wait_ready()
    if call:
        assert lab.client.wait_reply(call).kind == "reply"
    else:
        job.pivot()
    job.wait_completed("completed")
    assert len(lab.client.heard(job.path, "Ready")) == 1
    assert disk["Source"] == machine.active_file("vda") == chain.base.path
    neighbour.assert_not_delayed(disturbed)


def test_domain_can_be_attached_while_another_does_not_answer(lab):
    machine, _, _ = lab.standard()
    domain = lab.domain_of(machine)
    with stopped(machine):
        call = lab.client.call_later(domain.path, "Domain", "Resume")
        _, _, other = lab.standard(images.two_layers(lab.directory, "other"))
        other.commit(auto="pivot").wait_completed("completed")
        assert domain["Name"] == machine.name and domain["State"] == "paused"
    assert lab.client.wait_reply(call).kind == "reply"
    domain.wait("State", "running")


class Late:
    """Four machines that do not answer until after the deadline: what callers hear, and what becomes of the jobs."""

    def __init__(self, lab):
        self.lab = lab
        self.running, _, disk = lab.standard(images.slow_layers(lab.directory, "running"))
        self.running_job = disk.commit(active=True, speed=SLOW)
        self.ready, self.ready_chain, disk = lab.standard(images.slow_layers(lab.directory, "ready"))
        self.ready_job = disk.commit(active=True)
        self.ready_job.wait_ready()
        self.single, self.single_chain, disk = lab.standard(slow_middle(lab.directory, name="single"))
        self.single_job = disk.commit(top="[1]", speed=SLOW)
        self.idle, _, self.idle_disk = lab.standard(images.two_layers(lab.directory, "idle"))
        self.machines = [self.running, self.ready, self.single, self.idle]
        self.domains = [lab.domain_of(machine) for machine in self.machines]
        self.calls = []
        self.start = 0.0

    def ask(self):
        later = self.lab.client.call_later
        self.start = time.monotonic()
        self.calls = [pivot_later(self.lab, self.ready_job),
                      later(self.ready_job.path, "Job", "SetSpeed", "(t)", 5 * MIB),
                      later(self.single_job.path, "Job", "SetSpeed", "(t)", 5 * MIB),
                      later(self.idle_disk.path, "Disk", "Commit", "(a{sv})", options({"auto": "pivot"})),
                      later(self.domains[3].path, "Domain", "Suspend")]

    def assert_timeouts(self):
        """Each caller is told at the deadline, the domain says so, and from then on nobody waits for it again."""
        for call in self.calls:
            assert self.lab.client.wait_reply(call).kind == "error"
        assert PATIENCE - 1 < time.monotonic() - self.start < PATIENCE + 4
        for domain in self.domains:
            domain.wait("StateReason", lambda reason: "does not answer" in reason)
        start = time.monotonic()
        for attempt in (self.ready_job.pause, lambda: self.domains[3].call("Resume"), self.running_job.resume,
                        lambda: self.idle_disk.commit(active=True)):
            with refused("Timeout", "does not answer"):
                attempt()
        for machine in self.machines:
            self.lab.domain_of(machine)
        assert time.monotonic() - start < 2

    def assert_caught_up(self):
        """The jobs' ends came while nobody could see them: each is told once, and QEMU's graph is what is told."""
        # The pivot was decided; it is carried out now.
        self.ready_job.wait_completed("completed")
        assert self.ready.active_file("vda") == self.ready_chain.base.path
        self.single_job.wait_completed("completed")
        disk = self.lab.domain_of(self.single).disk("vda")
        assert disk.sources() == [self.single_chain.top.path, self.single_chain.base.path]
        self.running_job.wait_ready()
        self.running_job.pivot()
        self.running_job.wait_completed("completed")
        for job, ready in ((self.running_job, 1), (self.ready_job, 1), (self.single_job, 0)):
            assert len(self.lab.client.heard(job.path, "Ready")) == ready
            assert len(job.completed()) == 1
        for domain in self.domains:
            domain.wait("StateReason", lambda reason: "does not answer" not in reason)

    def assert_nothing_was_begun(self):
        """Who was told that QEMU does not answer has no job later on."""
        self.idle_disk.wait("Job", "/")
        assert self.idle.jobs() == {}
        assert self.lab.manager.jobs(domain=self.idle.name) == []
        self.idle_disk.commit(auto="pivot").wait_completed("completed")


def test_qemu_that_answers_again_after_the_deadline(lab):
    neighbour = Neighbour(lab)
    late = Late(lab)
    with stopped(*late.machines):
        late.ask()
        disturbed = neighbour.measure()
        assert_reads_answered(lab, late.ready_job, late.idle_disk, *late.domains)
        late.assert_timeouts()
        assert_reads_answered(lab, late.ready_job, late.idle_disk, *late.domains)
        # They come to their ends, or get ready, in the very moment of the return.
        threads = [when_it_runs(late.running, "block-job-set-speed", device=late.running_job["QemuJobId"], speed=0),
                   when_it_runs(late.single, "block-job-set-speed", device=late.single_job["QemuJobId"], speed=0)]
    for thread in threads:
        thread.join()
    late.assert_caught_up()
    late.assert_nothing_was_begun()
    neighbour.assert_not_delayed(disturbed)


def test_calls_that_look_at_a_stopped_qemu_are_answered_in_time(lab):
    """GetDomain wants to see a QEMU's disks; and a start that QEMU has got already cannot be taken back."""
    lab.service.restart(wait_at="start")
    pid = lab.service.pid()
    machine, chain, disk = lab.slow()
    position = lab.client.position()
    commit = lab.client.call_later(disk.path, "Disk", "Commit", "(a{sv})", options({"auto": "pivot"}))
    lab.service.wait_stopped(pid)
    with stopped(machine):
        lab.service.resume(pid)
        find = lab.client.call_later(ROOT, "Manager", "GetDomain", "(s)", machine.name)
        assert lab.client.wait_reply(find, PATIENCE / 2).kind == "reply"
        assert lab.client.wait_reply(commit).kind == "error"
        assert not lab.client.heard(ROOT, "JobNew", since=position)
    # The job is there after all, and as good as any.
    path = lab.client.wait_signal(ROOT, "JobNew", since=position).arguments[1]
    lab.client.wait_signal(path, "Completed", where=lambda heard: heard.arguments[0] == "completed")
    disk.wait("Job", "/")
    assert disk["Source"] == machine.active_file("vda") == chain.base.path
    assert len(lab.client.heard(path, "Completed")) == 1


# Slow.

@pytest.mark.parametrize("how", [{"pause": 0.05}, {"piece": 7}], ids=["pauses", "pieces"])
def test_slow_qemu_delays_nobody_else(lab, how):
    """Each line comes late, or all come in pieces; its own commit takes long for that, and no other one."""
    chain = images.two_layers(lab.directory)
    machine = lab.machine().add_virtio(chain).start()
    neighbour = Neighbour(lab)
    _, domain = relay.attach(lab, machine, **how)
    disk = domain.disk("vda")
    job = disk.commit(active=True)
    disturbed = neighbour.measure()
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")
    assert disk["Source"] == machine.active_file("vda") == chain.base.path
    neighbour.assert_not_delayed(disturbed)


# Loud.

FLOODS = {
    "unknown": relay.event("OF_A_LATER_QEMU", value=1),
    # Each of these is a reason to ask QEMU something.
    "jobs": relay.event("JOB_STATUS_CHANGE", id="theirs", status="created")
    + relay.event("JOB_STATUS_CHANGE", id="theirs", status="null"),
    "states": relay.event("STOP") + relay.event("RESUME"),
    "errors": relay.event("BLOCK_JOB_ERROR", device="theirs", operation="read", action="ignore"),
    "trays": relay.event("DEVICE_TRAY_MOVED", device="", id="cd", **{"tray-open": True}),
    # A megabyte with much to parse in it.
    "huge": relay.event("OF_A_LATER_QEMU", values=[0] * (MIB // 3)),
}


def chunk_of(kind):
    events = FLOODS[kind]
    return events * max(1, (64 * KIB) // len(events))


def noisy_domain(lab):
    chain = images.two_layers(lab.directory)
    machine = lab.machine().add_virtio(chain).start()
    return machine, chain, *relay.attach(lab, machine)


@pytest.mark.parametrize("kind", FLOODS)
def test_flood_of_events_delays_nobody_else(lab, kind):
    """From a QEMU that sends as fast as it is read. It does not drop out itself either."""
    neighbour = Neighbour(lab)
    machine, chain, noise, domain = noisy_domain(lab)
    disk = domain.disk("vda")
    noise.flood(chunk_of(kind))
    wait_until(lambda: noise.flooded > MIB, "the flood to come in")
    disturbed = neighbour.measure()
    assert_reads_answered(lab, disk, domain)
    noise.flood(b"")
    disk.commit(auto="pivot").wait_completed("completed")
    assert disk["Source"] == machine.active_file("vda") == chain.base.path
    assert "does not answer" not in domain["StateReason"]
    neighbour.assert_not_delayed(disturbed)


@pytest.mark.parametrize("kind", ["jobs", "states", "errors", "trays"])
def test_what_is_asked_for_the_sake_of_events_is_bounded(lab, kind):
    """A QEMU that reads no commands and sends event after event does not pile up questions to it in our memory."""
    _, _, noise, _ = noisy_domain(lab)
    noise.listens.clear()
    noise.flood(chunk_of(kind))
    wait_until(lambda: noise.flooded > MIB, "the flood to come in")
    noise.flood(b"")
    noise.commands.clear()
    noise.listens.set()
    # Answered behind all that is asked because of the events.
    lab.domain_of(lab.machines[0])
    assert len(noise.commands) < 40, f"{len(noise.commands)} commands for events: {noise.commands[:10]}"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["unknown", "jobs", "states", "errors", "trays"])
def test_flood_of_events_does_not_grow_the_service(lab, kind):
    """Ever so many events to a QEMU that reads nothing; compared are two states that a sanitizer's own growth, which
    ends after the first few hundred megabytes of what was freed, does not tell apart."""
    _, _, noise, _ = noisy_domain(lab)
    noise.listens.clear()
    noise.flood(chunk_of(kind))
    sizes = []
    for end in (24 * MIB, 40 * MIB, 56 * MIB):
        wait_until(lambda end=end: noise.flooded > end, "more of the flood to come in", 60)
        sizes.append(resident(lab.service.pid()))
    noise.flood(b"")
    noise.listens.set()
    assert sizes[2] - sizes[1] < 2 * KIB, f"the service grows: {sizes} KiB"


def flood_of_jobs(machine, ending):
    """Somebody's jobs, which have nothing to do with a disk, begun and cancelled as fast as QEMU can. Their number."""
    for name in ("from", "to"):
        machine.qmp.execute("blockdev-add", driver="null-co", node_name=f"null-{name}", size=MIB)
    begin = {"job-id": "theirs", "device": "null-from", "target": "null-to", "sync": "none"}
    pair = (("blockdev-backup", begin), ("job-cancel", {"id": "theirs"}))
    batch = "".join(json.dumps({"execute": command, "arguments": arguments}) + "\r\n"
                    for command, arguments in pair).encode() * 10
    begun = 0
    with machine.qmp.lock, machine.qmp.socket.makefile("rb") as answers:
        while not ending.is_set():
            machine.qmp.socket.sendall(batch)
            answered = 0
            # Some are refused: the one before is not over yet.
            while answered < 20:
                line = answers.readline()
                answered += line.startswith((b'{"return"', b'{"error"'))
                begun += b'"created"' in line
    return begun


def test_jobs_of_somebody_else_one_after_another_delay_nobody_else(lab):
    """Thousands of real ones: QEMU tells of each that it begins and is over, and is looked at."""
    machine, chain, disk = lab.standard()
    neighbour = Neighbour(lab)
    ending = threading.Event()
    counts = []
    thread = threading.Thread(target=lambda: counts.append(flood_of_jobs(machine, ending)), daemon=True)
    thread.start()
    try:
        disturbed = neighbour.measure()
        assert_reads_answered(lab, disk, lab.manager.domain(neighbour.machine.name))
        disk.commit(auto="pivot").wait_completed("completed")
    finally:
        ending.set()
        thread.join()
    assert counts[0] > 100
    assert machine.active_file("vda") == chain.base.path
    neighbour.assert_not_delayed(disturbed, room=0.25)


def test_errors_without_end_delay_nobody_else(lab):
    """A copy that ignores a place that cannot be read comes back to it for ever, with an event each time."""
    chain = layers_for_faults(lab.directory)
    machine = machine_with_faults(lab, chain, {1: read_fault(chain.layers[1], once=False)}).start()
    disk = lab.attach(machine).disk("vda")
    neighbour = Neighbour(lab)
    job = disk.copy(f"{lab.directory}/copy.qcow2", on_source_error="ignore")
    for _ in range(100):
        machine.qmp.wait_event("BLOCK_JOB_ERROR")
    disturbed = neighbour.measure()
    assert_reads_answered(lab, disk, job)
    job.abort(force=True)
    job.wait_completed("cancelled")
    neighbour.assert_not_delayed(disturbed, room=0.25)


# The other disk.

def test_target_that_hangs_delays_no_other_disk(lab):
    """Of the same machine: a server that does not answer holds the copy to it, and nothing else."""
    one, two = (images.slow_layers(lab.directory, name) for name in ("one", "two"))
    machine = lab.machine().add_virtio(one, "vda").add_virtio(two, "vdb").start()
    domain = lab.attach(machine)
    target = prepare(f"{lab.directory}/target.raw", "raw")
    with NbdServer(target.path) as server:
        other = domain.disk("vdb").commit(active=True, speed=SLOW)
        copy = domain.disk("vda").copy(server.uri, format="raw", reuse=True)
        copy.wait_ready()
        server.hold()
        machine.write("vda", 9, 20 * MIB, MIB)
        other.set_speed(0)
        other.wait_ready()
        other.pivot()
        other.wait_completed("completed")
        assert copy["State"] == "ready"
        assert domain.disk("vdb")["Source"] == machine.active_file("vdb") == two.base.path
        server.go_on()
        copy.pivot()
        copy.wait_completed("completed")
        machine.quit()
        server.stop()
    images.assert_contents(target, one.contents[-1])
