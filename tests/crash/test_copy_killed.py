# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service dies by SIGKILL in a copy, and starts again: the target is the disk or it is not, and is never both."""

import pytest

from kit import images
from kit.bus import ROOT, options, refused
from kit.images import MIB, Layer, SIZE
from kit.nbd import Writer
from kit.objects import Job
from kit.targets import assert_disk


@pytest.fixture
def path(lab):
    return f"{lab.directory}/target"


@pytest.mark.parametrize("end", ["pivot", "keep", "force"])
def test_killed_when_ready(lab, path, end):
    machine, chain, disk = lab.standard()
    job = disk.copy(path, shallow=True)
    job.wait_ready()
    before = job.all()
    lab.service.kill()
    machine.write("vda", 9, 20 * MIB, MIB)
    lab.service.start()
    after = job.all()
    assert after["State"] == "ready" and after["Ready"] is True
    for name in ("Id", "Type", "Mode", "Source", "Target", "QemuJobId", "StartTime", "ReadyTime", "Options"):
        assert after[name] == before[name], name
    with refused("JobActive", after["Id"]):
        disk.copy(f"{path}-2")
    if end == "pivot":
        job.pivot()
    else:
        job.abort(force=end == "force")
    job.wait_completed({"pivot": "completed", "keep": "kept", "force": "cancelled"}[end])
    assert_disk(machine, disk, *([path, chain.base.path] if end == "pivot" else chain.paths()))
    assert len(lab.client.heard(job.path, "Ready")) == 1
    machine.quit()
    if end != "force":
        images.assert_contents(Layer(path, "qcow2", SIZE), chain.contents[-1])


@pytest.mark.parametrize("step", ["record-target", "finalize", "tidy"])
def test_killed_in_an_automatic_pivot(lab, path, step):
    """With a guest that writes all the time; it waits while the job is pending, and loses nothing."""
    machine, chain, disk = lab.slow(share=True)
    writer = Writer(machine.export("vda", "vda-1"), "vda", 16 * MIB, 256)
    lab.service.restart(stop_at=step)
    position = lab.client.position()
    lab.client.call_later(disk.path, "Disk", "Copy", "(sa{sv})", path, options({"auto": "pivot", "shallow": True}))
    lab.service.wait_gone()
    job = Job(lab.client, lab.client.wait_signal(ROOT, "JobNew", since=position).arguments[1])
    assert not job.completed()
    if step in ("record-target", "finalize"):
        assert [entry["status"] for entry in machine.jobs().values()] == ["pending"]
    lab.service.start()
    job.wait_completed("completed")
    assert_disk(machine, disk, path, chain.base.path)
    writer.wait_more()
    writer.stop()
    machine.kill()
    writer.assert_all_in(images.read_image(path, "qcow2"))
