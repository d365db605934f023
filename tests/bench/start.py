#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a start of the service takes after it was killed: from the start of its process to its name on the bus, and
until no domain is shown as disconnected any more. The state directory is what a run of the service left when it was
killed. fleet.py tells what the domains are, and which of them are fakes; the jobs are on real ones.

The floor is the service's --version: what the shell and the loader of programs take.

usage: tests/with-service -- tests/bench/start.py [--quick] [--json FILE]
"""

import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, milliseconds, service_on
from bench.fleet import REAL, Fleet, attach_all
from bench.wire import Wire
from kit.bus import DRIVER, NAME, OBJECT_MANAGER, ROOT
from kit.objects import Manager
from kit.waiting import wait_until

PATIENCE = 180  # seconds


class Restarts:
    """A service that is killed and started again on one state."""

    def __init__(self, state):
        self.state = state
        self.service, self.client = service_on(state, "Ready", "Completed")
        self.client.driver("AddMatch", "(s)",
                           f"type='signal',sender='{DRIVER[0]}',member='NameOwnerChanged',arg0='{NAME}'")
        self.wire = Wire()
        self.manager = Manager(self.client)

    def close(self):
        self.service.kill()
        self.wire.close()
        self.client.close()

    def once(self):
        """(ms to the name, to the last domain's connection, of --version)"""
        self.service.kill()
        for process in self.service.processes:
            process.wait()
        floor = milliseconds(lambda: subprocess.run(f"{os.environ['BLOCKJOBD']} --version", shell=True, check=True,
                                                    stdout=subprocess.DEVNULL))
        since, start = self.client.position(), time.monotonic()
        self.service.start(state_directory=self.state, deadline=PATIENCE)
        name = self.client.wait_signal(DRIVER[1], "NameOwnerChanged", since=since).time
        objects = self.wire.message(ROOT, OBJECT_MANAGER, "GetManagedObjects")
        last = name
        while b"disconnected" in self.wire.call(objects):
            last = time.monotonic()
            assert last < start + PATIENCE, "not all domains were connected again"
        return (name - start) * 1000, (last - start) * 1000, floor

    def rows(self, what, rounds):
        name, connected, floor = zip(*[self.once() for _ in range(rounds)])
        yield rows.row(f"start {what}: to the name on the bus", name, floor=("--version", floor))
        if "domain" in what:
            yield rows.row(f"start {what}: to all connected", connected)

    def start_jobs(self, names):
        """Commits of active layers that stay ready."""
        since = self.client.position()
        jobs = [self.manager.domain(name).disk("vda").commit(active=True, shallow=True) for name in names]
        for job in jobs:
            self.client.wait_signal(job.path, "Ready", PATIENCE, since)

    def finish_jobs(self, names, count):
        """So many jobs that have ended, a few on each domain, each on all domains at the same time."""
        disks = [self.manager.domain(name).disk("vdb") for name in names]
        for first in range(0, count, len(disks)):
            since = self.client.position()
            jobs = [disk.commit(auto="keep", shallow=True) for disk in disks[:count - first]]
            for job in jobs:
                self.client.wait_signal(job.path, "Completed", PATIENCE, since)

    def detach(self, names):
        for name in names:
            self.manager.domain(name).detach()


def measure(quick):
    real, count, finished, rounds = (2, 3, 4, 2) if quick else (REAL, 1000, 1000, 5)
    machines = []
    with bench_directory(machines) as directory, Fleet(directory, machines, real) as fleet, \
            tempfile.TemporaryDirectory(dir=os.environ["BLOCKJOBD_STATE"], prefix="start-",
                                        ignore_cleanup_errors=True) as state:
        fleet.grow(count)
        names = [name for name, _ in fleet.members()[:real]]

        restarts = Restarts(f"{state}/nothing")
        yield from restarts.rows("with nothing recorded", rounds)
        restarts.close()

        restarts = Restarts(f"{state}/finished")
        attach_all(restarts.wire, fleet.members()[:real])
        restarts.finish_jobs(names, finished)
        restarts.detach(names)
        yield from restarts.rows(f"with {finished:,} finished jobs", rounds)
        restarts.close()

        restarts = Restarts(f"{state}/domains")
        attach_all(restarts.wire, fleet.members())
        yield from restarts.rows(f"with {fleet.title()}", rounds)
        restarts.start_jobs(names)
        yield from restarts.rows(f"with {fleet.title()} and {real} jobs", rounds)
        restarts.close()


if __name__ == "__main__":
    rows.main(measure, __doc__)
