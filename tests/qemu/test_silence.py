# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QEMU that does not answer: callers are told, others are not delayed, and all goes on when it is back."""

import os
import signal
import time

from kit import images
from kit.bus import refused
from kit.images import MIB


def test_qemu_that_does_not_answer(lab):
    machine, _, disk = lab.slow()
    _, _, other = lab.standard(images.two_layers(lab.directory, "other"))
    job = disk.commit(active=True)
    job.wait_ready()
    client = lab.client
    os.kill(machine.process.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        calls = [client.call_later(job.path, "Job", "Pivot", "(a{sv})", {}),
                 client.call_later(job.path, "Job", "SetSpeed", "(t)", 5 * MIB),
                 client.call_later(job["Domain"], "Domain", "Suspend")]
        # Reads and other machines go on as ever.
        assert disk["Source"] and job["State"] == "completing"
        other.commit(auto="pivot").wait_completed("completed")
        assert time.monotonic() - start < 5
        for call in calls:
            reply = client.wait_reply(call)
            assert reply.kind == "error"
        assert 9 < time.monotonic() - start < 15
        domain = lab.domain_of(machine)
        assert "does not answer" in domain["StateReason"]
        # While it is late nobody waits for the deadline again.
        start = time.monotonic()
        for attempt in (job.pause, lambda: domain.call("Resume"), lambda: disk.commit(active=True)):
            with refused("Timeout", "does not answer"):
                attempt()
        assert time.monotonic() - start < 2
    finally:
        os.kill(machine.process.pid, signal.SIGCONT)
    # The pivot was decided; it is carried out now.
    job.wait_completed("completed")
    assert "does not answer" not in lab.domain_of(machine)["StateReason"]
