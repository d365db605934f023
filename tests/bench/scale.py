#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What grows with the number of domains: attach, what clients read, a job, memory, and what is done while nothing
happens. fleet.py tells what the domains are, and which of them are fakes.

Each count has services on states of their own: on some all domains are attached at once, with 64 calls under way; on
the last they are attached one after the other, and there the rest is measured.

What is read is read by a client that does not unpack it (wire.py). Of GetManagedObjects there are two shares beside the
time of the call: the CPU time that the service took for it, and that of the bus, which reads all of the reply, looks
whether it is valid, and writes it again.

usage: tests/with-service -- tests/bench/scale.py [--quick] [--json FILE]
"""

import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, milliseconds, service_on
from bench.fleet import REAL, Fleet, attach_all, attach_message
from bench.jobs import served
from bench.peer import running
from bench.reads import ready_peer
from bench.wire import Wire
from kit.bus import DRIVER, OBJECT_MANAGER, PROPERTIES, ROOT
from kit.objects import Manager

SETTLED = 2  # seconds: one after an attach, memory that it took is given back
SHARES = "", ", the service's share", ", the bus's share"
UNITS = {"attach all": "ms", "attach, each": "ms", "commit of 64 KiB, kept": "ms", "GetAll of a job": "ms",
         **{f"GetManagedObjects{share}": "ms" for share in SHARES}, "memory": "KiB",
         "memory, attached at once": "KiB", "CPU while idle": "ms", "wake-ups while idle": ""}

GIVEN_BACK_SECONDS = 3  # after which the service has given back what it needed for a moment


def memory(pid):
    """KiB that are this process's own."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Clean:", "Private_Dirty:")))


def cpu(pid):
    """ms that its main loop has run."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e6


def sleeps(pid):
    """How often its main loop has gone to sleep."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches"))


class Subject:
    """A service on a state of its own, and the clients that measure it."""

    def __init__(self, state):
        self.service, self.client = service_on(state, "Completed")
        self.pid = self.service.pid()
        self.bus_pid = self.client.driver("GetConnectionUnixProcessID", "(s)", DRIVER[0])[0]
        self.wire = Wire()

    def close(self):
        self.service.kill()
        self.wire.close()
        self.client.close()

    def attach_each(self, members, rounds):
        """ms of each, with all the others there."""
        for number in range(rounds):
            name, monitor = members[number % len(members)]
            self.wire.call(self.wire.message(f"{ROOT}/domain/{name}", "Domain", "Detach", "(a{sv})", {}))
            attach = attach_message(self.wire, name, monitor)
            yield milliseconds(lambda: self.wire.call(attach))

    def commits(self, rounds):
        """(ms of each, the path of the last)"""
        disk, jobs, times = Manager(self.client).domain("many0").disk("vda"), [], []

        def commit():
            jobs.append(disk.commit(auto="keep", shallow=True))
            return jobs[-1]

        for _ in range(rounds + 1):
            times.append(served(self.client, commit))
        return times[1:], jobs[-1].path

    def reads(self, job, rounds):
        """(ms of GetAll, of Ping), in turns."""
        get_all = self.wire.message(job, PROPERTIES, "GetAll", "(s)", "org.blockjobd1.Job")
        ping = self.wire.message(ROOT, "org.freedesktop.DBus.Peer", "Ping")
        pairs = [[milliseconds(lambda: self.wire.call(message)) for message in (get_all, ping)]
                 for _ in range(rounds + 10)]
        return zip(*pairs[10:])

    def managed_objects(self, rounds):
        """(ms of each, of which the service's CPU, of which the bus's)"""
        message = self.wire.message(ROOT, OBJECT_MANAGER, "GetManagedObjects")
        figures = []
        for _ in range(rounds + 1):
            before = cpu(self.pid), cpu(self.bus_pid)
            took = milliseconds(lambda: self.wire.call(message))
            figures.append((took, cpu(self.pid) - before[0], cpu(self.bus_pid) - before[1]))
        return zip(*figures[1:])

    def idle(self, seconds):
        """(ms of CPU, wake-ups)"""
        time.sleep(SETTLED)
        before = cpu(self.pid), sleeps(self.pid)
        time.sleep(seconds)  # what is measured is that nothing happens
        return cpu(self.pid) - before[0], sleeps(self.pid) - before[1]


def attached_at_once(fleet, rounds, state):
    """(ms of each round, KiB that stay after the last)"""
    times = []
    for number in range(rounds):
        subject = Subject(f"{state}/{fleet.count}-{number}")
        times.append(attach_all(subject.wire, fleet.members()))
        if number == rounds - 1:
            subject.idle(GIVEN_BACK_SECONDS)
            used = memory(subject.pid)
        subject.close()
    return times, used


def figures_at(fleet, rounds, idle_seconds, state):
    """Of the fleet as it is now."""
    attaching, used_at_once = attached_at_once(fleet, rounds["attach all"], state)
    subject = Subject(f"{state}/{fleet.count}")
    attach_all(subject.wire, fleet.members(), at_once=1)
    each = list(subject.attach_each(fleet.members()[:fleet.real], rounds["attach"]))
    commits, job = subject.commits(rounds["commit"])
    get_all, ping = subject.reads(job, rounds["read"])
    objects = subject.managed_objects(rounds["objects"])
    idle_cpu, idle_wakeups = subject.idle(idle_seconds)
    figures = {"attach all": attaching, "attach, each": each, "commit of 64 KiB, kept": commits,
               "GetAll of a job": get_all, "Ping": ping, "memory": [memory(subject.pid)],
               "memory, attached at once": [used_at_once], "CPU while idle": [idle_cpu],
               "wake-ups while idle": [idle_wakeups]}
    for share, values in zip(SHARES, objects):
        figures[f"GetManagedObjects{share}"] = values
    subject.close()
    return figures


def memory_of_peer():
    """Of both processes, with a domain that has a job; none where there is no peer."""
    with running() as peer:
        if not peer:
            return []
        ready_peer(peer)
        return [sum(map(memory, peer.pids()))]


def rows_of(title, count, figures):
    goals = {"GetAll of a job": "≤ 1.3 × a Ping", "CPU while idle": "0", "wake-ups while idle": "0"}
    if count == 1:
        goals["memory"] = "≤ 10 MiB"
    if count == 1000:
        goals |= {"attach all": "≤ 10 s", "GetManagedObjects": "≤ 300 ms"}
    for name, unit in UNITS.items():
        floor = ("Ping", figures["Ping"]) if name == "GetAll of a job" else (None, None)
        peer = memory_of_peer() if name == "memory" and count == 1 else None
        yield rows.row(f"{title}: {name}", figures[name], unit, floor, peer, goals.get(name, ""))


def measure(quick, counts=(1, 10, 100, 1000)):
    rounds = {"attach all": 3, "attach": 20, "commit": 10, "read": 200, "objects": 20}
    idle_seconds, real = 10, REAL
    if quick:
        counts, real, idle_seconds, rounds = (1, 3), 2, 1, dict.fromkeys(rounds, 2)
    machines, used = [], {}
    with bench_directory(machines) as directory, Fleet(directory, machines, real) as fleet, \
            tempfile.TemporaryDirectory(dir=os.environ["BLOCKJOBD_STATE"], prefix="scale-",
                                        ignore_cleanup_errors=True) as state:
        for count in counts:
            fleet.grow(count)
            figures = figures_at(fleet, rounds, idle_seconds, state)
            used[count] = figures["memory"][0]
            yield from rows_of(fleet.title(), count, figures)
    first, *_, last = used
    yield rows.row("memory, each further domain", [(used[last] - used[first]) / (last - first)], "KiB",
                   goal="≤ 40 KiB")


if __name__ == "__main__":
    rows.main(measure, __doc__)
