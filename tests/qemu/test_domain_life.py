# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens to a QEMU while it is attached: it dies, it ends, its disks come, change and go."""

import threading

from kit import images
from kit.bus import ROOT, refused


def test_killed_qemu(lab):
    machine, chain, disk = lab.standard()
    domain = lab.domain_of(machine)
    machine.kill()
    domain.wait("State", "crashed")
    assert domain["Pid"] == 0
    # Which image is the disk is known still.
    assert disk["Source"] == chain.top.path
    with refused("InvalidState"):
        disk.commit(active=True)
    with refused("InvalidState"):
        domain.call("Suspend")


def test_qemu_that_quits(lab):
    machine, chain, disk = lab.standard()
    domain = lab.domain_of(machine)
    machine.quit()
    domain.wait("State", "shutoff")
    assert disk["Source"] == chain.top.path


def test_name_of_a_dead_domain_can_be_taken_again(lab):
    machine, chain, disk = lab.standard()
    domain = lab.domain_of(machine)
    machine.kill()
    domain.wait("State", "crashed")
    again = lab.machine(machine.name, suffix="-again").add_virtio(chain).start()
    domain = lab.attach(again)
    assert domain["State"] == "paused"
    assert domain["Pid"] == again.process.pid
    assert domain["Uuid"] == again.uuid
    domain.disk("vda").commit(auto="pivot").wait_completed("completed")


def test_dead_domain_can_be_detached(lab):
    machine, _, _ = lab.standard()
    domain = lab.domain_of(machine)
    machine.kill()
    domain.wait("State", "crashed")
    domain.detach()
    assert not domain.exists()


def test_detach_with_a_job_is_refused_unless_forced(lab):
    machine, chain, disk = lab.slow()
    domain = lab.domain_of(machine)
    job = disk.commit(active=True, speed=64 * images.KIB)
    with refused("JobActive", job["Id"]):
        domain.detach()
    qemu_job = job["QemuJobId"]
    domain.detach(force=True)
    assert not domain.exists()
    assert job["State"] == "disconnected"
    assert machine.jobs()[qemu_job]["status"] == "running"
    # Attached again, the job is found again and ends as any other.
    domain = lab.attach(machine)
    job.wait("State", "running")
    assert domain.disk("vda")["Job"] == job.path
    job.set_speed(0)
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")
    assert machine.active_file("vda") == chain.base.path


def look_again(lab, machine, position):
    """QEMU tells nobody of a new disk or overlay; GetDomain looks, and its reply comes after what is told of it."""
    message = lab.client.message(ROOT, "Manager", "GetDomain", "(s)", machine.name)
    reply = lab.client.call_message(message)
    log = lab.client.log[position:]
    end = next(number for number, heard in enumerate(log) if heard.reply_serial == reply.get_reply_serial())
    return [heard for heard in log[:end] if heard.kind == "signal"]


def test_snapshot_by_somebody_else(lab):
    machine, chain, disk = lab.standard()
    for number in range(2):
        path = f"{lab.directory}/new-{number}.qcow2"
        position = lab.client.position()
        node = machine.snapshot("vda", path)
        signals = look_again(lab, machine, position)
        told = {}
        for heard in signals:
            if heard.path == disk.path and heard.member == "PropertiesChanged":
                told.update(heard.arguments[1])
        assert told["Source"] == disk["Source"] == path
        assert told["NodeName"] == disk["NodeName"] == node
        assert told["Chain"] == disk["Chain"]
        assert disk.sources() == chain.paths()
    assert [layer["depth"] for layer in disk["Chain"]] == [0, 1, 2, 3]


def test_snapshot_is_seen_by_a_commit_at_once(lab):
    """Whether the service has heard of it or not: what is committed is what the disk is made of now."""
    machine, chain, disk = lab.standard()
    machine.snapshot("vda", f"{lab.directory}/new.qcow2")
    job = disk.commit(shallow=True, auto="pivot")
    job.wait_completed("completed")
    assert job["Target"] == chain.layers[1].path
    assert machine.active_file("vda") == chain.layers[1].path
    assert disk["Source"] == chain.layers[1].path


def test_disk_that_comes_and_goes(lab):
    chain = images.two_layers(lab.directory)
    extra = images.two_layers(lab.directory, "extra")
    machine = lab.machine().add_virtio(chain).add_scsi_controller().start()
    domain = lab.attach(machine)
    assert len(domain["Disks"]) == 1
    position = lab.client.position()

    machine.qmp.execute("blockdev-add", driver="file", node_name="sdb-0-file", filename=extra.base.path,
                        auto_read_only=True)
    machine.qmp.execute("blockdev-add", driver="qcow2", node_name="sdb-0", file="sdb-0-file", read_only=True)
    machine.qmp.execute("blockdev-add", driver="file", node_name="sdb-1-file", filename=extra.top.path)
    machine.qmp.execute("blockdev-add", driver="qcow2", node_name="sdb-1", file="sdb-1-file", backing="sdb-0")
    machine.qmp.execute("device_add", driver="scsi-hd", id="sdb", bus="scsi.0", drive="sdb-1")
    signals = look_again(lab, machine, position)
    assert len(domain["Disks"]) == 2
    disk = domain.disk("sdb")
    assert [heard for heard in signals if heard.member == "InterfacesAdded" and heard.arguments[0] == disk.path]
    assert [heard for heard in signals if heard.path == domain.path and "Disks" in heard.arguments[1]]
    assert disk.sources() == extra.paths()

    machine.qmp.execute("device_del", id="sdb")
    disk.wait_removed(since=position)
    domain.wait("Disks", lambda disks: len(disks) == 1)
    assert not disk.exists()


def test_medium_that_comes_and_goes(lab):
    medium = images.Chain(lab.directory, "medium").add([(1, 0, images.MIB)], image_format="raw", size=4 * images.MIB)
    machine = lab.machine().add_empty_cd("cd").start()
    drive = lab.attach(machine).disk("cd")
    machine.qmp.execute("blockdev-add", driver="file", node_name="medium-file", filename=medium.top.path,
                        read_only=True)
    machine.qmp.execute("blockdev-add", driver="raw", node_name="medium", file="medium-file", read_only=True)
    machine.qmp.execute("blockdev-open-tray", id="cd")
    machine.qmp.execute("blockdev-insert-medium", id="cd", node_name="medium")
    machine.qmp.execute("blockdev-close-tray", id="cd")
    drive.wait("Source", medium.top.path)
    assert drive["Capacity"] == 4 * images.MIB
    assert drive["ReadOnly"] is True
    machine.qmp.execute("blockdev-open-tray", id="cd")
    machine.qmp.execute("blockdev-remove-medium", id="cd")
    drive.wait("Source", "")
    assert drive["Chain"] == []


def test_many_domains_at_once(lab):
    machines = [lab.machine().add_virtio(images.Chain(lab.directory, str(number)).add().add()).start()
                for number in range(8)]
    calls = [(machine, lab.client.call_later(ROOT, "Manager", "AttachDomain", "(ssa{sv})", machine.name,
                                             machine.monitor_path, {})) for machine in machines]
    for machine, call in calls:
        lab.attached.append(machine.name)
        assert lab.client.wait_reply(call).kind == "reply"
    jobs = [lab.domain_of(machine).disk("vda").commit(auto="pivot") for machine in machines]
    for job in jobs:
        job.wait_completed("completed")
    # All of them die in one moment.
    killers = [threading.Thread(target=machine.kill) for machine in machines]
    for killer in killers:
        killer.start()
    for killer in killers:
        killer.join()
    for machine in machines:
        lab.domain_of(machine).wait("State", "crashed")
