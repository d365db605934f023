# SPDX-License-Identifier: LGPL-2.1-or-later
"""Of QEMUs of one version one is asked for its schema, which is large; it keeps no other waiting for long."""

import time

import pytest
from kit import images
from kit.bus import ROOT
from kit.fake_qmp import end, lines, send
from kit.relay import Relay
from kit.waiting import wait_until

SCHEMA = "query-qmp-schema"
SOON = 5  # seconds; half of what a command may take


@pytest.fixture
def fresh(lab):
    """A service that knows no schema, and machines that are not attached."""
    lab.service.restart()
    return lambda count: [lab.machine().add_virtio(images.two_layers(lab.directory, f"disk{number}")).start()
                          for number in range(count)]


class Mute:
    """Says which QEMU it is, and then nothing more."""

    def __init__(self, machine):
        self.greeting = machine.qmp.greeting

    def __call__(self, connection, peer):
        send(connection, self.greeting)
        for message in lines(connection):
            peer.received.append(message["execute"])
            if message["execute"] in ("qmp_capabilities", "query-name"):
                send(connection, {"return": {}, "id": message["id"]})


def attach_later(lab, name, path):
    lab.attached.append(name)
    return lab.client.call_later(ROOT, "Manager", "AttachDomain", "(ssa{sv})", name, path, {})


def asked_mute(lab, machine):
    """(peer, the call that attaches it): the service has asked it for its schema."""
    peer = lab.peer(Mute(machine))
    call = attach_later(lab, lab.unique_name(), peer.path)
    wait_until(lambda: SCHEMA in peer.received, "the question for the schema")
    return peer, call


def test_one_is_asked_for_all(lab, fresh):
    machines = fresh(6)
    relays = [Relay(machine) for machine in machines]
    calls = [attach_later(lab, machine.name, lab.peer(relay, f"{machine.name}.relay").path)
             for machine, relay in zip(machines, relays)]
    for call in calls:
        assert lab.client.wait_reply(call).kind == "reply"
    asked = sum(relay.commands.count(SCHEMA) for relay in relays)
    assert 1 <= asked < len(machines)
    for machine in machines:
        assert len(lab.domain_of(machine)["Capabilities"]) > 5
        lab.domain_of(machine).disk("vda").commit(auto="keep").wait_completed("kept")


def test_one_that_hangs_keeps_nobody(lab, fresh):
    machines = fresh(3)
    _, hanging = asked_mute(lab, machines[0])
    start = time.monotonic()
    for call in [attach_later(lab, machine.name, machine.monitor_path) for machine in machines]:
        assert lab.client.wait_reply(call).kind == "reply"
    assert time.monotonic() - start < SOON
    failed = lab.client.wait_reply(hanging)
    assert failed.kind == "error"


def test_one_that_goes_away_is_not_waited_for(lab, fresh):
    machine, = fresh(1)
    peer, gone = asked_mute(lab, machine)
    call = attach_later(lab, machine.name, machine.monitor_path)
    end(peer.open_connections[-1])
    assert lab.client.wait_reply(gone).kind == "error"
    assert lab.client.wait_reply(call).kind == "reply"


def test_one_that_waits_goes_away(lab, fresh):
    """What is learned meanwhile is nothing to it any more."""
    machine, = fresh(1)
    first, _ = asked_mute(lab, machine)
    waiting = lab.peer(Mute(machine), "waiting")
    call = attach_later(lab, lab.unique_name(), waiting.path)
    wait_until(lambda: "query-name" in waiting.received, "the second one to be known")
    end(waiting.open_connections[-1])
    assert lab.client.wait_reply(call).kind == "error"
    end(first.open_connections[-1])
    lab.attach(machine)
