# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains of the service's own, and the service, or what it started, dies: at every point of a definition and of a
start, and at every point of a job, whether the machine is off or runs.

A point is one of src/base/test-point.h; see test_walk.py. A part of the walk through the jobs is in every check, all of
it in the long one.
"""

import json
import os
import signal

import pytest
from kit import images
from kit.bus import BusError
from kit.crash_walk import SIZE, small_chain
from kit.objects import Job
from kit.own import OwnDomain, SlowEmulator, disk_xml, domain_xml
from kit.own_walk import (DEFINE, KINDS, NO_PROCESS, SILENT, START, UNDEFINE, OwnPair, assert_unharmed, kill_processes,
                          points_of, processes)
from kit.waiting import wait_until


@pytest.fixture(autouse=True)
def nothing_is_left(own):
    yield
    own.lab.service.ensure()
    own.clean()
    wait_until(lambda: not processes(own.directory), "all that was started to end")


@pytest.fixture
def traced(lab):
    """Where a service writes its points down; and those that it came to since the last time, each once, in order."""
    path = f"{lab.directory}/trace"
    seen = 0

    def points():
        nonlocal seen
        with open(path) as file:
            lines = file.read().splitlines()
        new, seen = lines[seen:], len(lines)
        return list(dict.fromkeys(new))
    with open(path, "w"):
        pass
    return path, points


# A domain comes to be, is started, and goes.

class Life:
    """A domain with three images, and a service that dies at a point."""

    def __init__(self, own):
        self.own, self.lab, self.client = own, own.lab, own.client
        self.chain = own.give(small_chain(own.directory))
        self.name = self.lab.unique_name()
        self.xml = domain_xml(self.name, disk_xml(self.chain.top.path))

    def die_at(self, point, path, interface, member, signature, *arguments):
        """In this call."""
        self.lab.service.restart(stop_at=point)
        call = self.client.call_later(path, interface, member, signature, *arguments)
        self.lab.service.wait_gone()
        assert self.client.wait_reply(call).kind == "error"
        assert bool(processes(self.own.directory)) == (point in START and point not in NO_PROCESS)

    def die_in_making(self, point, member):
        self.die_at(point, "/org/blockjobd1", "Manager", member, "(sa{sv})", self.xml, {})

    def die_in(self, domain, point, member):
        self.die_at(point, domain.path, "Domain", member, "(a{sv})", {})

    def records(self):
        directory = f"{self.lab.service.state_directory}/domains"
        return [name for name in os.listdir(directory) if name.startswith(f"{self.name}.json")]

    def assert_gone(self):
        """Nothing of it is left, and its name is free."""
        wait_until(lambda: not self.records(), "its record to go")
        with pytest.raises(BusError, match="NoSuchDomain"):
            self.lab.manager.domain(self.name)
        assert not processes(self.own.directory)

    def assert_shut_off(self):
        """It is there, whole, and its machine is off."""
        domain = OwnDomain(self.client, self.lab.manager.domain(self.name).path)
        assert self.records() == [f"{self.name}.json"]
        assert (domain["State"], domain["Pid"], domain["Origin"]) == ("shutoff", 0, "defined")
        assert not processes(self.own.directory)
        assert domain.xml_source() == [self.chain.top.path]
        assert domain.disk().sources() == self.chain.paths() and domain.disk()["Capacity"] == SIZE
        return domain

    def live(self, domain):
        """All that can be done with one that is off."""
        domain.start()
        assert domain["State"] == "running" and domain.disk().sources() == self.chain.paths()
        domain.destroy()
        assert_unharmed(self.chain)
        domain.undefine()
        self.assert_gone()


@pytest.fixture
def life(own):
    return Life(own)


@pytest.fixture
def defined(life):
    return life.own.define(life.xml)


def test_the_points_are_those_of_an_undisturbed_life(own, life, traced):
    """So that no point is left out below, and none is waited for in vain."""
    path, points = traced
    own.lab.service.restart(trace=path)
    points()
    domain = own.define(life.xml)
    assert points() == DEFINE
    domain.start()
    assert points() == START
    domain.destroy()
    assert points() == []
    domain.undefine()
    assert points() == UNDEFINE
    own.create(life.xml).destroy()
    assert points() == START


@pytest.mark.parametrize("point", DEFINE)
def test_service_killed_in_a_definition(own, life, point):
    life.die_in_making(point, "DefineDomain")
    life.lab.service.start()
    if point == "define-record":
        life.assert_gone()
        own.define(life.xml)
    life.live(life.assert_shut_off())


@pytest.mark.parametrize("point", UNDEFINE)
def test_service_killed_in_undefine(life, defined, point):
    life.die_in(defined, point, "Undefine")
    life.lab.service.start()
    if point == "undefine-record":
        life.assert_shut_off().undefine()
    life.assert_gone()
    assert_unharmed(life.chain)


@pytest.mark.parametrize("point", START)
def test_service_killed_in_a_start(life, defined, point):
    """Its guest has not run: no QEMU is left, as if nobody had asked."""
    life.die_in(defined, point, "Start")
    life.lab.service.start()
    life.live(life.assert_shut_off())


@pytest.mark.parametrize("point", START)
def test_service_killed_in_the_start_of_a_transient_one(own, life, point):
    life.die_in_making(point, "CreateDomain")
    life.lab.service.start()
    life.assert_gone()
    assert_unharmed(life.chain)
    own.create(life.xml).destroy()
    life.assert_gone()


def instance_of(pid):
    """As a record names a process."""
    with open("/proc/sys/kernel/random/boot_id") as boot, open(f"/proc/{pid}/stat") as stat:
        return f"{boot.read().strip()}/{pid}-{stat.read().rsplit(')', 1)[1].split()[19]}"


@pytest.mark.parametrize("recorded", [False, True], ids=["unknown", "recorded"])
@pytest.mark.parametrize("member", ["Start", "CreateDomain"])
def test_service_killed_in_a_start_and_qemu_is_slow(own, life, member, recorded):
    """It comes up when the service is there again and waits for it, whether that knows which process it is or not."""
    emulator = SlowEmulator(own.directory)
    life.xml = domain_xml(life.name, disk_xml(life.chain.top.path), devices=emulator.xml)
    domain = own.define(life.xml) if member == "Start" else None
    service = life.lab.service
    service.restart(wait_at="launch-connect")
    pid = service.pid()
    if domain:
        life.client.call_later(domain.path, "Domain", "Start", "(a{sv})", {})
    else:
        life.client.call_later("/org/blockjobd1", "Manager", "CreateDomain", "(sa{sv})", life.xml, {})
    service.wait_stopped(pid)
    qemu, = processes(own.directory)
    os.kill(pid, signal.SIGKILL)
    service.wait_gone()
    path = f"{service.state_directory}/domains/{life.name}.json"
    with open(path) as file:
        record = json.load(file)
    known = {"pid": qemu, "instance": instance_of(qemu)} if recorded else {"pid": 0, "instance": ""}
    with open(path, "w") as file:
        json.dump(record | known, file)
    service.start()
    emulator.let()
    wait_until(lambda: not processes(own.directory), "the QEMU that is too late to be ended")
    if domain:
        domain.wait("State", "shutoff")
        domain.undefine()
    life.assert_gone()
    assert_unharmed(life.chain)


@pytest.mark.parametrize("again", ["connect-identify", "connect-looked"])
def test_service_killed_again_when_it_finds_a_start_cut_off(life, defined, again):
    life.die_in(defined, "start-continue", "Start")
    life.lab.service.launch(stop_at=again).wait(20)
    life.lab.service.start()
    life.live(life.assert_shut_off())


def test_qemu_dead_as_well(life, defined):
    """There is nobody to be ended."""
    life.die_in(defined, "start-continue", "Start")
    kill_processes(life.own.directory)
    life.lab.service.start()
    life.live(life.assert_shut_off())


def test_qemu_of_a_transient_one_dead_as_well(life):
    life.die_in_making("start-continue", "CreateDomain")
    kill_processes(life.own.directory)
    life.lab.service.start()
    life.assert_gone()
    assert_unharmed(life.chain)


@pytest.mark.parametrize("state", ["running", "paused"])
def test_guest_that_runs_already_goes_on(life, defined, state):
    """By the record it is just being started: a QEMU whose guest has run is never ended."""
    path = f"{life.lab.service.state_directory}/domains/{life.name}.json"

    def record():
        with open(path) as file:
            return json.load(file)

    defined.start()
    if state == "paused":
        defined.call("Suspend")
        defined.wait("State", "paused")
    pid = defined["Pid"]
    wait_until(lambda: not record()["starting"], "the record to say that it runs")
    life.lab.service.kill()
    starting = record() | {"starting": True}
    with open(path, "w") as file:
        json.dump(starting, file)
    for _ in range(2):
        life.lab.service.restart()
        assert (defined["State"], defined["Pid"]) == (state, pid) and processes(life.own.directory) == [pid]
        wait_until(lambda: not record()["starting"], "the record to say that it runs")
    defined.destroy()
    life.live(life.assert_shut_off())


# Jobs.

def cases(always, running=False, kinds=KINDS, without=()):
    """(kind, point): all of them, of which each check has but the points in always[kind]."""
    return [pytest.param(kind, point, id=f"{kind}-{point}",
                         marks=[] if point in always.get(kind, ()) else pytest.mark.long)
            for kind in kinds for point in points_of(kind, running) if point not in without]


RUNNING = ("active-commit", "commit", "explicit-commit", "copy", "rebased-copy", "pull", "snapshot")


@pytest.mark.parametrize("kind, running", [(kind, False) for kind in KINDS] + [(kind, True) for kind in RUNNING])
def test_the_points_are_those_of_an_undisturbed_job(own, traced, kind, running):
    path, points = traced
    pair = OwnPair(own, kind, points_of(kind, running)[0], running, trace=path)
    points()
    assert pair.lab.client.wait_reply(pair.call()).kind == "reply"
    if kind not in SILENT:
        pair.job_that_is_told().wait_completed(pair.kind.result)
    pair.wait_quiet()
    pair.lab.service.kill()
    # check-snapshot is due with newer QEMUs than Debian 12's.
    others = ("delete-file", "told", "check-snapshot")
    found = [point for point in points() if not point.startswith(others)]
    assert sorted(found) == sorted(points_of(kind, running))


def killed_service(own, kind, point, running=False):
    pair = OwnPair(own, kind, point, running, stop_at=point)
    pair.run_until_it_stands()
    pair.lab.service.wait_gone()
    return pair


@pytest.mark.parametrize("kind, point", cases({
    "copy": ("storage-inspect", "launch-record", "launch-process", "launch-connect", "connect-looked",
             "storage-record", "storage-job", "record-intent+", "start+", "record-target+", "finalize+",
             "record-outcome+", "record-domain+", "close+"),
    "active-commit": ("finalize", "tidy+", "delete+", "close"),
    "commit": ("start+", "finalize+", "record-domain"),
    "pull": ("finalize+",),
    "backup": ("announce+",),
    "snapshot": ("record-target+", "snapshot+", "close+"),
    "resize": ("resize+", "close+"),
}))
def test_service_killed(own, kind, point):
    pair = killed_service(own, kind, point)
    pair.lab.service.start()
    pair.assert_all_of_living()


@pytest.mark.parametrize("kind, point", cases({
    "copy": ("launch-connect", "connect-identify", "storage-job", "record-target+", "finalize+", "close"),
    "snapshot": ("snapshot",),
}, without=NO_PROCESS))
def test_storage_daemon_killed_under_the_service(own, kind, point):
    pair = OwnPair(own, kind, point, wait_at=point)
    pair.run_until_it_stands()
    pair.kill_qemu()
    pair.resume()
    pair.assert_all_of_dead(service_lived=True)


@pytest.mark.parametrize("kind, point", cases({
    "copy": ("launch-connect", "storage-record", "announce+"),
    "active-commit": ("record-target", "finalize", "record-outcome+"),
    "snapshot": ("snapshot+",),
}, without=NO_PROCESS))
def test_service_killed_and_then_the_storage_daemon(own, kind, point):
    pair = killed_service(own, kind, point)
    pair.kill_qemu()
    pair.lab.service.start()
    pair.assert_all_of_dead(service_lived=False)


# While the machine runs: what its next start uses.

@pytest.mark.parametrize("kind, point", cases({"active-commit": ("record-domain",), "copy": ("record-domain+",)},
                                              running=True, kinds=RUNNING))
def test_service_killed_while_the_machine_runs(own, kind, point):
    pair = killed_service(own, kind, point, running=True)
    pair.lab.service.start()
    pair.assert_all_of_living()


@pytest.mark.parametrize("kind, point", cases({
    "active-commit": ("finalize", "record-domain"),
    "copy": ("record-target+", "look", "record-outcome", "record-outcome+", "record-domain", "record-domain+"),
    "snapshot": ("record-domain",),
}, running=True, kinds=RUNNING))
def test_service_killed_and_then_the_machine(own, kind, point):
    pair = killed_service(own, kind, point, running=True)
    pair.kill_qemu()
    pair.lab.service.start()
    pair.assert_all_of_dead(service_lived=False)


@pytest.mark.parametrize("kind, point", cases({"copy": ("record-domain",)}, running=True, kinds=RUNNING))
def test_machine_killed_under_the_service(own, kind, point):
    pair = OwnPair(own, kind, point, running=True, wait_at=point)
    pair.run_until_it_stands()
    pair.kill_qemu()
    pair.resume()
    pair.assert_all_of_dead(service_lived=True)


# A copy that the next start begins again.

class Resumed:
    """A copy with `resume` that is ready, of a machine that runs."""

    def __init__(self, own):
        self.own, self.client, self.service = own, own.client, own.lab.service
        self.chain = small_chain(own.directory)
        self.domain, self.disk = own.standard(self.chain)
        self.target = f"{own.directory}/target.qcow2"
        self.domain.start()
        self.position = self.client.position()
        self.job = self.disk.copy(self.target, resume=True)
        self.job.wait_ready()

    def kill_machine(self):
        kill_processes(self.own.directory)

    def assert_lost(self, *jobs):
        """It, and these: each told exactly once, whatever life of the service did it."""
        jobs = (self.job, *jobs)
        for job in jobs:
            job.wait_completed("lost")
        told = self.client.heard(self.disk.path, "MirrorDropped", self.position)
        assert [heard.arguments for heard in told] == [("vda", self.target)] * len(jobs)
        assert not self.domain["Jobs"] and self.disk["Job"] == "/"
        assert self.domain.xml_source(inactive=True) == [self.chain.top.path]

    def assert_resumed(self):
        """By the next start; when it pivots all the bytes are there, and then it is over."""
        self.domain.start()
        again, = self.own.jobs_of(self.domain)
        assert again.path != self.job.path and again["Target"] == self.target
        again.wait("State", "ready")
        again.pivot()
        again.wait_completed("completed")
        assert self.disk.sources() == [self.target] == self.domain.xml_source(inactive=True)
        self.service.restart()
        self.domain.destroy()
        images.assert_contents(images.Layer(self.target, "qcow2", SIZE), self.chain.contents[-1])
        self.domain.start()
        assert not self.domain["Jobs"] and self.disk.sources() == [self.target]


@pytest.fixture
def resumed(own):
    return Resumed(own)


@pytest.mark.parametrize("first", ["service", "machine"])
def test_copy_resumed_after_both_died(resumed, first):
    if first == "service":
        resumed.service.kill()
        resumed.kill_machine()
    else:
        os.kill(resumed.service.pid(), signal.SIGSTOP)
        resumed.kill_machine()
        resumed.service.kill()
    for _ in range(2):
        resumed.service.restart()
        resumed.assert_lost()
    resumed.assert_resumed()


@pytest.mark.parametrize("point", ["record-outcome", "record-outcome+", "record-domain", "record-domain+", "tell",
                                   "tell+"])
def test_copy_resumed_when_the_service_died_of_its_loss(resumed, point):
    """Where it deals with the end of QEMU."""
    resumed.service.restart(stop_at=point)
    resumed.kill_machine()
    resumed.service.wait_gone()
    resumed.service.start()
    resumed.assert_lost()
    resumed.assert_resumed()


@pytest.mark.parametrize("point", ["record-intent+", "start+", "announce+", "start-record", "start-continue"])
def test_service_killed_where_a_start_resumes_a_copy(resumed, point):
    """The guest has not run: the copy that was begun again is lost as well, where somebody was told of it, and the
    next start is the one that resumes."""
    resumed.kill_machine()
    resumed.assert_lost()
    resumed.service.restart(stop_at=point)
    position = resumed.client.position()
    resumed.client.call_later(resumed.domain.path, "Domain", "Start", "(a{sv})", {})
    resumed.service.wait_gone()
    resumed.service.start()
    wait_until(lambda: not resumed.domain["Jobs"], "what was begun to end")
    assert resumed.domain["State"] == "shutoff" and not processes(resumed.own.directory)
    told = [Job(resumed.client, heard.arguments[1]) for heard in resumed.client.heard(member="JobNew", since=position)]
    assert len(told) in {"record-intent+": (0,), "start+": (0, 1)}.get(point, (1,))
    resumed.assert_lost(*told)
    resumed.assert_resumed()


@pytest.mark.parametrize("end", ["abort", "pivot"])
def test_copy_that_came_to_its_end_is_not_resumed(resumed, end):
    getattr(resumed.job, end)()
    result, source = ("kept", resumed.chain.top.path) if end == "abort" else ("completed", resumed.target)
    resumed.job.wait_completed(result)
    resumed.service.kill()
    resumed.kill_machine()
    resumed.service.start()
    resumed.domain.start()
    assert not resumed.domain["Jobs"] and resumed.disk["Source"] == source
    assert not resumed.client.heard(resumed.disk.path, "MirrorDropped", resumed.position)
