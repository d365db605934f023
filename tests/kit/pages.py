# SPDX-License-Identifier: LGPL-2.1-or-later
"""The documents: their fenced blocks, and what in these is a command."""

import re
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    text: str
    line: int  # of its first line in the document


class Step(NamedTuple):
    """Something to type, and what is printed then; None where the document does not say."""

    command: str
    output: str
    line: int


def documents():
    """README and every page, by their names in the project."""
    return ["README.md"] + sorted(str(path.relative_to(PROJECT)) for path in PROJECT.glob("docs/*.md"))


def manuals():
    """The manual pages that are written by hand."""
    return ["docs/blockjobctl.1", "docs/blockjobd.8"]


def text(name):
    return (PROJECT / name).read_text(encoding="utf-8")


def from_roff(line):
    """A line of a manual page as it is read."""
    line = re.sub(r"^\.\w+ ?", "", line)
    line = re.sub(r"\\f[BIPR]|\\&", "", line)
    for written, read in (("\\(->", "->"), ("\\(aq", "'"), ("\\(ga", "`"), ("\\(ha", "^"), ("\\(ti", "~"), ("\\-", "-"),
                          ("\\e", "\\")):
        line = line.replace(written, read)
    return line


def examples(name):
    """Those of a manual page. What is in italics there is another thing each time."""
    page = text(name)
    start = page.index(".SH EXAMPLES\n")
    for found in re.finditer(r"^\.EX\n(.*?)^\.EE$", page[start:page.index("\n.SH ", start)], re.MULTILINE | re.DOTALL):
        lines = re.sub(r"\\fI.*?\\f[PR]", "…", found[1]).splitlines()
        yield Block("console", "\n".join(map(from_roff, lines)), page.count("\n", 0, start + found.start()) + 2)


def blocks(name):
    if not name.endswith(".md"):
        return list(examples(name))
    page = text(name)
    return [Block(found[1], found[2], page.count("\n", 0, found.start()) + 2) for found in FENCE.finditer(page)]


def console_steps(block):
    """A command begins with "$ " or "# ", as whom it is typed, and goes on behind a backslash or a "|"; what follows
    it is what it prints."""
    steps, lines = [], block.text.splitlines()
    number = 0
    while number < len(lines):
        first = number
        assert lines[number][:2] in ("$ ", "# "), f"line {block.line + number}: '{lines[number]}' follows no command"
        command = lines[number][2:]
        while command.endswith(("\\", "|")):
            number += 1
            command += "\n" + lines[number]
        number += 1
        output = []
        while number < len(lines) and lines[number][:2] not in ("$ ", "# "):
            output.append(lines[number])
            number += 1
        steps.append(Step(command, "\n".join(output), block.line + first))
    return steps


def steps(name):
    """Every step of a document in order: a block of "console" by its commands, a block of "sh" as a whole."""
    for block in blocks(name):
        if block.language == "console":
            yield from console_steps(block)
        elif block.language == "sh":
            yield Step(block.text, None, block.line)


def matches(output, expected):
    """Whether this was printed, "…" standing for anything within a line and, alone on one, for any lines."""
    pattern = ""
    for line in expected.splitlines():
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*?".join(re.escape(part) for part in line.split("…")) + r"\n"
    printed = "".join(line.rstrip() + "\n" for line in output.splitlines())
    return re.fullmatch(pattern, printed) is not None
