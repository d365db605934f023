# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockjobd --settle, after the service died: no guest is left held at PENDING."""

import time

import pytest

from kit import images
from kit.bus import options
from kit.images import KIB, MIB
from kit.nbd import Writer


def die_at(lab, disk, step, method="Pivot"):
    lab.service.restart(stop_at=step)
    job = disk.commit(active=True)
    job.wait_ready()
    call = lab.client.call_later(job.path, "Job", method, "(a{sv})", options({}))
    lab.client.wait_reply(call)
    lab.service.wait_gone()
    return job


def statuses(machine):
    return [job["status"] for job in machine.jobs().values()]


# Before record-target nothing says yet which image is the disk: either is right, if only all agree.
@pytest.mark.parametrize("step, method, results", [
    ("finalize", "Pivot", ["completed"]), ("record-target", "Pivot", ["completed", "kept", "cancelled"]),
    ("finalize", "Abort", ["kept"]), ("record-target", "Abort", ["kept"]),
])
def test_pending_job(lab, step, method, results):
    machine, chain, disk = lab.slow(share=True)
    writer = Writer(machine.export("vda", "vda-1"), "vda", 16 * MIB, 256)
    writer.wait_more()
    job = die_at(lab, disk, step, method)
    assert statuses(machine) == ["pending"]
    start = time.monotonic()
    assert lab.service.settle() == 0
    assert time.monotonic() - start < 2
    assert statuses(machine) in ([], ["concluded"])
    # The guest writes again, with no service there.
    writer.wait_more()
    layer = chain.base if machine.active_file("vda") == chain.base.path else chain.top
    # Nothing is told by --settle, which is not on the bus; all of it by the next service, once.
    assert not job.completed()
    lab.service.start()
    result = job.wait_completed()[0]
    assert result in results and (result == "completed") == (layer is chain.base)
    job.wait_completed(result)
    assert disk["Source"] == machine.active_file("vda") == layer.path
    writer.wait_more()
    writer.stop()
    machine.kill()
    writer.assert_all_in(images.read_image(layer.path, layer.format))


def test_jobs_that_hold_nobody_are_left_alone(lab):
    machine, chain, disk = lab.slow()
    other = images.slow_layers(lab.directory, "other")
    running = disk.commit(active=True, speed=64 * KIB)
    second = lab.machine().add_virtio(other).start()
    ready = lab.attach(second).disk("vda").commit(active=True)
    ready.wait_ready()
    lab.service.kill()
    assert lab.service.settle() == 0
    assert statuses(machine) == ["running"] and statuses(second) == ["ready"]
    lab.service.start()
    assert running["State"] == "running" and ready["State"] == "ready"


def test_nothing_to_do(lab):
    lab.service.kill()
    assert lab.service.settle() == 0


def test_dead_qemu(lab):
    machine, _, disk = lab.standard()
    job = die_at(lab, disk, "finalize")
    machine.kill()
    assert lab.service.settle() == 0
    lab.service.start()
    job.wait_completed("pivoted")


def test_hung_qemu_does_not_keep_the_others(lab):
    """One QEMU does not answer; the guest of the other is let go all the same, and in time."""
    hung, _, hung_disk = lab.standard()
    hung_job = hung_disk.commit(active=True)
    hung_job.wait_ready()
    machine, chain, disk = lab.standard(images.two_layers(lab.directory, "other"))
    job = die_at(lab, disk, "finalize")
    hung.process.send_signal(19)  # SIGSTOP
    try:
        process = lab.service.settle_later()
        machine.wait_jobs(lambda jobs: all(entry["status"] == "concluded" for entry in jobs.values()),
                          "the pending job to conclude", 2)
        assert process.wait(20) is not None
    finally:
        hung.process.send_signal(18)  # SIGCONT
    lab.service.start()
    job.wait_completed("completed")
    assert hung_job["State"] == "ready"


def test_while_the_service_runs(lab):
    """Somebody runs it by hand: it does not get in the service's way."""
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=64 * KIB)
    lab.service.settle()
    assert job["State"] == "running"
    job.set_speed(0)
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")


def test_file_of_settings_with_a_mistake(lab):
    """Somebody edits it and restarts the service: no guest is held because of that."""
    machine, chain, disk = lab.standard()
    job = die_at(lab, disk, "finalize")
    assert lab.service.settle(settings="[Jobs]\nKeepFinishedSec=soon\n") == 0
    assert statuses(machine) in ([], ["concluded"])
    assert machine.active_file("vda") == chain.base.path
    lab.service.start()
    job.wait_completed("completed")
