# SPDX-License-Identifier: LGPL-2.1-or-later
"""Jobs that somebody else starts at another monitor of the same QEMU: seen, told, and not taken over."""

import threading

import os

import pytest

from kit import images
from kit.bus import ROOT, BusError, options, refused
from kit.every_job import KINDS, SLOW, TWO_PHASES, file_of_disk, slow_chain, slow_disk, start
from kit.faults import EIO, ENOSPC, layers, machine_with_faults, read_fault
from kit.images import KIB, MIB
from kit.objects import Job
from kit.qmp import QmpError
from kit.space import SmallDisk
from kit.waiting import wait_until

NOBODY = 4294967295
# A copy with more room than that does not keep to its speed before 16 MiB.
COMMANDS = {
    "active-commit": ("block-commit", {"top_node": "vda-2", "base_node": "vda-0"}),
    "commit": ("block-commit", {"top_node": "vda-1", "base_node": "vda-0"}),
    "copy": ("blockdev-mirror", {"target": "theirs", "sync": "full", "buf_size": 64 * KIB}),
    "pull": ("block-stream", {}),
    "backup": ("blockdev-backup", {"target": "theirs", "sync": "full"}),
}


def begin(machine, kind, folder=None, speed=SLOW, **keywords):
    """Somebody's job "theirs" on vda, which has three layers. A copy or backup goes to theirs.qcow2 in the folder."""
    command, arguments = COMMANDS[kind]
    if kind in ("copy", "backup"):
        path = f"{folder or machine.directory}/theirs.qcow2"
        images.run("qemu-img", "create", "-q", "-f", "qcow2", path, str(images.SIZE))
        machine.qmp.execute("blockdev-add", driver="file", node_name="theirs-file", filename=path)
        machine.qmp.execute("blockdev-add", driver="qcow2", node_name="theirs", file="theirs-file")
    if kind == "commit":
        # Else QEMU would make a name up.
        keywords["backing_file"] = machine.chains["vda"].base.path
    machine.qmp.execute(command, job_id="theirs", device="vda-2", speed=speed, **arguments, **keywords)


def told_job(lab, since=0):
    return Job(lab.client, lab.client.wait_signal(ROOT, "JobNew", since=since).arguments[1])


def full_speed(machine):
    machine.qmp.execute("block-job-set-speed", device="theirs", speed=0)


def assert_free(lab, disk):
    """The disk takes a job again."""
    disk.wait("Job", "/")
    job = disk.commit(active=True, speed=SLOW)
    job.abort()
    job.wait_completed("cancelled")


@pytest.mark.parametrize("kind", KINDS)
def test_object(lab, kind):
    machine, chain, disk = slow_disk(lab)
    position = lab.client.position()
    begin(machine, kind)
    job = told_job(lab, position)
    assert [heard for heard in lab.client.heard(ROOT, "InterfacesAdded", position)
            if heard.arguments[0] == job.path]
    properties = job.all()
    assert properties["Type"] == kind
    assert properties["Origin"] == "external"
    assert properties["StartedBy"] == NOBODY
    assert properties["QemuJobId"] == "theirs"
    assert properties["Domain"] == lab.domain_of(machine).path
    assert properties["Disk"] == disk.path and properties["DiskTarget"] == "vda"
    assert properties["Result"] == "" and properties["Ready"] is False
    job.wait("State", "running")
    job.wait("Total", lambda total: total > 0)
    job.wait("Speed", SLOW)
    assert disk["Job"] == job.path
    assert job.path in lab.manager["Jobs"] and job.path in lab.domain_of(machine)["Jobs"]
    assert lab.manager.job(properties["Id"]).path == job.path
    with refused("JobActive", "theirs"):
        disk.commit(active=True)
    with refused("JobActive", "theirs"):
        disk.snapshot(f"{lab.directory}/new.qcow2")
    assert len(lab.client.heard(ROOT, "JobNew", position)) == 1


@pytest.mark.parametrize("kind, dismiss", [
    ("active-commit", True), ("active-commit", False), ("commit", True), ("copy", False), ("pull", True),
    ("pull", False), ("backup", True), ("backup", False),
])
def test_completed(lab, kind, dismiss):
    machine, chain, disk = slow_disk(lab)
    begin(machine, kind, auto_dismiss=dismiss)
    job = told_job(lab)
    full_speed(machine)
    if kind in TWO_PHASES:
        job.wait_ready()
        job.wait("State", "ready")
        assert job["Ready"] is True and job["ReadyTime"] > 0
        machine.qmp.execute("job-complete", id="theirs")
    job.wait_completed("completed")
    assert job["Progress"] == 1.0 and job["EndTime"] > 0
    # Dismissal is up to whoever started it, as the result is theirs to read.
    assert list(machine.jobs()) == ([] if dismiss else ["theirs"])
    if not dismiss:
        machine.qmp.execute("job-dismiss", id="theirs")
    source = {"active-commit": chain.base.path, "copy": f"{lab.directory}/theirs.qcow2"}.get(kind, chain.top.path)
    disk.wait("Source", source)
    assert file_of_disk(machine) == source
    disk.wait("Job", "/")
    assert job.path not in lab.manager["Jobs"]
    assert len(job.completed()) == 1


def test_stream_that_is_kept_when_it_is_over(lab):
    """QEMU 7.2 crashes when it is asked for its nodes meanwhile: it is not asked, whatever is wanted of the disk. Newer
    ones are safe, and everything goes on with them."""
    machine, chain, disk = slow_disk(lab)
    safe = "set-active" in lab.domain_of(machine)["Capabilities"]
    begin(machine, "pull", speed=0, auto_dismiss=False)
    job = told_job(lab)
    job.wait_completed("completed")
    # The chain is right all the same.
    disk.wait("Chain", lambda chain: len(chain) == 1)
    # With its object, nothing is left on the bus that tells of it.
    job.dismiss()
    path = f"{lab.directory}/copy.qcow2"
    if not safe:
        for call in (lambda: disk.commit(active=True), lambda: disk.copy(path), lambda: disk.snapshot(path)):
            with refused("JobActive", machine.name):
                call()
        assert not os.path.exists(path)
    assert machine.running(), "QEMU crashed"
    lab.service.restart()
    with pytest.raises(BusError):
        lab.domain_of(machine).disk("vda").commit(active=True)
    assert machine.running(), "QEMU crashed"
    machine.qmp.execute("job-dismiss", id="theirs")
    wait_until(lambda: lab.domain_of(machine)["State"] == "paused", "the domain to be known again")
    lab.domain_of(machine).disk("vda").snapshot(path)
    assert file_of_disk(machine) == path


@pytest.mark.parametrize("attempt", range(10))
def test_stream_that_is_over_at_once(lab, attempt):
    """Whatever the service asks when it hears that the job begins: it may be over, and kept, when QEMU reads that."""
    machine, chain, disk = lab.standard()
    machine.qmp.execute("block-stream", job_id="theirs", device="vda-1", auto_dismiss=False)
    told_job(lab).wait_completed("completed")
    disk.wait("Chain", lambda chain: len(chain) == 1)
    machine.qmp.execute("job-dismiss", id="theirs")
    assert machine.running(), "QEMU crashed"
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


def test_progress_is_told(lab):
    machine, _, _ = slow_disk(lab)
    begin(machine, "pull", speed=16 * SLOW)
    job = told_job(lab)
    job.wait("Current", lambda current: current >= 512 * KIB)
    assert 0.0 < job["Progress"] < 1.0
    full_speed(machine)
    job.wait_completed("completed")


@pytest.mark.parametrize("kind, command, result", [
    ("copy", "block-job-cancel", "kept"), ("active-commit", "block-job-cancel", "kept"),
    ("active-commit", "job-cancel", "cancelled"),
])
@pytest.mark.parametrize("dismiss", [True, False])
def test_ready_job_that_its_owner_ends(lab, kind, command, result, dismiss):
    """What QEMU says of a pivot and of a soft cancel is the same; where the disk is tells them apart."""
    machine, chain, disk = slow_disk(lab)
    begin(machine, kind, speed=0, auto_dismiss=dismiss)
    job = told_job(lab)
    job.wait_ready()
    machine.qmp.execute(command, **{"device" if command == "block-job-cancel" else "id": "theirs"})
    job.wait_completed(result)
    assert disk["Source"] == file_of_disk(machine) == chain.top.path
    assert_disk_is_free_when_dismissed(machine, disk, dismiss)


@pytest.mark.parametrize("kind", ["commit", "backup"])
@pytest.mark.parametrize("dismiss", [True, False])
def test_running_job_that_its_owner_cancels(lab, kind, dismiss):
    machine, _, disk = slow_disk(lab)
    begin(machine, kind, auto_dismiss=dismiss)
    job = told_job(lab)
    machine.qmp.execute("job-cancel", id="theirs")
    job.wait_completed("cancelled")
    assert_disk_is_free_when_dismissed(machine, disk, dismiss)


def assert_disk_is_free_when_dismissed(machine, disk, dismiss):
    if not dismiss:
        assert machine.jobs()["theirs"]["status"] == "concluded"
        machine.qmp.execute("job-dismiss", id="theirs")
    disk.wait("Job", "/")
    if "theirs" in machine.nodes():
        machine.qmp.execute("blockdev-del", node_name="theirs")
    job = disk.commit(active=True)
    job.wait_ready()
    job.abort()
    job.wait_completed("kept")


@pytest.mark.parametrize("dismiss", [True, False])
def test_failed_by_a_read(lab, dismiss):
    chain = layers(lab.directory)
    machine = machine_with_faults(lab, chain, {1: read_fault(chain.layers[1])}).start()
    disk = lab.attach(machine).disk("vda")
    begin(machine, "commit", auto_dismiss=dismiss)
    job = told_job(lab)
    full_speed(machine)
    result, error, message = job.wait_completed("failed")
    assert error == "org.blockjobd1.Error.QemuError" and EIO in message
    assert job["Error"] == (error, message)
    assert disk["Source"] == file_of_disk(machine) == chain.top.path
    assert_disk_is_free_when_dismissed(machine, disk, dismiss)


@pytest.mark.parametrize("dismiss", [True, False])
def test_failed_by_a_full_target(lab, dismiss):
    small = SmallDisk(f"{lab.directory}/small", 1024)
    machine, _, disk = slow_disk(lab)
    try:
        begin(machine, "backup", folder=small.path, auto_dismiss=dismiss)
        job = told_job(lab)
        full_speed(machine)
        result, error, message = job.wait_completed("failed")
        assert error == "org.blockjobd1.Error.NoSpace" and ENOSPC in message
        disk.wait("Job", "/")
    finally:
        machine.kill()
        small.remove()


def test_paused_by_an_error(lab):
    chain = layers(lab.directory)
    machine = machine_with_faults(lab, chain, {1: read_fault(chain.layers[1])}).start()
    lab.attach(machine)
    begin(machine, "pull", speed=0, on_error="stop")
    job = told_job(lab)
    job.wait("State", "paused")
    job.wait("IoStatus", "failed")
    job.resume()
    job.wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


# What callers on the bus do with it.

@pytest.mark.parametrize("kind", KINDS)
def test_abort(lab, kind):
    machine, chain, disk = slow_disk(lab)
    begin(machine, kind)
    job = told_job(lab)
    job.abort()
    job.wait_completed("cancelled")
    assert machine.jobs() == {}
    assert disk["Source"] == file_of_disk(machine) == chain.top.path
    disk.wait("Job", "/")


@pytest.mark.parametrize("kind, force", [("active-commit", False), ("copy", False), ("copy", True)])
def test_abort_when_ready(lab, kind, force):
    machine, chain, disk = slow_disk(lab)
    begin(machine, kind, speed=0)
    job = told_job(lab)
    job.wait_ready()
    with refused("NotSupported"):
        job.pivot()
    assert job["State"] == "ready"
    machine.write("vda", 9, 20 * MIB, MIB)
    job.abort(force=force)
    job.wait_completed("cancelled" if force else "kept")
    assert disk["Source"] == file_of_disk(machine) == chain.top.path
    if not force:
        target = chain.base if kind == "active-commit" else images.Layer(f"{lab.directory}/theirs.qcow2", "qcow2", 0)
        images.assert_contents(target, chain.contents[-1])


def test_control(lab):
    machine, _, _ = slow_disk(lab)
    begin(machine, "copy")
    job = told_job(lab)
    job.set_speed(2 * SLOW)
    job.wait("Speed", 2 * SLOW)
    assert machine.qmp.execute("query-block-jobs")[0]["speed"] == 2 * SLOW
    job.pause()
    job.wait("State", "paused")
    job.resume()
    job.wait("State", "running")
    with refused("InvalidState"):
        job.dismiss()
    job.abort()
    job.wait_completed("cancelled")
    with refused("NotActive"):
        job.abort()
    job.dismiss()
    assert not job.exists()


# Attach, and deaths.

def test_started_before_the_attach(lab):
    machine = lab.machine().add_virtio(slow_chain(lab.directory)).start()
    begin(machine, "commit")
    position = lab.client.position()
    domain = lab.attach(machine)
    path, = domain.wait("Jobs", bool)
    job = Job(lab.client, path)
    assert len(lab.client.heard(ROOT, "JobNew", position)) == 1
    assert job["Type"] == "commit" and job["Origin"] == "external"
    disk = domain.disk("vda")
    assert disk["Job"] == path and job["Disk"] == disk.path
    with refused("JobActive", "theirs"):
        disk.commit(active=True)
    full_speed(machine)
    job.wait_completed("completed")
    disk.wait("Job", "/")


def test_ready_before_the_attach(lab):
    machine = lab.machine().add_virtio(slow_chain(lab.directory)).start()
    begin(machine, "active-commit", speed=0)
    machine.qmp.wait_event("BLOCK_JOB_READY")
    path, = lab.attach(machine).wait("Jobs", bool)
    job = Job(lab.client, path)
    job.wait("State", "ready")
    assert job["Ready"] is True and job["Type"] == "active-commit"
    machine.qmp.execute("job-complete", id="theirs")
    job.wait_completed("completed")


def test_service_restarted(lab):
    machine, _, disk = slow_disk(lab)
    begin(machine, "commit", auto_dismiss=False)
    job = told_job(lab)
    before = job.all()
    lab.service.restart()
    after = job.all()
    for name in ("Id", "Type", "Origin", "QemuJobId", "StartTime", "StartedBy", "Disk"):
        assert after[name] == before[name], name
    assert job["State"] == "running" and disk["Job"] == job.path
    full_speed(machine)
    job.wait_completed("completed")
    lab.service.restart()
    assert job["Result"] == "completed"
    assert len(job.completed()) == 1


@pytest.mark.parametrize("kind, dismiss", [("commit", True), ("commit", False), ("pull", True), ("pull", False)])
def test_end_while_nobody_is_there(lab, kind, dismiss):
    """Of one that is gone nobody can tell how it ended; that it has ended is told, once."""
    machine, _, disk = slow_disk(lab)
    begin(machine, kind, auto_dismiss=dismiss)
    job = told_job(lab)
    lab.service.kill()
    full_speed(machine)
    machine.qmp.wait_event("JOB_STATUS_CHANGE", id="theirs", status="null" if dismiss else "concluded")
    lab.service.start()
    if kind == "pull" and not dismiss:
        # QEMU 7.2 cannot be looked at before that.
        machine.qmp.execute("job-dismiss", id="theirs")
        result = job.wait_completed()[0]
        assert result in ("completed", "failed")
    else:
        result = job.wait_completed()[0]
        assert result == ("failed" if dismiss else "completed")
    assert job["Result"] == result and job["State"] == "concluded"
    disk.wait("Job", "/")
    assert len(job.completed()) == 1


@pytest.mark.parametrize("kind", ["commit", "copy"])
def test_qemu_killed(lab, kind):
    machine, chain, disk = slow_disk(lab)
    begin(machine, kind)
    job = told_job(lab)
    machine.kill()
    job.wait_completed("lost")
    assert disk["Source"] == chain.top.path
    assert disk["Job"] == "/"


def test_creation_of_an_image_is_no_job(lab):
    """Nothing that works on a disk. It comes before one that is told, so that it would have been told before."""
    machine, _, _ = slow_disk(lab)
    position = lab.client.position()
    path = f"{lab.directory}/created.raw"
    machine.qmp.execute("blockdev-create", job_id="creation",
                        options={"driver": "file", "filename": path, "size": MIB})
    machine.qmp.wait_event("JOB_STATUS_CHANGE", id="creation", status="concluded")
    begin(machine, "pull")
    assert told_job(lab, position)["QemuJobId"] == "theirs"
    machine.qmp.execute("job-dismiss", id="creation")
    assert len(lab.client.heard(ROOT, "JobNew", position)) == 1


# At the same time as a job of the bus.

@pytest.mark.parametrize("first", ["theirs", "ours"])
@pytest.mark.parametrize("kind", ["active-commit", "commit"])
def test_same_moment(lab, kind, first):
    """One of the two starts; whoever comes too late is told why, and nobody waits for ever."""
    machine, _, disk = slow_disk(lab)
    theirs = []

    def run():
        try:
            begin(machine, "active-commit")
            theirs.append("started")
        except QmpError as error:
            theirs.append(error.description)

    thread = threading.Thread(target=run)
    values = {"speed": SLOW, **({"active": True} if kind == "active-commit" else {"top": "[1]"})}
    if first == "theirs":
        thread.start()
    call = lab.client.call_later(disk.path, "Disk", "Commit", "(a{sv})", options(values))
    if first == "ours":
        lab.client.connection.flush_sync(None)
        thread.start()
    thread.join(20)
    reply = lab.client.wait_reply(call)
    assert theirs, "the other monitor hangs"
    started, = machine.jobs()
    if reply.kind == "reply":
        assert started != "theirs" and theirs != ["started"]
    else:
        assert started == "theirs" and theirs == ["started"]
        with refused("JobActive", "theirs"):
            start(kind, lab, disk)
    # One object for it, and the disk is free after its end.
    job = told_job(lab)
    assert job["QemuJobId"] == started
    job.abort()
    job.wait_completed("cancelled")
    assert_free(lab, disk)
    assert len({heard.arguments[1] for heard in lab.client.heard(ROOT, "JobNew")}) == 2


def test_error_of_who_comes_too_late(lab):
    """By the time of the call nobody can know of their job but QEMU itself: the error names it all the same."""
    machine, _, disk = slow_disk(lab)
    for _ in range(5):
        position = lab.client.position()
        begin(machine, "active-commit")
        with refused("JobActive", "theirs"):
            disk.commit(active=True)
        job = told_job(lab, position)
        machine.qmp.execute("job-cancel", id="theirs")
        job.wait_completed("cancelled")
        disk.wait("Job", "/")
