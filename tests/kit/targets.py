# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a copy is written to: prepared images, servers that can stop and die, block devices; and what QEMU has open."""

import errno
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
from urllib.parse import quote

from kit import images
from kit.images import KIB, SIZE
from kit.waiting import DEADLINE

# A limit that is kept from the first cluster on takes gaps in the source (see images.stripes) and a small buffer:
# as much as there is room for is under way at once.
SLOWLY = {"speed": 64 * KIB, "buffer": 64 * KIB}


def prepare(path, image_format="qcow2", size=SIZE, backing=None, pattern=None):
    """An image that is there before the job. backing is the string for its header, whose file need not exist;
    with a pattern the image is full of what must not be left in it."""
    names = ["-u", "-b", backing, "-F", "qcow2"] if backing else []
    images.run("qemu-img", "create", "-q", "-f", image_format, *names, path, str(size))
    if pattern is not None:
        images.run("qemu-io", "-f", image_format, "-c", f"write -P {pattern} 0 {size}", path)
    return images.Layer(path, image_format, size)


def read_file(path, offset=0, length=-1):
    """Bytes of the file itself, whatever is in it."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


# What QEMU has.

PROTOCOLS = ("file", "host_device", "nbd")

def open_files(machine):
    """The name of every image that QEMU has open, each once."""
    return {node["file"] for node in machine.nodes().values() if node["drv"] in PROTOCOLS}


def node_of(machine, path):
    """The name of the node that shows this image: the one above the node of its file, which has the plain name."""
    drivers = {name: node["drv"] for name, node in machine.nodes().items() if node["file"] == path}
    file = next(name for name, driver in drivers.items() if driver in PROTOCOLS)
    return next(parent for parent, edge, child in edges(machine) if child == file and edge == "file")


def child_of(machine, node, wanted):
    """The name of the node below, None where there is none."""
    return next((child for parent, edge, child in edges(machine) if parent == node and edge == wanted), None)


def edges(machine):
    """(parent, edge, child) for each, by the names of nodes."""
    graph = machine.qmp.execute("x-debug-query-block-graph")
    names = {item["id"]: item["name"] for item in graph["nodes"]}
    return [(names[item["parent"]], item["name"], names[item["child"]]) for item in graph["edges"]]


def assert_disk(machine, disk, *paths, target="vda", others=()):
    """QEMU and the bus agree that these images are the disk, top first, and that no job is on it; besides the disk's
    images and these others QEMU has none open."""
    assert disk["Job"] == "/"
    assert disk["Source"] == paths[0]
    assert disk.sources() == list(paths)
    assert [layer["read-only"] for layer in disk["Chain"]] == [False] + [True] * (len(paths) - 1)
    assert open_files(machine) == {*paths, *others}
    assert machine.jobs() == {}, "a job is still in QEMU"
    node = machine.block(target)["inserted"]["node-name"]
    assert disk["NodeName"] == node
    while machine.nodes()[node]["drv"] == "throttle":
        node = child_of(machine, node, "file")
    while below := child_of(machine, node, "file"):
        node = below
    assert machine.nodes()[node]["file"] == paths[0], "the guest writes somewhere else"


def assert_free(*paths, image_format="qcow2"):
    """Nobody has these images open: whoever wants to write to one can."""
    for path in paths:
        images.run("qemu-io", "-f", image_format, "-c", "read 0 64k", path)


# Servers.

class NbdServer:
    """An image on another machine as far as QEMU can tell: a process of its own with an export "disk", at a TCP port
    that was free, or at a UNIX socket. It can be held, go on, and be killed."""

    def __init__(self, path, tcp=False, writable=True):
        self.path = path
        if tcp:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            self.uri = f"nbd://127.0.0.1:{listener.getsockname()[1]}/disk"
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"{path}.socket")
            self.uri = f"nbd+unix:///disk?socket={quote(path)}.socket"
        listener.listen(4)
        file = {"driver": "file", "node-name": "file", "filename": path, "auto-read-only": True}
        export = f"type=nbd,id=disk,node-name=disk,name=disk,writable={'on' if writable else 'off'}"
        # It listens before it runs, so that nobody has to wait for that.
        with listener:
            self.process = subprocess.Popen(
                ["qemu-storage-daemon", "--blockdev", json.dumps(file), "--blockdev", "raw,node-name=disk,file=file",
                 "--nbd-server", f"addr.type=fd,addr.str={listener.fileno()}", "--export", export],
                stdin=subprocess.DEVNULL, pass_fds=[listener.fileno()])

    def hold(self):
        """It does not answer any more; the connections stay."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)

    def stop(self):
        """In order: what was written is in the image."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(DEADLINE) == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


# Block devices.

class BlockDevice:
    """A loop device over a file. Its node in the file system is made here: a small system has none in /dev."""

    CONTROL, LOOP_MAJOR = os.makedev(10, 237), 7
    SET_DESCRIPTOR, CLEAR_DESCRIPTOR, GET_FREE = 0x4C00, 0x4C01, 0x4C82

    def __init__(self, path, size):
        self.path = path
        os.mknod(f"{path}.control", 0o600 | stat.S_IFCHR, self.CONTROL)
        with open(f"{path}.file", "w+b") as file, open(f"{path}.control", "rb") as control:
            file.truncate(size)
            while not self._take(fcntl.ioctl(control, self.GET_FREE), file.fileno()):
                pass
        os.unlink(f"{path}.control")

    def _take(self, number, descriptor):
        """False where somebody else was faster."""
        os.mknod(self.path, 0o600 | stat.S_IFBLK, os.makedev(self.LOOP_MAJOR, number))
        self.descriptor = os.open(self.path, os.O_RDWR)
        try:
            fcntl.ioctl(self.descriptor, self.SET_DESCRIPTOR, descriptor)
        except OSError as error:
            os.close(self.descriptor)
            os.unlink(self.path)
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # It goes when the last one who has it open closes it.
        fcntl.ioctl(self.descriptor, self.CLEAR_DESCRIPTOR)
        os.close(self.descriptor)
