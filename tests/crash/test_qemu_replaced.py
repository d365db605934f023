# SPDX-License-Identifier: LGPL-2.1-or-later
"""Another QEMU answers where the domain was: it is never taken for it, whatever it has in common with it."""

import os
import socket

import pytest

from kit import images
from kit.every_job import SLOW
from kit.waiting import wait_until


@pytest.fixture
def apart(lab):
    """A daemon in a PID namespace of its own, which sees no QEMU's pid; restart() starts it again."""
    class Apart:
        def start(self):
            lab.service.kill()
            command = f"unshare --pid --fork --kill-child /bin/sh -c \"$BLOCKJOBD\""
            process = lab.service._spawn(command, dict(os.environ))
            lab.service.processes.append(process)
            wait_until(lambda: lab.service.owned() or process.poll() is not None, "the daemon to take its name")
            assert process.poll() is None

    yield Apart()
    lab.service.kill()
    lab.service.start()


def successor_of(lab, machine, chain):
    return lab.machine(machine.name, suffix="-successor").add_virtio(chain).start()


# The same images by the same command line, as a manager starts its machine again; or others.
@pytest.mark.parametrize("same", [True, False])
def test_while_the_service_is_away(lab, same):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    lab.service.kill()
    machine.kill()
    successor = successor_of(lab, machine, chain if same else images.two_layers(lab.directory, "other"))
    before = successor.nodes()
    lab.service.start()
    job.wait_completed("lost")
    assert lab.domain_of(machine)["State"] == "crashed"
    assert disk["Source"] == chain.top.path
    assert successor.nodes() == before and successor.jobs() == {}


@pytest.mark.parametrize("same", [True, False])
def test_without_a_pid_to_be_seen(lab, apart, same):
    """Its socket is another one, though it has the same name."""
    apart.start()
    machine, chain, disk = lab.slow()
    assert lab.domain_of(machine)["Pid"] == 0
    job = disk.commit(active=True, speed=SLOW)
    lab.service.kill()
    machine.kill()
    os.unlink(machine.monitor_path)
    successor = successor_of(lab, machine, chain if same else images.two_layers(lab.directory, "other"))
    apart.start()
    job.wait_completed("lost")
    assert lab.domain_of(machine)["State"] == "crashed"
    assert disk["Source"] == chain.top.path
    assert successor.jobs() == {}


def test_the_same_one_without_a_pid_to_be_seen(lab, apart):
    apart.start()
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    apart.start()
    assert job["State"] == "running"
    job.set_speed(0)
    job.wait_ready()
    apart.start()
    job.pivot()
    job.wait_completed("completed")
    assert disk["Source"] == machine.active_file("vda") == chain.base.path


def attach_by_descriptor(lab, machine):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(machine.monitor_path)
        lab.attached.append(machine.name)
        return lab.manager.attach_descriptor(machine.name, connection.fileno())


@pytest.mark.parametrize("replaced", [True, False])
def test_passed_connection_without_a_pid_to_be_seen(lab, apart, replaced):
    """There is no socket to know it by; there are the names of its nodes, and of its jobs."""
    apart.start()
    machine = lab.machine().add_virtio(images.slow_layers(lab.directory)).start()
    chain = machine.chains["vda"]
    disk = attach_by_descriptor(lab, machine).disk("vda")
    job = disk.commit(active=True, speed=SLOW)
    apart.start()
    if replaced:
        machine.kill()
        os.unlink(machine.monitor_path)
        other = images.two_layers(lab.directory, "other")
        machine = lab.machine(machine.name, suffix="-successor").add_virtio(other, "vdb").start()
        attach_by_descriptor(lab, machine)
        job.wait_completed("lost")
        assert machine.jobs() == {}
        return
    attach_by_descriptor(lab, machine)
    job.wait("State", "running")
    job.abort()
    job.wait_completed("cancelled")
    assert disk["Source"] == machine.active_file("vda") == chain.top.path
