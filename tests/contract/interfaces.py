# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files of the contract, read into plain values that tests can compare."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PREFIX = "org.blockjobd1."
NAMES = ("Manager", "Domain", "Disk", "Job")
EMITS_CHANGED = "org.freedesktop.DBus.Property.EmitsChangedSignal"


def text(path):
    return (PROJECT / path).read_text(encoding="utf-8")


def sources(*folders, suffixes=(".c", ".h")):
    """Every file of the project's own code in these folders, as paths relative to the project."""
    return sorted(path.relative_to(PROJECT) for folder in folders for path in (PROJECT / folder).rglob("*")
                  if path.suffix in suffixes and path.is_file())


def arguments(element, default_direction):
    return [(item.get("name"), item.get("type"), item.get("direction", default_direction))
            for item in element.findall("arg")]


def annotations(element):
    """Without those for code generators, which only files carry and no service shows."""
    return {item.get("name"): item.get("value") for item in element.findall("annotation")
            if not item.get("name").startswith("org.qtproject.QtDBus.")}


def members(interface):
    """What a client sees of an interface: {("method", "Commit"): {...}, ...}."""
    found = {}
    for element in interface:
        if element.tag not in ("method", "signal", "property"):
            continue
        key = (element.tag, element.get("name"))
        assert key not in found, f"{key} stands twice in {interface.get('name')}"
        said = annotations(element)
        if element.tag == "property":
            # "true" is what the specification takes where nothing is said.
            said.setdefault(EMITS_CHANGED, "true")
            found[key] = {"type": element.get("type"), "access": element.get("access"), "annotations": said}
        else:
            direction = "in" if element.tag == "method" else "out"
            found[key] = {"arguments": arguments(element, direction), "annotations": said}
    return found


def interface_of(xml, name):
    for interface in ElementTree.fromstring(xml).findall("interface"):
        if interface.get("name") == PREFIX + name:
            return interface
    raise AssertionError(f"no interface {PREFIX}{name} here:\n{xml}")


def interface_file(name):
    return f"dbus/{PREFIX}{name}.xml"


def contract(name):
    return members(interface_of(text(interface_file(name)), name))


def names_of(name, kind):
    return {member for tag, member in contract(name) if tag == kind}


def policy_actions():
    """{action id: the element}, of the shipped policy file."""
    root = ElementTree.fromstring(text("policy/org.blockjobd1.policy"))
    return {action.get("id"): action for action in root.findall("action")}


def table_rows(path):
    """The rows X(one, two, ...) of a table in a C header; quotes are taken off."""
    code = re.sub(r"^\s*#\s*define\s+X\(.*$", "", text(path), flags=re.MULTILINE)
    rows = re.findall(r"\bX\(([^()]*,[^()]*)\)", code)
    return [tuple(item.strip().strip('"') for item in row.split(",")) for row in rows]
