# SPDX-License-Identifier: LGPL-2.1-or-later
"""Defined, started, stopped, undefined; created, and gone with its QEMU."""

import os
import pwd

from kit import images
from kit.bus import ROOT, refused
from kit.own import USER, disk_xml, domain_xml


def test_define_start_destroy_undefine(own, client):
    chain = own.give(images.two_layers(own.directory))
    position = client.position()
    name = own.lab.unique_name()
    domain = own.define(domain_xml(name, disk_xml(chain.top.path)))
    assert client.heard(ROOT, "DomainAdded", position)[0].arguments == (name, domain.path)
    assert (domain["State"], domain["Origin"], domain["Persistent"], domain["Pid"]) == ("shutoff", "defined", True, 0)
    disk = domain.disk("vda")
    assert disk.sources() == chain.paths() and disk["Capacity"] == images.SIZE
    assert domain.xml_source() == [chain.top.path]

    domain.start()
    assert domain["State"] == "running" and domain["QemuVersion"]
    pid = domain["Pid"]
    assert os.stat(f"/proc/{pid}").st_uid == pwd.getpwnam(USER).pw_uid
    assert os.getsid(pid) == pid
    assert disk.sources() == chain.paths()
    assert domain.xml_source() == chain.paths() and domain.xml_source(inactive=True) == [chain.top.path]
    with refused("InvalidState", name, "running"):
        domain.start()
    with refused("InvalidState", name, "running"):
        domain.undefine()

    domain.destroy()
    assert (domain["State"], domain["Pid"]) == ("shutoff", 0) and not os.path.exists(f"/proc/{pid}")
    with refused("InvalidState", name, "shutoff"):
        domain.destroy()
    domain.undefine()
    assert client.heard(ROOT, "DomainRemoved", position)[0].arguments == (name, domain.path)
    assert not domain.exists()


def test_transient(own, client):
    chain = own.give(images.two_layers(own.directory))
    domain = own.create(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path)))
    assert (domain["State"], domain["Origin"], domain["Persistent"]) == ("running", "transient", False)
    position = client.position()
    domain.destroy()
    client.wait_signal(ROOT, "DomainRemoved", since=position)


def test_commit_of_a_running_one_is_what_the_next_start_uses(own):
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    domain.start()
    disk.commit(auto="pivot").wait_completed("completed")
    assert domain.xml_source() == [chain.base.path] == domain.xml_source(inactive=True)
    domain.destroy()
    assert disk.sources() == [chain.base.path] and domain.xml_source() == [chain.base.path]
    images.assert_contents(chain.base, chain.contents[1])
    domain.start()
    assert disk.sources() == [chain.base.path]
    domain.destroy()
    images.assert_contents(chain.base, chain.contents[1])


def test_snapshot_and_commit_of_one_that_is_off(own):
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    overlay = f"{own.directory}/monday.qcow2"
    disk.snapshot(overlay)
    assert disk.sources() == [overlay, *chain.paths()] and domain.xml_source() == [overlay]
    job = disk.commit(active=True)
    assert job["Type"] == "active-commit"
    job.wait_completed("completed")
    assert disk.sources() == [chain.base.path] and domain.xml_source() == [chain.base.path]
    images.assert_contents(chain.base, chain.contents[1])
    images.assert_sound(chain.base)
    assert domain["State"] == "shutoff" and not domain["Jobs"] and disk["Job"] == "/"
