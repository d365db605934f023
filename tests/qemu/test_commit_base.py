# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which image `base` and `shallow` mean, and what of the chain is left alone."""

import hashlib
import os

import pytest

from kit import images
from kit.bus import refused
from kit.images import MIB


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


# The chain has the layers 0 (bottom) to 3 (active); each way of naming layer 1.
WAYS = {
    "depth": lambda lab, chain: "[2]",
    "depth-of-target": lambda lab, chain: "vda[2]",
    "path": lambda lab, chain: chain.layers[1].path,
    "path-with-dots": lambda lab, chain: f"{lab.directory}/../{os.path.basename(lab.directory)}/"
                                         + os.path.basename(chain.layers[1].path),
    "symbolic-link": lambda lab, chain: link(os.symlink, lab, chain),
    "hard-link": lambda lab, chain: link(os.link, lab, chain),
    "node": lambda lab, chain: "node:vda-1",
}


def link(make, lab, chain):
    path = f"{lab.directory}/link"
    make(chain.layers[1].path, path)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_base_in_the_middle(lab, way):
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    below = digest(chain.base.path)
    job = disk.commit(base=WAYS[way](lab, chain), active=True)
    assert job["Target"] == chain.layers[1].path
    job.wait_ready()
    machine.write("vda", 9, 20 * MIB, MIB)
    job.pivot()
    job.wait_completed("completed")
    assert machine.active_file("vda") == chain.layers[1].path
    assert disk.sources() == [chain.layers[1].path, chain.base.path]
    assert {name for name in machine.nodes() if name.startswith("vda")} \
        == {"vda-0", "vda-0-file", "vda-1", "vda-1-file"}
    machine.quit()
    assert digest(chain.base.path) == below
    images.assert_contents(chain.layers[1], chain.contents[-1])
    assert images.backing_string(chain.layers[1]) == chain.base.path
    for layer in chain.layers[:2]:
        images.assert_sound(layer)


def test_shallow(lab):
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    digests = [digest(layer.path) for layer in chain.layers[:2]]
    job = disk.commit(shallow=True, auto="pivot")
    job.wait_completed("completed")
    assert job["Target"] == chain.layers[2].path
    assert disk.sources() == [layer.path for layer in (chain.layers[2], chain.layers[1], chain.layers[0])]
    machine.quit()
    assert [digest(layer.path) for layer in chain.layers[:2]] == digests
    images.assert_contents(chain.layers[2], chain.contents[-1])


def test_shallow_of_two_layers_is_the_bottom(lab):
    machine, chain, disk = lab.standard()
    disk.commit(shallow=True, auto="pivot").wait_completed("completed")
    assert machine.active_file("vda") == chain.base.path


def test_without_base_it_is_the_bottom(lab):
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    disk.commit(auto="pivot", shallow=False).wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


def test_one_layer_after_the_other(lab):
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    for depth in (2, 1, 0):
        disk.commit(shallow=True, auto="pivot").wait_completed("completed")
        assert machine.active_file("vda") == chain.layers[depth].path
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


def test_keep_in_the_middle(lab):
    chain = images.layers(lab.directory, 3)
    machine, _, disk = lab.standard(chain)
    disk.commit(base="[1]", auto="keep").wait_completed("kept")
    assert machine.active_file("vda") == chain.top.path
    assert disk.sources() == chain.paths()
    assert [layer["read-only"] for layer in disk["Chain"]] == [False, True, True]
    machine.quit()
    images.assert_contents(chain.layers[1], chain.contents[-1])
    images.assert_contents(chain.top, chain.contents[-1])


@pytest.mark.parametrize("base", ["[9]", "vda[9]", "/no/such/file", "node:nothing", "node:",
                                  "[99999999999999999999]"])
def test_no_such_image(lab, base):
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    with refused("NoSuchImage", base, *chain.paths()):
        disk.commit(base=base, active=True)
    assert machine.jobs() == {}


@pytest.mark.parametrize("base", ["", "[]", "[x]", "[-1]", "[1", "vda", "relative/path", "vda[1]x"])
def test_no_name_of_an_image(lab, base):
    machine, _, disk = lab.standard()
    with refused("InvalidArgument", "base"):
        disk.commit(base=base, active=True)
    assert machine.jobs() == {}


def test_image_of_another_disk(lab):
    chains = [images.two_layers(lab.directory, name) for name in ("one", "other")]
    machine = lab.machine().add_virtio(chains[0]).add_virtio(chains[1], "vdb").start()
    disk = lab.attach(machine).disk("vda")
    for base in (chains[1].base.path, "node:vdb-0"):
        with refused("NoSuchImage", base, *chains[0].paths()):
            disk.commit(base=base, active=True)
    # Another disk's name before a depth is no name of an image of this one.
    with refused("InvalidArgument", "vdb[1]"):
        disk.commit(base="vdb[1]", active=True)
    assert machine.jobs() == {}


@pytest.mark.parametrize("base", ["[0]", "vda[0]", "node:vda-1", "path"])
def test_active_layer_as_base(lab, base):
    machine, chain, disk = lab.standard()
    with refused("InvalidArgument"):
        disk.commit(base=chain.top.path if base == "path" else base, active=True)
    assert machine.jobs() == {}


def test_two_layers_that_are_one_file(lab):
    """A chain in which the same file is two layers; to name it by path is not enough."""
    chain = images.layers(lab.directory, 3)
    double = f"{lab.directory}/double.qcow2"
    os.link(chain.layers[1].path, double)
    machine = lab.machine()
    chain.layers.insert(2, images.Layer(double, "qcow2", images.SIZE))
    machine.add_virtio(chain).start()
    disk = lab.attach(machine).disk("vda")
    assert len(disk["Chain"]) == 4
    with refused("Ambiguous", chain.layers[1].path):
        disk.commit(base=chain.layers[1].path, active=True)
    assert machine.jobs() == {}


def test_file_that_is_gone_under_its_name(lab):
    """The image was renamed while QEMU had it open. The recorded path still means it, but QEMU cannot open it for
    writing: its words are told, and nothing is left of the attempt."""
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    path = chain.layers[1].path
    os.rename(path, path + ".moved")
    with refused("QemuError", path):
        disk.commit(base=path, active=True)
    assert machine.jobs() == {} and disk["Job"] == "/"
    os.rename(path + ".moved", path)
    disk.commit(base=path, auto="pivot").wait_completed("completed")
