# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine stops before a copy or a commit was decided: the disk is what it was, and that is told."""

import pytest
from kit import images
from kit.bus import refused
from kit.own import disk_xml, domain_xml


@pytest.mark.parametrize("end", ["destroy", "kill_qemu"])
@pytest.mark.parametrize("kind", ["commit", "copy"])
def test_lost_and_told(own, client, kind, end):
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    domain.start()
    copy = f"{own.directory}/copy.qcow2"
    job = disk.copy(copy) if kind == "copy" else disk.commit(active=True)
    destination = copy if kind == "copy" else chain.base.path
    job.wait_ready()
    mirror = domain.tree().find("devices/disk/mirror")
    assert (mirror.get("job"), mirror.get("ready")) == (job["Type"], "yes")
    assert mirror.find("source").get("file") == destination
    assert domain.tree(inactive=True).find("devices/disk/mirror") is None
    position = client.position()
    getattr(domain, end)()
    job.wait_completed("lost")
    told, = client.heard(disk.path, "MirrorDropped", position)
    assert told.arguments == ("vda", destination)
    assert domain.xml_source(inactive=True)[0] == chain.top.path
    domain.start()
    assert disk.sources() == chain.paths()
    domain.destroy()
    images.assert_contents(chain.top, chain.contents[1])


def test_resumed_by_the_next_start(own, client):
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    domain.start()
    copy = f"{own.directory}/copy.qcow2"
    job = disk.copy(copy, resume=True)
    job.wait_ready()
    domain.destroy()
    job.wait_completed("lost")
    own.lab.service.restart()
    domain.start()
    again, = own.jobs_of(domain)
    assert again.path != job.path and (again["Target"], again["Type"]) == (copy, "copy")
    again.wait("State", "ready")
    again.pivot()
    again.wait_completed("completed")
    assert disk.sources() == [copy] == domain.xml_source(inactive=True)
    domain.destroy()
    images.assert_contents(images.Layer(copy, "qcow2", images.SIZE), chain.contents[1])
    domain.start()
    assert not domain["Jobs"] and disk.sources() == [copy]


def test_resume_of_a_target_that_is_gone(own):
    import os
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    domain.start()
    copy = f"{own.directory}/copy.qcow2"
    disk.copy(copy, resume=True).wait_ready()
    domain.destroy()
    os.unlink(copy)
    domain.start()
    assert domain["State"] == "running" and not domain["Jobs"]
    domain.destroy()
    domain.start()


def test_resume_is_for_defined_ones(own):
    chain = own.give(images.two_layers(own.directory))
    domain = own.create(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path)))
    with refused("InvalidArgument", "resume", "transient"):
        domain.disk().copy(f"{own.directory}/copy.qcow2", resume=True)
