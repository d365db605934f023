# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plain QMP client of the tests' own, on another monitor than the daemon's."""

import json
import socket
import threading
import time

from kit.waiting import DEADLINE


class QmpError(Exception):
    def __init__(self, error):
        super().__init__(f"{error['class']}: {error['desc']}")
        self.error_class = error["class"]
        self.description = error["desc"]


class Qmp:
    """One connection; commands from several threads wait for each other."""

    def __init__(self, path, deadline=DEADLINE):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(deadline)
        self.socket.connect(path)
        self.buffer = b""
        self.events = []
        self.lock = threading.Lock()
        self.greeting = self._read(deadline)
        self.execute("qmp_capabilities")

    def _read(self, deadline):
        end = time.monotonic() + deadline
        while b"\n" not in self.buffer:
            self.socket.settimeout(max(0.001, end - time.monotonic()))
            try:
                received = self.socket.recv(1 << 16)
            except socket.timeout:
                raise TimeoutError(f"nothing from QEMU within {deadline:g} s") from None
            if not received:
                raise ConnectionError("QEMU closed the monitor")
            self.buffer += received
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def execute(self, command, deadline=DEADLINE, **arguments):
        """The command's return value; underscores in the names of arguments stand for hyphens."""
        arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.send({"execute": command, "arguments": arguments}, deadline)

    def send(self, message, deadline=DEADLINE):
        with self.lock:
            self.socket.sendall(json.dumps(message).encode() + b"\r\n")
            while True:
                answer = self._read(deadline)
                if "event" in answer:
                    self.events.append(answer)
                elif "error" in answer:
                    raise QmpError(answer["error"])
                else:
                    return answer["return"]

    def human(self, line, deadline=DEADLINE):
        """A line for the human monitor, where underscores are part of names."""
        return self.send({"execute": "human-monitor-command", "arguments": {"command-line": line}}, deadline)

    def wait_event(self, name, deadline=DEADLINE, **data):
        """Takes the first event of this name with these data, among those that came already or will come."""
        data = {key.replace("_", "-"): value for key, value in data.items()}

        def fits(event):
            return event["event"] == name and data.items() <= event.get("data", {}).items()

        end = time.monotonic() + deadline
        with self.lock:
            while True:
                for event in self.events:
                    if fits(event):
                        self.events.remove(event)
                        return event
                answer = self._read(end - time.monotonic())
                if "event" in answer:
                    self.events.append(answer)

    def close(self):
        self.socket.close()
