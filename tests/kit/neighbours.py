# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QEMU in trouble, and how long everybody else has to wait meanwhile."""

import contextlib
import signal
import statistics
import threading
import time

from kit import images

# What a read may take at most, whatever happens to a QEMU.
READ_SECONDS = 0.5


@contextlib.contextmanager
def stopped(*machines):
    """QEMUs that do not run: nothing is answered, and nothing is closed."""
    for machine in machines:
        machine.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for machine in machines:
            machine.process.send_signal(signal.SIGCONT)


def when_it_runs(machine, command, **arguments):
    """Gives a command to a QEMU that is stopped now: it is the first thing it does when it goes on."""
    thread = threading.Thread(target=machine.qmp.execute, args=(command,), kwargs={"deadline": 60, **arguments},
                              daemon=True)
    thread.start()
    return thread


class Neighbour:
    """A machine with nothing wrong, on which one small commit after another can be timed."""

    def __init__(self, lab):
        self.lab = lab
        self.machine, self.chain, self.disk = lab.standard(images.two_layers(lab.directory, "neighbour"))
        self.count = 0

    def commit(self):
        """The seconds from the call to the job's Completed."""
        self.count += 1
        self.machine.snapshot("vda", f"{self.lab.directory}/neighbour-over-{self.count}.qcow2")
        start = time.monotonic()
        job = self.disk.commit(shallow=True, auto="pivot")
        job.wait_completed()
        seconds = time.monotonic() - start
        job.wait_completed("completed")
        # Finished jobs are listed for long, and what lists them all would get slower from test to test.
        job.dismiss()
        return seconds

    def measure(self, commits=5):
        return statistics.median(self.commit() for _ in range(commits))

    def assert_not_delayed(self, disturbed, room=0.1):
        """Against what a commit takes now that nothing is wrong any more. More room is for a QEMU that needs a
        processor for itself, of which a machine may have few."""
        quiet = self.measure()
        assert disturbed < 3 * quiet + room, f"a commit took {disturbed:.3f} s, {quiet:.3f} s undisturbed"


def assert_reads_answered(lab, *objects):
    """Every way to read answers at once, of these objects and of everything."""
    # What earlier tests have left in the lists is not the trouble that is measured.
    for entry in lab.manager.jobs(state="concluded"):
        lab.manager.job(entry["Id"]).dismiss()
    reads = {"GetManagedObjects": lab.client.managed_objects, "ListJobs": lab.manager.jobs}
    for thing in objects:
        reads[f"GetAll of {thing.path}"] = thing.all
        reads[f"Get of {thing.path}"] = lambda thing=thing: thing["State" if thing.interface != "Disk" else "Source"]
    for name, read in reads.items():
        times = []
        for _ in range(3):
            start = time.monotonic()
            read()
            times.append(time.monotonic() - start)
        assert statistics.median(times) < READ_SECONDS, f"{name} took {times} s"


def resident(pid):
    """KiB of memory that the process has."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
