# SPDX-License-Identifier: LGPL-2.1-or-later
"""Over each limit and back: what is too much is refused, nothing else is, and what is let go can be had again."""

import os
import re
import uuid

import pytest
from gi.repository import Gio
from kit import images
from kit.bus import NAME, ROOT, BusError, Client, options, refused
from kit.caller import body
from kit.counting import descriptors, descriptors_at_most, free_numbers, recorded
from kit.images import MIB
from kit.many import deep_chain, raw_disk
from kit.neighbours import Neighbour, stopped
from kit.objects import Disk, Job
from kit.own import OwnDomain, domain_xml
from kit.waiting import stays, wait_until

REQUESTS = 256  # of one caller that wait
MAPS = 16       # of one domain that wait
JOBS = 64       # of one domain
LAYERS = 256
DOMAINS = 10000
QUESTIONS = 16  # of one user that stand open


@pytest.fixture
def neighbour(lab):
    """Somebody who has to do with none of it."""
    return Neighbour(lab)


# Calls.

def test_requests_of_one_caller(lab, neighbour):
    """They wait for a QEMU that does not answer. The caller may read still."""
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    pivot = lab.client.message(job.path, "Job", "Pivot", "(a{sv})", {})
    # Without replies: dbus-daemon has a limit of its own for those that a connection waits for.
    pivot.set_flags(Gio.DBusMessageFlags.NO_REPLY_EXPECTED)
    with stopped(machine):
        for _ in range(REQUESTS):
            lab.client.connection.send_message(pivot.copy(), Gio.DBusSendMessageFlags.NONE)
        for _ in range(2):
            with refused("LimitExceeded", REQUESTS):
                lab.manager.jobs()
        assert job["State"] == "completing"
        other = Client()
        assert Disk(other, neighbour.disk.path)["Source"] and Job(other, job.path)["State"] == "completing"
        job_of_other = Disk(other, neighbour.disk.path).commit(auto="keep")
        job_of_other.wait_completed("kept")
        other.close()
    job.wait_completed("completed")
    assert disk["Source"] == chain.base.path and lab.manager.jobs(domain=machine.name)
    neighbour.commit()


def test_maps_of_one_domain(lab, neighbour):
    machine, _, disk = lab.standard()
    expected = disk.map()
    with stopped(machine):
        calls = [lab.client.call_later(disk.path, "Disk", "Map", "(a{sv})", {}) for _ in range(MAPS)]
        with refused("LimitExceeded", MAPS, machine.name):
            disk.map()
        assert neighbour.disk.map()
    assert [lab.client.wait_reply(call).kind for call in calls] == ["reply"] * MAPS
    assert disk.map() == expected


def test_questions_of_one_user(lab, asked, callers):
    """So many stand open; those behind them wait their turn, and other users are asked nothing for it."""
    caller, agent = asked
    _, _, disk = lab.standard()
    caller.send(disk.path, "Disk", "Commit", body(options({"active": True})), interactive=True, times=QUESTIONS + 2)
    caller.receive()
    agent.wait_question(QUESTIONS - 1)
    assert callers("sys").error(lab.domain_of(lab.machines[0]).path, "Domain", "Suspend") == ""
    assert callers("nobody").error(disk.path, "Disk", "Map", body({})) == ""
    stays(lambda: len(agent.questions) == QUESTIONS, "the others to wait", 0.2)
    for number in range(2):
        agent.deny(agent.questions[number])
        agent.wait_question(QUESTIONS + number)


@pytest.mark.parametrize("size", [MIB, pytest.param(24 * MIB, marks=pytest.mark.long)])
def test_long_texts(lab, neighbour, size):
    """The bus takes up to 32 MiB. In none of it is there anything to be found, or written to a record."""
    machine, _, disk = lab.standard()
    text, before = "x" * size, recorded(lab.service, "jobs")
    for call in (lambda: disk.commit(base=text), lambda: disk.commit(**{text: True}), lambda: disk.snapshot(text),
                 lambda: disk.copy(f"/{text}"), lambda: lab.manager.domain(text), lambda: lab.manager.job(text),
                 lambda: lab.manager.jobs(state=text), lambda: lab.manager.attach("vm", f"/{text}"),
                 lambda: lab.manager.attach(text, machine.monitor_path),
                 lambda: lab.manager.call("InspectImage", "(sa{sv})", f"/{text}", {})):
        with pytest.raises(BusError) as error:
            call()
        assert error.value.short in ("InvalidArgument", "NoSuchImage", "NoSuchDomain", "NoSuchJob"), error.value.name
    assert machine.jobs() == {} and recorded(lab.service, "jobs") == before
    neighbour.commit()


def test_client_that_reads_nothing(lab, neighbour):
    """What is on its way to it is the bus's to keep; the service goes on."""
    lab.standard()
    deaf = Gio.Subprocess.new(["/usr/bin/python3", "-c", DEAF, NAME, ROOT], Gio.SubprocessFlags.STDOUT_PIPE)
    try:
        assert deaf.get_stdout_pipe().read_bytes(1).get_data() == b"."
        neighbour.measure()
        assert lab.client.managed_objects()
    finally:
        deaf.force_exit()
        deaf.wait()
    neighbour.commit()


# It asks for everything, and stops before an answer is read.
DEAF = """
import os, signal, sys
from gi.repository import Gio, GLib
flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
connection = Gio.DBusConnection.new_for_address_sync(os.environ["DBUS_SYSTEM_BUS_ADDRESS"], flags, None, None)
connection.call_sync("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch",
                     GLib.Variant("(s)", (f"type='signal',sender='{sys.argv[1]}'",)), None, 0, -1, None)
call = Gio.DBusMessage.new_method_call(*sys.argv[1:3], "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
for _ in range(100):
    connection.send_message(call.copy(), Gio.DBusSendMessageFlags.NONE)
connection.flush_sync(None)
os.write(1, b".")
os.kill(os.getpid(), signal.SIGSTOP)
"""


# Domains, jobs, layers.

@pytest.mark.long
def test_jobs_of_one_domain(lab, neighbour):
    """One on each of so many disks; the next is for when one of them has ended."""
    machine = lab.machine().add_scsi_controller()
    for number in range(JOBS + 1):
        machine.add_scsi(raw_disk(lab.directory, f"disk{number}"), f"sd{number}")
    domain = lab.attach(machine.start())
    disks = [Disk(lab.client, path) for path in domain["Disks"]]
    calls = [lab.client.call_later(disk.path, "Disk", "Backup", "(sa{sv})", f"{lab.directory}/{number}.raw",
                                   options({"speed": 1})) for number, disk in enumerate(disks[:JOBS])]
    assert {lab.client.wait_reply(call, 120).kind for call in calls} == {"reply"}
    jobs = [Job(lab.client, disk["Job"]) for disk in disks[:JOBS]]
    target = f"{lab.directory}/more.raw"
    with refused("LimitExceeded", JOBS, machine.name):
        disks[JOBS].backup(target)
    assert not os.path.exists(target) and disks[JOBS]["Job"] == "/"
    assert len(machine.jobs()) == len(domain["Jobs"]) == JOBS
    neighbour.commit()
    jobs[0].abort()
    disks[JOBS].backup(target).wait_completed("completed")
    for job in jobs[1:]:
        job.set_speed(0)
    for job in jobs[1:]:
        job.wait_completed("completed", 120)
    images.assert_contents(images.Layer(jobs[1]["Target"], "raw", 0), machine.chains["sd0"].contents[-1])


@pytest.mark.long
def test_layers_of_a_chain(lab, neighbour):
    machine = lab.machine().add_virtio(deep_chain(lab.directory, LAYERS)).start()
    disk = lab.attach(machine).disk("vda")
    overlay = f"{lab.directory}/over.qcow2"
    with refused("LimitExceeded", LAYERS, "vda"):
        disk.snapshot(overlay)
    assert not os.path.exists(overlay) and len(disk["Chain"]) == LAYERS
    neighbour.commit()
    disk.commit(shallow=True, auto="pivot").wait_completed("completed")
    disk.snapshot(overlay)
    assert len(disk["Chain"]) == LAYERS and disk["Source"] == overlay


@pytest.fixture
def full_of_domains(own, tmp_path):
    """The daemon on a state of its own with so many that are defined. Records are made here, for that is quicker."""
    service, name = own.lab.service, own.lab.unique_name()
    own.define(domain_xml(name))
    with open(f"{service.state_directory}/domains/{name}.json") as file:
        record = file.read()
    identity, = re.findall("<uuid>(.*?)</uuid>", record)
    (tmp_path / "domains").mkdir()
    for number in range(DOMAINS):
        text = record.replace(name, f"many{number}").replace(identity, str(uuid.UUID(int=number)))
        (tmp_path / "domains" / f"many{number}.json").write_text(text)
    service.terminate()
    service.start(str(tmp_path), deadline=120)
    yield own
    service.terminate()
    service.start()


@pytest.mark.long
def test_domains(full_of_domains):
    lab, own = full_of_domains.lab, full_of_domains
    assert len(lab.manager["Domains"]) == DOMAINS
    machine = lab.machine().add_virtio(images.two_layers(lab.directory)).start()
    for attempt in (lambda: own.define(domain_xml("more")), lambda: own.create(domain_xml("more")),
                    lambda: lab.attach(machine)):
        with refused("LimitExceeded", DOMAINS):
            attempt()
    OwnDomain(lab.client, lab.manager.domain("many0").path).undefine()
    lab.attach(machine).disk("vda").commit(auto="pivot").wait_completed("completed")
    lab.domain_of(machine).detach()


# Descriptors.

@pytest.mark.parametrize("left", range(3))
def test_no_descriptor_is_left(lab, neighbour, left):
    """Or one, and so on, so that each place comes where the next one would be opened."""
    machine = lab.machine().add_virtio(images.two_layers(lab.directory, "more")).start()
    pid = lab.service.pid()
    before = descriptors(pid)
    with descriptors_at_most(pid, free_numbers(pid)[left]):
        with refused("LimitExceeded", "open files"):
            lab.attach(machine)
        assert neighbour.disk["Source"] and lab.manager.jobs() == []
    neighbour.commit()
    disk = lab.attach(machine).disk("vda")
    disk.commit(auto="pivot").wait_completed("completed")
    lab.domain_of(machine).detach()
    wait_until(lambda: len(descriptors(pid)) <= len(before), f"descriptors to be closed beside {before}")
