# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains of the service's own: who may define, start and look, and what the rules are told of it."""

import os
import uuid

import pytest
from kit import images
from kit.bus import ACCESS_DENIED, ROOT, BusError, options
from kit.caller import body
from kit.objects import Job
from kit.own import OwnDomain, disk_xml, domain_xml


def test_domain_manager(own, callers, client):
    """Somebody with all rights and another uid than root does everything; QEMU has another uid again."""
    caller, name = callers("sys"), own.lab.unique_name()
    chain = own.give(images.two_layers(own.directory))
    path, = caller.call(ROOT, "Manager", "DefineDomain", body(domain_xml(name, disk_xml(chain.top.path)), {}))
    domain = OwnDomain(client, path)
    own.domains.append(domain)
    caller.call(path, "Domain", "Start", body({}))
    assert domain["State"] == "running" and os.stat(f"/proc/{domain['Pid']}").st_uid not in (0, 3)
    assert chain.top.path in caller.call(path, "Domain", "GetXml", body({}))[0]
    assert len(caller.call(ROOT, "Manager", "InspectImage", body(chain.top.path, {}))[0]) == 2
    caller.call(path, "Domain", "Shutdown", body({}))
    caller.call(path, "Domain", "Destroy", body({}))
    job = Job(client, caller.commit(domain.disk(), active=True))
    assert job["StartedBy"] == 3
    job.wait_completed("completed")
    caller.call(path, "Domain", "Undefine", body({}))
    path, = caller.call(ROOT, "Manager", "CreateDomain", body(domain_xml(name), {}))
    caller.call(path, "Domain", "Destroy", body({}))


def test_jobs_while_it_is_off(own, callers):
    """The same action as for one that runs, and the owner manages the job."""
    chain = images.slow_layers(own.directory)
    domain, disk = own.standard(chain)
    caller = callers("nobody")
    job = Job(own.client, caller.commit(disk, active=True, speed=65536))
    assert callers("man").error(job.path, "Job", "Abort", body({})) == ACCESS_DENIED
    assert caller.error(job.path, "Job", "Abort", body({})) == ""
    job.wait_completed("cancelled")
    for member in ("Start", "Undefine", "GetXml"):
        assert caller.error(domain.path, "Domain", member, body({})) == ACCESS_DENIED
    assert callers("daemon").error(disk.path, "Disk", "Commit", body(options({"active": True}))) == ACCESS_DENIED


def test_details_for_the_rules(own, callers):
    """A rule can name the domain that may be started and the image that may be looked at; of a domain that is to be
    defined it is told nothing."""
    caller, xml = callers("lp"), domain_xml("attach-me")
    for member in ("DefineDomain", "CreateDomain"):
        assert caller.error(ROOT, "Manager", member, body(xml, {})) == ACCESS_DENIED
    assert caller.error(ROOT, "Manager", "InspectImage", body("/etc/passwd", {})) == ACCESS_DENIED
    assert caller.error(ROOT, "Manager", "InspectImage", body("/no/such/look-at-me", {})).endswith("NoSuchImage")
    domain, other = own.define(xml), own.define(domain_xml(own.lab.unique_name()))
    for member in ("Start", "GetXml", "Shutdown", "Destroy", "Undefine"):
        assert caller.error(other.path, "Domain", member, body({})) == ACCESS_DENIED
        assert caller.error(domain.path, "Domain", member, body({})) == ""
    assert other["State"] == "shutoff" and not domain.exists()


def test_denied_before_anything_is_looked_at(own, callers):
    """Neither the text nor a file: whoever may not ask is not told what is there."""
    caller = callers("daemon")
    domain = own.define(domain_xml(own.lab.unique_name()))
    for xml in ("", "<domain", domain_xml(domain["Name"]), "<!DOCTYPE d [<!ENTITY e SYSTEM '/etc/shadow'>]><d>&e;</d>"):
        for member in ("DefineDomain", "CreateDomain"):
            assert caller.error(ROOT, "Manager", member, body(xml, {})) == ACCESS_DENIED
    for path in ("/etc/shadow", "/no/such", "relative", own.directory):
        assert caller.error(ROOT, "Manager", "InspectImage", body(path, {})) == ACCESS_DENIED
    assert caller.error(domain.path, "Domain", "GetXml", body(options({"unknown": True}))) == ACCESS_DENIED


def test_properties_tell_no_xml(own, callers):
    """Reads are free: the definition is not among them."""
    domain = own.define(domain_xml(own.lab.unique_name(), top="<description>between us</description>"))
    said = callers("daemon").call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    assert domain.path in said[0] and "between us" not in str(said)
    assert "between us" in domain.xml()


@pytest.mark.parametrize("member, values, words", [
    ("DefineDomain", (domain_xml("vm"), {}), "define a virtual machine"),
    ("CreateDomain", (domain_xml("vm"), {}), "create a virtual machine"),
    ("InspectImage", ("/srv/web.qcow2", {}), "look at the image /srv/web.qcow2"),
], ids=["define", "create", "inspect"])
def test_question_where_there_is_no_domain(asked, member, values, words):
    caller, agent = asked
    caller.send(ROOT, "Manager", member, body(*values), interactive=True)
    question = agent.wait_question()
    assert question.action == "org.blockjobd1.manage-domains"
    assert question.message == f"Authentication is required to {words}"
    agent.deny(question)
    with pytest.raises(BusError, match="AccessDenied"):
        caller.receive()


def test_another_domain_is_defined_while_the_question_stands(own, asked):
    """With the same name and the same UUID, and other disks: it is not what the administrator agreed to."""
    caller, agent = asked
    chains = [own.give(images.two_layers(own.directory, name)) for name in ("one", "two")]
    name, identity = own.lab.unique_name(), str(uuid.uuid4())
    xmls = [domain_xml(name, disk_xml(chain.top.path), identity=identity) for chain in chains]
    domain = own.define(xmls[0])
    caller.send(domain.path, "Domain", "Start", body({}), interactive=True)
    question = agent.wait_question()
    domain.undefine()
    assert own.define(xmls[1]).path == domain.path
    agent.allow(question)
    with pytest.raises(BusError):
        caller.receive()
    assert domain["State"] == "shutoff"
