#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""From the moment that QEMU's event names to the arrival of the signal at a client.

usage: tests/with-service -- tests/bench/events.py [--quick] [--json FILE]
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, client_of, new_machine, new_overlay
from kit.objects import Manager


def delays_of(rounds):
    """ms from QEMU's own time of BLOCK_JOB_READY to the arrival of Ready at a client."""
    machines, delays = [], []
    with bench_directory(machines) as directory:
        client = client_of("Ready", "Completed")
        machine = new_machine(directory, "events")
        machines.append(machine)
        new_overlay(machine, 0)
        disk = Manager(client).attach("events", machine.monitor_path).disk("vda")
        to_wall = time.time() - time.monotonic()
        for _ in range(rounds):
            job = disk.commit(active=True, shallow=True)
            heard = client.wait_signal(job.path, "Ready")
            event = machine.qmp.wait_event("BLOCK_JOB_READY", device=job["QemuJobId"])["timestamp"]
            delays.append((heard.time + to_wall - event["seconds"] - event["microseconds"] / 1e6) * 1000)
            job.abort()
            job.wait_completed("kept")
        client.close()
    return delays


def measure(quick):
    yield rows.row("QEMU's event to the client's signal", delays_of(3 if quick else 100),
                   goal="median ≤ 0.3 ms, ≤ 1 ms")


if __name__ == "__main__":
    rows.main(measure, __doc__)
