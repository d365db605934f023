# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images that cannot be read or written for a while: QEMU's blkdebug between a format and its file."""

import errno
import json
import os
import signal
import subprocess

from kit import images
from kit.images import MIB
from kit.waiting import DEADLINE, wait_until

EIO = os.strerror(errno.EIO)
ENOSPC = os.strerror(errno.ENOSPC)

# In the guest's addresses: a place of which the middle layer has data that shows at the top, so that every job
# that reads the middle layer reads it there. The devices look at the disk's first sector by themselves; this is
# far from it.
READ_AT = MIB + 512 * images.KIB
# And one that a commit of the middle layer writes in base.
WRITE_AT = 2 * MIB + 512 * images.KIB


def layers(directory, name="disk", file_names=(None, None, None)):
    """Three layers, each half hidden by the next; base has room of its own for all that is committed into it."""
    chain = images.Chain(directory, name)
    chain.add([(1, 0, 4 * MIB)], file_name=file_names[0])
    chain.add([(2, MIB, 2 * MIB)], file_name=file_names[1])
    return chain.add([(3, 3 * MIB, 2 * MIB)], file_name=file_names[2])


def host_offset(layer, offset):
    """Where in the layer's own file the byte of the guest is."""
    for part in json.loads(images.run("qemu-img", "map", "-f", layer.format, "--output=json", layer.path)):
        if part["depth"] == 0 and part["start"] <= offset < part["start"] + part["length"]:
            return part["offset"] + offset - part["start"]
    raise AssertionError(f"{layer.path} has nothing of its own at {offset}")


def read_fault(layer, once=True, offset=READ_AT):
    """EIO for reads of the guest's byte, the first time or each time."""
    return {"inject-error": [{"event": "none", "iotype": "read", "errno": errno.EIO, "once": once,
                              "sector": host_offset(layer, offset) // 512}]}


def write_fault(layer, once=True, offset=WRITE_AT):
    """EIO for writes of a cluster that the layer already has."""
    return {"inject-error": [{"event": "none", "iotype": "write", "errno": errno.EIO, "once": once,
                              "sector": host_offset(layer, offset) // 512}]}


def new_cluster_fault(once=True):
    """EIO for writes of data, wherever a qcow2 image puts it: where nobody but the job writes."""
    return {"inject-error": [{"event": "write_aio", "iotype": "write", "errno": errno.EIO, "once": once}]}


def flush_fault():
    """EIO for each flush for which there is something to flush."""
    return {"inject-error": [{"event": "none", "iotype": "flush", "errno": errno.EIO, "once": False}]}


def machine_with_faults(lab, chain, faults):
    """A machine, not started, with the disk vda on nodes vda-0 and so on; faults maps layers' numbers to them."""
    machine = lab.machine()
    below = None
    for number, layer in enumerate(chain.layers):
        file = f"vda-{number}-file"
        nodes = [{"driver": "file", "node-name": file, "filename": layer.path, "auto-read-only": True}]
        if number in faults:
            nodes.append({"driver": "blkdebug", "node-name": f"vda-{number}-faults", "image": file,
                          **faults[number]})
            file = f"vda-{number}-faults"
        nodes.append({"driver": layer.format, "node-name": f"vda-{number}", "file": file,
                      "read-only": layer is not chain.top})
        if layer.format == "qcow2":
            nodes[-1]["backing"] = below
        for node in nodes:
            machine.arguments += ["-blockdev", json.dumps(node)]
        below = f"vda-{number}"
    machine.arguments += ["-device", f"virtio-blk-pci,id=vda,drive={below}"]
    machine.chains["vda"] = chain
    machine.write_names["vda"] = "-d /machine/peripheral/vda/virtio-backend"
    return machine


class FaultyServer:
    """An empty image behind NBD, in the export "disk", some requests to which end in EIO."""

    def __init__(self, directory, iotype, once=True, sector=None):
        self.layer = images.Layer(f"{directory}/served.raw", "raw", images.SIZE)
        socket_path = f"{directory}/served.nbd"
        images.run("qemu-img", "create", "-q", "-f", "raw", self.layer.path, str(self.layer.size))
        fault = {"event": "none", "iotype": iotype, "errno": errno.EIO, "once": "on" if once else "off"}
        if sector is not None:
            fault["sector"] = sector
        image = ["driver=blkdebug", "image.driver=file", f"image.filename={self.layer.path}"]
        image += [f"inject-error.0.{name}={value}" for name, value in fault.items()]
        self.process = subprocess.Popen(
            ["qemu-nbd", "-t", "-k", socket_path, "-x", "disk", "--image-opts", ",".join(image)],
            stdin=subprocess.DEVNULL)
        wait_until(lambda: os.path.exists(socket_path), "qemu-nbd to listen")
        self.uri = f"nbd+unix:///disk?socket={socket_path}"

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)


def orphans(machine):
    """Nodes of the service's own making that no device and no job uses any more."""
    graph = machine.qmp.execute("x-debug-query-block-graph")
    names = {item["id"]: item["name"] for item in graph["nodes"] if item["type"] == "block-driver"}
    used = {item["id"] for item in graph["nodes"] if item["type"] != "block-driver"}
    while True:
        reached = {edge["child"] for edge in graph["edges"] if edge["parent"] in used} - used
        if not reached:
            break
        used |= reached
    return sorted(name for identity, name in names.items() if name.startswith("bj-") and identity not in used)
