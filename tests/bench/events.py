#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""From the moment that QEMU's event names to the arrival of the signal at a client, and of the peer's at one of its.

The event is the first that tells of a job being ready, JOB_STATUS_CHANGE, as another monitor of the same QEMU hears it;
the signals are Ready, and libvirt-dbus's BlockJob. In turns.

usage: tests/with-service -- tests/bench/events.py [--quick] [--json FILE]
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, client_of, new_machine, new_overlay
from bench.peer import READY, running
from kit.objects import Manager


def forget_events(machine):
    """Those of earlier rounds, of which some may not have been read yet."""
    machine.qmp.execute("query-jobs")
    machine.qmp.events.clear()


def delay(machine, heard, to_wall):
    """In ms, from QEMU's own time of the event."""
    event = machine.qmp.wait_event("JOB_STATUS_CHANGE", status="ready")["timestamp"]
    return (heard.time + to_wall - event["seconds"] - event["microseconds"] / 1e6) * 1000


def of_service(client, machine, disk, to_wall):
    forget_events(machine)
    job = disk.commit(active=True, shallow=True)
    delayed = delay(machine, client.wait_signal(job.path, "Ready"), to_wall)
    job.abort()
    job.wait_completed("kept")
    return delayed


def of_peer(machine, to_wall):
    forget_events(machine)
    since = machine.peer.client.position()
    machine.begin_commit()
    delayed = delay(machine, machine.wait_status(READY, since), to_wall)
    machine.end("keep")
    return delayed


def delays_of(rounds):
    """ms of the service, ms of the peer"""
    machines, delays, peer_delays = [], [], []
    with bench_directory(machines) as directory, running() as peer:
        client = client_of("Ready", "Completed")
        machine = new_machine(directory, "events")
        machines.append(machine)
        peers = peer and peer.machine("events")
        for one in filter(None, (machine, peers)):
            new_overlay(one, 0)
        disk = Manager(client).attach("events", machine.monitor_path).disk("vda")
        to_wall = time.time() - time.monotonic()
        for _ in range(rounds):
            delays.append(of_service(client, machine, disk, to_wall))
            if peers:
                peer_delays.append(of_peer(peers, to_wall))
        client.close()
    return delays, peer_delays


def measure(quick):
    delays, peer_delays = delays_of(3 if quick else 100)
    yield rows.row("QEMU's event to the client's signal", delays, peer=peer_delays, goal="median ≤ 0.3 ms, ≤ 1 ms")


if __name__ == "__main__":
    rows.main(measure, __doc__)
