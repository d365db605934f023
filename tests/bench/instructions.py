#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Instructions of the service for what it does most often, counted by valgrind's callgrind: the same on every machine,
however busy it is. More than a bound is a failure.

usage: tests/with-service -- tests/bench/instructions.py [--quick] [--json FILE]
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, new_machine
from kit.bus import Client
from kit.fake_qmp import FakePeer, end
from kit.images import MIB
from kit.objects import Manager
from kit.relay import Relay
from kit.service import Service

# A quarter above what was counted with Debian 12's libraries, which take nearly all of it.
BOUNDS = {"a progress update": 215_000, "GetAll of a job": 180_000, "an event of QEMU": 190_000,
          "a resynchronisation": 2_200_000}
DEADLINE = 120.0  # seconds for what takes the service less than one without valgrind


class Callgrind:
    """The service under it, in the place of the one that was there."""

    def __init__(self, service, directory):
        self.directory, self.dumps = directory, 0
        service.kill()
        command = ["valgrind", "--tool=callgrind", "--trace-children=yes",
                   f"--callgrind-out-file={directory}/out", "-q"]
        os.environ["BLOCKJOBD"] = f"{shlex.join(command)} {os.environ['BLOCKJOBD']}"
        self.process = service.start(deadline=DEADLINE)
        self.pid = service.pid()

    def count(self):
        """Instructions since the last count."""
        self.dumps += 1
        subprocess.run(["callgrind_control", "--dump", str(self.pid)], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        with open(f"{self.directory}/out.{self.dumps}") as file:
            return int(re.search(r"^totals: (\d+)", file.read(), re.MULTILINE).group(1))

    def each(self, times, action):
        self.count()
        for _ in range(times):
            action()
        return self.count() / times

    def end(self):
        os.kill(self.pid, signal.SIGTERM)
        self.process.wait(DEADLINE)


class Monitor:
    """A machine's monitor that can be cut."""

    def __init__(self, machine):
        self.relay = Relay(machine)
        self.peer = FakePeer(f"{machine.directory}/{machine.name}.relay", self.relay)
        self.path = self.peer.path

    def cut(self):
        end(self.peer.open_connections[-1])


def resynchronise(client, domain, monitor):
    since = len(client.log)
    monitor.cut()
    client.wait_signal(domain.path, "PropertiesChanged", DEADLINE, since,
                       lambda heard: heard.arguments[1].get("State") == "paused")


def change_state(client, domain, machine, command, state):
    since = len(client.log)
    machine.qmp.execute(command)
    client.wait_signal(domain.path, "PropertiesChanged", DEADLINE, since,
                       lambda heard: heard.arguments[1].get("State") == state)


def one_update(client, job):
    client.wait_signal(job.path, "PropertiesChanged", DEADLINE, len(client.log),
                       lambda heard: "Current" in heard.arguments[1])


def count_all(client, callgrind, machine, monitor, times):
    """What is done -> its instructions."""
    domain = Manager(client).attach(machine.name, monitor.path)
    disk = domain.disk("vda")
    job = disk.backup(f"{machine.directory}/backup.qcow2", speed=4 * MIB)
    for _ in range(4):  # what the service does a second after an attach is over then
        one_update(client, job)
    updates = callgrind.each(times, lambda: one_update(client, job))
    job.abort()
    job.wait_completed("cancelled", DEADLINE)
    reads = callgrind.each(10 * times, job.all)

    def run_and_stop():
        change_state(client, domain, machine, "cont", "running")
        change_state(client, domain, machine, "stop", "paused")

    events = callgrind.each(times, run_and_stop) / 2
    looks = callgrind.each(times, lambda: resynchronise(client, domain, monitor))
    domain.detach()
    return {"a progress update": updates, "GetAll of a job": reads, "an event of QEMU": events,
            "a resynchronisation": looks}


def measure(quick):
    machines = []
    with bench_directory(machines) as directory, contextlib.ExitStack() as ends:
        client = Client()
        ends.callback(client.close)
        machines.append(new_machine(directory, "counted"))
        monitor = Monitor(machines[0])
        ends.callback(monitor.peer.close)
        callgrind = Callgrind(Service(client), directory)
        ends.callback(callgrind.end)
        counts = count_all(client, callgrind, machines[0], monitor, 3 if quick else 10)
    for name, count in counts.items():
        yield rows.row(f"{name}, instructions", [count], "", goal=f"≤ {BOUNDS[name]:,}")
    above = [f"{name}: {count:,.0f}" for name, count in counts.items() if count > BOUNDS[name]]
    assert not above, f"more instructions than the bound: {'; '.join(above)}"


if __name__ == "__main__":
    rows.main(measure, __doc__)
