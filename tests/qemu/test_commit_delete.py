# SPDX-License-Identifier: LGPL-2.1-or-later
"""`delete`: the files of the layers that are no longer valid are removed, those and no others, and only then."""

import os

import pytest

from kit import chains, images
from kit.images import KIB, MIB
from kit.space import SmallDisk

SLOW = 64 * KIB


def left(chain):
    """Which of the layers' files are there, by their numbers."""
    return [number for number, layer in enumerate(chain.layers) if os.path.exists(layer.path)]


# How many layers, the numbers of top and base, and the options that say so.
RANGES = {
    "middle": (5, 3, 1, {"top": "[1]", "base": "[3]"}),
    "shallow": (4, 2, 1, {"top": "[1]", "shallow": True}),
    "active": (4, 3, 1, {"base": "[2]", "auto": "pivot"}),
    "active-to-the-bottom": (3, 2, 0, {"auto": "pivot"}),
    "active-pivoted-by-hand": (3, 2, 1, {"shallow": True, "active": True}),
}


@pytest.mark.parametrize("way", RANGES)
def test_the_merged_layers(lab, way):
    count, top, base, options = RANGES[way]
    chain = images.layers(lab.directory, count)
    other = f"{lab.directory}/other.qcow2"
    images.run("qemu-img", "create", "-q", "-f", "qcow2", other, "1M")
    machine, _, disk = lab.standard(chain)
    job = disk.commit(delete=True, **options)
    if "active" in options:
        job.wait_ready()
        machine.write("vda", 9, 20 * MIB, MIB)
        assert left(chain) == list(range(count))
        job.pivot()
    assert job.wait_completed("completed") == ("completed", "", "")
    # They are gone when Completed comes: nobody waits here.
    numbers = chains.left_numbers(count, top, base)
    assert left(chain) == numbers
    assert os.path.exists(other)
    chains.merge(chain, top, base)
    chains.assert_layers(machine, disk, chain, numbers)
    machine.quit()
    chains.assert_images(chain)


@pytest.mark.parametrize("options", [{"top": "[1]", "delete": False}, {"auto": "pivot"}], ids=["middle", "active"])
def test_not_asked_for(lab, options):
    chain = images.layers(lab.directory, 3)
    _, _, disk = lab.standard(chain)
    disk.commit(**options).wait_completed("completed")
    assert left(chain) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["middle", "active"])
def test_killed_right_after_the_end(lab, kind):
    """With the old files gone, what is left must be on stable storage."""
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    options = {"top": "[1]", "base": "[3]"} if kind == "middle" else {"auto": "pivot"}
    job = disk.commit(delete=True, **options)
    lab.client.wait_signal(job.path, "Completed")
    machine.kill()
    numbers = [0, 3] if kind == "middle" else [0]
    assert left(chain) == numbers
    chains.merge(chain, 2 if kind == "middle" else 3, 0)
    chains.assert_headers(chain)
    for layer, contents in zip(chain.layers, chain.contents):
        images.assert_contents(layer, contents)


@pytest.mark.parametrize("end", ["kept", "cancelled", "cancelled-when-ready", "cancelled-middle", "lost"])
def test_any_other_end(lab, end):
    chain = chains.slow_middle(lab.directory, 3, number=1 if end in ("cancelled-middle", "lost") else 2)
    machine, _, disk = lab.standard(chain)
    if end == "kept":
        job = disk.commit(auto="keep", delete=True)
    elif end == "cancelled-when-ready":
        job = disk.commit(active=True, delete=True)
        job.wait_ready()
        job.abort(force=True)
    elif end == "cancelled":
        job = disk.commit(active=True, delete=True, speed=SLOW)
        job.abort()
    else:
        job = disk.commit(top="[1]", delete=True, speed=SLOW)
        job.abort() if end == "cancelled-middle" else machine.kill()
    job.wait_completed(end.partition("-")[0])
    assert left(chain) == [0, 1, 2]
    assert disk.sources() == chain.paths()
    machine.kill() if end == "lost" else machine.quit()
    chains.assert_headers(chain)
    images.assert_contents(chain.top, chain.contents[-1])


def test_failure(lab):
    """No room in base: QEMU's words, nothing removed, and base read-only again."""
    small = SmallDisk(f"{lab.directory}/small", 5 * 1024)
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, 4 * MIB)], file_name="small/base.qcow2").add([(2, 8 * MIB, 4 * MIB)]).add()
    machine, _, disk = lab.standard(chain)
    try:
        _, error, message = disk.commit(top="[1]", delete=True).wait_completed("failed")
        assert error == "org.blockjobd1.Error.NoSpace" and os.strerror(28) in message
        assert left(chain) == [0, 1, 2]
        chains.assert_layers(machine, disk, chain, range(3))
        machine.quit()
        chains.assert_headers(chain)
        images.assert_contents(chain.top, chain.contents[-1])
    finally:
        machine.kill()
        small.remove()


@pytest.mark.parametrize("kind", ["middle", "active"])
def test_file_that_cannot_be_removed(lab, kind):
    """It did what it was for; what is left behind is told."""
    os.mkdir(f"{lab.directory}/fixed")
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, 2 * MIB)]).add([(2, MIB, 2 * MIB)], file_name="fixed/stays.qcow2")
    chain.add([(3, 2 * MIB, 2 * MIB)]).add([(4, 3 * MIB, 2 * MIB)])
    stays, goes = chain.layers[1].path, chain.layers[2].path
    mount = chains.ReadOnlyMount(f"{lab.directory}/fixed")
    try:
        machine, _, disk = lab.standard(chain)
        options = {"top": "[1]"} if kind == "middle" else {"auto": "pivot"}
        result, error, message = disk.commit(delete=True, **options).wait_completed("completed")
        assert error == "" and stays in message and goes not in message
        assert left(chain) == ([0, 1, 3] if kind == "middle" else [0, 1])
        chains.merge(chain, 2 if kind == "middle" else 3, 0)
        chains.assert_layers(machine, disk, chain, [0, 3] if kind == "middle" else [0])
        machine.quit()
        chains.assert_images(chain)
    finally:
        machine.kill()
        mount.remove()


@pytest.mark.parametrize("kind", ["middle", "active"])
def test_file_of_somebody_else_under_the_name(lab, kind):
    """The layer was renamed meanwhile, and what has its name now is not the layer."""
    number = 1 if kind == "middle" else 2
    chain = chains.slow_middle(lab.directory, 3, number)
    machine, _, disk = lab.standard(chain)
    job = disk.commit(delete=True, speed=SLOW, **({"top": "[1]"} if kind == "middle" else {"active": True}))
    path = chain.layers[number].path
    os.rename(path, path + ".moved")
    with open(path, "w") as file:
        file.write("mine")
    job.set_speed(0)
    if kind == "active":
        job.wait_ready()
        job.pivot()
    assert job.wait_completed("completed")[1] == ""
    with open(path) as file:
        assert file.read() == "mine"
    chains.merge(chain, number, 0)
    machine.quit()
    chains.assert_images(chain)


def test_file_that_is_gone_already(lab):
    chain = chains.slow_middle(lab.directory)
    machine, _, disk = lab.standard(chain)
    job = disk.commit(top="[1]", delete=True, speed=SLOW)
    os.unlink(chain.layers[1].path)
    job.set_speed(0)
    assert job.wait_completed("completed")[1] == ""
    chains.merge(chain, 1, 0)
    chains.assert_layers(machine, disk, chain, [0, 2])
    machine.quit()
    chains.assert_images(chain)
