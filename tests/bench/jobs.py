#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each kind of job on 1 MiB, from the call to Completed, beside the same over raw QMP and by the peer, in turns.

A client of libvirt-dbus waits for the signal that a job is ready and ends it then: it has no option for that. It has
no backups either.

usage: tests/with-service -- tests/bench/jobs.py [--quick] [--json FILE]
"""

import contextlib
import os
import sys
import time
from typing import Callable, NamedTuple

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import (bench_directory, client_of, milliseconds, new_machine, new_overlay,
                          service_with_records_in)
from bench.peer import running
from kit.images import MIB
from kit.objects import Manager
from kit.waiting import DEADLINE


class Raw:
    """What a careful manager sends over QMP, without any record of it."""

    def __init__(self, machine, deadline=DEADLINE):
        self.machine, self.deadline = machine, deadline
        self.execute = machine.qmp.execute

    def wait(self, event, **data):
        self.machine.qmp.wait_event(event, self.deadline, **data)

    def finish(self, job, event="BLOCK_JOB_COMPLETED"):
        self.wait("BLOCK_JOB_PENDING", id=job)
        self.execute("job-finalize", id=job)
        self.wait(event, device=job)
        self.execute("job-dismiss", id=job)

    def commit(self, number, top, base, ending):
        job = f"raw{number}"
        self.execute("block-commit", job_id=job, device=top, top_node=top, base_node=base, filter_node_name="filter",
                     auto_finalize=False, auto_dismiss=False)
        self.wait("BLOCK_JOB_READY", device=job)
        if ending == "pivot":
            self.execute("job-complete", id=job)
        else:
            self.execute("block-job-cancel", device=job)
        self.finish(job)
        if ending == "pivot":
            self.execute("blockdev-del", node_name=top)
            self.execute("blockdev-del", node_name=f"{top}-file")

    def create(self, number, size):
        """A new qcow2 image, made by QEMU; its node."""
        path, node = f"{self.machine.directory}/raw-target{number}.qcow2", f"target{number}"
        steps = ({"driver": "file", "filename": path, "size": 0}, {"driver": "qcow2", "file": f"{node}-f", "size": size})
        nodes = ({"driver": "file", "node-name": f"{node}-f", "filename": path},
                 {"driver": "qcow2", "node-name": node, "file": f"{node}-f"})
        for step, options in zip(steps, nodes):
            self.execute("blockdev-create", job_id="create", options=step)
            self.wait("JOB_STATUS_CHANGE", id="create", status="concluded")
            self.execute("job-dismiss", id="create")
            self.machine.qmp.send({"execute": "blockdev-add", "arguments": options})
        return node

    def copy(self, number, top, size):
        target, job = self.create(number, size), f"raw{number}"
        self.execute("blockdev-mirror", job_id=job, device=top, target=target, sync="full", auto_finalize=False,
                     auto_dismiss=False)
        self.wait("BLOCK_JOB_READY", device=job)
        self.execute("block-job-cancel", device=job)
        self.finish(job)
        self.execute("blockdev-del", node_name=target)
        self.execute("blockdev-del", node_name=f"{target}-f")

    def backup(self, number, top, size):
        target, job = self.create(number, size), f"raw{number}"
        self.execute("blockdev-backup", job_id=job, device=top, target=target, sync="full", auto_finalize=False,
                     auto_dismiss=False)
        self.finish(job)
        self.execute("blockdev-del", node_name=target)
        self.execute("blockdev-del", node_name=f"{target}-f")

    def pull(self, number, top):
        job = f"raw{number}"
        # QEMU 7.2 must not be looked at while it keeps such a job: it dismisses it itself.
        self.execute("block-stream", job_id=job, device=top, auto_finalize=False)
        self.wait("BLOCK_JOB_PENDING", id=job)
        self.execute("job-finalize", id=job)
        self.wait("BLOCK_JOB_COMPLETED", device=job)


def served(client, start):
    """In ms, until the signal has come."""
    begin = time.monotonic()
    job = start()
    took = (client.wait_signal(job.path, "Completed").time - begin) * 1000
    assert job["Result"] in ("completed", "kept"), job.completed()
    return took


class Kind(NamedTuple):
    """How each side does it."""

    raw: Callable  # (Raw, number of the round, top's node, base's node, size of the disk)
    service: Callable  # (disk, path of a target)
    peer: Callable = None  # (machine, path of a target)


KINDS = {
    "commit of 1 MiB, pivot": Kind(lambda raw, n, top, base, size: raw.commit(n, top, base, "pivot"),
                                   lambda disk, path: disk.commit(auto="pivot", shallow=True),
                                   lambda machine, path: machine.commit("pivot")),
    "commit of 1 MiB, kept": Kind(lambda raw, n, top, base, size: raw.commit(n, top, base, "keep"),
                                  lambda disk, path: disk.commit(auto="keep", shallow=True),
                                  lambda machine, path: machine.commit("keep")),
    "copy of 3 MiB, kept": Kind(lambda raw, n, top, base, size: raw.copy(n, top, size),
                                lambda disk, path: disk.copy(path, auto="keep"),
                                lambda machine, path: machine.copy(path)),
    "backup of 3 MiB": Kind(lambda raw, n, top, base, size: raw.backup(n, top, size),
                            lambda disk, path: disk.backup(path)),
    "pull of 2 MiB": Kind(lambda raw, n, top, base, size: raw.pull(n, top), lambda disk, path: disk.pull(),
                          lambda machine, path: machine.pull()),
}


# On a state directory where a sync costs nothing; and there without the look at who uses the images.
ON_TMPFS = {
    "commit of 1 MiB, pivot, records on tmpfs": KINDS["commit of 1 MiB, pivot"],
    "the same, with force": Kind(lambda raw, n, top, base, size: raw.commit(n, top, base, "pivot"),
                                 lambda disk, path: disk.commit(auto="pivot", shallow=True, force=True)),
}
GOALS = {"commit of 1 MiB, pivot": "≤ 2 ×", "commit of 1 MiB, pivot, records on tmpfs": "≤ 1.4 ×"}


@contextlib.contextmanager
def sides(peer):
    """A machine for raw QMP, one that the service has, its disk, a client that hears Completed, and the peer's."""
    machines = []
    with bench_directory(machines) as directory:
        client = client_of("Completed")
        machines += [new_machine(directory, side) for side in ("raw", "served")]
        domain = Manager(client).attach("bench", machines[1].monitor_path)
        peers = peer and peer.machine("bench")
        yield Raw(machines[0]), machines[1], domain.disk("vda"), client, peers
        if peers:
            peers.clean()
        domain.detach()
        client.close()


def one_kind(kind, rounds, peer):
    """(ms of the service, ms of raw QMP, ms of the peer), for each round."""
    with sides(peer) as (raw, machine, disk, client, peers):
        size = disk["Capacity"]
        for number in range(rounds + 1):
            top, base = new_overlay(raw.machine, number)
            raw_time = milliseconds(lambda: kind.raw(raw, number, top, base, size))
            new_overlay(machine, number)
            path = os.path.join(machine.directory, f"target{number}.qcow2")
            service_time = served(client, lambda: kind.service(disk, path))
            peer_time = None
            if peers and kind.peer:
                new_overlay(peers, number)
                peer_time = kind.peer(peers, f"{peers.directory}/target{number}.qcow2")
            if number:  # the first round warms up
                yield service_time, raw_time, peer_time


def snapshots(rounds, peer):
    with sides(peer) as (raw, machine, disk, _, peers):
        below = raw.machine.block("vda")["inserted"]["node-name"]
        for number in range(rounds + 1):
            def by_hand():
                nonlocal below
                overlay = raw.create(number, 32 * MIB)
                raw.execute("blockdev-snapshot", node=below, overlay=overlay)
                below = overlay
            raw_time = milliseconds(by_hand)
            name = f"snapshot{number}.qcow2"
            service_time = milliseconds(lambda: disk.snapshot(f"{machine.directory}/{name}"))
            peer_time = peers and milliseconds(lambda: peers.snapshot("vda", f"{peers.directory}/{name}"))
            if number:
                yield service_time, raw_time, peer_time


def on_tmpfs(rounds):
    with service_with_records_in("/dev/shm"):
        return {name: list(one_kind(kind, rounds, None)) for name, kind in ON_TMPFS.items()}


def measure(quick):
    rounds = 3 if quick else 30
    with running() as peer:
        measured = {name: list(one_kind(kind, rounds, peer)) for name, kind in KINDS.items()}
        measured["snapshot"] = list(snapshots(rounds, peer))
    measured |= on_tmpfs(rounds)
    for name, times in measured.items():
        served_times, raw_times, peer_times = zip(*times)
        yield rows.row(name, served_times, floor=("raw QMP, no syncs", raw_times),
                       peer=None if None in peer_times else peer_times, goal=GOALS.get(name, ""))


if __name__ == "__main__":
    rows.main(measure, __doc__)
