# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service dies, or QEMU does, at each point of an attach, of a detach and of a dismissal: done, or not done."""

import os

import pytest

from kit import images
from kit.bus import ROOT, BusError, options
from kit.every_job import SLOW
from kit.waiting import wait_until

ATTACH = ["attach-connect", "connect-identify", "connect-looked", "attach-record", "attach-show", "attach-adopt"]
DETACH = ["detach-record", "detach-answer"]
DISMISS = ["dismiss-record", "dismiss-answer"]


def machine_to_attach(lab):
    return lab.machine().add_virtio(images.two_layers(lab.directory)).start()


def attach_later(lab, machine):
    lab.attached.append(machine.name)
    return lab.client.call_later(ROOT, "Manager", "AttachDomain", "(ssa{sv})", machine.name, machine.monitor_path, {})


def has_domain(lab, machine):
    try:
        return bool(lab.domain_of(machine))
    except BusError as error:
        assert error.short == "NoSuchDomain"
        return False


def die(lab, call):
    assert lab.client.wait_reply(call).sender == "org.freedesktop.DBus", "the service lived to answer"
    lab.service.wait_gone()


def assert_usable(lab, machine):
    """One commit from the call to its end, and the bytes."""
    disk = lab.domain_of(machine).disk("vda")
    disk.commit(auto="pivot").wait_completed("completed")
    chain = machine.chains["vda"]
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


@pytest.mark.parametrize("point", ATTACH)
def test_killed_in_an_attach(lab, point):
    machine = machine_to_attach(lab)
    lab.service.restart(stop_at=point)
    call = attach_later(lab, machine)
    if point == "attach-adopt":
        assert lab.client.wait_reply(call).kind == "reply"
        lab.service.wait_gone()
    else:
        die(lab, call)
    assert machine.running() and machine.jobs() == {}
    lab.service.start()
    # What is not on disk was never begun; what is, is a domain like any other.
    there = has_domain(lab, machine)
    assert there == (point in ("attach-show", "attach-adopt"))
    if not there:
        lab.attach(machine)
    assert_usable(lab, machine)


@pytest.mark.parametrize("point", ATTACH)
def test_qemu_killed_in_an_attach(lab, point):
    """The caller has an error, or a domain that is told to be no more."""
    machine = machine_to_attach(lab)
    lab.service.restart(wait_at=point)
    pid = lab.service.pid()
    call = attach_later(lab, machine)
    lab.service.wait_stopped(pid)
    machine.kill()
    lab.service.resume(pid)
    reply = lab.client.wait_reply(call)
    if reply.kind == "error":
        assert not has_domain(lab, machine)
        assert point not in ("attach-show", "attach-adopt")
    else:
        wait_until(lambda: lab.domain_of(machine)["State"] == "crashed", "the end of QEMU to be seen")
        assert lab.domain_of(machine).disk("vda")["Source"] == machine.chains["vda"].top.path
    # Its name and its socket are free for the next.
    again = lab.machine(machine.name, suffix="-again").add_virtio(machine.chains["vda"]).start()
    lab.attach(again)
    assert_usable(lab, again)


@pytest.mark.parametrize("point", ATTACH)
def test_service_and_qemu_killed_in_an_attach(lab, point):
    machine = machine_to_attach(lab)
    lab.service.restart(stop_at=point)
    lab.client.wait_reply(attach_later(lab, machine))
    lab.service.wait_gone()
    machine.kill()
    lab.service.start()
    if has_domain(lab, machine):
        domain = lab.domain_of(machine)
        assert domain["State"] == "crashed"
        assert domain.disk("vda")["Source"] == machine.chains["vda"].top.path
    again = lab.machine(machine.name, suffix="-again").add_virtio(machine.chains["vda"]).start()
    lab.attach(again)
    assert_usable(lab, again)


@pytest.mark.parametrize("point", ["connect-identify", "connect-looked"])
def test_killed_in_a_connect_after_a_restart(lab, point):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    lab.service.kill()
    assert lab.service.launch(stop_at=point).wait(20) != 0
    assert machine.jobs()[f"bj-commit-vda-{job.path.rsplit('/', 1)[1]}"]["status"] == "running"
    lab.service.start()
    assert job["State"] == "running"
    job.set_speed(0)
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")
    assert disk["Source"] == machine.active_file("vda") == chain.base.path


@pytest.mark.parametrize("point", DETACH)
def test_killed_in_a_detach(lab, point):
    machine, _, _ = lab.standard()
    domain = lab.domain_of(machine)
    lab.service.restart(stop_at=point)
    die(lab, lab.client.call_later(domain.path, "Domain", "Detach", "(a{sv})", {}))
    lab.service.start()
    assert has_domain(lab, machine) == (point == "detach-record")
    if not has_domain(lab, machine):
        lab.attach(machine)
    assert_usable(lab, machine)


@pytest.mark.parametrize("qemu", ["lives", "dies"])
@pytest.mark.parametrize("point", DETACH)
def test_killed_in_a_forced_detach(lab, point, qemu):
    """The job goes on, and has its end told once, by whoever attaches the domain again."""
    machine, chain, disk = lab.slow()
    domain = lab.domain_of(machine)
    lab.service.restart(stop_at=point)
    job = disk.commit(active=True, speed=SLOW)
    die(lab, lab.client.call_later(domain.path, "Domain", "Detach", "(a{sv})", options({"force": True})))
    if qemu == "dies":
        machine.kill()
    lab.service.start()
    assert has_domain(lab, machine) == (point == "detach-record")
    if qemu == "dies":
        job.wait_completed("lost")
        images.assert_contents(chain.top, chain.contents[-1])
        return
    if not has_domain(lab, machine):
        lab.attach(machine)
    job.wait("State", "running")
    job.set_speed(0)
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")
    assert disk["Source"] == machine.active_file("vda") == chain.base.path


@pytest.mark.parametrize("point", DISMISS)
def test_killed_in_a_dismissal(lab, point):
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at=point)
    job = disk.commit(auto="keep")
    job.wait_completed("kept")
    record = f"{lab.service.state_directory}/jobs/{job['Id']}.json"
    die(lab, lab.client.call_later(job.path, "Job", "Dismiss"))
    lab.service.start()
    assert job.exists() == os.path.exists(record) == (point == "dismiss-record")
    if job.exists():
        assert job["Result"] == "kept"
        job.dismiss()
    assert not job.exists() and not os.path.exists(record)
    assert len(job.completed()) == 1
    assert_usable(lab, machine)


def test_killed_between_two_files_that_are_deleted(lab):
    """The next start removes what is left, and nothing else."""
    chain = images.layers(lab.directory, 3)
    machine, _, disk = lab.standard(chain)
    lab.service.restart(stop_at="delete-file")
    job = disk.commit(active=True, delete=True)
    job.wait_ready()
    lab.client.wait_reply(lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {}))
    lab.service.wait_gone()
    os.unlink(chain.top.path)  # as if it had come one file further
    lab.service.start()
    job.wait_completed("completed")
    assert [os.path.exists(layer.path) for layer in chain.layers] == [True, False, False]
    assert disk["Source"] == machine.active_file("vda") == chain.base.path
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])
