# SPDX-License-Identifier: LGPL-2.1-or-later
"""AttachDomain: a running QEMU and its disks as objects, whatever its disks are made of."""

import socket

from kit import images
from kit.bus import ROOT
from kit.images import MIB


def test_domain_properties(lab):
    machine = lab.machine().add_virtio(images.two_layers(lab.directory)).start()
    position = lab.client.position()
    domain = lab.attach(machine)

    version = machine.qmp.greeting["QMP"]["version"]["qemu"]
    properties = domain.all()
    assert properties["Name"] == machine.name
    assert properties["Uuid"] == machine.uuid
    assert properties["State"] == "paused"
    assert properties["Origin"] == "attached"
    assert properties["Persistent"] is False
    assert properties["Pid"] == machine.process.pid
    assert properties["QemuVersion"].startswith("{major}.{minor}.{micro}".format(**version))
    assert len(properties["Disks"]) == 1
    assert properties["Jobs"] == []
    assert isinstance(properties["Capabilities"], list)

    assert lab.manager.domain(machine.name).path == domain.path
    assert domain.path in lab.manager["Domains"]
    added = lab.client.wait_signal(ROOT, "DomainAdded", since=position)
    assert added.arguments == (machine.name, domain.path)
    lab.client.wait_signal(ROOT, "InterfacesAdded", since=position,
                           where=lambda heard: heard.arguments[0] == domain.path)


def test_domain_is_found_by_uuid(lab):
    machine, _, _ = lab.standard()
    assert lab.manager.domain(machine.uuid).path == lab.manager.domain(machine.name).path


def test_path_of_a_name_that_needs_escaping(lab):
    name = lab.unique_name("7.a_b-c")
    machine = lab.machine(name).add_virtio(images.two_layers(lab.directory)).start()
    domain = lab.attach(machine)
    # As sd_bus_path_encode does: a leading digit and everything but letters and digits, in hexadecimal.
    encoded = "".join(letter if letter.isalnum() and (place or not letter.isdigit()) else f"_{ord(letter):02x}"
                      for place, letter in enumerate(name))
    assert domain.path == f"{ROOT}/domain/{encoded}"
    assert domain["Name"] == name
    assert domain.disk("vda").path == f"{domain.path}/disk/vda"


def test_longest_name(lab):
    name = (lab.unique_name() + "x" * 128)[:128]
    machine = lab.machine().add_virtio(images.two_layers(lab.directory)).start()
    machine.name = name
    assert lab.attach(machine)["Name"] == name


def test_disk_properties(lab):
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    properties = disk.all()
    assert properties["Domain"] == lab.domain_of(machine).path
    assert properties["Target"] == "vda"
    assert properties["Device"].startswith("/machine/peripheral/vda")
    assert properties["NodeName"] == "vda-3"
    assert properties["Source"] == chain.top.path
    assert properties["Format"] == "qcow2"
    assert properties["Capacity"] == images.SIZE
    assert properties["ReadOnly"] is False
    assert properties["Filters"] == []
    assert properties["Job"] == "/"

    layers = properties["Chain"]
    assert [layer["depth"] for layer in layers] == [0, 1, 2, 3]
    assert [layer["node-name"] for layer in layers] == ["vda-3", "vda-2", "vda-1", "vda-0"]
    assert [layer["source"] for layer in layers] == chain.paths()
    assert [layer["format"] for layer in layers] == ["qcow2"] * 4
    assert [layer["virtual-size"] for layer in layers] == [images.SIZE] * 4
    assert [layer["backing"] for layer in layers] == chain.paths()[1:] + [""]
    assert [layer["read-only"] for layer in layers] == [False, True, True, True]
    for layer, image in zip(layers, reversed(chain.layers)):
        assert layer["allocated"] == images.information(image)["actual-size"]


def test_layers_of_different_size_and_format(lab):
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, MIB)], image_format="raw", size=8 * MIB).add([(2, 0, MIB)], size=16 * MIB)
    chain.add([(3, 0, MIB)], size=24 * MIB)
    _, _, disk = lab.standard(chain)
    assert [layer["virtual-size"] for layer in disk["Chain"]] == [24 * MIB, 16 * MIB, 8 * MIB]
    assert [layer["format"] for layer in disk["Chain"]] == ["qcow2", "qcow2", "raw"]
    assert disk["Capacity"] == 24 * MIB


def test_relative_backing_string_is_told_as_it_stands(lab):
    chain = images.Chain(lab.directory)
    chain.add().add(backing="disk-0.qcow2")
    _, _, disk = lab.standard(chain)
    assert [layer["backing"] for layer in disk["Chain"]] == ["disk-0.qcow2", ""]
    assert disk.sources() == chain.paths()


def test_every_kind_of_device(lab):
    chains = {target: images.two_layers(lab.directory, target) for target in ("vda", "sda", "hda")}
    machine = lab.machine().add_virtio(chains["vda"]).add_scsi_controller().add_scsi(chains["sda"])
    machine.add_ide(chains["hda"]).add_empty_cd("cd").start()
    domain = lab.attach(machine)
    assert len(domain["Disks"]) == 4
    for target, chain in chains.items():
        disk = domain.disk(target)
        assert disk["Target"] == target
        assert disk["Device"].startswith(f"/machine/peripheral/{target}")
        assert disk["Source"] == chain.top.path
        assert disk.sources() == chain.paths()


def test_drive_with_nothing_in_it(lab):
    machine = lab.machine().add_virtio(images.two_layers(lab.directory)).add_empty_cd("cd").start()
    drive = lab.attach(machine).disk("cd")
    properties = drive.all()
    assert (properties["NodeName"], properties["Source"], properties["Format"]) == ("", "", "")
    assert properties["Capacity"] == 0
    assert properties["Chain"] == []
    assert properties["Filters"] == []
    assert properties["Job"] == "/"


def test_machine_without_any_disk(lab):
    machine = lab.machine().start()
    assert lab.attach(machine)["Disks"] == []


def test_legacy_drive_without_id_of_the_device(lab):
    chain = images.layers(lab.directory, 3)
    machine = lab.machine().add_legacy(chain, "drive0").start()
    disk = lab.attach(machine).disk("drive0")
    assert disk["Device"].startswith("/machine/peripheral-anon/")
    assert disk["Source"] == chain.top.path
    assert disk.sources() == chain.paths()
    assert disk["NodeName"] == machine.block("drive0")["inserted"]["node-name"]


def test_legacy_drive_with_a_device_of_its_own(lab):
    chain = images.two_layers(lab.directory)
    machine = lab.machine().add_legacy(chain, "drive0", "vdb").start()
    disk = lab.attach(machine).disk("vdb")
    assert disk["Device"].startswith("/machine/peripheral/vdb")
    assert disk.sources() == chain.paths()


def test_filter_above_the_chain(lab):
    machine, chain, disk = lab.standard(throttle={"bps-total": 100 * MIB})
    assert disk["Filters"] == ["throttle"]
    assert disk["NodeName"] == "vda-throttle"
    assert disk["Source"] == chain.top.path
    assert [layer["node-name"] for layer in disk["Chain"]] == ["vda-1", "vda-0"]


def test_read_only_disk(lab):
    _, _, disk = lab.standard(read_only=True)
    assert disk["ReadOnly"] is True


def test_passed_descriptor(lab):
    machine = lab.machine().add_virtio(images.two_layers(lab.directory)).start()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(machine.monitor_path)
    lab.attached.append(machine.name)
    domain = lab.manager.attach_descriptor(machine.name, connection.fileno())
    connection.close()
    assert domain["State"] == "paused"
    assert domain.disk("vda").sources() == machine.chains["vda"].paths()
    job = domain.disk("vda").commit(auto="pivot")
    job.wait_completed("completed")


def test_suspend_and_resume(lab):
    machine, _, _ = lab.standard()
    domain = lab.domain_of(machine)
    domain.call("Resume")
    domain.wait("State", "running")
    assert machine.qmp.execute("query-status")["status"] == "running"
    domain.call("Suspend")
    domain.wait("State", "paused")
    assert machine.qmp.execute("query-status")["status"] == "paused"
    # By somebody else, too.
    machine.qmp.execute("cont")
    domain.wait("State", "running")
    machine.qmp.execute("stop")
    domain.wait("State", "paused")


def test_detach_frees_the_monitor_and_the_name(lab):
    machine, _, disk = lab.standard()
    domain = lab.domain_of(machine)
    position = lab.client.position()
    domain.detach()
    removed = lab.client.wait_signal(ROOT, "DomainRemoved", since=position)
    assert removed.arguments == (machine.name, domain.path)
    domain.wait_removed(since=position)
    disk.wait_removed(since=position)
    assert domain.path not in lab.manager["Domains"]
    assert not domain.exists() and not disk.exists()
    assert machine.running()
    assert lab.attach(machine)["State"] == "paused"
