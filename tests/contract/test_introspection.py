# SPDX-License-Identifier: LGPL-2.1-or-later
"""The running service is what dbus/*.xml says: names, signatures, access, annotations, and values."""

import pytest
from contract.interfaces import EMITS_CHANGED, NAMES, PREFIX, contract, interface_of, members, names_of
from gi.repository import GLib
from kit.bus import OBJECT_MANAGER, PROPERTIES, ROOT, BusError

LAYER = {"depth": "u", "node-name": "s", "source": "s", "format": "s", "virtual-size": "t", "allocated": "t",
         "backing": "s", "read-only": "b"}


@pytest.fixture
def paths(lab):
    """An object of each kind, a running job among them."""
    _, _, disk = lab.slow()
    job = disk.commit(active=True, speed=1 << 20)
    yield {"Manager": ROOT, "Domain": disk["Domain"], "Disk": disk.path, "Job": job.path}


def types_of(dictionary):
    """{name: signature of the value} of an a{sv} as it came over the wire."""
    return {entry.get_child_value(0).get_string(): entry.get_child_value(1).get_variant().get_type_string()
            for entry in (dictionary.get_child_value(number) for number in range(dictionary.n_children()))}


def reply(client, *call):
    return client.call_message(client.message(*call)).get_body().get_child_value(0)


def test_live_introspection_equals_the_files(client, paths):
    for name in NAMES:
        live = members(interface_of(client.introspect(paths[name]), name))
        written = contract(name)
        assert sorted(live) == sorted(written), f"members of {name}"
        for member, what in written.items():
            assert live[member] == what, f"{member} of {name}"


def test_get_all_gives_every_property_in_its_type(client, paths):
    for name in NAMES:
        written = {member: what["type"] for (kind, member), what in contract(name).items() if kind == "property"}
        everything = reply(client, paths[name], PROPERTIES, "GetAll", "(s)", PREFIX + name)
        assert types_of(everything) == written, name


def test_managed_objects_are_all_objects_with_all_properties(client, paths):
    objects = client.managed_objects()
    for name in NAMES:
        if paths[name] == ROOT:
            continue
        assert set(objects[paths[name]][PREFIX + name]) == names_of(name, "property")
    everywhere = {interface for held in objects.values() for interface in held if interface.startswith(PREFIX)}
    assert everywhere <= {PREFIX + name for name in NAMES}
    root = client.introspect(ROOT)
    assert f'"{OBJECT_MANAGER}"' in root


def test_list_jobs_gives_the_job_with_its_path(client, paths):
    jobs = reply(client, ROOT, "Manager", "ListJobs", "(a{sv})", {})
    written = {member: what["type"] for (kind, member), what in contract("Job").items() if kind == "property"}
    mine = [jobs.get_child_value(number) for number in range(jobs.n_children())
            if jobs.get_child_value(number).lookup_value("Path", GLib.VariantType("o")).get_string() == paths["Job"]]
    assert len(mine) == 1
    assert types_of(mine[0]) == {**written, "Path": "o"}


def test_each_layer_of_a_chain_is_complete(client, paths):
    chain = reply(client, paths["Disk"], PROPERTIES, "Get", "(ss)", PREFIX + "Disk", "Chain").get_variant()
    layers = [chain.get_child_value(number) for number in range(chain.n_children())]
    assert len(layers) == 2
    for depth, layer in enumerate(layers):
        assert types_of(layer) == LAYER
        assert layer.unpack()["depth"] == depth


def test_only_what_may_change_is_told_to_have_changed(lab, client):
    """Over the whole life of a job; and each change comes with its value, not as an invalidation."""
    _, _, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")
    job.dismiss()
    job.wait_removed()
    seen = set()
    for heard in client.heard(member="PropertiesChanged"):
        interface, changed, invalidated = heard.arguments
        assert interface.startswith(PREFIX) and not invalidated, heard
        seen |= {(interface.removeprefix(PREFIX), name) for name in changed}
    for name, member in seen:
        assert contract(name)["property", member]["annotations"][EMITS_CHANGED] == "true", f"{name}.{member}"
    expected = {("Manager", "Domains"), ("Manager", "Jobs"), ("Domain", "Jobs"), ("Disk", "Job"),
                ("Disk", "Source"), ("Disk", "Chain"), ("Job", "State"), ("Job", "Ready"), ("Job", "Result"),
                ("Job", "EndTime")}
    assert expected <= seen, f"never told: {expected - seen}"


def test_what_is_not_there_is_unknown(client, paths):
    """Other spellings of a path are not there either: an object has one name."""
    missing = [("Job", paths["Job"] + "0"), ("Job", "/org/blockjobd1/job"), ("Domain", "/org/blockjobd1/domain/nobody"),
               ("Domain", paths["Domain"].replace("/vm", "/_76m")), ("Disk", paths["Disk"] + "x"), ("Disk", paths["Job"])]
    for name, path in missing:
        for call in ((path, PROPERTIES, "GetAll", "(s)", PREFIX + name), (path, name, "NoSuchMethod")):
            try:
                said = client.call(*call)
            except BusError as error:
                assert error.name.startswith("org.freedesktop.DBus.Error.Unknown"), error
            else:
                raise AssertionError(f"{call} went through: {said}")
