#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""For how long the guest is held at a pivot (GuestHold), of commits and of copies, with a guest that is idle and one
that writes and flushes all the time, beside what a record's syncs cost on the same file system, in turns: once with the
records where the state directory of tests/with-service is, which should be a disk, and once on tmpfs, where a sync
costs nothing. The images lie on the disk both times.

usage: tests/with-service [--state DIR] -- tests/bench/hold.py [--quick] [--json FILE]
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, client_of, new_machine, new_overlay, service_with_records_in
from kit.images import MIB
from kit.nbd import Writer
from kit.objects import Manager


def sync_time(directory, text=b"x" * 2000):
    """As the service writes a record: whole, synced, renamed, and its directory synced; in milliseconds."""
    path, start = os.path.join(directory, "bench"), time.monotonic()
    file = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(file, text)
    os.fdatasync(file)
    os.close(file)
    os.rename(f"{path}.new", path)
    parent = os.open(directory, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)
    took = (time.monotonic() - start) * 1000
    os.unlink(path)
    return took


def pivot(client, job):
    client.wait_signal(job.path, "Completed")
    result = job["Result"]
    assert result == "completed", result
    return job["GuestHold"] / 1000


def holds_of(state, rounds, writing):
    """({kind: ms of each}, ms of a record's syncs)"""
    machines, holds, syncs = [], {"commit": []} if writing else {"commit": [], "copy": []}, []
    with bench_directory(machines) as directory:
        client = client_of("Completed")
        machine = new_machine(directory, "writing" if writing else "idle", share=True)
        machines.append(machine)
        disk = Manager(client).attach(machine.name, machine.monitor_path).disk("vda")
        for number in range(rounds + 1):
            new_overlay(machine, number)
            writer = None
            if writing:
                export = machine.export("vda", machine.block("vda")["inserted"]["node-name"])
                writer = Writer(export, "vda", MIB, 64)
                writer.wait_more()
            held = pivot(client, disk.commit(auto="pivot"))
            if writer:
                writer.stop()
                machine.qmp.execute("nbd-server-stop")
            copied = pivot(client, disk.copy(f"{directory}/copy{number}.qcow2", auto="pivot"))
            if number:  # the first round warms up
                holds["commit"].append(held)
                if not writing:  # the writer was for the commit's image
                    holds["copy"].append(copied)
                syncs.append(sync_time(state))
        client.close()
    return holds, syncs


def measure(quick):
    for place, parent in (("disk", os.environ["BLOCKJOBD_STATE"]), ("tmpfs", "/dev/shm")):
        with service_with_records_in(parent) as state:
            for writing in (False, True):
                holds, syncs = holds_of(state, 3 if quick else 200, writing)
                for kind, held in holds.items():
                    guest = "writing" if writing else "idle"
                    yield rows.row(f"guest held at the pivot of a {kind}, {guest}, records on {place}", held,
                                   floor=("a record's syncs", syncs), goal="median ≤ 3 ms, p99 ≤ 10 ms")


if __name__ == "__main__":
    rows.main(measure, __doc__)
