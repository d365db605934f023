# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commit of the active layer: its two phases, its ends, and what each leaves in QEMU and in the images."""

import pytest

from kit import images
from kit.bus import options, refused
from kit.images import KIB, MIB

SLOW = 64 * KIB


def assert_guest_on(machine, disk, layer, chain_below):
    """QEMU, the bus, and the disk's chain agree on which image is the disk."""
    assert machine.active_file("vda") == layer.path
    assert disk["Source"] == layer.path
    assert disk.sources() == chain_below
    assert disk["Job"] == "/"
    assert machine.jobs() == {}, "the job is still in QEMU"


def test_pivot(lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    assert disk["Job"] == job.path
    job.wait_ready()
    assert job["State"] == "ready" and job["Ready"] is True and job["Result"] == ""
    machine.write("vda", 9, 20 * MIB, MIB)
    job.pivot()
    # The reply says that the outcome is on stable storage: all of it holds now, without waiting.
    assert job["State"] == "concluded" and job["Result"] == "completed"
    assert_guest_on(machine, disk, chain.base, [chain.base.path])
    assert disk["Format"] == "qcow2"
    assert disk["NodeName"] == machine.block("vda")["inserted"]["node-name"]
    machine.kill()
    job.wait_completed("completed")
    images.assert_contents(chain.base, chain.contents[-1])
    # And by qemu-io's own eyes: base's data, the overlay's, and what was written when the job was ready.
    for pattern, offset, length in ((1, 0, 2 * MIB), (2, 2 * MIB, 3 * MIB), (9, 20 * MIB, MIB)):
        assert images.has_pattern(chain.base, pattern, offset, length)
    assert not images.has_pattern(chain.base, 1, 2 * MIB, MIB)


def test_old_layers_leave_qemu(lab):
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    disk.commit(auto="pivot").wait_completed("completed")
    nodes = machine.nodes()
    assert {name for name in nodes if name.startswith("vda")} == {"vda-0", "vda-0-file"}
    files = {node["file"] for node in nodes.values()}
    assert files == {chain.base.path}
    assert not [name for name in nodes if name.startswith("bj-")]


def test_next_job_on_the_disk(lab):
    """After a pivot the disk is as good as new: snapshot, write, commit, again and again."""
    machine, chain, disk = lab.standard()
    for number in range(3):
        job = disk.commit(active=True)
        job.wait_ready()
        job.pivot()
        contents = chain.contents[-1]
        chain.layers, chain.contents = chain.layers[:1], [contents]
        machine.write("vda", 10 + number, (8 + number) * MIB, MIB)
        machine.snapshot("vda", f"{lab.directory}/round-{number}.qcow2")
        machine.write("vda", 20 + number, (16 + number) * MIB, MIB)
    disk.commit(auto="pivot").wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])
    images.assert_sound(chain.base)


def test_keep(lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    machine.write("vda", 9, 20 * MIB, MIB)
    at_the_abort = chain.contents[-1].copy()
    job.abort()
    assert job["Result"] == "kept"
    assert_guest_on(machine, disk, chain.top, chain.paths())
    machine.write("vda", 10, 21 * MIB, MIB)
    job.wait_completed("kept")
    # Base is the copy as of the abort, and does not follow the guest any more.
    images.assert_contents(chain.base, at_the_abort)
    machine.quit()
    images.assert_contents(chain.base, at_the_abort)
    images.assert_contents(chain.top, chain.contents[-1])


def test_kept_copy_is_on_disk_when_the_reply_comes(lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    machine.write("vda", 9, 20 * MIB, MIB)
    job.abort()
    machine.kill()
    images.assert_contents(chain.base, chain.contents[-1])


def test_abort_while_running(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    assert job["State"] == "running"
    job.abort()
    assert job["Result"] == "cancelled"
    assert_guest_on(machine, disk, chain.top, chain.paths())
    job.wait_completed("cancelled")
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


def test_abort_by_force_when_ready(lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    job.abort(force=True)
    assert job["Result"] == "cancelled"
    assert_guest_on(machine, disk, chain.top, chain.paths())
    job.wait_completed("cancelled")


@pytest.mark.parametrize("end", ["keep", "cancel", "force"])
def test_base_is_read_only_again(lab, end):
    """Base belongs to whoever else builds on it as soon as the job is over."""
    machine, chain, disk = lab.slow()
    assert machine.nodes()["vda-0"]["ro"] is True
    job = disk.commit(active=True, speed=SLOW if end == "cancel" else 0)
    if end != "cancel":
        job.wait_ready()
    job.abort(force=end == "force")
    assert machine.nodes()["vda-0"]["ro"] is True
    assert [layer["read-only"] for layer in disk["Chain"]] == [False, True]
    # The lock is gone with it: another QEMU may read the image.
    images.run("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 64k", chain.base.path)


def test_commit_again_after_keep_and_cancel(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True)
    job.wait_ready()
    job.abort()
    job = disk.commit(active=True, speed=SLOW)
    job.abort()
    job = disk.commit(active=True)
    job.wait_ready()
    machine.write("vda", 9, 20 * MIB, MIB)
    job.pivot()
    job.wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


def test_auto_pivot(lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(auto="pivot")
    job.wait_completed("completed")
    assert_guest_on(machine, disk, chain.base, [chain.base.path])
    assert lab.client.heard(job.path, "Ready"), "Ready is told even where nobody has to act on it"
    machine.kill()
    images.assert_contents(chain.base, chain.contents[-1])


def test_auto_keep(lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(auto="keep")
    job.wait_completed("kept")
    assert_guest_on(machine, disk, chain.top, chain.paths())
    machine.kill()
    images.assert_contents(chain.base, chain.contents[-1])
    images.assert_identical(chain.base, chain.top)


def test_early_pivot_and_then_the_right_one(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    with refused("NotReady"):
        job.pivot()
    with refused("NotReady"):
        job.pivot(**{"async": True})
    assert job["State"] == "running" and job["Result"] == ""
    job.set_speed(0)
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")
    assert_guest_on(machine, disk, chain.base, [chain.base.path])


def test_second_commit(lab):
    machine, chain, disk = lab.slow()
    first = disk.commit(active=True, speed=SLOW)
    with refused("JobActive", first["Id"]):
        disk.commit(active=True)
    assert first["State"] == "running"
    assert len(machine.jobs()) == 1
    first.set_speed(0)
    first.wait_ready()
    with refused("JobActive", first["Id"]):
        disk.commit(auto="pivot")
    first.pivot()
    first.wait_completed("completed")
    images.assert_contents(chain.base, chain.contents[-1])


def test_two_commits_at_the_same_time(lab):
    """Both calls are under way before either has an answer: one job, one refusal."""
    _, _, disk = lab.slow()
    calls = [lab.client.call_later(disk.path, "Disk", "Commit", "(a{sv})",
                                   options({"active": True})) for _ in range(2)]
    assert sorted(lab.client.wait_reply(call).kind for call in calls) == ["error", "reply"]


def test_two_disks_at_the_same_time(lab):
    chains = {target: images.slow_layers(lab.directory, target) for target in ("vda", "sda", "hda")}
    machine = lab.machine().add_virtio(chains["vda"]).add_scsi_controller().add_scsi(chains["sda"])
    machine.add_ide(chains["hda"]).start()
    domain = lab.attach(machine)
    jobs = {target: domain.disk(target).commit(active=True) for target in chains}
    assert set(domain["Jobs"]) == {job.path for job in jobs.values()}
    for job in jobs.values():
        job.wait_ready()
    jobs["vda"].pivot()
    jobs["sda"].abort()
    jobs["hda"].pivot()
    jobs["vda"].wait_completed("completed")
    jobs["sda"].wait_completed("kept")
    jobs["hda"].wait_completed("completed")
    assert domain["Jobs"] == []
    assert machine.active_file("vda") == chains["vda"].base.path
    assert machine.active_file("sda") == chains["sda"].top.path
    assert machine.active_file("hda") == chains["hda"].base.path
    machine.quit()
    for chain in chains.values():
        images.assert_contents(chain.base, chain.contents[-1])


def test_empty_overlay(lab):
    """Nothing to copy: ready at once, with a length of 0."""
    chain = images.Chain(lab.directory).add([(1, 0, 4 * MIB)]).add()
    machine, _, disk = lab.standard(chain)
    job = disk.commit(active=True)
    job.wait_ready()
    assert (job["Current"], job["Total"]) == (0, 0)
    assert 0.0 <= job["Progress"] <= 1.0
    machine.write("vda", 9, MIB, MIB)
    job.pivot()
    job.wait_completed("completed")
    assert_guest_on(machine, disk, chain.base, [chain.base.path])
    assert job["Progress"] == 1.0
    machine.kill()
    images.assert_contents(chain.base, chain.contents[-1])


def test_base_grows_with_a_larger_overlay(lab):
    for image_format in ("qcow2", "raw"):
        chain = images.Chain(lab.directory, image_format)
        chain.add([(1, 0, 8 * MIB)], image_format=image_format, size=8 * MIB)
        chain.add([(2, 4 * MIB, 8 * MIB)], size=16 * MIB)
        machine, _, disk = lab.standard(chain)
        disk.commit(auto="pivot").wait_completed("completed")
        assert disk["Capacity"] == 16 * MIB
        machine.quit()
        images.assert_contents(chain.base, chain.contents[-1])


def test_raw_base(lab):
    machine, chain, disk = lab.standard(images.two_layers(lab.directory, base_format="raw"))
    disk.commit(auto="pivot").wait_completed("completed")
    assert disk["Format"] == "raw"
    assert_guest_on(machine, disk, chain.base, [chain.base.path])
    machine.kill()
    images.assert_contents(chain.base, chain.contents[-1])


@pytest.mark.parametrize("target", [None, "vdb"], ids=["if=virtio", "if=none"])
def test_legacy_drive(lab, target):
    chain = images.layers(lab.directory, 3)
    machine = lab.machine().add_legacy(chain, "drive0", target).start()
    name = target or "drive0"
    disk = lab.attach(machine).disk(name)
    job = disk.commit(active=True)
    job.wait_ready()
    machine.write(name, 9, 20 * MIB, MIB)
    job.abort()
    job.wait_completed("kept")
    assert machine.active_file(name) == chain.top.path
    job = disk.commit(active=True)
    job.wait_ready()
    machine.write(name, 10, 22 * MIB, MIB)
    job.pivot()
    job.wait_completed("completed")
    assert machine.active_file(name) == chain.base.path
    assert disk["Source"] == chain.base.path
    assert disk.sources() == [chain.base.path]
    assert machine.jobs() == {}
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


@pytest.mark.parametrize("end", ["pivot", "keep"])
def test_filter_stays_above_the_disk(lab, end):
    """A throttle that silently disappears is a fault: it is there during the job, and after it."""
    machine, chain, disk = lab.standard(throttle={"bps-total": 100 * MIB})
    job = disk.commit(active=True)
    job.wait_ready()
    assert disk["Filters"] == ["throttle"]
    job.pivot() if end == "pivot" else job.abort()
    layer = chain.base if end == "pivot" else chain.top
    assert machine.block("vda")["inserted"]["node-name"] == "vda-throttle"
    assert machine.active_file("vda") == layer.path
    assert disk["Filters"] == ["throttle"]
    assert disk["Source"] == layer.path
    # And it throttles: the group knows of the disk's writes.
    limits = machine.qmp.execute("qom-get", path="/objects/vda-group", property="limits")
    assert limits["bps-total"] == 100 * MIB
    machine.write("vda", 9, 20 * MIB, MIB)
    machine.quit()
    images.assert_contents(layer, chain.contents[-1])
