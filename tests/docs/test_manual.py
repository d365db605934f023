# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manual pages as they are installed, and that of the interfaces, which says all that their XML says."""

import os
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree

import pytest
from contract.interfaces import NAMES, PREFIX, contract, interface_file, text

from kit.pages import from_roff

from .conftest import found


@pytest.fixture(scope="session")
def pages(installed):
    """The path of each, by its name."""
    directory = found(installed, "share/man")
    return {name: os.path.join(path, name) for path, _, names in os.walk(directory) for name in names}


def output_of(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, "LC_ALL": "C.UTF-8"})
    return done.stdout


def complaints(path):
    """Of both formatters. That a page has no date is meant: a date says nothing of a page that is always current."""
    said = output_of("groff", "-man", "-Tutf8", "-ww", "-z", "-b", path).splitlines()
    said += [line for line in output_of("mandoc", "-T", "lint", "-W", "warning", path).splitlines()
             if "missing date" not in line]
    return said


def test_the_pages_are_there_and_clean(pages):
    assert {"blockjobctl.1", "blockjobd.8", "org.blockjobd1.5"} <= set(pages)
    for name, path in pages.items():
        assert complaints(path) == [], name


def test_a_page_that_is_not_clean_is_found():
    with tempfile.NamedTemporaryFile("w", suffix=".8") as page:
        for wrong in (".nosuchmacro\n", "\\fBbold\\fQ\n", ".TP\n"):
            page.seek(0)
            page.write(f'.TH WRONG 8 "" "wrong"\n.SH NAME\nwrong \\- this is not right\n{wrong}')
            page.truncate()
            page.flush()
            assert complaints(page.name), wrong


@pytest.fixture(scope="session")
def sections(pages):
    """{(interface, what, member): the lines under it}; what is said of the interface itself is its ("", "")."""
    sections, interface, lines = {}, None, []
    with open(pages["org.blockjobd1.5"], encoding="utf-8") as page:
        for line in page.read().splitlines():
            if line.startswith(".SH "):
                interface, lines = line.removeprefix(".SH "), []
                sections[interface, "", ""] = lines
            elif line.startswith(".SS "):
                member, _, what = line.removeprefix(".SS ").partition(", ")
                lines = []
                sections[interface, what, member] = lines
            else:
                lines.append(line)
    return sections


def test_the_page_of_the_interfaces_has_every_member(sections):
    for name in NAMES:
        written = {(what, member) for interface, what, member in sections if interface == PREFIX + name and member}
        assert written == set(contract(name)), name


def words(lines):
    return re.findall(r"\w+", " ".join(lines))


def test_the_page_gives_every_signature(sections):
    for name in NAMES:
        for (what, member), found_there in contract(name).items():
            shown = words([from_roff(sections[PREFIX + name, what, member][0])])
            if what == "property":
                expected = [member, *words([found_there["type"]])]
                assert shown[:len(expected)] == expected
                continue
            expected = [member]
            for direction in ("in", "out"):
                for argument, signature, its in found_there["arguments"]:
                    expected += [*words([signature]), argument] if its == direction else []
            assert shown == expected, f"{name}.{member}"


def test_the_page_says_every_word_of_the_xml(sections):
    for name in NAMES:
        parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
        comment = ""
        for element in ElementTree.fromstring(text(interface_file(name)), parser).iter():
            if element.tag is ElementTree.Comment:
                comment = element.text
            elif element.tag in ("method", "property", "signal", "interface"):
                key = ("", "") if element.tag == "interface" else (element.tag, element.get("name"))
                member = key[1]
                lines = sections[PREFIX + name, *key]
                said = words(map(from_roff, lines if not member else lines[1:]))
                expected = words(re.sub(r"@short_description:|^\s*\S+:", "", comment, count=1 if member else 2)
                                 .splitlines())
                assert said == expected, f"{name}.{member}"
                comment = ""


def test_the_page_is_read_by_man(pages):
    """As people read it: a title, its sections, and no character that cannot be typed again."""
    read = output_of("groff", "-man", "-Tutf8", "-P-cbou", pages["org.blockjobd1.5"])
    for heading in ("NAME", "SYNOPSIS", "org.blockjobd1.Disk", "SEE ALSO"):
        assert f"\n{heading}\n" in read
    assert '"on-error" (s)' in read and "a{sv}" in read
    assert not set("‐−’‘“”") & set(read)
