# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asks the service for a sign of life over and over, in a process of its own: within a test that keeps an interpreter
busy, what was measured would be that interpreter."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time

PAUSE = 0.05  # seconds between two of them


def ping_until_told():
    """Runs in a process; the end of standard input is the word."""
    from kit.bus import ROOT, Client

    client, times = Client(listen=False), []
    print("", flush=True)
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        start = time.monotonic()
        client.call(ROOT, "org.freedesktop.DBus.Peer", "Ping")
        times.append(time.monotonic() - start)
    print(json.dumps(times))


@contextlib.contextmanager
def pinged():
    """Gives a list, which holds the seconds that each Ping took when the block is left."""
    directory = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    process = subprocess.Popen([sys.executable, "-m", "kit.pinger"], cwd=directory, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    times = []
    with process:
        process.stdout.readline()  # it has begun
        try:
            yield times
        finally:
            output, _ = process.communicate()
            assert process.returncode == 0, "a Ping was not answered"
            times += json.loads(output)


if __name__ == "__main__":
    ping_until_told()
