# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can happen to a job of any type in the middle of its work, and what can be asked of it. What QEMU's own end
does to it is in test_ends_of_qemu.py."""

import pytest

from kit import images
from kit.bus import refused
from kit.every_job import KINDS, SLOW, TWO_PHASES, assert_disk_as_before, assert_result, finish, slow_disk, start
from kit.qmp import QmpError


@pytest.mark.parametrize("kind", KINDS)
def test_resize_by_somebody_else(lab, kind):
    """QEMU refuses it, and the job goes on to its end."""
    machine, chain, disk = slow_disk(lab)
    job = start(kind, lab, disk, speed=SLOW)
    with pytest.raises(QmpError):
        machine.qmp.execute("block_resize", node_name="vda-2", size=2 * images.SIZE)
    with refused("JobActive", job["Id"]):
        disk.resize(2 * images.SIZE)
    assert job["State"] == "running"
    finish(kind, job)
    assert disk["Capacity"] == images.SIZE
    machine.quit()
    assert_result(kind, lab, chain)


def check_mode(kind, machine, job):
    """Only a copy has two modes, and only a newer QEMU changes from one to the other."""
    mode = "background" if kind in TWO_PHASES else ""
    assert job["Mode"] == mode
    with refused("InvalidArgument"):
        job.set_mode("faster")
    commands = {command["name"] for command in machine.qmp.execute("query-commands")}
    if kind == "copy" and "block-job-change" in commands:
        job.set_mode("write-blocking")
        job.wait("Mode", "write-blocking")
        return
    with refused("NotSupported"):
        job.set_mode("write-blocking")
    assert job["Mode"] == mode and job["State"] == "running"


@pytest.mark.parametrize("kind", KINDS)
def test_control(lab, kind):
    """Everything that can be asked of a job while it runs, its abort, and its dismissal."""
    machine, chain, disk = slow_disk(lab)
    job = start(kind, lab, disk, speed=SLOW)
    assert job["Type"] == kind and job["State"] == "running" and job["Speed"] == SLOW
    check_mode(kind, machine, job)
    job.set_speed(2 * SLOW)
    job.wait("Speed", 2 * SLOW)
    assert [entry["speed"] for entry in machine.qmp.execute("query-block-jobs")] == [2 * SLOW]
    job.pause()
    job.wait("State", "paused")
    assert job["IoStatus"] == "ok"
    with refused("NotReady"):
        job.pivot()
    job.resume()
    job.wait("State", "running")
    with refused("InvalidState"):
        job.dismiss()
    assert job["State"] == "running"
    job.abort()
    job.wait_completed("cancelled")
    assert_disk_as_before(machine, chain, disk)
    with refused("NotActive"):
        job.abort()
    job.dismiss()
    assert not job.exists()
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_one_job_after_the_other(lab, kind):
    """After its abort another one of the same type starts, and gets to its end."""
    machine, chain, disk = slow_disk(lab)
    names = [{"target": f"{lab.directory}/first.qcow2"}, {}] if kind in ("copy", "backup") else [{}, {}]
    start(kind, lab, disk, speed=SLOW, **names[0]).abort()
    job = start(kind, lab, disk, speed=SLOW)
    # Whichever type: one job on the disk.
    for other in KINDS:
        with refused("JobActive", job["Id"]):
            start(other, lab, disk, target=f"{lab.directory}/other.qcow2")
    finish(kind, job)
    assert disk["Job"] == "/"
    machine.quit()
    assert_result(kind, lab, chain)
