# SPDX-License-Identifier: LGPL-2.1-or-later
"""Overlays that no domain uses, in an image directory: a commit would change what they stand on."""

import os

import pytest
from kit import images
from kit.bus import refused
from kit.images import KIB

SLOW = 64 * KIB


def overlay(directory, layer, name="other.qcow2", backing=None):
    path = f"{directory}/{name}"
    images.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing or layer.path, "-F", layer.format, path,
               str(layer.size))
    return path


@pytest.mark.parametrize("number", [0, 1, 2])
def test_commit_is_refused(lab, image_directory, number):
    """Of the base, of a layer between, and of top itself: each would be invalid for it."""
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    path = overlay(image_directory, chain.layers[number])
    with refused("ImageInUse", chain.layers[number].path, path, "force"):
        disk.commit(top="[1]", base="[3]")
    with refused("ImageInUse", path):
        disk.commit(active=True)
    assert machine.jobs() == {} and disk["Job"] == "/"
    os.unlink(path)
    disk.commit(top="[1]", base="[3]").wait_completed("completed")


@pytest.mark.parametrize("number", [0, 3])
def test_layers_that_are_not_changed(lab, image_directory, number):
    chain = images.layers(lab.directory, 4)
    _, _, disk = lab.standard(chain)
    overlay(image_directory, chain.layers[number])
    disk.commit(top="[1]", base="[2]").wait_completed("completed")


def test_own_layers_do_not_count(lab, image_directory):
    """The chain lies in the image directory itself."""
    chain = images.layers(image_directory, 4)
    machine, _, disk = lab.standard(chain)
    disk.commit(top="[1]", base="[3]").wait_completed("completed")
    disk.commit(auto="pivot").wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[3])


def test_by_a_relative_name_and_a_link(lab, image_directory):
    chain = images.layers(image_directory, 3)
    _, _, disk = lab.standard(chain)
    os.symlink(chain.base.path, f"{image_directory}/link")
    path = overlay(image_directory, chain.base, backing="link")
    with refused("ImageInUse", chain.base.path, path):
        disk.commit(top="[1]", base="[2]")


def test_force(lab, image_directory):
    chain = images.layers(lab.directory, 3)
    _, _, disk = lab.standard(chain)
    overlay(image_directory, chain.base)
    disk.commit(top="[1]", base="[2]", force=True).wait_completed("completed")


def test_made_before_the_end(lab, image_directory):
    """A moment before the job is finalized: it is given up, and the chain is what it was."""
    chain = images.Chain(lab.directory)
    for number in range(3):
        chain.add(images.stripes(number + 1, start=number * 64 * KIB))
    machine, _, disk = lab.standard(chain)
    job = disk.commit(top="[1]", base="[2]", speed=SLOW)
    path = overlay(image_directory, chain.layers[1])
    job.set_speed(0)
    result, error, message = job.wait_completed()
    assert result == "failed" and error.endswith(".ImageInUse") and path in message
    assert disk.sources() == chain.paths()
    machine.quit()
    images.assert_contents(chain.top, chain.contents[2])


def test_made_before_the_pivot(lab, image_directory):
    """The job stays ready, and can be kept, or pivot when the overlay is gone."""
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    path = overlay(image_directory, chain.top)
    with refused("ImageInUse", chain.top.path, path):
        job.pivot()
    assert job["State"] == "ready" and disk["Source"] == chain.top.path
    os.unlink(path)
    job.pivot()
    job.wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[1])


def test_automatic_pivot(lab, image_directory):
    machine, chain, disk = lab.slow()
    position = lab.service.log.size()
    job = disk.commit(auto="pivot", speed=SLOW)
    path = overlay(image_directory, chain.base)
    job.set_speed(0)
    job.wait_ready()
    job.wait("State", "ready")
    assert disk["Source"] == chain.top.path
    assert path in lab.service.log.since(position)
    job.abort()
    job.wait_completed("kept")


def test_inspect(lab, image_directory):
    chain = images.layers(image_directory, 2)
    path = overlay(image_directory, chain.base)
    layers, = lab.client.call("/org/blockjobd1", "Manager", "InspectImage", "(sa{sv})", chain.top.path, {})
    assert layers[0]["users"] == [] and layers[1]["users"] == [f"image '{path}', as its backing file"]


# What is invalid afterwards.

def inspect(lab, path):
    layers, = lab.client.call("/org/blockjobd1", "Manager", "InspectImage", "(sa{sv})", path, {})
    return [(layer["source"], layer["stale"]) for layer in layers]


def test_forced(lab, image_directory):
    """The overlay is named in the journal and told to be stale, over a restart of the service, until it is gone."""
    chain = images.layers(lab.directory, 3)
    _, _, disk = lab.standard(chain)
    path = overlay(image_directory, chain.base)
    assert inspect(lab, path) == [(path, False), (chain.base.path, False)]
    position = lab.service.log.size()
    disk.commit(top="[1]", base="[2]", force=True).wait_completed("completed")
    assert path in lab.service.log.since(position)
    for _ in range(2):
        assert inspect(lab, path) == [(path, True), (chain.base.path, False)]
        assert inspect(lab, chain.layers[1].path)[0] == (chain.layers[1].path, True)
        assert inspect(lab, chain.top.path) == [(chain.top.path, False), (chain.base.path, False)]
        lab.service.restart()
    os.unlink(path)
    overlay(image_directory, chain.base)
    assert inspect(lab, path) == [(path, False), (chain.base.path, False)], "another file of the same name"


def test_reader_of_a_stale_one(lab, image_directory):
    chain = images.layers(lab.directory, 3)
    _, _, disk = lab.standard(chain)
    lower = overlay(image_directory, chain.base)
    upper = overlay(image_directory, images.Layer(lower, "qcow2", images.SIZE), "upper.qcow2")
    disk.commit(top="[1]", base="[2]", force=True).wait_completed("completed")
    assert inspect(lab, upper) == [(upper, True), (lower, True), (chain.base.path, False)]


def test_what_a_commit_leaves_over(lab, image_directory):
    """It is in the way of no other, as long as nobody writes into it."""
    chain = images.layers(image_directory, 4)
    _, _, disk = lab.standard(chain)
    disk.commit(top="[2]", base="[3]").wait_completed("completed")
    left = chain.layers[1]
    images.run("qemu-io", "-f", "qcow2", "-c", "write 0 64k", left.path)
    with refused("ImageInUse", left.path):
        disk.commit(top="[1]", base="[2]")
    os.unlink(left.path)
    disk.commit(top="[1]", base="[2]").wait_completed("completed")
    disk.commit(auto="pivot").wait_completed("completed")


def test_unknown(lab, image_directory):
    """What cannot be read is not taken for unused, and not for a user: it is told, and jobs go on."""
    chain = images.layers(lab.directory, 3)
    _, _, disk = lab.standard(chain)
    broken = f"{image_directory}/broken.qcow2"
    with open(broken, "wb") as file:
        file.write(b"QFI\xfb" + b"\xff" * 60)
    os.mkfifo(f"{image_directory}/fifo")
    layers, = lab.client.call("/org/blockjobd1", "Manager", "InspectImage", "(sa{sv})", chain.top.path, {})
    assert [text.split(":")[0] for text in layers[0]["unknown"]] == [f"'{broken}'"] and "unknown" not in layers[1]
    position = lab.service.log.size()
    disk.commit(top="[1]", base="[2]").wait_completed("completed")
    assert broken in lab.service.log.since(position)


def test_ten_thousand_images(lab, image_directory):
    """With a pipe and what is no image among them: a commit is refused for the one that stands on its base."""
    chain = images.layers(lab.directory, 3)
    _, _, disk = lab.standard(chain)
    path = overlay(image_directory, chain.base)
    with open(path, "rb") as file:
        header = file.read()
    other = header.replace(chain.base.path.encode(), b"/".ljust(len(chain.base.path), b"x"))
    for number in range(10000):
        with open(f"{image_directory}/{number}.qcow2", "wb") as file:
            file.write(other[:65536])
    os.mkfifo(f"{image_directory}/fifo")
    with refused("ImageInUse", path):
        disk.commit(top="[1]", base="[2]")
    os.unlink(path)
    disk.commit(top="[1]", base="[2]").wait_completed("completed")
