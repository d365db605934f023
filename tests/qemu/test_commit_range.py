# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commit of layers in the middle of a chain: one phase, and the disk stays where it is."""

import os

import pytest

from kit import chains, images
from kit.bus import ROOT, BusError, refused
from kit.images import KIB, MIB
from kit.nbd import Writer
from kit.space import SmallDisk

SLOW = 64 * KIB

# How many layers there are, the numbers (from the bottom) of those that are meant by top and base, and the options
# that say so.
RANGES = {
    "three-layers": (3, 1, 0, lambda chain: {"top": "[1]"}),
    "depth": (4, 2, 0, lambda chain: {"top": "[1]", "base": "[3]"}),
    "depth-of-target": (5, 2, 1, lambda chain: {"top": "vda[2]", "base": "vda[3]"}),
    "path": (5, 3, 1, lambda chain: {"top": chain.layers[3].path, "base": chain.layers[1].path}),
    "node": (6, 3, 1, lambda chain: {"top": "node:vda-3", "base": "node:vda-1"}),
    "shallow": (5, 3, 2, lambda chain: {"top": "[1]", "shallow": True}),
    "bottom": (6, 2, 0, lambda chain: {"top": "[3]", "shallow": False}),
}


@pytest.mark.parametrize("way", RANGES)
def test_range(lab, way):
    count, top, base, wanted = RANGES[way]
    chain = images.layers(lab.directory, count)
    machine, _, disk = lab.standard(chain)
    others = chain.layers[:base] + chain.layers[base + 1:top + 1] + chain.layers[top + 2:-1]
    before = chains.digests(others)
    source, target = chain.layers[top].path, chain.layers[base].path
    job = disk.commit(**wanted(chain))
    assert (job["Type"], job["Source"], job["Target"]) == ("commit", source, target)
    assert job.wait_completed("completed") == ("completed", "", "")
    chains.merge(chain, top, base)
    chains.assert_layers(machine, disk, chain, chains.left_numbers(count, top, base))
    machine.write("vda", 9, 20 * MIB, MIB)
    machine.quit()
    chains.assert_images(chain)
    # The layers below base and above the overlay have nothing to do with it, and the merged files are left alone.
    assert chains.digests(others) == before


def test_properties(lab):
    chain = chains.slow_middle(lab.directory)
    machine, _, disk = lab.standard(chain)
    position = lab.client.position()
    job = disk.commit(top="[1]", base="[2]", speed=SLOW, on_error="stop")
    properties = job.all()
    assert properties["Type"] == "commit"
    assert properties["State"] == "running" and properties["Result"] == ""
    assert properties["Source"] == chain.layers[1].path
    assert properties["Target"] == chain.base.path
    assert properties["Mode"] == ""
    assert properties["Ready"] is False
    assert properties["Speed"] == SLOW
    assert properties["ReadyTime"] == properties["EndTime"] == properties["GuestHold"] == 0
    assert properties["Options"] == {"top": "[1]", "base": "[2]", "speed": SLOW, "on-error": "stop"}
    assert properties["QemuJobId"] in machine.jobs()
    assert properties["DiskTarget"] == "vda" and disk["Job"] == job.path
    # The filter of the job itself is none of the disk's, and no layer.
    assert disk["Filters"] == [] and disk["NodeName"] == "vda-2"
    assert disk.sources() == chain.paths()
    with refused("NotReady"):
        job.pivot()
    assert job["State"] == "running"
    job.set_speed(0)
    job.wait_completed("completed")
    properties = job.all()
    assert properties["Ready"] is False and properties["ReadyTime"] == properties["GuestHold"] == 0
    assert properties["Mode"] == ""
    assert properties["StartTime"] <= properties["EndTime"]
    assert properties["Progress"] == 1.0 and properties["Current"] == properties["Total"] > 0
    assert not lab.client.heard(job.path, "Ready")
    states = job.changes("State", position)
    assert states[-1] == "concluded" and "ready" not in states


def test_chain_is_told_before_the_end(lab):
    chain = images.layers(lab.directory, 3)
    _, _, disk = lab.standard(chain)
    position = lab.client.position()
    disk.commit(top="[1]").wait_completed("completed")
    log = lab.client.log[position:]
    end = next(number for number, heard in enumerate(log) if heard.member == "Completed")
    told = [heard.arguments[1]["Chain"] for heard in log[:end] if heard.path == disk.path
            and heard.member == "PropertiesChanged" and "Chain" in heard.arguments[1]]
    assert told and [layer["source"] for layer in told[-1]] == [chain.top.path, chain.base.path]
    assert not [heard for heard in log if heard.path == disk.path and heard.member == "PropertiesChanged"
                and "Source" in heard.arguments[1]], "the disk has not moved"


def test_guest_writes_meanwhile(lab):
    chain = chains.slow_middle(lab.directory, 4, number=2)
    machine, _, disk = lab.standard(chain)
    job = disk.commit(top="[1]", base="[3]", speed=SLOW)
    # Over what is copied, over what is below it, and where nothing was.
    machine.write("vda", 9, 0, 96 * KIB)
    machine.write("vda", 10, MIB, MIB)
    machine.write("vda", 11, 20 * MIB, MIB)
    assert job["State"] == "running"
    job.set_speed(0)
    machine.write("vda", 12, 2 * MIB, 64 * KIB)
    job.wait_completed("completed")
    chains.merge(chain, 2, 0)
    machine.write("vda", 13, 22 * MIB, MIB)
    machine.quit()
    chains.assert_images(chain)


def test_guest_that_writes_all_the_time(lab):
    """It is never held, and whatever was acknowledged to it is found by the headers when QEMU is killed."""
    chain = chains.slow_middle(lab.directory)
    machine, _, disk = lab.standard(chain, share=True)
    writer = Writer(machine.export("vda", "vda-2"), "vda", 16 * MIB, 1024)
    try:
        writer.wait_more()
        job = disk.commit(top="[1]", speed=SLOW)
        writer.wait_more()
        job.set_speed(0)
        job.wait_completed("completed")
        assert job["GuestHold"] == 0
        writer.wait_more(8)
    finally:
        machine.kill()
        writer.stop()
    chains.merge(chain, 1, 0)
    chains.assert_headers(chain)
    found = images.read_image(chain.top.path, chain.top.format)
    writer.assert_all_in(found)
    assert found[:16 * MIB] == chain.contents[-1][:16 * MIB]
    images.assert_contents(chain.base, chain.contents[0])


def test_killed_right_after_the_end(lab):
    """Completed says that it is on stable storage: what the headers say is the disk, byte by byte."""
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    machine.write("vda", 9, 20 * MIB, MIB)
    chains.flush(machine, "vda")
    job = disk.commit(top="[1]", base="[3]")
    lab.client.wait_signal(job.path, "Completed")
    machine.kill()
    chains.merge(chain, 2, 0)
    chains.assert_headers(chain)
    for layer, contents in zip(chain.layers, chain.contents):
        images.assert_contents(layer, contents)
    job.wait_completed("completed")
    lab.domain_of(machine).wait("State", "crashed")
    assert job["Result"] == "completed" and disk.sources() == chain.paths()


@pytest.mark.parametrize("force", [False, True])
def test_abort(lab, force):
    """Nothing of the disk is lost: base is incomplete, but what lies above it covers that."""
    chain = chains.slow_middle(lab.directory, 4, number=2)
    machine, _, disk = lab.standard(chain)
    job = disk.commit(top="[1]", base="[3]", speed=SLOW)
    machine.write("vda", 9, 20 * MIB, MIB)
    job.wait("Current", lambda current: current > 0)
    job.abort(force=force)
    job.wait_completed("cancelled")
    chains.assert_layers(machine, disk, chain, range(4))
    machine.write("vda", 10, 22 * MIB, MIB)
    if force:
        # And again, to the end.
        disk.commit(top="[1]", base="[3]").wait_completed("completed")
        chains.merge(chain, 2, 0)
    machine.quit()
    chains.assert_headers(chain)
    for layer, contents in list(zip(chain.layers, chain.contents))[0 if force else 2:]:
        images.assert_contents(layer, contents)


@pytest.mark.parametrize("end", ["completed", "cancelled"])
def test_base_is_free_again(lab, end):
    chain = chains.slow_middle(lab.directory)
    machine, _, disk = lab.standard(chain)
    job = disk.commit(top="[1]", speed=SLOW)
    assert machine.nodes()["vda-0"]["ro"] is False
    job.abort() if end == "cancelled" else job.set_speed(0)
    job.wait_completed(end)
    assert machine.nodes()["vda-0"]["ro"] is True
    # Read-only, and without QEMU's lock for writing: another QEMU may read the image.
    images.run("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 64k", chain.base.path)


def test_one_layer_after_the_other(lab):
    """A long chain gets flat step by step, and the active layer comes last."""
    chain = images.layers(lab.directory, 6)
    machine, _, disk = lab.standard(chain)
    for number in range(4, 0, -1):
        disk.commit(top="[1]", shallow=True).wait_completed("completed")
        machine.write("vda", 20 + number, (20 + number) * MIB, 64 * KIB)
        chains.merge(chain, number, number - 1)
    chains.assert_layers(machine, disk, chain, [0, 5])
    disk.commit(auto="pivot").wait_completed("completed")
    chains.merge(chain, 1, 0)
    chains.assert_layers(machine, disk, chain, [0])
    machine.quit()
    chains.assert_images(chain)


def test_legacy_drive(lab):
    """Where QEMU names the nodes itself, and drops them itself."""
    chain = images.layers(lab.directory, 4)
    machine = lab.machine().add_legacy(chain, "drive0", "vdb").start()
    disk = lab.attach(machine).disk("vdb")
    disk.commit(top="[1]", base="[3]").wait_completed("completed")
    chains.merge(chain, 2, 0)
    assert {node["file"] for node in machine.nodes().values()} == set(chain.paths())
    chains.assert_told(disk, chain)
    machine.write("vdb", 9, 20 * MIB, MIB)
    machine.quit()
    chains.assert_images(chain)


# Filters.

@pytest.mark.parametrize("below, driver", [("vda-0", "throttle"), ("vda-0", "copy-on-read"), ("vda-1", "throttle")])
def test_filter_between_the_merged_layers(lab, below, driver):
    chain = images.layers(lab.directory, 4)
    machine = chains.layered(lab, {below: driver}).add_virtio(chain).start()
    disk = lab.attach(machine).disk("vda")
    assert disk.sources() == chain.paths() and disk["Filters"] == []
    disk.commit(top="[1]", base="[3]").wait_completed("completed")
    chains.merge(chain, 2, 0)
    assert {name for name in machine.nodes() if name.startswith("vda-")} == {"vda-0", "vda-0-file", "vda-3",
                                                                           "vda-3-file"}
    assert disk.sources() == chain.paths()
    machine.write("vda", 9, 20 * MIB, MIB)
    machine.quit()
    chains.assert_images(chain)


@pytest.mark.parametrize("driver", ["throttle", "copy-on-read"])
def test_filter_between_top_and_the_overlay(lab, driver):
    """QEMU alone would leave the overlay's header as it is, and with the merged files gone the disk were lost."""
    chain = images.layers(lab.directory, 4)
    machine = chains.layered(lab, {"vda-2": driver}).add_virtio(chain).start()
    disk = lab.attach(machine).disk("vda")
    gone = [layer.path for layer in chain.layers[1:3]]
    disk.commit(top="[1]", base="[3]", delete=True).wait_completed("completed")
    chains.merge(chain, 2, 0)
    assert not {"vda-1", "vda-1-file", "vda-2", "vda-2-file"} & set(machine.nodes())
    assert disk.sources() == chain.paths()
    assert not [path for path in gone if os.path.exists(path)]
    machine.kill()
    chains.assert_headers(chain)
    for layer, contents in zip(chain.layers, chain.contents):
        images.assert_contents(layer, contents)


@pytest.mark.parametrize("options", [{"auto": "pivot"}, {"top": "[1]"}], ids=["active", "middle"])
def test_filter_above_the_disk(lab, options):
    """A throttle above the root stays, and one between two layers goes with them."""
    chain = images.layers(lab.directory, 3)
    machine = chains.layered(lab, {"vda-0": "throttle"}).add_virtio(chain, throttle={"bps-total": 100 * MIB}).start()
    disk = lab.attach(machine).disk("vda")
    job = disk.commit(**options)
    job.wait_completed("completed")
    active = "auto" in options
    chains.merge(chain, 2 if active else 1, 0)
    chains.assert_layers(machine, disk, chain, [0] if active else [0, 2], root="vda-throttle")
    assert disk["Filters"] == ["throttle"]
    machine.write("vda", 9, 20 * MIB, MIB)
    machine.quit()
    chains.assert_images(chain)


# Trouble.

def test_no_room_and_then_some(lab):
    small = SmallDisk(f"{lab.directory}/small", 5 * 1024)
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, 4 * MIB)], file_name="small/base.qcow2").add([(2, 8 * MIB, 4 * MIB)]).add()
    machine, _, disk = lab.standard(chain)
    try:
        job = disk.commit(top="[1]", on_error="stop")
        job.wait("State", "paused")
        job.wait("IoStatus", "nospace")
        small.resize(32 * 1024)
        job.resume()
        job.wait_completed("completed")
        assert job["IoStatus"] == "ok"
        chains.merge(chain, 1, 0)
        chains.assert_layers(machine, disk, chain, [0, 2])
        machine.quit()
        chains.assert_images(chain)
    finally:
        machine.kill()
        small.remove()


def test_any_other_job(lab):
    chain = chains.slow_middle(lab.directory)
    machine, _, disk = lab.standard(chain)
    first = disk.commit(top="[1]", speed=SLOW)
    files = set(os.listdir(lab.directory))
    new = f"{lab.directory}/new.qcow2"
    for call in (lambda: disk.commit(top="[1]"), lambda: disk.commit(active=True), disk.pull,
                 lambda: disk.copy(new), lambda: disk.backup(new), lambda: disk.snapshot(new),
                 lambda: disk.resize(64 * MIB)):
        with refused("JobActive", first["Id"]):
            call()
    assert set(os.listdir(lab.directory)) == files
    assert first["State"] == "running" and len(machine.jobs()) == 1
    first.set_speed(0)
    first.wait_completed("completed")
    # And the other way round.
    second = disk.commit(active=True)
    with refused("JobActive", second["Id"]):
        disk.commit(top="[1]")


@pytest.fixture
def fixed():
    """Makes a file or directory unchangeable, until the end of the test."""
    mounts = []
    yield lambda path: mounts.append(chains.ReadOnlyMount(path))
    for mount in mounts:
        mount.remove()


def test_overlay_that_cannot_be_written(lab, fixed):
    """At the end of such a job QEMU would not be able to change the overlay's header, and would crash."""
    chain = images.layers(lab.directory, 4)
    fixed(chain.layers[2].path)
    machine, _, disk = lab.standard(chain)
    position = lab.client.position()
    with pytest.raises(BusError) as error:
        disk.commit(top="[2]")
    assert chain.layers[2].path in error.value.message
    assert machine.running() and not lab.client.heard(ROOT, "JobNew", position)
    chains.assert_layers(machine, disk, chain, range(4))
    machine.quit()
    chains.assert_images(chain)


def test_overlay_that_cannot_be_written_any_more(lab, fixed):
    """The same, but it happens while the job runs: QEMU lives, and the images are those of what is told."""
    chain = chains.slow_middle(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    job = disk.commit(top="[2]", speed=SLOW)
    fixed(chain.layers[2].path)
    job.set_speed(0)
    result = job.wait_completed()[0]
    assert result in ("completed", "failed", "cancelled")
    assert machine.running()
    if result == "completed":
        chains.merge(chain, 1, 0)
    chains.assert_layers(machine, disk, chain, [0, 2, 3] if result == "completed" else range(4))
    machine.quit()
    chains.assert_headers(chain)
    images.assert_contents(chain.top, chain.contents[-1])


# Refusals.

@pytest.fixture
def untouched(lab):
    """(chain, disk): a disk of four layers that must be as it was afterwards."""
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    position = lab.client.position()
    yield chain, disk
    assert machine.running() and machine.jobs() == {}
    assert not lab.client.heard(ROOT, "JobNew", position)
    assert set(chain.paths()) <= {f"{lab.directory}/{name}" for name in os.listdir(lab.directory)}
    chains.assert_layers(machine, disk, chain, range(4))


@pytest.mark.parametrize("word, options", [
    ("base", {"top": "[1]", "base": "[1]"}),
    ("base", {"top": "[2]", "base": "[1]"}),
    ("base", {"top": "[1]", "base": "[0]"}),
    ("top", {"top": "[3]"}),
    ("top", {"top": "[3]", "shallow": True}),
    ("active", {"top": "[1]", "active": True}),
    ("auto", {"top": "[1]", "auto": "pivot"}),
    ("auto", {"top": "[1]", "auto": "keep"}),
    ("shallow", {"top": "[1]", "base": "[2]", "shallow": True}),
    ("relative", {"active": True, "relative": True}),
    ("backing", {"auto": "pivot", "backing": "disk-0.qcow2"}),
    ("keep-top", {"auto": "pivot", "keep_top": True}),
    ("backing", {"top": "[1]", "relative": True, "backing": "disk-0.qcow2"}),
    ("keep-top", {"top": "[1]", "keep_top": True, "delete": True}),
    ("top", {"top": "relative/path"}),
    ("top", {"top": ""}),
], ids=lambda value: value if isinstance(value, str) else "-".join(f"{key}={text}" for key, text in value.items()))
def test_refused(untouched, word, options):
    _, disk = untouched
    with refused("InvalidArgument", word):
        disk.commit(**options)


@pytest.mark.parametrize("option", ["top", "base"])
def test_no_such_image(untouched, option):
    chain, disk = untouched
    for name in ("[9]", "vda[4]", "/no/such/file", "node:nothing"):
        with refused("NoSuchImage", name, *chain.paths()):
            disk.commit(**{"top": "[1]", option: name})


@pytest.mark.parametrize("option", ["top", "base"])
def test_two_layers_that_are_one_file(lab, option):
    chain = images.layers(lab.directory, 4)
    double = f"{lab.directory}/double.qcow2"
    os.link(chain.layers[1].path, double)
    chain.layers.insert(2, images.Layer(double, "qcow2", images.SIZE))
    machine = lab.machine().add_virtio(chain).start()
    disk = lab.attach(machine).disk("vda")
    with refused("Ambiguous", chain.layers[1].path):
        disk.commit(**{"top": "[1]", option: chain.layers[1].path})
    assert machine.jobs() == {}


def alone(layer, contents):
    """A chain that begins with this image."""
    chain = images.Chain(os.path.dirname(layer.path), "other")
    chain.layers, chain.contents = [layer], [contents.copy()]
    return chain


@pytest.mark.parametrize("force", [False, True])
def test_base_that_another_qemu_uses(lab, force):
    """Its lock tells so, and no option helps against that."""
    chain = images.layers(lab.directory, 3)
    machine, _, disk = lab.standard(chain)
    other = lab.machine().add_virtio(alone(chain.base, chain.contents[0]), read_only=True).start()
    with refused("ImageInUse", chain.base.path):
        disk.commit(top="[1]", force=force)
    chains.assert_layers(machine, disk, chain, range(3))
    other.quit()
    disk.commit(top="[1]").wait_completed("completed")


@pytest.mark.parametrize("where, options", [
    ("same", {"top": "[1]"}), ("other", {"top": "[1]"}), ("other", {"active": True}),
], ids=["same-machine", "other-machine", "active"])
def test_base_of_another_disk(lab, where, options):
    """Without locks, as on some network file systems, it is the service that knows. Who uses it is named."""
    chain = images.layers(lab.directory, 3)
    other = alone(chain.base, chain.contents[0]).add([(7, 0, MIB)])
    machine = chains.layered(lab, locking="off").add_virtio(chain)
    second = machine if where == "same" else chains.layered(lab, locking="off")
    second.add_virtio(other, "vdb")
    disk = lab.attach(machine.start()).disk("vda")
    if where == "other":
        lab.attach(second.start())
    with refused("ImageInUse", chain.base.path, "vdb", second.name if where == "other" else "vdb"):
        disk.commit(**options)
    assert machine.jobs() == {} and machine.nodes()["vda-0"]["ro"] is True
    job = disk.commit(force=True, **options)
    if "active" in options:
        job.wait_ready()
        job.pivot()
    job.wait_completed("completed")
    assert disk["Source"] == (chain.base if "active" in options else chain.top).path
