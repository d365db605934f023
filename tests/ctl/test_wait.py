# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting for a job: from its first moment, over a restart of the service, with lines where there is no terminal."""

import re
import signal

import pytest

from kit import ctl as status
from kit import images
from kit.ctl import Running, ctl, name_of, running_job
from kit.images import KIB, MIB
from kit.objects import Job
from kit.space import SmallDisk


def test_a_job_that_is_over_at_once(lab):
    """Nothing to copy: Completed comes right behind the reply, and is not missed. Twenty of them."""
    machine, chain, disk = lab.standard()
    for number in range(20):
        ctl("snapshot", name_of(machine), f"{lab.directory}/layer-{number}.qcow2")
        ctl("commit", name_of(machine), "--shallow", "--pivot", "--wait", "--delete", deadline=20)
    assert disk.sources() == chain.paths()


def test_two_phases_by_hand(lab):
    """Plain: it waits to where somebody has to decide, and says how."""
    machine, chain, disk = lab.standard()
    done = ctl("commit", name_of(machine), "--wait", status=status.DONE)
    assert f"job {done.job}: ready\n" in done.out
    assert f"  The disk is still {chain.top.path}.\n" in done.out
    assert f"blockjobctl pivot {done.job}  moves the disk to {chain.base.path}\n" in done.out
    assert f"blockjobctl abort {done.job}  leaves it; " in done.out
    assert ctl("wait", "--ready", done.job).out == done.out
    machine.write("vda", 9, 8 * MIB, MIB)
    chain.contents[-1].fill(9, 8 * MIB, MIB)
    done = ctl("pivot", name_of(machine), status=status.DONE)
    assert disk["Source"] == chain.base.path
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


def test_abort_of_a_ready_one(lab):
    machine, chain, disk = lab.standard()
    job = ctl("commit", name_of(machine), "--wait").job
    ctl("abort", job, status=status.KEPT)
    assert disk["Source"] == chain.top.path
    job = ctl("commit", name_of(machine), "--wait").job
    ctl("abort", job, "--force", status=status.CANCELLED)


def test_without_waiting(lab):
    machine, chain, disk = lab.slow()
    done = ctl("commit", name_of(machine), "--speed", "64K")
    assert f"commit of {name_of(machine)}, job {done.job}: started\n" in done.out
    assert f"blockjobctl wait --ready {done.job} " in done.out
    asked = ctl("abort", done.job, "--async")
    Job(lab.client, f"/org/blockjobd1/job/{done.job}").wait_completed("cancelled")
    assert asked.status == status.DONE


def test_pivot_without_waiting(lab):
    machine, chain, disk = lab.standard()
    job = Job(lab.client, f"/org/blockjobd1/job/{ctl('commit', name_of(machine), '--wait').job}")
    ctl("pivot", name_of(machine), "--async")
    job.wait_completed("completed")
    assert disk["Source"] == chain.base.path


def test_lines_without_a_terminal(lab):
    machine, _, _ = lab.slow()
    done = ctl("backup", name_of(machine), f"{lab.directory}/backup.raw", "--format", "raw", "--speed", "8M", "--wait")
    lines = done.err.splitlines()
    assert len(lines) >= 3 and "\r" not in done.err and "\033" not in done.err
    assert all(line.startswith(f"backup {name_of(machine)}: ") for line in lines)
    percents = [int(re.search(r": (\d+)%", line).group(1)) for line in lines]
    assert percents == sorted(percents)
    moving = [line for line in lines if " left, " in line]
    assert moving and all(re.search(r"\d+(\.\d)? MiB of 32 MiB, [\d.]+ [KM]iB/s, [\d.]+ s left, copying$", line)
                          for line in moving)


def test_paused(lab):
    machine, _, disk = lab.slow()
    waiting = Running("commit", name_of(machine), "--speed", "64K", "--keep", "--wait")
    job = running_job(lab, disk)["Id"]
    assert ctl("pause", job).out == f"job {job}: paused, speed 64 KiB/s, mode background\n"
    waiting.wait_said("paused")
    ctl("resume", name_of(machine))
    assert "speed no limit" in ctl("speed", job, "0").out
    waiting.end(status.KEPT)
    # the last that was heard is said once more, then it is gone
    assert f"job {job}: kept" in ctl("wait", job, status=status.KEPT).out
    assert ctl("dismiss", job).out == f"job {job}: dismissed\n"
    ctl("wait", job, status=status.ERROR)


def test_no_space(lab):
    """Who waits is told what the job waits for, once."""
    machine, chain, disk = lab.standard()
    room = SmallDisk(f"{lab.directory}/small", 1024)
    try:
        waiting = Running("backup", name_of(machine), f"{room.path}/backup.qcow2", "--on-target-error", "enospc",
                          "--force", "--wait")
        job = running_job(lab, disk)
        job.wait("IoStatus", "nospace")
        command = f"blockjobctl resume {job['Id']}"
        waiting.wait_said(f"backup {name_of(machine)} paused: there is no space left. Make room, and type: {command}\n")
        room.resize(64 * 1024)
        ctl(*command.split()[1:])
        assert waiting.end(status.DONE).err.count(command) == 1
    finally:
        machine.kill()
        room.remove()


def test_service_killed_and_started_again(lab):
    machine, chain, disk = lab.slow()
    waiting = Running("commit", name_of(machine), "--speed", "64K", "--pivot", "--wait")
    job = running_job(lab, disk)["Id"]
    waiting.wait_said("copying")
    lab.service.kill()
    waiting.wait_said("the service is away, QEMU goes on")
    lab.service.start()
    ctl("speed", job, "0")
    done = waiting.end(status.DONE)
    assert f"job {job}: completed" in done.out and f"The disk is now {chain.base.path}.\n" in done.out
    assert disk["Source"] == chain.base.path
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


def test_service_killed_in_the_middle_of_a_pivot(lab):
    """Asked for, recorded, and then the service is gone: the next one does it, and the waiting goes on."""
    machine, chain, disk = lab.standard()
    job = ctl("commit", name_of(machine), "--wait").job
    lab.service.restart(wait_at="finalize")
    pid = lab.service.pid()
    waiting = Running("pivot", job)
    lab.service.wait_stopped(pid)
    lab.service.kill()
    lab.service.start()
    waiting.end(status.DONE)
    assert disk["Source"] == chain.base.path


def test_job_ends_while_the_service_is_away(lab):
    """Its Completed is said by the next service, when it comes; what it came to is read from there."""
    machine, chain, disk = lab.slow()
    waiting = Running("backup", name_of(machine), f"{lab.directory}/backup.raw", "--format", "raw", "--speed", "4M",
                      "--wait")
    job = running_job(lab, disk)
    waiting.wait_said("copying")
    lab.service.kill()
    machine.kill()
    lab.service.start()
    waiting.end(status.LOST)


def test_service_that_does_not_come_back(lab):
    machine, _, disk = lab.slow()
    waiting = Running("commit", name_of(machine), "--speed", "64K", "--keep", "--wait", BLOCKJOBCTL_SERVICE_TIMEOUT="1")
    running_job(lab, disk)
    waiting.wait_said("copying")
    lab.service.kill()
    done = waiting.end(status.NO_SERVICE)
    assert "did not come back within 1 s" in done.err and "runs on in QEMU" in done.err


def test_dismissed_at_its_end_by_somebody_else(lab):
    """Then nobody can be asked any more, and what was heard counts."""
    machine, _, disk = lab.slow()
    waiting = Running("commit", name_of(machine), "--speed", "64K", "--wait", "--pivot")
    job = running_job(lab, disk)
    waiting.wait_said("copying")
    waiting.process.send_signal(signal.SIGSTOP)
    job.abort()
    job.dismiss()
    waiting.process.send_signal(signal.SIGCONT)
    done = waiting.end(status.CANCELLED)
    assert f"job {job.path.rpartition('/')[2]}: cancelled" in done.out


def test_only_the_service_is_believed(lab):
    """Somebody else on the bus says that the job is completed."""
    from gi.repository import Gio, GLib

    machine, _, disk = lab.slow()
    waiting = Running("commit", name_of(machine), "--speed", "64K", "--keep", "--wait")
    job = running_job(lab, disk)
    waiting.wait_said("copying")
    names = lab.client.driver("ListNames")[0]
    for name in names:
        if name.startswith(":"):
            message = Gio.DBusMessage.new_signal(job.path, "org.blockjobd1.Job", "Completed")
            message.set_destination(name)
            message.set_body(GLib.Variant("(sss)", ("completed", "", "")))
            lab.client.connection.send_message(message, Gio.DBusSendMessageFlags.NONE)
    lab.client.connection.flush_sync(None)
    job.set_speed(0)
    waiting.end(status.KEPT)


@pytest.mark.parametrize("waits", [True, False])
def test_a_machine_that_is_off(own, waits):
    """Nobody waits in the second phase then: it ends by itself, and nobody is asked to decide."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    done = ctl("commit", domain["Name"], *(["--wait"] if waits else []))
    if not waits:
        assert "It comes to its end by itself." in done.out and "pivot" not in done.out
        done = ctl("wait", done.job)
    assert ": completed after " in done.out and f"The disk is now {chain.base.path}.\n" in done.out
    assert disk["Source"] == chain.base.path


def test_job_of_somebody_else(lab):
    """Started over another monitor: seen, followed, and ended."""
    machine, chain, disk = lab.slow()
    machine.qmp.execute("block-commit", job_id="theirs", device=disk["NodeName"], speed=64 * KIB)
    job = running_job(lab, disk)
    assert job["Origin"] == "external"
    waiting = Running("wait", name_of(machine))
    waiting.wait_said("copying")
    ctl("abort", name_of(machine), status=status.CANCELLED)
    assert f"The disk is still {chain.top.path}.\n" in waiting.end(status.CANCELLED).out
