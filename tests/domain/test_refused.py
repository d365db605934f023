# SPDX-License-Identifier: LGPL-2.1-or-later
"""Definitions that are none, and names that are taken: refused with what is wrong and where, and nothing is there."""

import os
import uuid

import pytest
from bus.test_journal import Journal
from kit import images
from kit.bus import ROOT, BusError, refused
from kit.own import OwnDomain, disk_xml, domain_xml

LIMIT = 1024 * 1024


def bomb(levels=12):
    """A few hundred bytes that stand for 10 ** levels of them."""
    entities = "".join(f"<!ENTITY e{number} '{f'&e{number - 1};' * 10}'>\n" for number in range(1, levels + 1))
    return f"<!DOCTYPE domain [<!ENTITY e0 'x'>\n{entities}]>\n"


def with_memory(text, unit="MiB"):
    return domain_xml("vm").replace("<memory unit='MiB'>32<", f"<memory unit='{unit}'>{text}<")


DISK = disk_xml("/nowhere/vda.qcow2")
# What is wrong with the text: (XML, the words that the message has).
BROKEN = {
    "empty": ("", ["line 1"]),
    "no-xml": ("vm", ["line 1"]),
    "not-closed": ("<domain type='qemu'>\n<name>vm</name>\n", ["line 3"]),
    "wrong-end": ("<domain type='qemu'>\n<name>vm</nam>\n</domain>", ["line 2", "name"]),
    "two-documents": (domain_xml("vm") + domain_xml("vm"), ["line"]),
    "other-document": ("<network><name>vm</name></network>", ["network", "domain"]),
    "entity-bomb": (bomb() + domain_xml("vm", top="<title>&e12;</title>"), ["document type"]),
    "attribute-bomb": (bomb() + domain_xml("vm", disk_xml("&e12;")), ["document type"]),
    "external-entity": ("<!DOCTYPE domain [<!ENTITY e SYSTEM 'file:///etc/shadow'>]>\n"
                        + domain_xml("vm", top="<title>&e;</title>"), ["document type"]),
    "external-subset": ("<!DOCTYPE domain SYSTEM 'file:///etc/shadow'>\n" + domain_xml("vm"), ["document type"]),
    "parameter-entity": ("<!DOCTYPE domain [<!ENTITY % e SYSTEM 'http://127.0.0.1:1/'> %e;]>\n" + domain_xml("vm"),
                         ["document type"]),
    "unknown-entity": (domain_xml("vm", top="<title>&e;</title>\n"), ["line 7", "'e'"]),
    "other-encoding": ("<?xml version='1.0' encoding='ISO-8859-1'?>\n" + domain_xml("vm"), ["encoding", "UTF-8"]),
    "wide-encoding": ("<?xml version='1.0' encoding='UTF-16'?>\n" + domain_xml("vm"), ["line 1", "UTF-16"]),
    "unknown-encoding": ("<?xml version='1.0' encoding='KLINGON'?>\n" + domain_xml("vm"), ["ncoding"]),
    "no-name": (domain_xml("vm").replace("<name>vm</name>", ""), ["no 'name'"]),
    "no-memory": (domain_xml("vm").replace("<memory unit='MiB'>32</memory>", ""), ["no 'memory'"]),
    "memory-in-words": (with_memory("two GiB"), ["line 4", "two GiB", "memory"]),
    "memory-negative": (with_memory("-1"), ["line 4", "-1", "memory"]),
    "memory-none": (with_memory("0"), ["line 4", "'0'", "memory"]),
    "memory-overflow": (with_memory("18446744073709551615", "EiB"), ["line 4", "memory"]),
    "memory-unit": (with_memory("32", "parsec"), ["line 4", "parsec"]),
    "cpus": (domain_xml("vm").replace("<vcpu>1<", "<vcpu>none<"), ["line 5", "none", "vcpu"]),
    "uuid": (domain_xml("vm", identity="1234"), ["line 3", "1234", "uuid"]),
    "target-twice": (domain_xml("vm", DISK, disk_xml("/nowhere/other")), ["line 9", "vda", "line 8"]),
    "no-target": (domain_xml("vm", DISK.replace("<target dev='vda' bus='virtio'/>", "")), ["line 8", "target"]),
    "no-source": (domain_xml("vm", disk_xml("")), ["line 8", "source", "vda"]),
    "relative-source": (domain_xml("vm", disk_xml("vda.qcow2")), ["line 8", "vda.qcow2", "absolute"]),
    "format": (domain_xml("vm", disk_xml("/nowhere/vda", image_format="vmdk")), ["line 8", "vmdk", "qcow2"]),
    "bus": (domain_xml("vm", disk_xml("/nowhere/vda", bus="carrier-pigeon")), ["line 8", "carrier-pigeon"]),
    "xen": (domain_xml("vm").replace("type='qemu'", "type='xen'"), ["line 1", "xen", "kvm"]),
    "element": (domain_xml("vm", devices="<hostdev mode='subsystem' type='pci'/>\n"), ["line 9", "hostdev"]),
    "attribute": (domain_xml("vm").replace("<vcpu>", "<vcpu cpuset='0'>"), ["line 5", "cpuset", "vcpu"]),
    "poweroff": (domain_xml("vm", top="<on_poweroff>restart</on_poweroff>\n"), ["line 7", "restart", "on_poweroff"]),
    "emulator": (domain_xml("vm", devices="<emulator>qemu</emulator>\n"), ["line 9", "qemu", "absolute"]),
}


@pytest.fixture
def nothing_comes(client):
    """No domain comes to be, and none is told of."""
    position, before = client.position(), client.get(ROOT, "Manager", "Domains")
    yield
    assert client.get(ROOT, "Manager", "Domains") == before
    assert not client.heard(ROOT, "DomainAdded", position) and not client.heard(ROOT, "InterfacesAdded", position)


@pytest.mark.parametrize("case", BROKEN)
def test_no_definition(own, nothing_comes, case):
    xml, words = BROKEN[case]
    for make in (own.define, own.create):
        with refused("InvalidArgument", *words) as error:
            make(xml)
        assert "root:" not in error[0].message


@pytest.mark.parametrize("name", ["../vm", "a/b", "/vm", ".vm", "-vm", "a b", "a\nb", "vm+vda", "é", "", "x" * 129])
def test_names_that_are_none(own, nothing_comes, name):
    state = own.lab.service.state_directory
    before = [files for _, _, files in os.walk(state)]
    with refused("InvalidArgument", "line 2", "name"):
        own.define(domain_xml(name))
    assert [files for _, _, files in os.walk(state)] == before


def test_the_longest_name(own):
    name = own.lab.unique_name("x").ljust(128, "y")
    domain = own.define(domain_xml(name))
    own.lab.service.restart()
    assert domain["Name"] == name
    domain.start()
    assert domain["State"] == "running"


def test_size_of_the_xml(own, nothing_comes, client):
    """1 MiB is taken, and not one byte more, also of what it becomes as it is kept."""
    name, identity = own.lab.unique_name(), str(uuid.uuid4())

    def padded(count):
        return domain_xml(name, identity=identity).replace("</domain>", f"<!--{'x' * count}--></domain>")
    with refused("LimitExceeded", LIMIT):
        own.define(padded(LIMIT + 1 - len(padded(0))))
    position = client.position()
    domain = own.define(padded(LIMIT // 2))
    largest = LIMIT // 2 + LIMIT - len(domain.xml())
    domain.undefine()
    assert len(padded(largest)) < LIMIT, "what is kept is longer"
    domain = own.define(padded(largest))
    own.lab.service.restart()
    assert domain["State"] == "shutoff" and len(domain.xml()) == LIMIT
    domain.undefine()
    with client.news:
        del client.log[position:]
    with refused("LimitExceeded", LIMIT, "lines of their own"):
        own.define(padded(largest + 1))


def test_depth_of_the_xml(own, nothing_comes):
    deep = "<metadata>" + "<a>" * 100 + "</a>" * 100 + "</metadata>"
    with refused("LimitExceeded", "64"):
        own.define(domain_xml("vm", top=deep))


@pytest.mark.parametrize("member", ["DefineDomain", "CreateDomain"])
def test_options_unknown(own, nothing_comes, client, member):
    from gi.repository import GLib
    for name, value in (("lenient", GLib.Variant("s", "yes")), ("paused", GLib.Variant("b", True))):
        with refused("InvalidArgument", name):
            client.call(ROOT, "Manager", member, "(sa{sv})", domain_xml("vm"), {name: value})


@pytest.mark.parametrize("member", ["Start", "Shutdown", "Destroy", "Undefine", "GetXml"])
def test_options_of_a_domain_unknown(own, member):
    from gi.repository import GLib
    domain = own.define(domain_xml(own.lab.unique_name()))
    with refused("InvalidArgument", "now"):
        domain.call(member, "(a{sv})", {"now": GLib.Variant("b", True)})
    assert domain["State"] == "shutoff"


# Not understood.

def strange(name):
    return domain_xml(name, devices="    <hostdev mode='subsystem' type='pci'/>\n    <tpm model='tpm-tis'/>\n").replace(
        "<vcpu>", "<vcpu cpuset='0-3'>")


def test_lenient_leaves_out_and_tells(own):
    name = own.lab.unique_name()
    with refused("InvalidArgument", "line 5", "cpuset"):
        own.define(strange(name))
    position = own.lab.service.log.size()
    domain = own.define(strange(name), lenient=True)
    xml = domain.xml()
    assert not [word for word in ("hostdev", "tpm", "cpuset") if word in xml]
    assert domain.tree().find("vcpu").text == "1" and domain.tree().find("name").text == name
    said = own.lab.service.log.since(position)
    assert "left out" in said and "line 9" in said and "hostdev" in said and "tpm" in said and "cpuset" in said
    # What is kept is what was understood: it is read again as it is.
    own.lab.service.restart()
    assert domain.xml() == xml
    domain.start()
    assert domain["State"] == "running"


def test_lenient_is_no_leave_for_what_is_wrong(own, nothing_comes):
    for case in ("entity-bomb", "memory-in-words", "target-twice", "uuid", "no-source"):
        with refused("InvalidArgument", *BROKEN[case][1]):
            own.define(BROKEN[case][0], lenient=True)
    with refused("InvalidArgument", "line 1", "'kvm' and 'qemu'"):
        own.define(BROKEN["xen"][0], lenient=True)


def test_a_disk_that_is_not_understood_is_not_left_out_half(own):
    """An encrypted disk without what says so would be another disk: it goes as a whole."""
    path = f"{own.directory}/secret.qcow2"
    disk = disk_xml(path, "vdb").replace("<source", "<encryption format='luks'/><source")
    with refused("InvalidArgument", "line 9", "encryption"):
        own.define(domain_xml(own.lab.unique_name(), DISK, disk))


@pytest.fixture
def journal(service, workdir):
    journal = Journal(service, f"{workdir}/journal")
    yield journal
    service.terminate()
    assert journal.process.wait(20) == 0


def test_records_in_the_journal(journal, own):
    chain = own.give(images.two_layers(own.directory))
    name, identity = own.lab.unique_name(), str(uuid.uuid4())
    strange_one = strange(name).replace("    <hostdev", disk_xml(chain.top.path) + "\n    <hostdev")
    domain = own.define(strange_one.replace(strange_one.split("<uuid>")[1].split("<")[0], identity), lenient=True)
    same = dict(BLOCKJOB_DOMAIN=name, BLOCKJOB_DOMAIN_UUID=identity)
    record = journal.wait("MESSAGE_DOMAIN_DEFINED", **same)
    assert [word for word in ("hostdev", "tpm", "cpuset") if word not in record["BLOCKJOB_IGNORED"]] == []
    domain.start()
    assert "BLOCKJOB_IGNORED" not in journal.wait("MESSAGE_DOMAIN_STARTED", **same)
    domain.disk().commit(active=True)
    domain.destroy()
    journal.wait("MESSAGE_DOMAIN_GONE", **same)
    journal.wait("MESSAGE_JOB_LOST", BLOCKJOB_DOMAIN=name, BLOCKJOB_DISK="vda")
    domain.undefine()
    journal.wait("MESSAGE_DOMAIN_UNDEFINED")


# Names that are taken.

def test_the_same_name_or_uuid_twice(own):
    name, identity = own.lab.unique_name(), str(uuid.uuid4())
    domain = own.define(domain_xml(name, identity=identity))
    before = domain.xml()
    for xml in (domain_xml(name), domain_xml(own.lab.unique_name(), identity=identity),
                domain_xml(own.lab.unique_name(), identity=identity.upper().replace("-", ""))):
        for make in (own.define, own.create):
            with refused("Exists", name):
                make(xml)
    assert domain.xml() == before
    own.lab.service.restart()
    with refused("Exists", name):
        own.define(domain_xml(name))
    # Undefined, both are free again.
    domain.undefine()
    assert own.define(domain_xml(name, identity=identity))["State"] == "shutoff"


def test_two_definitions_at_once(own, client):
    """Of two that come in one breath one is taken, whole."""
    name = own.lab.unique_name()
    calls = [client.call_later(ROOT, "Manager", "DefineDomain", "(sa{sv})", domain_xml(name, memory=memory), {})
             for memory in (33, 34)]
    kinds = [client.wait_reply(call).kind for call in calls]
    assert kinds == ["reply", "error"]
    domain = OwnDomain(client, own.lab.manager.domain(name).path)
    own.domains.append(domain)
    assert int(domain.tree().find("memory").text) * (1024 if domain.tree().find("memory").get("unit") == "KiB" else 1) \
        in (33, 33 << 20)
    assert [path for path in client.get(ROOT, "Manager", "Domains") if path == domain.path] == [domain.path]


def test_name_of_an_attached_domain(own):
    machine, chain, disk = own.lab.standard()
    for make in (own.define, own.create):
        with refused("Exists", machine.name):
            make(domain_xml(machine.name))
        with refused("Exists", machine.name):
            make(domain_xml(own.lab.unique_name(), identity=machine.uuid))
    # Gone, it is there still, until it is detached.
    machine.kill()
    domain = own.lab.domain_of(machine)
    domain.wait("State", "crashed")
    with refused("Exists", machine.name):
        own.define(domain_xml(machine.name))
    domain.detach()
    assert own.define(domain_xml(machine.name))["Origin"] == "defined"


@pytest.mark.parametrize("runs", [False, True])
def test_attach_under_the_name_of_a_defined_one(own, runs):
    name = own.lab.unique_name()
    domain = own.define(domain_xml(name))
    if runs:
        domain.start()
    machine = own.lab.machine(name).add_virtio(images.two_layers(own.directory)).start()
    with refused("Exists", name):
        own.lab.manager.attach(name, machine.monitor_path)
    assert domain["Origin"] == "defined" and domain["State"] == ("running" if runs else "shutoff")
    # The monitor is free: somebody else can have it.
    other = own.lab.manager.attach(name + "-other", machine.monitor_path)
    machine.kill()
    other.wait("State", "crashed")
    other.detach()


# What is not there for domains of the other kind.

def test_an_attached_domain_is_somebody_elses(own):
    machine, chain, disk = own.lab.standard()
    domain = OwnDomain(own.client, own.lab.domain_of(machine).path)
    for _ in range(2):
        for call in (domain.start, domain.destroy, domain.undefine, domain.xml):
            with refused("InvalidState", machine.name, "attached"):
                call()
        if machine.process.poll() is None:
            assert domain["State"] == "paused" and machine.active_file("vda") == chain.top.path
            machine.kill()
            domain.wait("State", "crashed")
    with refused("InvalidState", machine.name, "crashed"):
        domain.shutdown()


@pytest.mark.parametrize("force", [False, True])
def test_detach_is_for_attached_ones(own, force):
    defined = own.define(domain_xml(own.lab.unique_name()))
    transient = own.create(domain_xml(own.lab.unique_name()))
    for domain, state in ((defined, "shutoff"), (transient, "running")):
        with refused("InvalidState", domain["Name"]):
            domain.detach(force=force)
        assert domain["State"] == state
    defined.start()
    with refused("InvalidState", defined["Name"]):
        defined.detach(force=force)
    assert defined["State"] == "running"


def test_calls_in_the_wrong_state(own):
    domain = own.define(domain_xml(own.lab.unique_name()))
    for member in ("Shutdown", "Destroy"):
        with refused("InvalidState", domain["Name"], "shutoff"):
            domain.call(member, "(a{sv})", {})
    for member in ("Suspend", "Resume"):
        with refused("InvalidState", domain["Name"], "shutoff"):
            domain.call(member)
    domain.start()
    domain.call("Suspend")
    assert domain["State"] == "paused"
    with refused("InvalidState", domain["Name"], "paused"):
        domain.start()
    with refused("InvalidState", domain["Name"], "paused"):
        domain.undefine()
    domain.call("Resume")
    assert domain["State"] == "running"


def test_a_domain_that_is_gone(own):
    domain = own.define(domain_xml(own.lab.unique_name()))
    record = f"{own.lab.service.state_directory}/domains/{domain['Name']}.json"
    assert os.path.exists(record)
    domain.undefine()
    assert not os.path.exists(record)
    for call in (domain.start, domain.destroy, domain.undefine, domain.xml):
        with pytest.raises(BusError, match="UnknownObject|UnknownMethod|NoSuchDomain"):
            call()
