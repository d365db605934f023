# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the shells offer: bash, zsh and fish themselves, with the files that are installed."""

import os
import shlex
import signal
import subprocess

import pytest

from contract.interfaces import PROJECT
from kit import images
from kit.ctl import ctl, environment
from kit.terminal import Terminal

FILES = PROJECT / "ctl/completion"


def offered(*words, **variables):
    return ctl("complete", *words, **variables).out.splitlines()


def bash(directory, line):
    script = (f". {FILES}/blockjobctl; COMP_LINE={shlex.quote(line)}; COMP_POINT={len(line)}; _blockjobctl\n"
              "printf '%s\\n' \"${COMPREPLY[@]}\"")
    return run(directory, "bash", "--norc", "-c", script)


def fish(directory, line):
    return run(directory, "fish", "--no-config", "-c",
               f"source {FILES}/blockjobctl.fish; complete -C {shlex.quote(line)}")


def run(directory, *command):
    done = subprocess.run(command, cwd=directory, env=environment(HOME=directory), stdout=subprocess.PIPE, text=True,
                          timeout=60, check=True)
    return [line.partition("\t")[0] for line in done.stdout.splitlines() if line]


@pytest.fixture(params=[bash, fish])
def shell(request, lab):
    return lambda line: request.param(lab.directory, line)


def test_commands(shell):
    assert {"commit", "continue", "copy", "create"} == set(shell("blockjobctl c")) - {"complete"}
    assert "show" in shell("blockjobctl ") and "complete" not in shell("blockjobctl ")


def test_options(shell):
    assert shell("blockjobctl commit --sh") == ["--shallow"]
    assert set(shell("blockjobctl --no-")) == {"--no-ask-password", "--no-pager"}
    assert "--json" in shell("blockjobctl list --")


def test_things(lab, shell):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=65536)
    identity = job["Id"]
    name = machine.name
    assert shell(f"blockjobctl start {name[:3]}") == [name]
    assert shell(f"blockjobctl commit {name}") == [f"{name}/vda"]
    assert set(shell(f"blockjobctl show {name}")) == {name, f"{name}/vda"}
    assert shell(f"blockjobctl pivot {identity[:6]}") == [identity]
    assert f"{name}/vda" in shell("blockjobctl abort ")
    assert chain.base.path in shell(f"blockjobctl commit {name}/vda --base {lab.directory}/disk-")
    assert shell("blockjobctl copy x/y /tmp/z --on-source-error r") == ["report"]
    assert f"{name}/vda" in shell("blockjobctl --json commit --speed=1M ")
    assert identity in shell(f"blockjobctl dismiss a b {identity[:4]}")
    job.abort()


def test_files(lab, shell):
    open(f"{lab.directory}/machine-definition.xml", "w").close()
    assert shell("blockjobctl define machine-d") == ["machine-definition.xml"]


def test_in_a_zsh(lab):
    machine, _, _ = lab.standard()
    home = f"{lab.directory}/home"
    os.makedirs(home)
    with open(f"{home}/.zshrc", "w") as file:
        file.write(f"fpath=({FILES} $fpath); autoload -Uz compinit && compinit -u -d {home}/dump; PS1='zsh$ '\n")
    screen = Terminal(lab.directory, HOME=home, ZDOTDIR=home)
    try:
        screen.type("clear; exec zsh -i")
        screen.wait(r"^zsh\$")
        screen.keys(f"blockjobctl comm\t{machine.name[:-1]}\t")
        screen.wait(rf"blockjobctl commit {machine.name}/vda")
        screen.keys("--shal\t")
        screen.wait(rf"commit {machine.name}/vda --shallow")
        screen.keys(f"--base={lab.directory}/\t")
        screen.wait(rf"--shallow --base={lab.directory}/disk-")
    finally:
        screen.close()


def test_in_a_bash(lab):
    machine, _, _ = lab.standard()
    screen = Terminal(lab.directory)
    try:
        screen.type("clear; PS1='bash$ ' exec bash --norc -i")
        screen.type(f". {FILES}/blockjobctl")
        screen.keys(f"blockjobctl comm\t{machine.name[:-1]}\t")
        screen.wait(rf"blockjobctl commit {machine.name}/vda")
        # a piece of a word, for bash
        screen.keys(f"--base={lab.directory}/\t")
        screen.wait(rf"/vda --base={lab.directory}/disk-")
        screen.press("C-c")
        open(f"{lab.directory}/one:two", "w").close()
        screen.keys(f"blockjobctl inspect --format=q\t{lab.directory}/one:\t")
        screen.wait(rf"blockjobctl inspect --format=qcow2 {lab.directory}/one:two")
    finally:
        screen.close()


def test_layers_by_number(lab):
    machine, chain, _ = lab.standard(images.layers(lab.directory, 3))
    assert set(offered("commit", f"{machine.name}/vda", "--top", "")) == {"[0]", "[1]", "[2]", *chain.paths()}
    assert offered("commit", "--top", "[1") == []


def test_behind_an_equals_sign(lab):
    machine, chain, _ = lab.standard()
    assert offered("commit", f"{machine.name}/vda", "--base=[") == ["--base=[0]", "--base=[1]"]
    assert offered("commit", f"{machine.name}/vda", f"--base={chain.base.path}") == [f"--base={chain.base.path}"]
    assert offered("commit", "--nonsense=") == offered("commit", "--shallow=") == []


@pytest.mark.parametrize("words", [
    ["--host=a", "start"], ["-Ha", "start"], ["-H", "a", "start"], ["--machine=a", "start"], ["start", "--host", "a"]])
def test_elsewhere_is_not_asked(lab, words):
    machine, _, _ = lab.standard()
    assert offered(*words, "") == []
    assert machine.name in offered("--json=short", "start", "")


def test_a_service_that_hangs(lab):
    """The key is answered soon, with nothing."""
    lab.standard()
    service = lab.service.pid()
    os.kill(service, signal.SIGSTOP)
    try:
        assert offered("start", "", deadline=15) == []
    finally:
        os.kill(service, signal.SIGCONT)


def test_nobody_is_asked_and_nothing_said(lab):
    """Without a service, on another host, for a user who may do nothing, with words that mean nothing."""
    machine, _, _ = lab.standard()
    assert offered("start", "", DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nowhere") == []
    assert offered("--host", "nowhere.invalid", "start", "") == []
    assert offered("start", machine.name[:3], user="nobody") == [machine.name]
    assert offered("commit", "a", "b", "c") == []
    assert "list" in offered("")
