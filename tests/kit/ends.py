# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ways in which a QEMU comes to its end, its guest's own included, and what must be true afterwards."""

import json
import signal
import time
from typing import Callable, NamedTuple

from kit import images
from kit.bus import options
from kit.chains import flush
from kit.every_job import KINDS, SLOW, TWO_PHASES, slow_chain, start, target_path
from kit.images import KIB, MIB

# Where Completed comes later after the process is gone, it does not come at once.
AT_ONCE = 2.0

# A boot sector, in 16-bit code. The register PM1a control, at the place that SeaBIOS gives it in the machines pc and
# q35, is written SLP_EN with the sleep type of "soft off".
POWER_OFF = bytes.fromhex("ba0406"  # mov dx, 0x604
                          "b80020"  # mov ax, 0x2000
                          "ef"      # out dx, ax
                          "f4"      # hlt
                          "ebfd")   # jmp back to the hlt


def add_boot_disk(machine, target="boot"):
    """With it there is a guest, which switches the machine off as soon as it runs, at the first `cont`."""
    path = f"{machine.directory}/{machine.name}-boot.raw"
    with open(path, "wb") as file:
        file.write(POWER_OFF.ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB - 512))
    machine.arguments += [
        "-blockdev", json.dumps({"driver": "file", "node-name": f"{target}-file", "filename": path}),
        "-blockdev", json.dumps({"driver": "raw", "node-name": target, "file": f"{target}-file"}),
        "-device", f"virtio-blk-pci,id={target},drive={target},bootindex=0"]
    return machine


def resume(service, pid):
    """A service that stood at a point goes on. When that was."""
    service.resume(pid)
    return time.monotonic()


# Roads to QEMU's end.

class Road(NamedTuple):
    take: Callable   # of the machine
    state: str       # of the domain afterwards
    reason: str
    status: int = 0  # of the process


def send(number):
    return lambda machine: machine.process.send_signal(number)


ROADS = {
    "poweroff": Road(lambda machine: machine.qmp.execute("cont"), "shutoff", "guest-shutdown"),
    "quit": Road(lambda machine: machine.qmp.execute("quit"), "shutoff", "host-qmp-quit"),
    "SIGTERM": Road(send(signal.SIGTERM), "shutoff", "host-signal"),
    "SIGKILL": Road(send(signal.SIGKILL), "crashed", "QEMU went away", -signal.SIGKILL),
}
# Hardly different ones. A reset is an end where QEMU has -no-reboot.
OTHER_ROADS = {
    "SIGHUP": Road(send(signal.SIGHUP), "shutoff", "host-signal"),
    "SIGSEGV": Road(send(signal.SIGSEGV), "crashed", "QEMU went away", -signal.SIGSEGV),
    "reset": Road(lambda machine: machine.qmp.execute("system_reset"), "shutoff", "host-qmp-system-reset"),
}


def end(machine, road):
    """Takes the road to its end. When the process was gone."""
    way = (ROADS | OTHER_ROADS)[road]
    way.take(machine)
    assert machine.wait() == way.status, machine.output()
    return time.monotonic()


# Jobs.

def write(machine, pattern, target="vda", offset=20 * MIB):
    """A guest's write that is acknowledged and flushed: whatever comes, the disk shows it."""
    machine.write(target, pattern, offset, 64 * KIB)
    flush(machine, target)


def call_later(job, member, **values):
    """Pivot or Abort."""
    return job.client.call_later(job.path, "Job", member, "(a{sv})", options(values))


def image_of_pivot(kind, lab, chain):
    """The image that is the disk after a pivot."""
    if kind == "copy":
        return images.Layer(target_path(kind, lab.directory), "qcow2", images.SIZE)
    return chain.base


class Busy(NamedTuple):
    """A disk with a job on it."""
    kind: str
    target: str
    chain: images.Chain
    disk: object
    job: object


def busy_machine(lab, machine):
    """Starts the machine with a disk for each type of job, and a job on each; those of two phases get ready."""
    chains = {kind: slow_chain(lab.directory, kind) for kind in KINDS}
    targets = {kind: f"vd{letter}" for kind, letter in zip(KINDS, "abcde")}
    for kind, chain in chains.items():
        machine.add_virtio(chain, targets[kind])
    domain = lab.attach(machine.start())
    busy = []
    for kind, chain in chains.items():
        disk = domain.disk(targets[kind])
        job = start(kind, lab, disk, **({} if kind in TWO_PHASES else {"speed": SLOW}))
        if kind in TWO_PHASES:
            job.wait_ready()
        busy.append(Busy(kind, targets[kind], chain, disk, job))
    return busy


# What must be.

def assert_told(job, result, gone):
    """One Completed, at once, with this result."""
    heard = job.client.wait_signal(job.path, "Completed")
    assert heard.time - gone < AT_ONCE, f"Completed came {heard.time - gone:.1f} s after QEMU's end"
    job.wait_completed(result)


def assert_domain(domain, road):
    """What the domain says after such an end."""
    way = (ROADS | OTHER_ROADS)[road]
    domain.wait("State", way.state)
    assert domain["StateReason"] == way.reason
    assert domain["Jobs"] == [] and domain["Pid"] == 0


def assert_disk(disk, layers):
    """The bus tells these images, top first, and no job."""
    paths = [layer.path for layer in layers]
    assert disk["Source"] == paths[0]
    assert disk.sources() == paths
    assert disk["Job"] == "/"


def assert_image(layer, contents):
    """By its header and its chain the image shows what the guest was promised. No QEMU may run."""
    images.assert_contents(layer, contents)
    images.assert_sound(layer)
