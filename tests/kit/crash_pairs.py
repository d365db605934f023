# SPDX-License-Identifier: LGPL-2.1-or-later
"""Deaths in pairs: the service and QEMU, in either order, and the service twice. What must be true after any of them.

A point is a step of a job, or a step with a "+": what the step sent is on its way, and no answer has been read.
"""

import contextlib
import glob
import json
import os

from kit import images
from kit.bus import BusError
from kit.crash_walk import SIZE, Walk, steps_of
from kit.every_job import file_of_disk
from kit.images import MIB
from kit.objects import Job
from kit.waiting import wait_until

# Steps to which an undisturbed job of the kind does not come.
ABORT = {"record-decision", "ask"}
NOT_DUE = {
    "active-commit": set(),
    "pivoted-commit": {"decide", "delete"},
    "kept-commit": {"decide", "delete", "check-users"},
    "commit": ABORT | {"keep-top", "next-layer"},
    "copy": {"check-chain", "attach-chain"},
    "shallow-copy": {"decide", "check-chain"},
    "kept-copy": {"check-chain", "attach-chain", "check-users"},
    "pull": ABORT,
    "backup": ABORT | {"check-snapshot"},
    "snapshot": {"check-overlay"},
}
# Those of a second life, or after QEMU's end.
NEVER = {"begin", "compare-images"}


def points_of(kind):
    """All the points that an undisturbed job of the kind comes to, in order."""
    return [point for step in steps_of(kind) if step not in NOT_DUE[kind] | NEVER for point in (step, f"{step}+")]


class Pair(Walk):
    """A job that is disturbed at a point, and what its client and its guest do about it."""

    def __init__(self, lab, kind, point, **points):
        self.name = kind
        self.point = point
        self.serial = 0  # of the call
        super().__init__(lab, kind, point.rstrip("+"), **points)
        self.pid = lab.service.pid()

    # When it is.

    def place(self, step):
        """Of a step of the kind, in which order its points come; a "+" is half a step further."""
        return steps_of(self.name).index(step.rstrip("+")) + (0.5 if step.endswith("+") else 0)

    def is_from(self, step):
        return self.place(self.point) >= self.place(step)

    @property
    def guest_may_be_held(self):
        """A write would hang QEMU's monitor, or might."""
        return self.kind.two_phases and self.is_from("ask+") and not self.is_from("look")

    # What happens.

    def stands(self):
        """Whether the service stands still or is no more."""
        try:
            with open(f"/proc/{self.pid}/stat") as stat:
                return stat.read().rsplit(")", 1)[1].split()[0] in "TZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    def is_over(self):
        """Told, or nothing that anybody could be told of; or the service is no more there to say."""
        try:
            return bool(self._heard("Completed")) or self.disk["Job"] == "/"
        except BusError:
            return True

    def has_reply(self, serial):
        return any(heard.reply_serial == serial and heard.kind != "signal" for heard in self.lab.client.log)

    def _heard(self, member):
        return self.lab.client.heard(member=member, since=self.position)

    def run_until_it_stands(self):
        """The client does its part until the service is dead, or stopped, at the point."""
        self.serial = self.call()
        wait_until(lambda: self.has_reply(self.serial) or self.stands(), "a reply, or the point")
        if not self.stands() and self.kind.ends_by_hand:
            job = self.job_that_is_told()
            wait_until(lambda: self._heard("Ready") or self.stands(), "the job to get ready, or the point")
            if not self.stands():
                self.end_later(job)
        wait_until(self.stands, f"the point {self.point}")
        # Of a backup that is on its way it cannot be said whether it has the write.
        if not self.guest_may_be_held and (self.name, self.point) != ("backup", "start+"):
            self.write(10, 2 * MIB)
            if self.name != "snapshot" and not self.is_from("finalize" if self.kind.two_phases else "record-accepted"):
                self.copied = self.chain.contents[-1].copy()

    def kill_qemu(self):
        self.machine.kill()

    def resume(self):
        os.kill(self.pid, 18)  # SIGCONT

    def restart(self):
        self.lab.service.kill()
        self.lab.service.start()

    def let_the_client_act(self, process):
        """What the client does while a service recovers that is to die at some point of that, if it comes to it."""
        def is_dead():
            return process.poll() is not None

        wait_until(lambda: is_dead() or self.lab.service.owned(), "the service to come up, or its point")
        with contextlib.suppress(BusError):
            jobs = self.told_jobs()
            if jobs and self.kind.ends_by_hand:
                wait_until(lambda: is_dead() or jobs[0]["State"] in ("ready", "concluded"), "the job to go on")
                if not self._decision_is_known(jobs[0]):
                    self.lab.client.call_later(jobs[0].path, "Job", self.kind.ending, "(a{sv})", {})
            is_over = (lambda: self._heard("Completed")) if jobs else self.is_over
            wait_until(lambda: is_dead() or is_over(), "the job's end, or the point")
        self.lab.service.kill()

    # What there is afterwards.

    def told_jobs(self):
        """Of the jobs that anybody could hear or read of: the one, or none."""
        paths = {heard.arguments[1] for heard in self._heard("JobNew")}
        paths |= {listed["Path"] for listed in self.lab.manager.jobs(domain=self.machine.name)}
        assert len(paths) <= 1, paths
        return [Job(self.lab.client, path) for path in paths]

    def finish(self):
        """The job's end, which the client asks for again where nobody knows that it did. None: there is no job."""
        jobs = self.told_jobs()
        if not jobs:
            return None
        job, = jobs
        if self.kind.ends_by_hand and self.machine.running():
            wait_until(lambda: self._heard("Completed") or job["State"] in ("ready", "concluded"), "the job to go on")
            if not self._decision_is_known(job):
                self.end_by_hand(job)
        job.wait_completed()
        return job

    def _decision_is_known(self, job):
        return self._record("jobs", job["Id"])["decision"] != "" or job["State"] == "concluded"

    def _record(self, kind, name):
        """The newer one of the two that can be there, with its marks: src/journal/journal.h."""
        records = []
        for path in glob.glob(f"{self.lab.service.state_directory}/{kind}/{name}.json*"):
            with open(path) as file:
                records.append({member: value for line in file for member, value in json.loads(line).items()})
        return max(records, key=lambda record: record["sequence"])

    def results_of_dead_qemu(self, service_lived):
        """What a job can have come to when QEMU died at the point; None: nobody ever knew of it."""
        done = self.kind.result
        before, between = "lost", "lost"
        if self.kind.two_phases and done == "completed":
            between = "pivoted"
        if not self.is_from("record-accepted"):
            return {None} if not self.is_from("start+") else {None, before}
        if not self.is_from("announce"):
            return {None, before}
        if self.kind.two_phases and not self.is_from("record-target+"):
            # A service that lives hears that QEMU came to PENDING, where both images are equal, and records it.
            return {before, between} if service_lived and self.is_from("ask+") else {before}
        if self.point == "record-target+":
            return {before, between}
        if not self.is_from("look+"):
            # A service that lives may have read of the end already.
            return {between, done} if service_lived and self.is_from("finalize+") else {between}
        if not self.is_from("record-outcome+"):
            return {between, done} if service_lived else {between}
        return {between, done} if self.point == "record-outcome+" else {done}

    # What must be.

    def assert_told_once(self, job, results):
        result = job["Result"] if job else None
        assert result in results, f"{result} at {self.point}, and not one of {results}"
        completed = self._heard("Completed")
        assert [heard.path for heard in completed] == ([job.path] if job else []), completed
        if job:
            assert completed[0].arguments[0] == result
            record = self._record("jobs", job["Id"])
            assert record["result"] == result and record["told"] is True
        return result

    def source_by_result(self, result):
        if result in ("completed", "pivoted") and self.kind.target_is_disk:
            return self.target
        if result in ("completed", "pivoted") and self.kind.two_phases:
            return self.chain.base.path
        return self.chain.top.path

    def assert_dead(self, job, result):
        """By the records alone: the image that is named holds all that the guest was told is written."""
        assert self.disk["Job"] == "/"
        source = images.Layer(self.disk["Source"], "qcow2", SIZE)
        if self.name == "snapshot":
            assert source.path in (self.target, self.chain.top.path)
        else:
            assert source.path == self.source_by_result(result)
        # The job's record says it; the domain's follows.
        wait_until(lambda: self._record("domains", self.machine.name)["disks"][0]["chain"][0]["source"] == source.path,
                   "the domain's record to name it too")
        # Through all the backing files that the headers name: none is missing.
        images.assert_contents(source, self.chain.contents[-1])
        images.assert_uncorrupted(source)
        if result == "completed" and self.kind.has_target and not self.kind.target_is_disk:
            images.assert_contents(images.Layer(self.target, "qcow2", SIZE), self.copied)
        if result != "completed":
            missing = [path for path in self.chain.paths() if not os.path.exists(path)]
            assert not missing, f"removed by a job that is {result}: {missing}"
        return source

    def assert_next_machine(self, source):
        """The machine starts on the image that was named, and its disk takes a job."""
        successor = self.lab.machine(self.machine.name, suffix="-next")
        chain = images.Chain(self.lab.directory)
        chain.layers, chain.contents = [source], [self.chain.contents[-1]]
        successor.arguments += ["-drive", f"file={source.path},format=qcow2,if=none,id=vda-root",
                                "-device", "virtio-blk-pci,id=vda,drive=vda-root"]
        successor.chains["vda"], successor.write_names["vda"] = chain, "vda-root"
        successor.start()
        disk = self.lab.attach(successor).disk("vda")
        path = f"{self.lab.directory}/next.qcow2"
        disk.backup(path).wait_completed("completed")
        successor.quit()
        images.assert_contents(images.Layer(path, "qcow2", SIZE), self.chain.contents[-1])

    def assert_all_of_dead(self, service_lived):
        """Everything, after an end of QEMU at the point."""
        wait_until(lambda: self.lab.domain_of(self.machine)["State"] in ("crashed", "shutoff"), "the end to be seen")
        wait_until(lambda: self.has_reply(self.serial), "the call to be answered")
        job = self.finish()
        results = self.results_of_dead_qemu(service_lived) if self.name != "snapshot" else {None}
        result = self.assert_told_once(job, results)
        wait_until(lambda: self.disk["Job"] == "/", "the disk to be free")
        source = self.assert_dead(job, result)
        self.restart()
        assert self.disk["Source"] == source.path
        self.assert_told_once(job, {result})
        self.assert_next_machine(source)

    def assert_all_of_living(self):
        """Everything, after deaths of the service alone."""
        if self.name == "snapshot":
            self.assert_snapshot()
            return
        job = self.finish()
        if not job:
            assert not self.is_from("record-accepted"), f"the job was forgotten at {self.point}"
            self.assert_never_began()
            job = self.run_again()
        self.assert_told_once(job, {self.kind.result})
        self.assert_result(job)
        self.assert_next()
        self.assert_written()

    def assert_snapshot(self):
        """It was made, or it was not, and everybody says the same; no call was answered twice or told of as a job."""
        assert not self._heard("JobNew") and not self._heard("Completed")
        wait_until(lambda: self.disk["Job"] == "/", "the disk to be free")
        if self.disk["Source"] == self.target:
            assert self.is_from("record-target+")
            self.chain.layers.append(images.Layer(self.target, "qcow2", SIZE))
            self.chain.contents.append(self.chain.contents[-1].copy())
        else:
            assert self.disk["Source"] == self.chain.top.path
            assert not [name for name in self.machine.nodes() if name.startswith("bj-")]
        assert file_of_disk(self.machine) == self.disk["Source"]
        assert self.disk.sources() == self.chain.paths()
        self.assert_next()
