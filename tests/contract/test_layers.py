# SPDX-License-Identifier: LGPL-2.1-or-later
"""The house: what may be used where, so that each part can be read without the others."""

import re

import pytest
from contract.interfaces import PROJECT, sources, text

# A folder of the engine may use itself and those of a lower number.
FLOORS = {"base": 0, "qmp": 1, "nbd": 1, "journal": 1, "graph": 2, "image": 2, "job": 3, "domain": 4}
LINES_MAX = 600
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)


def includes(path):
    """Pairs of the kind of quotes and the name, as written."""
    return INCLUDE.findall(text(path))


def including(folders, part):
    return {str(path) for path in sources(*folders) if any(name.startswith(part) for _, name in includes(path))}


def folders():
    return [name for name in ("src", "service", "ctl") if (PROJECT / name).is_dir()]


def test_there_is_something_to_look_at():
    assert len(sources("src")) > 10 and len(sources("service")) > 5


def test_the_bus_is_only_in_the_service_and_its_client():
    assert not including(["src"], "systemd/"), "the engine knows nothing of D-Bus or the journal"
    assert all(path.startswith(("service/", "ctl/")) for path in including(folders(), "systemd/sd-bus"))


def test_polkit_is_in_one_file():
    assert including(folders(), "polkit/") == {"service/authority.c"}


@pytest.mark.parametrize("library", ["json-glib/", "libxml/"])
def test_libraries_of_the_engine_stay_in_it(library):
    # what blockjobctl prints as JSON is no matter of the engine
    outside = {path for path in including(folders(), library) if not path.startswith("src/")}
    assert outside <= {"ctl/output.c"}


def test_the_second_bus_library_is_not_used():
    """libpolkit brings GDBus along; nobody but the file that uses libpolkit may touch it."""
    for path in sources(*folders()):
        if str(path) != "service/authority.c":
            assert not re.search(r"\b(g_bus_|g_dbus_|GDBus)\w*", text(path)), path


def test_the_engine_knows_nothing_above_it():
    for path in sources("src"):
        for quotes, name in includes(path):
            if quotes != '"':
                continue
            here = path.parent.relative_to("src")
            inside = (PROJECT / "src" / name).is_file() or (PROJECT / path.parent / name).is_file()
            assert inside, f"{path} includes {name}"
            there = name.split("/")[0] if "/" in name else str(here)
            own = here.parts[0] if here.parts else None
            assert own is None or there == own or FLOORS[there] < FLOORS[own], f"{path} includes {name}"


def test_no_two_files_include_each_other():
    graph = {}
    for path in sources("src", "service"):
        if path.suffix == ".h":
            top = "src" if path.parts[0] == "src" else "service"
            graph[str(path)] = [candidate for quotes, name in includes(path) if quotes == '"'
                                for candidate in (f"{top}/{name}", f"src/{name}", str(path.parent / name))
                                if (PROJECT / candidate).is_file()]

    def walk(name, above):
        assert name not in above, " -> ".join([*above, name])
        for below in graph.get(name, []):
            walk(below, [*above, name])

    for name in graph:
        walk(name, [])


def test_files_can_be_read_in_one_sitting():
    long = {str(path): count for path in sources("src", "service", "ctl", "tests")
            if (count := len(text(path).splitlines())) > LINES_MAX}
    assert not long


def test_every_file_says_its_licence():
    for path in sources("src", "service", "ctl", "tests", suffixes=(".c", ".h", ".py", ".sh")):
        assert "SPDX-License-Identifier: LGPL-2.1-or-later" in "\n".join(text(path).splitlines()[:2]), path
