# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service tells its supervisor: that it is ready, that it is alive, that it stops."""

import os
import signal
import socket
import threading
import time

import pytest

from kit import images, relay
from kit.bus import NAME, ROOT, Client
from kit.images import KIB
from kit.neighbours import Neighbour, stopped
from kit.waiting import DEADLINE, stays, wait_until

# The one that the service is told; a ping is due every half of it.
INTERVAL = 1.2
# For a busy machine. A supervisor would wait for another half interval before it acts.
SLACK = 0.5
# As long a start may wait for QEMUs that do not answer.
START_SECONDS = 3
# As long a stop may wait for what holds a guest.
STOP_SECONDS = 2


class Supervisor:
    """As systemd: a socket to which the service sends what it has to say; (time, text) of each is kept."""

    def __init__(self, directory):
        self.path = f"{directory}/notify"
        self.heard = []
        self.news = threading.Condition()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        threading.Thread(target=self._listen, daemon=True).start()

    def variables(self, **more):
        return {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": str(int(INTERVAL * 1000000)), **more}

    def _listen(self):
        while True:
            text = self.socket.recv(4096).decode()
            with self.news:
                self.heard += [(time.monotonic(), line) for line in text.splitlines()]
                self.news.notify_all()

    def times(self, text, since=0.0):
        with self.news:
            return [when for when, line in self.heard if line == text and when >= since]

    def wait(self, text, since=0.0, deadline=DEADLINE):
        """When it was said first, since then."""
        with self.news:
            assert self.news.wait_for(lambda: [line for when, line in self.heard if line == text and when >= since],
                                      deadline), f"not within {deadline:g} s: {text}; heard {self.heard}"
        return self.times(text, since)[0]

    def assert_pinged(self, since, until):
        """No longer without a ping in this time than half the interval."""
        pings = [when for when in self.times("WATCHDOG=1", since) if when <= until]
        gaps = [later - earlier for earlier, later in zip([since, *pings], [*pings, until])]
        assert max(gaps) <= INTERVAL / 2 + SLACK, f"without a ping for {max(gaps):.2f} s"


@pytest.fixture
def supervisor(workdir):
    return Supervisor(workdir)


@pytest.fixture
def supervised(service, supervisor):
    """The service under the supervisor, ready. The next test has one without."""
    service.kill()
    process = service.launch(variables=supervisor.variables())
    supervisor.wait("READY=1")
    yield process
    if service.owned():
        service.terminate()


def test_ready_is_said_when_the_name_is_owned(service, supervisor):
    service.kill()
    service.launch(variables=supervisor.variables())
    supervisor.wait("READY=1")
    assert service.owned()
    supervisor.wait("WATCHDOG=1")
    assert supervisor.heard[0][1] == "READY=1" and len(supervisor.times("READY=1")) == 1
    service.terminate()


def test_nothing_is_said_without_the_name(service, supervisor):
    """Somebody else has it: that is no service that could be called ready."""
    service.kill()
    thief = Client(listen=False)
    assert thief.driver("RequestName", "(su)", NAME, 0) == (1,)
    process = service.launch(variables=supervisor.variables())
    assert process.wait(DEADLINE) != 0
    assert not supervisor.times("READY=1") and not supervisor.times("WATCHDOG=1")
    service.processes.remove(process)
    thief.close()
    service.wait_gone()


def test_silent_qemu_delays_ready_and_no_ping(lab, supervisor):
    """A start waits for QEMUs only so long; the supervisor counts from READY on, and so do the pings."""
    machine, _, _ = lab.standard()
    lab.service.kill()
    with stopped(machine):
        start = time.monotonic()
        lab.service.launch(variables=supervisor.variables())
        ready = supervisor.wait("READY=1")
        assert ready - start < START_SECONDS + 2
        first = supervisor.wait("WATCHDOG=1")
        assert ready < first <= ready + INTERVAL / 2 + SLACK
    domain = lab.domain_of(machine)
    domain.wait("State", "paused")
    domain.disk("vda").commit(auto="pivot").wait_completed("completed")
    lab.service.terminate()


def test_pings_come_when_there_is_nothing_to_do(supervisor, supervised):
    start = time.monotonic()
    wait_until(lambda: len(supervisor.times("WATCHDOG=1", start)) == 3, "three pings")
    supervisor.assert_pinged(start, time.monotonic())


def flood_with_calls(ending):
    """A client that calls and calls, more at once than it may have pending."""
    client = Client(listen=False)
    while not ending.is_set():
        calls = [client.call_later(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
                 for _ in range(50)]
        client.wait_reply(calls[-1])
        client.log.clear()
    client.close()


def test_pings_come_under_load(lab, supervisor, supervised):
    """Jobs, a QEMU that sends events as fast as they are read, and clients that ask all the time."""
    neighbour = Neighbour(lab)
    machine = lab.machine().add_virtio(images.two_layers(lab.directory)).start()
    noise, _ = relay.attach(lab, machine)
    event = relay.event("JOB_STATUS_CHANGE", id="theirs", status="created")
    ending = threading.Event()
    callers = [threading.Thread(target=flood_with_calls, args=(ending,), daemon=True) for _ in range(2)]
    start = time.monotonic()
    noise.flood(event * (64 * KIB // len(event)))
    for caller in callers:
        caller.start()
    try:
        while time.monotonic() < start + 4 * INTERVAL:
            neighbour.commit()
    finally:
        noise.flood(b"")
        ending.set()
        for caller in callers:
            caller.join()
    supervisor.assert_pinged(start, time.monotonic())


def test_no_pings_while_the_service_does_not_run(service, supervisor, supervised):
    """They come from where the work is done, so that one that hangs is found."""
    pid = service.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        service.wait_stopped(pid)
        since = time.monotonic()
        stays(lambda: not supervisor.times("WATCHDOG=1", since), "no pings", INTERVAL)
    finally:
        os.kill(pid, signal.SIGCONT)
    since = time.monotonic()
    supervisor.wait("WATCHDOG=1", since, INTERVAL / 2 + SLACK)
    wait_until(lambda: len(supervisor.times("WATCHDOG=1", since)) == 3, "more pings")
    supervisor.assert_pinged(since, time.monotonic())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_is_told(service, supervisor, supervised, number):
    service.disturbed = True
    since = time.monotonic()
    os.kill(service.pid(), number)
    assert supervised.wait(DEADLINE) == 0
    supervisor.wait("STOPPING=1", since)
    assert len(supervisor.times("STOPPING=1")) == 1


def test_stop_is_told_before_it_is_waited_for(lab, supervisor):
    """A guest that is held is given a little time to be let go; the supervisor hears of the stop before that."""
    lab.service.kill()
    lab.service.launch(variables=supervisor.variables(), wait_at="finalize")
    supervisor.wait("READY=1")
    machine, _, disk = lab.standard()
    pid = lab.service.pid()
    job = disk.commit(active=True)
    job.wait_ready()
    call = lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {})
    lab.service.wait_stopped(pid)
    with stopped(machine):
        os.kill(pid, signal.SIGTERM)
        lab.service.resume(pid)
        resumed = time.monotonic()
        said = supervisor.wait("STOPPING=1")
        assert said - resumed < SLACK
        lab.service.wait_gone()
        gone = time.monotonic()
        assert STOP_SECONDS - SLACK < gone - said < STOP_SECONDS + 2
        supervisor.assert_pinged(said, said + STOP_SECONDS)
    assert lab.client.wait_reply(call).kind == "error"
    lab.service.start()
    job.wait_completed("completed")


@pytest.mark.parametrize("variables", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": ""}],
                         ids=["for another process", "without an interval"])
def test_no_pings_that_nobody_asked_for(service, supervisor, variables):
    service.kill()
    service.launch(variables=supervisor.variables(**variables))
    supervisor.wait("READY=1")
    stays(lambda: not supervisor.times("WATCHDOG=1"), "no pings", INTERVAL)
    service.terminate()
