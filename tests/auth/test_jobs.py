# SPDX-License-Identifier: LGPL-2.1-or-later
"""One's own job and somebody else's, and what the rules are told of a call."""

import pytest
from kit import images
from kit.bus import ACCESS_DENIED, ROOT, BusError, options
from kit.caller import body
from kit.images import KIB
from kit.objects import Job

SLOW = 64 * KIB
CONTROLS = (("SetSpeed", "(uint64 65537,)"), ("Pause", "()"), ("Resume", "()"))


def test_own_job(lab, callers):
    machine, chain, disk = lab.slow()
    caller = callers("nobody")
    job = Job(lab.client, caller.commit(disk, active=True, speed=SLOW))
    assert job["StartedBy"] == 65534
    for method, arguments in CONTROLS:
        assert caller.error(job.path, "Job", method, arguments) == ""
    assert job["Speed"] == 65537
    assert caller.error(job.path, "Job", "Abort", body({})) == ""
    job.wait_completed("cancelled")
    job = Job(lab.client, caller.commit(disk, active=True))
    job.wait_ready()
    assert caller.error(job.path, "Job", "Pivot", body({})) == ""
    job.wait_completed("completed")
    assert caller.error(job.path, "Job", "Dismiss") == ""
    # Domains are another action.
    assert caller.error(disk["Domain"], "Domain", "Suspend") == ACCESS_DENIED


def test_job_of_another(lab, callers):
    _, _, disk = lab.slow()
    owner, other, manager = callers("nobody"), callers("man"), callers("sys")
    job = Job(lab.client, owner.commit(disk, active=True, speed=SLOW))
    calls = CONTROLS + (("Abort", body({})), ("Pivot", body({})), ("Dismiss", "()"))
    for method, arguments in calls:
        assert other.error(job.path, "Job", method, arguments) == ACCESS_DENIED, method
    assert job["Speed"] == SLOW and job["State"] == "running"
    assert manager.error(job.path, "Job", "SetSpeed", "(uint64 65537,)") == ""
    assert manager.error(job.path, "Job", "Abort", body({})) == ""
    job.wait_completed("cancelled")
    assert other.error(job.path, "Job", "Dismiss") == ACCESS_DENIED
    assert owner.error(job.path, "Job", "Dismiss") == ""


def test_job_of_root(lab, callers):
    _, _, disk = lab.slow()
    job = disk.commit(active=True, speed=SLOW)
    caller = callers("nobody")
    for method, arguments in CONTROLS + (("Abort", body({})),):
        assert caller.error(job.path, "Job", method, arguments) == ACCESS_DENIED
    assert job["State"] == "running"


def test_own_job_after_a_restart(lab, callers):
    _, _, disk = lab.slow()
    job = Job(lab.client, callers("nobody").commit(disk, active=True, speed=SLOW))
    lab.service.restart()
    # Another connection of the same user: the uid is the owner, not the connection.
    assert callers("man").error(job.path, "Job", "Abort", body({})) == ACCESS_DENIED
    assert callers("nobody").error(job.path, "Job", "Abort", body({})) == ""
    job.wait_completed("cancelled")


def test_details_for_the_rules(lab, callers):
    """Rules that look at names, disks and owners decide by them; each detail that is wrong denies."""
    caller = callers("lp")
    uuid = "00000000-1111-2222-3333-444444444444"

    def machine_with(name, uuid, target="vda"):
        machine = lab.machine(lab.unique_name(name))
        machine.uuid = uuid
        machine.add_virtio(images.slow_layers(lab.directory, machine.name), target).start()
        return lab.attach(machine).disk(target)

    right = machine_with("open", uuid)
    for disk in (machine_with("closed", uuid), machine_with("open", "00000000-1111-2222-3333-555555555555"),
                 machine_with("open", uuid, "vdb")):
        assert caller.error(disk.path, "Disk", "Commit", body(options({"active": True}))) == ACCESS_DENIED
        assert disk["Job"] == "/"
    job = Job(lab.client, caller.commit(right, active=True, speed=SLOW))
    caller.call(job.path, "Job", "Abort", body({}))
    job.wait_completed("cancelled")
    # started_by_uid: the rule opens jobs of nobody, and none of root.
    by_root = right.commit(active=True, speed=SLOW)
    assert caller.error(by_root.path, "Job", "Abort", body({})) == ACCESS_DENIED
    by_root.abort()
    by_nobody = callers("nobody").commit(right, active=True, speed=SLOW)
    assert caller.error(by_nobody, "Job", "Abort", body({})) == ""


def test_name_of_a_domain_that_is_not_there_yet(lab, callers):
    caller = callers("lp")
    machine = lab.machine("attach-me").add_virtio(images.two_layers(lab.directory)).start()
    lab.attached.append(machine.name)
    assert caller.error(ROOT, "Manager", "AttachDomain", body("attach-me-not", machine.monitor_path, {})) \
        == ACCESS_DENIED
    assert caller.error(ROOT, "Manager", "AttachDomain", body("attach-me", machine.monitor_path, {})) == ""


def test_force_takes_a_second_right(lab, callers):
    """Whoever may start jobs may not do so against everybody else who uses the image."""
    chain = images.two_layers(lab.directory)
    _, _, disk = lab.standard(chain)
    position = lab.service.log.size()
    forced = body(options({"active": True, "force": True}))
    assert callers("nobody").error(disk.path, "Disk", "Commit", forced) == ACCESS_DENIED
    assert "org.blockjobd1.manage-job" in lab.service.log.since(position) and disk["Job"] == "/"
    job, = callers("sys").call(disk.path, "Disk", "Commit", forced)
    Job(lab.client, job).wait_ready()
    Job(lab.client, job).pivot()


def test_force_is_asked_for_by_itself(lab, asked):
    caller, agent = asked
    machine, _, disk = lab.standard()
    for number, allowed in ((0, False), (2, True)):
        caller.send(disk.path, "Disk", "Commit", body(options({"active": True, "force": True})), interactive=True)
        first = agent.wait_question(number)
        assert first.action == "org.blockjobd1.start-job"
        agent.allow(first)
        second = agent.wait_question(number + 1)
        assert second.action == "org.blockjobd1.manage-job" and machine.jobs() == {}
        if not allowed:
            agent.deny(second)
            with pytest.raises(BusError, match="AccessDenied"):
                caller.receive()
        else:
            agent.allow(second)
            Job(lab.client, caller.receive()[0]).wait_ready()
