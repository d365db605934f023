# SPDX-License-Identifier: LGPL-2.1-or-later
"""What backups are written to, and a look at what has come there."""

import json
import os
import signal
import subprocess

from kit import images
from kit.waiting import DEADLINE, wait_until


def create(path, image_format="qcow2", size=images.SIZE, pattern=None):
    """An image that is there before the backup; with a pattern, full of what must not be left in it."""
    images.run("qemu-img", "create", "-q", "-f", image_format, path, str(size))
    if pattern is not None:
        images.run("qemu-io", "-f", image_format, "-c", f"write -P {pattern} 0 {size}", path)
    return path


def layer(path, image_format="qcow2"):
    return images.Layer(path, image_format, images.SIZE)


def assert_backup(path, image_format, contents):
    """The image shows every byte as it was at the moment of the backup."""
    images.assert_contents(layer(path, image_format), contents)


def ranges(path):
    """(start, length, depth) of each part of a qcow2 image's chain that is allocated somewhere; 0 is its own."""
    found = json.loads(images.run("qemu-img", "map", "-U", "-f", "qcow2", "--output=json", path))
    return [(part["start"], part["length"], part["depth"]) for part in found if part["data"]]


def compressed_clusters(path):
    report = json.loads(images.run("qemu-img", "check", "-U", "-f", "qcow2", "--output=json", path))
    return report.get("compressed-clusters", 0)


class NbdServer:
    """An image on another machine, as far as QEMU can tell: qemu-nbd behind a UNIX socket, with an export "disk"."""

    def __init__(self, directory, path, image_format="raw"):
        self.socket_path = f"{directory}/disk.nbd"
        self.process = subprocess.Popen(
            ["qemu-nbd", "-t", "-k", self.socket_path, "-f", image_format, "-x", "disk", path],
            stdin=subprocess.DEVNULL)
        wait_until(lambda: os.path.exists(self.socket_path), "qemu-nbd to listen")

    def uris(self):
        """The two ways in which QEMU writes it."""
        return {"nbd+unix": f"nbd+unix:///disk?socket={self.socket_path}",
                "nbd": f"nbd:unix:{self.socket_path}:exportname=disk"}

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)
