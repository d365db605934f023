# SPDX-License-Identifier: LGPL-2.1-or-later
"""InspectImage: what an image is, what it stands on, and who uses it, whatever state they are in."""

import os
import socket

import pytest
from kit import images
from kit.bus import refused
from kit.own import disk_xml, domain_xml


def users(own, path, **keywords):
    return [layer["users"] for layer in own.inspect(path, **keywords)]


def user(domain, target="vda"):
    return f"disk '{target}' of domain '{domain['Name']}'"


def test_chain(own):
    chain = images.layers(own.directory, 3)
    seen = own.inspect(chain.top.path)
    assert [layer["source"] for layer in seen] == chain.paths() and [layer["depth"] for layer in seen] == [0, 1, 2]
    for layer, made in zip(seen, reversed(chain.layers)):
        known = images.information(made)
        assert layer["virtual-size"] == known["virtual-size"] and layer["allocated"] == known["actual-size"]
        assert layer["format"] == "qcow2" and layer["users"] == []
        assert layer["backing"] == known.get("backing-filename", "")
        assert layer["backing-format"] == known.get("backing-filename-format", "")
    assert own.inspect(chain.base.path)[0] | {"depth": 2} == seen[2]


@pytest.mark.parametrize("image_format", ["raw", "qcow2", "vmdk", "vdi", "qed", "vhdx", "vpc"])
def test_formats(own, image_format):
    path = f"{own.directory}/image"
    images.run("qemu-img", "create", "-q", "-f", image_format, path, str(images.SIZE))
    layer, = own.inspect(path)
    assert layer["format"] == image_format and layer["source"] == path
    if image_format in ("raw", "qcow2"):
        assert layer["virtual-size"] == images.SIZE


def test_format_that_is_given(own):
    """The caller knows what a guest may have written at its beginning."""
    chain = images.two_layers(own.directory)
    layer, = own.inspect(chain.top.path, format="raw")
    assert (layer["format"], layer["virtual-size"], layer["backing"]) == ("raw", os.path.getsize(chain.top.path), "")
    assert len(own.inspect(chain.top.path, format="qcow2")) == 2
    raw = images.Chain(own.directory, "raw").add([(1, 0, images.MIB)], image_format="raw")
    with refused("InvalidArgument", raw.top.path, "qcow2"):
        own.inspect(raw.top.path, format="qcow2")
    with refused("InvalidArgument", "format", "vmdk"):
        own.inspect(chain.top.path, format="vmdk")
    with refused("InvalidArgument", "depth"):
        own.inspect(chain.top.path, depth=1)


def test_nothing_is_changed(own):
    """No lock is taken and no byte written: its times stay, and somebody who writes is not held up."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    domain.start()
    before = [os.stat(path).st_mtime_ns for path in chain.paths()]
    assert len(own.inspect(chain.top.path)) == 2
    assert [os.stat(path).st_mtime_ns for path in chain.paths()] == before
    disk.commit(active=True, auto="pivot").wait_completed("completed")


# Users.

def test_users_of_every_kind(own):
    """Attached, shut off, running and transient: by name, each at the layers that it has."""
    chain = images.layers(own.directory, 3)
    own.give(chain)
    machine, _, _ = own.lab.standard(chain)
    attached = own.lab.domain_of(machine)
    off = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.layers[1].path)))
    base = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.base.path), disk_xml("/nowhere", "vdb")))
    seen = users(own, chain.top.path)
    assert seen[0] == [user(attached)]
    assert sorted(seen[1]) == sorted([user(attached), user(off)])
    assert sorted(seen[2]) == sorted([user(attached), user(off), user(base)])
    machine.kill()
    attached.wait("State", "crashed")
    attached.detach()
    assert users(own, chain.top.path)[0] == []
    transient = own.create(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path)))
    assert users(own, chain.top.path)[0] == [user(transient)]
    transient.destroy()
    off.undefine()
    base.undefine()
    assert users(own, chain.top.path) == [[], [], []]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_users_by_another_name(own, link):
    chain = images.two_layers(own.directory)
    domain, _ = own.standard(chain)
    other = f"{own.directory}/other-name"
    link(chain.top.path, other)
    for state in ("shutoff", "running"):
        assert domain["State"] == state
        assert users(own, other) == [[user(domain)], [user(domain)]]
        assert own.inspect(other)[0]["source"] == other
        if state == "shutoff":
            domain.start()


def test_users_follow_the_disk(own):
    """After a pivot the overlay is nobody's; after a snapshot the new one is the disk's."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    domain.start()
    disk.commit(active=True, auto="pivot").wait_completed("completed")
    assert users(own, chain.top.path) == [[], [user(domain)]]
    overlay = f"{own.directory}/over.qcow2"
    disk.snapshot(overlay)
    assert users(own, overlay) == [[user(domain)], [user(domain)]]
    domain.destroy()
    disk.commit(active=True).wait_completed("completed")
    assert users(own, overlay) == [[], [user(domain)]]


def test_users_after_a_restart(own):
    chain = images.two_layers(own.directory)
    off, _ = own.standard(chain)
    own.lab.service.restart()
    assert users(own, chain.base.path) == [[user(off)]]


# What is refused.

@pytest.mark.parametrize("path", ["", "disk.qcow2", "./disk", "nbd://127.0.0.1/x", "json:{}", "file:/etc/passwd"])
def test_paths_that_are_none(own, path):
    with refused("InvalidArgument", path, "absolute"):
        own.inspect(path)


def test_what_is_not_there(own):
    chain = images.two_layers(own.directory)
    with refused("NoSuchImage", "/no/such/image"):
        own.inspect("/no/such/image")
    os.unlink(chain.base.path)
    with refused("NoSuchImage", chain.base.path, chain.top.path):
        own.inspect(chain.top.path)


@pytest.mark.parametrize("kind", ["fifo", "directory", "socket", "device", "loop"])
def test_what_is_no_image(own, kind):
    path = f"{own.directory}/thing"
    listener = socket.socket(socket.AF_UNIX)
    {"fifo": lambda: os.mkfifo(path), "directory": lambda: os.mkdir(path), "socket": lambda: listener.bind(path),
     "device": lambda: os.symlink("/dev/zero", path), "loop": lambda: os.symlink(path, path)}[kind]()
    with refused("InvalidArgument", path):
        own.inspect(path)
    listener.close()


def test_chain_that_bites_its_tail(own):
    chain = images.layers(own.directory, 3)
    images.run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", chain.top.path, "-F", "qcow2", chain.base.path)
    with refused("InvalidArgument", "twice", chain.top.path):
        own.inspect(chain.top.path)
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(own.give(chain).top.path)))
    with refused("InvalidArgument", "twice"):
        domain.start()


def without_recorded_format(own, base_format):
    """An overlay whose header names a backing file and no format: by hand, as qemu-img makes none any more."""
    chain = images.Chain(own.directory).add([(1, 0, images.MIB)], image_format=base_format)
    path = f"{own.directory}/top.qcow2"
    images.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", chain.base.path, "-F", base_format, path)
    with open(path, "r+b") as file:
        header = file.read(65536)
        at = header.index(b"\xe2\x79\x2a\xca")  # the header extension with the format
        file.seek(at)
        file.write(b"\x12\x34\x56\x78")  # one that nobody knows, which is skipped
    return chain, path


def test_backing_image_without_a_format(own):
    chain, path = without_recorded_format(own, "qcow2")
    with refused("InvalidArgument", chain.base.path, path, "qcow2", "format"):
        own.inspect(path)


def test_raw_backing_image_without_a_format(own):
    chain, path = without_recorded_format(own, "raw")
    assert [(layer["format"], layer["backing-format"]) for layer in own.inspect(path)] == [("qcow2", ""), ("raw", "")]


def test_many_at_once(own, client):
    """Each is answered, with its own."""
    chains = [images.two_layers(own.directory, f"disk{number}") for number in range(3)]
    calls = [client.call_later("/org/blockjobd1", "Manager", "InspectImage", "(sa{sv})", chains[n % 3].top.path, {})
             for n in range(60)]
    assert {client.wait_reply(call).kind for call in calls} == {"reply"}
