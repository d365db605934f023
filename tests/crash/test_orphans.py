# SPDX-License-Identifier: LGPL-2.1-or-later
"""A job that runs in QEMU while its record cannot be read any more: nobody's, but no guest hangs because of it."""

import json
import os

import pytest

from kit import images
from kit.chains import flush
from kit.every_job import KINDS, SLOW, assert_disk_as_before, slow_disk, start
from kit.faults import orphans
from kit.images import MIB
from kit.nbd import Writer
from kit.objects import Job
from kit.waiting import wait_until


def damage(lab, job_id):
    path = f"{lab.service.state_directory}/jobs/{job_id}.json"
    with open(path, "r+b") as record:
        record.truncate(100)
    return f"{path}.damaged"


def orphan_of(lab, machine, qemu_id):
    """The job as the service shows it now: not as its own."""
    listed, = wait_until(lambda: lab.manager.jobs(domain=machine.name), "the job to be listed")
    job = Job(lab.client, listed["Path"])
    assert job["Origin"] == "external" and job["QemuJobId"] == qemu_id
    return job


def die_at_pending(lab, disk, step):
    """An active commit of which QEMU holds the guest, and a service that is dead; its ids."""
    lab.service.restart(stop_at=step)
    job = disk.commit(active=True)
    job.wait_ready()
    ids = job["Id"], job["QemuJobId"]
    lab.client.wait_reply(lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {}))
    lab.service.wait_gone()
    return ids


@pytest.mark.parametrize("step", ["record-target", "finalize"])
def test_guest_held_at_pending(lab, step):
    """Whatever the record said: the job is cancelled, and the source is the disk."""
    machine, chain, disk = lab.slow(share=True)
    writer = Writer(machine.export("vda", "vda-1"), "vda", 16 * MIB, 256)
    writer.wait_more()
    own_id, qemu_id = die_at_pending(lab, disk, step)
    assert [job["status"] for job in machine.jobs().values()] == ["pending"]
    aside = damage(lab, own_id)
    position, told = lab.service.log.size(), lab.client.position()
    lab.service.start()
    writer.wait_more()
    assert os.path.exists(aside) and aside in lab.service.log.since(position)
    job = orphan_of(lab, machine, qemu_id)
    job.wait_completed("cancelled")
    assert_disk_as_before(machine, chain, disk)
    assert len(lab.client.heard(member="Completed", since=told)) == 1
    # Nothing of it is in the way of the next one.
    disk.commit(auto="pivot").wait_completed("completed")
    writer.wait_more()
    writer.stop()
    machine.kill()
    writer.assert_all_in(images.read_image(chain.base.path, "qcow2"))


@pytest.mark.parametrize("step", ["release", "dismiss"])
def test_killed_again(lab, step):
    machine, chain, disk = lab.standard()
    own_id, qemu_id = die_at_pending(lab, disk, "finalize")
    damage(lab, own_id)
    assert lab.service.launch(stop_at=step).wait(20) != 0
    lab.service.start()
    job = orphan_of(lab, machine, qemu_id)
    job.wait_completed("cancelled")
    assert_disk_as_before(machine, chain, disk)
    disk.commit(auto="pivot").wait_completed("completed")


def test_ended_while_nobody_was_there(lab):
    """The pivot was carried out, and what it was is not known any more: the graph says which image is the disk."""
    machine, chain, disk = lab.standard()
    own_id, _ = die_at_pending(lab, disk, "look")
    machine.wait_jobs(lambda jobs: [job["status"] for job in jobs.values()] == ["concluded"], "the job to conclude")
    damage(lab, own_id)
    lab.service.start()
    wait_until(lambda: machine.jobs() == {}, "the job to be dismissed")
    assert disk["Source"] == machine.active_file("vda") == chain.base.path
    machine.write("vda", 9, MIB, MIB)
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_running(lab, kind):
    """It can be ended as anybody's, and leaves QEMU then; so it does after another restart."""
    machine, chain, disk = slow_disk(lab)
    running = start(kind, lab, disk, speed=SLOW)
    own_id, qemu_id = running["Id"], running["QemuJobId"]
    lab.service.kill()
    damage(lab, own_id)
    lab.service.start()
    orphan = orphan_of(lab, machine, qemu_id)
    assert disk["Job"] == orphan.path and orphan["State"] == "running"
    lab.service.restart()
    orphan.abort()
    orphan.wait_completed("cancelled")
    wait_until(lambda: machine.jobs() == {} and not orphans(machine), "the job to leave QEMU")
    assert not [name for name in machine.nodes() if name.startswith("bj-")]
    assert_disk_as_before(machine, chain, disk)
    machine.write("vda", 9, 20 * MIB, MIB)
    flush(machine, "vda")
    machine.kill()
    images.assert_contents(chain.top, chain.contents[-1])


def test_running_that_comes_to_its_end(lab):
    """A commit of a middle layer comes to PENDING by itself; without a record nothing is claimed of it."""
    machine, chain, disk = slow_disk(lab)
    running = start("commit", lab, disk, speed=SLOW)
    own_id, qemu_id = running["Id"], running["QemuJobId"]
    lab.service.kill()
    damage(lab, own_id)
    lab.service.start()
    orphan = orphan_of(lab, machine, qemu_id)
    orphan.set_speed(0)
    orphan.wait_completed("cancelled")
    assert_disk_as_before(machine, chain, disk)
    images.run("qemu-img", "check", "-U", chain.top.path)


# Records that are whole, and of something else.

def copy_of_record(lab, own_id, name, **changes):
    directory = f"{lab.service.state_directory}/jobs"
    with open(f"{directory}/{own_id}.json") as file:
        record = json.load(file)
    path = f"{directory}/{name}.json"
    with open(path, "w") as file:
        json.dump({**record, **changes}, file)
    return path


@pytest.mark.parametrize("name, changes", [
    ("anothername", {}), ("twice", {"id": "twice"}), ("a-b", {"id": "a-b", "qemu-job-id": "bj-commit-vda-a-b"}),
    ("newer", {"version": 2}), ("kind", {"kind": "domains"}), ("sort", {"type": "defragmentation"}),
])
def test_foreign_record(lab, name, changes):
    """Set aside; the job that it was copied from goes on."""
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    lab.service.kill()
    path = copy_of_record(lab, job.path.rsplit("/", 1)[1], name, **changes)
    position = lab.service.log.size()
    lab.service.start()
    assert not os.path.exists(path) and os.path.exists(f"{path}.damaged")
    assert f"{path}.damaged" in lab.service.log.since(position)
    assert [listed["Path"] for listed in lab.manager.jobs(domain=machine.name)] == [job.path]
    job.set_speed(0)
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")
    os.unlink(f"{path}.damaged")
