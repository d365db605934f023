# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU comes to its end, by every road and at every stage of a job: each job has its one Completed at once, and the
image that is told to be the disk shows all that the guest was promised. Where QEMU stays, so do its jobs.

When QEMU is told to end it cancels its jobs and says so, but answers nobody any more: they are lost, as they are when
it is killed. What a reset does is in test_scenarios.py.
"""

import pytest

from kit import ends, images
from kit.ends import ROADS, assert_disk, assert_domain, assert_image, assert_told
from kit.every_job import KINDS, SLOW, TWO_PHASES, assert_result, finish, slow_chain, slow_disk, start, target_path
from kit.targets import node_of
from kit.waiting import wait_until

LONG = pytest.mark.long
ROUGHLY = ("SIGKILL", "SIGTERM")
# The ones that differ most; test_end_of_many_jobs takes all of them.
ROADS_APART = [pytest.param(road, marks=LONG) if road == "quit" else road for road in ROADS]
SINGLE_PHASE = tuple(kind for kind in KINDS if kind not in TWO_PHASES)


def bootable_disk(lab, *arguments):
    """As slow_disk(), with a guest that powers off as soon as it runs."""
    chain = slow_chain(lab.directory)
    machine = ends.add_boot_disk(lab.machine().add_virtio(chain))
    machine.arguments += arguments
    return machine, chain, lab.attach(machine.start()).disk("vda")


def assert_lost(lab, machine, chain, disk, job, road, gone):
    assert_told(job, "lost", gone)
    assert chain.top.path in job["Error"][1], "the disk is not named"
    assert_domain(lab.domain_of(machine), road)
    assert_disk(disk, reversed(chain.layers))
    assert_image(chain.top, chain.contents[-1])


# Every road, while the job copies and when it is ready.

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("road", ROADS_APART)
def test_end_while_running(lab, road, kind):
    machine, chain, disk = bootable_disk(lab)
    job = start(kind, lab, disk, speed=SLOW)
    ends.write(machine, 9)
    gone = ends.end(machine, road)
    assert_lost(lab, machine, chain, disk, job, road, gone)


@pytest.mark.parametrize("kind", TWO_PHASES)
@pytest.mark.parametrize("road", ROADS_APART)
def test_end_when_ready(lab, road, kind):
    machine, chain, disk = bootable_disk(lab)
    job = start(kind, lab, disk)
    job.wait_ready()
    ends.write(machine, 9)
    gone = ends.end(machine, road)
    assert_lost(lab, machine, chain, disk, job, road, gone)


@pytest.mark.parametrize("road", ends.OTHER_ROADS)
def test_other_end(lab, road):
    machine, chain, disk = bootable_disk(lab, "-no-reboot")
    job = start("active-commit", lab, disk, speed=SLOW)
    ends.write(machine, 9)
    gone = ends.end(machine, road)
    assert_lost(lab, machine, chain, disk, job, road, gone)


# In the job's end: the service stands at a point until QEMU is gone.

def end_at_point(lab, machine, road, has_happened=None):
    """The service is about to stop; has_happened is what QEMU's jobs show before its end. When the service went on."""
    pid = lab.service.pid()
    lab.service.wait_stopped(pid)
    if has_happened:
        machine.wait_jobs(has_happened, "QEMU to do what it was told")
    ends.end(machine, road)
    return ends.resume(lab.service, pid)


@pytest.mark.parametrize("road", ROUGHLY)
@pytest.mark.parametrize("point", ["ask", "record-target", "finalize"])
@pytest.mark.parametrize("kind", TWO_PHASES)
def test_end_in_a_pivot(lab, kind, point, road):
    """From PENDING on QEMU holds the guest, and both images show the same. A QEMU that is killed then leaves it to the
    record; one that is told to end has cancelled the pivot, and either image is right."""
    machine, chain, disk = slow_disk(lab)
    lab.service.restart(wait_at=point)
    job = start(kind, lab, disk)
    job.wait_ready()
    ends.write(machine, 9)
    call = ends.call_later(job, "Pivot")
    gone = end_at_point(lab, machine, road)
    result = job.wait_completed()[0]
    right = {"lost"} if point == "ask" else {"pivoted"} if road == "SIGKILL" else {"lost", "pivoted"}
    assert result in right
    assert_told(job, result, gone)
    assert_domain(lab.domain_of(machine), road)
    target = ends.image_of_pivot(kind, lab, chain)
    assert_disk(disk, [target] if result == "pivoted" else reversed(chain.layers))
    for layer in (chain.top,) if point == "ask" else (chain.top, target):
        assert_image(layer, chain.contents[-1])
    # The caller has the pivot that he asked for, or hears that there is none.
    assert lab.client.wait_reply(call).kind == ("reply" if result == "pivoted" else "error")


@pytest.mark.parametrize("road", ROUGHLY)
@pytest.mark.parametrize("point", [pytest.param("record-target", marks=LONG), "finalize"])
@pytest.mark.parametrize("kind", TWO_PHASES)
def test_end_in_an_abort_when_ready(lab, kind, point, road):
    """QEMU did not get to keep the copy."""
    machine, chain, disk = slow_disk(lab)
    lab.service.restart(wait_at=point)
    job = start(kind, lab, disk)
    job.wait_ready()
    ends.write(machine, 9)
    call = ends.call_later(job, "Abort")
    gone = end_at_point(lab, machine, road)
    assert_lost(lab, machine, chain, disk, job, road, gone)
    assert lab.client.wait_reply(call).kind == "error"


def over(jobs):
    return all(job["status"] == "concluded" for job in jobs.values())


@pytest.mark.parametrize("road", ["SIGKILL", pytest.param("SIGTERM", marks=LONG)])
@pytest.mark.parametrize("kind", SINGLE_PHASE)
def test_end_at_pending(lab, kind, road):
    """A job that ends by itself is not finalized yet: no header was written."""
    machine, chain, disk = slow_disk(lab)
    lab.service.restart(wait_at="finalize")
    job = start(kind, lab, disk, speed=SLOW)
    ends.write(machine, 9)
    lab.client.call_later(job.path, "Job", "SetSpeed", "(t)", 0)
    gone = end_at_point(lab, machine, road)
    assert_lost(lab, machine, chain, disk, job, road, gone)
    assert images.backing_string(chain.top) == chain.layers[1].path


@pytest.mark.parametrize("road", ["SIGKILL", pytest.param("SIGTERM", marks=LONG)])
@pytest.mark.parametrize("kind", SINGLE_PHASE)
def test_end_behind_finalize(lab, kind, road):
    """QEMU has written the header and nobody has looked: whichever header the image has, it shows all of the disk."""
    machine, chain, disk = slow_disk(lab)
    lab.service.restart(wait_at="finalize+")
    job = start(kind, lab, disk, speed=SLOW)
    ends.write(machine, 9)
    lab.client.call_later(job.path, "Job", "SetSpeed", "(t)", 0)
    gone = end_at_point(lab, machine, road, over)
    assert_told(job, "lost", gone)
    assert_domain(lab.domain_of(machine), road)
    assert disk["Source"] == chain.top.path and disk["Job"] == "/"
    assert_image(chain.top, chain.contents[-1])


def cancel(machine):
    for identity in machine.jobs():
        machine.qmp.execute("job-cancel", id=identity)


def forbid(machine, path):
    """A node over the target lets nobody read there, and another reads the source: they cannot be swapped."""
    machine.qmp.execute("blockdev-add", driver="blkdebug", node_name="forbids", image=node_of(machine, path),
                        unshare_child_perms=["consistent-read"])
    machine.qmp.execute("blockdev-add", driver="blkdebug", node_name="reads", image="vda-2",
                        take_child_perms=["consistent-read"])


@pytest.mark.parametrize("kind, point", [("active-commit", "record-target"), ("active-commit", "finalize"),
                                         ("copy", "record-target"), ("copy", "finalize"), ("copy", "finalize+")])
def test_pivot_that_failed_before_the_end(lab, kind, point):
    """QEMU said that somebody else cancelled it, or that it could not be done, and let the guest go on with the old
    image; then it was killed. What was recorded of the pivot, or was about to be, counts less than that."""
    machine, chain, disk = slow_disk(lab)
    lab.service.restart(wait_at=point)
    job = start(kind, lab, disk)
    job.wait_ready()
    if point == "finalize+":
        forbid(machine, target_path(kind, lab.directory))
    call = ends.call_later(job, "Pivot")
    pid = lab.service.pid()
    lab.service.wait_stopped(pid)
    if point != "finalize+":
        cancel(machine)
    machine.wait_jobs(over, "the pivot to fail")
    ends.write(machine, 9)
    ends.end(machine, "SIGKILL")
    gone = ends.resume(lab.service, pid)
    result = job.wait_completed()[0]
    assert result in ("cancelled", "failed", "lost")
    assert_told(job, result, gone)
    assert lab.client.wait_reply(call).kind == "error"
    assert_disk(disk, reversed(chain.layers))
    assert_image(chain.top, chain.contents[-1])


# A job of each type at once, each on a disk of its own.

@pytest.mark.parametrize("road", ROADS)
def test_end_of_many_jobs(lab, road):
    machine = ends.add_boot_disk(lab.machine())
    busy = ends.busy_machine(lab, machine)
    for number, one in enumerate(busy):
        ends.write(machine, 9 + number, one.target)
    gone = ends.end(machine, road)
    for one in busy:
        one.job.wait_completed("lost")  # the domain has jobs until the last of them is told
    for one in busy:
        assert_lost(lab, machine, one.chain, one.disk, one.job, road, gone)


def assert_jobs_go_on(lab, machine, busy):
    for one in busy:
        assert one.job["State"] == ("ready" if one.job["Ready"] else "running")
        assert machine.jobs()[one.job["QemuJobId"]]["status"] == one.job["State"]
    for one in busy:
        finish(one.kind, one.job)
    machine.quit()
    for one in busy:
        assert_result(one.kind, lab, one.chain)


def test_poweroff_that_qemu_survives(lab):
    machine = ends.add_boot_disk(lab.machine())
    machine.arguments.append("-no-shutdown")
    busy = ends.busy_machine(lab, machine)
    machine.qmp.execute("cont")
    machine.qmp.wait_event("SHUTDOWN", guest=True)
    domain = lab.domain_of(machine)
    wait_until(lambda: domain["StateReason"] == "shutdown", "the domain to say that its guest is off")
    assert domain["State"] == "paused"
    assert_jobs_go_on(lab, machine, busy)
    assert_domain(domain, "quit")


def test_power_button(lab):
    """The guest is asked to go, and there is none to hear it."""
    machine = lab.machine()
    busy = ends.busy_machine(lab, machine)
    machine.qmp.execute("system_powerdown")
    machine.qmp.wait_event("POWERDOWN")
    assert_jobs_go_on(lab, machine, busy)


@pytest.mark.parametrize("kind", KINDS)
def test_device_unplugged(lab, kind):
    """The images are there without the guest's device, and the job is on the images."""
    chain = slow_chain(lab.directory)
    machine = lab.machine().add_scsi_controller().add_scsi(chain, "vda").start()
    disk = lab.attach(machine).disk("vda")
    job = start(kind, lab, disk, speed=SLOW)
    machine.qmp.execute("device_del", id="vda")
    machine.qmp.wait_event("DEVICE_DELETED", device="vda")
    assert machine.jobs()[job["QemuJobId"]]["status"] == "running"
    job.set_speed(0)
    if kind in TWO_PHASES:
        job.wait_ready()
        job.abort()
    job.wait_completed("kept" if kind in TWO_PHASES else "completed")
    assert machine.jobs() == {}
    machine.quit()
    assert_result(kind, lab, chain)
    images.assert_contents(chain.top, chain.contents[-1])
