# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon on this bus: kill it, let it kill itself at a step, start it again on the same state."""

import os
import signal
import subprocess

from kit.bus import NAME
from kit.waiting import DEADLINE, wait_until

# What a sanitizer or GLib says when something is wrong inside, whatever the clients see.
FAULTS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:", "CRITICAL **", "ERROR **",
          "-CRITICAL", "GLib-WARNING")

# Of the environment variables of a build with test points.
POINTS = "BLOCKJOBD_TEST_"


class Log:
    """What the daemon says on its standard error, where tests/with-service keeps it."""

    def __init__(self):
        self.path = os.environ.get("BLOCKJOBD_LOG")

    def size(self):
        return os.path.getsize(self.path) if self.path and os.path.exists(self.path) else 0

    def since(self, position):
        if not self.path or not os.path.exists(self.path):
            return ""
        with open(self.path, errors="replace") as log:
            log.seek(position)
            return log.read()

    def assert_no_faults(self, position):
        bad = [line for line in self.since(position).splitlines() if any(fault in line for fault in FAULTS)]
        assert not bad, "the daemon reported faults:\n" + "\n".join(bad)


class Service:
    def __init__(self, client):
        self.client = client
        self.log = Log()
        self.processes = []
        # Whether the current test ended a daemon itself; otherwise its end is the daemon's fault.
        self.disturbed = False
        # How the daemon that runs was told to behave in other ways than it does for everybody.
        self.points = {}
        self.settings = None

    @property
    def state_directory(self):
        return os.environ["BLOCKJOBD_STATE"]

    def pid(self):
        return self.client.driver("GetConnectionUnixProcessID", "(s)", NAME)[0]

    def owned(self):
        return bool(self.client.name_owner())

    def alive(self):
        return self.owned() and os.path.exists(f"/proc/{self.pid()}")

    def wait_gone(self, deadline=DEADLINE):
        wait_until(lambda: not self.owned(), "the daemon to leave the bus", deadline)

    def kill(self):
        """SIGKILL: no goodbye."""
        self.disturbed = True
        if self.owned():
            os.kill(self.pid(), signal.SIGKILL)
            self.wait_gone()

    def terminate_later(self, pid):
        """SIGTERM: the orderly stop."""
        self.disturbed = True
        os.kill(pid, signal.SIGTERM)

    def terminate(self):
        self.terminate_later(self.pid())
        self.wait_gone()

    def launch(self, state_directory=None, variables=None, settings=None, **points):
        """Starts the daemon without waiting for anything; where it shall have a state of its own, on that.

        variables: more for its environment. settings: the text of its configuration file. points: stop_at, wait_at,
        trace and omit, as src/base/test-point.h has them.
        """
        self.disturbed = True
        if not self.owned():
            # One that was killed keeps its lock on the state until its last sync is over.
            for process in self.processes:
                process.wait(DEADLINE)
        self.points = {name: value for name, value in points.items() if value is not None}
        environment = {name: value for name, value in os.environ.items() if not name.startswith(POINTS)}
        self.settings = settings
        environment |= {POINTS + name.upper(): value for name, value in self.points.items()} | (variables or {})
        command = os.environ["BLOCKJOBD"]
        if state_directory:
            command += f" --state-dir '{state_directory}'"
        process = self._spawn(command + self._configuration(settings), environment)
        self.processes.append(process)
        return process

    def start(self, state_directory=None, deadline=DEADLINE, **points):
        """Starts the daemon and waits for the name, which it takes when it is ready."""
        process = self.launch(state_directory, **points)
        wait_until(lambda: self.owned() or process.poll() is not None, "the daemon to take its name", deadline)
        assert process.poll() is None, f"the daemon ended at its start with {process.returncode}"
        if self.points:
            with open(f"/proc/{self.pid()}/exe", "rb") as binary:
                assert f"{POINTS}STOP_AT".encode() in binary.read(), "this build has no -Dtest_points=true"
        return process

    def restart(self, **points):
        self.kill()
        return self.start(**points)

    def wait_stopped(self, pid, deadline=DEADLINE):
        """The daemon stands at the point that wait_at names; resume() lets it go on."""
        def state():
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rsplit(")", 1)[1].split()[0]
        wait_until(lambda: state() == "T", "the daemon to stop at its point", deadline)

    def resume(self, pid):
        os.kill(pid, signal.SIGCONT)

    def settle_later(self, settings=None):
        """Starts blockjobd --settle, which the unit runs after the daemon's end."""
        return self._spawn(os.environ["BLOCKJOBD"] + " --settle" + self._configuration(settings), dict(os.environ))

    def settle(self, deadline=DEADLINE, settings=None):
        """Runs it to its end; its exit status."""
        return self.settle_later(settings).wait(deadline)

    def _configuration(self, settings):
        """Arguments for a configuration file with this text."""
        if settings is None:
            return ""
        path = f"{os.environ['BLOCKJOBD_IMAGES']}.conf"
        with open(path, "w") as file:
            file.write(settings)
        return f" --config '{path}'"

    def _spawn(self, command, environment):
        # What the command says goes where the first daemon's output goes.
        with open(self.log.path or os.devnull, "ab") as output:
            return subprocess.Popen(["/bin/sh", "-c", f"exec {command}"], env=environment, stdin=subprocess.DEVNULL,
                                    stdout=output, stderr=output, start_new_session=True)

    def ensure(self):
        """A daemon without kill points and with the usual settings, as every test may expect to find it."""
        if not self.owned():
            self.start()
        elif self.points or self.settings is not None:
            self.restart()

    def stop_own(self):
        """Ends what was started here; a daemon that ends in order has status 0, leaks included."""
        statuses = []
        for process in self.processes:
            if process.poll() is None:
                if self.owned():
                    os.kill(self.pid(), signal.SIGTERM)
                process.wait(DEADLINE)
                statuses.append(process.returncode)
        assert all(status == 0 for status in statuses), f"the daemon's end: {statuses}"
