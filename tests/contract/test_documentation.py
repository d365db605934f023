# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each member of the interfaces is documented where it stands, and so is each error."""

import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from contract.interfaces import NAMES, PREFIX, interface_file, names_of, policy_actions, table_rows, text
from gi.repository import Gio


def tree(name):
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    return ElementTree.fromstring(text(interface_file(name)), parser)


def with_comments(parent):
    """Pairs of each element in parent and the comment right before it."""
    comment = ""
    for child in parent:
        if child.tag is ElementTree.Comment:
            comment = child.text
        else:
            yield child, comment
            comment = ""


def documented(name):
    interface, = [child for child in tree(name) if child.tag == "interface"]
    return [(element, comment) for element, comment in with_comments(interface)]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_read_by_code_generators(name):
    node = Gio.DBusNodeInfo.new_for_xml(text(interface_file(name)))
    assert [interface.name for interface in node.interfaces] == [PREFIX + name]


@pytest.mark.parametrize("name", NAMES)
def test_the_interface_is_documented(name):
    (interface, comment), = list(with_comments(tree(name)))
    assert interface.get("name") == PREFIX + name
    assert comment.split()[0] == f"{PREFIX}{name}:"
    assert "@short_description:" in comment


@pytest.mark.parametrize("name", NAMES)
def test_every_member_is_documented(name):
    for element, comment in documented(name):
        member = element.get("name")
        assert comment.strip().startswith(f"{member}:"), f"{name}.{member} has no comment of its own"
        described = set(re.findall(r"^\s*@(\w+): \S", comment, re.MULTILINE))
        assert described == {argument.get("name") for argument in element.findall("arg")}, f"{name}.{member}"
        lines = [line for line in comment.strip().splitlines()[1:] if line.strip() and "@" not in line.split()[0]]
        assert lines, f"{name}.{member}: nothing is said about it"
        for argument in element.findall("arg"):
            assert argument.get("name"), f"{name}.{member}: an argument has no name"
            direction = {"method": ("in", "out"), "signal": (None,)}[element.tag]
            assert argument.get("direction") in direction, f"{name}.{member}: {argument.get('name')}"


@pytest.mark.parametrize("name", NAMES)
def test_every_method_names_its_errors(name):
    for element, comment in documented(name):
        if element.tag == "method":
            assert "Errors: " in comment, f"{name}.{element.get('name')}"


def test_every_error_is_documented():
    errors = [row[1] for row in table_rows("src/base/error.h")]
    assert len(errors) > 10
    (_, comment), = list(with_comments(tree("Manager")))
    for error in errors:
        assert re.search(rf"\b{error}\b[\w, ]*: ", comment), error
    for name in NAMES:
        for used in re.findall(r"org\.blockjobd1\.Error\.(\w+)", text(interface_file(name))):
            assert used in errors + ["NAME"], f"{used} in {name}"


def test_documentation_names_no_action_that_is_not_there():
    for name in NAMES:
        words = set(re.findall(r"org\.blockjobd1\.[a-z]+(?:-[a-z]+)+", text(interface_file(name))))
        assert words <= set(policy_actions()), name


def test_manual_page_has_the_options_of_the_daemon():
    said = subprocess.run(os.environ["BLOCKJOBD"] + " --help", shell=True, stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", said))
    page = text("docs/blockjobd.8").replace("\\-", "-")
    section = page.split(".SH OPTIONS\n")[1].split(".SH ")[0]
    assert options >= {"--state-dir", "--settle", "--version", "--help"}
    assert options == set(re.findall(r"^\.TP\n\.B[IR]? (--[a-z-]+)", section, re.MULTILINE))


def test_manual_page_names_the_interfaces():
    page = text("docs/blockjobd.8")
    for name in NAMES:
        assert f"{PREFIX}{name}" in page
        assert names_of(name, "property")


def test_manual_page_of_the_settings_has_each_with_its_default():
    page = text("docs/blockjobd.conf.5").replace("\\-", "-")
    section = ""
    for line in text("units/blockjobd.conf").splitlines():
        if line.startswith("["):
            section = page.split(f".SS {line}\n")[1].split(".S")[0]
        elif setting := re.match(r"#(\w+)=(.*)", line):
            name, usual = setting.groups()
            described = section.split(f".IR {name} =\n")[1].split(".TP")[0]
            assert f"Default: {usual}." in described, name
