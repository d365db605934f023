# SPDX-License-Identifier: LGPL-2.1-or-later
"""What callers do with a job: speed, pause, pivot and abort in every state, dismissal."""

import pytest

from kit import images
from kit.bus import ROOT, BusError, Client, options, refused
from kit.images import KIB, MIB
from kit.objects import Disk, Job
from kit.waiting import stays

SLOW = 64 * KIB


def test_speed_at_the_start_and_later(lab):
    machine, _, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    assert job["Speed"] == SLOW
    # 1 MiB at 64 KiB/s: it cannot be over soon.
    stays(lambda: job["Current"] <= 256 * KIB and not job["Ready"], "slow", 1.0)
    assert job["Total"] >= MIB
    job.set_speed(2 * SLOW)
    job.wait("Speed", 2 * SLOW)
    block_job, = machine.qmp.execute("query-block-jobs")
    assert block_job["speed"] == 2 * SLOW
    job.set_speed(0)
    job.wait_ready(5)
    assert job["Speed"] == 0


def test_progress_is_told(lab):
    """A client that only listens sees the job move."""
    _, _, disk = lab.slow()
    position = lab.client.position()
    job = disk.commit(active=True, speed=4 * SLOW)
    job.wait("Current", lambda current: current >= 512 * KIB)
    job.set_speed(0)
    job.wait_ready()
    seen = job.changes("Current", position)
    assert len(seen) >= 3 and seen == sorted(seen)
    assert all(0.0 <= value <= 1.0 for value in job.changes("Progress", position))
    job.pivot()
    assert job["Progress"] == 1.0 and job["Current"] == job["Total"]
    changes = lab.client.heard(job.path, "PropertiesChanged", position)
    duration = changes[-1].time - changes[0].time
    assert len(changes) <= 30 + 10 * duration, f"{len(changes)} PropertiesChanged in {duration:.1f} s"


def test_speed_out_of_range(lab):
    _, _, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    for speed in (1 << 63, (1 << 64) - 1):
        with refused("InvalidArgument"):
            job.set_speed(speed)
    assert job["Speed"] == SLOW and job["State"] == "running"


def test_speed_when_ready(lab):
    _, _, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    job.set_speed(SLOW)
    assert job["Speed"] == SLOW
    job.pivot()
    job.wait_completed("completed")


def test_pause_and_resume(lab):
    machine, _, disk = lab.slow()
    job = disk.commit(active=True, speed=4 * SLOW)
    job.pause()
    job.wait("State", "paused")
    current = machine.qmp.execute("query-block-jobs")[0]["offset"]
    stays(lambda: machine.qmp.execute("query-block-jobs")[0]["offset"] == current, "paused", 0.7)
    assert job["State"] == "paused"
    # Nothing happens where it is paused already.
    job.pause()
    with refused("NotReady"):
        job.pivot()
    job.resume()
    job.wait("State", "running")
    job.resume()
    job.set_speed(0)
    job.wait_ready()


def test_abort_of_a_paused_job(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    job.pause()
    job.wait("State", "paused")
    job.abort()
    job.wait_completed("cancelled")
    assert machine.active_file("vda") == chain.top.path


@pytest.mark.parametrize("end", ["pivot", "abort", "force"])
def test_end_of_a_ready_job_that_is_paused(lab, end):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    job.pause()
    job.wait("State", "paused")
    assert job["Ready"] is True
    if end == "pivot":
        job.pivot()
    else:
        job.abort(force=end == "force")
    job.wait_completed({"pivot": "completed", "abort": "kept", "force": "cancelled"}[end])
    assert machine.active_file("vda") == (chain.base if end == "pivot" else chain.top).path
    machine.quit()
    if end != "force":
        images.assert_contents(chain.base, chain.contents[-1])


def test_pause_and_resume_when_ready(lab):
    _, _, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    job.pause()
    job.wait("State", "paused")
    job.resume()
    job.wait("State", "ready")
    assert len(lab.client.heard(job.path, "Ready")) == 1
    job.pivot()
    job.wait_completed("completed")


def test_pause_by_somebody_else(lab):
    """Another client pauses the job in QEMU: it is told as paused, and ours to resume."""
    machine, _, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    machine.qmp.execute("job-pause", id=job["QemuJobId"])
    job.wait("State", "paused")
    machine.qmp.execute("job-resume", id=job["QemuJobId"])
    job.wait("State", "running")
    machine.qmp.execute("job-pause", id=job["QemuJobId"])
    job.wait("State", "paused")
    job.resume()
    job.wait("State", "running")


def test_pivot_async(lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    job.pivot(**{"async": True})
    job.wait_completed("completed")
    assert machine.active_file("vda") == chain.base.path


def test_abort_async(lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    job.abort(**{"async": True})
    job.wait_completed("kept")
    assert machine.active_file("vda") == chain.top.path


def test_pivot_twice(lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    calls = [lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {}) for _ in range(2)]
    replies = [lab.client.wait_reply(call).kind for call in calls]
    assert replies[0] == "reply"
    job.wait_completed("completed")
    with refused("NotActive"):
        job.pivot()
    assert len(job.completed()) == 1


def test_pivot_and_abort_at_once(lab):
    """Whichever comes first counts, and everybody is told the truth."""
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    pivot = lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {})
    abort = lab.client.call_later(job.path, "Job", "Abort", "(a{sv})", {})
    replies = lab.client.wait_reply(pivot).kind, lab.client.wait_reply(abort).kind
    result = job.wait_completed()[0]
    assert result in ("completed", "kept")
    layer = chain.base if result == "completed" else chain.top
    assert machine.active_file("vda") == layer.path
    assert disk["Source"] == layer.path
    assert replies == (("reply", "error") if result == "completed" else ("error", "reply"))
    machine.quit()
    images.assert_contents(layer, chain.contents[-1])


def test_abort_and_pivot_at_once(lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    abort = lab.client.call_later(job.path, "Job", "Abort", "(a{sv})", {})
    pivot = lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {})
    assert lab.client.wait_reply(abort).kind == "reply"
    assert lab.client.wait_reply(pivot).kind == "error"
    job.wait_completed("kept")
    assert machine.active_file("vda") == chain.top.path


def test_everything_on_a_concluded_job(lab):
    _, _, disk = lab.standard()
    job = disk.commit(auto="pivot")
    job.wait_completed("completed")
    for call in (job.abort, job.pivot, job.pause, job.resume, lambda: job.set_speed(1)):
        with refused("NotActive"):
            call()
    with refused("NotActive"):
        job.abort(force=True)


@pytest.mark.parametrize("method", ["Abort", "Pivot"])
def test_unknown_options(lab, method):
    _, _, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    for values, key in (({"colour": "blue"}, "colour"), ({"async": "yes"}, "async"), ({"force": 1}, "force")):
        with refused("InvalidArgument", key):
            job.call(method, "(a{sv})", options(values))
    assert job["State"] == "running"


def test_mode(lab):
    _, _, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    with refused("InvalidArgument"):
        job.call("SetMode", "(s)", "faster")
    with refused("NotSupported"):
        job.call("SetMode", "(s)", "write-blocking")
    assert job["Mode"] == "background" and job["State"] == "running"


def test_dismiss(lab):
    _, _, disk = lab.standard()
    job = disk.commit(auto="pivot")
    job.wait_completed("completed")
    identity = job["Id"]
    assert lab.manager.job(identity).path == job.path
    position = lab.client.position()
    job.dismiss()
    job.wait_removed(since=position)
    assert not job.exists()
    with refused("NoSuchJob", identity):
        lab.manager.job(identity)
    assert identity not in [entry["Id"] for entry in lab.manager.jobs()]
    with pytest.raises(BusError):
        job["State"]


def test_dismissed_job_does_not_come_back(lab):
    _, _, disk = lab.standard()
    job = disk.commit(auto="pivot")
    job.wait_completed("completed")
    job.dismiss()
    lab.service.restart()
    assert not job.exists()


def test_dismissal_of_a_running_job(lab):
    _, _, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    with refused("InvalidState"):
        job.dismiss()
    assert job["State"] == "running"
    job.set_speed(0)
    job.wait_ready()
    with refused("InvalidState"):
        job.dismiss()
    job.pivot()
    job.wait_completed("completed")


def test_client_that_leaves(lab):
    """The job belongs to the disk, not to the connection that asked for it."""
    machine, chain, disk = lab.slow()
    other = Client()
    job = Disk(other, disk.path).commit(auto="pivot", speed=SLOW)
    other.close()
    job = Job(lab.client, job.path)
    assert job["State"] == "running"
    job.set_speed(0)
    job.wait_completed("completed")
    assert machine.active_file("vda") == chain.base.path


def test_client_that_leaves_before_the_reply(lab):
    machine, chain, disk = lab.standard()
    other = Client()
    other.call_later(disk.path, "Disk", "Commit", "(a{sv})", options({"auto": "pivot"}))
    other.connection.flush_sync(None)
    other.close()
    # Root is not asked about: the call was complete when its sender left, and the job is either there or not.
    if lab.client.heard(ROOT, "JobNew") or machine.jobs():
        disk.wait("Source", chain.base.path)
    assert disk["Source"] in (chain.base.path, chain.top.path)


def test_somebody_else_completes_our_job(lab):
    """Nothing but a decision that is recorded moves the disk."""
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    machine.write("vda", 9, 20 * MIB, MIB)
    machine.qmp.execute("job-complete", id=job["QemuJobId"])
    job.wait_completed("kept")
    assert machine.active_file("vda") == chain.top.path
    assert disk["Source"] == chain.top.path
    assert machine.jobs() == {}
    at_the_end = chain.contents[-1].copy()
    machine.write("vda", 10, 22 * MIB, MIB)
    machine.quit()
    images.assert_contents(chain.base, at_the_end)
    images.assert_contents(chain.top, chain.contents[-1])


def test_somebody_else_cancels_our_job_softly(lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    machine.qmp.execute("block-job-cancel", device=job["QemuJobId"])
    job.wait_completed("kept")
    assert disk["Source"] == machine.active_file("vda") == chain.top.path
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


@pytest.mark.parametrize("ready", [False, True])
def test_somebody_else_cancels_our_job(lab, ready):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=0 if ready else SLOW)
    if ready:
        job.wait_ready()
    machine.qmp.execute("job-cancel", id=job["QemuJobId"])
    job.wait_completed("cancelled")
    assert disk["Source"] == machine.active_file("vda") == chain.top.path
    assert machine.jobs() == {}


def test_suspended_guest(lab):
    """Jobs go on while the guest's processors stand still, and a pivot works as usual."""
    machine, chain, disk = lab.standard()
    domain = lab.domain_of(machine)
    domain.call("Resume")
    job = disk.commit(active=True)
    domain.call("Suspend")
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")
    assert machine.active_file("vda") == chain.base.path


def test_speed_of_a_job_that_comes_to_its_end(lab):
    """Refused for that, and not in QEMU's words about its inner states."""
    _, _, disk = lab.standard()
    refusals = set()
    for _ in range(20):
        job = disk.commit(auto="keep")
        try:
            while job["State"] != "concluded":
                job.set_speed(0)
        except BusError as error:
            refusals.add(error.short)
        job.wait_completed("kept")
    assert refusals <= {"NotActive", "InvalidState"}


@pytest.mark.parametrize("ready", [False, True])
def test_several_pause_and_resume_at_once(lab, ready):
    _, _, disk = lab.standard() if ready else lab.slow()
    job = disk.commit(active=True, speed=0 if ready else 64 * KIB)
    if ready:
        job.wait_ready()
    for member, state in (("Pause", "paused"), ("Resume", "ready" if ready else "running")):
        calls = [lab.client.call_later(job.path, "Job", member) for _ in range(5)]
        assert [lab.client.wait_reply(call).kind for call in calls] == ["reply"] * 5
        job.wait("State", state)
    job.set_speed(0)
    job.wait_ready()
    job.abort()
    job.wait_completed("kept")
