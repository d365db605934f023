# SPDX-License-Identifier: LGPL-2.1-or-later
"""The state directory is full or takes no writes: nothing is claimed that is not on stable storage."""

import pytest

from kit import images
from kit.bus import BusError, refused
from kit.every_job import file_of_disk
from kit.images import MIB
from kit.nbd import Writer
from kit.space import SmallDisk
from kit.waiting import stays, wait_until


@pytest.fixture
def small_state(lab):
    """A daemon on a state directory of its own, with room for a few records."""
    small = SmallDisk(f"{lab.directory}/state", 256)
    lab.service.kill()
    lab.service.start(state_directory=small.path)
    yield small
    lab.service.kill()
    small.remove()
    lab.service.start()


def test_commit_without_a_record(lab, small_state):
    """What cannot be recorded is not begun."""
    machine, chain, disk = lab.standard()
    small_state.fill()
    with refused("NoSpace"):
        disk.commit(active=True)
    assert machine.jobs() == {}
    assert disk["Job"] == "/"
    assert machine.nodes()["vda-0"]["ro"] is True
    small_state.free()
    disk.commit(auto="pivot").wait_completed("completed")


def test_attach_without_a_record(lab, small_state):
    machine = lab.machine().add_virtio(images.two_layers(lab.directory)).start()
    small_state.fill()
    with refused("NoSpace"):
        lab.attach(machine)
    with refused("NoSuchDomain"):
        lab.domain_of(machine)
    small_state.free()
    lab.attach(machine)


def test_pivot_without_a_record(lab, small_state):
    """The decision cannot be written down: the disk stays, the guest is not held, the caller is told why."""
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    small_state.fill()
    with pytest.raises(BusError) as error:
        job.pivot()
    assert error.value.short == "NoSpace", error.value
    assert machine.active_file("vda") == chain.top.path
    assert [entry["status"] for entry in machine.jobs().values()] == ["ready"]
    assert job["State"] == "ready" and job["Result"] == ""
    machine.write("vda", 9, 20 * MIB, MIB)
    small_state.free()
    job.pivot()
    job.wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


@pytest.mark.parametrize("kind", ["commit", "copy"])
def test_sync_that_fails_at_pending(lab, small_state, kind):
    """The guest is held there. The pivot is given up, and the guest goes on at once, on the image that it had."""
    lab.service.kill()
    lab.service.start(state_directory=small_state.path, wait_at="record-target")
    pid = lab.service.pid()
    machine, chain, disk = lab.slow(share=True)
    target = f"{lab.directory}/target.qcow2"
    writer = Writer(machine.export("vda", "vda-1"), "vda", 16 * MIB, 256)
    job = disk.commit(active=True) if kind == "commit" else disk.copy(target)
    job.wait_ready()
    writer.wait_more()
    call = lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {})
    lab.service.wait_stopped(pid)
    assert [entry["status"] for entry in machine.jobs().values()] == ["pending"]
    small_state.fill()
    lab.service.resume(pid)
    writer.wait_more()
    assert file_of_disk(machine) == chain.top.path
    # The outcome is told when it can be recorded.
    small_state.free()
    assert lab.client.wait_reply(call).kind == "error"
    result, error, message = job.wait_completed()
    assert result == "kept" and error.endswith(".NoSpace") and "the pivot was given up" in message
    assert job["GuestHold"] > 0 and len(job.completed()) == 1
    assert disk["Source"] == file_of_disk(machine) == chain.top.path and disk["Job"] == "/"
    writer.wait_more()
    # The same once more, with room.
    again = disk.commit(active=True) if kind == "commit" else disk.copy(f"{target}-2")
    again.wait_ready()
    again.pivot()
    writer.wait_more()
    writer.stop()
    machine.kill()
    source = chain.base.path if kind == "commit" else f"{target}-2"
    lab.domain_of(machine).wait("State", "crashed")
    assert disk["Source"] == source
    writer.assert_all_in(images.read_image(source, "qcow2"))


def test_outcome_without_a_record(lab, small_state):
    """The job has ended in QEMU; it is told when it is recorded, and not before."""
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True)
    job.wait_ready()
    small_state.fill()
    call = lab.client.call_later(job.path, "Job", "Abort", "(a{sv})", {})
    machine.wait_jobs(lambda jobs: not jobs or {entry["status"] for entry in jobs.values()} == {"concluded"},
                      "QEMU's job to end")
    stays(lambda: not job.completed() and job["Result"] == "", "not told", 1.5)
    machine.write("vda", 9, 20 * MIB, MIB)
    small_state.free()
    assert lab.client.wait_reply(call).kind == "reply"
    job.wait_completed("kept")
    assert machine.active_file("vda") == chain.top.path


def test_outcome_without_a_record_and_a_dead_service(lab, small_state):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True)
    job.wait_ready()
    small_state.fill()
    lab.client.call_later(job.path, "Job", "Abort", "(a{sv})", {})
    machine.wait_jobs(lambda jobs: not jobs or {entry["status"] for entry in jobs.values()} == {"concluded"},
                      "QEMU's job to end")
    lab.service.kill()
    small_state.free()
    lab.service.start(state_directory=small_state.path)
    # Without a record it cannot be known whether the copy was complete; that the disk stayed is certain.
    assert job.wait_completed()[0] in ("kept", "cancelled")
    assert disk["Source"] == machine.active_file("vda") == chain.top.path


def power_off(lab, machine, small_state):
    """Both end at once; the next service has the records and nothing else."""
    lab.service.kill()
    machine.kill()
    lab.service.start(state_directory=small_state.path)


def test_snapshot_whose_domain_cannot_be_recorded(lab, small_state):
    """The overlay is the disk already: the call is not answered before that is known for good."""
    lab.service.kill()
    lab.service.start(state_directory=small_state.path, wait_at="record-domain")
    pid = lab.service.pid()
    machine, chain, disk = lab.standard()
    overlay = f"{lab.directory}/overlay.qcow2"
    call = lab.client.call_later(disk.path, "Disk", "Snapshot", "(sa{sv})", overlay, {})
    lab.service.wait_stopped(pid)
    small_state.fill()
    lab.service.resume(pid)
    stays(lambda: not any(heard.reply_serial == call for heard in lab.client.log), "no answer", 0.5)
    power_off(lab, machine, small_state)
    assert disk["Source"] == overlay
    small_state.free()


def test_dismissal_of_a_job_whose_pivot_the_domain_has_not_recorded(lab, small_state):
    """Its own record goes when nothing depends on it any more."""
    lab.service.kill()
    lab.service.start(state_directory=small_state.path, wait_at="look")
    pid = lab.service.pid()
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {})
    lab.service.wait_stopped(pid)
    position = lab.service.log.size()
    small_state.fill()
    lab.service.resume(pid)
    wait_until(lambda: machine.name in lab.service.log.since(position), "a write that fails to be told")
    small_state.free()
    job.wait_completed("completed")
    job.dismiss()
    power_off(lab, machine, small_state)
    assert not job.exists()
    assert disk["Source"] == chain.base.path and disk.sources() == [chain.base.path]


def test_attached_when_the_reply_comes(lab):
    """The reply of AttachDomain says that it is on stable storage: killed in the next moment, it is there again."""
    machine = lab.machine().add_virtio(images.two_layers(lab.directory)).start()
    domain = lab.attach(machine)
    lab.service.restart()
    assert domain.exists()
    domain.wait("State", "paused")
