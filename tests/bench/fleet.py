#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many domains of one shape: two disks each, a chain of five layers on each disk.

The first are real QEMUs, as many as memory allows. The others are fakes: one process, in which one loop serves all
their monitors with what a real QEMU of the same shape has answered, with the directory, the name and the UUID of each
put in. Nothing polls. Their images are files like those of the real ones; the names of nodes are the same in each QEMU,
real or not.

A fake answers at once, while QEMU reads a command byte by byte in turns of its main loop; and it runs no job.

usage, as a program: fleet.py DIRECTORY FIRST END: plays those fakes until its standard input ends
"""

import json
import os
import selectors
import subprocess
import sys
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

from bench.common import milliseconds
from kit.bus import ROOT
from kit.images import KIB, MIB, Chain, Layer
from kit.qemu import Machine, listening_socket

LAYERS, TARGETS = 5, ("vda", "vdb")
REAL = 100  # a QEMU takes about 40 MiB
BLOCK = 4 * KIB
AT_ONCE = 64  # calls under way; the bus lets a connection wait for no more than 128

# What the service asks a QEMU that has no job.
ASKED = {"query-name": {}, "query-qmp-schema": {}, "query-uuid": {}, "query-status": {}, "query-jobs": {},
         "query-block-jobs": {}, "query-block": {}, "query-named-block-nodes": {"flat": True},
         "x-debug-query-block-graph": {}}


# Images

def new_chains(directory):
    """Their backing strings are relative, so that they can be copied together."""
    for target in TARGETS:
        chain = Chain(directory, target)
        for layer in range(LAYERS):
            backing = f"{target}-{layer - 1}.qcow2" if layer else None
            chain.add([(layer + 1, layer * 64 * KIB, 64 * KIB)], size=MIB, backing=backing)
        yield target, chain


def runs_of(data):
    """[(offset, bytes)]: what of a file is not zeros."""
    runs = []
    for offset in range(0, len(data), BLOCK):
        block = data[offset:offset + BLOCK]
        if not block.strip(b"\0"):
            continue
        if runs and runs[-1][0] + len(runs[-1][1]) == offset:
            runs[-1] = (runs[-1][0], runs[-1][1] + block)
        else:
            runs.append((offset, block))
    return runs


class Images:
    """The images of one domain, made once and copied for each: qemu-img would take minutes for 10,000."""

    def __init__(self, directory):
        os.mkdir(directory)
        self.files = {}
        self.chains = dict(new_chains(directory))
        for chain in self.chains.values():
            for layer in chain.layers:
                with open(layer.path, "rb") as file:
                    data = file.read()
                self.files[os.path.basename(layer.path)] = (len(data), runs_of(data))

    def copy(self, directory):
        """The copied chains, by target."""
        os.mkdir(directory)
        for name, (size, runs) in self.files.items():
            with open(os.path.join(directory, name), "wb") as file:
                for offset, data in runs:
                    file.seek(offset)
                    file.write(data)
                file.truncate(size)
        copies = {}
        for target, chain in self.chains.items():
            copies[target] = Chain(directory, target)
            copies[target].contents = chain.contents
            for layer in chain.layers:
                path = os.path.join(directory, os.path.basename(layer.path))
                copies[target].layers.append(Layer(path, layer.format, layer.size))
        return copies


# The fleet

def name_of(number):
    return f"many{number}"


def monitor_of(directory, number):
    return f"{directory}/{name_of(number)}/{name_of(number)}.monitor"


def recording_path(directory):
    return f"{directory}/recording.json"


class Fleet:
    def __init__(self, directory, machines, real=REAL):
        """machines: where the real ones go, as bench_directory has it."""
        self.directory, self.machines, self.real = directory, machines, real
        self.images = Images(f"{directory}/made-once")
        self.count = 0
        self.players = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for player in self.players:
            player.stdin.close()
            player.wait()

    def grow(self, count):
        """Domains up to this count are there afterwards, not attached."""
        first_fake = max(self.count, self.real)
        while self.count < count:
            chains = self.images.copy(f"{self.directory}/{name_of(self.count)}")
            if self.count < self.real:
                self._start_real(chains)
            self.count += 1
        if first_fake < self.count:
            self._start_fakes(first_fake, self.count)

    def _start_real(self, chains):
        machine = Machine(f"{self.directory}/{name_of(self.count)}", name_of(self.count))
        for target, chain in chains.items():
            machine.add_virtio(chain, target)
        self.machines.append(machine.start())

    def _start_fakes(self, first, end):
        if not os.path.exists(recording_path(self.directory)):
            with open(recording_path(self.directory), "w") as file:
                json.dump(record(self.machines[0]), file)
        player = subprocess.Popen([sys.executable, os.path.realpath(__file__), self.directory, str(first), str(end)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.players.append(player)
        assert player.stdout.readline() == b"serving\n", "the fakes do not serve"

    def members(self):
        """[(name, its monitor)]"""
        return [(name_of(number), monitor_of(self.directory, number)) for number in range(self.count)]

    def title(self):
        fakes = max(0, self.count - self.real)
        return f"{self.count:,} domain{'s' if self.count > 1 else ''}" + (f" ({fakes:,} fake)" if fakes else "")


def attach_message(wire, name, monitor):
    return wire.message(ROOT, "Manager", "AttachDomain", "(ssa{sv})", name, monitor, {})


def attach_all(wire, members, at_once=AT_ONCE):
    """ms"""
    messages = [attach_message(wire, *member) for member in members]
    return milliseconds(lambda: wire.call_all(messages, at_once))


# Fakes

def record(machine):
    answers = {command: machine.qmp.send({"execute": command, "arguments": arguments})
               for command, arguments in ASKED.items()}
    return {"name": machine.name, "directory": f"{machine.directory}/", "uuid": machine.uuid,
            "greeting": json.dumps(machine.qmp.greeting),
            "answers": {command: json.dumps(answer) for command, answer in answers.items()}}


class Fake:
    """One monitor: a listening socket, and the connections that were made to it."""

    def __init__(self, recording, directory, number):
        self.recording = recording
        self.replacements = {recording["directory"]: f"{directory}/{name_of(number)}/",
                             f'"{recording["name"]}"': f'"{name_of(number)}"', recording["uuid"]: str(uuid.uuid4())}
        self.listener = listening_socket(monitor_of(directory, number))

    def accept(self, selector):
        connection, _ = self.listener.accept()
        connection.sendall(self.recording["greeting"].encode() + b"\r\n")
        buffer = bytearray()
        selector.register(connection, selectors.EVENT_READ, lambda: self._read(connection, buffer, selector))

    def _read(self, connection, buffer, selector):
        try:
            received = connection.recv(1 << 16)
            buffer += received
            *lines, rest = buffer.split(b"\n")
            buffer[:] = rest
            for line in lines:
                if line.strip():
                    connection.sendall(self._answer(json.loads(line)))
        except (ConnectionError, BrokenPipeError):
            received = b""
        if not received:
            selector.unregister(connection)
            connection.close()

    def _answer(self, message):
        command, identity = message["execute"], json.dumps(message.get("id"))
        if command == "qmp_capabilities":
            answer = "{}"
        elif command in self.recording["answers"]:
            answer = self.recording["answers"][command]
            for old, new in self.replacements.items():
                answer = answer.replace(old, new)
        else:
            error = json.dumps({"class": "CommandNotFound", "desc": f"a fake does not know {command}"})
            return f'{{"error": {error}, "id": {identity}}}\r\n'.encode()
        return f'{{"return": {answer}, "id": {identity}}}\r\n'.encode()


def play(directory, first, end):
    with open(recording_path(directory)) as file:
        recording = json.load(file)
    with selectors.DefaultSelector() as selector:
        for number in range(first, end):
            fake = Fake(recording, directory, number)
            selector.register(fake.listener, selectors.EVENT_READ, lambda fake=fake: fake.accept(selector))
        selector.register(sys.stdin, selectors.EVENT_READ, sys.exit)
        print("serving", flush=True)
        while True:
            for key, _ in selector.select():
                key.data()


if __name__ == "__main__":
    play(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
