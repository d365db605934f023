#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each kind of job on 1 MiB, from the call to Completed, beside the same over raw QMP, in turns.

usage: tests/with-service -- tests/bench/jobs.py [--quick] [--json FILE]
"""

import contextlib
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, client_of, milliseconds, new_machine, new_overlay
from kit.images import MIB
from kit.objects import Manager


class Raw:
    """What a careful manager sends over QMP, without any record of it."""

    def __init__(self, machine):
        self.machine = machine
        self.execute = machine.qmp.execute

    def finish(self, job, event="BLOCK_JOB_COMPLETED"):
        self.machine.qmp.wait_event("BLOCK_JOB_PENDING", id=job)
        self.execute("job-finalize", id=job)
        self.machine.qmp.wait_event(event, device=job)
        self.execute("job-dismiss", id=job)

    def commit(self, number, top, base, ending):
        job = f"raw{number}"
        self.execute("block-commit", job_id=job, device=top, top_node=top, base_node=base, filter_node_name="filter",
                     auto_finalize=False, auto_dismiss=False)
        self.machine.qmp.wait_event("BLOCK_JOB_READY", device=job)
        if ending == "pivot":
            self.execute("job-complete", id=job)
        else:
            self.execute("block-job-cancel", device=job)
        self.finish(job)
        if ending == "pivot":
            self.execute("blockdev-del", node_name=top)

    def create(self, number, size):
        """A new qcow2 image, made by QEMU; its node."""
        path, node = f"{self.machine.directory}/raw-target{number}.qcow2", f"target{number}"
        steps = ({"driver": "file", "filename": path, "size": 0}, {"driver": "qcow2", "file": f"{node}-f", "size": size})
        nodes = ({"driver": "file", "node-name": f"{node}-f", "filename": path},
                 {"driver": "qcow2", "node-name": node, "file": f"{node}-f"})
        for step, options in zip(steps, nodes):
            self.execute("blockdev-create", job_id="create", options=step)
            self.machine.qmp.wait_event("JOB_STATUS_CHANGE", id="create", status="concluded")
            self.execute("job-dismiss", id="create")
            self.machine.qmp.send({"execute": "blockdev-add", "arguments": options})
        return node

    def copy(self, number, top, size):
        target, job = self.create(number, size), f"raw{number}"
        self.execute("blockdev-mirror", job_id=job, device=top, target=target, sync="full", auto_finalize=False,
                     auto_dismiss=False)
        self.machine.qmp.wait_event("BLOCK_JOB_READY", device=job)
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
        self.machine.qmp.wait_event("BLOCK_JOB_PENDING", id=job)
        self.execute("job-finalize", id=job)
        self.machine.qmp.wait_event("BLOCK_JOB_COMPLETED", device=job)


def served(client, start):
    """In ms, until the signal has come."""
    begin = time.monotonic()
    job = start()
    took = (client.wait_signal(job.path, "Completed").time - begin) * 1000
    assert job["Result"] in ("completed", "kept"), job.completed()
    return took


KINDS = {
    "commit of 1 MiB, pivot": (lambda raw, n, top, base, size: raw.commit(n, top, base, "pivot"),
                               lambda disk, path: disk.commit(auto="pivot", shallow=True)),
    "commit of 1 MiB, kept": (lambda raw, n, top, base, size: raw.commit(n, top, base, "keep"),
                              lambda disk, path: disk.commit(auto="keep", shallow=True)),
    "copy of 3 MiB, kept": (lambda raw, n, top, base, size: raw.copy(n, top, size),
                            lambda disk, path: disk.copy(path, auto="keep")),
    "backup of 3 MiB": (lambda raw, n, top, base, size: raw.backup(n, top, size), lambda disk, path: disk.backup(path)),
    "pull of 2 MiB": (lambda raw, n, top, base, size: raw.pull(n, top), lambda disk, path: disk.pull()),
}


@contextlib.contextmanager
def two_sides():
    """A machine for raw QMP, one that the service has, its disk, and a client that hears Completed."""
    machines = []
    with bench_directory(machines) as directory:
        client = client_of("Completed")
        machines += [new_machine(directory, side) for side in ("raw", "served")]
        domain = Manager(client).attach("bench", machines[1].monitor_path)
        yield Raw(machines[0]), machines[1], domain.disk("vda"), client
        domain.detach()
        client.close()


def jobs(rounds):
    """name -> (ms of the service, ms of raw QMP), a pair for each round."""
    results = {}
    for name, (by_hand, by_service) in KINDS.items():
        pairs = []
        with two_sides() as (raw, machine, disk, client):
            size = disk["Capacity"]
            for number in range(rounds + 1):
                top, base = new_overlay(raw.machine, number)
                raw_time = milliseconds(lambda: by_hand(raw, number, top, base, size))
                new_overlay(machine, number)
                path = os.path.join(machine.directory, f"target{number}.qcow2")
                service_time = served(client, lambda: by_service(disk, path))
                if number:  # the first round warms up
                    pairs.append((service_time, raw_time))
        results[name] = pairs
    return results


def snapshots(rounds):
    pairs = []
    with two_sides() as (raw, machine, disk, _):
        below = raw.machine.block("vda")["inserted"]["node-name"]
        for number in range(rounds + 1):
            def by_hand():
                nonlocal below
                overlay = raw.create(number, 32 * MIB)
                raw.execute("blockdev-snapshot", node=below, overlay=overlay)
                below = overlay
            raw_time = milliseconds(by_hand)
            service_time = milliseconds(lambda: disk.snapshot(f"{machine.directory}/snapshot{number}.qcow2"))
            if number:
                pairs.append((service_time, raw_time))
    return {"snapshot": pairs}


def measure(quick):
    rounds = 3 if quick else 30
    goals = {"commit of 1 MiB, pivot": "≤ 2 ×"}
    for name, pairs in (jobs(rounds) | snapshots(rounds)).items():
        served_times, raw_times = zip(*pairs)
        yield rows.row(name, served_times, floor=("raw QMP, no syncs", raw_times), goal=goals.get(name, ""))


if __name__ == "__main__":
    rows.main(measure, __doc__)
