# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images that somebody moved or replaced while the service, or QEMU, was away: that is said, and nothing is touched."""

import os
import shutil

import pytest

from kit import images
from kit.bus import ROOT, options
from kit.chains import digests
from kit.every_job import SLOW, start
from kit.objects import Job


def die_at(lab, disk, step, **keywords):
    lab.service.restart(stop_at=step)
    position = lab.client.position()
    call = lab.client.call_later(disk.path, "Disk", "Commit", "(a{sv})", options({"auto": "pivot", **keywords}))
    lab.client.wait_reply(call)
    lab.service.wait_gone()
    return Job(lab.client, lab.client.wait_signal(ROOT, "JobNew", since=position).arguments[1])


def move(path):
    os.rename(path, f"{path}.moved")


def replace(path):
    """The same bytes under the same name, and another file all the same."""
    move(path)
    shutil.copy(f"{path}.moved", path)


CHANGES = {"moved": move, "replaced": replace}


def assert_said(lab, job, path, position, result):
    arguments = job.wait_completed()
    assert arguments[0] == result
    assert f"'{path}' is not what it was" in arguments[2], arguments
    assert path in lab.service.log.since(position)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", [0, 1])
def test_qemu_gone_after_a_pivot(lab, number, change):
    """The base is the disk by the record. What lies under its name, or the overlay's, is left alone."""
    machine, chain, disk = lab.standard()
    job = die_at(lab, disk, "look", delete=True)
    machine.kill()
    path = chain.layers[number].path
    CHANGES[change](path)
    files = sorted(os.listdir(lab.directory))
    left = [layer for layer in chain.layers if os.path.exists(layer.path)]
    before, position = digests(left), lab.service.log.size()
    lab.service.start()
    assert_said(lab, job, path, position, "pivoted")
    assert disk["Source"] == chain.base.path
    assert sorted(os.listdir(lab.directory)) == files and digests(left) == before


@pytest.mark.parametrize("change", CHANGES)
def test_qemu_gone_before_a_pivot(lab, change):
    machine, chain, disk = lab.standard()
    job = die_at(lab, disk, "ask")
    machine.kill()
    CHANGES[change](chain.base.path)
    position = lab.service.log.size()
    lab.service.start()
    assert_said(lab, job, chain.base.path, position, "lost")
    assert disk["Source"] == chain.top.path


@pytest.mark.parametrize("change", CHANGES)
def test_qemu_alive(lab, change):
    """It has the files open, and goes on with those; nothing is deleted, since the names tell something else."""
    machine, chain, disk = lab.standard()
    job = die_at(lab, disk, "look", delete=True)
    CHANGES[change](chain.top.path)
    files, position = sorted(os.listdir(lab.directory)), lab.service.log.size()
    lab.service.start()
    assert_said(lab, job, chain.top.path, position, "completed")
    assert sorted(os.listdir(lab.directory)) == files
    assert disk["Source"] == machine.active_file("vda") == chain.base.path
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


@pytest.mark.parametrize("kind", ["copy", "backup", "commit", "pull"])
def test_every_job(lab, kind):
    """Replaced while a job of any kind runs and nobody is there."""
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    job = start(kind, lab, disk, speed=SLOW)
    path = {"copy": job["Target"], "backup": job["Target"], "commit": chain.layers[1].path,
            "pull": chain.top.path}[kind]
    lab.service.kill()
    replace(path)
    machine.kill()
    position = lab.service.log.size()
    lab.service.start()
    assert_said(lab, job, path, position, "lost")
    assert disk["Source"] == chain.top.path


def test_nothing_is_said_of_what_is_as_it_was(lab):
    machine, chain, disk = lab.standard()
    job = die_at(lab, disk, "look", delete=True)
    lab.service.start()
    job.wait_completed("completed")
    assert not os.path.exists(chain.top.path)
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])
