#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast QEMU copies 4 GiB in a job of the service, beside the same command over raw QMP, in turns.

The time is QEMU's own: from its event that the job runs to its event that all is copied ("ready", or "pending" of jobs
that do not get ready), as another monitor hears them. So this is what the service's options, nodes and looks at the
progress make of QEMU's rate; what it does before and after is measured by jobs.py. Nor is it asked what the disk makes
of the rate: the images lie in memory (/dev/shm) if there is room for them three times over, else where temporary files
do, in QEMU's default cache mode. Each turn has a QEMU of its own, reads the same file and writes into a new one; who is
first changes from round to round.

usage: tests/with-service -- tests/bench/rates.py [--quick] [--json FILE]
"""

import contextlib
import os
import shutil
import sys
import tempfile
from typing import Callable, NamedTuple

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench import rows
from bench.common import bench_directory, client_of
from bench.jobs import Raw
from kit.images import MIB, Chain, Layer, run
from kit.objects import Manager
from kit.qemu import Machine

MEMORY = "/dev/shm"
DEADLINE = 500  # seconds for a job; a slow disk has to do it


class Kind(NamedTuple):
    """Which images there are, bottom first, and how each side does it."""

    layers: tuple
    raw: Callable  # (Raw, size)
    service: Callable  # (disk, path of a target)


KINDS = {
    "copy": Kind(("data",), lambda raw, size: raw.copy(0, "vda-0", size),
                 lambda disk, path: disk.copy(path, auto="keep")),
    "backup": Kind(("data",), lambda raw, size: raw.backup(0, "vda-0", size), lambda disk, path: disk.backup(path)),
    "pull": Kind(("data", "new"), lambda raw, size: raw.pull(0, "vda-1"), lambda disk, path: disk.pull()),
    # The last: what has the data gets a backing file here.
    "commit": Kind(("new", "data"), lambda raw, size: raw.commit(0, "vda-1", "vda-0", "keep"),
                   lambda disk, path: disk.commit(auto="keep")),
}


def roomy_directory(size):
    free = shutil.disk_usage(MEMORY).free
    with open("/proc/meminfo") as file:
        available = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    return MEMORY if min(free, available) > 3 * size else None


class Images:
    """One file with data that all turns read, and one that each turn writes."""

    def __init__(self, directory, size):
        self.directory, self.size = directory, size
        self.data, self.new = (os.path.join(directory, f"{name}.qcow2") for name in ("data", "new"))
        run("qemu-img", "create", "-q", "-f", "qcow2", self.data, str(size))
        step = min(size, 64 * MIB)
        writes = [word for offset in range(0, size, step) for word in ("-c", f"write -q -P 7 {offset} {step}")]
        run("qemu-io", "-f", "qcow2", *writes, self.data)

    def chain(self, layers):
        """The new one is made here, unless it is the target, which the job makes."""
        if layers == ("data", "new"):
            run("qemu-img", "create", "-q", "-f", "qcow2", "-b", self.data, "-F", "qcow2", self.new)
        elif layers == ("new", "data"):
            run("qemu-img", "create", "-q", "-f", "qcow2", self.new, str(self.size))
            run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", self.new, "-F", "qcow2", self.data)
        chain = Chain(self.directory, "rate")
        chain.layers = [Layer(getattr(self, name), "qcow2", self.size) for name in layers]
        return chain

    def forget(self):
        """What a turn left, its machine's sockets too."""
        for name in os.listdir(self.directory):
            if name != os.path.basename(self.data):
                os.unlink(os.path.join(self.directory, name))


@contextlib.contextmanager
def one_turn(kind, images):
    machine = Machine(images.directory, "turn").add_virtio(images.chain(kind.layers))
    try:
        yield machine.start()
    finally:
        machine.clean()
        images.forget()


def by_raw(kind, images):
    """QEMU's times of the job."""
    with one_turn(kind, images) as machine:
        kind.raw(Raw(machine, DEADLINE), images.size)
        return times_of(machine, "raw0")


def by_service(kind, images, client):
    with one_turn(kind, images) as machine:
        domain = Manager(client).attach("rates", machine.monitor_path)
        job = kind.service(domain.disk("vda"), f"{images.directory}/target.qcow2")
        client.wait_signal(job.path, "Completed", DEADLINE)
        assert job["Result"] in ("completed", "kept"), job.completed()
        times = times_of(machine, job["QemuJobId"])
        domain.detach()
        return times


def times_of(machine, job):
    """status -> when QEMU said so first, in seconds."""
    machine.qmp.execute("query-version")  # all events are read that came before the reply
    times = {}
    for event in machine.qmp.events:
        if event["event"] == "JOB_STATUS_CHANGE" and event["data"]["id"] == job:
            at = event["timestamp"]
            times.setdefault(event["data"]["status"], at["seconds"] + at["microseconds"] / 1e6)
    return times


def rate(times, size):
    """In MiB/s."""
    return size / MIB / (times.get("ready", times["pending"]) - times["running"])


def round_of(kind, images, client, service_first):
    """The service's rate and that of raw QMP."""
    sides = [lambda: by_service(kind, images, client), lambda: by_raw(kind, images)]
    rates = []
    for side in sides if service_first else reversed(sides):
        rates.append(rate(side(), images.size))
    return rates if service_first else rates[::-1]


def measure(quick):
    size, rounds = (16 * MIB, 1) if quick else (4096 * MIB, 11)
    parent = roomy_directory(size)
    print(f"images in {parent or tempfile.gettempdir()}", flush=True)
    with bench_directory([], parent) as directory:
        client, images = client_of("Completed"), Images(directory, size)
        for name, kind in KINDS.items():
            served, raw = zip(*[round_of(kind, images, client, number % 2 == 0) for number in range(rounds)])
            yield rows.row(f"data rate of a {name}", served, "MiB/s", floor=("raw QMP", raw), goal="≥ 0.98 ×")
        client.close()


if __name__ == "__main__":
    rows.main(measure, __doc__)
