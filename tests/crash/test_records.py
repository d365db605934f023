# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service knows after a restart, and what a damaged record does to it."""

import glob
import json
import os
import socket

import pytest

from kit import images
from kit.bus import refused
from kit.images import KIB


def records(lab, kind):
    return set(glob.glob(f"{lab.service.state_directory}/{kind}/*.json"))


def test_nothing_changed(lab):
    machine, chain, disk = lab.standard()
    domain = lab.domain_of(machine)
    kept = disk.commit(auto="keep")
    kept.wait_completed("kept")
    done = disk.commit(auto="pivot", on_error="stop")
    done.wait_completed("completed")
    before = lab.client.managed_objects()
    lab.service.restart()
    domain.wait("State", "paused")
    after = lab.client.managed_objects()
    ours = [path for path in before if path.startswith(domain.path) or path in (kept.path, done.path)]
    assert len(ours) == 4
    for path in ours:
        assert after[path] == before[path], path
    assert domain["Pid"] == machine.process.pid
    machine.snapshot("vda", f"{lab.directory}/new.qcow2")
    disk.commit(auto="pivot").wait_completed("completed")
    assert len(kept.completed()) == len(done.completed()) == 1


def test_orderly_stop_and_start(lab):
    machine, chain, disk = lab.standard()
    lab.service.terminate()
    # The monitor is free meanwhile.
    other = socket.socket(socket.AF_UNIX)
    other.settimeout(5)
    other.connect(machine.monitor_path)
    assert b"QMP" in other.recv(4096)
    other.close()
    lab.service.start()
    lab.domain_of(machine).wait("State", "paused")
    disk.commit(auto="pivot").wait_completed("completed")


def test_monitor_that_is_busy_at_the_start(lab):
    """Somebody took the monitor meanwhile: the domain is there, disconnected, and comes back when it is free."""
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=64 * KIB)
    lab.service.kill()
    other = socket.socket(socket.AF_UNIX)
    other.connect(machine.monitor_path)
    assert other.recv(4096)
    lab.service.start()
    domain = lab.domain_of(machine)
    assert domain["State"] == "disconnected"
    assert job["State"] == "disconnected"
    with refused("Disconnected"):
        job.pause()
    other.close()
    domain.wait("State", "paused")
    job.wait("State", "running")
    job.set_speed(0)
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")


def test_detached_domain_stays_away(lab):
    machine, _, _ = lab.standard()
    domain = lab.domain_of(machine)
    domain.detach()
    lab.service.restart()
    assert not domain.exists()


def test_passed_descriptor_cannot_be_had_again(lab):
    machine = lab.machine().add_virtio(images.two_layers(lab.directory)).start()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(machine.monitor_path)
    lab.attached.append(machine.name)
    domain = lab.manager.attach_descriptor(machine.name, connection.fileno())
    connection.close()
    disk = domain.disk("vda")
    job = disk.commit(active=True)
    job.wait_ready()
    lab.service.restart()
    assert domain["State"] == "disconnected"
    assert job["State"] == "disconnected"
    assert disk["Source"] == machine.chains["vda"].top.path
    # Another connection to the same QEMU takes the job up again.
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(machine.monitor_path)
    lab.manager.attach_descriptor(machine.name, connection.fileno())
    connection.close()
    job.wait("State", "ready")
    job.pivot()
    job.wait_completed("completed")


def test_qemu_that_quits_while_the_service_is_away(lab):
    machine, chain, disk = lab.standard()
    lab.service.kill()
    machine.quit()
    lab.service.start()
    assert lab.domain_of(machine)["State"] in ("shutoff", "crashed")
    assert disk["Source"] == chain.top.path
    lab.domain_of(machine).detach()


DAMAGES = {
    "empty": b"",
    "truncated": b'{"version": 1, "kind": "jo',
    "garbage": bytes(range(256)),
    "other-json": b"[1, 2, 3]\n",
    "no-members": b"{}\n",
    "newer": b'{"version": 999, "kind": "job"}\n',
    "nested": b"[" * 100000,
}


@pytest.mark.parametrize("kind", ["jobs", "domains"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_record(lab, kind, damage):
    """Set aside and reported; everything else goes on."""
    machine, chain, disk = lab.standard()
    done = disk.commit(auto="keep")
    done.wait_completed("kept")
    name = "damaged1" if kind == "jobs" else lab.unique_name("damaged")
    path = f"{lab.service.state_directory}/{kind}/{name}.json"
    lab.service.kill()
    position = lab.service.log.size()
    with open(path, "wb") as record:
        record.write(DAMAGES[damage])
    lab.service.start()
    assert not os.path.exists(path)
    aside = f"{path}.damaged"
    assert os.path.exists(aside)
    with open(aside, "rb") as record:
        assert record.read() == DAMAGES[damage]
    assert path in lab.service.log.since(position)
    assert done["Result"] == "kept"
    lab.domain_of(machine).wait("State", "paused")
    os.unlink(aside)


@pytest.mark.parametrize("change", ["type", "missing", "disk-path"])
def test_record_of_a_job_that_was_tampered_with(lab, change):
    """Well-formed, but it makes no sense: the record of a finished job of this test's own, changed."""
    machine, chain, disk = lab.standard()
    before = records(lab, "jobs")
    done = disk.commit(auto="keep")
    done.wait_completed("kept")
    path, = records(lab, "jobs") - before
    lab.service.kill()
    with open(path) as file:
        record = json.load(file)
    if change == "type":
        record = {key: 42 if isinstance(value, str) else "x" for key, value in record.items()}
    elif change == "missing":
        record = {key: record[key] for key in ("version", "kind") if key in record}
    else:
        record = json.loads(json.dumps(record).replace("vda", "../../x"))
    with open(path, "w") as file:
        json.dump(record, file)
    lab.service.start()
    lab.domain_of(machine).wait("State", "paused")
    disk.commit(auto="pivot").wait_completed("completed")


def test_lost_record_of_a_running_job(lab):
    """The record is gone, the job is in QEMU: it is nobody's as far as can be known, and it is left alone."""
    machine, chain, disk = lab.slow()
    before = records(lab, "jobs")
    disk.commit(active=True, speed=64 * KIB)
    lost, = records(lab, "jobs") - before
    lab.service.kill()
    os.unlink(lost)
    lab.service.start()
    domain = lab.domain_of(machine)
    domain.wait("State", "paused")
    qemu_job, = machine.jobs()
    assert disk["Source"] == chain.top.path
    with refused("JobActive", qemu_job):
        disk.commit(active=True)
    assert list(machine.jobs()) == [qemu_job]


def test_leftovers_in_the_state_directory(lab):
    """What an interrupted write leaves, and what somebody else put there, is no record."""
    directory = lab.service.state_directory
    lab.service.kill()
    strays = [f"{directory}/jobs/.x.json.tmp", f"{directory}/jobs/x.json.tmp", f"{directory}/jobs/README",
              f"{directory}/domains/a.json.damaged"]
    for path in strays:
        with open(path, "w") as file:
            file.write("not a record")
    os.mkdir(f"{directory}/jobs/folder.json")
    lab.service.start()
    for path in strays:
        if os.path.exists(path):
            os.unlink(path)
    for path in glob.glob(f"{directory}/jobs/folder.json*"):
        os.rmdir(path)


def test_second_service_on_the_same_state(lab):
    """Refused; the first is unharmed."""
    process = lab.service.launch()
    assert process.wait(20) != 0
    lab.service.disturbed = False
    assert lab.service.owned()
    lab.standard()[2].commit(auto="pivot").wait_completed("completed")


def test_records_are_readable_by_root_alone(lab):
    machine, _, disk = lab.standard()
    disk.commit(auto="keep").wait_completed("kept")
    for path in records(lab, "jobs") | records(lab, "domains"):
        assert os.stat(path).st_mode & 0o077 == 0, path
