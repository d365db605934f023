#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What grows with the number of domains: attach, what clients read, memory, and what is done while nothing happens.

usage: tests/with-service -- tests/bench/scale.py [--quick] [--json FILE]
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, client_of, milliseconds
from kit.images import KIB, MIB, Chain
from kit.objects import Manager
from kit.qemu import Machine
from kit.waiting import wait_until

LAYERS, DISKS = 5, 2


def chains(directory, name):
    for disk in range(DISKS):
        chain = Chain(directory, f"{name}-{disk}")
        for layer in range(LAYERS):
            chain.add([(layer + 1, layer * 64 * KIB, 64 * KIB)], size=MIB)
        yield chain


def memory(pid):
    """KiB that are this process's own."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Clean:", "Private_Dirty:")))


def work(pid):
    """CPU ticks, and how often its main loop has gone to sleep."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    with open(f"/proc/{pid}/status") as file:
        turns = next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches"))
    return int(fields[11]) + int(fields[12]), turns


def service_pid(client):
    return client.driver("GetConnectionUnixProcessID", "(s)", "org.blockjobd1")[0]


def figures_at(counts, idle_seconds):
    """count -> figures, with that many domains of two disks with five layers each."""
    machines, results = [], {}
    with bench_directory(machines) as directory:
        client = client_of("Completed")
        pid = service_pid(client)
        empty = memory(pid)
        for count in counts:
            attaching = []
            while len(machines) < count:
                name = f"many{len(machines)}"
                machine = Machine(directory, name)
                for number, chain in enumerate(chains(directory, name)):
                    machine.add_virtio(chain, f"vd{'ab'[number]}")
                machines.append(machine.start())
                attaching.append(milliseconds(lambda: Manager(client).attach(name, machine.monitor_path)))
            job = Manager(client).domain("many0").disk("vda").commit(auto="keep", shallow=True)
            job.wait_completed("kept")
            reads = {"GetAll of a job": [], "Ping": [], "GetManagedObjects": []}
            for _ in range(100):
                reads["GetAll of a job"].append(milliseconds(job.all))
                reads["Ping"].append(milliseconds(lambda: client.call(
                    "/org/blockjobd1", "org.freedesktop.DBus.Peer", "Ping")))
            for _ in range(20):
                reads["GetManagedObjects"].append(milliseconds(client.managed_objects))
            ticks, turns = work(pid)
            time.sleep(idle_seconds)  # what is measured is that nothing happens
            later_ticks, later_turns = work(pid)
            results[count] = reads | {"attach": attaching, "memory": [memory(pid)], "memory at the start": [empty],
                                      "idle CPU ticks": [later_ticks - ticks], "idle wake-ups": [later_turns - turns]}
        for machine in machines:
            machine.kill()
        client.close()
    return results


def measure(quick):
    results = figures_at((1, 2) if quick else (1, 10, 100), 1 if quick else 10)
    for count, figures in results.items():
        at = f"{count} domain{'s' if count > 1 else ''}: "
        yield rows.row(at + "attach, each", figures["attach"])
        yield rows.row(at + "GetAll of a job", figures["GetAll of a job"], floor=("Ping", figures["Ping"]),
                       goal="≤ 1.3 × a Ping")
        yield rows.row(at + "GetManagedObjects", figures["GetManagedObjects"])
        yield rows.row(at + "memory", figures["memory"], "KiB", goal="≤ 10 MiB" if count == 1 else "")
        yield rows.row(at + "CPU while idle", figures["idle CPU ticks"], "ticks", goal="0")
        yield rows.row(at + "wake-ups while idle", figures["idle wake-ups"], "", goal="0")
    first, *_, last = results
    further = (results[last]["memory"][0] - results[first]["memory"][0]) / (last - first)
    yield rows.row("memory, each further domain", [further], "KiB", goal="≤ 40 KiB")


if __name__ == "__main__":
    rows.main(measure, __doc__)
