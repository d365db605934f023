# SPDX-License-Identifier: LGPL-2.1-or-later
"""A whole computer, made by tests/tools/make-system: what it is told, how it is restarted, how its power is cut."""

import base64
import json
import os
import socket
import subprocess
from pathlib import Path

from kit.waiting import wait_until

PROJECT = Path(__file__).resolve().parent.parent.parent
BOOT_DEADLINE = 240.0  # without KVM, on a machine with other work
ANSWER_DEADLINE = 120.0


class Computer:
    def __init__(self, directory, package):
        made = Path(os.environ["BLOCKJOBD_BUILD"]).resolve() / "system"
        subprocess.run([PROJECT / "tests/tools/make-system", made], check=True)
        self.made, self.directory = made, Path(directory)
        self.port = self.directory / "agent"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", made / "root.ext4", "-F", "raw",
                        self.directory / "disk.qcow2"], check=True)
        # A disk that is an archive: no file system, no network.
        archive = self.directory / "package.tar"
        subprocess.run(["tar", "-C", package.parent, "-cf", archive, package.name], check=True)
        self.process = self.stream = None

    def start(self):
        with open(self.directory / "console", "ab") as console:
            self.process = subprocess.Popen(
                ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1280",
                 "-nographic", "-no-reboot", "-nic", "none", "-kernel", self.made / "kernel", "-initrd", self.made / "initrd",
                 "-append", "root=/dev/vda rw console=ttyS0 quiet",
                 "-drive", f"file={self.directory}/disk.qcow2,format=qcow2,if=virtio",
                 "-drive", f"file={self.directory}/package.tar,format=raw,if=virtio,readonly=on",
                 "-device", "virtio-serial", "-chardev", f"socket,path={self.port},server=on,wait=off,id=agent",
                 "-device", "virtserialport,chardev=agent,name=agent"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        connection = socket.socket(socket.AF_UNIX)
        wait_until(lambda: connection.connect_ex(str(self.port)) == 0, "the agent's port")
        connection.settimeout(BOOT_DEADLINE)
        self.stream = connection.makefile("rwb")
        connection.close()
        assert self.stream.readline() == b"ready\n", self.console()
        self.run("systemctl is-system-running --wait || true")

    def console(self):
        return (self.directory / "console").read_text(errors="replace")[-2000:]

    def ask(self, script):
        """Exit status and output of a shell script."""
        self.stream.write(base64.b64encode(script.encode()) + b"\n")
        self.stream.flush()
        lines = base64.b64decode(self.stream.readline()).decode().rstrip("\n").split("\n")
        return int(lines[-1]), "\n".join(lines[:-1])

    def run(self, script):
        status, said = self.ask(f"set -e\n{script}")
        assert status == 0, f"{script}\nfailed with {status}:\n{said}"
        return said

    def power_cut(self):
        """What was not on its disk is gone."""
        self.process.kill()
        self._ended()

    def reboot(self):
        """In order. QEMU ends where the computer would begin anew."""
        self.ask("systemctl --no-block reboot")
        self._ended()
        self.start()

    def _ended(self):
        self.process.wait(ANSWER_DEADLINE)
        self.stream.close()

    def close(self):
        if self.process and self.process.poll() is None:
            self.power_cut()

    # The service in it, by the tool that everybody has.

    def busctl(self, arguments, user=None):
        prefix = f"setpriv --reuid {user} --regid {user} --clear-groups " if user else ""
        said = self.run(f"{prefix}busctl --system --json=short {arguments}")
        return json.loads(said)["data"] if said else None

    def call(self, path, interface, member, arguments="", user=None):
        data = self.busctl(f"call org.blockjobd1 {path} org.blockjobd1.{interface} {member} {arguments}", user)
        return data[0] if data else None

    def read(self, path, interface, name):
        return self.busctl(f"get-property org.blockjobd1 {path} org.blockjobd1.{interface} {name}")
