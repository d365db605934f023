# SPDX-License-Identifier: LGPL-2.1-or-later
"""Peers at a QMP socket that no real QEMU is: silent, talking garbage, breaking off. For nothing else."""

import json
import os
import socket
import threading

GREETING = {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""},
                    "capabilities": ["oob"]}}


class FakePeer:
    """Serves each connection with `script(connection)` in a thread of its own, and counts connections."""

    def __init__(self, path, script):
        self.path = path
        self.connections = 0
        self.open_connections = []
        self.received = []
        self.script = script
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        os.chmod(path, 0o666)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            # Kept, so that a connection ends when the script says so and not by garbage collection.
            self.open_connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            self.script(connection, self)
        except OSError:
            pass

    def close(self):
        # Wakes the accepting thread, which close alone does not.
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for connection in self.open_connections:
            connection.close()
        self.thread.join(5)
        if os.path.exists(self.path):
            os.unlink(self.path)


def send(connection, message):
    connection.sendall(json.dumps(message).encode() + b"\r\n")


def end(connection):
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def silent(connection, peer):
    """Never greets."""


def garbage(connection, peer):
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nServer: none\r\n\r\n" + bytes(range(256)) + b"\r\n")


def other_json(connection, peer):
    """JSON, but not a greeting."""
    send(connection, {"hello": [1, 2, 3]})


def not_an_object(connection, peer):
    send(connection, [1, 2, 3])


def deep_nesting(connection, peer):
    connection.sendall(b"[" * 1_000_000 + b"\r\n")


def closes_at_once(connection, peer):
    end(connection)


def closes_after_greeting(connection, peer):
    send(connection, GREETING)
    end(connection)


def half_a_line(connection, peer):
    """The start of a greeting, and then nothing more."""
    connection.sendall(json.dumps(GREETING).encode()[:40])


def half_a_line_and_end(connection, peer):
    half_a_line(connection, peer)
    end(connection)


def endless_line(connection, peer):
    """One line of more than the 16 MiB that are accepted."""
    connection.sendall(b'{"QMP": "')
    for _ in range(17):
        connection.sendall(b"x" * (1 << 20))


def lines(connection, ready=None):
    """The messages that come; each read is after a call of ready()."""
    buffer = b""
    while True:
        if ready:
            ready()
        received = connection.recv(1 << 16)
        if not received:
            return
        buffer += received
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            if line.strip():
                yield json.loads(line)


def greets_then_ignores(connection, peer):
    """Greets, and answers no command."""
    send(connection, GREETING)
    for message in lines(connection):
        peer.received.append(message)


def answers_errors(connection, peer):
    """Greets, negotiates, and refuses everything else."""
    send(connection, GREETING)
    for message in lines(connection):
        peer.received.append(message)
        if message.get("execute") == "qmp_capabilities":
            send(connection, {"return": {}, "id": message.get("id")})
        else:
            send(connection, {"error": {"class": "GenericError", "desc": "not today"}, "id": message.get("id")})


def answers_nonsense(connection, peer):
    """Greets, negotiates, and returns a number where an object or a list is due."""
    send(connection, GREETING)
    for message in lines(connection):
        peer.received.append(message)
        value = {} if message.get("execute") == "qmp_capabilities" else 42
        send(connection, {"return": value, "id": message.get("id")})


def answers_with_wrong_ids(connection, peer):
    """Greets, and answers with the ids of commands that nobody gave."""
    send(connection, GREETING)
    for message in lines(connection):
        peer.received.append(message)
        send(connection, {"return": {}, "id": "somebody else's"})


def closes_after_negotiation(connection, peer):
    send(connection, GREETING)
    for message in lines(connection):
        send(connection, {"return": {}, "id": message.get("id")})
        end(connection)
        return
