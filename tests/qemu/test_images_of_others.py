# SPDX-License-Identifier: LGPL-2.1-or-later
"""An image that another domain uses as well: each method that would change it is refused, and says who it is."""

import os

import pytest
from kit import images
from kit.bus import refused
from kit.hanging import hanging
from kit.own import disk_xml, domain_xml

SIZE = images.SIZE


@pytest.fixture
def shared(lab):
    """Two machines that are gone, or not, of which one has a layer of the other's chain: (disk, chain, other's name)."""
    chain = images.layers(lab.directory, 3)
    machine, _, disk = lab.standard(chain)
    other = lab.machine()
    other.arguments += ["-drive", f"file={chain.layers[1].path},format=qcow2,if=none,id=root,read-only=on",
                        "-device", "virtio-blk-pci,id=vda,drive=root"]
    other.start()
    lab.attach(other)
    return disk, chain, other, machine


CALLS = {
    "commit": lambda disk, force: disk.commit(top="[1]", base="[2]", force=force),
    "pull": lambda disk, force: disk.pull(top="[1]", force=force),
}


@pytest.mark.parametrize("call", CALLS)
def test_refused(shared, call):
    disk, chain, other, machine = shared
    with refused("ImageInUse", other.name, "force"):
        CALLS[call](disk, False)
    assert machine.jobs() == {} and disk["Job"] == "/"
    other.quit()


@pytest.mark.parametrize("call", CALLS)
def test_gone_machines_still_name_their_images(lab, shared, call):
    disk, chain, other, machine = shared
    other.quit()
    lab.domain_of(other)
    with refused("ImageInUse", chain.layers[1].path, other.name):
        CALLS[call](disk, False)
    CALLS[call](disk, True).wait_completed("completed")
    lab.domain_of(other).detach()


def test_resize(lab):
    """Of the active layer, which another machine stands on."""
    chain = images.layers(lab.directory, 2)
    other_chain = images.layers(lab.directory, 2)
    other_chain.add([(9, 0, images.MIB)], file_name="over.qcow2", unchecked=True)
    machine, _, disk = lab.standard(chain)
    other = lab.machine()
    for layer, below in ((chain.base, None), (chain.top, 0), (other_chain.top, 1)):
        number = 0 if below is None else below + 1
        other.arguments += ["-blockdev", f"driver=qcow2,node-name=node-{number},file.driver=file,file.locking=off,"
                                         f"file.filename={layer.path},read-only={'off' if number == 2 else 'on'}"
                                         + (f",backing=node-{below}" if number else "")]
    other.arguments += ["-device", "virtio-blk-pci,id=vda,drive=node-2"]
    other.start()
    lab.attach(other)
    with refused("ImageInUse", chain.top.path, other.name):
        disk.resize(2 * SIZE)
    assert disk["Capacity"] == SIZE
    disk.resize(2 * SIZE, force=True)
    assert disk["Capacity"] == 2 * SIZE


def test_disk_on_storage_that_hangs(lab, own):
    """It holds up no job on another disk, and is told to be unknown."""
    far = f"{lab.directory}/far"
    os.mkdir(far)
    chain = images.layers(lab.directory, 3)
    other = own.define(domain_xml(lab.unique_name(), disk_xml(images.two_layers(far).top.path)))
    machine, _, disk = lab.standard(chain)
    position = lab.service.log.size()
    with hanging(far):
        disk.commit(top="[1]", base="[2]").wait_completed("completed")
        layer = own.inspect(chain.top.path)[0]
        assert [text for text in layer["unknown"] if far in text and other["Name"] in text]
        disk.commit(auto="pivot").wait_completed("completed")
    assert far in lab.service.log.since(position)
    assert "unknown" not in own.inspect(chain.base.path)[0]
    machine.quit()
    images.assert_contents(chain.base, chain.contents[2])
