# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who counts the signals of jobs in long runs, and what a process holds meanwhile."""

import contextlib
import os
import resource
import statistics
import time
from collections import Counter

from gi.repository import Gio

from kit.bus import NAME, Client

SIGNALS = ("JobNew", "Ready", "Completed", "JobRemoved")


class CountingClient(Client):
    """Keeps no more of the signals of jobs than how often each came, and how the job ended: the log of a usual client
    would hold all of a long run, and be searched from its start."""

    def __init__(self, *signals):
        self.counts = {name: Counter() for name in signals or SIGNALS}  # of each: path → how often
        self.ends = {}  # path → the arguments of Completed
        super().__init__(listen=False)
        for name in self.counts:
            self.driver("AddMatch", "(s)", f"type='signal',sender='{NAME}',member='{name}'")

    def _hear(self, connection, message, incoming, *_):
        if incoming and message.get_message_type() == Gio.DBusMessageType.SIGNAL:
            member = message.get_member()
            if member in self.counts:
                self._count(member, message.get_path(), message.get_body())
        return message

    def _count(self, member, path, body):
        arguments = body.unpack() if body else ()
        with self.news:
            self.counts[member][arguments[1] if member in ("JobNew", "JobRemoved") else path] += 1
            if member == "Completed":
                self.ends[path] = arguments
            self.news.notify_all()

    def heard_of(self, path, member, seconds=0.0):
        """Whether the signal has come, within this time at the latest."""
        with self.news:
            return self.news.wait_for(lambda: self.counts[member][path], seconds) > 0

    def end_of(self, path, seconds):
        """The result of the job, None where it has not come within this time."""
        return self.ends[path][0] if self.heard_of(path, "Completed", seconds) else None


def descriptors(pid):
    """What each open descriptor of the process is."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            pass  # closed meanwhile
    return found


def allocated(pid):
    """KiB of memory that no file stands behind. How much of its program is counted as a process's own depends on
    who else runs that program."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def free_numbers(pid):
    """Of descriptors that can be opened there, the lowest first."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return [number for number in range(2 * len(taken) + 100) if number not in taken]


@contextlib.contextmanager
def descriptors_at_most(pid, count):
    """No descriptor with a number from this on can be opened there."""
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, usual[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def recorded(service, kind):
    """Of what the daemon has a record that outlives it; kind: "jobs" or "domains". One record is up to two files."""
    return {name.split(".")[0] for name in os.listdir(f"{service.state_directory}/{kind}")}


class Samples:
    """Figures of a process over time; measure gives some at once."""

    def __init__(self, measure):
        self.measure = measure
        self.start = time.monotonic()
        self.taken = []  # (seconds since the start, figures)

    def seconds(self):
        return time.monotonic() - self.start

    def take(self):
        self.taken.append((self.seconds(), self.measure()))

    def medians(self, begin, end):
        """Of each figure that was taken between these two times."""
        taken = [values for when, values in self.taken if begin <= when <= end]
        assert taken, f"nothing was measured between {begin:g} and {end:g} s"
        return [statistics.median_low(values) for values in zip(*taken)]
