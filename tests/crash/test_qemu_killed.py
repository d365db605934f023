# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU dies, with the service there or not: by the record, and by nothing else, is told which image is the disk."""

import time

import pytest

from kit import images
from kit.bus import refused
from kit.chains import flush
from kit.images import KIB, MIB
from kit.waiting import wait_until

SLOW = 64 * KIB


@pytest.mark.parametrize("phase", ["running", "ready", "paused"])
def test_killed_under_the_service(lab, phase):
    machine, chain, disk = lab.slow()
    domain = lab.domain_of(machine)
    job = disk.commit(active=True, speed=0 if phase == "ready" else SLOW)
    if phase == "ready":
        job.wait_ready()
        machine.write("vda", 9, 20 * MIB, MIB)
    if phase == "paused":
        job.pause()
    machine.kill()
    start = time.monotonic()
    result, error, message = job.wait_completed("lost")
    assert time.monotonic() - start < 3, "Completed is not sent at once"
    assert message
    assert chain.top.path in message
    domain.wait("State", "crashed")
    assert disk["Source"] == chain.top.path
    assert disk["Job"] == "/"
    assert domain["Jobs"] == []
    assert disk.sources() == chain.paths()
    with refused("InvalidState"):
        disk.commit(active=True)
    with refused("NotActive"):
        job.pivot()
    # Told for good: the next service says the same, and does not say Completed again.
    lab.service.restart()
    assert job["Result"] == "lost" and disk["Source"] == chain.top.path
    assert lab.domain_of(machine)["State"] == "crashed"
    assert len(job.completed()) == 1
    if phase != "ready":
        images.assert_contents(chain.top, chain.contents[-1])


def test_pivot_that_waits_for_a_dead_qemu(lab):
    """The call that was under way has an error, not an endless wait."""
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    machine.process.send_signal(19)  # SIGSTOP: the command is sent and not executed
    call = lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {})
    lab.client.wait_property(job.path, "Job", "State", "completing")
    machine.kill()
    assert lab.client.wait_reply(call).kind == "error"
    job.wait_completed("lost")
    assert disk["Source"] == chain.top.path


def test_quit_with_a_job(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    machine.quit()
    assert job.wait_completed()[0] in ("lost", "cancelled")
    assert disk["Source"] == chain.top.path
    assert len(job.completed()) == 1
    lab.domain_of(machine).wait("State", "shutoff")


@pytest.mark.parametrize("step, result", [
    ("ask", "lost"), ("record-target", "lost"), ("finalize", "pivoted"), ("look", "pivoted"),
    ("record-outcome", "pivoted"), ("tidy", "completed"), ("tell", "completed"),
])
def test_killed_while_the_service_is_dead(lab, step, result):
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at=step)
    job = disk.commit(active=True)
    job.wait_ready()
    machine.write("vda", 9, 20 * MIB, MIB)
    call = lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {})
    assert lab.client.wait_reply(call).kind == "error"
    lab.service.wait_gone()
    machine.kill()
    lab.service.start()
    job.wait_completed(result)
    layer = chain.top if result == "lost" else chain.base
    assert disk["Source"] == layer.path
    assert disk["Job"] == "/"
    assert disk.sources() == (chain.paths() if result == "lost" else [chain.base.path])
    assert lab.domain_of(machine)["State"] in ("crashed", "shutoff")
    if result != "lost":
        # What was acknowledged before the pivot is in base, and was there before the record said so.
        images.assert_contents(chain.base, chain.contents[-1])
    lab.service.restart()
    assert job["Result"] == result and len(job.completed()) == 1
    assert disk["Source"] == layer.path


def test_killed_while_running_and_the_service_dead(lab):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    lab.service.kill()
    machine.kill()
    lab.service.start()
    job.wait_completed("lost")
    assert disk["Source"] == chain.top.path


def test_another_qemu_at_the_same_socket(lab):
    """After the service was away, somebody else answers where the domain was: it is not that domain."""
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    lab.service.kill()
    machine.kill()
    other = images.two_layers(lab.directory, "other")
    successor = lab.machine(machine.name, suffix="-successor").add_virtio(other).start()
    lab.service.start()
    job.wait_completed("lost")
    domain = lab.domain_of(machine)
    assert domain["State"] == "crashed"
    assert disk["Source"] == chain.top.path
    assert other.top.path not in disk.sources()
    # Its monitor is left alone, and it can be attached by who knows that it is the one.
    domain = lab.attach(successor)
    assert domain["Uuid"] == successor.uuid
    assert domain.disk("vda")["Source"] == other.top.path


def test_another_qemu_at_the_same_socket_under_the_service(lab):
    machine, chain, disk = lab.standard()
    domain = lab.domain_of(machine)
    machine.kill()
    domain.wait("State", "crashed")
    other = images.two_layers(lab.directory, "other")
    lab.machine(machine.name, suffix="-successor").add_virtio(other).start()
    assert domain["State"] == "crashed"
    assert disk["Source"] == chain.top.path


def test_disk_after_a_pivot_and_a_dead_qemu(lab):
    """Completed long ago; what the disk is stays known over both deaths."""
    machine, chain, disk = lab.standard()
    disk.commit(auto="pivot").wait_completed("completed")
    machine.kill()
    lab.domain_of(machine).wait("State", "crashed")
    lab.service.restart()
    assert disk["Source"] == chain.base.path
    assert disk.sources() == [chain.base.path]


def test_both_killed_before_a_snapshot_is_on_record_of_its_domain(lab):
    """What the domain's record says is older, as after a loss of power; the snapshot's own says which is the disk."""
    lab.service.restart(stop_at="record-domain")
    machine, chain, disk = lab.standard()
    overlay = f"{lab.directory}/overlay.qcow2"
    record = f"{lab.service.state_directory}/domains/{machine.name}.json"
    with open(record, "rb") as file:
        before = file.read()
    call = lab.client.call_later(disk.path, "Disk", "Snapshot", "(sa{sv})", overlay, {})
    lab.client.wait_reply(call)
    lab.service.wait_gone()
    machine.write("vda", 9, 20 * MIB, MIB)
    flush(machine, "vda")
    machine.kill()
    with open(record, "wb") as file:
        file.write(before)
    lab.service.start()
    wait_until(lambda: disk["Job"] == "/", "the snapshot to be over")
    assert disk["Source"] == overlay and disk.sources() == [overlay, *chain.paths()]
    images.assert_contents(images.Layer(overlay, "qcow2", images.SIZE), chain.contents[-1])
    lab.service.restart()
    assert disk["Source"] == overlay
