#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A job on each of a hundred domains at once: commits that a speed limit makes last, beside as many of the peer.

All are started at once, and the time goes until the last has been accepted; then, while all run, what the service's
process takes of a CPU; then all are aborted at once, until the last has told its end. The service tells the progress
of each job every half second. libvirt-dbus tells nothing of it, so a client of it asks for that of each job as often;
counted are libvirtd and libvirt-dbus together, and neither QEMU nor client nor bus. One side comes after the other, so
that not all QEMUs have to be in memory at once.

usage: tests/with-service -- tests/bench/many.py [--quick] [--json FILE]
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, client_of
from bench.peer import CANCELED, running
from kit.bus import NAME, options
from kit.images import KIB, MIB, Chain, stripes
from kit.objects import Job, Manager
from kit.qemu import Machine

DEADLINE = 120
SPEED = 64 * KIB  # the 2 MiB of a job take half a minute
ASK_EVERY = 0.5  # seconds


def slow_chain(directory, name):
    return Chain(directory, name).add([(1, 0, MIB)], size=4 * MIB).add(stripes(2, 32, 64 * KIB, 128 * KIB))


def processor_time(pids):
    """ms that the processes have had so far, finer than the ticks of /proc: by the clock that clock_getcpuclockid()
    gives, which Python does not have."""
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids) * 1000


class Service:
    def __init__(self, machines):
        self.client = client_of("Completed")
        manager = Manager(self.client)
        self.domains = [manager.attach(machine.name, machine.monitor_path) for machine in machines]
        self.disks = [domain.disk("vda") for domain in self.domains]
        self.pids = [self.client.driver("GetConnectionUnixProcessID", "(s)", NAME)[0]]

    def start(self):
        values = options({"active": True, "speed": SPEED})
        return [self.client.call_later(disk.path, "Disk", "Commit", "(a{sv})", values) for disk in self.disks]

    def watch(self, seconds):
        time.sleep(seconds)  # the service tells by itself

    def running(self):
        self.jobs = [Job(self.client, disk["Job"]) for disk in self.disks]
        return all(job["State"] == "running" for job in self.jobs)

    def abort(self):
        return [self.client.call_later(job.path, "Job", "Abort", "(a{sv})", {}) for job in self.jobs]

    def wait_ends(self, since):
        return [self.client.wait_signal(job.path, "Completed", DEADLINE, since) for job in self.jobs]

    def stop(self):
        for domain in self.domains:
            domain.detach()
        self.client.close()


class Peer:
    def __init__(self, peer, count):
        self.client, self.pids = peer.client, peer.pids()
        self.machines = [peer.machine(f"many{number}", slow_chain(peer.directory, f"many{number}"))
                         for number in range(count)]

    def start(self):
        return [machine.call_later(*machine.commit_call(SPEED)) for machine in self.machines]

    def watch(self, seconds):
        """Asks for the progress of all, each time when it is due."""
        due, end = time.monotonic(), time.monotonic() + seconds
        while due < end:
            for machine in self.machines:
                machine.job_info()
            due = max(due + ASK_EVERY, time.monotonic())
            time.sleep(max(0, min(due, end) - time.monotonic()))

    def running(self):
        """Type, speed, how far, of how much"""
        return all(0 < done < total for _, _, done, total in (machine.job_info() for machine in self.machines))

    def abort(self):
        return [machine.call_later(*machine.abort_call()) for machine in self.machines]

    def wait_ends(self, since):
        return [machine.wait_status(CANCELED, since) for machine in self.machines]

    def stop(self):
        for machine in self.machines:
            machine.clean()


def one_round(side, seconds):
    """ms until all are accepted, ms of CPU for each job and second, ms until all have ended."""
    begin = time.monotonic()
    replies = [side.client.wait_reply(serial, DEADLINE) for serial in side.start()]
    assert all(reply.kind == "reply" for reply in replies), "a job was refused"
    started = max(reply.time for reply in replies) - begin

    before, begin = processor_time(side.pids), time.monotonic()
    side.watch(seconds)
    taken = (processor_time(side.pids) - before) / len(replies) / (time.monotonic() - begin)
    assert side.running(), "a job ended before its time"

    since, begin = side.client.position(), time.monotonic()
    for serial in side.abort():
        side.client.wait_reply(serial, DEADLINE)
    ended = max(heard.time for heard in side.wait_ends(since)) - begin
    return started * 1000, taken, ended * 1000


def rounds_of_service(count, rounds, seconds):
    machines = []
    with bench_directory(machines) as directory:
        for number in range(count):
            name = f"many{number}"
            machines.append(Machine(directory, name).add_virtio(slow_chain(directory, name)).start())
        side = Service(machines)
        results = [one_round(side, seconds) for _ in range(rounds)]
        side.stop()
    return zip(*results)


def rounds_of_peer(count, rounds, seconds):
    with running() as peer:
        if not peer:
            return [None] * 3
        side = Peer(peer, count)
        results = [one_round(side, seconds) for _ in range(rounds)]
        side.stop()
    return zip(*results)


def measure(quick):
    count, rounds, seconds = (3, 1, 1) if quick else (100, 3, 10)
    started, taken, ended = rounds_of_service(count, rounds, seconds)
    peer_started, peer_taken, peer_ended = rounds_of_peer(count, rounds, seconds)
    at = f"{count} domains: "
    yield rows.row(at + "a job on each, all started", started, peer=peer_started)
    yield rows.row(at + "CPU of each job, a second", taken, "ms", peer=peer_taken)
    yield rows.row(at + "a job on each, all aborted", ended, peer=peer_ended)


if __name__ == "__main__":
    rows.main(measure, __doc__)
