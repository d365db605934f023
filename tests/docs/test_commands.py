# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every command in README, the pages and the examples of manual pages is run, as a reader types them.

The rule: the fenced blocks of a document run one after the other in one shell, in a directory that looks like that of
the project, as root, on the bus of tests/with-service. A block of the language "sh" has to succeed as a whole. In a
block of the language "console" each command begins with "$ " or "# ", and what stands under it is what it has to print,
where "…" is anything; it may fail where the document shows how. Blocks of other languages are no commands. The
section EXAMPLES of a manual page is such a "console".
"""

import os
import re
import select
import signal
import subprocess
import time

import pytest

from kit import images
from kit.bus import BusError
from kit.objects import Domain
from kit.pages import blocks, documents, manuals, matches, steps, text
from kit.qemu import Machine
from kit.waiting import wait_until

# What cannot be run here: the document, the block as it is written there, why not, and what runs it instead.
ELSEWHERE = [
    ("README.md", "sudo ./demo      # see it work: a live commit with a pivot, and the proof; under 2 minutes\n"
                  "sudo ./check     # build it and run its tests\n",
     "it would run itself", "the suite demo; ./check --fresh runs both in a new Debian"),
    ("README.md", "tests/tools/install-packages build package\n"
                  "tests/tools/build-package /tmp/blockjobd\n"
                  "apt-get install /tmp/blockjobd/blockjobd_*.deb\n",
     "it would change this machine", "tests/package builds the package"),
    ("README.md", "tests/tools/install-packages build run\n"
                  "meson setup build --prefix=/usr\n"
                  "meson install -C build\n"
                  "systemd-sysusers && systemd-tmpfiles --create\n"
                  "systemctl daemon-reload\n"
                  "systemctl reload dbus\n",
     "it would change this machine, which may have no systemd",
     "./check and ./check --fresh install the packages and build; tests/docs installs below a directory of its own"),
    ("docs/performance.md", "sudo ./check --bench\n",
     "nothing else may run on the machine meanwhile", "tests/load/test_performance.py runs the quick form"),
]

# What a block may be written in. Whatever else a document shows has the language "text".
COMMANDS = {"sh", "console"}
OTHERS = {"text", "bash", "c", "ini", "js", "json", "python", "xml"}

DEADLINE = 60.0  # of one step
END = "the end of a step:"


class Shell:
    """One bash, as a person would have it open while reading."""

    def __init__(self, directory):
        self.script = directory / ".step"
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
        self.process = subprocess.Popen(["bash", "--norc"], cwd=directory, env=environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)

    def run(self, command, may_fail):
        """What it prints, and its exit status."""
        self.script.write_text(command + "\n")
        line = f". {self.script} </dev/null; printf '\\n%s %d\\n' '{END}' $?\n"
        self.process.stdin.write((line if may_fail else f"set -e; {line}set +e\n").encode())
        self.process.stdin.flush()
        output, deadline = b"", time.monotonic() + DEADLINE
        while not re.search(rb"\n" + END.encode() + rb" \d+\n$", output):
            assert select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0], \
                f"not within {DEADLINE:g} s:\n{command}\n{output.decode()}"
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, f"failed:\n{command}\n{output.decode()}"
            output += more
        said, _, status = output.decode().rpartition(END)
        return said.removesuffix("\n"), int(status)

    def close(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def shell(desk):
    shell = Shell(desk)
    yield shell
    shell.close()


def processes_of(place):
    """Those of this namespace that have files of that place on their command line."""
    found, here = [], os.readlink("/proc/self/ns/mnt")
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                if f"{place}/".encode() in file.read() and os.readlink(f"/proc/{entry}/ns/mnt") == here:
                    found.append(int(entry))
        except OSError:
            continue
    return found


@pytest.fixture
def reader(lab, place, interfaces):
    """Leaves neither machines nor domains of the document behind."""
    yield lab
    for path in lab.manager["Domains"]:
        domain = Domain(lab.client, path)
        for member in ("Destroy", "Undefine") if domain["Persistent"] else ():
            try:
                domain.call(member, "(a{sv})", {})
            except BusError:
                pass  # not running
    for pid in processes_of(place):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes_of(place), "the end of the machines")
    for path in lab.manager["Domains"]:
        domain = Domain(lab.client, path)
        wait_until(lambda: domain["State"] not in ("running", "paused") and not domain["Jobs"], f"the end of {path}")
        domain.detach(force=True)


# What a document begins with, where that is more than nothing.

def machine_with(lab, place, names, attach):
    """The machine web, with a disk vda of these images in /srv/vm, the base first."""
    os.makedirs(f"{place}/vm")
    chain = images.Chain(f"{place}/vm")
    for number, name in enumerate(names):
        chain.add(images.stripes(number + 1, start=number * images.MIB), file_name=f"{name}.qcow2")
    machine = Machine(f"{place}/vm", "web").add_virtio(chain)
    machine.monitor_path = f"{place}/vm/web.qmp"
    lab.machines.append(machine.start())
    if attach:
        lab.attach(machine)


# Which images, and whether the machine is attached already.
PREPARED = {
    "docs/blockjobctl.1": (["base", "mid", "overlay"], True),
    "docs/blockjobd.8": (["base", "overlay"], False),
    "docs/from-virsh.md": (["base", "mid", "overlay"], True),
    "docs/programs.md": (["base"], True),
    "docs/restartable-commit.md": (["base", "mid2", "mid1", "top", "act"], True),
}


@pytest.mark.parametrize("name", documents() + manuals())
def test_the_commands_do_what_the_document_says(name, reader, place, shell):
    if name in PREPARED:
        machine_with(reader, place, *PREPARED[name])
    assert list(steps(name)) or name.endswith(".md")
    elsewhere = [block for document, block, _, _ in ELSEWHERE if document == name]
    for step in steps(name):
        if step.output is None and step.command in elsewhere:
            continue
        output, status = shell.run(step.command, may_fail=step.output is not None)
        where = f"{name}:{step.line}: {step.command}"
        if step.output is not None:
            assert matches(output, step.output), f"{where}\nprints\n{output}\nand not\n{step.output}"
            assert status == 0 or step.output, f"{where}: exit status {status}"


def test_what_is_run_elsewhere_stands_in_the_documents():
    for name, command, reason, instead in ELSEWHERE:
        assert command in [block.text for block in blocks(name)], f"{name} has no block {command!r} any more"
        assert reason and instead


@pytest.mark.parametrize("name", documents())
def test_every_block_says_what_it_is(name):
    """So that no command is overlooked: it is in a fenced block, and those are all known."""
    page = text(name)
    for block in blocks(name):
        assert block.language in COMMANDS | OTHERS, f"{name}:{block.line}: a block of '{block.language}'"
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    assert "```" not in prose, f"{name}: a fence that is not closed"
    indented = re.findall(r"(?<=\n\n)    \S.*", prose)
    assert not indented, f"{name}: not in a fenced block: {indented}"


@pytest.mark.parametrize("output, expected, right", [
    ("one\n", "one", True),
    ("one  \n", "one", True),
    ("one\ntwo\n", "one", False),
    ("", "one", False),
    ("o \"x\"\n", "o \"…\"", True),
    ("o \"x\"\nmore\n", "o \"…\"", False),
    ("a\nb\nc\nd\n", "a\n…\nd", True),
    ("a\nd\n", "a\n…\nd", True),
    ("a\nb\n", "a\n…\nd", False),
    ("", "", True),
])
def test_the_comparison(output, expected, right):
    assert matches(output, expected) == right
