# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tables of docs/from-virsh.md: each option is one of its method, and each error comes where the table says so."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from contract.interfaces import NAMES, interface_file, names_of
from contract.interfaces import text as project_text

from kit import images
from kit.bus import BusError, options
from kit.caller import Caller, body
from kit.objects import Disk
from kit.pages import text
from kit.waiting import wait_until

PAGE = "docs/from-virsh.md"


def table(heading):
    """The rows under a heading, as lists of cells."""
    section = re.split(r"^#", text(PAGE).split(f" {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in section.splitlines()
            if line.startswith("|")]
    assert len(rows) > 3
    return rows[2:]


def documented_options(interface, method):
    """{name: type} of the options that the XML has for it."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    comment = ""
    for element in ElementTree.fromstring(project_text(interface_file(interface)), parser).iter():
        if element.tag is ElementTree.Comment:
            comment = element.text
        elif element.tag == "method" and element.get("name") == method:
            found = {}
            for names, signature in re.findall(r'((?:"[\w-]+", )*"[\w-]+") \((\w+)\)', comment):
                found |= dict.fromkeys(re.findall(r'"([\w-]+)"', names), signature)
            return found
    raise AssertionError(f"{interface} has no {method}")


@pytest.mark.parametrize("heading, method, left_out", [
    ("blockcommit: `Commit`", "Commit", set()),
    ("blockcopy: `Copy`", "Copy", {"force", "on-error"}),  # the latter is Commit's, which is referred to
    ("blockpull: `Pull`", "Pull", set()),
    ("snapshot-create-as: `Snapshot`", "Snapshot", {"force", "format"}),
])
def test_options_are_those_of_the_method(heading, method, left_out):
    there = documented_options("Disk", method)
    shown = {}
    for _, here, remarks in table(heading):
        shown |= dict(re.findall(r"`([\w-]+)` ([a-z])\b", f"{here} {remarks}"))
    shown.pop("async", None)  # that of Abort
    assert shown == {name: there.get(name) for name in shown}
    assert set(there) - set(shown) <= left_out


def test_members_are_there():
    """Everything that is written like a member of an interface is one."""
    members = {name for interface in NAMES for kind in ("method", "property", "signal")
               for name in names_of(interface, kind)}
    for heading in ("blockcommit: `Commit`", "blockjob: the methods and properties of a job", "Others"):
        for row in table(heading):
            for name in re.findall(r"`([A-Z][a-z]+[A-Za-z]*)`", row[1]):
                assert name in members, name


# Each row of the table of errors, by its first cell: what brings it about, given the lab of the test.

def active_flag(lab):
    _, _, disk = lab.standard()
    disk.commit()


def no_such_disk(lab):
    _, _, disk = lab.standard()
    Disk(lab.client, disk.path[:-3] + "vdz").commit(active=True)


def no_such_image(lab):
    _, _, disk = lab.standard()
    disk.commit(active=True, base="/nosuch.qcow2")


def busy(lab):
    _, _, disk = lab.slow()
    disk.commit(active=True, speed=images.KIB)
    disk.pull()


def not_ready(lab):
    _, _, disk = lab.slow()
    disk.commit(active=True, speed=images.KIB).pivot()


def not_active(lab):
    _, _, disk = lab.standard()
    job = disk.commit(auto="keep")
    job.wait_completed("kept")
    job.abort()


def not_running(lab):
    machine, _, disk = lab.standard()
    domain = lab.domain_of(machine)
    machine.quit()
    wait_until(lambda: domain["State"] == "shutoff", "the end of QEMU to be seen")
    disk.commit(active=True)


def target_exists(lab):
    _, chain, disk = lab.standard()
    path = f"{lab.directory}/there.qcow2"
    images.run("qemu-img", "create", "-q", "-f", "qcow2", path, str(chain.top.size))
    disk.copy(path)


def relative_of_the_active_layer(lab):
    _, _, disk = lab.standard()
    disk.commit(active=True, relative=True)


def base_of_another(lab):
    _, chain, disk = lab.standard()
    other = images.Chain(lab.directory, "other")
    other.layers, other.contents = chain.layers[:1], chain.contents[:1]
    other.add(unchecked=True)
    lab.attach(lab.machine().add_virtio(other).start())
    disk.commit(active=True)


def no_such_domain(lab):
    lab.manager.domain("nosuch")


def nobody_commits(lab, interactive):
    _, _, disk = lab.standard()
    caller = Caller("nobody")
    try:
        caller.call(disk.path, "Disk", "Commit", body(options({"active": True})), interactive=interactive)
    finally:
        caller.kill()


def denied(lab):
    """There is nobody to ask: no agent is registered."""
    nobody_commits(lab, interactive=True)


def question_not_allowed(lab):
    nobody_commits(lab, interactive=False)


PROVOKED = {
    "the active layer requires the active flag": active_flag,
    "the disk is not found in the domain": no_such_disk,
    "could not find the image in the chain": no_such_image,
    "already in an active block job": busy,
    "not ready for pivot yet": not_ready,
    "does not have an active block job": not_active,
    "domain is not running": not_running,
    "the target exists and is not a block device": target_exists,
    "can't keep the relative backing relationship": relative_of_the_active_layer,
    'failed to get "write" lock': base_of_another,
    "no domain with matching name": no_such_domain,
    "access denied": denied,
    "authentication is required": question_not_allowed,
}


def test_every_error_is_provoked():
    rows = {row[0]: row[1] for row in table("Errors")}
    assert {first for first, here in rows.items() if here} == set(PROVOKED)
    assert len(rows) == len(PROVOKED) + 2


@pytest.mark.parametrize("first", PROVOKED)
def test_errors(lab, first):
    here, = [row[1].strip("`") for row in table("Errors") if row[0] == first]
    with pytest.raises(BusError) as caught:
        PROVOKED[first](lab)
    assert caught.value.short == here
