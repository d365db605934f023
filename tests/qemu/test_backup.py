# SPDX-License-Identifier: LGPL-2.1-or-later
"""Backup: an image of the disk as it was when the job began, whatever the guest writes meanwhile.

What counts is read from the target's file after QEMU was killed: QEMU itself says that a backup is complete while
much of it is in its own memory only.
"""

import os

import pytest

from kit import images
from kit.backup_targets import assert_backup, compressed_clusters, layer, ranges
from kit.bus import refused
from kit.images import KIB, MIB
from kit.nbd import RECORD, Writer
from kit.single_phase import (FAULT, assert_nodes, assert_single_phase, disk_with_filter_between, faulty_disk,
                              run_until_death)
from kit.space import SmallDisk
from kit.waiting import stays, wait_until

EIO, ENOSPC = 5, 28


@pytest.fixture
def target(lab):
    return f"{lab.directory}/backup.image"


@pytest.mark.parametrize("values, image_format", [
    ({}, "qcow2"), ({"format": "qcow2", "sync": "full"}, "qcow2"), ({"format": "raw"}, "raw"),
    ({"compress": True}, "qcow2"),
], ids=["default", "full", "raw", "compressed"])
def test_whole_disk(lab, target, values, image_format):
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    job = disk.backup(target, **values)
    assert job["Type"] == "backup"
    assert job["Source"] == chain.top.path and job["Target"] == target
    job.wait_completed("completed")
    # The end is on stable storage: QEMU may die right now.
    machine.kill()
    assert_backup(target, image_format, chain.contents[-1])
    assert images.backing_string(layer(target, image_format)) == ""
    if image_format == "qcow2":
        images.assert_sound(layer(target))
        assert (compressed_clusters(target) > 0) == ("compress" in values)


def test_nothing_is_left_in_qemu(lab, target):
    machine, chain, disk = lab.standard()
    position = lab.client.position()
    job = disk.backup(target)
    job.wait_completed("completed")
    assert_nodes(machine, "vda-0", "vda-1")
    assert disk.sources() == chain.paths() and disk["Source"] == chain.top.path
    assert disk["Job"] == "/" and disk["Filters"] == [] and disk["NodeName"] == "vda-1"
    assert job["Progress"] == 1.0 and job["Current"] == job["Total"]
    assert_single_phase(lab, job)
    assert len(job.completed()) == 1
    # And nobody was told anything else meanwhile.
    assert not [heard for heard in lab.client.heard(disk.path, "PropertiesChanged", position)
                if "Source" in heard.arguments[1]]
    # Nobody holds the target either.
    images.run("qemu-io", "-f", "qcow2", "-c", "write 0 64k", target)


def test_raw_disk(lab, target):
    """The format of the target is the source's, where nothing else is said."""
    chain = images.Chain(lab.directory).add([(1, 0, 4 * MIB), (2, 8 * MIB, MIB)], image_format="raw")
    machine, _, disk = lab.standard(chain)
    disk.backup(target).wait_completed("completed")
    machine.kill()
    assert_backup(target, "raw", chain.contents[-1])


def test_moment_of_the_backup(lab, target):
    """The guest overwrites what was copied, what was not, and what was empty: none of it is in the backup."""
    machine, chain, disk = lab.slow()
    at_the_start = chain.contents[-1].copy()
    job = disk.backup(target, speed=MIB)
    for number, offset in enumerate((0, 3 * MIB + 4 * KIB, 20 * MIB, 31 * MIB)):
        machine.write("vda", 10 + number, offset, MIB // 2)
    assert job["State"] == "running"
    job.set_speed(0)
    job.wait_completed("completed")
    machine.quit()
    assert_backup(target, "qcow2", at_the_start)
    images.assert_contents(chain.top, chain.contents[-1])


def test_guest_that_writes_all_the_time(lab, target):
    """The backup is of one moment: all that was acknowledged before it, nothing torn, nothing later."""
    machine, chain, disk = lab.slow(share=True)
    slots = 1024
    writer = Writer(machine.export("vda", "vda-1"), "vda", 16 * MIB, slots)
    writer.wait_more()
    with writer.progress:
        acknowledged = max(writer.acknowledged.values())
    job = disk.backup(target, speed=MIB)
    attempted = writer.count
    writer.wait_more(256)
    job.set_speed(0)
    job.wait_completed("completed")
    writer.wait_more()
    writer.stop()
    machine.kill()
    writer.assert_all_in(images.read_image(chain.top.path, "qcow2"))
    copy = images.read_image(target, "qcow2")
    places = range(16 * MIB, 16 * MIB + slots * RECORD, RECORD)
    found = [int.from_bytes(copy[place:place + 8], "big") for place in places]
    newest = max(found)
    assert acknowledged <= newest <= attempted
    for slot, (number, place) in enumerate(zip(found, places)):
        assert number == max(newest - (newest - slot) % slots, 0), f"slot {slot} has record {number}"
        assert copy[place:place + RECORD] == (writer.record(number) if number else bytes(RECORD))


def test_progress(lab, target):
    """A client that only listens sees the job move."""
    machine, chain, disk = lab.slow()
    position = lab.client.position()
    job = disk.backup(target, speed=2 * MIB)
    properties = job.all()
    assert properties["State"] == "running" and properties["Result"] == ""
    assert properties["Origin"] == "blockjobd" and properties["StartedBy"] == 0
    assert properties["QemuJobId"] in machine.jobs()
    assert properties["Options"] == {"speed": 2 * MIB} and properties["Speed"] == 2 * MIB
    assert disk["Job"] == job.path and disk["Filters"] == []
    assert_single_phase(lab, job)
    with refused("NotReady"):
        job.pivot()
    job.wait("Total", images.SIZE)
    for step in (1, 2):
        job.wait("Current", lambda current: current >= step * MIB)
    job.set_speed(0)
    job.wait_completed("completed")
    seen = job.changes("Current", position)
    assert len(seen) >= 2 and seen == sorted(seen) and seen[-1] == images.SIZE
    assert all(0.0 <= value <= 1.0 for value in job.changes("Progress", position))
    assert job.changes("State", position)[-1] == "concluded"


def test_pause_and_resume(lab, target):
    machine, chain, disk = lab.slow()
    at_the_start = chain.contents[-1].copy()
    job = disk.backup(target, speed=MIB)
    block_job, = machine.qmp.execute("query-block-jobs")
    assert block_job["auto-finalize"] is False and block_job["auto-dismiss"] is False
    job.pause()
    job.wait("State", "paused")
    job.set_speed(0)
    stays(lambda: job["State"] == "paused", "paused", 0.3)
    # It is still the moment of the start.
    machine.write("vda", 9, 3 * MIB, MIB)
    job.resume()
    job.wait_completed("completed")
    machine.kill()
    assert_backup(target, "qcow2", at_the_start)


def test_abort(lab, target):
    machine, chain, disk = lab.slow()
    job = disk.backup(target, speed=MIB)
    machine.write("vda", 9, 2 * MIB, MIB)
    job.abort()
    assert job["Result"] == "cancelled"
    job.wait_completed("cancelled")
    assert_nodes(machine, "vda-0", "vda-1")
    assert disk.sources() == chain.paths() and disk["Job"] == "/"
    machine.write("vda", 10, 20 * MIB, MIB)
    # The next one goes through, into what the first one has left.
    at_the_start = chain.contents[-1].copy()
    disk.backup(target, reuse=os.path.exists(target)).wait_completed("completed")
    machine.quit()
    assert_backup(target, "qcow2", at_the_start)
    images.assert_contents(chain.top, chain.contents[-1])


def test_only_the_active_layer(lab, target):
    """An overlay like the active layer: on the same backing file, and with what the layer itself holds."""
    chain = images.layers(lab.directory, 3)
    machine, _, disk = lab.standard(chain)
    at_the_start = chain.contents[-1].copy()
    job = disk.backup(target, sync="top", speed=MIB)
    machine.write("vda", 9, MIB, 2 * MIB)
    job.set_speed(0)
    job.wait_completed("completed")
    assert_nodes(machine, "vda-0", "vda-1", "vda-2")
    machine.kill()
    found = images.information(layer(target))
    assert (found["backing-filename"], found["backing-filename-format"]) == (chain.layers[1].path, "qcow2")
    assert_backup(target, "qcow2", at_the_start)
    own = [(start, length) for start, length, depth in ranges(target) if depth == 0]
    # layers() has put 2 MiB at 2 MiB into it.
    assert sum(length for _, length in own) == 2 * MIB and own[0][0] == 2 * MIB


def test_active_layer_that_is_the_only_one(lab, target):
    chain = images.Chain(lab.directory).add([(1, 0, 4 * MIB)])
    machine, _, disk = lab.standard(chain)
    disk.backup(target, sync="top").wait_completed("completed")
    machine.kill()
    assert images.backing_string(layer(target)) == ""
    assert_backup(target, "qcow2", chain.contents[-1])


def test_filter_above_the_disk(lab, target):
    machine, chain, disk = lab.slow(throttle={"bps-total": 100 * MIB})
    at_the_start = chain.contents[-1].copy()
    job = disk.backup(target, speed=MIB)
    assert disk["Filters"] == ["throttle"]
    machine.write("vda", 9, 3 * MIB, MIB)
    job.set_speed(0)
    job.wait_completed("completed")
    assert set(machine.nodes()) == {"vda-throttle", "vda-0", "vda-0-file", "vda-1", "vda-1-file"}
    assert machine.block("vda")["inserted"]["node-name"] == disk["NodeName"] == "vda-throttle"
    machine.write("vda", 10, 20 * MIB, MIB)
    machine.quit()
    assert_backup(target, "qcow2", at_the_start)
    images.assert_contents(chain.top, chain.contents[-1])


def test_filter_between_the_layers(lab, target):
    """It stays where it is; the overlay that is made stands on the image below it."""
    machine, chain, disk = disk_with_filter_between(lab, images.layers(lab.directory, 2), 0)
    disk.backup(target, sync="top").wait_completed("completed")
    assert "between" in machine.nodes() and disk.sources() == chain.paths()
    machine.kill()
    assert images.backing_string(layer(target)) == chain.base.path
    assert_backup(target, "qcow2", chain.contents[-1])


def test_legacy_drive(lab, target):
    chain = images.layers(lab.directory, 2)
    machine = lab.machine().add_legacy(chain, "drive0").start()
    disk = lab.attach(machine).disk("drive0")
    nodes = set(machine.nodes())
    at_the_start = chain.contents[-1].copy()
    job = disk.backup(target, speed=MIB)
    machine.write("drive0", 9, 0, MIB)
    job.set_speed(0)
    job.wait_completed("completed")
    assert set(machine.nodes()) == nodes
    machine.kill()
    assert_backup(target, "qcow2", at_the_start)


def test_next_jobs_on_the_disk(lab, target):
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    for number in range(2):
        disk.backup(f"{target}{number}").wait_completed("completed")
    disk.pull(base="[2]").wait_completed("completed")
    disk.commit(auto="pivot").wait_completed("completed")
    machine.kill()
    for number in range(2):
        assert_backup(f"{target}{number}", "qcow2", chain.contents[-1])
    images.assert_contents(chain.base, chain.contents[-1])


# Errors on the way.

@pytest.mark.parametrize("policy", [None, "report", "enospc"])
def test_source_that_cannot_be_read(lab, target, policy):
    machine, chain, disk = faulty_disk(lab, EIO)
    nodes = set(machine.nodes())
    job = disk.backup(target, on_source_error=policy)
    result, error, message = job.wait_completed("failed")
    assert error == "org.blockjobd1.Error.QemuError" and os.strerror(EIO) in message
    assert set(machine.nodes()) == nodes and machine.jobs() == {}
    assert disk["Job"] == "/" and disk.sources() == chain.paths()
    disk.backup(target, reuse=os.path.exists(target)).wait_completed("completed")
    machine.kill()
    assert_backup(target, "qcow2", chain.contents[-1])


@pytest.mark.parametrize("policy", ["stop", "ignore"])
def test_source_that_can_be_read_later(lab, target, policy):
    machine, chain, disk = faulty_disk(lab, EIO)
    at_the_start = chain.contents[-1].copy()
    job = disk.backup(target, on_source_error=policy)
    if policy == "stop":
        job.wait("IoStatus", "failed")
        job.wait("State", "paused")
        machine.write("vda", 9, FAULT, 64 * KIB)
        job.resume()
    job.wait_completed("completed")
    assert job["IoStatus"] == "ok"
    machine.kill()
    assert_backup(target, "qcow2", at_the_start)


@pytest.fixture
def tight(lab):
    """(machine, chain, disk, target, small disk): there is no room at the target for one mebibyte of the eight."""
    small = SmallDisk(f"{lab.directory}/small", 768)
    chain = images.Chain(lab.directory).add([(1, 0, 4 * MIB)]).add([(2, 16 * MIB, 4 * MIB)])
    machine, _, disk = lab.standard(chain)
    yield machine, chain, disk, f"{small.path}/backup.image", small
    machine.kill()
    small.remove()


def assert_over(machine, chain, disk):
    assert_nodes(machine, "vda-0", "vda-1")
    assert disk.sources() == chain.paths() and disk["Job"] == "/"


@pytest.mark.parametrize("policy", [None, "report"])
def test_full_target(tight, policy):
    machine, chain, disk, target, small = tight
    with refused("NoSpace", os.strerror(ENOSPC)):
        disk.backup(target, on_target_error=policy)
    job = disk.backup(target, on_target_error=policy, force=True)
    result, error, message = job.wait_completed("failed")
    assert error == "org.blockjobd1.Error.NoSpace" and os.strerror(ENOSPC) in message
    assert_over(machine, chain, disk)
    machine.write("vda", 9, 17 * MIB, MIB)
    small.resize(64 * 1024)
    disk.backup(target, reuse=os.path.exists(target)).wait_completed("completed")
    machine.kill()
    assert_backup(target, "qcow2", chain.contents[-1])


@pytest.mark.parametrize("policy", ["stop", "enospc"])
def test_full_target_with_room_later(tight, policy):
    machine, chain, disk, target, small = tight
    job = disk.backup(target, on_target_error=policy)
    job.wait("IoStatus", "nospace")
    job.wait("State", "paused")
    # Still no room: it stops again.
    job.resume()
    job.wait("State", "paused")
    assert job["IoStatus"] == "nospace"
    small.resize(64 * 1024)
    job.resume()
    job.wait_completed("completed")
    assert job["IoStatus"] == "ok"
    assert_over(machine, chain, disk)
    machine.kill()
    assert_backup(target, "qcow2", chain.contents[-1])


def test_full_target_and_abort(tight):
    machine, chain, disk, target, _ = tight
    job = disk.backup(target, on_target_error="stop")
    job.wait("IoStatus", "nospace")
    job.abort()
    job.wait_completed("cancelled")
    assert_over(machine, chain, disk)


def test_guest_under_a_target_that_fails(tight, lab):
    """What the guest overwrites must get into the backup first, and there is no room for it.

    Where QEMU can choose, the guest's write goes on and the backup is lost, which the job says at its end: it is
    never told as completed. A QEMU before 10.1 has no choice: the guest has the error, as long as the target is full,
    and the backup stays right.
    """
    machine, chain, disk, target, small = tight
    at_the_start = chain.contents[-1].copy()
    job = disk.backup(target, on_target_error="stop")
    job.wait("IoStatus", "nospace")
    small.fill()
    if "backup-break-snapshot" in lab.domain_of(machine)["Capabilities"]:
        machine.write("vda", 9, 17 * MIB, MIB)
        end = "failed"
    else:
        with pytest.raises(AssertionError, match=os.strerror(ENOSPC)):
            machine.write("vda", 9, 17 * MIB, MIB)
        end = "completed"
    small.free()
    small.resize(64 * 1024)
    job.resume()
    job.wait_completed(end)
    assert_over(machine, chain, disk)
    machine.write("vda", 10, 17 * MIB, MIB)
    if end == "completed":
        assert_backup(target, "qcow2", at_the_start)
    at_the_start = chain.contents[-1].copy()
    disk.backup(target + "-next").wait_completed("completed")
    machine.quit()
    assert_backup(target + "-next", "qcow2", at_the_start)
    images.assert_contents(chain.top, chain.contents[-1])


# The service dies, at a step of the job.

@pytest.mark.parametrize("step", ["flush", "finalize", "record-outcome", "tidy"])
def test_service_killed(lab, target, step):
    machine, chain, disk = lab.standard()
    at_the_start = chain.contents[-1].copy()
    lab.service.restart(stop_at=step)
    job = run_until_death(lab, disk, "Backup", "(sa{sv})", target)
    assert not job.completed()
    if step in ("flush", "finalize"):
        # Unlike a copy this holds nobody.
        assert [entry["status"] for entry in machine.jobs().values()] == ["pending"]
        machine.write("vda", 9, MIB, MIB)
    lab.service.start()
    job.wait_completed("completed")
    assert_over(machine, chain, disk)
    machine.kill()
    assert_backup(target, "qcow2", at_the_start)


@pytest.mark.parametrize("step", ["create-format", "open-format", "start"])
def test_service_killed_before_there_is_a_job(lab, target, step):
    """Nobody was told of it, and the next service leaves no node of it behind.

    It may leave the file: whose that is, nobody can say with certainty any more.
    """
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at=step)
    position = lab.client.position()
    assert run_until_death(lab, disk, "Backup", "(sa{sv})", target) is None
    assert os.path.exists(target)
    lab.service.start()
    wait_until(lambda: len(machine.nodes()) == 4, "the target's nodes to leave QEMU")
    assert_over(machine, chain, disk)
    assert lab.manager.jobs(domain=machine.name) == []
    assert not lab.client.heard(member="JobNew", since=position)
    if os.path.exists(target):
        os.unlink(target)
    disk.backup(target).wait_completed("completed")
    machine.kill()
    assert_backup(target, "qcow2", chain.contents[-1])


def test_service_killed_before_the_reply(lab, target):
    """QEMU has the job: the next service tells of it and brings it to its end."""
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at="record-accepted")
    assert run_until_death(lab, disk, "Backup", "(sa{sv})", target) is None
    lab.service.start()
    listed, = lab.manager.jobs(domain=machine.name)
    lab.manager.job(listed["Id"]).wait_completed("completed")
    assert_over(machine, chain, disk)
    machine.kill()
    assert_backup(target, "qcow2", chain.contents[-1])


def test_service_killed_while_it_runs(lab, target):
    machine, chain, disk = lab.slow()
    at_the_start = chain.contents[-1].copy()
    job = disk.backup(target, speed=MIB)
    before = job.all()
    lab.service.restart()
    after = job.all()
    for name in ("Type", "State", "Source", "Target", "QemuJobId", "Options", "Speed", "Mode"):
        assert after[name] == before[name], name
    machine.write("vda", 9, 3 * MIB, MIB)
    job.set_speed(0)
    job.wait_completed("completed")
    machine.kill()
    assert_backup(target, "qcow2", at_the_start)


@pytest.mark.parametrize("when", ["running", "flush"])
def test_qemu_killed(lab, target, when):
    """The disk is what it was; of the target nothing is promised."""
    machine, chain, disk = lab.slow()
    if when == "running":
        job = disk.backup(target, speed=MIB)
        machine.kill()
    else:
        lab.service.restart(stop_at=when)
        job = run_until_death(lab, disk, "Backup", "(sa{sv})", target)
        machine.kill()
        lab.service.start()
    job.wait_completed("lost")
    assert disk["Source"] == chain.top.path and disk["Job"] == "/"
    images.assert_contents(chain.top, chain.contents[-1])
