# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the journal gets: records with fields, each kind under its MESSAGE_ID."""

import json
import re
import subprocess

import pytest

from kit.bus import refused
from kit.waiting import wait_until

IDS = dict(re.findall(r'X\((MESSAGE_\w+),\s*"([0-9a-f]{32})"\)', open("service/message-ids.h").read()))


class Journal:
    """The daemon on this bus and this state, with its standard error at a journal."""

    def __init__(self, service, path):
        self.path = path
        # $BLOCKJOBD sends standard error to a file; the same command without that.
        with open(f"/proc/{service.pid()}/cmdline", "rb") as file:
            command = file.read().rstrip(b"\0").split(b"\0")
        service.terminate()
        with open(path, "wb") as output:
            self.process = subprocess.Popen(
                ["unshare", "-m", "--propagation", "private", "tests/kit/journal.py", *command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL)
        wait_until(service.owned, "the daemon to take its name")

    def records(self):
        with open(self.path) as output:
            return [json.loads(line) for line in output.read().splitlines()]

    def wait(self, message, **expected):
        """The record of that MESSAGE_ID with these fields."""
        def find():
            return [record for record in self.records() if record.get("MESSAGE_ID") == IDS[message]
                    and all(record.get(name) == value for name, value in expected.items())]
        return wait_until(find, f"{message} {expected} among {self.records()}")[0]


@pytest.fixture
def journal(service, workdir):
    journal = Journal(service, f"{workdir}/journal")
    yield journal
    service.terminate()
    assert journal.process.wait(20) == 0


def test_records_of_a_pivot(journal, lab):
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    job.pivot()
    job.wait_completed("completed")
    same = dict(BLOCKJOB_ID=job["Id"], BLOCKJOB_TYPE="active-commit", BLOCKJOB_DOMAIN=machine.name,
                BLOCKJOB_DISK="vda", BLOCKJOB_CALLER_UID="0", BLOCKJOB_SOURCE=chain.top.path,
                BLOCKJOB_TARGET=chain.layers[0].path, SYSLOG_IDENTIFIER="blockjobd")
    journal.wait("MESSAGE_DOMAIN_ATTACHED", BLOCKJOB_DOMAIN=machine.name, BLOCKJOB_DOMAIN_UUID=machine.uuid)
    for message in ("MESSAGE_JOB_STARTED", "MESSAGE_JOB_READY", "MESSAGE_PIVOT_DECIDED"):
        assert "BLOCKJOB_RESULT" not in journal.wait(message, **same)
    end = journal.wait("MESSAGE_JOB_COMPLETED", BLOCKJOB_RESULT="completed", **same)
    assert chain.layers[0].path in end["MESSAGE"] and end["PRIORITY"] == "5"
    order = [record["MESSAGE_ID"] for record in journal.records() if record.get("BLOCKJOB_ID") == job["Id"]]
    assert order == [IDS[name] for name in ("MESSAGE_JOB_STARTED", "MESSAGE_JOB_READY", "MESSAGE_PIVOT_DECIDED",
                                            "MESSAGE_JOB_COMPLETED")]


def test_records_of_other_ends(journal, lab):
    machine, _, disk = lab.slow()
    job = disk.commit(active=True)
    job.wait_ready()
    job.abort()
    journal.wait("MESSAGE_JOB_KEPT", BLOCKJOB_ID=job["Id"], BLOCKJOB_RESULT="kept")
    job = disk.commit(active=True, speed=65536)
    job.abort()
    journal.wait("MESSAGE_JOB_CANCELLED", BLOCKJOB_ID=job["Id"])
    job = disk.commit(active=True, speed=65536)
    machine.kill()
    assert journal.wait("MESSAGE_JOB_LOST", BLOCKJOB_ID=job["Id"])["BLOCKJOB_ERROR"]
    journal.wait("MESSAGE_DOMAIN_GONE", BLOCKJOB_DOMAIN=machine.name)
    assert not [record for record in journal.records() if record.get("MESSAGE_ID") == IDS["MESSAGE_PIVOT_DECIDED"]]


def test_root_is_logged(journal, lab):
    _, _, disk = lab.standard()
    with refused("InvalidArgument"):
        disk.commit()
    record = journal.wait("MESSAGE_AUTHORIZATION_ROOT", BLOCKJOB_METHOD="Disk.Commit", BLOCKJOB_CALLER_UID="0",
                          BLOCKJOB_ACTION="org.blockjobd1.start-job")
    assert record["BLOCKJOB_SENDER"] == lab.client.unique_name


def test_what_an_image_is_called_makes_no_record(journal, lab):
    """A caller's text with a line end in it stays within its field."""
    _, _, disk = lab.standard()
    with refused("NoSuchImage"):
        disk.commit(active=True, base="/x\nMESSAGE_ID=" + IDS["MESSAGE_JOB_LOST"])
    assert not [record for record in journal.records() if record.get("MESSAGE_ID") == IDS["MESSAGE_JOB_LOST"]]
