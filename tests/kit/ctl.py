# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockjobctl as somebody at a prompt runs it: what it prints, and its exit status."""

import json
import os
import re
import signal
import subprocess
import threading
from typing import NamedTuple

from kit.objects import Job
from kit.waiting import DEADLINE, wait_until

DONE, ERROR, USAGE, KEPT, CANCELLED, FAILED, LOST, PIVOTED, REFUSED, NO_SERVICE, INTERRUPTED = range(11)


def environment(**variables):
    """That of a terminal in which nothing is set, with the sanitizers strict; None takes a variable away."""
    mine = {name: value for name, value in os.environ.items()
            if name in ("PATH", "DBUS_SYSTEM_BUS_ADDRESS", "HOME")}
    # the leak detector does not see through GLib's slices
    mine |= {"LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "xterm", "G_SLICE": "always-malloc", **variables}
    return {name: value for name, value in mine.items() if value is not None}


def command(*words, user=None):
    before = ["setpriv", f"--reuid={user}", "--clear-groups", "--"] if user else []
    return [*before, "blockjobctl", *map(str, words)]


def name_of(machine):
    """Of its first disk, as one types it."""
    return f"{machine.name}/vda"


def running_job(lab, disk):
    """The job of the disk, as soon as there is one."""
    return Job(lab.client, lab.client.wait_property(disk.path, "Disk", "Job", lambda path: path != "/"))


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def job(self):
        """The id in the first line of what is said about a job."""
        return re.search(r", job ([a-z0-9]+): ", self.out).group(1)


def ctl(*words, status=DONE, user=None, cwd=None, deadline=60, **variables):
    """Runs it to its end, which has to have this status."""
    done = subprocess.run(command(*words, user=user), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, cwd=cwd, timeout=deadline, env=environment(**variables))
    said = f"{' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.returncode == status, said
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, said
    return Done(done.returncode, done.stdout, done.stderr)


class Running:
    """One that is under way. What it says is kept as it comes."""

    def __init__(self, *words, user=None, **variables):
        self.process = subprocess.Popen(command(*words, user=user), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=environment(**variables))
        self.heard = {"out": b"", "err": b""}
        self.readers = [threading.Thread(target=self._read, args=(name, pipe), daemon=True)
                        for name, pipe in (("out", self.process.stdout), ("err", self.process.stderr))]
        for reader in self.readers:
            reader.start()

    def _read(self, name, pipe):
        while piece := pipe.read1():
            self.heard[name] += piece

    def text(self, name):
        return self.heard[name].decode(errors="replace")

    def wait_said(self, words, where="err", deadline=DEADLINE):
        wait_until(lambda: words in self.text(where) or self.process.poll() is not None, f"'{words}'", deadline)
        assert words in self.text(where), self.text("out") + self.text("err")

    def interrupt(self, number=signal.SIGINT):
        self.process.send_signal(number)

    def end(self, status, deadline=60):
        found = self.process.wait(deadline)
        for reader in self.readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        done = Done(found, self.text("out"), self.text("err"))
        assert found == status, f"exit {found}\n{done.out}{done.err}"
        assert "Sanitizer" not in done.err and "runtime error" not in done.err, done.err
        return done
