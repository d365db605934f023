# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service dies by SIGKILL, anywhere in the life of a job, and starts again: one outcome, and the right one.

The client stays on the bus all the while. What it hears of the job over both lives of the service together is
what it would have heard of one: one Completed, with the result that QEMU's graph and the images show.
"""

import os
import signal
import time

import pytest

from kit import images
from kit.bus import ROOT, BusError, options
from kit.crash_walk import tables
from kit.images import KIB, MIB
from kit.nbd import Writer
from kit.objects import Disk, Job
from kit.waiting import wait_until

SLOW = 64 * KIB


def assert_outcome(lab, machine, chain, job, result):
    """Result, signals, graph, Source, and that the guest can write: all say the same."""
    job.wait_completed(result)
    disk = Disk(lab.client, job["Disk"])
    layer = chain.base if result == "completed" else chain.top
    assert machine.active_file("vda") == layer.path
    assert disk["Source"] == layer.path
    assert disk["Job"] == "/"
    wait_until(lambda: machine.jobs() == {}, "the job to leave QEMU")
    assert not [name for name in machine.nodes() if name.startswith("bj-")]
    if result == "completed":
        assert "vda-1" not in machine.nodes()
    assert lab.client.get_all(job.path, "Job")["EndTime"] > 0
    assert len(lab.client.heard(ROOT, "JobRemoved", where=lambda heard: heard.arguments[1] == job.path)) == 1


def assert_images(machine, chain, result):
    machine.write("vda", 99, 30 * MIB, 64 * KIB)
    machine.quit()
    if result == "completed":
        images.assert_contents(chain.base, chain.contents[-1])
    else:
        images.assert_contents(chain.top, chain.contents[-1])


def assert_usable(lab, machine):
    """The service as it is now starts and ends another job on the disk, where there is a layer to commit."""
    disk = lab.domain_of(machine).disk("vda")
    if len(disk["Chain"]) == 1:
        machine.snapshot("vda", f"{lab.directory}/after.qcow2")
    disk.commit(auto="pivot").wait_completed("completed")


def test_killed_while_running(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    before = job.all()
    lab.service.restart()
    assert job["State"] == "running"
    after = job.all()
    for name in ("Id", "Type", "Domain", "Disk", "QemuJobId", "Source", "Target", "StartedBy", "StartTime",
                 "Options", "Origin", "Speed", "Result", "DiskTarget"):
        assert after[name] == before[name], name
    assert machine.jobs()[before["QemuJobId"]]["status"] == "running"
    assert disk["Job"] == job.path
    job.set_speed(0)
    job.wait_ready()
    job.pivot()
    assert_outcome(lab, machine, chain, job, "completed")
    assert_images(machine, chain, "completed")


def test_killed_while_running_and_aborted_afterwards(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    lab.service.restart()
    job.abort()
    assert_outcome(lab, machine, chain, job, "cancelled")


def test_job_gets_ready_while_nobody_is_there(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    lab.service.kill()
    machine.qmp.execute("block-job-set-speed", device=f"bj-commit-vda-{job.path.rsplit('/', 1)[1]}", speed=0)
    machine.qmp.wait_event("BLOCK_JOB_READY")
    lab.service.start()
    job.wait_ready()
    assert job["State"] == "ready" and job["Ready"] is True and job["ReadyTime"] > 0
    job.pivot()
    assert_outcome(lab, machine, chain, job, "completed")


def test_automatic_end_while_nobody_is_there(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(auto="pivot", speed=SLOW)
    lab.service.kill()
    machine.qmp.execute("block-job-set-speed", device=f"bj-commit-vda-{job.path.rsplit('/', 1)[1]}", speed=0)
    machine.qmp.wait_event("BLOCK_JOB_READY")
    lab.service.start()
    assert_outcome(lab, machine, chain, job, "completed")
    assert_images(machine, chain, "completed")


def test_job_taken_out_of_qemu_while_nobody_is_there(lab):
    """Somebody else cancelled and dismissed it: that is said, and the disk is where it was."""
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    qemu_job = job["QemuJobId"]
    lab.service.kill()
    machine.qmp.execute("job-cancel", id=qemu_job)
    machine.qmp.wait_event("JOB_STATUS_CHANGE", id=qemu_job, status="concluded")
    machine.qmp.execute("job-dismiss", id=qemu_job)
    lab.service.start()
    job.wait_completed("failed")
    assert disk["Source"] == machine.active_file("vda") == chain.top.path
    assert_usable(lab, machine)


@pytest.mark.parametrize("end", ["pivot", "keep", "force"])
def test_killed_when_ready(lab, end):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    ready_time = job["ReadyTime"]
    lab.service.kill()
    machine.write("vda", 9, 20 * MIB, MIB)
    lab.service.start()
    assert job["State"] == "ready" and job["Ready"] is True
    assert job["ReadyTime"] == ready_time
    if end == "pivot":
        job.pivot()
    else:
        job.abort(force=end == "force")
    assert_outcome(lab, machine, chain, job, {"pivot": "completed", "keep": "kept", "force": "cancelled"}[end])
    assert len(lab.client.heard(job.path, "Ready")) == 1
    assert_images(machine, chain, {"pivot": "completed", "keep": "kept", "force": "cancelled"}[end])


def test_killed_three_times(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    lab.service.restart()
    job.set_speed(0)
    job.wait_ready()
    lab.service.restart()
    lab.service.restart()
    job.pivot()
    assert_outcome(lab, machine, chain, job, "completed")
    lab.service.restart()
    assert job["Result"] == "completed" and len(job.completed()) == 1


# Kill points: the daemon dies right before the step.

def start_until_death(lab, disk, **keywords):
    """Commit, where the daemon does not live to answer."""
    call = lab.client.call_later(disk.path, "Disk", "Commit", "(a{sv})", options(keywords))
    assert lab.client.wait_reply(call).kind == "error"
    lab.service.wait_gone()


@pytest.mark.parametrize("step", ["plan", "record-intent", "start"])
def test_killed_before_qemu_has_the_job(lab, step):
    """Nobody was told of a job, and there is none."""
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at=step)
    position = lab.client.position()
    start_until_death(lab, disk, auto="pivot")
    assert machine.jobs() == {}
    lab.service.start()
    assert machine.jobs() == {}
    assert lab.manager.jobs(domain=machine.name) == []
    assert not lab.client.heard(member="Completed", since=position)
    assert not lab.client.heard(member="JobNew", since=position)
    assert disk["Source"] == chain.top.path and disk["Job"] == "/"
    assert_usable(lab, machine)


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("step", ["record-accepted", "announce"])
def test_killed_before_anybody_knows_of_the_job(lab, step, auto):
    """QEMU runs the job; the next service finds it, announces it, and it is as good as any other."""
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at=step)
    position = lab.client.position()
    start_until_death(lab, disk, **({"auto": "pivot"} if auto else {"active": True}))
    assert len(machine.jobs()) == 1
    lab.service.start()
    listed, = lab.manager.jobs(domain=machine.name)
    job = Job(lab.client, listed["Path"])
    assert len(lab.client.heard(ROOT, "JobNew", position)) <= 1
    assert job["Origin"] == "blockjobd" and job["StartedBy"] == 0
    if not auto:
        job.wait_ready()
        job.pivot()
    assert_outcome(lab, machine, chain, job, "completed")
    assert_images(machine, chain, "completed")


def commit_until_death(lab, disk, point):
    """A job that is told of before the service dies at that point, without anybody's doing."""
    lab.service.restart(stop_at=point)
    position = lab.client.position()
    lab.client.call_later(disk.path, "Disk", "Commit", "(a{sv})", options({"active": True}))
    lab.service.wait_gone()
    return Job(lab.client, lab.client.wait_signal(ROOT, "JobNew", since=position).arguments[1])


def test_killed_before_ready_is_told(lab):
    machine, chain, disk = lab.standard()
    job = commit_until_death(lab, disk, "say-ready")
    assert not lab.client.heard(job.path, "Ready")
    lab.service.start()
    job.wait_ready()
    assert job["ReadyTime"] > 0
    job.pivot()
    assert_outcome(lab, machine, chain, job, "completed")
    assert len(lab.client.heard(job.path, "Ready")) == 1


def test_every_step_is_covered():
    """The kill points are the names of the steps; a new step without a test of its crash is found here."""
    steps = tables()["commit.c", "active_steps"]
    # test_every_job.py has what the active commit shares with other jobs and is not due in these tests, test_walk.py
    # what is due before a pivot alone.
    assert set(steps) - {"begin", "compare-images", "delete", "check-users"} \
        == {"plan", "record-intent", "start", "record-accepted", "announce", "say-ready", "decide", *END_STEPS}


END_STEPS = ["record-decision", "ask", "record-target", "finalize", "look", "record-outcome", "tidy", "tell"]


def end_until_death(lab, job, end):
    method, values = {"pivot": ("Pivot", {}), "keep": ("Abort", {}), "force": ("Abort", {"force": True}),
                      "cancel": ("Abort", {})}[end]
    call = lab.client.call_later(job.path, "Job", method, "(a{sv})", options(values))
    lab.client.wait_reply(call)
    lab.service.wait_gone()


@pytest.mark.parametrize("step", END_STEPS)
def test_killed_in_a_pivot(lab, step):
    """With a guest that writes all the time; it hangs while the job is pending, and loses nothing."""
    machine, chain, disk = lab.slow(share=True)
    writer = Writer(machine.export("vda", "vda-1"), "vda", 16 * MIB, 256)
    lab.service.restart(stop_at=step)
    job = disk.commit(active=True)
    job.wait_ready()
    writer.wait_more()
    end_until_death(lab, job, "pivot")
    assert not job.completed()
    if step in ("record-target", "finalize"):
        assert [entry["status"] for entry in machine.jobs().values()] == ["pending"]
    lab.service.start()
    if step == "record-decision":
        # Nothing was decided as far as anybody can know; the caller had an error and asks again.
        assert job["State"] == "ready"
        job.pivot()
    assert_outcome(lab, machine, chain, job, "completed")
    if step in ("record-decision", "ask", "record-target", "finalize"):
        # Measured over both lives: as long as it took to start the service again, where the guest was held.
        assert job["GuestHold"] > (50_000 if step in ("record-target", "finalize") else 0)
    writer.wait_more()
    writer.stop()
    machine.kill()
    writer.assert_all_in(images.read_image(chain.base.path, "qcow2"))


@pytest.mark.parametrize("step", END_STEPS)
def test_killed_in_an_abort_when_ready(lab, step):
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at=step)
    job = disk.commit(active=True)
    job.wait_ready()
    machine.write("vda", 9, 20 * MIB, MIB)
    copy = chain.contents[-1].copy()
    end_until_death(lab, job, "keep")
    lab.service.start()
    if step == "record-decision" and job["State"] == "ready":
        job.abort()
    assert_outcome(lab, machine, chain, job, "kept")
    images.assert_contents(chain.base, copy)
    assert_images(machine, chain, "kept")


@pytest.mark.parametrize("step", ["record-decision", "ask", "look", "record-outcome", "tidy", "tell"])
def test_killed_in_an_abort_while_running(lab, step):
    machine, chain, disk = lab.slow()
    lab.service.restart(stop_at=step)
    job = disk.commit(active=True, speed=SLOW)
    end_until_death(lab, job, "cancel")
    lab.service.start()
    if step == "record-decision" and job["State"] == "running":
        job.abort()
    assert_outcome(lab, machine, chain, job, "cancelled")
    assert_usable(lab, machine)


@pytest.mark.parametrize("step", ["say-ready", "decide"] + END_STEPS)
def test_killed_in_an_automatic_pivot(lab, step):
    """Nobody has to ask again: the caller said at the start what the end shall be."""
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at=step)
    position = lab.client.position()
    call = lab.client.call_later(disk.path, "Disk", "Commit", "(a{sv})", options({"auto": "pivot"}))
    lab.client.wait_reply(call)
    lab.service.wait_gone()
    job = Job(lab.client, lab.client.wait_signal(ROOT, "JobNew", since=position).arguments[1])
    lab.service.start()
    assert_outcome(lab, machine, chain, job, "completed")
    assert_images(machine, chain, "completed")
    # And it can be dismissed like any other.
    job.dismiss()
    assert not job.exists()


@pytest.mark.parametrize("step", ["record-target", "finalize", "tidy"])
def test_killed_again_at_the_same_step(lab, step):
    """A crash during recovery is a crash like any other."""
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at=step)
    job = disk.commit(active=True)
    job.wait_ready()
    end_until_death(lab, job, "pivot")
    process = lab.service.launch(stop_at=step)
    process.wait(20)
    assert process.returncode != 0
    lab.service.start()
    assert_outcome(lab, machine, chain, job, "completed")
    assert_images(machine, chain, "completed")


def test_caller_of_a_pivot_has_an_error_when_the_service_dies(lab):
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at="finalize")
    job = disk.commit(active=True)
    job.wait_ready()
    with pytest.raises(BusError) as error:
        job.pivot()
    assert error.value.name == "org.freedesktop.DBus.Error.NoReply"
    lab.service.start()
    assert_outcome(lab, machine, chain, job, "completed")


def kill_when_heard(lab, disk, member, values):
    """The job whose signal is the last that its service has done."""
    pid = lab.service.pid()
    lab.service.disturbed = True
    job = disk.commit(**values)
    lab.client.wait_signal(job.path, member)
    os.kill(pid, signal.SIGKILL)
    lab.service.wait_gone()
    return job


@pytest.mark.parametrize("attempt", range(5))
@pytest.mark.parametrize("values", [{"active": True}, {"auto": "pivot"}])
def test_killed_as_soon_as_ready_is_heard(lab, values, attempt):
    machine, chain, disk = lab.standard()
    job = kill_when_heard(lab, disk, "Ready", values)
    heard = time.time()
    lab.service.start()
    assert 0 < job["ReadyTime"] < heard * 1e6
    if "auto" not in values:
        assert job["State"] == "ready"
        job.pivot()
    assert_outcome(lab, machine, chain, job, "completed")
    assert len(lab.client.heard(job.path, "Ready")) == 1


def test_killed_between_the_mark_of_ready_and_its_signal(lab):
    """Nothing makes one of two system calls. Here is the one point where Ready is not told, but can be read."""
    machine, chain, disk = lab.standard()
    job = commit_until_death(lab, disk, "told-ready")
    lab.service.start()
    assert job["State"] == "ready" and job["Ready"] is True and job["ReadyTime"] > 0
    assert not lab.client.heard(job.path, "Ready")
    job.pivot()
    assert_outcome(lab, machine, chain, job, "completed")


@pytest.mark.parametrize("attempt", range(5))
def test_killed_as_soon_as_the_end_is_heard(lab, attempt):
    """By somebody who waited for just that: the next start does not tell it again."""
    _, _, disk = lab.standard()
    job = kill_when_heard(lab, disk, "Completed", {"auto": "pivot"})
    lab.service.start()
    # What it has to tell it tells before it answers anybody.
    assert job["Result"] == "completed" and job["State"] == "concluded"
    assert len(job.completed()) == 1


def test_killed_between_the_record_of_the_end_and_its_signal(lab):
    """Nothing makes one of two system calls. Here is the one point where the end is not told, but can be read."""
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at="told")
    job = disk.commit(active=True)
    job.wait_ready()
    end_until_death(lab, job, "pivot")
    lab.service.start()
    assert job["State"] == "concluded" and job["Result"] == "completed" and job["EndTime"] > 0
    assert disk["Source"] == machine.active_file("vda") == chain.base.path
    assert disk["Job"] == "/" and machine.jobs() == {}
    assert not job.completed()


def test_header_is_being_probed(lab):
    """Of a layer that is open for reading: what the probe has left in QEMU is in nobody's way."""
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    lab.service.restart(stop_at="check-pending+")
    lab.client.call_later(disk.path, "Disk", "Commit", "(a{sv})", options({"top": "[2]", "base": "[3]"}))
    lab.service.wait_gone()
    # QEMU forgets what it has not come to when the connection ends.
    if not [name for name in machine.nodes() if name.endswith("-p")]:
        job, = machine.jobs()
        machine.qmp.execute("blockdev-add", driver="file", node_name=f"bj-{job.rsplit('-', 1)[1]}-p",
                            filename=chain.layers[1].path, locking="off", read_only=False)
    lab.service.start()
    listed, = lab.manager.jobs(domain=machine.name)
    Job(lab.client, listed["Path"]).wait_completed("completed")
    assert not [name for name in machine.nodes() if name.startswith("bj-")]
    machine.quit()
    images.assert_contents(chain.base, chain.contents[1])
    images.assert_contents(chain.top, chain.contents[3])
