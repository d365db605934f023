# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real QEMU that is slow, talks too much or does not listen: a relay between its monitor and the daemon."""

import json
import queue
import socket
import threading

from kit.fake_qmp import end, lines


def event(name, **data):
    """A line as QEMU sends it."""
    stamp = {"seconds": 1, "microseconds": 0}
    return json.dumps({"event": name, "timestamp": stamp, "data": data}).encode() + b"\r\n"


class Link:
    """One connection of the daemon, and one to QEMU for it."""

    def __init__(self, relay, connection):
        self.relay = relay
        self.connection = connection
        self.outgoing = queue.SimpleQueue()  # whole lines; None is the end
        self.qemu = socket.socket(socket.AF_UNIX)
        self.qemu.connect(relay.monitor_path)
        for task in (self._read_qemu, self._read_daemon):
            threading.Thread(target=task, daemon=True).start()

    def _read_qemu(self):
        try:
            for line in self.qemu.makefile("rb"):
                self.outgoing.put(line)
        except OSError:
            pass
        self.outgoing.put(None)

    def _read_daemon(self):
        try:
            for message in lines(self.connection, self.relay.listens.wait):
                self.relay.commands.append(message["execute"])
                self.qemu.sendall(json.dumps(message).encode() + b"\r\n")
        except OSError:
            pass
        # What reads from it comes to its end.
        self.qemu.shutdown(socket.SHUT_RDWR)

    def run(self):
        """What QEMU said goes first, so that a flood makes no answer late."""
        while True:
            flood = self.relay.chunk
            try:
                line = self.outgoing.get(block=not flood)
            except queue.Empty:
                self.connection.sendall(flood)
                self.relay.flooded += len(flood)
                continue
            if line is None:
                return
            self._pass_on(line)

    def _pass_on(self, line):
        relay = self.relay
        relay.pacing.wait(relay.pause)
        piece = relay.piece or len(line) or 1
        for start in range(0, len(line), piece):
            self.connection.sendall(line[start:start + piece])


class Relay:
    """A script of a FakePeer. Commands and answers go through it, slower or with more between them than QEMU has.

    pause: seconds before each line of QEMU; piece: in how many bytes at once it is passed on.
    """

    def __init__(self, machine, pause=0.0, piece=0):
        self.monitor_path = machine.monitor_path
        self.pause = pause
        self.piece = piece
        self.pacing = threading.Event()  # never set: for its timeout
        self.listens = threading.Event()
        self.listens.set()
        self.chunk = b""
        self.flooded = 0
        self.commands = []
        self.links = []

    def __call__(self, connection, peer):
        try:
            link = Link(self, connection)
            self.links.append(link)
            link.run()
        finally:
            try:
                end(connection)
            except OSError:
                pass  # closed by the daemon

    def flood(self, events):
        """These lines again and again as fast as the daemon takes them, until flood(b"")."""
        self.chunk = events
        for link in self.links:
            link.outgoing.put(b"")


def attach(lab, machine, **keywords):
    """Attaches the machine through a relay: (relay, domain)."""
    relay = Relay(machine, **keywords)
    peer = lab.peer(relay, f"{machine.name}.relay")
    lab.attached.append(machine.name)
    return relay, lab.manager.attach(machine.name, peer.path)
