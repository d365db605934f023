# SPDX-License-Identifier: LGPL-2.1-or-later
"""Jobs on the disks of a machine that is off: the same objects, the same results, nothing left running."""

import os
import signal

import pytest
from kit import images
from kit.bus import refused
from kit.images import MIB
from kit.own import give, storage_daemons
from kit.waiting import wait_until


def image(path, image_format="qcow2", size=images.SIZE):
    return images.Layer(path, image_format, size)


@pytest.fixture
def off(own):
    """A domain that is off, its disk and its chain of three layers."""
    chain = own.give(images.layers(own.directory, 3))
    domain, disk = own.standard(chain)
    yield domain, disk, chain
    assert not storage_daemons(), "a storage daemon outlived its job"


def test_commit_of_a_middle_layer(off):
    domain, disk, chain = off
    job = disk.commit(top="[1]", base="[2]")
    job.wait_completed("completed")
    assert disk.sources() == [chain.top.path, chain.base.path]
    images.assert_contents(chain.base, chain.contents[1])
    images.assert_contents(chain.top, chain.contents[2])
    images.assert_sound(chain.base)


def test_commit_pivots_by_itself_and_can_be_kept(off):
    domain, disk, chain = off
    disk.commit(active=True, shallow=True, auto="keep").wait_completed("kept")
    assert disk.sources() == chain.paths()
    job = disk.commit(active=True, delete=True)
    job.wait_completed("completed")
    assert disk.sources() == [chain.base.path] and domain.xml_source() == [chain.base.path]
    images.assert_contents(chain.base, chain.contents[2])
    assert not os.path.exists(chain.top.path)
    domain.start()
    assert disk.sources() == [chain.base.path]


def test_commit_needs_to_be_told_of_two_phases(off):
    _, disk, _ = off
    with refused("InvalidArgument", "active"):
        disk.commit()


def test_pull(off):
    _, disk, chain = off
    disk.pull().wait_completed("completed")
    assert disk.sources() == [chain.top.path]
    images.assert_contents(chain.top, chain.contents[2])


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_copy_is_kept_by_itself_and_can_pivot(off, own, image_format):
    domain, disk, chain = off
    kept, moved = (f"{own.directory}/{name}.{image_format}" for name in ("kept", "moved"))
    disk.copy(kept, format=image_format).wait_completed("kept")
    assert disk.sources() == chain.paths()
    images.assert_contents(image(kept, image_format), chain.contents[2])
    disk.copy(moved, format=image_format, auto="pivot").wait_completed("completed")
    assert disk.sources() == [moved] and domain.xml_source() == [moved] and disk["Format"] == image_format
    images.assert_contents(image(moved, image_format), chain.contents[2])
    domain.start()
    assert disk.sources() == [moved] and disk["Format"] == image_format


def test_backup(off, own):
    _, disk, chain = off
    disk.backup(f"{own.directory}/backup.qcow2").wait_completed("completed")
    images.assert_contents(image(f"{own.directory}/backup.qcow2"), chain.contents[2])
    assert disk.sources() == chain.paths()


def test_snapshot_and_resize(off, own):
    domain, disk, chain = off
    disk.snapshot(f"{own.directory}/over.qcow2")
    disk.resize(images.SIZE + MIB)
    assert disk.sources()[0] == f"{own.directory}/over.qcow2"
    disk.wait("Capacity", images.SIZE + MIB)
    assert images.information(image(f"{own.directory}/over.qcow2"))["virtual-size"] == images.SIZE + MIB
    with refused("InvalidArgument", "shrink"):
        disk.resize(images.SIZE)


def test_descriptors_are_refused(off, own):
    _, disk, _ = off
    with open(f"{own.directory}/fd.raw", "wb+") as file:
        file.truncate(images.SIZE)
        with refused("NotSupported", "add-fd"):
            disk.copy_to_descriptor(file.fileno(), format="raw")


def test_the_disk_is_busy_meanwhile(off, own):
    domain, disk, chain = off
    job = disk.copy(f"{own.directory}/slow.qcow2", speed=64 * 1024)
    assert [job.path] == domain["Jobs"] and disk["Job"] == job.path and domain["State"] == "shutoff"
    with refused("JobActive", job["Id"]):
        domain.start()
    with refused("JobActive", job["Id"]):
        domain.undefine()
    with refused("JobActive", job["Id"]):
        disk.commit(active=True)
    # The locks of its images hold off everybody else.
    with pytest.raises(AssertionError, match="lock"):
        images.run("qemu-io", "-f", "qcow2", "-c", "write 0 64k", chain.top.path)
    job.abort()
    job.wait_completed("cancelled")
    domain.start()


def test_storage_daemon_killed(off, own):
    domain, disk, chain = off
    job = disk.copy(f"{own.directory}/slow.qcow2", speed=64 * 1024)
    daemon, = storage_daemons()
    os.kill(daemon, signal.SIGKILL)
    job.wait_completed("lost")
    assert disk.sources() == chain.paths() and domain["State"] == "shutoff"
    disk.commit(active=True).wait_completed("completed")
    images.assert_contents(chain.base, chain.contents[2])


def test_service_killed_and_started_again(off, own):
    domain, disk, chain = off
    job = disk.copy(f"{own.directory}/slow.qcow2", speed=64 * 1024, auto="pivot")
    daemon, = storage_daemons()
    own.lab.service.restart()
    assert job["State"] in ("running", "ready") and domain["Jobs"] == [job.path] and disk["Job"] == job.path
    assert storage_daemons() == [daemon]
    job.set_speed(0)
    job.wait_completed("completed")
    assert disk.sources() == [f"{own.directory}/slow.qcow2"] == domain.xml_source()
    images.assert_contents(image(f"{own.directory}/slow.qcow2"), chain.contents[2])


@pytest.mark.parametrize("kind", ["commit", "copy", "pull"])
def test_definition_damaged_under_a_job(off, own, kind):
    """The job comes to its end and is told of, nothing is left running, and its name is taken as long as it works."""
    domain, disk, chain = off
    name, target = domain["Name"], f"{own.directory}/slow.qcow2"
    job = {"commit": lambda: disk.commit(active=True, speed=64 * 1024, auto="pivot"),
           "copy": lambda: disk.copy(target, speed=64 * 1024, auto="pivot"),
           "pull": lambda: disk.pull(speed=64 * 1024)}[kind]()
    xml = domain.xml()
    own.lab.service.kill()
    record = f"{own.lab.service.state_directory}/domains/{name}.json"
    with open(record, "w") as file:
        file.write("{")
    own.lab.service.start()
    assert not domain.exists() and job["State"] in ("running", "ready")
    with refused("Exists", name):
        own.define(xml)
    job.set_speed(0)
    job.wait_completed("completed")
    wait_until(lambda: not storage_daemons(), "the storage daemon to end")
    wait_until(lambda: [file for file in os.listdir(os.path.dirname(record)) if file.startswith(name)]
               == [f"{name}.json.damaged"], "its record to go")
    os.unlink(f"{record}.damaged")
    result = {"commit": chain.base, "copy": image(target), "pull": chain.top}[kind]
    images.assert_contents(result, chain.contents[2])
    own.define(xml.replace(chain.top.path, result.path)).start()


def test_two_disks_at_once(own):
    from kit.own import disk_xml, domain_xml
    one, two = (own.give(images.two_layers(own.directory, name)) for name in ("one", "two"))
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(one.top.path), disk_xml(two.top.path, "vdb")))
    jobs = [domain.disk(target).commit(active=True, speed=MIB) for target in ("vda", "vdb")]
    assert sorted(domain["Jobs"]) == sorted(job.path for job in jobs) and len(storage_daemons()) == 2
    for job in jobs:
        job.wait_completed("completed")
    for chain in (one, two):
        images.assert_contents(chain.base, chain.contents[1])


def test_image_of_another_domain_that_runs(off, own):
    from kit.own import disk_xml, domain_xml
    domain, disk, chain = off
    other = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path)))
    other.start()
    with refused("ImageInUse", chain.top.path, other["Name"]):
        disk.pull()
    with refused("ImageInUse", chain.top.path, other["Name"]):
        domain.start()
    other.destroy()
    domain.start()


def test_image_that_is_not_the_users(off, own):
    _, disk, chain = off
    os.chown(chain.top.path, 0, 0)
    os.chmod(chain.top.path, 0o644)
    with refused("InvalidArgument", chain.top.path, "blockjobd-qemu"):
        disk.pull()
    give(chain.top.path)
    disk.pull().wait_completed("completed")
    wait_until(lambda: not storage_daemons(), "the storage daemon to end")


def test_restartable_commit(off, own):
    """Layer by layer, in one storage daemon."""
    domain, disk, chain = off
    job = disk.commit(active=True, restartable=True, delete=True)
    job.wait_completed("completed")
    assert disk.sources() == [chain.base.path] == domain.xml_source()
    assert [os.path.exists(layer.path) for layer in chain.layers] == [True, False, False]
    images.assert_contents(chain.base, chain.contents[2])
