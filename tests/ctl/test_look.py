# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands that look: show, jobs, inspect, map, xml."""

import json
import os
import re
import subprocess

import pytest

from kit import ctl as status
from kit import images
from kit.ctl import ctl, environment
from kit.images import KIB, MIB
from kit.own import disk_xml, domain_xml
from kit.polkit import Agent
from kit.terminal import Terminal
from kit.waiting import DEADLINE


def test_show(lab):
    machine, chain, disk = lab.standard(images.layers(lab.directory, 3))
    lines = ctl("show", machine.name).out.splitlines()
    assert re.fullmatch(rf"{machine.name}  paused \(prelaunch\), attached, QEMU .*, process \d+", lines[0])
    assert lines[1] == "└─vda  32 MiB"
    for number, (line, layer) in enumerate(zip(lines[2:], reversed(chain.layers))):
        branch = "  └─" if number == 2 else "  ├─"
        assert line.startswith(f"{branch}[{number}] {layer.path}  {layer.format}, 32 MiB, ")
        assert line.endswith(", read-only") == (number > 0) and " allocated, node " in line
    assert len(lines) == 5
    assert ctl("show", f"{machine.name}/vda").out.splitlines() == lines


def test_show_names_a_job_and_users(lab, own):
    chain = images.slow_layers(lab.directory)
    machine, _, disk = lab.standard(chain)
    other = own.define(domain_xml(lab.unique_name(), disk_xml(chain.base.path)))
    job = disk.commit(active=True, force=True, speed=64 * KIB)
    lines = ctl("show", machine.name).out.splitlines()
    assert re.fullmatch(rf"└─vda  32 MiB, job {job['Id']}: active-commit, running, \d+ %", lines[1])
    assert lines[-1] == f"    └─also used by disk 'vda' of domain '{other['Name']}'"
    # who uses it is not for everybody, and nobody is asked for a password for that
    plain = ctl("show", machine.name, user="nobody").out
    assert "used by" not in plain and plain.endswith("  who else uses these is not known\n")


def test_show_asks_nobody_for_a_password(lab):
    """Not even where an agent stands by, as on a desktop."""
    machine, chain, _ = lab.standard()
    script = f"echo here; read go; exec blockjobctl show {machine.name}"
    process = subprocess.Popen(["setpriv", "--reuid=games", "--clear-groups", "--", "sh", "-c", script], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    assert process.stdout.readline() == "here\n"
    agent = Agent(process.pid)
    try:
        shown, _ = process.communicate("go\n", timeout=DEADLINE)
        assert chain.top.path in shown and process.returncode == 0 and not agent.questions
    finally:
        process.kill()
        process.wait()
        agent.close()


def test_show_says_what_is_stale(lab):
    chain = images.layers(lab.directory, 3)
    machine, _, disk = lab.standard(chain)
    path = f"{os.environ['BLOCKJOBD_IMAGES']}/{machine.name}.qcow2"
    images.run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", chain.base.path, "-F", "qcow2", path, "32M")
    disk.commit(top="[1]", base="[2]", force=True).wait_completed("completed")
    assert ctl("inspect", path).out.splitlines()[0].endswith(", stale")
    os.unlink(path)


def test_show_on_a_plain_terminal(lab):
    machine, _, _ = lab.standard()
    assert ctl("show", machine.name, LC_ALL="C").out.splitlines()[1].startswith("`-vda")


@pytest.mark.parametrize("width", [40, 80])
def test_show_in_a_terminal(lab, width):
    machine, chain, _ = lab.standard()
    screen = Terminal(lab.directory, width=width, SYSTEMD_PAGER="")
    try:
        screen.type(f"clear; blockjobctl show {machine.name}; blockjobctl map {machine.name}; echo status $?")
        seen = screen.wait("^status 0$")
        # a line of its own where there is no room behind the name, if there is room for that
        if width == 80:
            assert f"└─vda  32 MiB\n  ├─[0] {chain.top.path}\n  │     qcow2, 32 MiB, " in seen
            assert f"  └─[1] {chain.base.path}\n        qcow2, 32 MiB, " in seen
        assert "└─vda" in seen
        bar = next(line for line in seen.splitlines() if re.fullmatch(r"\[[01.]+\]", line))
        assert len(bar) == width
    finally:
        screen.close()


def test_show_in_a_wide_terminal(lab):
    machine, chain, _ = lab.standard()
    screen = Terminal(lab.directory, width=200, SYSTEMD_PAGER="")
    try:
        screen.type(f"clear; blockjobctl show {machine.name}; echo status $?")
        assert f"  ├─[0] {chain.top.path}  qcow2, 32 MiB, " in screen.wait("^status 0$")
    finally:
        screen.close()


def test_control_characters_of_a_name(lab):
    directory = f"{lab.directory}/a\x1b[2Jb"
    os.mkdir(directory)
    machine, _, _ = lab.standard(images.two_layers(directory))
    assert "\x1b" not in ctl("show", machine.name).out and r"a\x1b[2Jb" in ctl("show", machine.name).out
    assert "\x1b" not in ctl("map", machine.name, "--ranges").out


def test_show_what_is_not_there(lab):
    machine, _, _ = lab.standard()
    assert "no domain 'nobody'" in ctl("show", "nobody", status=status.ERROR).err
    assert ctl("show", f"{machine.name}/vdx", status=status.ERROR).err != ""


def test_jobs(lab):
    machine, chain, disk = lab.slow()
    first = disk.commit(auto="keep")
    first.wait_completed("kept")
    second = disk.commit(active=True, speed=64 * KIB)
    title, *rows = ctl("jobs", machine.name).out.splitlines()
    assert title.split() == ["JOB", "DISK", "TYPE", "STATE", "DONE", "STARTED", "TARGET"]
    assert [row.split()[:4] for row in rows] == [
        [first["Id"], f"{machine.name}/vda", "active-commit", "kept"],
        [second["Id"], f"{machine.name}/vda", "active-commit", "running"]]
    assert all(row.endswith(chain.base.path) for row in rows)
    assert [job["Id"] for job in ctl("jobs", machine.name, "--state", "running", "--json").json] == [second["Id"]]
    assert "state" in ctl("jobs", "--state", "sleepy", status=status.ERROR).err
    assert ctl("jobs", "nobody").out.count("\n") == 1


def test_inspect(lab, own):
    chain = images.two_layers(lab.directory)
    machine, _, _ = lab.standard(chain)
    lines = ctl("inspect", os.path.basename(chain.top.path), cwd=lab.directory).out.splitlines()
    assert lines[0].startswith(f"├─[0] {chain.top.path}  qcow2, 32 MiB, ")
    assert f"│ └─used by disk 'vda' of domain '{machine.name}'" in lines
    assert ctl("inspect", chain.top.path, "--json").json == json.loads(json.dumps(own.inspect(chain.top.path)))
    assert "/nowhere" in ctl("inspect", "/nowhere", status=status.ERROR).err
    assert ctl("inspect", chain.top.path, user="nobody", status=status.REFUSED).out == ""
    ctl("inspect", chain.base.path, "--format", "raw")


def test_map(lab):
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, 8 * MIB)])
    chain.add([(2, 16 * MIB, 8 * MIB)])
    machine, _, disk = lab.standard(chain)
    bar, *legend = ctl("map", machine.name).out.splitlines()
    assert bar == f"[{'1' * 16}{'.' * 16}{'0' * 16}{'.' * 16}]"
    assert [line.split() for line in legend] == [
        ["0", "8", "MiB", "[0]", chain.top.path], ["1", "8", "MiB", "[1]", chain.base.path],
        [".", "16", "MiB", *"in no layer, reads as zeros".split()]]
    rows = [line.split() for line in ctl("map", machine.name, "--ranges").out.splitlines()[1:]]
    assert rows == [["0", str(8 * MIB), "data", "[1]", chain.base.path], [str(8 * MIB), str(8 * MIB), "zeros"],
                    [str(16 * MIB), str(8 * MIB), "data", "[0]", chain.top.path], [str(24 * MIB), str(8 * MIB), "zeros"]]
    part = ctl("map", machine.name, "--offset", "16M", "--length", "8M")
    assert part.out.splitlines()[0] == f"[{'0' * 64}]"
    assert ctl("map", machine.name, "--json").json == [list(row) for row in disk.map()]
    assert "LimitExceeded" in ctl("map", machine.name, "--max-ranges", "1", status=status.ERROR).err
    assert "--offset" in ctl("map", machine.name, "--offset", "much", status=status.USAGE).err


def test_xml(lab, own):
    chain = own.give(images.two_layers(lab.directory))
    domain = own.define(domain_xml(lab.unique_name(), disk_xml(chain.top.path)))
    assert ctl("xml", domain["Name"]).out == domain.xml()
    assert ctl("xml", domain["Name"], "--inactive", "--json").json == domain.xml(inactive=True)
    machine, _, _ = lab.standard()
    assert "attached" in ctl("xml", machine.name, status=status.ERROR).err
