# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmarks share: machines whose disk gets a fresh overlay each round."""

import contextlib
import os
import shutil
import tempfile
import time

from kit.bus import NAME, Client
from kit.images import MIB, Chain
from kit.qemu import Machine
from kit.service import Service


def new_machine(directory, name, **keywords):
    return Machine(directory, name).add_virtio(Chain(directory, name).add([(1, 0, 2 * MIB)]), **keywords).start()


def new_overlay(machine, number):
    """A fresh overlay with 1 MiB in it, over the image that every round commits into; their nodes."""
    base = machine.block("vda")["inserted"]["node-name"]
    top = machine.snapshot("vda", f"{machine.directory}/{machine.name}-round{number}.qcow2")
    machine.write("vda", 3, 0, MIB)
    return top, base


def milliseconds(call):
    start = time.monotonic()
    call()
    return (time.monotonic() - start) * 1000


def client_of(*signals):
    """Hears these signals and no others, so that the time is not this program's."""
    client = Client(listen=False)
    for signal in signals:
        client.driver("AddMatch", "(s)", f"type='signal',sender='{NAME}',member='{signal}'")
    return client


def service_on(state, *signals):
    """One with its records there, in the place of the one of tests/with-service; and a client that hears these."""
    client = client_of(*signals)
    service = Service(client)
    service.kill()
    service.start(state_directory=state)
    return service, client


@contextlib.contextmanager
def service_with_records_in(parent):
    """The directory of its records."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="blockjobd-bench-", ignore_cleanup_errors=True) as state:
        service, client = service_on(state)
        yield state
        service.kill()
        client.close()


@contextlib.contextmanager
def bench_directory(machines, parent=None):
    """A directory for images; afterwards it is gone, and so are the machines that were put into the list."""
    directory = tempfile.mkdtemp(prefix="blockjobd-bench-", dir=parent)
    os.chmod(directory, 0o755)
    try:
        yield directory
    finally:
        for machine in machines:
            machine.clean()
        shutil.rmtree(directory, ignore_errors=True)
