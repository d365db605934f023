# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many clients at once that read, start jobs and meddle with those of others, and a model of what must come of it."""

import contextlib
import os
import random
import threading
import time
from collections import Counter

from kit import images
from kit.bus import NAME, OBJECT_MANAGER, PROPERTIES, ROOT, BusError, options
from kit.counting import CountingClient
from kit.images import KIB, MIB, Layer
from kit.objects import Disk, Job, Manager

SIZE = 4 * MIB
SLOW = MIB  # bytes a second: so that some jobs last, and there is something to meddle with
DEPTH = 6  # of a chain, from which on it is made shorter
THINKING = 0.5  # seconds at most between two calls of a client
JOB_SECONDS = 120.0

# What a caller may hear who is not the only one: the job has ended, or it is not that far, or the disk is taken. An
# object that is gone is unknown to sd-bus.
GONE = ("NoSuchJob", "org.freedesktop.DBus.Error.UnknownObject")
ENDED = (*GONE, "NotActive", "NotReady", "InvalidState")
TAKEN = ("JobActive",)
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"


class Place:
    """A machine and what its guest's disk holds. No job changes that, whatever becomes of it."""

    def __init__(self, lab, number):
        self.directory = f"{lab.directory}/{number}"
        os.mkdir(self.directory, 0o755)
        chain = images.Chain(self.directory).add([(1, 0, 2 * MIB)], size=SIZE).add([(2, MIB, 2 * MIB)])
        self.machine = lab.machine().add_virtio(chain).start()
        self.contents = chain.contents[-1]
        self.domain_path = lab.attach(self.machine).path
        self.disk_path = lab.domain_of(self.machine).disk("vda").path
        self.turn = threading.Lock()      # whose it is starts jobs
        self.starting = threading.Lock()  # the guest does not write while anybody could start one: see Machine.write
        self.job = None                   # path of one that may be under way
        self.files = 0

    def new_path(self):
        self.files += 1
        return f"{self.directory}/file{self.files}.qcow2"

    def write(self):
        length = random.choice((64, 192)) * KIB
        self.machine.write("vda", random.randrange(1, 256), random.randrange((SIZE - length) // KIB) * KIB, length)

    def tidy(self, sources):
        """Images that are no part of the disk any more."""
        for name in os.listdir(self.directory):
            path = f"{self.directory}/{name}"
            if path not in sources:
                os.unlink(path)

    def assert_right(self, client):
        """QEMU, the bus and the images say the same of the disk, and nothing of any job is left over."""
        disk = Disk(client, self.disk_path)
        sources = disk.sources()
        assert disk["Job"] == "/" and self.machine.jobs() == {}
        assert disk["Source"] == sources[0] == self.machine.active_file("vda")
        # Each layer is its format's node and that of its file.
        assert sorted(node["file"] for node in self.machine.nodes().values()) == sorted(2 * sources)
        self.machine.quit()
        for layer in disk["Chain"]:
            images.assert_sound(Layer(layer["source"], layer["format"], SIZE))
        images.assert_contents(Layer(sources[0], "qcow2", SIZE), self.contents)


class Kind:
    """A way to start a job. copies: what comes of it is an image with what the disk holds."""

    def __init__(self, member, two_phase=False, snapshot=False, copies=(), depth=1, **values):
        self.member, self.two_phase, self.snapshot = member, two_phase, snapshot
        self.copies, self.depth, self.values = copies, depth, values

    def start(self, disk, place, **more):
        values = options({**self.values, **more})
        if self.member in ("Copy", "Backup"):
            path, = disk.call(self.member, "(sa{sv})", place.new_path(), values)
        else:
            path, = disk.call(self.member, "(a{sv})", values)
        return path


KINDS = [
    Kind("Commit", two_phase=True, snapshot=True, copies=("kept",), depth=2, active=True),
    Kind("Commit", two_phase=True, snapshot=True, copies=("kept",), depth=2, active=True, shallow=True),
    Kind("Commit", snapshot=True, depth=2, auto="pivot", shallow=True),
    Kind("Commit", snapshot=True, depth=2, auto="pivot"),
    Kind("Commit", snapshot=True, copies=("kept",), depth=2, auto="keep"),
    Kind("Commit", depth=3, top="[1]"),
    Kind("Copy", two_phase=True, copies=("kept", "completed")),
    Kind("Copy", copies=("kept",), auto="keep"),
    Kind("Backup", copies=("completed",)),
    Kind("Pull", depth=2),
]
SHORTENING = [kind for kind in KINDS if kind.member == "Pull" or kind.values == {"auto": "pivot"}]


class Member(threading.Thread):
    """One client, with a connection of its own."""

    def __init__(self, crowd, number):
        super().__init__(name=f"client {number}", daemon=True)
        self.crowd = crowd
        self.client = CountingClient()
        self.manager = Manager(self.client)
        self.errors = Counter()  # (what was called, error) → how often
        self.calls = 0
        self.slowest = (0.0, "")
        # The same choices in each run, as far as the threads come to them in the same order.
        self.random = random.Random(number)

    def run(self):
        try:
            while not self.crowd.ending.wait(self.random.uniform(0, THINKING)):
                self.do_something(self.random.choice(self.crowd.places))
        except Exception as fault:  # whatever it is, the test says so in its own thread
            self.crowd.faults.append((self.name, fault))
            self.crowd.ending.set()

    def do_something(self, place):
        if self.random.random() < 0.5 and place.turn.acquire(blocking=False):
            try:
                self.start_job(place)
            finally:
                place.turn.release()
        elif place.job and self.random.random() < (0.1 if self.client.end_of(place.job, 0) else 0.6):
            self.meddle(place)
        else:
            self.read(place)

    def attempt(self, call, *arguments, allowed=()):
        """What the call gives, None where it was refused as it may be."""
        name = arguments[2] if call == self.look else f"{call.__self__.__class__.__name__}.{call.__name__}"
        start = time.monotonic()
        try:
            return call(*arguments)
        except BusError as error:
            assert error.short in allowed, f"{name}{arguments}: {error}"
            self.errors[name, error.short] += 1
            return None
        finally:
            self.calls += 1
            self.slowest = max(self.slowest, (time.monotonic() - start, name))

    # One's own job.

    def start_job(self, place):
        disk = Disk(self.client, place.disk_path)
        with place.starting:
            depth = len(disk.sources())
            kind = self.random.choice(SHORTENING if depth >= DEPTH else KINDS)
            if kind.snapshot:
                disk.snapshot(place.new_path())
                depth += 1
            place.write()
            if depth < kind.depth:
                return
            path = self.crowd.begun(kind.start(disk, place, speed=self.random.choice((0, SLOW))), place)
        self.see_to_end(kind, Job(self.client, path))
        # Who reads an image here has locks on it, on account of which another job would be refused.
        with place.starting:
            self.check_copy(kind, Job(self.client, path), place)
            place.tidy(disk.sources())

    def see_to_end(self, kind, job):
        """Others pause it, slow it down, end it. What nobody has ended is ended here."""
        start = time.monotonic()
        ending = self.random.choice((job.pivot, job.pivot, job.abort))
        while not self.client.end_of(job.path, self.random.uniform(0.2, 1)):
            assert time.monotonic() - start < JOB_SECONDS, f"{job.path} does not end: {job.all()}"
            self.attempt(job.resume, allowed=ENDED)
            self.attempt(job.set_speed, 0, allowed=ENDED)
            if kind.two_phase:
                self.attempt(ending, allowed=ENDED)

    def check_copy(self, kind, job, place):
        """The guest does not write while it is one's turn: what was copied is what the disk holds."""
        if self.client.end_of(job.path, 0) in kind.copies:
            images.assert_contents(Layer(job["Target"], "qcow2", SIZE), place.contents)

    # The jobs of others.

    def meddle(self, place):
        job = Job(self.client, place.job)
        way = self.random.choice((self.pause, self.speed, self.pivot, self.abort, self.start_another))
        way(job, place)

    def pause(self, job, place):
        if self.attempt(job.pause, allowed=ENDED) is None:
            return
        self.attempt(job.resume, allowed=ENDED)

    def speed(self, job, place):
        self.attempt(job.set_speed, self.random.choice((64 * KIB, MIB, 0)), allowed=ENDED)

    def pivot(self, job, place):
        self.attempt(job.pivot, allowed=ENDED)

    def abort(self, job, place):
        if self.random.random() < 0.2:
            self.attempt(job.abort, allowed=ENDED)

    def start_another(self, job, place):
        """Refused as long as there is one; where that has just ended it is a job like any other."""
        if not place.starting.acquire(blocking=False):
            return
        try:
            disk = Disk(self.client, place.disk_path)
            kind = Kind("Commit", auto="keep", shallow=True)
            path = self.attempt(kind.start, disk, place, allowed=(*TAKEN, "InvalidArgument"))
            if path:
                self.see_to_end(kind, Job(self.client, self.crowd.begun(path, place)))
        finally:
            place.starting.release()

    # Reading.

    def read(self, place):
        """Mostly without a look at what is said: to take all apart, of a hundred clients, is slower than to say it."""
        name, disk, domain = place.machine.name, place.disk_path, place.domain_path
        reads = [(disk, PROPERTIES, "GetAll", "(s)", f"{NAME}.Disk"), (disk, "Disk", "Map", "(a{sv})", {}),
                 (domain, PROPERTIES, "GetAll", "(s)", f"{NAME}.Domain"), (domain, INTROSPECTABLE, "Introspect"),
                 (ROOT, PROPERTIES, "GetAll", "(s)", f"{NAME}.Manager"), (ROOT, OBJECT_MANAGER, "GetManagedObjects"),
                 (ROOT, "Manager", "GetDomain", "(s)", name), (ROOT, "Manager", "ListJobs", "(a{sv})", {}),
                 (ROOT, "Manager", "ListJobs", "(a{sv})", options({"domain": name, "state": "concluded"}))]
        if self.crowd.recent:
            job = self.random.choice(self.crowd.recent)
            reads += [(job, PROPERTIES, "GetAll", "(s)", f"{NAME}.Job"),
                      (ROOT, "Manager", "GetJob", "(s)", os.path.basename(job))] * 4
        self.attempt(self.look, *self.random.choice(reads), allowed=(*GONE, *TAKEN))

    def look(self, *call):
        self.client.call_message(self.client.message(*call))


class Crowd:
    def __init__(self, lab, machines):
        self.places = [Place(lab, number) for number in range(machines)]
        self.ending = threading.Event()
        self.faults = []
        self.lock = threading.Lock()
        self.started = {}  # path of each job that was replied to → its place
        self.recent = []
        self.members = []

    def begun(self, path, place):
        with self.lock:
            self.started[path] = place
            self.recent = [*self.recent[-100:], path]
        place.job = path
        return path

    @contextlib.contextmanager
    def at_work(self, clients):
        """So many clients do what they like until the block is left."""
        self.members = [Member(self, number) for number in range(clients)]
        for member in self.members:
            member.start()
        try:
            yield
        finally:
            self.ending.set()
            for member in self.members:
                member.join(2 * JOB_SECONDS)
        assert not [member.name for member in self.members if member.is_alive()]
        assert not self.faults, f"{self.faults[0][0]} of {len(self.faults)}: {self.faults[0][1]!r}"

    def assert_all_heard(self):
        """Every client has heard of each job that it is there, that it has ended, and how, each once."""
        once = {path: 1 for path in self.started}
        for member in self.members:
            member.manager.all()  # behind all the signals
            counts = member.client.counts
            for name in ("JobNew", "Completed", "JobRemoved"):
                assert counts[name] == once, f"{member.name}, {name}: {differences(counts[name], once)}"
            assert set(counts["Ready"].values()) <= {1}
            assert member.client.ends == self.members[0].client.ends

    def results(self):
        return Counter(arguments[0] for arguments in self.members[0].client.ends.values())

    def assert_listed(self, manager, kept):
        """The last jobs of each domain are held, with the result that Completed told."""
        ends = self.members[0].client.ends
        for place in self.places:
            listed = manager.jobs(domain=place.machine.name)
            started = [path for path, where in self.started.items() if where is place]
            assert len(listed) == min(kept, len(started)), f"{len(listed)} of {len(started)} jobs are held"
            for job in listed:
                assert job["State"] == "concluded" and job["Path"] in started
                assert (job["Result"], *job["Error"]) == ends[job["Path"]]

    def held(self, manager):
        return {job["Id"] for job in manager.jobs()}

    def errors(self):
        return sum((member.errors for member in self.members), Counter())

    def figures(self, seconds):
        calls = sum(member.calls for member in self.members)
        slowest, what = max(member.slowest for member in self.members)
        return (f"{len(self.members)} clients, {len(self.places)} machines, {seconds:.0f} s: {calls} calls, "
                f"{len(self.started)} jobs {dict(self.results())}, the slowest call {slowest:.2f} s ({what}), "
                f"refused: {({' '.join(key): count for key, count in self.errors().items()})}")

    def close(self):
        for member in self.members:
            member.client.close()


def differences(found, expected):
    missing = [path for path in expected if path not in found]
    return f"{len(missing)} missing, {[(path, count) for path, count in found.items() if count != 1][:5]}"
