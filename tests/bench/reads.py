#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a client reads of a job that is ready, in Pings of the same service: GetAll, and libvirt-dbus's
GetBlockJobInfo, each beside a Ping right behind it. The clients do not unpack the replies (wire.py).

usage: tests/with-service -- tests/bench/reads.py [--quick] [--json FILE]
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, client_of, milliseconds, new_machine, new_overlay
from bench.peer import NAME as PEER
from bench.peer import READY, running
from bench.wire import Wire
from kit.bus import NAME, PROPERTIES, ROOT
from kit.objects import Manager

PING = "org.freedesktop.DBus.Peer", "Ping", "()"


def in_pings(wire, read, ping):
    wire.call(read)  # neither of the two is the first after a while
    return milliseconds(lambda: wire.call(read)) / milliseconds(lambda: wire.call(ping))


def ready_job(directory, machines, client):
    machine = new_machine(directory, "read")
    machines.append(machine)
    new_overlay(machine, 0)
    job = Manager(client).attach("read", machine.monitor_path).disk("vda").commit(active=True, shallow=True)
    client.wait_signal(job.path, "Ready")
    return job


def ready_peer(peer):
    machine = peer.machine("read")
    new_overlay(machine, 0)
    machine.begin_commit()
    machine.wait_status(READY)
    return machine


def reads_of(rounds):
    """Pings of the service, Pings of the peer"""
    machines, reads, peer_reads = [], [], []
    with bench_directory(machines) as directory, running() as peer:
        client, wire = client_of("Ready"), Wire()
        job = ready_job(directory, machines, client)
        read = wire.message(job.path, PROPERTIES, "GetAll", "(s)", f"{NAME}.Job"), wire.message(ROOT, *PING)
        machine = peer and ready_peer(peer)
        if machine:
            peer_read = (wire.message(machine.path, f"{PEER}.Domain", "GetBlockJobInfo", "(su)", "vda", 0,
                                      destination=PEER),
                         wire.message("/org/libvirt/QEMU", *PING, destination=PEER))
        for _ in range(rounds):
            reads.append(in_pings(wire, *read))
            if machine:
                peer_reads.append(in_pings(wire, *peer_read))
        wire.close()
        client.close()
    return reads, peer_reads


def measure(quick):
    reads, peer_reads = reads_of(3 if quick else 300)
    yield rows.row("what a client reads of a job, in Pings", reads, "", peer=peer_reads, goal="≤ 1.3")


if __name__ == "__main__":
    rows.main(measure, __doc__)
