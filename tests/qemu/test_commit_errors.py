# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file system under base is full: what `on-error` asks for happens, and the disk stays where it is."""

import os

import pytest

from kit import images
from kit.bus import refused
from kit.images import KIB, MIB
from kit.space import SmallDisk


@pytest.fixture
def tight(lab):
    """(machine, chain, disk, small disk): base is 4.3 MiB on 5 MiB, and 4 MiB more are to be copied into it."""
    small = SmallDisk(f"{lab.directory}/small", 5 * 1024)
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, 4 * MIB)], file_name="small/base.qcow2")
    chain.add([(2, 8 * MIB, 4 * MIB)])
    machine, _, disk = lab.standard(chain)
    yield machine, chain, disk, small
    machine.kill()
    small.remove()


def assert_still_on_the_overlay(machine, chain, disk):
    assert disk["Source"] == machine.active_file("vda") == chain.top.path
    assert disk["Job"] == "/"
    assert machine.jobs() == {}
    assert machine.nodes()["vda-0"]["ro"] is True


@pytest.mark.parametrize("policy", [None, "report"])
def test_reported(tight, policy):
    machine, chain, disk, small = tight
    job = disk.commit(active=True, on_error=policy)
    result, error, message = job.wait_completed("failed")
    assert error == "org.blockjobd1.Error.NoSpace"
    assert os.strerror(28) in message
    assert_still_on_the_overlay(machine, chain, disk)
    with refused("NotActive"):
        job.pivot()
    # With room, the next one goes through.
    small.resize(32 * 1024)
    disk.commit(auto="pivot").wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


def test_automatic_pivot_that_fails(tight):
    machine, chain, disk, _ = tight
    disk.commit(auto="pivot").wait_completed("failed")
    assert_still_on_the_overlay(machine, chain, disk)
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


@pytest.mark.parametrize("policy", ["stop", "enospc"])
def test_stopped_and_resumed(tight, policy):
    machine, chain, disk, small = tight
    job = disk.commit(active=True, on_error=policy)
    job.wait("State", "paused")
    job.wait("IoStatus", "nospace")
    with refused("NotReady"):
        job.pivot()
    # Still no room: it stops again.
    job.resume()
    job.wait("State", "paused")
    assert job["IoStatus"] == "nospace"
    small.resize(32 * 1024)
    job.resume()
    job.wait_ready()
    job.wait("IoStatus", "ok")
    job.pivot()
    job.wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


@pytest.mark.parametrize("policy", ["stop", "ignore"])
def test_aborted_in_trouble(tight, policy):
    """A job that waits for room, or tries for ever, can be ended."""
    machine, chain, disk, _ = tight
    job = disk.commit(active=True, on_error=policy)
    if policy == "stop":
        job.wait("IoStatus", "nospace")
    else:
        machine.qmp.wait_event("BLOCK_JOB_ERROR", action="ignore")
    job.abort()
    job.wait_completed("cancelled")
    assert_still_on_the_overlay(machine, chain, disk)


@pytest.mark.parametrize("policy", ["report", "stop"])
def test_no_room_when_ready(tight, policy):
    """The guest writes more than base can take in the second phase."""
    machine, chain, disk, small = tight
    small.resize(10 * 1024)
    job = disk.commit(active=True, on_error=policy)
    job.wait_ready()
    machine.write("vda", 9, 16 * MIB, 4 * MIB)
    if policy == "report":
        job.wait_completed("failed")
        assert_still_on_the_overlay(machine, chain, disk)
        machine.quit()
        images.assert_contents(chain.top, chain.contents[-1])
        return
    job.wait("IoStatus", "nospace")
    small.resize(32 * 1024)
    job.resume()
    job.wait("State", "ready")
    job.pivot()
    job.wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


def test_pivot_with_no_room(tight):
    """Pivot of a ready job that waits for room, and there still is none: it can be seen and mended."""
    machine, chain, disk, small = tight
    small.resize(10 * 1024)
    job = disk.commit(active=True, on_error="stop")
    job.wait_ready()
    machine.write("vda", 9, 16 * MIB, 4 * MIB)
    job.wait("IoStatus", "nospace")
    # What QEMU said up to here is read, so that what is waited for is new.
    machine.qmp.execute("query-status")
    machine.qmp.events.clear()
    call = disk.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {})
    machine.qmp.wait_event("BLOCK_JOB_ERROR")
    machine.qmp.wait_event("JOB_STATUS_CHANGE", status="standby")
    # The guest is not held meanwhile.
    machine.write("vda", 10, 8 * MIB, 64 * KIB)
    small.resize(32 * 1024)
    job.wait("IoStatus", "nospace")
    job.resume()
    assert disk.client.wait_reply(call).kind == "reply"
    job.wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


def test_state_of_a_paused_job_after_a_restart(tight, lab):
    machine, chain, disk, small = tight
    job = disk.commit(active=True, on_error="stop")
    job.wait("IoStatus", "nospace")
    lab.service.restart()
    job.wait("State", "paused")
    job.wait("IoStatus", "nospace")
    small.resize(32 * 1024)
    job.resume()
    job.wait_ready()
    job.set_speed(64 * KIB)
    job.pivot()
    job.wait_completed("completed")
    assert machine.active_file("vda") == chain.base.path
