# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service dies by SIGKILL right before each step of each type of job, and starts again.

A job that anybody can know of ends once, with one result that QEMU's graph, the headers and the images show. One that
nobody can know of leaves nothing in QEMU. Either way the disk takes the next job. The active commit has its own file,
test_service_killed.py, and so has the snapshot, test_snapshot.py.
"""

import json
import os

import pytest

from kit import images
from kit.bus import ROOT, options
from kit.crash_walk import KINDS, SIZE, SLOW, UNDECIDED, Walk, steps_of, tables
from kit.faults import orphans
from kit.images import KIB, MIB
from kit.space import SmallDisk
from kit.targets import assert_disk
from kit.waiting import wait_until

# The tables that are not walked here, for they have tests like these in their own files.
ELSEWHERE = [("commit.c", "active_steps"), ("snapshot.c", "steps")]
# It gives up what an earlier start of the service has left, and is due after one only.
SECOND_LIFE = ["begin", "compare-images"]
# Of a job that ends by itself these are due after an Abort only.
ABORT = ["record-decision", "ask"]
SINGLE_PHASE = ("commit", "pull", "backup")
# A copy of everything has nothing to do there.
OF_A_CHAIN = ["check-chain", "attach-chain"]
# Due where QEMU can give up a backup for the sake of the guest, which the one of Debian 12 cannot.
NEWER_QEMU = ["check-snapshot"]
# Of a restartable commit: test_restartable.py.
NEXT_LAYER = ["next-layer"]
# What an undisturbed job of the kind does not come to.
NOT_WALKED = {
    "commit": SECOND_LIFE + ABORT + ["keep-top"] + NEXT_LAYER,
    "copy": SECOND_LIFE + OF_A_CHAIN,
    "pull": SECOND_LIFE + ABORT,
    "backup": SECOND_LIFE + ABORT + NEWER_QEMU,
}
UNDO = ["remove-target", "remove-file", "give-up"]
# Of a job whose record was set aside: test_orphans.py.
ORPHAN = ["release", "dismiss"]
EXTERNAL = ["record-intent", "announce", "say-ready", "record-decision", "ask", "look", "record-outcome", "tell"]
RESIZE = ["plan", "resize", "look", "answer"]
SHALLOW = ["open-format", "announce", "say-ready", "record-decision", "attach-chain", "ask", "record-target",
           "finalize", "look", "tidy", "tell"]
REBASED = ["check-chain", "start", "record-accepted", "announce", "attach-chain", "record-target", "look", "tidy"]
KEPT = ["decide", "ask", "record-target", "finalize", "look", "record-outcome", "tidy"]


def walked():
    """(kind, step): each step of the tables that an undisturbed job comes to, so that a new one is walked as well."""
    cases = [(kind, step) for kind, others in NOT_WALKED.items() for step in steps_of(kind) if step not in others]
    # Of a second way through a table only what differs.
    cases += [("shallow-copy", step) for step in SHALLOW] + [("kept-copy", step) for step in KEPT]
    cases += [("rebased-copy", step) for step in REBASED]
    return cases + [("keep-top", "keep-top"), ("keep-top", "tell"), ("active-commit", "delete")]


def test_every_table_is_covered():
    """A table that nobody walks is found here, and so is a step in one that is walked by a list."""
    walked_steps = {}
    for kind, step in walked():
        walked_steps.setdefault((KINDS[kind].source, KINDS[kind].table), set()).add(step)
    for kind in SINGLE_PHASE:
        walked_steps[KINDS[kind].source, "steps"] |= {*ABORT, *SECOND_LIFE}
    walked_steps["commit.c", "steps"] |= {*NEXT_LAYER}
    walked_steps["copy.c", "steps"] |= {*SECOND_LIFE}
    walked_steps["backup.c", "steps"] |= {*NEWER_QEMU}
    walked_steps |= {("target.c", "target_undo"): {*UNDO}, ("snapshot.c", "undo"): {"record-source", *UNDO},
                     ("external.c", "steps"): {*EXTERNAL, *ORPHAN}, ("resize.c", "steps"): {*RESIZE}}
    found = {table: set(steps) for table, steps in tables().items()}
    for table in ELSEWHERE:
        assert found.pop(table)
        walked_steps.pop(table, None)
    assert found == walked_steps


@pytest.mark.parametrize("kind, step", walked())
def test_killed(lab, kind, step):
    walk = Walk(lab, kind, step)
    walk.run_until_death()
    lab.service.start()
    if walk.has_begun:
        job = walk.job_after_the_restart()
        if walk.kind.ends_by_hand and step in UNDECIDED:
            walk.end_by_hand(job)
        job.wait_completed(walk.kind.result)
    else:
        walk.assert_never_began()
        job = walk.run_again()
    walk.assert_result(job)
    walk.assert_next()
    walk.assert_written()
    assert len(job.completed()) == 1


@pytest.mark.parametrize("step", ABORT)
@pytest.mark.parametrize("kind", SINGLE_PHASE)
def test_killed_in_an_abort(lab, kind, step):
    walk = Walk(lab, kind, step)
    job = walk.start(speed=SLOW)
    call = lab.client.call_later(job.path, "Job", "Abort", "(a{sv})", {})
    assert lab.client.wait_reply(call).kind == "error"
    lab.service.wait_gone()
    walk.write(10, 2 * MIB)
    lab.service.start()
    if step == "record-decision":
        # As far as anybody can know nothing was asked for.
        assert job["State"] == "running"
        job.abort()
    job.wait_completed("cancelled")
    assert not [name for name in walk.machine.nodes() if name.startswith("bj-")]
    assert_disk(walk.machine, walk.disk, *walk.chain.paths())
    # What a cancelled commit left in base shows at no layer above it.
    del walk.chain.layers[0], walk.chain.contents[0]
    walk.assert_next()
    assert len(job.completed()) == 1


# What was begun is undone, and the service dies in that.

@pytest.mark.parametrize("kind, step", [
    ("active-commit", "begin"), ("commit", "begin"), ("pull", "begin"), ("backup", "begin"), ("copy", "begin"),
    ("copy", "remove-target"), ("copy", "give-up"),
])
def test_killed_again(lab, kind, step):
    """The first service dies before QEMU has the job, the second one when it clears away what that has left."""
    walk = Walk(lab, kind, "start")
    walk.run_until_death()
    process = lab.service.launch(stop_at=step)
    assert process.wait(20) != 0
    lab.service.start()
    walk.assert_never_began()
    walk.assert_result(walk.run_again())
    walk.assert_next()


@pytest.fixture
def small(lab):
    """Room for a file, and not for the header of an image in it."""
    small = SmallDisk(f"{lab.directory}/small", 64)
    yield small
    for machine in lab.machines:
        machine.kill()
    small.remove()


@pytest.mark.parametrize("step", UNDO)
@pytest.mark.parametrize("kind", ["copy", "backup", "snapshot"])
def test_killed_in_a_start_that_failed(lab, small, kind, step):
    walk = Walk(lab, kind, step, target=f"{small.path}/target.qcow2")
    assert lab.client.wait_reply(walk.call(force=True)).kind == "error"
    lab.service.wait_gone()
    assert os.path.exists(walk.target) == (step != "give-up")
    walk.write(10, 2 * MIB)
    lab.service.start()
    walk.assert_never_began()
    walk.remove_target()
    walk.assert_next()


def test_killed_in_a_snapshot_that_failed(lab):
    """The overlay was recorded as the disk and QEMU refuses it: the record goes back before the file goes."""
    walk = Walk(lab, "snapshot", "snapshot")
    walk.run_until_death()
    overlay, = [name for name in orphans(walk.machine) if name.endswith("-t")]
    walk.machine.qmp.execute("blockdev-del", node_name=overlay)
    process = lab.service.launch(stop_at="record-source")
    assert process.wait(20) != 0
    lab.service.start()
    walk.assert_never_began()
    walk.assert_next()


@pytest.mark.parametrize("kind", ["active-commit", "commit", "copy", "kept-copy", "pull", "backup"])
def test_killed_in_the_middle_of_tidying(lab, kind):
    """A part of the commands was carried out: what hangs on the nodes that went must not stay for good."""
    walk = Walk(lab, kind, "tidy")
    walk.run_until_death()
    with open(record_of(lab, walk)) as file:
        first, *others = json.load(file)["unused"]
    assert others
    for concluded in walk.machine.jobs():
        walk.machine.qmp.execute("job-dismiss", id=concluded)
    walk.machine.qmp.execute("blockdev-del", node_name=first)
    lab.service.start()
    job = walk.job_after_the_restart()
    job.wait_completed(walk.kind.result)
    assert not set(others) & set(walk.machine.nodes())
    walk.assert_result(job)
    walk.assert_next()
    walk.assert_written()


def record_of(lab, walk):
    """The file of the one job that a dead service was told of."""
    path = lab.client.heard(ROOT, "JobNew", walk.position)[-1].arguments[1]
    return f"{lab.service.state_directory}/jobs/{os.path.basename(path)}.json"


# Descriptors: QEMU keeps what it was passed until it is told otherwise.

@pytest.mark.parametrize("kind, step", [
    ("copy", "pass-descriptor"), ("copy", "create-file"), ("copy", "start"), ("kept-copy", "record-accepted"),
    ("kept-copy", "record-target"), ("backup", "start"), ("backup", "record-accepted"), ("backup", "tidy"),
])
def test_killed_with_a_descriptor(lab, kind, step):
    walk = Walk(lab, kind, step)
    # While the guest is stopped QEMU closes no descriptor that was taken back.
    walk.machine.qmp.execute("cont")
    with open(walk.target, "w+b") as file:
        call = lab.client.call_later(walk.disk.path, "Disk", f"{walk.kind.member}ToFd", "(ha{sv})", 0,
                                     options(walk.kind.values), descriptors=[file.fileno()])
        lab.client.wait_reply(call)
    lab.service.wait_gone()
    lab.service.start()
    if not walk.has_begun:
        walk.assert_never_began()
        wait_until(lambda: walk.machine.qmp.execute("query-fdsets") == [], "the descriptor to be taken back", 2)
        walk.assert_next()
        return
    job = walk.job_after_the_restart()
    job.wait_completed(walk.kind.result)
    assert walk.machine.qmp.execute("query-fdsets") == []
    walk.assert_result(job)
    walk.assert_next()
    walk.assert_written()


# QEMU dies as well, while nobody is there: the record alone tells which image is the disk.

@pytest.mark.parametrize("kind, step, result", [
    ("copy", "start", None), ("copy", "ask", "lost"), ("copy", "look", "pivoted"),
    ("shallow-copy", "attach-chain", "lost"), ("shallow-copy", "record-target", "lost"),
    ("shallow-copy", "finalize", "pivoted"), ("shallow-copy", "record-outcome", "pivoted"),
    ("rebased-copy", "record-target", "lost"), ("rebased-copy", "finalize", "pivoted"),
    ("kept-copy", "finalize", "lost"), ("kept-copy", "tell", "kept"), ("commit", "flush", "lost"),
    ("commit", "delete", "completed"), ("pull", "flush-outcome", "lost"), ("pull", "tidy", "completed"),
    ("backup", "flush", "lost"), ("backup", "tell", "completed"),
])
def test_killed_with_qemu(lab, kind, step, result):
    walk = Walk(lab, kind, step)
    walk.run_until_death()
    walk.machine.kill()
    lab.service.start()
    if result is None:
        lab.domain_of(walk.machine).wait("State", "crashed")
        assert lab.manager.jobs(domain=walk.machine.name) == []
        assert not lab.client.heard(member="JobNew", since=walk.position)
    else:
        job = walk.job_after_the_restart()
        job.wait_completed(result)
    moved = result in ("pivoted", "completed") and walk.kind.target_is_disk
    source = images.Layer(walk.target, "qcow2", SIZE) if moved else walk.chain.top
    assert walk.disk["Source"] == source.path
    assert walk.disk["Job"] == "/"
    if walk.kind.two_phases:
        below = {"shallow-copy": walk.chain.paths()[1:], "rebased-copy": []}.get(kind, [])
        assert walk.disk.sources() == ([source.path, *below] if moved else walk.chain.paths())
    # By its header the image leads to all that the guest was told is written.
    images.assert_contents(source, walk.chain.contents[-1])
    images.assert_sound(source)
    lab.service.restart()
    assert walk.disk["Source"] == source.path
    if result is not None:
        assert job["Result"] == result and len(job.completed()) == 1


# Jobs of somebody else, and calls without a job.

@pytest.mark.parametrize("step", EXTERNAL)
def test_killed_in_a_job_of_somebody_else(lab, step):
    """It goes on without the service, which tells of it again, and tells its end once."""
    walk = Walk(lab, "copy", step)
    machine, target = walk.machine, images.Layer(f"{lab.directory}/theirs.qcow2", "qcow2", SIZE)
    images.run("qemu-img", "create", "-q", "-f", "qcow2", target.path, str(SIZE))
    machine.qmp.execute("blockdev-add", driver="file", node_name="theirs-file", filename=target.path)
    machine.qmp.execute("blockdev-add", driver="qcow2", node_name="theirs", file="theirs-file")
    machine.qmp.execute("blockdev-mirror", job_id="theirs", device="vda-2", target="theirs", sync="full",
                        auto_dismiss=False)
    if step not in ("record-intent", "announce", "say-ready"):
        job = walk.job_that_is_told()
        job.wait_ready()
        lab.client.call_later(job.path, "Job", "Abort", "(a{sv})", {})
    lab.service.wait_gone()
    lab.service.start()
    job = walk.job_after_the_restart()
    assert job["Origin"] == "external" and job["QemuJobId"] == "theirs"
    if step in ("record-intent", "announce", "say-ready", "record-decision"):
        job.wait_ready()
        job.abort()
    job.wait_completed("kept")
    assert list(machine.jobs()) == ["theirs"], "whoever started it may want to read how it ended"
    machine.qmp.execute("job-dismiss", id="theirs")
    assert_disk(machine, walk.disk, *walk.chain.paths(), others=[target.path])
    walk.assert_next()
    images.assert_contents(target, walk.copied)
    assert len(job.completed()) == 1


@pytest.mark.parametrize("step", RESIZE)
def test_killed_in_a_resize(lab, step):
    """There is no half of it: the disk has the one size or the other, and everybody says which."""
    walk = Walk(lab, "backup", step)
    call = lab.client.call_later(walk.disk.path, "Disk", "Resize", "(ta{sv})", 2 * SIZE, {})
    assert lab.client.wait_reply(call).kind == "error"
    lab.service.wait_gone()
    lab.service.start()
    size = SIZE if step in ("plan", "resize") else 2 * SIZE
    assert walk.disk["Capacity"] == walk.machine.block("vda")["inserted"]["image"]["virtual-size"] == size
    assert walk.disk["Job"] == "/" and lab.manager.jobs(domain=walk.machine.name) == []
    walk.disk.resize(2 * SIZE)
    assert walk.disk["Capacity"] == 2 * SIZE
    walk.machine.write("vda", 9, SIZE, 64 * KIB)
