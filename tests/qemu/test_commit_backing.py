# SPDX-License-Identifier: LGPL-2.1-or-later
"""The string that a commit leaves in the header of the overlay, and with keep-top in that of the top."""

import os

import pytest

from kit import chains, images
from kit.bus import ROOT, BusError, refused
from kit.chains import MixedChain
from kit.images import KIB, MIB

SIZE = 8 * MIB
LIMIT = 1023  # what fits into a header of qcow2


def chain_in(directory, *file_names, base_format="qcow2"):
    """Layers of these names, bottom first, in directories that are made where they are missing."""
    chain = MixedChain(directory)
    for number, name in enumerate(file_names):
        os.makedirs(os.path.dirname(f"{directory}/{name}"), exist_ok=True)
        chain.add([(number + 1, number * MIB, 2 * MIB)], "qcow2" if number else base_format, SIZE, name)
    return chain


def three_layers(directory, base="base.qcow2", overlay="overlay.qcow2"):
    return chain_in(directory, base, "middle.qcow2", overlay)


def of_length(name, length):
    """A name for this file that is so many bytes long."""
    return "." + "/" * (length - len(name) - 1) + name


@pytest.mark.parametrize("base_format", ["qcow2", "raw"])
def test_absolute_by_default(lab, base_format):
    chain = chain_in(lab.directory, "base.image", "middle.qcow2", "overlay.qcow2", base_format=base_format)
    machine, _, disk = lab.standard(chain)
    disk.commit(top="[1]").wait_completed("completed")
    chains.merge(chain, 1, 0)
    chains.assert_layers(machine, disk, chain, [0, 2])
    assert images.backing_string(chain.top) == chain.base.path
    assert images.information(chain.top)["backing-filename-format"] == base_format
    assert disk["Chain"][0]["backing"] == chain.base.path
    machine.quit()
    chains.assert_images(chain)


@pytest.mark.parametrize("base, overlay, recorded", [
    ("base.qcow2", "overlay.qcow2", "base.qcow2"),
    ("images/of/base.qcow2", "overlay.qcow2", "images/of/base.qcow2"),
    ("base.qcow2", "machines/one/overlay.qcow2", "../../base.qcow2"),
    ("images/base.qcow2", "images-of-one/overlay.qcow2", "../images/base.qcow2"),
], ids=["same", "base-below", "overlay-below", "beside"])
def test_relative(lab, base, overlay, recorded):
    chain = three_layers(lab.directory, base, overlay)
    machine, _, disk = lab.standard(chain)
    disk.commit(top="[1]", relative=True).wait_completed("completed")
    chains.merge(chain, 1, 0)
    assert images.backing_string(chain.top) == recorded
    assert disk["Chain"][0]["backing"] == recorded
    assert disk.sources() == chain.paths()
    machine.quit()
    chains.assert_images(chain)
    # What it is for: all of it moves, and still is the disk.
    moved = f"{lab.directory}-moved"
    os.rename(lab.directory, moved)
    try:
        images.assert_contents(images.Layer(f"{moved}/{overlay}", "qcow2", SIZE), chain.contents[-1])
    finally:
        os.rename(moved, lab.directory)


@pytest.mark.parametrize("link", ["overlay", "base"])
def test_relative_through_a_symbolic_link(lab, link):
    """Who goes up from a directory goes up from the real one, not from the link by whose name it was opened."""
    os.makedirs(f"{lab.directory}/real/deep")
    os.symlink(f"{lab.directory}/real/deep", f"{lab.directory}/link")
    chain = three_layers(lab.directory, *(("base.qcow2", "link/overlay.qcow2") if link == "overlay"
                                          else ("link/base.qcow2", "real/overlay.qcow2")))
    machine, _, disk = lab.standard(chain)
    disk.commit(top="[1]", relative=True).wait_completed("completed")
    chains.merge(chain, 1, 0)
    assert not os.path.isabs(images.backing_string(chain.top))
    assert disk.sources() == chain.paths()
    machine.quit()
    chains.assert_images(chain)
    real = os.path.realpath(chain.top.path)
    images.assert_contents(images.Layer(real, "qcow2", SIZE), chain.contents[-1])


@pytest.mark.parametrize("text", [
    "./base.qcow2", "DIRECTORY/./base.qcow2", of_length("base.qcow2", LIMIT),
], ids=["relative", "absolute", "as-long-as-can-be"])
def test_as_given(lab, text):
    text = text.replace("DIRECTORY", lab.directory)
    chain = three_layers(lab.directory)
    machine, _, disk = lab.standard(chain)
    disk.commit(top="[1]", backing=text).wait_completed("completed")
    chains.merge(chain, 1, 0)
    assert images.backing_string(chain.top) == text
    assert disk["Chain"][0]["backing"] == text
    machine.quit()
    chains.assert_images(chain)


def test_as_given_for_another_host(lab):
    """It names nothing here; the format is that of base all the same."""
    chain = chain_in(lab.directory, "base.raw", "middle.qcow2", "overlay.qcow2", base_format="raw")
    machine, _, disk = lab.standard(chain)
    disk.commit(top="[1]", backing="/elsewhere/base.raw").wait_completed("completed")
    assert disk.sources() == [chain.top.path, chain.base.path]
    machine.quit()
    assert images.backing_string(chain.top) == "/elsewhere/base.raw"
    images.run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", chain.base.path, "-F", "raw", chain.top.path)
    chains.merge(chain, 1, 0)
    chains.assert_images(chain)


@pytest.mark.parametrize("text", [of_length("base.qcow2", LIMIT + 1), "x" * 1100, "ü" * 600, ""],
                         ids=["one-more", "1100", "600-characters", "empty"])
def test_no_string_for_a_header(lab, text):
    """Too long, and QEMU would crash at the end of the job; empty, and the overlay would have no backing file."""
    chain = three_layers(lab.directory)
    machine, _, disk = lab.standard(chain)
    position = lab.client.position()
    with refused("InvalidArgument", "backing"):
        disk.commit(top="[1]", backing=text)
    assert machine.running() and not lab.client.heard(ROOT, "JobNew", position)
    chains.assert_layers(machine, disk, chain, range(3))


def test_path_that_is_too_long(lab):
    """Nobody gave a string, but base's path does not fit into a header. Relative to the overlay it does."""
    directory = "/".join([lab.directory] + ["d" * 230] * 5)
    os.makedirs(directory)
    chain = MixedChain(directory)
    for number in range(3):
        chain.add([(number + 1, number * MIB, 2 * MIB)], size=SIZE, backing=f"disk-{number - 1}.qcow2")
    machine, _, disk = lab.standard(chain)
    position = lab.client.position()
    with refused("InvalidArgument"):
        disk.commit(top="[1]")
    assert machine.running() and not lab.client.heard(ROOT, "JobNew", position)
    disk.commit(top="[1]", relative=True).wait_completed("completed")
    chains.merge(chain, 1, 0)
    assert images.backing_string(chain.top) == "disk-0.qcow2"
    machine.quit()
    chains.assert_images(chain)


def test_header_with_little_room(lab):
    """A header is one cluster: with the smallest ones a string that is allowed elsewhere has no room."""
    chain = chain_in(lab.directory, "base.qcow2", "middle.qcow2")
    chain.add_mixed([("data", 3, 2 * MIB, 64 * KIB)], file_name="overlay.qcow2", settings="cluster_size=512")
    machine, _, disk = lab.standard(chain)
    with pytest.raises(BusError):
        disk.commit(top="[1]", backing=of_length("base.qcow2", 450))
    assert machine.running()
    chains.assert_layers(machine, disk, chain, range(3))
    disk.commit(top="[1]").wait_completed("completed")
    chains.merge(chain, 1, 0)
    machine.quit()
    chains.assert_images(chain)


@pytest.mark.parametrize("name", [
    "a, b/c,d \"e\" 'f'.qcow2", "größe ディスク.qcow2", "back\\slash %41*[a]?.qcow2", "nbd:colon.qcow2",
    "json:{}.qcow2",
], ids=["comma-quote-space", "not-ascii", "special", "protocol", "json"])
def test_odd_name(lab, name):
    """First as an absolute path, then as a relative one, where what looks like a protocol needs care."""
    chain = chain_in(lab.directory, name, "middle.qcow2", "upper.qcow2", "overlay.qcow2")
    machine, _, disk = lab.standard(chain)
    disk.commit(top="[2]").wait_completed("completed")
    chains.merge(chain, 1, 0)
    assert images.backing_string(chain.layers[1]) == chain.base.path
    chains.assert_headers(chain)
    disk.commit(top="[1]", relative=True).wait_completed("completed")
    chains.merge(chain, 1, 0)
    chains.assert_layers(machine, disk, chain, [0, 3])
    assert images.backing_string(chain.top) in (name, f"./{name}")
    machine.quit()
    chains.assert_images(chain)


# keep-top.

def overlay_beside(chain, number, directory, name="side.qcow2"):
    """Somebody else's overlay on this layer, in a file of its own."""
    side = images.Chain(directory)
    side.layers, side.contents = [chain.layers[number]], [chain.contents[number].copy()]
    return side.add([(7, 5 * MIB, MIB)], file_name=name)


@pytest.mark.parametrize("base_format, relative", [("qcow2", False), ("qcow2", True), ("raw", False)],
                         ids=["qcow2", "relative", "raw"])
def test_keep_top(lab, base_format, relative):
    """Another overlay on top stays right when the layers between are gone; all of it is on stable storage."""
    chain = chain_in(lab.directory, "images/base", "middle.qcow2", "kept/top.qcow2", "overlay.qcow2",
                     base_format=base_format)
    side = overlay_beside(chain, 2, lab.directory)
    middle, top = chain.layers[1:3]
    machine, _, disk = lab.standard(chain)
    job = disk.commit(top="[1]", base="[3]", keep_top=True, relative=relative)
    job.wait_completed("completed")
    chains.merge(chain, 2, 0)
    chains.assert_layers(machine, disk, chain, [0, 3])
    machine.kill()
    os.unlink(middle.path)
    side.layers.insert(0, chain.base)
    side.contents.insert(0, chain.contents[0])
    for each in (side, chain):
        chains.assert_headers(each)
        for layer, contents in zip(each.layers, each.contents):
            images.assert_contents(layer, contents)
    assert os.path.isabs(images.backing_string(top)) is not relative
    assert os.path.isabs(images.backing_string(chain.top)) is not relative


def test_keep_top_of_one_layer(lab):
    """Base is below it already: nothing to change, and nothing is spoilt."""
    chain = three_layers(lab.directory)
    side = overlay_beside(chain, 1, lab.directory)
    machine, _, disk = lab.standard(chain)
    disk.commit(top="[1]", keep_top=True).wait_completed("completed")
    chains.merge(chain, 1, 0)
    machine.quit()
    chains.assert_images(chain)
    side.layers.insert(0, chain.base)
    side.contents.insert(0, chain.contents[0])
    chains.assert_images(side)


def test_keep_top_without_an_end(lab):
    """Aborted: top still needs the layers below it, and its header says so."""
    chain = chains.slow_middle(lab.directory, 4, number=2)
    machine, _, disk = lab.standard(chain)
    before = chains.digests(chain.layers[2:3])
    job = disk.commit(top="[1]", base="[3]", keep_top=True, speed=64 * KIB)
    job.abort()
    job.wait_completed("cancelled")
    chains.assert_layers(machine, disk, chain, range(4))
    machine.quit()
    assert chains.digests(chain.layers[2:3]) == before
    chains.assert_headers(chain)
    images.assert_contents(chain.top, chain.contents[-1])
