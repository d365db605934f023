# SPDX-License-Identifier: LGPL-2.1-or-later
"""The benchmark measures what docs/performance.md shows; its figures are no matter here, where other things run."""

import json
import re
import subprocess

from kit.pages import PROJECT


def names_of(page):
    lines = page.partition("<!-- measured -->")[2].splitlines()
    return [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")][1:]


def test_quick_form(tmp_path):
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text("before\n<!-- measured -->\nold\n<!-- end of what is measured -->\nbehind\n")
    subprocess.run([PROJECT / "tests/bench/run", "--quick", "--json", figures, "--page", page], check=True,
                   stdout=subprocess.DEVNULL, timeout=300)
    rows = json.loads(figures.read_text())["rows"]
    assert [row["name"] for row in rows] == names_of(page.read_text())
    assert all(row["blockjobd"]["median"] >= 0 for row in rows) and len(rows) > 12
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nbehind\n")
    shown = names_of((PROJECT / "docs/performance.md").read_text())
    without_count = lambda names: {re.sub(r"^[\d,]+ domains?( \([\d,]+ fake\))?: ", "", name) for name in names}
    assert without_count(shown) == without_count(row["name"] for row in rows)
