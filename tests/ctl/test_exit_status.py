# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each exit status of blockjobctl, by a real job that ends so; and what a person is told about it."""

import signal

import pytest

from kit import ctl as status
from kit import images
from kit.ctl import Running, ctl, name_of, running_job
from kit.every_job import slow_disk
from kit.faults import layers, machine_with_faults, read_fault
from kit.images import KIB, MIB
from kit.objects import Job

SLOW = 64 * KIB


def test_completed(lab):
    machine, chain, disk = lab.standard()
    done = ctl("commit", name_of(machine), "--wait", "--pivot", status=status.DONE)
    assert disk["Source"] == chain.base.path
    head, happened, image, following, *_ = done.out.splitlines()
    assert head.startswith(f"commit of {name_of(machine)}, job {Job(lab.client, lab.manager.jobs()[-1]['Path'])['Id']}"
                           ": completed after ")
    assert happened == f"  {chain.top.path} was merged into {chain.base.path} and is not valid any more."
    assert image == f"  The disk is now {chain.base.path}."
    assert following.startswith(f"  Next: blockjobctl show {name_of(machine)} ")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[-1])


def test_kept(lab):
    machine, chain, disk = lab.standard()
    target = f"{lab.directory}/copy.qcow2"
    done = ctl("copy", name_of(machine), target, "--keep", "--wait", status=status.KEPT)
    assert disk["Source"] == chain.top.path
    assert f"  {target} is a consistent copy of the disk as of " in done.out
    assert f"  The disk is still {chain.top.path}.\n" in done.out
    machine.quit()
    images.assert_contents(images.Layer(target, "qcow2", images.SIZE), chain.contents[-1])


def test_cancelled(lab):
    machine, chain, disk = lab.slow()
    job = ctl("commit", name_of(machine), "--speed", "64K").job
    done = ctl("abort", job, status=status.CANCELLED)
    assert f"job {job}: cancelled after " in done.out
    assert f"is in {chain.base.path}, which is good below the other layers only.\n" in done.out
    assert f"  The disk is still {chain.top.path}.\n" in done.out
    assert disk["Source"] == chain.top.path
    # what it says is not lost with the terminal
    assert ctl("wait", job, status=status.CANCELLED).out == done.out


def test_failed(lab):
    chain = layers(lab.directory)
    machine = machine_with_faults(lab, chain, {1: read_fault(chain.layers[1])}).start()
    lab.attach(machine)
    target = f"{lab.directory}/backup.qcow2"
    done = ctl("backup", name_of(machine), target, "--wait", status=status.FAILED)
    assert ": failed after " in done.out
    assert "  QemuError: " in done.out and "Input/output error" in done.out
    assert f"  {target} is not complete; do not use it.\n" in done.out
    assert f"  The disk is still {chain.top.path}.\n" in done.out
    job = done.job
    assert ctl("wait", job, "--quiet", status=status.FAILED).out == done.out


def test_lost(lab):
    machine, chain, disk = lab.slow()
    waiting = Running("commit", name_of(machine), "--speed", "64K", "--pivot", "--wait")
    running_job(lab, disk).wait("Current", lambda current: current > 0)
    machine.kill()
    done = waiting.end(status.LOST)
    assert ": lost after " in done.out
    assert f"  The disk is still {chain.top.path}.\n" in done.out


def test_pivoted(lab):
    """QEMU dies right after the decision was recorded."""
    machine, chain, disk = slow_disk(lab)
    lab.service.restart(wait_at="finalize")
    pid = lab.service.pid()
    job = disk.commit(active=True)
    job.wait_ready()
    waiting = Running("pivot", job["Id"])
    lab.service.wait_stopped(pid)
    machine.kill()
    lab.service.resume(pid)
    done = waiting.end(status.PIVOTED)
    assert "Start from this image and from no other." in done.out
    assert f"  The disk is now {chain.base.path}.\n" in done.out


def test_refused(lab):
    machine, chain, disk = lab.standard()
    done = ctl("commit", name_of(machine), "--pivot", user="daemon", status=status.REFUSED)
    assert done.err.startswith("blockjobctl: AccessDenied: ") and "polkit" in done.err
    assert disk["Source"] == chain.top.path and lab.manager.jobs(domain=machine.name) == []


def test_password_needed(lab):
    """Nobody to ask: without a terminal, and with --no-ask-password."""
    machine, _, _ = lab.standard()
    ctl("commit", name_of(machine), "--pivot", user="games", status=status.REFUSED)
    done = ctl("commit", name_of(machine), "--pivot", "--no-ask-password", user="games", status=status.REFUSED)
    assert "InteractiveAuthorizationRequired" in done.err and "--no-ask-password" in done.err
    assert lab.manager.jobs(domain=machine.name) == []


def test_no_service(service):
    service.terminate()
    done = ctl("wait", "abc", status=status.NO_SERVICE)
    assert "ServiceUnknown" in done.err and "systemctl status blockjobd" in done.err
    ctl("commit", "web/vda", status=status.NO_SERVICE)


def test_no_bus():
    done = ctl("list", status=status.NO_SERVICE, DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nowhere/bus")
    assert "cannot connect to the system bus" in done.err


@pytest.mark.parametrize("words, said", [
    (("nothing",), "there is no command 'nothing'"),
    (("commit",), "commit takes DOMAIN/DISK"),
    (("commit", "a/b", "c"), "nothing else"),
    (("commit", "a/b", "--speed", "fast"), "'fast' is no speed"),
    (("commit", "a/b", "--pivot", "--keep"), "one of --pivot and --keep"),
    (("copy", "a/b", "c", "--buffer", "1.5"), "'1.5' is no size"),
    (("copy", "a/b", "c", "--granularity", "4G"), "4G is too large"),
    (("resize", "a/b", "big"), "'big' is no size"),
    (("speed", "abc", "-"), "'-' is no speed"),
    (("wait", "abc", "--nothing"), "--nothing"),
    (("wait", "\udcff\udcfe"), r"'\xff\xfe' is not UTF-8"),
    (("copy", "a/b", "\udcff.qcow2"), r"'\xff.qcow2' is not UTF-8"),
])
def test_usage(service, words, said):
    done = ctl(*words, status=status.USAGE)
    assert said in done.err and done.out == ""


@pytest.mark.parametrize("words, said", [
    (("commit", "nobody/vda"), ("NoSuchDomain: ", "'nobody'", "blockjobctl list")),
    (("commit", "MACHINE/vdz"), ("vdz",)),
    (("commit", "MACHINE/vda", "--base", "/no/such.qcow2"), ("NoSuchImage: ", "/no/such.qcow2", "node:NAME")),
    (("commit", "MACHINE/vda", "--base", "7"), ("NoSuchImage: ", "[7]")),
    (("commit", "MACHINE/vda", "--on-error", "panic"), ("InvalidArgument: ", "on-error", "panic")),
    (("commit", "MACHINE/vda", "--top", "0"), ("InvalidArgument: ", "active")),
    (("copy", "MACHINE/vda", "DISK"), ("InvalidArgument: ",)),
    (("backup", "MACHINE/vda", "OTHER"), ("Exists: ", "--reuse")),
    (("resize", "MACHINE/vda", "1M"), ("InvalidArgument: ", "shrink")),
    (("wait", "abc"), ("NoSuchJob: ", "blockjobctl jobs")),
    (("pivot", "MACHINE/vda"), ("no job runs on",)),
])
def test_error(lab, words, said):
    """The service's own message, its name, and what to do."""
    machine, chain, disk = lab.standard()
    other = f"{lab.directory}/other.qcow2"
    images.run("qemu-img", "create", "-q", "-f", "qcow2", other, str(MIB))
    words = [word.replace("MACHINE", machine.name).replace("DISK", chain.top.path).replace("OTHER", other)
             for word in words]
    done = ctl(*words, status=status.ERROR)
    assert done.err.startswith("blockjobctl: ") and done.out == ""
    for part in said:
        assert part in done.err
    assert disk["Source"] == chain.top.path and disk["Job"] == "/"


def test_job_active(lab):
    machine, _, _ = lab.slow()
    job = ctl("commit", name_of(machine), "--speed", "64K").job
    done = ctl("pull", name_of(machine), status=status.ERROR)
    assert f"'{job}'" in done.err and "blockjobctl wait JOB" in done.err
    done = ctl("pivot", name_of(machine), status=status.ERROR)
    assert "NotReady" in done.err and "wait --ready" in done.err
    done = ctl("dismiss", job, status=status.ERROR)
    assert "InvalidState" in done.err
    ctl("abort", job, status=status.CANCELLED)
    ctl("abort", job, status=status.ERROR)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(lab, number):
    """Ctrl-C ends the waiting, not the job, which is found again by what is said."""
    machine, chain, disk = lab.slow()
    waiting = Running("commit", name_of(machine), "--speed", "64K", "--pivot", "--wait")
    job = running_job(lab, disk)
    waiting.wait_said("copying")
    waiting.interrupt(number)
    done = waiting.end(status.INTERRUPTED)
    assert f"job {job['Id']} runs on" in done.err
    assert f"blockjobctl wait {job['Id']}\n" in done.err and f"blockjobctl abort {job['Id']}\n" in done.err
    assert job["State"] == "running"
    ctl("speed", job["Id"], "0")
    ctl("wait", job["Id"], status=status.DONE)
    assert disk["Source"] == chain.base.path


def test_interrupted_before_the_answer(lab):
    """The service hangs: what was asked for may go on, and that is said."""
    machine, chain, _ = lab.standard()
    target = f"{lab.directory}/copy.qcow2"
    lab.service.restart(wait_at="start")
    pid = lab.service.pid()
    waiting = Running("copy", name_of(machine), target, "--wait")
    lab.service.wait_stopped(pid)
    waiting.interrupt()
    done = waiting.end(status.INTERRUPTED)
    lab.service.resume(pid)
    assert "before the service had answered" in done.err and "blockjobctl jobs" in done.err
    job = Job(lab.client, lab.client.wait_property(lab.domain_of(machine).path, "Domain", "Jobs", bool)[0])
    job.wait_ready()
    job.abort()
