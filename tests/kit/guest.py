# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Linux guest that does on its disk what it is told over its serial console."""

import contextlib
import fcntl
import hashlib
import os
import select
import shutil
import socket
import time
import uuid
from pathlib import Path

from kit.images import KIB, run

TESTS = Path(__file__).resolve().parent.parent
BUILD = TESTS.parent / "build" / "demo"  # where the demo keeps what it has downloaded
FIXTURES = TESTS / "fixtures" / "domains"

BLOCK = 4096  # in which the guest counts
LENGTH = 16 * KIB  # of a write among many
STEP = 1236 * KIB  # from one to the next, so that they come to all parts of the disk
BOOT_DEADLINE = 60.0
ANSWER_DEADLINE = 30.0

# What the files in tests/fixtures/domains have, apart from the uuid.
NAME = "linux-guest"
DISK = "/var/lib/libvirt/images/linux-guest.qcow2"
KERNEL = "/var/lib/libvirt/boot/vmlinuz"
INITRD = "/var/lib/libvirt/boot/initrd.gz"
SERIAL = "/run/linux-guest.serial"


def build(directory):
    """Puts a kernel and an initrd into the directory, for anybody to read."""
    lock = os.open(TESTS.parent, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as the demo does
    try:
        run(str(TESTS / "demo" / "guest"), str(BUILD), str(TESTS / "kit" / "guest-init"), "told.gz")
        for source, target in (("vmlinuz", "vmlinuz"), ("told.gz", "initrd.gz")):
            shutil.copyfile(BUILD / source, f"{directory}/{target}")
            os.chmod(f"{directory}/{target}", 0o644)
    finally:
        os.close(lock)
    return directory


def fixture_xml(fixture, name, disk, boot, serial):
    """What virsh dumpxml wrote, with a name and places of this test's own in it."""
    xml = (FIXTURES / fixture).read_text()
    identity = xml.split("<uuid>", 1)[1].split("</uuid>", 1)[0]
    for old, new in ((f"<name>{NAME}</name>", f"<name>{name}</name>"), (identity, str(uuid.uuid4())),
                     (DISK, disk), (KERNEL, f"{boot}/vmlinuz"), (INITRD, f"{boot}/initrd.gz"), (SERIAL, serial)):
        assert old in xml, f"{old} is not in {fixture}"
        xml = xml.replace(old, new)
    return xml


class Console:
    """The guest at the other end of its serial line, from one start of it to its end."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.text = ""  # all that it has said
        self.number = 0
        self.ended = False
        self.wait_line("guest: ready", BOOT_DEADLINE)

    def close(self):
        self.socket.close()

    def _lines(self):
        return self.text.replace("\r", "").split("\n")[:-1]

    def _read(self, seconds):
        if self.ended or not select.select([self.socket], [], [], seconds)[0]:
            return
        with contextlib.suppress(ConnectionResetError):
            data = self.socket.recv(65536)
            self.text += data.decode(errors="replace")
            self.ended = not data
            return
        self.ended = True

    def wait_line(self, start, deadline=ANSWER_DEADLINE):
        end = time.monotonic() + deadline
        while True:
            found = [line for line in self._lines() if line.startswith(start)]
            if found:
                return found[0]
            left = end - time.monotonic()
            assert left > 0 and not self.ended, \
                f"{'the end' if self.ended else f'nothing within {deadline:g} s'} instead of '{start}': " \
                f"...{self.text[-1000:]}"
            self._read(left)

    def tell(self, *words):
        """Gives a command without waiting; `answer` takes what it comes to."""
        self.number += 1
        command = " ".join(str(word) for word in (self.number, *words))
        self.socket.sendall(command.encode() + b"\n")
        return self.number

    def has_answered(self, number):
        self._read(0)
        return any(line.startswith((f"done {number} ", f"failed {number} ")) for line in self._lines())

    def answer(self, number):
        # "failed" is its answer as well, and no other line will come
        line = self.wait_line((f"done {number} ", f"failed {number} "))
        assert line.startswith("done "), f"the guest: {line}"
        return line.split()[2:]

    def wait_end(self):
        """Until QEMU has closed the line."""
        end = time.monotonic() + ANSWER_DEADLINE
        while not self.ended:
            assert time.monotonic() < end, f"the guest goes on: ...{self.text[-1000:]}"
            self._read(end - time.monotonic())


class Guest:
    """A disk's model, kept from start to start, and whoever writes to that disk now."""

    def __init__(self, serial, contents):
        self.serial = serial
        self.contents = contents
        self.console = None
        self.writes = 0

    def boot(self):
        self.close()
        self.console = Console(self.serial)

    def close(self):
        if self.console:
            self.console.close()
            self.console = None

    def write_later(self, pattern, offset, length):
        """Offsets and lengths in bytes; whole blocks."""
        assert offset % BLOCK == length % BLOCK == 0
        self.contents.fill(pattern, offset, length)
        return self.console.tell("write", f"{pattern:03o}", offset // BLOCK, length // BLOCK)

    def write(self, pattern, offset, length):
        """It is on the disk, says the guest."""
        self.console.answer(self.write_later(pattern, offset, length))

    def write_until(self, condition, what, deadline=ANSWER_DEADLINE):
        """Goes on writing, each time something else and somewhere else, until the condition holds."""
        end = time.monotonic() + deadline
        while not condition():
            assert time.monotonic() < end, f"not within {deadline:g} s: {what}"
            self.writes += 1
            offset = self.writes * STEP % (len(self.contents) - LENGTH)
            self.write(self.writes % 255 + 1, offset - offset % BLOCK, LENGTH)

    def write_more(self, count):
        goal = self.writes + count
        self.write_until(lambda: self.writes >= goal, f"{count} writes of the guest")

    def assert_reads(self, offset, length):
        """The guest finds on its disk what the model has there."""
        found, *_ = self.console.answer(self.console.tell("sum", offset // BLOCK, length // BLOCK))
        expected = hashlib.sha256(self.contents[offset:offset + length]).hexdigest()
        assert found == expected, f"the guest reads something else at {offset}, {length} bytes"

    def assert_reads_all(self):
        self.assert_reads(0, len(self.contents))

    def size(self):
        return int(self.console.answer(self.console.tell("size"))[0])

    def power_off(self):
        self.console.tell("poweroff")
        self.console.wait_end()
