#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commit of 1 MiB with pivot, from the call to Completed, beside the same over raw QMP, in turns.

usage: tests/with-service [--state DIR] -- tests/bench/commit.py [ROUNDS]

The state directory's file system decides what a sync costs: name one on a disk and one on tmpfs.
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench.common import bench_directory, client_of, new_machine, new_overlay, show
from kit.objects import Manager


def commit_raw(machine, number, top, base):
    job = f"raw{number}"
    start = time.monotonic()
    machine.qmp.execute("block-commit", job_id=job, device=top, top_node=top, base_node=base,
                        filter_node_name="filter", auto_finalize=False, auto_dismiss=False)
    machine.qmp.wait_event("BLOCK_JOB_READY", device=job)
    machine.qmp.execute("job-complete", id=job)
    machine.qmp.wait_event("BLOCK_JOB_PENDING", id=job)
    machine.qmp.execute("job-finalize", id=job)
    machine.qmp.wait_event("BLOCK_JOB_COMPLETED", device=job)
    machine.qmp.execute("job-dismiss", id=job)
    took = time.monotonic() - start
    machine.qmp.execute("blockdev-del", node_name=top)
    return took


def commit_by_service(client, disk):
    start = time.monotonic()
    job = disk.commit(auto="pivot")
    took = client.wait_signal(job.path, "Completed").time - start
    job.wait_completed("completed")
    return took, job["GuestHold"]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    machines = []
    with bench_directory(machines) as directory:
        client = client_of("Completed")
        machines += [new_machine(directory, name) for name in ("raw", "service")]
        raw, served = machines
        disk = Manager(client).attach(served.name, served.monitor_path).disk("vda")
        raw_times, service_times, holds = [], [], []
        for number in range(rounds + 1):
            top, base = new_overlay(raw, number)
            raw_time = commit_raw(raw, number, top, base)
            new_overlay(served, number)
            service_time, hold = commit_by_service(client, disk)
            if number:  # the first round warms up
                raw_times.append(raw_time * 1000)
                service_times.append(service_time * 1000)
                holds.append(hold / 1000)
        show("raw QMP, no syncs", raw_times)
        show("blockjobd", service_times)
        show("guest held", holds)
        ratios = [served / plain for served, plain in zip(service_times, raw_times)]
        show("ratio, pair by pair", ratios, "  ")


main()
