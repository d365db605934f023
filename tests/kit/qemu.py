# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real QEMU without a guest: stopped CPUs, real disks, writes by hand."""

import json
import os
import signal
import socket
import subprocess
import uuid

from kit.qmp import Qmp
from kit.waiting import DEADLINE, wait_until

BINARY = os.environ.get("QEMU", "qemu-system-x86_64")


def listening_socket(path):
    """A socket that accepts from now on: who connects before QEMU runs is served as soon as it does, and once
    it is served, QEMU listens at its other sockets too."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(8)
    os.chmod(path, 0o666)
    return listener


class Machine:
    """It has two monitors: one for blockjobd at `.monitor_path`, one for the tests' own look (`.qmp`)."""

    def __init__(self, directory, name, suffix=""):
        self.directory = directory
        self.name = name
        # A suffix tells two machines apart that come after each other under one name, at one socket.
        self.monitor_path = f"{directory}/{name}.monitor"
        self.own_path = f"{directory}/{name}{suffix}.own"
        self.uuid = str(uuid.uuid4())
        self.arguments = []
        self.chains = {}
        self.write_names = {}  # of each target: how HMP qemu-io calls it
        self.process = None
        self.qmp = None
        self.output_path = f"{directory}/{name}{suffix}.output"

    # Disks. Each way adds the nodes and a device; node names tell what they are: vda-0 is vda's base.

    def _add_nodes(self, target, chain, read_only=False):
        below = None
        for number, layer in enumerate(chain.layers):
            top = number == len(chain.layers) - 1
            self._blockdev(driver="file", node_name=f"{target}-{number}-file", filename=layer.path,
                           auto_read_only=True)
            options = dict(driver=layer.format, node_name=f"{target}-{number}", file=f"{target}-{number}-file",
                           read_only=read_only or not top)
            if layer.format == "qcow2":
                options["backing"] = below
            self._blockdev(**options)
            below = f"{target}-{number}"
        self.chains[target] = chain
        return below

    def _blockdev(self, **options):
        options = {name.replace("_", "-"): value for name, value in options.items()}
        self.arguments += ["-blockdev", json.dumps(options)]

    def add_virtio(self, chain, target="vda", throttle=None, share=False, read_only=False):
        """throttle: limits of a throttle group whose filter is put above the chain."""
        node = self._add_nodes(target, chain, read_only)
        if throttle is not None:
            group = {"qom-type": "throttle-group", "id": f"{target}-group", "limits": throttle}
            self.arguments += ["-object", json.dumps(group)]
            self._blockdev(driver="throttle", node_name=f"{target}-throttle", throttle_group=f"{target}-group",
                           file=node)
            node = f"{target}-throttle"
        self.arguments += ["-device", f"virtio-blk-pci,id={target},drive={node},share-rw={'on' if share else 'off'}"]
        self.write_names[target] = f"-d /machine/peripheral/{target}/virtio-backend"
        return self

    def add_scsi_controller(self):
        self.arguments += ["-device", "virtio-scsi-pci,id=scsi"]
        return self

    def add_scsi(self, chain, target="sda"):
        node = self._add_nodes(target, chain)
        self.arguments += ["-device", f"scsi-hd,id={target},bus=scsi.0,drive={node}"]
        self.write_names[target] = f"-d {target}"
        return self

    def add_ide(self, chain, target="hda"):
        node = self._add_nodes(target, chain)
        self.arguments += ["-device", f"ide-hd,id={target},bus=ide.0,drive={node}"]
        self.write_names[target] = f"-d {target}"
        return self

    def add_empty_cd(self, target="cd"):
        self.arguments += ["-device", f"ide-cd,id={target},bus=ide.1"]
        return self

    def add_legacy(self, chain, drive="drive0", target=None):
        """-drive as of old: QEMU names the nodes. With a target it is if=none and an explicit device, else
        if=virtio, where the device has no id and the disk goes by the drive's name."""
        interface = "none" if target else "virtio"
        self.arguments += ["-drive", f"file={chain.top.path},format={chain.top.format},if={interface},id={drive}"]
        if target:
            self.arguments += ["-device", f"virtio-blk-pci,id={target},drive={drive}"]
        self.chains[target or drive] = chain
        self.write_names[target or drive] = drive
        return self

    # Life.

    def start(self):
        command = [BINARY, "-M", "pc", "-m", "32", "-nodefaults", "-display", "none", "-accel", "tcg", "-S",
                   "-name", self.name, "-uuid", self.uuid,
                   "-chardev", f"socket,id=blockjobd,path={self.monitor_path},server=on,wait=off",
                   "-mon", "chardev=blockjobd,mode=control"]
        listener = listening_socket(self.own_path)
        command += ["-chardev", f"socket,id=own,fd={listener.fileno()},server=on,wait=off",
                    "-mon", "chardev=own,mode=control"]
        with listener, open(self.output_path, "wb") as output:
            self.process = subprocess.Popen(command + self.arguments, stdin=subprocess.DEVNULL, stdout=output,
                                            stderr=output, pass_fds=[listener.fileno()])
        try:
            self.qmp = Qmp(self.own_path)
        except OSError as error:
            raise AssertionError(f"QEMU did not start: {self.output()}") from error
        return self

    def output(self):
        with open(self.output_path, errors="replace") as output:
            return output.read()

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """As a power cut for this machine: nothing is flushed."""
        if self.running():
            self.process.send_signal(signal.SIGKILL)
        return self.wait()

    def quit(self):
        """Orderly end; every image is flushed and closed afterwards."""
        self.qmp.execute("quit")
        status = self.wait()
        assert status == 0, f"QEMU ended with {status}: {self.output()}"

    def wait(self, deadline=DEADLINE):
        return self.process.wait(deadline)

    def clean(self):
        if self.process is not None:
            self.kill()
        if self.qmp is not None:
            self.qmp.close()

    # What the guest would do.

    def write(self, target, pattern, offset, length):
        """A guest's write. Never while a job of the disk is pending: the monitor would hang for ever."""
        seen = len(self.output())
        line = f'qemu-io {self.write_names[target]} "write -P {pattern} {offset} {length}"'
        result = self.qmp.human(line) + self.output()[seen:]
        assert "wrote " in result, f"write to {target} failed: {result}"
        self.chains[target].contents[-1].fill(pattern, offset, length)

    def export(self, target, node):
        """The disk as a writable NBD export, for a writer that may hang; needs a device with share=True."""
        path = f"{self.directory}/{self.name}.nbd"
        self.qmp.execute("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
        self.qmp.execute("block-export-add", id="guest", type="nbd", node_name=node, name=target, writable=True)
        return path

    def snapshot(self, target, path):
        """What an administrator would do at another monitor: a new empty overlay on top of the disk."""
        chain = self.chains[target]
        below = self.block(target)["inserted"]["node-name"]
        chain.add(file_name=os.path.basename(path), backing=self.active_file(target), unchecked=True)
        node = f"{target}-{len(chain.layers) - 1}-{os.path.basename(path).split('.')[0]}"
        self.qmp.execute("blockdev-add", driver="file", node_name=f"{node}-file", filename=path)
        self.qmp.execute("blockdev-add", driver="qcow2", node_name=node, file=f"{node}-file", backing=None)
        self.qmp.execute("blockdev-snapshot", node=below, overlay=node)
        return node

    # What QEMU says.

    def block(self, target):
        """query-block's entry of the disk."""
        for entry in self.qmp.execute("query-block"):
            names = (entry.get("qdev") or "").split("/")
            if target in names or entry.get("device") == target:
                return entry
        raise AssertionError(f"QEMU has no disk {target}")

    def active_file(self, target):
        """The file that the guest writes to now, filters skipped."""
        node = self.nodes()[self.block(target)["inserted"]["node-name"]]
        while node["drv"] in ("throttle", "copy-on-read", "mirror_top", "commit_top"):
            node = self.nodes()[self._child(node["node-name"])]
        return node["file"]

    def _child(self, name):
        graph = self.qmp.execute("x-debug-query-block-graph")
        identities = {item["id"]: item for item in graph["nodes"]}
        parent = next(item["id"] for item in graph["nodes"] if item["name"] == name)
        edge = next(item for item in graph["edges"]
                    if item["parent"] == parent and item["name"] in ("file", "backing"))
        return identities[edge["child"]]["name"]

    def nodes(self):
        return {node["node-name"]: node for node in self.qmp.execute("query-named-block-nodes", flat=True)}

    def jobs(self):
        return {job["id"]: job for job in self.qmp.execute("query-jobs")}

    def wait_jobs(self, condition, what, deadline=DEADLINE):
        return wait_until(lambda: condition(self.jobs()), what, deadline)

