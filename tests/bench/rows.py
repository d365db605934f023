# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lines of the table: each is what the service takes, beside what could not be quicker (the floor: raw QMP, a
Ping) and beside the peer, libvirtd with libvirt-dbus, where it can do that."""

import argparse
import json
import math
import signal
import statistics
import sys


def percentile(values, percent):
    """The least of the sorted values that so many of all are not above."""
    return values[math.ceil(percent * len(values) / 100) - 1]


def spread(values):
    values = sorted(values)
    return {"median": statistics.median(values), "min": values[0], "max": values[-1],
            "p90": percentile(values, 90), "p99": percentile(values, 99), "rounds": len(values)}


def beside(name, values, others):
    """What else was measured; the ratio is the median of those of the pairs, if it was measured in turns."""
    if not others:
        return None
    pairs = len(values) == len(others)
    ratio = statistics.median([a / b for a, b in zip(values, others)] if pairs else values) / (
        1 if pairs else statistics.median(others))
    return {"name": name, "ratio": ratio} | spread(others)


def row(name, values, unit="ms", floor=(None, None), peer=None, goal=""):
    """floor: its name and values."""
    return {"name": name, "unit": unit, "blockjobd": spread(values), "floor": beside(*floor[:1], values, floor[1]),
            "peer": beside("libvirt-dbus", values, peer), "goal": goal}


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def shown(part, unit, goal):
    """In a cell: the median, and from the least to the ninth of ten; the p99 where the goal has one."""
    if part is None:
        return ""
    text = f"{number(part['median'])} {unit}".rstrip()
    if part["rounds"] == 1:
        return text
    last = f", p99 {number(part['p99'])}" if "p99" in goal else ""
    return f"{text} ({number(part['min'])}–{number(part['p90'])}{last})"


def ratio(part):
    return f"{number(part['ratio'])} ×" if part else ""


def table(rows):
    lines = ["| | blockjobd | floor | | libvirt-dbus | | goal |", "|---|---|---|---|---|---|---|"]
    for one in rows:
        floor, peer, goal = one["floor"], one["peer"], one["goal"]
        cell = lambda part: shown(part, one["unit"], goal)
        cells = [one["name"], cell(one["blockjobd"]), f"{cell(floor)}, {floor['name']}" if floor else "", ratio(floor),
                 cell(peer), ratio(peer), goal]
        lines.append(f"| {' | '.join(cells)} |".replace("  ", " "))
    return "\n".join(lines) + "\n"


def main(measure, usage):
    """A program of its own: measure(quick) gives the rows."""
    parser = argparse.ArgumentParser(description=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it works")
    parser.add_argument("--json", metavar="FILE", help="the rows, as JSON")
    arguments = parser.parse_args()
    # An end as any other: images in memory do not stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    rows = list(measure(arguments.quick))
    sys.stdout.write(table(rows))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rows, file, indent=1)
