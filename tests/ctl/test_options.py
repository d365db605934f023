# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever a method of the bus takes, the command takes; and it arrives there as it was meant."""

import os
import pwd
import re
import shutil

import pytest

from contract.interfaces import PROJECT
from kit import ctl as status
from kit import images
from kit.ctl import ctl, name_of
from kit.images import KIB, MIB
from kit.objects import Job

# Commands and their methods, with the options that go by other names.
METHODS = {"commit": "Commit", "copy": "Copy", "pull": "Pull", "backup": "Backup", "snapshot": "Snapshot",
           "resize": "Resize"}
OTHER_NAMES = {"auto": {"--pivot", "--keep"}}
OF_THE_COMMAND = {"--wait", "--open"}
OF_ALL = {"--json", "--quiet", "--host", "--machine", "--no-ask-password", "--no-pager", "--version", "--help"}


def options_of_the_bus(method):
    """As the rules of the service have them."""
    source = (PROJECT / "service/disk-bus.c").read_text()

    def keys(name):
        block = re.split(r"\.key = NULL|static ", source[source.index(name):])[0]
        return set(re.findall(r'"([a-z-]+)", \'[sbtu]\'', block))

    found = keys(f" {method.lower()}_rules[]")
    return found | keys("define COPY_RULES") if method == "Copy" else found


def options_of_the_command(command):
    return set(re.findall(r"(--[a-z-]+)", "\n".join(
        line.split("  ")[1] if line.startswith("  -") else "" for line in ctl(command, "--help").out.splitlines())))


@pytest.mark.parametrize("command", METHODS)
def test_all_of_the_bus(service, command):
    due = set()
    for key in options_of_the_bus(METHODS[command]):
        due |= OTHER_NAMES.get(key, {f"--{key}"})
    assert len(due) >= 2
    assert options_of_the_command(command) - OF_ALL - OF_THE_COMMAND == due


def test_options_arrive(lab):
    """The job says what the caller gave: types and units."""
    machine, _, _ = lab.slow()
    job = ctl("copy", name_of(machine), "copy.qcow2", "--shallow", "--mode", "write-blocking", "--speed", "64K",
              "--granularity", "8K", "--buffer", "1MiB", "--on-source-error", "stop", "--on-target-error=enospc",
              "--format", "qcow2", "--relative", cwd=lab.directory).job
    job = Job(lab.client, f"/org/blockjobd1/job/{job}")
    assert job["Options"] == {
        "shallow": True, "mode": "write-blocking", "speed": 64 * KIB, "granularity": 8 * KIB, "buffer": MIB,
        "on-source-error": "stop", "on-target-error": "enospc", "format": "qcow2", "relative": True}
    # a name as it is seen from here
    assert job["Target"] == f"{lab.directory}/copy.qcow2"
    job.abort()


@pytest.mark.parametrize("base, top", [
    ("0", None), ("[0]", "vda[2]"), ("disk-0.qcow2", "disk-1.qcow2"), ("/disk-0.qcow2", "[2]"), ("node:0", "node:1")])
def test_names_of_layers(lab, base, top):
    """By depth, by file, by node. Layers count from the top, files here from the bottom."""
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    nodes = {layer["source"]: layer["node-name"] for layer in disk["Chain"]}
    base = {"0": "3", "[0]": "[3]"}.get(base, base)
    base = base.replace("/disk", f"{lab.directory}/disk").replace("node:0", "node:" + nodes[chain.base.path])
    words = ["--base", base]
    if top:
        words += ["--top", top.replace("node:1", "node:" + nodes[chain.layers[1].path])]
    done = ctl("commit", name_of(machine), *words, "--wait", cwd=lab.directory)
    if not top:
        ctl("pivot", name_of(machine))
        assert disk.sources() == [chain.base.path]
        return
    assert disk.sources() == [layer.path for layer in reversed([chain.base, *chain.layers[2:]])]
    assert f"The disk is still {chain.top.path}.\n" in done.out
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


@pytest.mark.parametrize("written, bytes_per_second, shown", [
    ("0", 0, "no limit"), ("512", 512, "512 B/s"), ("1K", KIB, "1 KiB/s"), ("1kib/s", KIB, "1 KiB/s"),
    ("1KB", 1000, "1000 B/s"), ("1.5M", 3 * MIB // 2, "1.5 MiB/s"), ("20 GB", 20 * 10**9, "18.6 GiB/s"),
    ("2T", 2 << 40, "2 TiB/s"), (str((1 << 63) - 1), (1 << 63) - 1, "8192 PiB/s")])
def test_units(lab, written, bytes_per_second, shown):
    machine, _, disk = lab.slow()
    job = disk.copy(f"{lab.directory}/copy.qcow2", speed=64 * KIB)
    job.pause()
    assert f", speed {shown}, " in ctl("speed", name_of(machine), written).out
    assert job["Speed"] == bytes_per_second
    job.abort()


@pytest.mark.parametrize("written", ["-1", "1.3", "1..5M", "M", "1X", "1MBit", str(1 << 63), "9000000T", "", "0x10", "1e3"])
def test_no_units(service, written):
    done = ctl("speed", "--", "abc", written, status=status.USAGE)
    assert f"'{written}' is no speed" in done.err


def test_pull(lab):
    chain = images.layers(lab.directory, 3)
    machine, _, disk = lab.standard(chain)
    done = ctl("pull", name_of(machine), "--base", chain.base.path, "--wait")
    assert f"{chain.top.path} holds itself what it showed of the layers below." in done.out
    assert disk.sources() == [chain.top.path, chain.base.path]
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


def test_snapshot_and_delete(lab):
    machine, chain, disk = lab.standard()
    done = ctl("snapshot", machine.name, "monday.qcow2", cwd=lab.directory)
    overlay = f"{lab.directory}/monday.qcow2"
    assert done.out.splitlines()[:3] == [
        f"snapshot of {name_of(machine)}: done", f"  {chain.top.path} stays as it is, below the new layer.",
        f"  The disk is now {overlay}."]
    assert disk["Source"] == overlay
    done = ctl("commit", machine.name, "--shallow", "--pivot", "--delete", "--wait")
    assert f"  {overlay} was merged into {chain.top.path} and removed.\n" in done.out
    assert disk["Source"] == chain.top.path


def test_resize(lab):
    machine, chain, disk = lab.standard()
    assert ctl("resize", machine.name, "64M").out.splitlines() == [
        f"resize of {name_of(machine)}: done", "  Its size was 32 MiB and is 64 MiB now.",
        f"  The disk is still {chain.top.path}."]
    assert disk["Capacity"] == 64 * MIB
    ctl("resize", machine.name, "32M", status=status.ERROR)
    ctl("resize", machine.name, "32M", "--shrink")
    assert disk["Capacity"] == 32 * MIB


def test_a_name_with_all_that_a_terminal_heeds(lab):
    """Names come out of files; what they would do to a terminal is not done, and a shell gets them quoted."""
    name = "od d'\033[31m{source}.qcow2"
    machine, _, _ = lab.standard()
    job = ctl("copy", name_of(machine), f"{lab.directory}/{name}", "--wait", "--keep", status=status.KEPT)
    assert "\033" not in job.out and f"{lab.directory}/od d'\\x1b[31m{{source}}.qcow2 is a consistent copy" in job.out


@pytest.mark.parametrize("command", ["copy", "backup"])
def test_a_target_of_ones_own(lab, command):
    """Who may start jobs but not write to paths opens the file himself."""
    machine, chain, disk = lab.standard()
    os.mkdir(f"{lab.directory}/mine")
    shutil.chown(f"{lab.directory}/mine", "nobody")
    target = f"{lab.directory}/mine/{command}.qcow2"
    more = ["--keep"] if command == "copy" else []
    ctl(command, name_of(machine), target, user="nobody", status=status.REFUSED)
    done = ctl(command, name_of(machine), target, "--open", "--wait", *more, user="nobody",
               status=status.KEPT if command == "copy" else status.DONE)
    assert target in done.out and os.stat(target).st_uid == pwd.getpwnam("nobody").pw_uid
    # a file that is there is not written over
    done = ctl(command, name_of(machine), target, "--open", user="nobody", status=status.ERROR)
    assert f"cannot open '{target}': File exists" in done.err
    machine.quit()
    images.assert_contents(images.Layer(target, "qcow2", images.SIZE), chain.contents[-1])


def test_a_target_of_ones_own_that_is_refused(lab):
    """Nothing is left behind; --reuse is for paths."""
    machine, _, _ = lab.standard()
    target = f"{lab.directory}/copy.qcow2"
    done = ctl("copy", name_of(machine), target, "--open", "--reuse", status=status.ERROR)
    assert "InvalidArgument: " in done.err and "reuse" in done.err
    assert not os.path.exists(target)
    ctl("copy", name_of(machine), target, "--open", user="daemon", status=status.ERROR)
    ctl("copy", name_of(machine), target, "--open", "--machine", ".host", status=status.USAGE)


def test_a_directory_that_is_not_utf8(lab):
    """Its name cannot be told to the service, which says what is wrong with the rest."""
    machine, _, _ = lab.standard()
    directory = f"{lab.directory}/\udcff"
    os.mkdir(directory)
    done = ctl("snapshot", name_of(machine), "monday.qcow2", status=status.ERROR, cwd=directory)
    assert "InvalidArgument: " in done.err and "'monday.qcow2'" in done.err
    done = ctl("inspect", "monday.qcow2", status=status.ERROR, cwd=directory)
    assert "InvalidArgument: " in done.err and "'monday.qcow2'" in done.err
