# SPDX-License-Identifier: LGPL-2.1-or-later
"""With --json each command prints what the bus says, and nothing else."""

import itertools
import json

from kit import ctl as status
from kit.ctl import Running, ctl, name_of


def test_jobs(lab):
    machine, chain, disk = lab.slow()
    started = ctl("commit", name_of(machine), "--speed", "64K", "--json=short")
    assert started.out.count("\n") == 1 and started.err == ""
    job = started.json["Id"]
    assert started.json["Type"] == "active-commit" and started.json["Target"] == chain.base.path
    assert started.json["Options"] == {"active": True, "speed": 65536}
    for words in (("pause", job), ("resume", job), ("speed", job, "1M"), ("speed", job, "0")):
        assert ctl(*words, "--json").json["Id"] == job
    ready = ctl("wait", "--ready", job, "--json")
    assert ready.json["Ready"] is True and ready.err == ""
    ended = ctl("abort", job, "--json", status=status.KEPT)
    assert ended.json["Result"] == "kept" and ended.json["Error"] == ["", ""]
    # the same as the bus has, value by value
    assert ended.json == json.loads(json.dumps(lab.manager.job(job).all()))
    assert ctl("dismiss", job, "--json").json == [job]


def test_disks(lab):
    machine, chain, disk = lab.standard()
    overlay = f"{lab.directory}/monday.qcow2"
    assert ctl("snapshot", machine.name, overlay, "--json").json["Source"] == overlay
    assert ctl("resize", machine.name, "64M", "--json").json == json.loads(json.dumps(disk.all()))


def test_off(lab):
    machine, _, _ = lab.standard()
    assert "The disk is" in ctl("resize", machine.name, "64M", "--json=off").out
    ctl("resize", machine.name, "64M", "--json=yaml", status=status.USAGE)


def test_quiet(lab):
    machine, _, _ = lab.standard()
    done = ctl("commit", machine.name, "--wait", "--pivot", "--quiet")
    assert done.out == done.err == ""


def monitor(machine, *words):
    """One that is known to listen: it has told of something."""
    running = Running("monitor", *words)
    sizes = itertools.cycle(("64M", "32M"))
    while not running.text("out"):
        assert running.process.poll() is None, running.text("err")
        ctl("resize", machine.name, next(sizes), "--shrink")
    return running


def test_monitor(lab):
    """Every signal that a job makes, in order, until Ctrl-C."""
    machine, chain, _ = lab.standard()
    objects, lines = monitor(machine, "--json=short"), monitor(machine)
    job = ctl("commit", machine.name, "--pivot", "--wait", "--json").json
    for running in (objects, lines):
        running.wait_said("Completed", "out")
        running.interrupt()
    heard = [json.loads(line) for line in objects.end(status.DONE).out.splitlines()]
    path = f"/org/blockjobd1/job/{job['Id']}"
    mine = [signal for signal in heard if signal["Path"] == path]
    assert [signal["Member"] for signal in mine if signal["Member"] != "PropertiesChanged"] == ["Ready", "Completed"]
    assert mine[-1]["Arguments"] == ["completed", "", ""] and mine[-1]["Interface"] == "org.blockjobd1.Job"
    assert [job["Id"], path] in [signal["Arguments"] for signal in heard if signal["Member"] == "JobNew"]
    text = lines.end(status.DONE).out
    assert f"  job {job['Id']}  Completed completed '' ''\n" in text
    assert f"Source={chain.base.path}" in text


def test_monitor_and_a_restart(lab):
    machine, _, _ = lab.standard()
    running = monitor(machine)
    lab.service.kill()
    running.wait_said("the service has gone", "out")
    lab.service.start()
    running.wait_said("the service is there", "out")
    running.interrupt()
    running.end(status.DONE)
