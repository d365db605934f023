# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commits that cannot be: refused by a method error, before anything is touched."""

import pytest
from gi.repository import GLib

from kit import images
from kit.bus import ROOT, refused
from kit.images import MIB


@pytest.fixture
def untouched(lab):
    """A disk that must be as it was afterwards: no job, no signal of one, the same chain."""
    machine, chain, disk = lab.standard()
    position = lab.client.position()
    yield disk
    assert machine.jobs() == {}
    assert not lab.client.heard(ROOT, "JobNew", position)
    assert disk.sources() == chain.paths()
    assert machine.nodes()["vda-0"]["ro"] is True
    # And it still can be committed.
    disk.commit(auto="pivot").wait_completed("completed")


SENTENCE = "commit of 'vda' active layer requires the active option"


@pytest.mark.parametrize("options", [{}, {"active": False}, {"shallow": True}, {"base": "[1]"}, {"speed": 5}])
def test_two_phases_must_be_known(untouched, options):
    with refused("InvalidArgument", SENTENCE):
        untouched.commit(**options)


@pytest.mark.parametrize("key", ["activ", "Active", "", "on_error", "active ", "bandwidth"])
def test_unknown_option(lab, untouched, key):
    values = {"active": GLib.Variant("b", True), key: GLib.Variant("s", "x")}
    with refused("InvalidArgument", key):
        untouched.call("Commit", "(a{sv})", values)


@pytest.mark.parametrize("key, value", [
    ("base", GLib.Variant("u", 1)), ("base", GLib.Variant("o", "/x")), ("shallow", GLib.Variant("s", "true")),
    ("active", GLib.Variant("s", "true")), ("active", GLib.Variant("i", 1)), ("auto", GLib.Variant("b", True)),
    ("speed", GLib.Variant("s", "1M")), ("speed", GLib.Variant("i", 1)), ("speed", GLib.Variant("u", 1)),
    ("speed", GLib.Variant("d", 1.0)), ("on-error", GLib.Variant("b", True)), ("top", GLib.Variant("b", True)),
    ("delete", GLib.Variant("s", "yes")), ("relative", GLib.Variant("s", "yes")),
    ("backing", GLib.Variant("b", True)), ("force", GLib.Variant("s", "yes")),
    ("active", GLib.Variant("v", GLib.Variant("b", True))),
], ids=lambda value: value if isinstance(value, str) else value.print_(True))
def test_wrong_type(untouched, key, value):
    values = {"active": GLib.Variant("b", True), key: value}
    with refused("InvalidArgument", key):
        untouched.call("Commit", "(a{sv})", values)


@pytest.mark.parametrize("key, value", [
    ("auto", "now"), ("auto", ""), ("auto", "Pivot"), ("on-error", "never"), ("on-error", ""),
    ("speed", 1 << 63), ("speed", (1 << 64) - 1),
])
def test_value_out_of_range(untouched, key, value):
    with refused("InvalidArgument", key):
        untouched.commit(active=True, **{key: value})


@pytest.mark.parametrize("key, value", [("relative", True), ("backing", "base.qcow2"), ("keep-top", True)])
def test_option_of_a_commit_below_the_active_layer(untouched, key, value):
    with refused("InvalidArgument", key):
        untouched.commit(active=True, **{key: value})


def test_top_that_is_not_the_active_layer(lab):
    machine, _, disk = lab.standard(images.layers(lab.directory, 3))
    with refused("InvalidArgument", "top"):
        disk.commit(top="[1]", active=True)
    with refused("InvalidArgument", "top"):
        disk.commit(top="[1]", auto="pivot")
    assert machine.jobs() == {}


def test_top_that_is_the_active_layer(lab):
    machine, chain, disk = lab.standard()
    with refused("InvalidArgument", SENTENCE):
        disk.commit(top="[0]")
    disk.commit(top=chain.top.path, auto="pivot").wait_completed("completed")


def test_option_given_twice(untouched):
    builder = GLib.VariantBuilder(GLib.VariantType("a{sv}"))
    for text in ("[1]", "[0]"):
        builder.add_value(GLib.Variant.new_dict_entry(GLib.Variant("s", "base"),
                                                      GLib.Variant("v", GLib.Variant("s", text))))
    message = untouched.client.message(untouched.path, "Disk", "Commit")
    message.set_body(GLib.Variant.new_tuple(builder.end()))
    with refused("InvalidArgument", "base"):
        untouched.client.call_message(message)


def test_too_many_options(untouched):
    values = {f"key{number}": GLib.Variant("b", True) for number in range(65)}
    with refused("LimitExceeded"):
        untouched.call("Commit", "(a{sv})", values)


def test_without_a_backing_image(lab):
    chain = images.Chain(lab.directory).add([(1, 0, MIB)])
    machine, _, disk = lab.standard(chain)
    for options in ({"active": True}, {"auto": "pivot"}, {"active": True, "shallow": True}):
        with refused("InvalidArgument", "vda"):
            disk.commit(**options)
    assert machine.jobs() == {}


def test_drive_without_a_medium(lab):
    machine = lab.machine().add_empty_cd("cd").start()
    drive = lab.attach(machine).disk("cd")
    with refused("InvalidState", "cd"):
        drive.commit(active=True)


def test_base_larger_than_the_overlay(lab):
    """The disk would grow under the guest at the pivot."""
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, MIB)], size=32 * MIB).add([(2, 0, MIB)], size=16 * MIB)
    machine, _, disk = lab.standard(chain)
    with refused("InvalidArgument", "larger"):
        disk.commit(active=True)
    assert machine.jobs() == {}


def test_base_that_another_process_uses(lab):
    """QEMU's own locks refuse it; nothing of the attempt is left."""
    machine, chain, disk = lab.standard()
    other = lab.machine().add_virtio(base_alone(chain), read_only=True).start()
    position = lab.client.position()
    with pytest.raises(Exception) as error:
        disk.commit(active=True)
    assert error.value.short in ("ImageInUse", "QemuError")
    assert machine.jobs() == {}
    assert not lab.client.heard(ROOT, "JobNew", position)
    assert disk["Job"] == "/"
    other.quit()
    disk.commit(auto="pivot").wait_completed("completed")


def base_alone(chain):
    alone = images.Chain(chain.directory)
    alone.layers, alone.contents = chain.layers[:1], chain.contents[:1]
    return alone


def test_read_only_disk(lab):
    """An overlay that nobody writes to; whatever is decided, it is decided by the call."""
    machine, chain, disk = lab.standard(read_only=True)
    try:
        job = disk.commit(auto="pivot")
    except Exception as error:
        assert error.short in ("InvalidArgument", "InvalidState", "NotSupported", "QemuError")
        assert machine.jobs() == {}
    else:
        job.wait_completed("completed")
        images.assert_contents(chain.base, chain.contents[-1])


def test_job_of_somebody_else_on_the_disk(lab):
    machine, chain, disk = lab.slow()
    machine.qmp.execute("block-commit", job_id="theirs", device="vda-1", top_node="vda-1", base_node="vda-0",
                        speed=65536, auto_dismiss=False)
    with refused("JobActive", "theirs"):
        disk.commit(active=True)
    assert list(machine.jobs()) == ["theirs"]
