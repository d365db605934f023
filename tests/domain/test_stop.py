# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service is told to stop while it starts a QEMU: it ends in order, and leaves none behind that nobody knows."""

import os
import signal

import pytest
from kit import images
from kit.bus import BusError
from kit.crash_walk import SIZE, small_chain
from kit.own import SlowEmulator, disk_xml, domain_xml
from kit.own_walk import START, STORAGE, processes
from kit.waiting import wait_until

# As long as the stop may take: a start has 2 s to come to its end, a QEMU 6 s to come to its own.
DEADLINE = 15


@pytest.fixture
def chain(own):
    return own.give(small_chain(own.directory))


def stop(service, process):
    """In order: with status 0, which it has only if nothing leaked."""
    os.kill(service.pid(), signal.SIGTERM)
    os.kill(service.pid(), signal.SIGCONT)
    assert process.wait(DEADLINE) == 0
    service.wait_gone()


@pytest.mark.parametrize("point", START)
def test_stop_in_a_start(own, client, service, chain, point):
    """The start comes to its end first."""
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path)))
    service.kill()
    process = service.start(wait_at=point)
    call = client.call_later(domain.path, "Domain", "Start", "(a{sv})", {})
    service.wait_stopped(service.pid())
    stop(service, process)
    started = client.wait_reply(call).kind == "reply"
    assert started == (point != "start-inspect")
    assert len(processes(own.directory)) == started
    service.start()
    assert domain["State"] == ("running" if started else "shutoff")


@pytest.mark.parametrize("point", STORAGE)
def test_stop_in_the_start_of_a_storage_daemon(own, client, service, chain, point):
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path)))
    disk = domain.disk()
    target = f"{own.directory}/target.qcow2"
    service.kill()
    process = service.start(wait_at=point)
    call = client.call_later(disk.path, "Disk", "Backup", "(sa{sv})", target, {})
    service.wait_stopped(service.pid())
    stop(service, process)
    assert client.wait_reply(call)
    service.start()
    wait_until(lambda: not domain["Jobs"] and not processes(own.directory), "the job to end")
    disk.backup(f"{own.directory}/next.qcow2").wait_completed("completed")
    wait_until(lambda: not processes(own.directory), "the end of the storage daemon")
    images.assert_contents(images.Layer(f"{own.directory}/next.qcow2", "qcow2", SIZE), chain.contents[-1])
    images.assert_contents(chain.top, chain.contents[-1])


@pytest.mark.parametrize("member, first", [("Start", ":"), ("CreateDomain", ":"), ("Start", "trap '' TERM")],
                         ids=["start", "create", "heeds-no-signal"])
def test_stop_while_nothing_comes_up(own, client, service, chain, member, first):
    """What does not come up is ended."""
    emulator = SlowEmulator(own.directory, first)
    xml = domain_xml(own.lab.unique_name(), disk_xml(chain.top.path), devices=emulator.xml)
    service.kill()
    process = service.start()
    if member == "CreateDomain":
        call = client.call_later("/org/blockjobd1", "Manager", member, "(sa{sv})", xml, {})
    else:
        domain = own.define(xml)
        call = client.call_later(domain.path, "Domain", "Start", "(a{sv})", {})
    wait_until(lambda: processes(own.directory), "the emulator to run")
    stop(service, process)
    assert client.wait_reply(call).kind == "error"
    assert not processes(own.directory)
    service.start()
    if member == "Start":
        assert domain["State"] == "shutoff"
    else:
        with pytest.raises(BusError, match="NoSuchDomain"):
            own.lab.manager.domain(xml.split("<name>")[1].split("<")[0])


def test_destroy_before_there_is_a_process(own, client, service, chain):
    """It is asked for while the start is written down."""
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path)))
    service.restart(wait_at="launch-record")
    pid = service.pid()
    start = client.call_later(domain.path, "Domain", "Start", "(a{sv})", {})
    service.wait_stopped(pid)
    destroy = client.call_later(domain.path, "Domain", "Destroy", "(a{sv})", {})
    service.resume(pid)
    assert client.wait_reply(destroy).kind == "reply"
    assert client.wait_reply(start).kind == "error"
    assert not processes(own.directory) and domain["State"] == "shutoff"
    domain.start()
    domain.destroy()
