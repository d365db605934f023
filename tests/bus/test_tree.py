# SPDX-License-Identifier: LGPL-2.1-or-later
"""The objects as a tree: what introspection finds, what ObjectManager lists, and what is not there."""

import xml.etree.ElementTree as ElementTree

import pytest

from kit import images
from kit.bus import NAME, OBJECT_MANAGER, PROPERTIES, ROOT, BusError
from kit.images import KIB
from kit.objects import Job

UNKNOWN = {"org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.DBus.Error.UnknownMethod",
           "org.freedesktop.DBus.Error.UnknownInterface", "org.freedesktop.DBus.Error.UnknownProperty"}


@pytest.fixture
def populated(lab):
    """Two domains, one with a drive that is empty and a filter, a finished job and a running one."""
    first = lab.machine(lab.unique_name("a-b.c")).add_virtio(images.slow_layers(lab.directory, "one"),
                                                             throttle={"bps-total": 1 << 30})
    first.add_empty_cd("cd-0.x").start()
    lab.attach(first)
    second, _, disk = lab.standard(images.two_layers(lab.directory, "two"))
    finished = disk.commit(auto="keep")
    finished.wait_completed("kept")
    running = lab.domain_of(first).disk("vda").commit(active=True, speed=64 * KIB)
    return {lab.domain_of(first).path, lab.domain_of(second).path, disk.path, finished.path, running.path,
            *lab.domain_of(first)["Disks"]}


def children(client, path):
    return [node.get("name") for node in ElementTree.fromstring(client.introspect(path)).findall("node")]


def walk(client, path):
    """Every path that introspection leads to, from the top of the tree."""
    found = {path}
    for name in children(client, path):
        found |= walk(client, f"{path.rstrip('/')}/{name}")
    return found


def test_introspection_leads_to_every_object(lab, populated):
    found = walk(lab.client, "/")
    assert populated <= found
    assert ROOT in found
    for path in populated:
        interfaces = {interface.get("name")
                      for interface in ElementTree.fromstring(lab.client.introspect(path)).findall("interface")}
        assert {PROPERTIES, "org.freedesktop.DBus.Introspectable", "org.freedesktop.DBus.Peer"} <= interfaces
        assert [name for name in interfaces if name.startswith(NAME)], path


def test_object_manager_lists_every_object(lab, populated):
    objects = lab.client.managed_objects()
    assert populated <= set(objects)
    for path in populated:
        ours = {name: values for name, values in objects[path].items() if name.startswith(NAME)}
        assert len(ours) == 1
        for interface, values in ours.items():
            # The same as a client gets that asks the object itself; progress may have moved meanwhile.
            now = lab.client.get_all(path, interface.removeprefix(f"{NAME}."))
            for moving in ("Current", "Total", "Progress"):
                values.pop(moving, None)
                now.pop(moving, None)
            assert values == now, path


def test_references_lead_to_objects(lab, populated):
    """No property names an object that is not there."""
    objects = lab.client.managed_objects()
    manager = lab.manager.all()
    assert set(manager["Domains"]) == {path for path, held in objects.items() if f"{NAME}.Domain" in held}
    assert set(manager["Jobs"]) == {path for path, held in objects.items() if f"{NAME}.Job" in held
                                    and held[f"{NAME}.Job"]["State"] != "concluded"}
    for path, held in objects.items():
        if path not in populated:
            continue
        domain = held.get(f"{NAME}.Domain")
        if domain:
            assert set(domain["Disks"]) == {other for other in objects if other.startswith(f"{path}/disk/")}
            assert set(domain["Jobs"]) <= set(manager["Jobs"])
        disk = held.get(f"{NAME}.Disk")
        if disk:
            assert path in objects[disk["Domain"]][f"{NAME}.Domain"]["Disks"]
            assert disk["Job"] == "/" or objects[disk["Job"]][f"{NAME}.Job"]["Disk"] == path


@pytest.mark.parametrize("below", [
    "/domain/nobody", "/domain/nobody/disk/vda", "/job/nothing", "/job/", "/domain", "/job", "/other",
    "/domain/_zz", "/job/_", "/domain/a/b", "/domain/a/disk", "/domain/a/disk/b/c",
])
def test_what_is_not_there(lab, below):
    path = (ROOT + below).rstrip("/")
    for interface, method in (("Domain", "Suspend"), ("Job", "Pause"), ("Manager", "GetJob")):
        with pytest.raises(BusError) as error:
            lab.client.call(path, interface, method, "(s)" if method == "GetJob" else "()",
                            *(["x"] if method == "GetJob" else []))
        assert error.value.name in UNKNOWN, error.value
    with pytest.raises(BusError) as error:
        lab.client.get(path, "Domain", "Name")
    assert error.value.name in UNKNOWN, error.value


def test_only_one_spelling_of_a_path(lab):
    """An encoding that is not the one of sd_bus_path_encode names nothing."""
    machine, _, disk = lab.standard()
    domain = lab.domain_of(machine)
    assert machine.name.startswith("vm")
    other = domain.path.replace("/vm", "/_76m")  # 76 is v
    assert other != domain.path
    with pytest.raises(BusError) as error:
        lab.client.get(other, "Domain", "Name")
    assert error.value.name in UNKNOWN
    with pytest.raises(BusError):
        lab.client.call(other + "/disk/vda", "Disk", "Commit", "(a{sv})", {})
    for path in (domain.path + "/disk/_76da", domain.path + "/disk/VDA"):
        with pytest.raises(BusError) as error:
            lab.client.get(path, "Disk", "Target")
        assert error.value.name in UNKNOWN


def test_interface_of_another_object(lab):
    _, _, disk = lab.standard()
    with pytest.raises(BusError) as error:
        lab.client.get(disk.path, "Job", "State")
    assert error.value.name in UNKNOWN
    with pytest.raises(BusError) as error:
        lab.client.call(disk.path, "Job", "Pause")
    assert error.value.name in UNKNOWN


def test_disk_with_a_strange_name(lab):
    """Targets are escaped like names."""
    machine = lab.machine().add_virtio(images.two_layers(lab.directory), "disk-1.x_y").start()
    disk = lab.attach(machine).disk("disk-1.x_y")
    assert disk.path.endswith("/disk/disk_2d1_2ex_5fy")
    disk.commit(auto="pivot").wait_completed("completed")


def test_dismissed_and_detached_objects_leave_the_tree(lab, populated):
    machine, _, disk = lab.standard(images.two_layers(lab.directory, "three"))
    job = disk.commit(auto="keep")
    job.wait_completed("kept")
    domain = lab.domain_of(machine)
    gone = {domain.path, disk.path, job.path}
    assert gone <= set(lab.client.managed_objects())
    job.dismiss()
    domain.detach()
    assert not gone & set(lab.client.managed_objects())
    assert not gone & walk(lab.client, ROOT)
    for path in gone:
        removed = lab.client.heard(ROOT, "InterfacesRemoved", where=lambda heard: heard.arguments[0] == path)
        assert len(removed) == 1 and [name for name in removed[0].arguments[1] if name.startswith(NAME)]


def test_finished_job_outlives_its_domain(lab):
    machine, _, disk = lab.standard()
    job = disk.commit(auto="keep")
    job.wait_completed("kept")
    lab.domain_of(machine).detach()
    held = Job(lab.client, job.path)
    assert held["Result"] == "kept"
    assert lab.client.call(ROOT, OBJECT_MANAGER, "GetManagedObjects")[0][job.path]
