# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manual page has each command, option and exit status, and no others. tests/docs runs its examples."""

import re

import pytest

from contract.interfaces import PROJECT
from kit.ctl import ctl

PAGE = PROJECT / "docs/blockjobctl.1"


def without_macros(text):
    """Fonts and escapes away; a bracket of a macro's argument stands as it is printed."""
    text = re.sub(r"\\f[BIPR]", "", text).replace("\\-", "-").replace("...", "…")
    return text.replace('" "', " ").replace('"', "")


def sections(text, macro):
    """title -> text, of .SH or .SS"""
    parts = re.split(rf"^\.{macro} (.*)\n", text, flags=re.MULTILINE)[1:]
    return {without_macros(title).strip('"'): body for title, body in zip(parts[::2], parts[1::2])}


def options_in(text):
    """What stands as the tag of a paragraph."""
    return set(re.findall(r"(--[a-z-]+)", "\n".join(
        without_macros(line) for line in re.findall(r"^\.TP\n(.*)$", text, re.MULTILINE))))


def options_of(help_text):
    return set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", help_text, re.MULTILINE))


@pytest.fixture(scope="module")
def page():
    return sections(PAGE.read_text(), "SH")


@pytest.fixture(scope="module")
def commands():
    """Each line of the list in --help, without what the command does."""
    listed = ctl("--help").out.partition("Commands:\n")[2].partition("\n\nblockjobctl COMMAND")[0]
    return [re.split(r"  +| (?=[A-Z][a-z])", line.strip())[0] for line in listed.splitlines() if line]


def test_commands(page, commands):
    assert len(commands) > 15
    assert list(sections(page["COMMANDS"], "SS")) == commands


def test_options_of_each_command(page, commands):
    everywhere = options_of(ctl("--help").out)
    assert options_in(page["OPTIONS"]) == everywhere and len(everywhere) == 8
    for title, text in sections(page["COMMANDS"], "SS").items():
        own = options_of(ctl(title.split()[0], "--help").out) - everywhere
        assert options_in(text) == own, title


def test_exit_statuses(page):
    listed = re.findall(r"^\.B (\d+)$", page["EXIT STATUS"], re.MULTILINE)
    in_source = re.findall(r"STATUS_\w+ = (\d+)", (PROJECT / "ctl/client.h").read_text())
    assert listed == in_source and len(listed) == 11
