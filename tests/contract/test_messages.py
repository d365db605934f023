# SPDX-License-Identifier: LGPL-2.1-or-later
"""The journal: each MESSAGE_ID is used, and explained to who reads it."""

import re
import shutil
import subprocess

from contract.interfaces import PROJECT, sources, table_rows, text

HEADER = "service/message-ids.h"
CATALOG = "units/blockjobd.catalog"
RESULTS = ("COMPLETED", "KEPT", "CANCELLED", "FAILED", "LOST", "PIVOTED")


def ids():
    return dict(table_rows(HEADER))


def entries():
    """{id: the whole entry} of the catalog."""
    parts = re.split(r"^-- ([0-9a-f]{32})$", text(CATALOG), flags=re.MULTILINE)
    assert len(parts[1::2]) == len(set(parts[1::2])), "an id has two entries"
    return dict(zip(parts[1::2], parts[2::2]))


def code(*folders):
    return "\n".join(text(path) for path in sources(*folders) if str(path) != HEADER)


def test_ids_are_ids_and_all_different():
    found = ids()
    assert len(found) == len(table_rows(HEADER)) == len(set(found.values())) >= 19
    assert all(re.fullmatch(r"[0-9a-f]{32}", value) for value in found.values())
    assert {f"MESSAGE_JOB_{result}" for result in RESULTS} <= set(found)


def test_every_id_has_an_entry_and_every_entry_an_id():
    assert set(entries()) == set(ids().values())


def test_every_entry_is_complete():
    for identity, entry in entries().items():
        header, _, body = entry.strip().partition("\n\n")
        assert re.search(r"^Subject: \S", header, re.MULTILINE), identity
        assert "Defined-By: blockjobd" in header.splitlines(), identity
        assert len(body.split()) > 15, f"{identity} explains nothing"


def test_journald_takes_the_catalog(tmp_path):
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(PROJECT / CATALOG, folder)
    subprocess.run(["journalctl", f"--root={tmp_path}", "--update-catalog"], check=True)
    listed = subprocess.run(["journalctl", f"--root={tmp_path}", "--list-catalog"], check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} == set(ids().values())
    assert listed.count("blockjobd") >= len(ids())


def test_every_id_is_logged_somewhere():
    used = set(re.findall(r"\bMESSAGE_[A-Z_]+\b", code("service")))
    missing = set(ids()) - used
    assert not missing, f"no code logs {sorted(missing)}"


def test_every_field_of_the_catalog_is_logged():
    wanted = set(re.findall(r"@([A-Z_]+)@", text(CATALOG)))
    logged = set(re.findall(r"\bBLOCKJOB_[A-Z_]+\b", code("service")))
    assert wanted <= logged, f"no code sets {sorted(wanted - logged)}"
