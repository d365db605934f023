# SPDX-License-Identifier: LGPL-2.1-or-later
"""AttachDomain on what is no QEMU, or not to be had: a clear error within five seconds, the service unharmed.

That the daemon still is the same process afterwards is checked after every test, by the `service` fixture.
"""

import os
import socket
import time

import pytest

from kit import fake_qmp, images
from kit.bus import ROOT, BusError, refused
from kit.objects import Manager


def assert_refused_in_time(lab, path, errors, *words, name=None):
    """The error comes within five seconds, names the socket, leaves nothing, and the service answers."""
    name = name or lab.unique_name()
    position = lab.client.position()
    start = time.monotonic()
    try:
        lab.manager.attach(name, path)
    except BusError as error:
        assert error.short in errors, str(error)
        for word in words:
            assert word in error.message, f"'{word}' is not in '{error.message}'"
    else:
        raise AssertionError("went through")
    assert time.monotonic() - start < 5.5
    with refused("NoSuchDomain", name):
        lab.manager.domain(name)
    assert not lab.client.heard(ROOT, "DomainAdded", position)


def test_plain_file(lab):
    path = f"{lab.directory}/file"
    with open(path, "w") as file:
        file.write('{"QMP": {}}\n')
    assert_refused_in_time(lab, path, ("InvalidArgument",), path)


def test_directory(lab):
    assert_refused_in_time(lab, lab.directory, ("InvalidArgument",), lab.directory)


def test_missing_path(lab):
    path = f"{lab.directory}/nothing"
    assert_refused_in_time(lab, path, ("InvalidArgument", "Disconnected"), path)


def test_relative_path(lab):
    assert_refused_in_time(lab, "some/where", ("InvalidArgument",), "some/where")


def test_empty_path(lab):
    assert_refused_in_time(lab, "", ("InvalidArgument",))


def test_path_longer_than_a_socket_can_have(lab):
    assert_refused_in_time(lab, "/" + "x" * 200, ("InvalidArgument",))


def test_dead_socket(lab):
    machine = lab.machine().start()
    machine.kill()
    assert os.path.exists(machine.monitor_path)
    assert_refused_in_time(lab, machine.monitor_path, ("Disconnected",), machine.monitor_path)


def test_datagram_socket(lab):
    path = f"{lab.directory}/datagram"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        datagram.bind(path)
        assert_refused_in_time(lab, path, ("InvalidArgument", "Disconnected"), path)


def test_silence(lab):
    peer = lab.peer(fake_qmp.silent)
    assert_refused_in_time(lab, peer.path, ("Timeout",), peer.path)


PEERS = {
    fake_qmp.garbage: "InvalidArgument", fake_qmp.other_json: "InvalidArgument",
    fake_qmp.not_an_object: "InvalidArgument", fake_qmp.deep_nesting: "InvalidArgument",
    fake_qmp.answers_with_wrong_ids: "InvalidArgument", fake_qmp.closes_at_once: "Disconnected",
    fake_qmp.closes_after_greeting: "Disconnected", fake_qmp.half_a_line: "Timeout",
    fake_qmp.half_a_line_and_end: "Disconnected", fake_qmp.endless_line: "LimitExceeded",
    fake_qmp.greets_then_ignores: "Timeout", fake_qmp.answers_errors: "QemuError",
    fake_qmp.answers_nonsense: "NotSupported", fake_qmp.closes_after_negotiation: "Disconnected",
}


@pytest.mark.parametrize("script", PEERS, ids=lambda script: script.__name__)
def test_peer_that_is_no_qemu(lab, script):
    peer = lab.peer(script)
    assert_refused_in_time(lab, peer.path, (PEERS[script],))
    assert peer.connections == 1


def test_monitor_that_serves_somebody_else(lab):
    machine = lab.machine().add_virtio(images.two_layers(lab.directory)).start()
    other = socket.socket(socket.AF_UNIX)
    other.connect(machine.monitor_path)
    assert other.recv(4096)
    assert_refused_in_time(lab, machine.monitor_path, ("Timeout",), "monitor busy", machine.monitor_path)
    other.close()
    lab.attach(machine)


def test_others_are_served_while_a_monitor_is_silent(lab):
    peer = lab.peer(fake_qmp.silent)
    waiting = lab.client.call_later(ROOT, "Manager", "AttachDomain", "(ssa{sv})", lab.unique_name(), peer.path, {})
    start = time.monotonic()
    lab.standard()
    assert time.monotonic() - start < 3
    assert lab.client.wait_reply(waiting).kind == "error"


@pytest.mark.parametrize("name", ["", "-a", ".a", "_a", "a/b", "a b", "é", "a\n", "../x", "x" * 129])
def test_names_that_are_not_allowed(lab, name):
    machine = lab.machine().start()
    with refused("InvalidArgument"):
        lab.manager.attach(name, machine.monitor_path)


def test_two_domains_with_one_name(lab):
    machine, _, disk = lab.standard()
    other = lab.machine().add_virtio(images.two_layers(lab.directory, "other")).start()
    with refused("Exists", machine.name):
        lab.manager.attach(machine.name, other.monitor_path)
    assert disk["Source"] == machine.chains["vda"].top.path
    lab.attach(other)


def test_one_name_twice_at_the_same_time(lab):
    machines = [lab.machine().add_virtio(images.two_layers(lab.directory, str(number))).start()
                for number in range(2)]
    lab.attached.append(machines[0].name)
    calls = [lab.client.call_later(ROOT, "Manager", "AttachDomain", "(ssa{sv})", machines[0].name,
                                   machine.monitor_path, {}) for machine in machines]
    kinds = sorted(lab.client.wait_reply(call).kind for call in calls)
    assert kinds == ["error", "reply"]


def test_one_monitor_under_two_names(lab):
    machine, _, disk = lab.standard()
    with refused("Exists", machine.name):
        lab.manager.attach(lab.unique_name(), machine.monitor_path)
    link = f"{lab.directory}/link"
    os.symlink(machine.monitor_path, link)
    # By another way to the same socket; whether that is seen at once or by the monitor that is busy.
    assert_refused_in_time(lab, link, ("Exists", "Timeout"), link)
    assert disk["Source"] == machine.chains["vda"].top.path


def test_unknown_option(lab):
    machine = lab.machine().start()
    with refused("InvalidArgument", "colour"):
        lab.manager.attach(lab.unique_name(), machine.monitor_path, colour="blue")
    with refused("InvalidArgument", "colour"):
        lab.manager.domain(lab.attach(machine)["Name"]).detach(colour="blue")


def test_descriptor_that_is_no_socket(lab):
    with open("/dev/null") as null:
        with refused("InvalidArgument"):
            Manager(lab.client).attach_descriptor(lab.unique_name(), null.fileno())
    reader, writer = os.pipe()
    with refused("InvalidArgument"):
        Manager(lab.client).attach_descriptor(lab.unique_name(), reader)
    os.close(reader)
    os.close(writer)


def test_descriptor_of_a_listening_socket(lab):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{lab.directory}/listener")
        listener.listen()
        start = time.monotonic()
        with pytest.raises(BusError):
            Manager(lab.client).attach_descriptor(lab.unique_name(), listener.fileno())
        assert time.monotonic() - start < 5.5


def test_descriptor_whose_other_end_is_closed(lab):
    ours, theirs = socket.socketpair()
    theirs.close()
    with refused("Disconnected"):
        Manager(lab.client).attach_descriptor(lab.unique_name(), ours.fileno())
    ours.close()


def test_unknown_domain_and_job(lab):
    with refused("NoSuchDomain", "nobody"):
        lab.manager.domain("nobody")
    with refused("NoSuchJob", "nothing"):
        lab.manager.job("nothing")
