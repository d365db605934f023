# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls as clients make them, right and wrong: types, properties, many at once, nobody who waits."""

import os

import pytest
from gi.repository import Gio, GLib

from kit.bus import DRIVER, NAME, PROPERTIES, ROOT, BusError, Client, options, refused
from kit.images import KIB
from kit.waiting import stays

INVALID_ARGUMENTS = "org.freedesktop.DBus.Error.InvalidArgs"


def test_wrong_signature(lab):
    _, _, disk = lab.standard()
    for path, interface, method, signature, arguments in (
            (ROOT, "Manager", "GetDomain", "(u)", (1,)), (ROOT, "Manager", "AttachDomain", "(ss)", ("a", "/b")),
            (ROOT, "Manager", "ListJobs", "()", ()), (disk.path, "Disk", "Commit", "(s)", ("x",)),
            (disk.path, "Disk", "Commit", "()", ()), (ROOT, "Manager", "ListJobs", "(a{ss})", ({},))):
        with pytest.raises(BusError) as error:
            lab.client.call(path, interface, method, signature, *arguments)
        assert error.value.name == INVALID_ARGUMENTS, error.value


def test_unknown_method_and_property(lab):
    with pytest.raises(BusError) as error:
        lab.client.call(ROOT, "Manager", "Explode")
    assert error.value.name == "org.freedesktop.DBus.Error.UnknownMethod"
    with pytest.raises(BusError) as error:
        lab.client.get(ROOT, "Manager", "Colour")
    assert error.value.name == "org.freedesktop.DBus.Error.UnknownProperty"
    with pytest.raises(BusError) as error:
        lab.client.get(ROOT, "Nothing", "Version")
    assert error.value.name.startswith("org.freedesktop.DBus.Error.Unknown")


def test_no_property_is_writable(lab):
    _, _, disk = lab.slow()
    job = disk.commit(active=True, speed=64 * KIB)
    for path, interface, name, value in ((job.path, "Job", "Speed", GLib.Variant("t", 0)),
                                         (disk.path, "Disk", "Source", GLib.Variant("s", "/x")),
                                         (ROOT, "Manager", "Version", GLib.Variant("s", "0"))):
        with pytest.raises(BusError) as error:
            lab.client.call(path, PROPERTIES, "Set", "(ssv)", f"{NAME}.{interface}", name, value)
        assert error.value.name == "org.freedesktop.DBus.Error.PropertyReadOnly"
    assert job["Speed"] == 64 * KIB


def test_manager_properties(lab):
    properties = lab.manager.all()
    assert properties["Version"]
    assert properties["Capabilities"] == sorted(set(properties["Capabilities"])) or properties["Capabilities"]


def test_too_many_options(lab):
    machine, _, _ = lab.standard()
    many = {f"key{number}": True for number in range(65)}
    with refused("LimitExceeded", "64"):
        lab.manager.jobs(**many)
    with refused("LimitExceeded", "64"):
        lab.manager.attach(lab.unique_name(), machine.monitor_path, **many)
    with refused("LimitExceeded", "64"):
        lab.domain_of(machine).detach(**many)
    # 64 are looked at; these are unknown.
    with refused("InvalidArgument", "key"):
        lab.manager.jobs(**{f"key{number}": True for number in range(64)})


def test_many_calls_at_once(lab):
    """Reads and methods from several connections, none of them waiting for another."""
    machine, _, disk = lab.slow()
    job = disk.commit(active=True, speed=64 * KIB)
    clients = [Client(listen=False) for _ in range(6)]
    calls = []
    for number in range(300):
        client = clients[number % len(clients)]
        kind = number % 5
        if kind == 0:
            calls.append((client, client.call_later(job.path, PROPERTIES, "GetAll", "(s)", f"{NAME}.Job")))
        elif kind == 1:
            calls.append((client, client.call_later(job.path, "Job", "SetSpeed", "(t)", 64 * KIB + number)))
        elif kind == 2:
            calls.append((client, client.call_later(ROOT, "Manager", "ListJobs", "(a{sv})", {})))
        elif kind == 3:
            calls.append((client, client.call_later(disk.path, "Disk", "Commit", "(a{sv})",
                                                    options({"active": True}))))
        else:
            calls.append((client, client.call_later(ROOT, "org.freedesktop.DBus.ObjectManager",
                                                    "GetManagedObjects")))
    kinds = [client.wait_reply(serial).kind for client, serial in calls]
    assert [kind for number, kind in enumerate(kinds) if number % 5 != 3] == ["reply"] * 240
    assert [kind for number, kind in enumerate(kinds) if number % 5 == 3] == ["error"] * 60
    assert len(machine.jobs()) == 1
    for client in clients:
        client.close()


def test_many_pivots_at_once(lab):
    """Every caller hears how it ended; the job ends once."""
    _, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    calls = [lab.client.call_later(job.path, "Job", "Pivot", "(a{sv})", {}) for _ in range(50)]
    kinds = {lab.client.wait_reply(call).kind for call in calls}
    assert "reply" in kinds
    job.wait_completed("completed")
    assert disk["Source"] == chain.base.path


def test_caller_that_wants_no_reply(lab):
    _, _, disk = lab.slow()
    job = disk.commit(active=True, speed=64 * KIB)
    message = lab.client.message(job.path, "Job", "SetSpeed", "(t)", 65537)
    message.set_flags(Gio.DBusMessageFlags.NO_REPLY_EXPECTED)
    position = lab.client.position()
    lab.client.connection.send_message(message, Gio.DBusSendMessageFlags.NONE)
    job.wait("Speed", 65537)
    stays(lambda: not [heard for heard in lab.client.log[position:] if heard.reply_serial == message.get_serial()],
          "no reply", 0.1)


def test_descriptors_that_nobody_asked_for(lab):
    """A caller that passes descriptors with every call does not fill the service's table."""
    machine, _, _ = lab.standard()
    count = len(os.listdir(f"/proc/{lab.service.pid()}/fd"))
    with open("/dev/null") as null:
        for _ in range(20):
            lab.client.call(ROOT, "Manager", "GetDomain", "(s)", machine.name, descriptors=[null.fileno()] * 8)
            with refused("InvalidArgument"):
                lab.manager.attach_descriptor(lab.unique_name(), null.fileno())
    assert len(os.listdir(f"/proc/{lab.service.pid()}/fd")) <= count + 2


def test_descriptors_are_closed(lab):
    """Attach, commit and detach, and refused attachments, leave nothing open."""
    machine, _, disk = lab.standard()
    lab.domain_of(machine).detach()
    count = len(os.listdir(f"/proc/{lab.service.pid()}/fd"))
    for _ in range(5):
        disk = lab.attach(machine).disk("vda")
        disk.commit(auto="keep").wait_completed("kept")
        lab.domain_of(machine).detach()
        with refused("InvalidArgument"):
            lab.manager.attach(lab.unique_name(), lab.directory)
    assert len(os.listdir(f"/proc/{lab.service.pid()}/fd")) <= count


def test_idle_service_does_nothing(lab):
    """With a machine attached and no job, no processor time is used."""
    lab.standard()
    path = f"/proc/{lab.service.pid()}/stat"

    def ticks():
        with open(path) as stat:
            fields = stat.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    # Three ticks for what attaching left to do; a service that polls or spins uses more.
    before = ticks()
    stays(lambda: ticks() - before <= 3, "idle", 1.0)


def test_name_is_ours_alone(lab):
    """Another root process cannot take the name away from the running service."""
    name, path, interface = DRIVER
    reply, = lab.client.call(path, interface, "RequestName", "(su)", NAME, 6, destination=name)  # replace, no queue
    assert reply == 3  # exists
