# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is seen in a real terminal: the bar, colours, the question for a password."""

import re

import pytest

from kit import ctl as status
from kit.ctl import ctl
from kit.terminal import Terminal

GREEN = "\033[32m"


@pytest.fixture
def terminal(lab):
    terminals = []

    def make(**keywords):
        terminals.append(Terminal(lab.directory, **keywords))
        return terminals[-1]

    yield make
    for terminal in terminals:
        terminal.close()


def commit(machine, *words):
    return " ".join(["blockjobctl", "commit", f"{machine.name}/vda", "--speed", "64K", *words]) + "; echo status $?"


def bar(machine):
    return rf"^commit {machine.name}/vda (█+░+|░+) +(\d+)% "


def test_bar(lab, terminal):
    """One line, drawn over and over, and gone at the end."""
    machine, chain, disk = lab.slow()
    screen = terminal(width=130)
    screen.type(commit(machine, "--pivot", "--wait"))
    seen = screen.wait(bar(machine) + r".*[\d.]+ KiB of 1 MiB, [\d.]+ KiB/s, \d+ s left, phase 1 of 2: copying$")
    assert len(re.findall("^commit ", seen, re.MULTILINE)) == 1
    assert GREEN + "█" in screen.screen(colours=True)
    ctl("speed", machine.name + "/vda", "0")
    seen = screen.wait("^status 0$")
    assert "█" not in seen and f"The disk is now {chain.base.path}." in seen
    assert re.search(rf"^commit of {machine.name}/vda, job [a-z0-9]+: completed after ", seen, re.MULTILINE)


@pytest.mark.parametrize("width, drawn", [(90, True), (50, False), (30, False)])
def test_narrow(lab, terminal, width, drawn):
    """A line that were too long would wrap and could not be drawn over."""
    machine, chain, disk = lab.slow()
    screen = terminal(width=width)
    screen.type("clear; " + commit(machine, "--pivot", "--wait"))
    screen.wait(rf"^commit {machine.name}")
    job = disk["Job"].rpartition("/")[2]
    for _ in range(3):
        ctl("pause", job)
        ctl("resume", job)
    seen = screen.screen()
    assert len(re.findall("^commit ", seen, re.MULTILINE)) == 1, seen
    assert [line for line in seen.splitlines() if line] == [line for line in seen.splitlines() if "commit " in line]
    assert ("░" in seen) == drawn
    # and not by what the terminal itself shows
    screen.press("C-c")
    seen = screen.wait(f"status {status.INTERRUPTED}$")
    assert f"commit {machine.name}/vda " not in seen, seen
    ctl("abort", job, status=status.CANCELLED)


def test_phases(lab, terminal):
    machine, _, _ = lab.slow()
    screen = terminal(width=130)
    job = ctl("commit", machine.name, "--speed", "64K").job
    screen.type(f"blockjobctl wait {job}; echo status $?")
    screen.wait("phase 1 of 2: copying$")
    ctl("pause", job)
    screen.wait("paused$")
    ctl("resume", job)
    ctl("speed", job, "0")
    seen = screen.wait("phase 2 of 2: ready, writes reach both images$")
    assert "100%" in seen
    ctl("abort", job, status=status.KEPT)
    screen.wait(f"^status {status.KEPT}$")


def test_interrupt(lab, terminal):
    machine, _, disk = lab.slow()
    screen = terminal(width=130)
    screen.type(commit(machine, "--pivot", "--wait"))
    screen.wait(bar(machine))
    screen.press("C-c")
    seen = screen.wait(f"^status {status.INTERRUPTED}$")
    job = re.search(r"^blockjobctl: no longer waiting; job ([a-z0-9]+) runs on$", seen, re.MULTILINE).group(1)
    assert "█" not in seen and lab.manager.job(job)["State"] == "running"
    ctl("abort", job, status=status.CANCELLED)


@pytest.mark.parametrize("variables, coloured", [
    ({}, True), ({"NO_COLOR": "1"}, False), ({"SYSTEMD_COLORS": "0"}, False),
    ({"SYSTEMD_COLORS": "1", "NO_COLOR": "1"}, True)])
def test_colours(lab, terminal, variables, coloured):
    machine, _, _ = lab.standard()
    screen = terminal(width=130, **variables)
    screen.type(f"blockjobctl commit {machine.name}/vda --pivot --wait; echo status $?")
    screen.wait("^status 0$")
    assert (f": {GREEN}completed" in screen.screen(colours=True)) == coloured


def test_dumb(lab, terminal):
    """No cursor to move: lines, and no colour."""
    machine, _, _ = lab.slow()
    screen = terminal(width=130)
    screen.type("TERM=dumb " + commit(machine, "--keep", "--wait"))
    screen.wait(rf"^commit {machine.name}/vda: \d+%, .*copying$")
    assert "█" not in screen.screen() and GREEN not in screen.screen(colours=True)
    ctl("speed", machine.name + "/vda", "0")
    screen.wait(f"^status {status.KEPT}$")


def test_plain_characters(lab, terminal):
    """A locale without the blocks."""
    machine, _, _ = lab.slow()
    screen = terminal(width=130)
    screen.type("LC_ALL=C " + commit(machine, "--keep", "--wait"))
    screen.wait(rf"^commit {machine.name}/vda #+-+ +\d+% ")
    ctl("speed", machine.name + "/vda", "0")
    screen.wait(f"^status {status.KEPT}$")


def test_password(lab, terminal):
    """polkit's own agent asks; without a password there is no job, and the terminal is as it was."""
    machine, chain, disk = lab.standard()
    screen = terminal(width=130, user="games")
    screen.type(f"blockjobctl list; blockjobctl commit {machine.name}/vda --pivot; echo status $?")
    seen = screen.wait(r"^==== AUTHENTICATING FOR org\.blockjobd1\.start-job")
    # a look at the list needs nothing
    assert machine.name in seen[:seen.index("AUTHENTICATING")]
    screen.wait(r"^Password:")
    screen.type("wrong")
    screen.wait(f"^status {status.REFUSED}$", deadline=60)
    assert disk["Source"] == chain.top.path and lab.manager.jobs(domain=machine.name) == []
    screen.type("echo still $((1+1)) here")
    screen.wait("^still 2 here$")


def test_question_interrupted(lab, terminal):
    """The question is gone with the caller, nothing is done, and what is typed is seen again."""
    machine, _, _ = lab.standard()
    screen = terminal(width=130, user="games")
    screen.type(f"blockjobctl commit {machine.name}/vda --pivot; echo status $?")
    screen.wait(r"^Password:")
    screen.press("C-c")
    screen.wait(f"status {status.INTERRUPTED}$")
    screen.type("echo still $((1+1)) here")
    assert "echo still" in screen.wait("^still 2 here$")
    assert lab.manager.jobs(domain=machine.name) == []


def test_no_password_is_asked(lab, terminal):
    machine, _, _ = lab.standard()
    screen = terminal(width=130, user="games")
    screen.type(f"blockjobctl --no-ask-password commit {machine.name}/vda --pivot; echo status $?")
    seen = screen.wait(f"^status {status.REFUSED}$")
    assert "AUTHENTICATING" not in seen and "InteractiveAuthorizationRequired" in seen
