# SPDX-License-Identifier: LGPL-2.1-or-later
"""The job as an object: its properties, its place in the lists, and the order of what is told of it."""

import re
import time

from gi.repository import GLib

from kit import images
from kit.bus import NAME, PROPERTIES, ROOT, options, refused
from kit.images import KIB
from kit.objects import Job

SLOW = 64 * KIB


def test_properties_of_a_running_job(lab):
    machine, chain, disk = lab.slow()
    before = time.time() * 1e6
    job = disk.commit(active=True, speed=SLOW, on_error="stop", base="[1]")
    properties = job.all()
    assert re.fullmatch("[a-z0-9]+", properties["Id"])
    assert job.path == f"{ROOT}/job/{properties['Id']}" or "_" in job.path
    assert properties["Type"] == "active-commit"
    assert properties["State"] == "running"
    assert properties["Result"] == ""
    assert properties["Domain"] == lab.domain_of(machine).path
    assert properties["Disk"] == disk.path
    assert properties["DiskTarget"] == "vda"
    assert properties["Origin"] == "blockjobd"
    assert properties["QemuJobId"] == f"bj-commit-vda-{properties['Id']}"
    assert properties["QemuJobId"] in machine.jobs()
    assert properties["Ready"] is False
    assert properties["Speed"] == SLOW
    assert properties["Mode"] == "background"
    assert properties["IoStatus"] == "ok"
    assert properties["Source"] == chain.top.path
    assert properties["Target"] == chain.base.path
    assert properties["StartedBy"] == 0
    assert before <= properties["StartTime"] <= time.time() * 1e6
    assert properties["ReadyTime"] == properties["EndTime"] == properties["GuestHold"] == 0
    assert properties["Error"] == ("", "")
    assert properties["Options"] == {"active": True, "speed": SLOW, "on-error": "stop", "base": "[1]"}
    assert job.path in lab.manager["Jobs"]
    assert job.path in lab.domain_of(machine)["Jobs"]
    assert disk["Job"] == job.path


def test_what_qemu_is_told(lab):
    """Nothing is left to QEMU's defaults: its job waits to be finalized and dismissed, its filter has our name."""
    machine, _, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW, on_error="enospc")
    block_job, = machine.qmp.execute("query-block-jobs")
    assert block_job["device"] == job["QemuJobId"]
    assert block_job["auto-finalize"] is False and block_job["auto-dismiss"] is False
    assert block_job["speed"] == SLOW
    assert f"bj-{job['Id']}" in machine.nodes()
    # The filter of the job itself is none of the disk's.
    assert disk["Filters"] == []
    assert disk["NodeName"] == "vda-1"


def test_times_and_hold(lab):
    _, _, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    job.pivot()
    properties = job.all()
    assert 0 < properties["StartTime"] <= properties["ReadyTime"] <= properties["EndTime"] <= time.time() * 1e6
    # Held for one sync and one round trip: some time, and on no machine half a minute.
    assert 0 < properties["GuestHold"] <= properties["EndTime"] - properties["ReadyTime"] + 1e6
    assert properties["GuestHold"] < 30e6


def test_error_policies_are_accepted(lab):
    for policy in ("report", "ignore", "stop", "enospc"):
        _, _, disk = lab.standard(images.two_layers(lab.directory, policy))
        disk.commit(auto="keep", on_error=policy).wait_completed("kept")


def test_order_of_signals(lab):
    _, _, disk = lab.standard()
    position = lab.client.position()
    message = lab.client.message(disk.path, "Disk", "Commit", "(a{sv})", options({"active": True}))
    reply = lab.client.call_message(message)
    job = Job(lab.client, reply.get_body().unpack()[0])
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")
    lab.client.wait_signal(ROOT, "JobRemoved", since=position)
    log = lab.client.log[position:]

    def place(condition):
        places = [number for number, heard in enumerate(log) if condition(heard)]
        assert len(places) == 1, f"{len(places)} times: {[log[number] for number in places]}"
        return places[0]

    def last(condition):
        return max(number for number, heard in enumerate(log) if condition(heard))

    added = place(lambda heard: heard.member == "InterfacesAdded" and heard.arguments[0] == job.path)
    new = place(lambda heard: heard.member == "JobNew")
    replied = place(lambda heard: heard.reply_serial == reply.get_reply_serial() and heard.kind == "reply")
    ready = place(lambda heard: heard.path == job.path and heard.member == "Ready")
    completed = place(lambda heard: heard.path == job.path and heard.member == "Completed")
    removed = place(lambda heard: heard.member == "JobRemoved")
    changed = last(lambda heard: heard.path == job.path and heard.member == "PropertiesChanged")
    assert added < new < replied, "the job is told before its starter has the reply"
    assert replied < ready
    assert ready < changed < completed < removed
    assert log[new].arguments == (job["Id"], job.path)
    assert log[removed].arguments == (job["Id"], job.path, "completed")
    assert log[added].arguments[1][f"{NAME}.Job"]["Id"] == job["Id"]


def test_states_in_order(lab):
    _, _, disk = lab.slow()
    position = lab.client.position()
    job = disk.commit(active=True, speed=4 * SLOW)
    job.set_speed(0)
    job.wait_ready()
    job.pivot()
    added = lab.client.heard(ROOT, "InterfacesAdded", position, lambda heard: heard.arguments[0] == job.path)[0]
    states = [added.arguments[1][f"{NAME}.Job"]["State"]] + job.changes("State", position)
    order = ["starting", "running", "ready", "completing", "concluded"]
    assert states == [state for state in order if state in states], states
    assert states[-1] == "concluded" and "running" in states and "ready" in states


def test_disk_is_told_before_the_end(lab):
    """Who hears Completed can read the disk's new source, and has been told of it already."""
    _, chain, disk = lab.standard()
    position = lab.client.position()
    job = disk.commit(auto="pivot")
    completed = job.wait_completed("completed")
    assert completed == ("completed", "", "")
    log = lab.client.log[position:]
    end = next(number for number, heard in enumerate(log) if heard.member == "Completed")
    sources = [heard.arguments[1]["Source"] for heard in log[:end] if heard.path == disk.path
               and heard.member == "PropertiesChanged" and "Source" in heard.arguments[1]]
    assert sources == [chain.base.path]


def test_lists(lab):
    machine, _, disk = lab.standard()
    done = disk.commit(auto="keep")
    done.wait_completed("kept")
    running = disk.commit(active=True)
    running.wait_ready()
    name = machine.name
    listed = lab.manager.jobs(domain=name)
    assert [entry["Path"] for entry in listed] == [done.path, running.path]
    for entry in listed:
        job = Job(lab.client, entry.pop("Path"))
        assert entry == job.all()
    assert [entry["Id"] for entry in lab.manager.jobs(domain=name, state="concluded")] == [done["Id"]]
    assert [entry["Id"] for entry in lab.manager.jobs(domain=name, state="ready")] == [running["Id"]]
    assert lab.manager.jobs(domain=name, state="paused") == []
    assert lab.manager.jobs(domain="nobody") == []
    assert {done["Id"], running["Id"]} <= {entry["Id"] for entry in lab.manager.jobs()}
    assert running.path in lab.manager["Jobs"] and done.path not in lab.manager["Jobs"]
    with refused("InvalidArgument", "state"):
        lab.manager.jobs(state="happy")
    with refused("InvalidArgument", "colour"):
        lab.manager.jobs(colour="blue")
    with refused("InvalidArgument", "domain"):
        lab.manager.jobs(domain=5)


def test_identities_are_not_used_twice(lab):
    _, _, disk = lab.standard()
    seen = set()
    for _ in range(6):
        job = disk.commit(auto="keep")
        job.wait_completed("kept")
        seen.add(job["Id"])
    assert len(seen) == 6


def test_finished_jobs_stay(lab):
    """At least the last 64 of a domain."""
    machine, _, disk = lab.standard()
    jobs = []
    for _ in range(66):
        job = disk.commit(auto="keep")
        job.wait_completed("kept")
        jobs.append(job.path)
    held = [entry["Path"] for entry in lab.manager.jobs(domain=machine.name)]
    assert held == jobs[-64:], f"{len(held)} jobs are held"


def test_types_on_the_wire(lab):
    """Error is a struct, Options is a dictionary of variants: not only something that looks like them."""
    _, _, disk = lab.standard()
    job = disk.commit(active=True)
    for name, signature in (("Error", "(ss)"), ("Options", "a{sv}"), ("Progress", "d"), ("StartedBy", "u"),
                            ("GuestHold", "t")):
        reply = lab.client.call_message(lab.client.message(job.path, PROPERTIES, "Get", "(ss)",
                                                           f"{NAME}.Job", name))
        value = reply.get_body().get_child_value(0).get_variant()
        assert value.is_of_type(GLib.VariantType(signature)), f"{name} is {value.get_type_string()}"
