# SPDX-License-Identifier: LGPL-2.1-or-later
"""The benchmark measures what docs/performance.md shows; its figures are no matter here, where other things run."""

import json
import re
import runpy
import subprocess

from kit.pages import PROJECT


def names_of(page):
    lines = page.partition("<!-- measured -->")[2].partition("<!-- end of what is measured -->")[0].splitlines()
    return [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")][1:]


def without_counts(names):
    """Of fewer domains and jobs, the quick form has the same."""
    return {re.sub(r"[\d,]+ (domain|job|finished job)s?( \([\d,]+ fake\))?", r"some \1s", name) for name in names}


def test_quick_form(tmp_path):
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text("before\n<!-- measured -->\nold\n<!-- end of what is measured -->\nbehind\n")
    subprocess.run([PROJECT / "tests/bench/run", "--quick", "--json", figures, "--page", page], check=True,
                   stdout=subprocess.DEVNULL, timeout=300)
    rows = json.loads(figures.read_text())["rows"]
    assert [row["name"] for row in rows] == names_of(page.read_text())
    # The difference of two figures may be anything.
    assert all(row["blockjobd"]["median"] >= 0 or "further" in row["name"] for row in rows) and len(rows) > 12
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nbehind\n")
    shown = [name for name in names_of((PROJECT / "docs/performance.md").read_text()) if "instructions" not in name]
    assert without_counts(shown) == without_counts(row["name"] for row in rows)
    # All that the picture shows is there; gnuplot may not be.
    plot = runpy.run_path(str(PROJECT / "tests/bench/plot"))
    script = plot["script"](plot["growth"](rows))
    assert script.count("linespoints") == sum(len(lines) for *_, lines in plot["PANELS"])
