# SPDX-License-Identifier: LGPL-2.1-or-later
"""Somebody begins to use an image while a job is at work on it: what that job would do at its end is not done."""

import contextlib
import os

import pytest
from kit import images
from kit.bus import refused
from kit.images import KIB, MIB, SIZE
from kit.locks import let_go, locked

SLOW = 64 * KIB


def overlay(directory, path, image_format="qcow2"):
    name = f"{directory}/other.qcow2"
    images.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", path, "-F", image_format, name, str(SIZE))
    return name


@pytest.fixture
def locker():
    """Starts programs that lock an image."""
    with contextlib.ExitStack() as processes:
        yield lambda path: processes.enter_context(locked(path))


def assert_failed(job, *words):
    result, error, message = job.wait_completed()
    assert result == "failed" and error.endswith(".ImageInUse")
    for word in words:
        assert str(word) in message


@pytest.mark.parametrize("reuse", [False, True])
def test_target_of_a_backup(lab, image_directory, reuse):
    machine, chain, disk = lab.slow()
    target = f"{image_directory}/backup.qcow2"
    if reuse:
        images.run("qemu-img", "create", "-q", "-f", "qcow2", target, str(SIZE))
    job = disk.backup(target, reuse=reuse, speed=SLOW)
    path = overlay(image_directory, target)
    job.set_speed(0)
    assert_failed(job, target, path)
    assert disk.sources() == chain.paths() and os.path.exists(target)
    disk.backup(target, reuse=True, force=True).wait_completed("completed")
    machine.quit()
    images.assert_contents(images.Layer(target, "qcow2", SIZE), chain.contents[-1])


@pytest.mark.parametrize("reuse", [False, True])
def test_target_of_a_copy(lab, image_directory, reuse):
    """The guest would write into what somebody else stands on."""
    machine, chain, disk = lab.standard()
    target = f"{image_directory}/copy.qcow2"
    if reuse:
        images.run("qemu-img", "create", "-q", "-f", "qcow2", target, str(SIZE))
    job = disk.copy(target, reuse=reuse)
    job.wait_ready()
    path = overlay(image_directory, target)
    with refused("ImageInUse", target, path):
        job.pivot()
    assert job["State"] == "ready" and disk["Source"] == chain.top.path
    os.unlink(path)
    job.pivot()
    job.wait_completed("completed")
    assert disk["Source"] == target
    machine.quit()
    images.assert_contents(images.Layer(target, "qcow2", SIZE), chain.contents[-1])


def test_target_of_a_copy_that_is_kept(lab, image_directory):
    """Nothing is done to it any more."""
    _, _, disk = lab.standard()
    target = f"{image_directory}/copy.qcow2"
    job = disk.copy(target)
    job.wait_ready()
    overlay(image_directory, target)
    job.abort()
    job.wait_completed("kept")


def test_locked_target_of_a_copy(lab, locker):
    _, chain, disk = lab.standard()
    target = f"{lab.directory}/copy.qcow2"
    job = disk.copy(target)
    job.wait_ready()
    process = locker(target)
    with refused("ImageInUse", target, process.pid):
        job.pivot()
    assert disk["Source"] == chain.top.path
    let_go(process)
    job.pivot()
    job.wait_completed("completed")


def test_asked_again_for_each_pivot(lab, locker):
    """A pivot that QEMU refused does not make the next one go unchecked."""
    machine, chain, disk = lab.standard()
    target = f"{lab.directory}/copy.qcow2"
    job = disk.copy(target)
    job.wait_ready()
    first = locker(target)
    for process in (first, locker(target)):
        with refused("ImageInUse", target):
            job.pivot()
        let_go(process)
    job.pivot()
    job.wait_completed("completed")
    machine.quit()
    images.assert_contents(images.Layer(target, "qcow2", SIZE), chain.contents[-1])


def test_layer_that_is_pulled_into(lab, locker):
    chain = images.Chain(lab.directory)
    for number in range(4):
        chain.add(images.stripes(number + 1, start=number * 64 * KIB))
    machine, _, disk = lab.standard(chain)
    job = disk.pull(top="[1]", base="[3]", speed=SLOW)
    process = locker(chain.layers[2].path)
    job.set_speed(0)
    assert_failed(job, chain.layers[2].path, process.pid)
    assert disk.sources() == chain.paths()
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])
    assert images.backing_string(chain.layers[2]) == chain.layers[1].path


def test_overlay_of_a_layer_that_is_pulled_into(lab, image_directory):
    """It shows the same before and after."""
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    path = overlay(image_directory, chain.layers[2].path)
    disk.pull(top="[1]", base="[3]").wait_completed("completed")
    machine.quit()
    images.assert_contents(images.Layer(path, "qcow2", SIZE), chain.contents[2])


@pytest.mark.parametrize("user", ["overlay", "lock"])
def test_what_is_to_be_deleted(lab, image_directory, locker, user):
    """After the pivot, right before the removal: it stays, and the job says why."""
    machine, chain, disk = lab.standard()
    lab.service.restart(wait_at="delete")
    job = disk.commit(auto="pivot", delete=True)
    lab.service.wait_stopped(lab.service.pid())
    who = overlay(image_directory, chain.top.path) if user == "overlay" else locker(chain.top.path).pid
    lab.service.resume(lab.service.pid())
    result, error, message = job.wait_completed()
    assert (result, error) == ("completed", "")
    assert chain.top.path in message and str(who) in message and "nothing was deleted" in message
    assert os.path.exists(chain.top.path) and disk["Source"] == chain.base.path
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


def test_several_are_deleted(lab, image_directory):
    """Each of them stands on the next: those are no users."""
    chain = images.layers(image_directory, 4)
    machine, _, disk = lab.standard(chain)
    disk.commit(auto="pivot", delete=True).wait_completed("completed")
    assert os.listdir(image_directory) == [os.path.basename(chain.base.path)]
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


def test_disk_that_is_made_smaller(lab, image_directory):
    """An overlay would lose what is cut off; to grow takes nothing from it."""
    machine, chain, disk = lab.standard()
    path = overlay(image_directory, chain.top.path)
    with refused("ImageInUse", chain.top.path, path, "force"):
        disk.resize(SIZE - MIB, shrink=True)
    assert disk["Capacity"] == SIZE
    disk.resize(SIZE + MIB)
    disk.resize(SIZE - MIB, shrink=True, force=True)
    assert disk["Capacity"] == SIZE - MIB


def test_force_is_logged(lab):
    machine, _, disk = lab.standard()
    position = lab.service.log.size()
    disk.commit(auto="pivot", force=True).wait_completed("completed")
    lines = [line for line in lab.service.log.since(position).splitlines() if "'force'" in line]
    assert len(lines) == 1 and machine.name in lines[0] and "active-commit" in lines[0]
