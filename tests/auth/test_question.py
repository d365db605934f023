# SPDX-License-Identifier: LGPL-2.1-or-later
"""While polkit's question is open: the answer may be yes, no, or nobody may be left to hear it.

A real polkitd asks an agent of the tests' own, which lets the question stand for as long as a test wants.
"""

import os
import signal
import socket
import subprocess

import pytest

from kit import images
from kit.bus import ACCESS_DENIED, NAME, PROPERTIES, ROOT, BusError, options
from kit.caller import body
from kit.images import KIB
from kit.objects import Job
from kit.polkit import POLKIT, Agent, wait_polkit
from kit.waiting import stays, wait_until


def send_commit(caller, disk, **values):
    caller.send(disk.path, "Disk", "Commit", body(options(values)), interactive=True)


def test_yes(lab, asked):
    caller, agent = asked
    _, _, disk = lab.slow()
    send_commit(caller, disk, active=True, speed=64 * KIB)
    question = agent.wait_question()
    assert question.action == "org.blockjobd1.start-job"
    assert "vda" in question.message and lab.machines[0].name in question.message
    assert "$(" not in question.message
    assert disk["Job"] == "/", "nothing is done as long as the question stands"
    agent.allow(question)
    job = Job(lab.client, caller.receive()[0])
    assert job["StartedBy"] == 5
    # The next thing is another question.
    caller.send(job.path, "Job", "Abort", body({}), interactive=True)
    question = agent.wait_question(1)
    assert question.action == "org.blockjobd1.manage-own-job"
    assert "$(" not in question.message
    agent.allow(question)
    caller.receive()
    job.wait_completed("cancelled")


def test_no(lab, asked):
    caller, agent = asked
    machine, _, disk = lab.standard()
    send_commit(caller, disk, active=True)
    agent.deny(agent.wait_question())
    with pytest.raises(BusError) as error:
        caller.receive()
    assert error.value.name == ACCESS_DENIED
    assert machine.jobs() == {} and disk["Job"] == "/"


def test_caller_vanishes(lab, asked):
    """The request is dropped, the question withdrawn, and nothing is done."""
    caller, agent = asked
    machine, _, disk = lab.standard()
    send_commit(caller, disk, auto="pivot")
    question = agent.wait_question()
    position = lab.client.position()
    caller.kill()
    agent.wait_cancelled(question)
    stays(lambda: machine.jobs() == {}, "no job in QEMU", 0.3)
    assert not lab.client.heard(ROOT, "JobNew", position)
    assert disk["Source"] == machine.chains["vda"].top.path
    disk.commit(auto="pivot").wait_completed("completed")


def test_caller_vanishes_and_the_answer_is_yes(lab, asked):
    """polkitd itself hangs: the caller goes, and only then the yes arrives. It is a yes to nobody."""
    caller, agent = asked
    machine, _, disk = lab.standard()
    send_commit(caller, disk, auto="pivot")
    question = agent.wait_question()
    polkitd = lab.client.driver("GetConnectionUnixProcessID", "(s)", POLKIT)[0]
    os.kill(polkitd, signal.SIGSTOP)
    try:
        caller.kill()
        # The daemon has seen the caller go when it answers a later call.
        wait_until(lambda: caller.unique_name not in lab.client.driver("ListNames")[0], "the caller to go")
        lab.manager.jobs()
    finally:
        os.kill(polkitd, signal.SIGCONT)
    agent.wait_cancelled(question)
    stays(lambda: machine.jobs() == {}, "no job in QEMU", 0.3)
    assert disk["Job"] == "/"


def test_others_are_served_meanwhile(lab, asked):
    caller, agent = asked
    _, _, disk = lab.standard()
    send_commit(caller, disk, active=True)
    question = agent.wait_question()
    _, _, other = lab.standard(images.two_layers(lab.directory, "other"))
    other.commit(auto="pivot").wait_completed("completed")
    assert lab.manager.jobs() is not None
    agent.allow(question)
    caller.receive()


def test_disk_goes_while_the_question_stands(lab, asked):
    """What was asked about is not there any more: an error, and no other disk in its place."""
    caller, agent = asked
    machine, chain, disk = lab.standard()
    send_commit(caller, disk, auto="pivot")
    question = agent.wait_question()
    lab.domain_of(machine).detach()
    agent.allow(question)
    with pytest.raises(BusError) as error:
        caller.receive()
    assert error.value.short in ("NoSuchDomain", "NoSuchDisk", "InvalidState"), error.value
    assert machine.jobs() == {}


def test_another_domain_takes_the_name_while_the_question_stands(lab, asked):
    """The administrator agreed to something about one machine; another one has its name now."""
    caller, agent = asked
    machine, chain, disk = lab.standard()
    send_commit(caller, disk, auto="pivot")
    question = agent.wait_question()
    lab.domain_of(machine).detach()
    successor = lab.machine(machine.name, suffix="-other")
    successor.monitor_path += "2"
    successor.add_virtio(images.two_layers(lab.directory, "successor")).start()
    lab.attach(successor)
    agent.allow(question)
    with pytest.raises(BusError):
        caller.receive()
    assert successor.jobs() == {} and machine.jobs() == {}


def test_job_starts_while_the_question_stands(lab, asked):
    """The disk became busy meanwhile: the state counts as it is when the call is carried out."""
    caller, agent = asked
    machine, _, disk = lab.slow()
    send_commit(caller, disk, active=True)
    question = agent.wait_question()
    job = disk.commit(active=True, speed=64 * KIB)
    agent.allow(question)
    with pytest.raises(BusError) as error:
        caller.receive()
    assert error.value.short == "JobActive"
    assert len(machine.jobs()) == 1 and job["State"] == "running"


def test_socket_is_not_touched_before_the_answer(lab, asked):
    caller, agent = asked
    path = f"{lab.directory}/listener"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(0.3)
        name = lab.unique_name()
        caller.send(ROOT, "Manager", "AttachDomain", body(name, path, {}), interactive=True)
        question = agent.wait_question()
        assert question.action == "org.blockjobd1.manage-domains" and name in question.message
        with pytest.raises(TimeoutError):
            listener.accept()
        agent.deny(question)
        with pytest.raises(BusError):
            caller.receive()
        with pytest.raises(TimeoutError):
            listener.accept()


def test_too_many_questions_of_one_caller(lab, asked, callers):
    """256 may wait; more are refused, and other callers do not suffer."""
    caller, agent = asked
    machine, _, disk = lab.standard()
    caller.send(disk.path, "Disk", "Commit", body(options({"active": True})), interactive=True, times=300)
    assert caller.receive() is None
    agent.wait_question()
    caller.send(disk.path, "Disk", "Commit", body(options({"active": True})), interactive=True)
    with pytest.raises(BusError) as error:
        caller.receive()
    assert error.value.short == "LimitExceeded" and "256" in error.value.message
    # Reads are answered still, and others are not limited.
    assert caller.call(disk.path, PROPERTIES, "Get", body(f"{NAME}.Disk", "Job")) == ["/"]
    assert callers("sys").error(lab.domain_of(machine).path, "Domain", "Resume") == ""
    caller.kill()
    agent.wait_cancelled(agent.questions[0])
    assert machine.jobs() == {}
    # All of it is forgotten: the same user may ask again.
    again = callers("games")
    new_agent = Agent(again.process.pid)
    send_commit(again, disk, auto="pivot")
    new_agent.allow(new_agent.wait_question())
    again.receive()
    new_agent.close()


def test_without_polkit(lab, callers):
    """polkitd is gone: nobody but root may anything, until it is back."""
    machine, _, disk = lab.standard()
    caller = callers("nobody")
    polkitd = lab.client.driver("GetConnectionUnixProcessID", "(s)", POLKIT)[0]
    os.kill(polkitd, signal.SIGKILL)
    try:
        wait_until(lambda: not lab.client.driver("NameHasOwner", "(s)", POLKIT)[0], "polkitd to go")
        assert caller.error(disk.path, "Disk", "Commit", body(options({"active": True})), interactive=True) \
            == ACCESS_DENIED
        assert machine.jobs() == {}
        lab.domain_of(machine).call("Resume")
        lab.domain_of(machine).call("Suspend")
    finally:
        subprocess.Popen(["/usr/lib/polkit-1/polkitd", "--no-debug"], stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_polkit(lab.client.connection)
    job = Job(lab.client, caller.commit(disk, auto="pivot"))
    job.wait_completed("completed")
