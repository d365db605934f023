# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshot: a new active layer, the old one left as it is; and what is left when somebody dies on the way."""

import hashlib
import os
import re

import pytest
from gi.repository import GLib

from kit import images
from kit.bus import options, refused
from kit.every_job import SLOW, file_of_disk
from kit.faults import orphans
from kit.images import MIB
from kit.waiting import wait_until


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def overlay_of(lab, name="new.qcow2"):
    return f"{lab.directory}/{name}"


def prepare(path, below, backing=None, size=images.SIZE):
    """An overlay that somebody made before."""
    images.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing or below.path, "-F", below.format, path,
               str(size))


def add_to_model(machine, path):
    """Puts the overlay on top of what the tests know of the disk."""
    chain = machine.chains["vda"]
    chain.layers.append(images.Layer(path, "qcow2", chain.top.size))
    chain.contents.append(chain.contents[-1].copy())
    return chain.top


def assert_on(machine, disk, path, below):
    """The overlay is the disk, for QEMU and for everybody who reads the bus, and nothing is left over."""
    assert file_of_disk(machine) == path
    assert disk["Source"] == path
    assert disk.sources() == [path, *below]
    assert disk["Job"] == "/"
    assert orphans(machine) == []


def test_new_active_layer(lab):
    machine, chain, disk = lab.standard()
    below = chain.paths()
    digests = [digest(path) for path in below]
    path = overlay_of(lab)
    disk.snapshot(path)
    # The reply says that it is so: nothing is waited for.
    assert_on(machine, disk, path, below)
    assert disk["Format"] == "qcow2" and disk["Capacity"] == images.SIZE
    assert disk["NodeName"] == machine.block("vda")["inserted"]["node-name"]
    assert [layer["read-only"] for layer in disk["Chain"]] == [False, True, True]
    assert disk["Chain"][0]["backing"] == below[0]
    assert lab.manager.jobs(domain=machine.name) == []
    layer = add_to_model(machine, path)
    assert images.information(layer)["backing-filename-format"] == "qcow2"
    machine.write("vda", 9, 3 * MIB, MIB)
    machine.quit()
    images.assert_contents(layer, chain.contents[-1])
    images.assert_sound(layer)
    assert [digest(path) for path in below] == digests


def test_told_before_the_reply(lab):
    _, chain, disk = lab.standard()
    position = lab.client.position()
    path = overlay_of(lab)
    reply = lab.client.call_message(lab.client.message(disk.path, "Disk", "Snapshot", "(sa{sv})", path, {}))
    assert disk.changes("Source", position) == [path]
    told = lab.client.wait_signal(disk.path, "PropertiesChanged", since=position,
                                  where=lambda heard: "Source" in heard.arguments[1])
    replied = lab.client.wait(lambda heard: heard.reply_serial == reply.get_reply_serial() and heard.kind == "reply",
                              "the reply", since=position)
    log = lab.client.log
    assert log.index(told, position) < log.index(replied, position)
    assert [layer["source"] for layer in told.arguments[1]["Chain"]] == [path, *chain.paths()]
    assert not lab.client.heard(member="JobNew", since=position)


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_on_a_single_layer(lab, image_format):
    """The format is in the header: a raw image is never probed, whatever the guest writes at its start."""
    chain = images.Chain(lab.directory).add([(1, 0, 4 * MIB)], image_format=image_format)
    machine, _, disk = lab.standard(chain)
    path = overlay_of(lab)
    disk.snapshot(path)
    assert_on(machine, disk, path, [chain.base.path])
    layer = add_to_model(machine, path)
    assert images.information(layer)["backing-filename-format"] == image_format
    machine.quit()
    images.assert_contents(layer, chain.contents[-1])


def test_legacy_drive(lab):
    chain = images.two_layers(lab.directory)
    machine = lab.machine().add_legacy(chain, "drive0").start()
    disk = lab.attach(machine).disk("drive0")
    path = overlay_of(lab)
    disk.snapshot(path)
    assert file_of_disk(machine, "drive0") == disk["Source"] == path
    assert disk.sources() == [path, chain.top.path, chain.base.path]


@pytest.mark.parametrize("folder, name, expected", [
    ("", "disk-1.qcow2", "disk-1.qcow2"), ("snapshots/", "disk-1.qcow2", "../disk-1.qcow2"),
    # A name with a colon before any slash would be a protocol.
    ("", "nbd:disk,1 %20.qcow2", None),
], ids=["same-folder", "other-folder", "colon"])
def test_relative(lab, folder, name, expected):
    os.mkdir(f"{lab.directory}/snapshots")
    chain = images.Chain(lab.directory).add([(1, 0, 4 * MIB)]).add([(2, 2 * MIB, 3 * MIB)], file_name=name)
    machine, _, disk = lab.standard(chain)
    path = overlay_of(lab, f"{folder}new:1,2 %20.qcow2")
    disk.snapshot(path, relative=True)
    assert_on(machine, disk, path, chain.paths())
    layer = add_to_model(machine, path)
    machine.write("vda", 9, 3 * MIB, MIB)
    machine.quit()
    backing = images.backing_string(layer)
    assert not backing.startswith("/")
    assert expected in (None, backing)
    images.assert_contents(layer, chain.contents[-1])


@pytest.mark.parametrize("backing", [None, "disk-1.qcow2"], ids=["absolute", "relative"])
def test_reuse_of_a_prepared_overlay(lab, backing):
    """Its header stays as it was prepared; a file that is there is not taken without being asked for."""
    machine, chain, disk = lab.standard()
    path = overlay_of(lab)
    prepare(path, chain.top, backing)
    with refused("Exists", path):
        disk.snapshot(path)
    disk.snapshot(path, reuse=True)
    assert_on(machine, disk, path, chain.paths())
    layer = add_to_model(machine, path)
    machine.write("vda", 9, 3 * MIB, MIB)
    machine.quit()
    assert images.backing_string(layer) == (backing or chain.layers[1].path)
    images.assert_contents(layer, chain.contents[-1])


def test_filters_stay_above(lab):
    machine, chain, disk = lab.standard(throttle={"bps-total": 100 * MIB})
    path = overlay_of(lab)
    disk.snapshot(path)
    assert_on(machine, disk, path, chain.paths())
    assert disk["Filters"] == ["throttle"]
    assert machine.block("vda")["inserted"]["node-name"] == "vda-throttle"
    layer = add_to_model(machine, path)
    machine.write("vda", 9, 3 * MIB, MIB)
    machine.quit()
    images.assert_contents(layer, chain.contents[-1])


def test_commit_and_snapshot_again(lab):
    """iotest 144, with a write of the guest between any two steps."""
    machine, chain, disk = lab.standard()
    for number in range(2):
        path = overlay_of(lab, f"round-{number}.qcow2")
        disk.snapshot(path)
        add_to_model(machine, path)
        machine.write("vda", 20 + number, (8 + number) * MIB, MIB)
        job = disk.commit(shallow=True, active=True)
        job.wait_ready()
        machine.write("vda", 30 + number, (16 + number) * MIB, MIB)
        job.pivot()
        chain.layers.pop()
        chain.contents[-2:] = [chain.contents[-1]]
        assert_on(machine, disk, chain.top.path, [chain.base.path])
    path = overlay_of(lab, "last.qcow2")
    disk.snapshot(path)
    layer = add_to_model(machine, path)
    machine.write("vda", 40, 24 * MIB, MIB)
    assert_on(machine, disk, path, [chain.layers[1].path, chain.base.path])
    machine.quit()
    images.assert_contents(layer, chain.contents[-1])


def test_many_snapshots(lab):
    machine, chain, disk = lab.standard()
    expected = chain.paths()
    for number in range(6):
        path = overlay_of(lab, f"{number}.qcow2")
        disk.snapshot(path)
        expected.insert(0, path)
        add_to_model(machine, path)
        machine.write("vda", 50 + number, (6 + number) * MIB, MIB)
    assert_on(machine, disk, expected[0], expected[1:])
    disk.commit(auto="pivot").wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


# What cannot be: the disk, its chain and the folder are as they were, and the next one goes through.

@pytest.fixture
def untouched(lab):
    machine, chain, disk = lab.standard()
    position = lab.client.position()
    yield lab, chain, disk
    assert file_of_disk(machine) == disk["Source"] == chain.top.path
    assert disk.sources() == chain.paths()
    assert disk["Job"] == "/"
    assert disk.changes("Source", position) == []
    assert not os.path.exists(overlay_of(lab))
    disk.snapshot(overlay_of(lab))
    assert_on(machine, disk, overlay_of(lab), chain.paths())


def test_overlay_that_exists(untouched):
    lab, _, disk = untouched
    path = overlay_of(lab, "there")
    with open(path, "w") as file:
        file.write("somebody's letters")
    with refused("Exists", path):
        disk.snapshot(path)
    with open(path) as file:
        assert file.read() == "somebody's letters"


def test_overlay_that_is_missing(untouched):
    lab, _, disk = untouched
    with refused("NoSuchImage", overlay_of(lab)):
        disk.snapshot(overlay_of(lab), reuse=True)


@pytest.mark.parametrize("path", ["new.qcow2", "", "./new.qcow2", "nbd:localhost:10809"])
def test_no_absolute_path(untouched, path):
    with refused("InvalidArgument", path):
        untouched[2].snapshot(path)


def test_folder_that_is_missing(untouched):
    lab, _, disk = untouched
    with refused("InvalidArgument", overlay_of(lab, "none")):
        disk.snapshot(overlay_of(lab, "none/new.qcow2"))


@pytest.mark.parametrize("key, value", [
    ("format", GLib.Variant("s", "raw")), ("format", GLib.Variant("s", "")), ("reuse", GLib.Variant("s", "yes")),
    ("speed", GLib.Variant("t", 5)), ("relative", GLib.Variant("u", 1)),
], ids=lambda value: value if isinstance(value, str) else value.print_(False))
def test_option_that_is_not_right(untouched, key, value):
    lab, _, disk = untouched
    with refused("InvalidArgument", key):
        disk.call("Snapshot", "(sa{sv})", overlay_of(lab), {key: value})


@pytest.mark.parametrize("size", [images.SIZE // 2, images.SIZE * 2])
def test_prepared_overlay_of_another_size(untouched, size):
    lab, chain, disk = untouched
    path = overlay_of(lab, "prepared.qcow2")
    prepare(path, chain.top, size=size)
    before = digest(path)
    with refused("InvalidArgument", size, images.SIZE):
        disk.snapshot(path, reuse=True)
    assert digest(path) == before


@pytest.mark.parametrize("backing", ["base", "none", "missing"])
def test_prepared_overlay_on_something_else(untouched, backing):
    """After QEMU's end the header is what counts: the guest's data would be missing below the overlay."""
    lab, chain, disk = untouched
    path = overlay_of(lab, "prepared.qcow2")
    if backing == "none":
        images.run("qemu-img", "create", "-q", "-f", "qcow2", path, str(images.SIZE))
    else:
        prepare(path, chain.base, None if backing == "base" else "/no/such/image")
    before = digest(path)
    with refused("InvalidArgument", path):
        disk.snapshot(path, reuse=True)
    assert digest(path) == before


def test_overlay_that_is_the_disk(untouched):
    _, chain, disk = untouched
    for layer in chain.layers:
        for values in ({}, {"reuse": True}):
            with refused("InvalidArgument", layer.path):
                disk.snapshot(layer.path, **values)


def test_overlay_that_is_no_qcow2_image(untouched):
    lab, _, disk = untouched
    path = overlay_of(lab, "prepared.raw")
    images.run("qemu-img", "create", "-q", "-f", "raw", path, str(images.SIZE))
    with pytest.raises(Exception) as error:
        disk.snapshot(path, reuse=True)
    assert error.value.short in ("InvalidArgument", "QemuError")
    assert path in error.value.message or "qcow2" in error.value.message


def test_with_a_job_on_the_disk(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    with refused("JobActive", job["Id"]):
        disk.snapshot(overlay_of(lab))
    assert not os.path.exists(overlay_of(lab))
    assert job["State"] == "running"
    job.abort()
    disk.snapshot(overlay_of(lab))
    assert_on(machine, disk, overlay_of(lab), chain.paths())


def test_two_at_the_same_time(lab):
    """Whatever each of them is told, that is what the chain looks like."""
    machine, chain, disk = lab.standard()
    paths = [overlay_of(lab, f"{number}.qcow2") for number in range(2)]
    calls = [lab.client.call_later(disk.path, "Disk", "Snapshot", "(sa{sv})", path, {}) for path in paths]
    done = [path for path, call in zip(paths, calls) if lab.client.wait_reply(call).kind == "reply"]
    assert done
    assert disk.sources() == done[::-1] + chain.paths()
    assert_on(machine, disk, done[-1], disk.sources()[1:])
    assert [path for path in paths if os.path.exists(path)] == done


def test_of_a_machine_that_has_ended(lab):
    machine, chain, disk = lab.standard()
    machine.kill()
    lab.domain_of(machine).wait("State", "crashed")
    with refused("InvalidState"):
        disk.snapshot(overlay_of(lab))
    assert disk["Source"] == chain.top.path


# Death of QEMU and of the service.

@pytest.mark.parametrize("reuse", [False, True])
def test_qemu_killed_right_after_the_reply(lab, reuse):
    """Without a flush of anybody's: the overlay's header is in the file, not in QEMU's memory."""
    machine, chain, disk = lab.standard()
    path = overlay_of(lab)
    below = chain.paths()
    if reuse:
        prepare(path, chain.top)
    disk.snapshot(path, reuse=reuse)
    machine.kill()
    lab.domain_of(machine).wait("State", "crashed")
    assert disk["Source"] == path
    assert disk.sources() == [path, *below]
    layer = add_to_model(machine, path)
    images.assert_contents(layer, chain.contents[-1])
    images.assert_sound(layer)
    lab.service.restart()
    assert disk["Source"] == path


BEFORE = ["plan", "record-intent", "create-file", "open-file", "create-format", "open-format", "check-target",
          "check-overlay", "sync-target", "record-target"]
AFTER = ["look", "record-outcome", "tidy", "record-domain", "answer"]


def test_every_step_is_covered():
    """A new step without a test of its crash is found here."""
    with open(os.path.join(os.path.dirname(__file__), "../../src/job/snapshot.c")) as source:
        table = source.read().split("JobStep steps[]")[1].split("};")[0]
    # "begin" gives up what an earlier start of the service has left; it does nothing in the first. "close" is for
    # machines that are shut off, which have tests of their own.
    assert set(re.findall(r'\{ "([a-z-]+)"', table)) - {"begin", "close"} == {*BEFORE, "snapshot", *AFTER}


def snapshot_until_death(lab, disk, step, path, **keywords):
    lab.service.restart(stop_at=step)
    call = lab.client.call_later(disk.path, "Disk", "Snapshot", "(sa{sv})", path, options(keywords))
    assert lab.client.wait_reply(call).kind == "error"
    lab.service.wait_gone()


@pytest.mark.parametrize("step", [*BEFORE, "snapshot", *AFTER])
def test_service_killed(lab, step):
    """Nothing of a half-made snapshot stands in the way of the next one, and no write of the guest is lost."""
    machine, chain, disk = lab.standard()
    path = overlay_of(lab)
    # A header is looked at only where it was there before.
    reuse = step == "check-overlay"
    if reuse:
        prepare(path, chain.top)
    snapshot_until_death(lab, disk, step, path, reuse=reuse)
    assert file_of_disk(machine) == (path if step in AFTER else chain.top.path)
    if step in AFTER:
        add_to_model(machine, path)
    machine.write("vda", 9, 3 * MIB, MIB)
    lab.service.start()
    # What is recorded is carried out.
    if step == "snapshot":
        disk.wait("Source", path)
        wait_until(lambda: file_of_disk(machine) == path, "the snapshot to be made")
        add_to_model(machine, path)
    wait_until(lambda: disk["Job"] == "/" and not orphans(machine), "the nodes of a half-made snapshot to go")
    assert_on(machine, disk, chain.top.path, chain.paths()[1:])
    disk.snapshot(overlay_of(lab, "next.qcow2"))
    assert_on(machine, disk, overlay_of(lab, "next.qcow2"), chain.paths())
    layer = add_to_model(machine, overlay_of(lab, "next.qcow2"))
    machine.write("vda", 10, 12 * MIB, MIB)
    machine.quit()
    images.assert_contents(layer, chain.contents[-1])


@pytest.mark.parametrize("step", ["snapshot", "look"])
def test_service_and_qemu_killed(lab, step):
    """What is named as the disk can be started from, and shows what the guest had written."""
    machine, chain, disk = lab.standard()
    machine.write("vda", 9, 3 * MIB, MIB)
    path = overlay_of(lab)
    snapshot_until_death(lab, disk, step, path)
    machine.kill()
    lab.service.start()
    lab.domain_of(machine).wait("State", "crashed")
    source = disk["Source"]
    # Both show the same as long as nothing was written since; afterwards only the overlay does.
    assert source in ((path, chain.top.path) if step == "snapshot" else (path,))
    images.assert_contents(images.Layer(source, "qcow2", images.SIZE), chain.contents[-1])
    assert disk["Job"] == "/"
