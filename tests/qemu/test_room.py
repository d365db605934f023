# SPDX-License-Identifier: LGPL-2.1-or-later
"""Room for what a job will write: what surely does not fit is refused before anything is written."""

import os
import shutil

import pytest
from kit import images
from kit.bus import refused
from kit.images import MIB
from kit.space import SmallDisk


@pytest.fixture
def small(lab):
    disks = []

    def make(kilobytes):
        disks.append(SmallDisk(f"{lab.directory}/small", kilobytes))
        return disks[-1]
    yield make
    lab.service.ensure()
    for machine in lab.machines:
        machine.clean()
    for disk in disks:
        disk.remove()


CALLS = {
    "copy": lambda disk, target, **options: disk.copy(target, auto="keep", **options),
    "backup": lambda disk, target, **options: disk.backup(target, **options),
}


@pytest.mark.parametrize("call", CALLS)
def test_target_that_is_too_small(lab, small, call):
    """8 MiB of data do not fit into 4, and the caller is told so; 'force' finds out by trying."""
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, 8 * MIB)])
    machine, _, disk = lab.standard(chain)
    target = f"{small(4096).path}/target.qcow2"
    with refused("NoSpace", target, 8 * MIB, "force"):
        CALLS[call](disk, target)
    assert not os.path.exists(target) and disk["Job"] == "/" and machine.jobs() == {}
    job = CALLS[call](disk, target, force=True)
    assert job["Estimate"] >= 8 * MIB
    assert job.wait_completed()[0] == "failed"


def test_what_only_looks_too_large(lab, small):
    """The image has 8 MiB on disk, of which nothing is left but zeros."""
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, 8 * MIB)], size=8 * MIB)
    images.run("qemu-io", "-f", "qcow2", "-c", "write -z 0 8M", chain.base.path)
    chain.contents[0].fill(0, 0, 8 * MIB)
    machine, _, disk = lab.standard(chain)
    assert disk["Chain"][0]["allocated"] >= 8 * MIB
    target = f"{small(4096).path}/target.qcow2"
    job = disk.copy(target, format="qcow2", auto="keep")
    assert job["Estimate"] < MIB
    job.wait_completed("kept")
    machine.quit()
    images.assert_contents(images.Layer(target, "qcow2", 8 * MIB), chain.contents[0])


def test_commit(lab, small):
    """Into a base whose file system is full: what base has already can be written over."""
    place = small(6 * 1024)
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, 2 * MIB)])
    shutil.move(chain.base.path, f"{place.path}/base.qcow2")
    chain.base.path = f"{place.path}/base.qcow2"
    chain.add([(2, 0, 2 * MIB)])
    chain.add([(3, 4 * MIB, 8 * MIB)])
    machine, _, disk = lab.standard(chain)
    with refused("NoSpace", chain.base.path, 10 * MIB):
        disk.commit(active=True)
    assert machine.jobs() == {}
    job = disk.commit(top="[1]", base="[2]")
    assert 2 * MIB <= job["Estimate"] < 3 * MIB
    job.wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[1])


def test_estimate(lab):
    chain = images.layers(lab.directory, 3)
    _, _, disk = lab.standard(chain)
    allocated = [layer["allocated"] for layer in disk["Chain"]]
    job = disk.copy(f"{lab.directory}/target.qcow2", auto="keep")
    assert job["Estimate"] == sum(allocated)
    job.wait_completed("kept")
    lab.service.restart()
    assert job["Estimate"] == sum(allocated)
    assert disk.commit(active=True, shallow=True)["Estimate"] == allocated[0]
