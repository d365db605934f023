#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""From the moment that QEMU's event names to the arrival of the signal at a client, and of the peer's at one of its.

The event is the one that each heeds, as another monitor of the same QEMU hears it: BLOCK_JOB_READY, and the
JOB_STATUS_CHANGE right before it for libvirt, whose signal can be there before QEMU has sent the second. The signals
are Ready, and libvirt-dbus's BlockJob. In turns. The clients do not unpack what they hear (wire.py).

usage: tests/with-service -- tests/bench/events.py [--quick] [--json FILE]
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, client_of, new_machine, new_overlay
from bench.peer import NAME as PEER
from bench.peer import READY, running
from bench.wire import Wire
from kit.bus import NAME
from kit.objects import Manager


class Ear:
    """A client that hears one kind of signal, which this event of QEMU's is for."""

    def __init__(self, sender, member, event, **data):
        self.wire, self.event, self.data = Wire(), event, data
        self.wire.listen(f"type='signal',sender='{sender}',member='{member}'")

    def delay(self, machine, begin):
        """(what begin gave, ms from QEMU's own time of the event to the next signal)"""
        machine.qmp.execute("query-jobs")  # events of earlier rounds have come by then, and signals
        machine.qmp.events.clear()
        self.wire.driver("GetId")
        begun = begin()
        self.wire.wait_signal()
        heard = time.time()
        at = machine.qmp.wait_event(self.event, **self.data)["timestamp"]
        return begun, (heard - at["seconds"] - at["microseconds"] / 1e6) * 1000


def of_service(ear, machine, disk):
    job, delay = ear.delay(machine, lambda: disk.commit(active=True, shallow=True))
    job.abort()
    job.wait_completed("kept")
    return delay


def of_peer(ear, machine):
    since = machine.peer.client.position()
    _, delay = ear.delay(machine, machine.begin_commit)
    machine.wait_status(READY, since)  # that client may hear it later
    machine.end("keep")
    return delay


def delays_of(rounds):
    """ms of the service, ms of the peer"""
    machines, delays, peer_delays = [], [], []
    with bench_directory(machines) as directory, running() as peer:
        client = client_of("Completed")
        machine = new_machine(directory, "events")
        machines.append(machine)
        peers = peer and peer.machine("events")
        for one in filter(None, (machine, peers)):
            new_overlay(one, 0)
        disk = Manager(client).attach("events", machine.monitor_path).disk("vda")
        ear = Ear(NAME, "Ready", "BLOCK_JOB_READY")
        peer_ear = peers and Ear(PEER, "BlockJob", "JOB_STATUS_CHANGE", status="ready")
        for _ in range(rounds):
            delays.append(of_service(ear, machine, disk))
            if peers:
                peer_delays.append(of_peer(peer_ear, peers))
        client.close()
    return delays, peer_delays


def measure(quick):
    delays, peer_delays = delays_of(3 if quick else 100)
    yield rows.row("QEMU's event to the client's signal", delays, peer=peer_delays, goal="median ≤ 0.3 ms, ≤ 1 ms")


if __name__ == "__main__":
    rows.main(measure, __doc__)
