# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Linux guest from what virsh dumpxml wrote: it writes, its disk is moved about under it and while it is off."""

import os
import tempfile

import pytest
from kit import images
from kit.guest import Guest, build, fixture_xml
from kit.images import KIB, MIB
from kit.waiting import stays

SIZE = 16 * MIB


@pytest.fixture(scope="session")
def boot():
    """Where its kernel and its initrd are."""
    with tempfile.TemporaryDirectory(prefix="bj-boot-") as directory:
        os.chmod(directory, 0o755)  # QEMU runs as a user of its own
        yield build(directory)


@pytest.fixture
def linux(own, boot):
    """Defines one from a file of tests/fixtures/domains: (domain, disk, guest)."""
    guests = []

    def define(chain, fixture="linux-guest.xml"):
        own.give(chain)
        guest = Guest(f"{own.directory}/serial", chain.contents[-1].copy())
        guests.append(guest)
        domain = own.define(fixture_xml(fixture, own.lab.unique_name(), chain.top.path, boot, guest.serial))
        return domain, domain.disk("vda"), guest
    yield define
    for guest in guests:
        guest.close()


def layers(directory):
    """A base and an overlay whose commit can be made to last by a speed limit."""
    return images.Chain(directory).add([(0xb5, 0, 4 * MIB)], size=SIZE).add(images.stripes(0x0e))


def qcow2(path, size=SIZE):
    return images.Layer(path, "qcow2", size)


def test_every_day_of_a_guest(own, linux):
    chain = layers(own.directory)
    domain, disk, guest = linux(chain)
    monday, copied, tuesday, wednesday, backup = (f"{own.directory}/{name}.qcow2" for name in
                                                  ("monday", "copied", "tuesday", "wednesday", "backup"))
    assert domain.xml_source() == [chain.top.path] and disk.sources() == chain.paths()

    # It runs, and a snapshot, a commit and a copy are made of its disk while it writes.
    domain.start()
    guest.boot()
    assert guest.size() == SIZE
    guest.assert_reads_all()
    guest.write(0xa1, 5 * MIB, MIB)
    before = guest.contents.copy()
    disk.snapshot(monday)
    guest.write(0xa2, 5 * MIB + 512 * KIB, MIB)
    assert disk.sources() == [monday, *chain.paths()] and domain.xml_source(inactive=True)[0] == monday
    images.assert_contents(chain.top, before)

    commit = disk.commit(auto="pivot", speed=MIB)
    guest.write_more(5)
    commit.set_speed(0)
    guest.write_until(commit.completed, "the end of the commit")
    commit.wait_completed("completed")
    assert disk.sources() == [chain.base.path] == domain.xml_source() == domain.xml_source(inactive=True)
    guest.assert_reads_all()
    images.assert_contents(chain.base, guest.contents)

    copy = disk.copy(copied, auto="pivot", speed=MIB)
    guest.write_more(5)
    copy.set_speed(0)
    guest.write_until(copy.completed, "the end of the copy")
    copy.wait_completed("completed")
    assert disk.sources() == [copied] == domain.xml_source() == domain.xml_source(inactive=True)
    guest.write_more(3)
    guest.assert_reads_all()
    images.assert_contents(qcow2(copied), guest.contents)
    before = guest.contents.copy()
    disk.snapshot(tuesday)
    guest.write(0xa3, 9 * MIB, 2 * MIB)

    # It powers off by itself, and its disk is worked on.
    guest.power_off()
    domain.wait("State", "shutoff")
    assert (domain["StateReason"], domain["Pid"]) == ("guest-shutdown", 0)
    assert disk.sources() == [tuesday, copied] and domain.xml_source() == [tuesday]
    images.assert_contents(qcow2(copied), before)
    images.assert_contents(qcow2(tuesday), guest.contents)
    disk.commit(active=True).wait_completed("completed")
    assert disk.sources() == [copied] == domain.xml_source()
    images.assert_contents(qcow2(copied), guest.contents)
    disk.snapshot(wednesday)
    disk.backup(backup).wait_completed("completed")
    images.assert_contents(qcow2(backup), guest.contents)
    assert [layer["source"] for layer in own.inspect(wednesday)] == [wednesday, copied] == disk.sources()
    disk.pull().wait_completed("completed")
    assert disk.sources() == [wednesday] == domain.xml_source()
    disk.resize(SIZE + 4 * MIB)
    layer, = own.inspect(wednesday)
    assert (layer["source"], layer["virtual-size"], layer["backing"]) == (wednesday, SIZE + 4 * MIB, "")
    assert layer["users"]

    # Started again it finds all that it has written, and more room.
    guest.contents.extend(bytes(4 * MIB))
    domain.start()
    guest.boot()
    assert guest.size() == SIZE + 4 * MIB == disk["Capacity"]
    guest.assert_reads_all()
    guest.write(0xa4, SIZE, 4 * MIB)
    guest.assert_reads_all()
    domain.destroy()
    assert (domain["State"], domain["StateReason"]) == ("shutoff", "destroyed")
    for path in (monday, tuesday, copied, chain.top.path, chain.base.path):
        os.unlink(path)  # nothing of them is needed any more
    images.assert_contents(qcow2(wednesday), guest.contents)
    images.assert_uncorrupted(qcow2(wednesday))


def test_q35_and_its_power_button(own, linux):
    chain = layers(own.directory)
    domain, _, guest = linux(chain, "linux-guest-q35.xml")
    domain.start()
    guest.boot()
    guest.write(0xa1, 5 * MIB, MIB)
    guest.assert_reads_all()
    domain.shutdown()
    guest.console.wait_end()
    domain.wait("State", "shutoff")
    assert domain["StateReason"] == "guest-shutdown"
    images.assert_contents(chain.top, guest.contents)
    images.assert_sound(chain.top)


def test_service_killed_under_a_guest_that_writes(own, linux, service):
    chain = layers(own.directory)
    domain, disk, guest = linux(chain)
    domain.start()
    guest.boot()
    pid = domain["Pid"]

    # While the commit copies: the guest does not notice.
    job = disk.commit(auto="pivot", speed=64 * KIB)
    guest.write_more(5)
    assert job["State"] == "running"
    service.kill()
    guest.write_more(10)
    process = service.launch()
    guest.write_until(lambda: service.owned() or process.poll() is not None, "the service to be back")
    assert (domain["State"], domain["Pid"], domain["Jobs"]) == ("running", pid, [job.path])
    assert job["State"] == "running" and disk["Job"] == job.path
    guest.write_more(5)
    job.set_speed(0)
    guest.write_until(job.completed, "the end of the commit")
    job.wait_completed("completed")
    assert disk.sources() == [chain.base.path] == domain.xml_source() == domain.xml_source(inactive=True)
    guest.write_more(5)
    guest.assert_reads_all()
    images.assert_contents(chain.base, guest.contents)

    # While the guest's writes are held for the pivot: they wait for the next service.
    disk.snapshot(f"{own.directory}/over.qcow2")
    guest.write_more(5)
    service.restart(stop_at="finalize")
    job = disk.commit(auto="pivot")
    service.wait_gone()
    held = guest.write_later(0xa1, 5 * MIB, 64 * KIB)
    stays(lambda: not guest.console.has_answered(held), "a write is held", 0.3)
    service.start()
    job.wait_completed("completed")
    guest.console.answer(held)
    assert disk.sources() == [chain.base.path] == domain.xml_source() == domain.xml_source(inactive=True)
    assert (domain["State"], domain["Pid"]) == ("running", pid)
    guest.write_more(5)
    guest.assert_reads_all()

    guest.power_off()
    domain.wait("State", "shutoff")
    assert domain["StateReason"] == "guest-shutdown"
    images.assert_contents(chain.base, guest.contents)
    images.assert_sound(chain.base)
