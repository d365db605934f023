# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copy of a disk while its guest runs: both phases, each end, and what each leaves in QEMU and in the images."""

import os
import time

import pytest
from gi.repository import GLib

from kit import images
from kit.bus import refused
from kit.images import KIB, MIB, Layer, SIZE
from kit.nbd import Writer
from kit.targets import SLOWLY, assert_disk, assert_free, child_of, node_of, open_files, prepare, read_file


@pytest.fixture
def path(lab):
    return f"{lab.directory}/target"


def pivot(job):
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")


# A kind of copy: its options, the format of the target, and which of three layers are below it afterwards.
KINDS = {"qcow2": ({}, "qcow2", []), "raw": ({"format": "raw"}, "raw", []),
         "shallow": ({"shallow": True}, "qcow2", [1, 0])}


@pytest.mark.parametrize("kind", KINDS)
def test_pivot(lab, path, kind):
    values, image_format, below = KINDS[kind]
    chain = images.layers(lab.directory, 3)
    machine, _, disk = lab.standard(chain)
    job = disk.copy(path, **values, **SLOWLY)
    # What is copied already, and what is not yet.
    machine.write("vda", 7, 0, 64 * KIB)
    machine.write("vda", 8, 3 * MIB, MIB)
    assert job["State"] == "running"
    job.set_speed(0)
    job.wait_ready()
    assert job["State"] == "ready" and job["Ready"] is True and job["Result"] == ""
    machine.write("vda", 9, 20 * MIB, MIB)
    before = chain.contents[-1].copy()
    job.pivot()
    # The reply says that the outcome is on stable storage: all of it holds now, without waiting.
    assert job["State"] == "concluded" and job["Result"] == "completed"
    assert_disk(machine, disk, path, *[chain.layers[number].path for number in below])
    assert disk["Format"] == image_format and disk["Capacity"] == SIZE
    job.wait_completed("completed")
    machine.write("vda", 10, 21 * MIB, MIB)
    machine.qmp.human(f"qemu-io {machine.write_names['vda']} flush")
    machine.kill()
    target = Layer(path, image_format, SIZE)
    images.assert_contents(target, chain.contents[-1])
    assert images.backing_string(target) == (chain.layers[1].path if below else "")
    # The old image does not follow the guest any more.
    images.assert_contents(chain.top, before)


@pytest.mark.parametrize("kind", KINDS)
def test_keep(lab, path, kind):
    values, image_format, _ = KINDS[kind]
    chain = images.layers(lab.directory, 3)
    machine, _, disk = lab.standard(chain)
    job = disk.copy(path, **values)
    job.wait_ready()
    machine.write("vda", 9, 20 * MIB, MIB)
    before = chain.contents[-1].copy()
    job.abort()
    assert job["Result"] == "kept"
    assert_disk(machine, disk, *chain.paths())
    assert_free(path, image_format=image_format)
    job.wait_completed("kept")
    # As of the abort, and on disk when the reply came.
    machine.write("vda", 10, 21 * MIB, MIB)
    images.assert_contents(Layer(path, image_format, SIZE), before)
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])
    if image_format == "qcow2":
        images.assert_sound(Layer(path, image_format, SIZE))


@pytest.mark.parametrize("shallow", [False, True], ids=["full", "shallow"])
@pytest.mark.parametrize("end", ["pivot", "keep"])
def test_automatic_end(lab, path, end, shallow):
    machine, chain, disk = lab.standard()
    job = disk.copy(path, auto=end, shallow=shallow)
    job.wait_completed("completed" if end == "pivot" else "kept")
    assert lab.client.heard(job.path, "Ready"), "Ready is told even where nobody has to act on it"
    moved = [path, chain.base.path] if shallow else [path]
    assert_disk(machine, disk, *(moved if end == "pivot" else chain.paths()))
    machine.kill()
    images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])
    assert images.backing_string(Layer(path, "qcow2", SIZE)) == (chain.base.path if shallow else "")


def test_disk_of_one_layer(lab, path):
    """There is nothing below it to stand on: a shallow copy is a full one."""
    chain = images.Chain(lab.directory).add([(1, 0, 4 * MIB)])
    machine, _, disk = lab.standard(chain)
    pivot(disk.copy(path, shallow=True))
    assert_disk(machine, disk, path)
    machine.kill()
    images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])


@pytest.mark.parametrize("ready", [False, True], ids=["running", "ready"])
def test_cancel(lab, path, ready):
    machine, chain, disk = lab.standard()
    job = disk.copy(path, **({} if ready else SLOWLY))
    if ready:
        job.wait_ready()
    else:
        with refused("NotReady"):
            job.pivot()
    job.abort(force=ready)
    assert job["Result"] == "cancelled"
    assert_disk(machine, disk, *chain.paths())
    assert_free(path)
    job.wait_completed("cancelled")
    # And the next one: the target is there now.
    pivot(disk.copy(path, reuse=True))
    machine.kill()
    images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])


def test_next_jobs_on_the_disk(lab, path):
    """After a pivot the disk is as good as new: a snapshot, a commit into the target, a copy of that, and back."""
    machine, chain, disk = lab.standard()
    pivot(disk.copy(path))
    machine.snapshot("vda", f"{lab.directory}/overlay.qcow2")
    machine.write("vda", 9, 20 * MIB, MIB)
    pivot(disk.copy(f"{path}-2", shallow=True))
    assert_disk(machine, disk, f"{path}-2", path)
    machine.write("vda", 10, 21 * MIB, MIB)
    disk.commit(auto="pivot").wait_completed("completed")
    assert_disk(machine, disk, path)
    pivot(disk.copy(chain.top.path, reuse=True))
    assert_disk(machine, disk, chain.top.path)
    machine.quit()
    images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])
    images.assert_contents(Layer(chain.paths()[0], "qcow2", SIZE), chain.contents[-1])


def test_two_disks_at_the_same_time(lab, path):
    chains = {target: images.two_layers(lab.directory, target) for target in ("vda", "sda")}
    machine = lab.machine().add_virtio(chains["vda"]).add_scsi_controller().add_scsi(chains["sda"]).start()
    domain = lab.attach(machine)
    disks = {target: domain.disk(target) for target in chains}
    jobs = {target: disk.copy(f"{path}-{target}") for target, disk in disks.items()}
    for job in jobs.values():
        job.wait_ready()
    jobs["sda"].pivot()
    jobs["vda"].abort()
    jobs["vda"].wait_completed("kept")
    jobs["sda"].wait_completed("completed")
    assert_disk(machine, disks["vda"], *chains["vda"].paths(), others=[f"{path}-sda"])
    assert_disk(machine, disks["sda"], f"{path}-sda", target="sda", others=chains["vda"].paths())
    machine.quit()
    for target, chain in chains.items():
        images.assert_contents(Layer(f"{path}-{target}", "qcow2", SIZE), chain.contents[-1])


# The chain below a shallow target.

def test_chain_is_attached_late(lab, path):
    """Until the pivot is asked for, the target stands on nothing in QEMU; then on the very node of the old chain."""
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    job = disk.copy(path, shallow=True)
    job.wait_ready()
    assert child_of(machine, node_of(machine, path), "backing") is None
    job.pivot()
    assert child_of(machine, node_of(machine, path), "backing") == "vda-1"
    assert child_of(machine, "vda-1", "backing") == "vda-0"
    machine.write("vda", 9, 20 * MIB, MIB)
    machine.quit()
    images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])


def test_chain_that_comes_later(lab, path):
    """A prepared target may stand on a copy of the chain that is made elsewhere meanwhile: all of the disk has moved,
    and nothing of the old images is needed any more."""
    machine, chain, disk = lab.standard()
    base = Layer(f"{lab.directory}/base.qcow2", "qcow2", SIZE)
    target = prepare(path, backing=base.path)
    job = disk.copy(path, shallow=True, reuse=True)
    job.wait_ready()
    machine.write("vda", 9, 20 * MIB, MIB)
    assert base.path not in open_files(machine)
    images.run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "qcow2", chain.base.path, base.path)
    job.pivot()
    job.wait_completed("completed")
    assert_disk(machine, disk, path, base.path)
    for layer in chain.paths():
        os.unlink(layer)
    machine.write("vda", 10, 21 * MIB, MIB)
    machine.quit()
    assert images.backing_string(target) == base.path
    images.assert_contents(target, chain.contents[-1])


def test_chain_that_does_not_come(lab, path):
    """It is missed when the pivot is asked for; the disk stays where it is, and the job as ready as it was."""
    machine, chain, disk = lab.standard()
    base = Layer(f"{lab.directory}/base.qcow2", "qcow2", SIZE)
    prepare(path, backing=base.path)
    job = disk.copy(path, shallow=True, reuse=True)
    job.wait_ready()
    for _ in range(2):
        with refused("QemuError", base.path):
            job.pivot()
        assert job["State"] == "ready" and job["Result"] == ""
        assert disk["Source"] == machine.active_file("vda") == chain.top.path
    machine.write("vda", 9, 20 * MIB, MIB)
    images.run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "qcow2", chain.base.path, base.path)
    pivot(job)
    assert_disk(machine, disk, path, base.path)
    machine.quit()
    images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])


def test_prepared_target_on_the_same_chain(lab, path):
    machine, chain, disk = lab.standard()
    target = prepare(path, backing=chain.base.path)
    pivot(disk.copy(path, shallow=True, reuse=True))
    assert_disk(machine, disk, path, chain.base.path)
    assert child_of(machine, node_of(machine, path), "backing") == "vda-0"
    machine.quit()
    images.assert_contents(target, chain.contents[-1])


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("directory", ["", "sub/deep/"])
def test_name_of_the_backing_file(lab, directory, relative):
    """In the header, from where the target is; a colon in it does not make a protocol of it."""
    os.makedirs(f"{lab.directory}/sub/deep")
    chain = images.Chain(lab.directory).add([(1, 0, 4 * MIB)], file_name="nbd:base.qcow2")
    chain.add([(2, 2 * MIB, 3 * MIB)])
    machine, _, disk = lab.standard(chain)
    target = Layer(f"{lab.directory}/{directory}target", "qcow2", SIZE)
    pivot(disk.copy(target.path, shallow=True, relative=relative))
    assert_disk(machine, disk, target.path, chain.base.path)
    machine.quit()
    found = images.information(target)
    names = {"": "./nbd:base.qcow2", "sub/deep/": "../../nbd:base.qcow2"}
    assert found["backing-filename"] == (names[directory] if relative else chain.base.path)
    assert found["backing-filename-format"] == "qcow2"
    images.assert_contents(target, chain.contents[-1])


# Filters.

LIMIT = 4 * MIB
THROTTLE = {"bps-write": LIMIT}


def assert_throttled(machine):
    """A guest's write is let through when those before it have been paid for, but for a tenth of a second."""
    start = time.monotonic()
    for number in range(3):
        machine.write("vda", 30 + number, (24 + number) * MIB, MIB // 2)
    assert time.monotonic() - start >= 2 * (MIB // 2) / LIMIT - 0.1


@pytest.mark.parametrize("end, shallow", [("pivot", False), ("pivot", True), ("keep", False)])
def test_filter_stays_above_the_disk(lab, path, end, shallow):
    """It limits the guest in the second phase and afterwards."""
    machine, chain, disk = lab.standard(throttle=THROTTLE)
    job = disk.copy(path, shallow=shallow)
    job.wait_ready()
    assert disk["Filters"] == ["throttle"] and disk["NodeName"] == "vda-throttle"
    assert_throttled(machine)
    job.pivot() if end == "pivot" else job.abort()
    assert disk["Filters"] == ["throttle"]
    assert machine.block("vda")["inserted"]["node-name"] == "vda-throttle"
    below = node_of(machine, path if end == "pivot" else chain.top.path)
    assert child_of(machine, "vda-throttle", "file") == below
    moved = [path, chain.base.path] if shallow else [path]
    assert_disk(machine, disk, *(moved if end == "pivot" else chain.paths()))
    assert_throttled(machine)
    machine.quit()
    images.assert_contents(Layer(path, "qcow2", SIZE) if end == "pivot" else chain.top, chain.contents[-1])


# A guest that writes all the time.

@pytest.fixture
def writing(lab):
    """(machine, chain, disk, writer): a slow chain whose guest writes already."""
    machine, chain, disk = lab.slow(share=True)
    writer = Writer(machine.export("vda", "vda-1"), "vda", 16 * MIB, 512)
    writer.wait_more()
    yield machine, chain, disk, writer
    writer.stopping.set()


def finish(writer, machine, layer):
    """The guest stops writing, QEMU is killed, and the image that is the disk has every record."""
    writer.wait_more()
    writer.stop()
    machine.kill()
    writer.assert_all_in(images.read_image(layer.path, layer.format))


@pytest.mark.parametrize("kind", KINDS)
def test_pivot_under_writes(writing, path, kind):
    values, image_format, below = KINDS[kind]
    machine, chain, disk, writer = writing
    job = disk.copy(path, **values, **SLOWLY)
    writer.wait_more()
    job.set_speed(0)
    job.wait_ready()
    writer.wait_more()
    job.pivot()
    job.wait_completed("completed")
    assert 0 < job["GuestHold"] < 30e6
    assert_disk(machine, disk, path, *([chain.base.path] if below else []))
    finish(writer, machine, Layer(path, image_format, SIZE))


def test_automatic_pivots_under_writes(writing, path):
    """There and back: the images that the guest has left are written over."""
    machine, _, disk, writer = writing
    for number in range(4):
        disk.copy(f"{path}-{number % 2}", reuse=number > 1, auto="pivot").wait_completed("completed")
        writer.wait_more(16)
    finish(writer, machine, Layer(f"{path}-1", "qcow2", SIZE))


@pytest.mark.parametrize("end", ["keep", "force", "cancel"])
def test_abort_under_writes(writing, path, end):
    machine, chain, disk, writer = writing
    job = disk.copy(path, **(SLOWLY if end == "cancel" else {}))
    if end != "cancel":
        job.wait_ready()
    writer.wait_more()
    job.abort(force=end == "force")
    job.wait_completed("kept" if end == "keep" else "cancelled")
    assert_disk(machine, disk, *chain.paths())
    finish(writer, machine, chain.top)
    images.read_image(path, "qcow2")


# Modes, speed, and units.

PLACE = 28 * MIB


def new_data(machine, path):
    """Writes far behind what a slow job has come to, and looks at once whether it is in the raw target."""
    machine.write("vda", 77, PLACE, 64 * KIB)
    return read_file(path, PLACE, 64 * KIB) == bytes([77]) * 64 * KIB


@pytest.mark.parametrize("mode", [None, "background", "write-blocking"])
def test_mode_at_the_start(lab, path, mode):
    machine, chain, disk = lab.slow()
    job = disk.copy(path, format="raw", mode=mode, **SLOWLY)
    assert job["Mode"] == (mode or "background")
    assert new_data(machine, path) == (mode == "write-blocking")
    assert job["State"] == "running" and job["Ready"] is False
    job.set_speed(0)
    pivot(job)
    machine.kill()
    images.assert_contents(Layer(path, "raw", SIZE), chain.contents[-1])


def test_mode_later(lab, path):
    """Where this QEMU can: from then on a write of the guest reaches both."""
    machine, chain, disk = lab.slow()
    job = disk.copy(path, format="raw", **SLOWLY)
    with refused("InvalidArgument", "background"):
        job.set_mode("background")
    if "set-mode" not in lab.domain_of(machine)["Capabilities"]:
        with refused("NotSupported", "block-job-change"):
            job.set_mode("write-blocking")
        assert job["Mode"] == "background" and job["State"] == "running"
        assert not new_data(machine, path)
    else:
        job.set_mode("write-blocking")
        lab.service.kill()
        lab.service.start()
        job.wait("Mode", "write-blocking")
        assert new_data(machine, path)
    job.set_speed(0)
    pivot(job)
    machine.kill()
    images.assert_contents(Layer(path, "raw", SIZE), chain.contents[-1])


@pytest.mark.parametrize("granularity, buffer", [(512, 512), (64 * KIB, MIB), (64 * MIB, None)])
def test_granularity_and_buffer(lab, path, granularity, buffer):
    machine, chain, disk = lab.standard()
    job = disk.copy(path, granularity=GLib.Variant("u", granularity), buffer=buffer)
    job.wait_ready()
    # QEMU keeps account of what is to be copied in this unit.
    found = {bitmap["granularity"] for node in machine.nodes().values() for bitmap in node.get("dirty-bitmaps", [])}
    assert found == {granularity}
    machine.write("vda", 9, 20 * MIB, 512)
    pivot(job)
    machine.kill()
    images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])


def test_speed(lab, path):
    machine, _, disk = lab.slow()
    job = disk.copy(path, **SLOWLY)
    assert job["Speed"] == SLOWLY["speed"] == machine.qmp.execute("query-block-jobs")[0]["speed"]
    job.wait("Current", lambda current: current > 0)
    # 4 MiB at 64 KiB/s: it is at its beginning.
    assert job["Current"] <= MIB < 4 * MIB <= job["Total"]
    job.set_speed(2 * SLOWLY["speed"])
    job.wait("Speed", 2 * SLOWLY["speed"])
    assert machine.qmp.execute("query-block-jobs")[0]["speed"] == 2 * SLOWLY["speed"]
    assert job["Ready"] is False
    job.set_speed(0)
    job.wait_ready()
    job.wait("Current", job["Total"])


# The job as an object.

def test_properties(lab, path):
    machine, chain, disk = lab.slow()
    job = disk.copy(path, shallow=True, on_source_error="stop", on_target_error="enospc", **SLOWLY)
    properties = job.all()
    assert properties["Type"] == "copy" and properties["State"] == "running" and properties["Result"] == ""
    assert properties["Source"] == chain.top.path and properties["Target"] == path
    assert properties["Mode"] == "background" and properties["IoStatus"] == "ok"
    assert properties["Disk"] == disk.path and properties["DiskTarget"] == "vda"
    assert properties["Domain"] == lab.domain_of(machine).path
    assert properties["Origin"] == "blockjobd" and properties["StartedBy"] == 0
    assert properties["QemuJobId"] == f"bj-copy-vda-{properties['Id']}" and properties["QemuJobId"] in machine.jobs()
    assert properties["Ready"] is False and properties["ReadyTime"] == properties["GuestHold"] == 0
    assert properties["Options"] == {"shallow": True, "on-source-error": "stop", "on-target-error": "enospc", **SLOWLY}
    assert disk["Job"] == job.path and job.path in lab.manager["Jobs"]
    # The disk is what it was until the pivot: neither the target nor the job's filter is any of it.
    assert disk.sources() == chain.paths() and disk["Filters"] == [] and disk["NodeName"] == "vda-1"
    block_job, = machine.qmp.execute("query-block-jobs")
    assert block_job["auto-finalize"] is False and block_job["auto-dismiss"] is False
    job.set_speed(0)
    pivot(job)
    properties = job.all()
    assert properties["Source"] == chain.top.path and properties["Target"] == path
    assert 0 < properties["StartTime"] <= properties["ReadyTime"] <= properties["EndTime"]
    assert 0 < properties["GuestHold"] < 30e6
    assert properties["Progress"] == 1.0 and properties["Current"] == properties["Total"] > 0


def test_order_of_signals(lab, path):
    _, _, disk = lab.standard()
    position = lab.client.position()
    job = disk.copy(path)
    pivot(job)
    lab.client.wait_signal("/org/blockjobd1", "JobRemoved", since=position)
    told = [(heard.member, heard.arguments) for heard in lab.client.log[position:] if heard.kind == "signal"]
    reply = next(number for number, heard in enumerate(lab.client.log[position:]) if heard.kind == "reply")
    names = [member for member, _ in told]
    order = ["InterfacesAdded", "JobNew", "Ready", "Completed", "JobRemoved"]
    assert [name for name in names if name in order] == order
    assert names.index("JobNew") < reply
    states = [changed["State"] for member, (_, changed, *_) in
              (entry for entry in told if entry[0] == "PropertiesChanged") if "State" in changed]
    assert [state for state in states if state != "running"] == ["ready", "completing", "concluded"]
    # Who hears Completed has been told of the disk's new source already.
    source = next(number for number, (member, arguments) in enumerate(told)
                  if member == "PropertiesChanged" and arguments[1].get("Source") == path)
    assert source < names.index("Completed")
    assert told[names.index("JobRemoved")][1] == (job["Id"], job.path, "completed")


@pytest.mark.parametrize("ready", [False, True], ids=["running", "ready"])
def test_disk_is_busy(lab, path, ready):
    machine, chain, disk = lab.slow()
    job = disk.copy(path, **({} if ready else SLOWLY))
    if ready:
        job.wait_ready()
    for call in (lambda: disk.copy(f"{path}-2"), lambda: disk.copy(path, reuse=True), lambda: disk.commit(active=True),
                 lambda: disk.pull(), lambda: disk.backup(f"{path}-2"), lambda: disk.snapshot(f"{path}-2"),
                 lambda: disk.resize(2 * SIZE)):
        with refused("JobActive", job["Id"]):
            call()
    assert job["State"] == ("ready" if ready else "running") and len(machine.jobs()) == 1
    assert not os.path.exists(f"{path}-2")
    job.set_speed(0)
    pivot(job)
    machine.kill()
    images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])
