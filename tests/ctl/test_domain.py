# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands that bring domains, start and stop them, and let them go."""

import subprocess

import pytest

from kit import ctl as status
from kit import images
from kit.ctl import command, ctl, environment
from kit.own import disk_xml, domain_xml


@pytest.fixture
def definition(lab, own):
    """(name, file)"""
    name = lab.unique_name()
    chain = own.give(images.two_layers(lab.directory))
    path = f"{lab.directory}/definition.xml"
    with open(path, "w") as file:
        file.write(domain_xml(name, disk_xml(chain.top.path)))
    return name, path


def test_attach_and_detach(lab):
    machine = lab.machine().add_virtio(images.slow_layers(lab.directory)).start()
    lab.attached.append(machine.name)
    said = ctl("attach", machine.name, machine.monitor_path.rpartition("/")[2], cwd=lab.directory).out
    assert said.startswith(f"domain {machine.name}: paused (prelaunch)\n  Next: blockjobctl show {machine.name}")
    disk = lab.domain_of(machine).disk("vda")
    disk.commit(active=True, speed=65536)
    assert "force" in ctl("detach", machine.name, status=status.ERROR).err
    assert ctl("detach", machine.name, "--force").out == \
        f"domain {machine.name}: let go; its QEMU runs on, and so do jobs\n"
    assert machine.process.poll() is None
    assert ctl("attach", machine.name, machine.monitor_path, "--json").json["Name"] == machine.name


def test_life(lab, definition):
    name, path = definition
    assert ctl("define", path).out.startswith(f"domain {name}: shutoff\n")
    assert ctl("define", path, status=status.ERROR).err.startswith("blockjobctl: Exists")
    assert ctl("start", name, "--json").json["State"] == "running"
    assert ctl("suspend", name).out.startswith(f"domain {name}: paused\n")
    assert ctl("continue", name).out.startswith(f"domain {name}: running\n")
    assert ctl("stop", name, "--now").out.startswith(f"domain {name}: shutoff")
    assert ctl("undefine", name, "--json").json == name
    assert "NoSuchDomain" in ctl("start", name, status=status.ERROR).err


def test_standard_input(lab, definition):
    name, path = definition
    with open(path) as file:
        done = subprocess.run(command("create", "-"), stdin=file, env=environment(), stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"domain {name}: running")
    assert ctl("stop", name, "--now").out == f"domain {name}: ended, and gone\n"


def test_stop_asks_the_guest(lab, definition):
    """Which has nobody who listens: it goes on, and the call does not wait for it."""
    name, path = definition
    ctl("define", path)
    ctl("start", name)
    assert ctl("stop", name).out.startswith(f"domain {name}: running")
    ctl("stop", name, "--now", "--quiet")
    assert ctl("undefine", name, "--quiet").out == ""


def test_what_is_not_understood(lab, definition):
    name, path = definition
    with open(path) as file:
        text = file.read().replace("</devices>", "<toaster/></devices>")
    with open(path, "w") as file:
        file.write(text)
    assert "toaster" in ctl("define", path, status=status.ERROR).err
    ctl("define", path, "--lenient")
    ctl("undefine", name)
    assert "/nowhere" in ctl("define", "/nowhere", status=status.ERROR).err
    with open(path, "wb") as file:
        file.write(b"<domain>\xff")
    assert "UTF-8" in ctl("define", path, status=status.ERROR).err
    assert ctl("stop", status=status.USAGE).err.startswith("blockjobctl: stop takes DOMAIN")


def test_not_for_everybody(lab, definition):
    name, path = definition
    ctl("define", path)
    assert ctl("start", name, user="nobody", status=status.REFUSED).out == ""
    ctl("undefine", name)
