# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pull: a layer gets what the layers below hold, and these leave the chain.

What counts is read from the files alone, through the names in their headers, after QEMU was killed: no layer that
stays shows anything else than before, and nothing that QEMU only had in memory is missing.
"""

import os

import pytest

from kit import images
from kit.bus import refused
from kit.images import KIB, MIB
from kit.nbd import Writer
from kit.single_phase import (SLOW, assert_nodes, assert_single_phase, disk_with_filter_between, run_until_death)
from kit.waiting import stays


def kill_and_compare(machine, chain, *numbers):
    """QEMU dies; each of these layers, by its file and what its header names, is as the model says."""
    machine.kill()
    for number in numbers:
        images.assert_contents(chain.layers[number], chain.contents[number])


def backing_of(layer):
    found = images.information(layer)
    return found.get("backing-filename", ""), found.get("backing-filename-format", "")


def sources(chain, *numbers):
    return [chain.layers[number].path for number in numbers]


def test_whole_chain(lab):
    machine, chain, disk = lab.standard(images.layers(lab.directory, 4))
    job = disk.pull()
    job.wait_completed("completed")
    # The end is on stable storage: QEMU may die right now.
    machine.kill()
    assert backing_of(chain.top) == ("", "")
    images.assert_contents(chain.top, chain.contents[-1])
    for number in range(3):
        os.unlink(chain.layers[number].path)
    images.assert_contents(chain.top, chain.contents[-1])


def test_what_is_told_of_a_whole_chain(lab):
    machine, chain, disk = lab.standard(images.layers(lab.directory, 4))
    job = disk.pull()
    assert job["Type"] == "pull"
    assert job["Source"] == chain.layers[2].path and job["Target"] == chain.top.path
    job.wait_completed("completed")
    assert_nodes(machine, "vda-3")
    assert disk.sources() == [chain.top.path] and disk["Source"] == chain.top.path
    layer, = disk["Chain"]
    assert layer["backing"] == "" and layer["read-only"] is False
    assert disk["Job"] == "/" and disk["NodeName"] == "vda-3"
    assert job["Progress"] == 1.0 and job["Current"] == job["Total"]
    assert_single_phase(lab, job)
    assert len(job.completed()) == 1


def test_files_are_left(lab):
    """What is pulled may be somebody else's base: it is read, and nothing of it is changed or removed."""
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    disk.pull().wait_completed("completed")
    kill_and_compare(machine, chain, 0, 1, 2)
    for layer in chain.layers[:2]:
        images.assert_sound(layer)


BASES = {
    "depth": lambda chain: "[2]",
    "depth-of-target": lambda chain: "vda[2]",
    "path": lambda chain: chain.layers[1].path,
    "node": lambda chain: "node:vda-1",
}


@pytest.mark.parametrize("way", BASES)
def test_down_to_base(lab, way):
    """Base and what is below it stay; its absolute path is recorded, and its format."""
    machine, chain, disk = lab.standard(images.layers(lab.directory, 4))
    job = disk.pull(base=BASES[way](chain))
    assert job["Source"] == chain.layers[2].path and job["Target"] == chain.top.path
    job.wait_completed("completed")
    assert_nodes(machine, "vda-3", "vda-1", "vda-0")
    assert disk.sources() == sources(chain, 3, 1, 0)
    assert [layer["backing"] for layer in disk["Chain"]] == sources(chain, 1, 0) + [""]
    assert [layer["read-only"] for layer in disk["Chain"]] == [False, True, True]
    kill_and_compare(machine, chain, 0, 1, 3)
    assert backing_of(chain.top) == (chain.layers[1].path, "qcow2")


def test_down_to_a_raw_base(lab):
    chain = images.Chain(lab.directory).add([(1, 0, 2 * MIB)], image_format="raw")
    chain.add([(2, MIB, 2 * MIB)]).add([(3, 2 * MIB, 2 * MIB)])
    machine, _, disk = lab.standard(chain)
    disk.pull(base="[2]").wait_completed("completed")
    kill_and_compare(machine, chain, 0, 2)
    assert backing_of(chain.top) == (chain.base.path, "raw")


@pytest.mark.parametrize("base", [None, "[3]"])
def test_into_a_middle_layer(lab, base):
    """The guest's own image is not touched, nor what stands above the layer that is filled."""
    machine, chain, disk = lab.standard(images.layers(lab.directory, 5))
    job = disk.pull(top="[1]", base=base)
    assert job["Source"] == chain.layers[2].path and job["Target"] == chain.layers[3].path
    job.wait_completed("completed")
    stay = [4, 3] if base is None else [4, 3, 1, 0]
    assert_nodes(machine, *(f"vda-{number}" for number in stay))
    assert disk.sources() == sources(chain, *stay)
    # It belongs to whoever else builds on it again.
    assert [layer["read-only"] for layer in disk["Chain"]] == [False] + [True] * (len(stay) - 1)
    kill_and_compare(machine, chain, *stay)
    assert backing_of(chain.top)[0] == chain.layers[3].path
    assert backing_of(chain.layers[3]) == (("", "") if base is None else (chain.layers[1].path, "qcow2"))
    images.assert_sound(chain.layers[3])


def test_top_that_is_the_active_layer(lab):
    machine, chain, disk = lab.standard()
    job = disk.pull(top=chain.top.path)
    assert job["Target"] == chain.top.path
    job.wait_completed("completed")
    assert disk.sources() == [chain.top.path]


def chain_in_folders(lab):
    for folder in ("low", "middle", "high"):
        os.mkdir(f"{lab.directory}/{folder}")
    chain = images.Chain(lab.directory).add([(1, 0, 2 * MIB)], file_name="low/base.qcow2")
    chain.add([(2, MIB, 2 * MIB)], file_name="middle/middle.qcow2")
    return chain.add([(3, 2 * MIB, 2 * MIB)], file_name="high/top.qcow2")


def test_relative_backing_string(lab):
    """Relative to the folder of the image that has it in its header: the whole tree can be moved."""
    machine, chain, disk = lab.standard(chain_in_folders(lab))
    disk.pull(base="[2]", relative=True).wait_completed("completed")
    assert disk["Chain"][0]["backing"] == "../low/base.qcow2"
    kill_and_compare(machine, chain, 0, 2)
    assert backing_of(chain.top) == ("../low/base.qcow2", "qcow2")


def test_backing_string_of_the_callers_own(lab):
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    other_name = f"{lab.directory}/other name.qcow2"
    os.symlink(chain.base.path, other_name)
    disk.pull(base=chain.base.path, backing=other_name).wait_completed("completed")
    kill_and_compare(machine, chain, 0, 2)
    assert backing_of(chain.top) == (other_name, "qcow2")


def test_nothing_to_pull(lab):
    """Base is the layer right below: all that can change is the string in the header."""
    machine, chain, disk = lab.standard()
    disk.pull(base="[1]", relative=True).wait_completed("completed")
    assert disk.sources() == chain.paths()
    assert_nodes(machine, "vda-1", "vda-0")
    kill_and_compare(machine, chain, 0, 1)
    assert backing_of(chain.top) == (os.path.basename(chain.base.path), "qcow2")


def test_backing_image_smaller_than_the_disk(lab):
    """What is behind the end of the lower images reads as zeros, before and after."""
    chain = images.Chain(lab.directory).add([(1, 0, 8 * MIB)], size=8 * MIB)
    chain.add([(2, MIB, MIB)], size=6 * MIB).add([(3, 2 * MIB, MIB)], size=16 * MIB)
    machine, _, disk = lab.standard(chain)
    disk.pull().wait_completed("completed")
    assert disk["Capacity"] == 16 * MIB
    kill_and_compare(machine, chain, 0, 1, 2)
    assert backing_of(chain.top) == ("", "")


def test_guest_writes_meanwhile(lab):
    machine, chain, disk = lab.slow()
    job = disk.pull(speed=SLOW)
    for number, offset in enumerate((MIB, 3 * MIB + 4 * KIB, 20 * MIB)):
        machine.write("vda", 10 + number, offset, 128 * KIB)
    assert job["State"] == "running"
    job.set_speed(0)
    job.wait_completed("completed")
    kill_and_compare(machine, chain, 0, 1)


def test_guest_that_writes_all_the_time(lab):
    machine, chain, disk = lab.slow(share=True)
    writer = Writer(machine.export("vda", "vda-1"), "vda", 2 * MIB, 512)
    writer.wait_more()
    job = disk.pull(speed=16 * SLOW)
    writer.wait_more()
    job.set_speed(0)
    job.wait_completed("completed")
    writer.wait_more()
    writer.stop()
    machine.kill()
    found = images.read_image(chain.top.path, "qcow2")
    writer.assert_all_in(found)
    assert found[:2 * MIB] == chain.contents[-1][:2 * MIB] and found[4 * MIB:] == chain.contents[-1][4 * MIB:]


def test_abort(lab):
    machine, chain, disk = lab.slow()
    job = disk.pull(speed=SLOW)
    machine.write("vda", 9, 2 * MIB, MIB)
    job.abort()
    # The reply says that it is over.
    assert job["Result"] == "cancelled"
    job.wait_completed("cancelled")
    assert_nodes(machine, "vda-1", "vda-0")
    assert disk.sources() == chain.paths() and disk["Job"] == "/"
    machine.write("vda", 10, 20 * MIB, MIB)
    machine.quit()
    kill_and_compare(machine, chain, 0, 1)
    assert backing_of(chain.top)[0] == chain.base.path
    images.assert_sound(chain.top)


def test_abort_in_a_middle_layer(lab):
    chain = images.slow_layers(lab.directory).add([(3, 8 * MIB, MIB)])
    machine, _, disk = lab.standard(chain)
    job = disk.pull(top="[1]", speed=SLOW)
    assert machine.nodes()["vda-1"]["ro"] is False
    job.abort()
    job.wait_completed("cancelled")
    assert machine.nodes()["vda-1"]["ro"] is True
    assert disk.sources() == chain.paths()
    # And it can be had again.
    disk.pull(top="[1]").wait_completed("completed")
    kill_and_compare(machine, chain, 1, 2)


def test_speed_pause_and_resume(lab):
    machine, chain, disk = lab.slow()
    job = disk.pull(speed=SLOW)
    block_job, = machine.qmp.execute("query-block-jobs")
    assert block_job["device"] == job["QemuJobId"] and block_job["speed"] == job["Speed"] == SLOW
    assert block_job["auto-finalize"] is False
    # 3 MiB at 64 KiB/s.
    stays(lambda: job["Current"] < 2 * MIB and job["State"] == "running", "slow", 0.5)
    job.pause()
    job.wait("State", "paused")
    job.set_speed(0)
    stays(lambda: job["State"] == "paused", "paused", 0.3)
    job.resume()
    job.wait_completed("completed")
    assert job["Speed"] == 0
    kill_and_compare(machine, chain, 1)


def test_properties_while_it_runs(lab):
    machine, chain, disk = lab.slow()
    job = disk.pull(speed=SLOW)
    properties = job.all()
    assert properties["State"] == "running" and properties["Result"] == ""
    assert properties["Origin"] == "blockjobd" and properties["StartedBy"] == 0
    assert properties["DiskTarget"] == "vda" and properties["Disk"] == disk.path
    assert properties["QemuJobId"] in machine.jobs()
    assert properties["Options"] == {"speed": SLOW}
    assert disk["Job"] == job.path and disk["Source"] == chain.top.path and disk["Filters"] == []
    assert_single_phase(lab, job)
    with refused("NotReady"):
        job.pivot()
    job.wait("Total", lambda total: total >= 3 * MIB)
    assert job["State"] == "running"


def test_filter_above_the_disk(lab):
    machine, chain, disk = lab.slow(throttle={"bps-total": 100 * MIB})
    job = disk.pull(speed=SLOW)
    machine.write("vda", 9, 20 * MIB, MIB)
    job.set_speed(0)
    job.wait_completed("completed")
    assert disk["Filters"] == ["throttle"] and disk["NodeName"] == "vda-throttle"
    assert disk.sources() == [chain.top.path]
    assert set(machine.nodes()) == {"vda-throttle", "vda-1", "vda-1-file"}
    machine.write("vda", 10, 21 * MIB, MIB)
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


@pytest.mark.parametrize("base", [None, "[3]"])
def test_filter_between_the_layers(lab, base):
    """It goes with the layers that it stands among, and no name made of it gets into a header."""
    machine, chain, disk = disk_with_filter_between(lab, images.layers(lab.directory, 4), 1)
    disk.pull(base=base).wait_completed("completed")
    assert_nodes(machine, *(["vda-3"] if base is None else ["vda-3", "vda-0"]))
    assert disk.sources() == (sources(chain, 3) if base is None else sources(chain, 3, 0))
    kill_and_compare(machine, chain, 3)
    assert backing_of(chain.top) == (("", "") if base is None else (chain.base.path, "qcow2"))


def test_legacy_drive(lab):
    """QEMU has named the nodes itself, and removes those that nobody uses."""
    chain = images.layers(lab.directory, 3)
    machine = lab.machine().add_legacy(chain, "drive0", "vdb").start()
    disk = lab.attach(machine).disk("vdb")
    disk.pull(base="[2]").wait_completed("completed")
    assert disk.sources() == sources(chain, 2, 0)
    assert chain.layers[1].path not in {node["file"] for node in machine.nodes().values()}
    kill_and_compare(machine, chain, 0, 2)
    assert backing_of(chain.top) == (chain.base.path, "qcow2")


def test_pull_of_somebody_else_that_has_ended(lab):
    """QEMU 7.2 crashes when it is asked for its nodes while it still has such a job: nobody of ours asks."""
    machine, chain, disk = lab.standard()
    machine.qmp.execute("block-stream", job_id="theirs", device="vda-1", auto_dismiss=False)
    machine.qmp.wait_event("JOB_STATUS_CHANGE", id="theirs", status="concluded")
    # Whatever the service asks of its own accord, or because somebody wants to know, it has asked by now. With a QEMU
    # that is safe to ask it knows that nothing is left to pull.
    safe = "set-active" in lab.domain_of(machine)["Capabilities"]
    disk.wait("Chain", lambda chain: len(chain) == 1)
    if safe:
        disk.wait("Job", "/")
    with refused("InvalidArgument" if safe else "JobActive"):
        disk.pull()
    lab.service.restart()
    assert lab.domain_of(machine)["State"] in ("running", "paused") and machine.running()
    machine.qmp.execute("job-dismiss", id="theirs")
    disk.wait("Chain", lambda chain: len(chain) == 1)
    machine.write("vda", 9, 20 * MIB, MIB)
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


def test_two_disks_at_once(lab):
    chains = {target: images.slow_layers(lab.directory, target) for target in ("vda", "sda")}
    machine = lab.machine().add_virtio(chains["vda"]).add_scsi_controller().add_scsi(chains["sda"]).start()
    domain = lab.attach(machine)
    jobs = {target: domain.disk(target).pull(speed=SLOW) for target in chains}
    assert set(domain["Jobs"]) == {job.path for job in jobs.values()}
    for job in jobs.values():
        job.set_speed(0)
    for target, job in jobs.items():
        job.wait_completed("completed")
        assert domain.disk(target).sources() == [chains[target].top.path]
    machine.kill()
    for chain in chains.values():
        images.assert_contents(chain.top, chain.contents[-1])


def test_next_job_on_the_disk(lab):
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    disk.pull(base="[2]").wait_completed("completed")
    disk.pull().wait_completed("completed")
    machine.write("vda", 9, 20 * MIB, MIB)
    machine.snapshot("vda", f"{lab.directory}/next.qcow2")
    machine.write("vda", 10, 24 * MIB, MIB)
    disk.commit(auto="pivot").wait_completed("completed")
    assert disk.sources() == [chain.layers[2].path]
    machine.quit()
    images.assert_contents(chain.layers[2], chain.contents[-1])


# The service dies, at a step of the job.

@pytest.mark.parametrize("step", ["flush", "finalize", "look", "record-outcome", "tidy"])
def test_service_killed(lab, step):
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    lab.service.restart(stop_at=step)
    job = run_until_death(lab, disk, "Pull", "(a{sv})", base="[2]")
    assert not job.completed()
    if step in ("flush", "finalize"):
        # Unlike a commit of the active layer this holds nobody.
        assert [entry["status"] for entry in machine.jobs().values()] == ["pending"]
    if step == "flush":
        machine.write("vda", 9, 20 * MIB, MIB)
    lab.service.start()
    job.wait_completed("completed")
    assert_nodes(machine, "vda-2", "vda-0")
    assert disk.sources() == sources(chain, 2, 0) and disk["Job"] == "/"
    kill_and_compare(machine, chain, 0, 2)
    assert backing_of(chain.top) == (chain.base.path, "qcow2")


def test_service_killed_while_it_runs(lab):
    machine, chain, disk = lab.slow()
    job = disk.pull(speed=SLOW)
    before = job.all()
    lab.service.restart()
    after = job.all()
    for name in ("Type", "State", "Source", "Target", "QemuJobId", "Options", "Speed", "Mode"):
        assert after[name] == before[name], name
    job.set_speed(0)
    job.wait_completed("completed")
    kill_and_compare(machine, chain, 1)


@pytest.mark.parametrize("step", ["start", "record-accepted"])
def test_service_killed_before_the_reply(lab, step):
    """Either QEMU has the job, and then it goes on to its end, or there is none and never was."""
    machine, chain, disk = lab.standard()
    lab.service.restart(stop_at=step)
    position = lab.client.position()
    assert run_until_death(lab, disk, "Pull", "(a{sv})") is None
    lab.service.start()
    if step == "start":
        assert machine.jobs() == {} and lab.manager.jobs(domain=machine.name) == []
        assert not lab.client.heard(member="JobNew", since=position)
        disk.pull().wait_completed("completed")
    else:
        listed, = lab.manager.jobs(domain=machine.name)
        lab.manager.job(listed["Id"]).wait_completed("completed")
    assert disk.sources() == [chain.top.path]
    kill_and_compare(machine, chain, 1)


@pytest.mark.parametrize("step", ["flush", "finalize", "record-outcome"])
def test_service_and_qemu_killed(lab, step):
    """Whatever the header says by then, the guest's image is right, and told to be the disk."""
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    lab.service.restart(stop_at=step)
    job = run_until_death(lab, disk, "Pull", "(a{sv})", base="[2]")
    machine.kill()
    lab.service.start()
    assert job.wait_completed()[0] == "lost"
    assert disk["Source"] == chain.top.path
    kill_and_compare(machine, chain, 0, 1, 2)


def test_qemu_killed_while_it_runs(lab):
    machine, chain, disk = lab.slow()
    job = disk.pull(speed=SLOW)
    machine.kill()
    job.wait_completed("lost")
    assert disk["Source"] == chain.top.path and disk["Job"] == "/"
    kill_and_compare(machine, chain, 0, 1)
