#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stands where journald stands, for one command: its standard error is the journal's stream, and what it sends in
the journal's own protocol is printed here as lines of JSON. A real journald runs only under systemd.

usage: unshare -m --propagation private tests/kit/journal.py COMMAND…   (as root)
"""

import json
import os
import select
import socket
import subprocess
import sys

JOURNAL = "/run/systemd/journal"


def fields(datagram):
    """The native protocol: NAME=value lines, or NAME, a 64-bit length and the value where it has line ends."""
    record = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            datagram = rest
        else:
            name, length = line, int.from_bytes(rest[:8], "little")
            value, datagram = rest[8:8 + length], rest[8 + length + 1:]
        record[name.decode()] = value.decode(errors="replace")
    return record


def listen(name, kind):
    server = socket.socket(socket.AF_UNIX, kind)
    server.bind(f"{JOURNAL}/{name}")
    return server


def main():
    os.makedirs("/run/systemd", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/systemd"], check=True)
    os.makedirs(JOURNAL)
    native, stream = listen("socket", socket.SOCK_DGRAM), listen("stdout", socket.SOCK_STREAM)
    stream.listen(1)
    end = socket.socket(socket.AF_UNIX)
    end.connect(f"{JOURNAL}/stdout")
    plain, _ = stream.accept()
    process = subprocess.Popen(sys.argv[1:], stderr=end, stdin=subprocess.DEVNULL)
    end.close()
    while True:
        readable, _, _ = select.select([native, plain], [], [])
        if native in readable:
            print(json.dumps(fields(native.recv(1 << 20))), flush=True)
        elif plain in readable and not plain.recv(1 << 16):
            break
    sys.exit(process.wait())


if __name__ == "__main__":
    main()
