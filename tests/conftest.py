# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures of all behaviour suites. Every test has machines and domains of its own and leaves none behind."""

import itertools
import os
import re
import shutil
import sys
import tempfile

import pytest

sys.dont_write_bytecode = True
for name in [name for name in os.environ if name.startswith("MALLOC_")]:
    del os.environ[name]  # meant for this program, which has heeded them by now

from kit import images  # noqa: E402
from kit.bus import BusError, Client  # noqa: E402
from kit.caller import Caller  # noqa: E402
from kit.fake_qmp import FakePeer  # noqa: E402
from kit.objects import Job, Manager  # noqa: E402
from kit.own import Owner  # noqa: E402
from kit.polkit import Agent  # noqa: E402
from kit.qemu import Machine  # noqa: E402
from kit.service import Service  # noqa: E402
from kit.waiting import wait_until  # noqa: E402

numbers = itertools.count(1)


def pytest_configure(config):
    if "DBUS_SYSTEM_BUS_ADDRESS" not in os.environ or "BLOCKJOBD" not in os.environ:
        raise pytest.UsageError("run this inside tests/with-service: there is no bus of the tests' own here")


@pytest.fixture(scope="session")
def first_client():
    client = Client(listen=False)
    yield client
    client.close()


@pytest.fixture(scope="session")
def daemon(first_client):
    """The daemon over the whole run; what tests started is stopped in order at the end."""
    service = Service(first_client)
    yield service
    service.stop_own()


@pytest.fixture
def service(daemon):
    """The daemon, running and unharmed: whatever a test does, nothing may be wrong inside."""
    daemon.ensure()
    daemon.disturbed = False
    position = daemon.log.size()
    pid = daemon.pid()
    yield daemon
    survived = daemon.disturbed or (daemon.owned() and daemon.pid() == pid)
    daemon.ensure()
    daemon.log.assert_no_faults(position)
    assert survived, "the daemon died, and not by this test's hand:\n" + daemon.log.since(position)[-2000:]


@pytest.fixture
def client(service):
    client = Client()
    yield client
    client.close()


@pytest.fixture
def callers(service):
    """callers("nobody"): a process of that user, which makes calls."""
    made = []

    def make(user):
        made.append(Caller(user))
        return made[-1]

    yield make
    for caller in made:
        caller.kill()


@pytest.fixture
def asked(callers):
    """(caller, agent): a user who has to give a password, and who is asked for it."""
    caller = callers("games")
    agent = Agent(caller.process.pid)
    yield caller, agent
    agent.close()


@pytest.fixture
def workdir(request):
    name = re.sub(r"\W+", "-", request.node.name)[:40]
    directory = tempfile.mkdtemp(prefix=f"bj-{name}-")
    os.chmod(directory, 0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def image_directory():
    """In the one that the service was told of."""
    with tempfile.TemporaryDirectory(dir=os.environ["BLOCKJOBD_IMAGES"]) as directory:
        yield directory


@pytest.fixture
def unique_name():
    """Domain names that no other test has; the daemon outlives them all."""
    return lambda prefix="vm": f"{prefix}{os.getpid()}-{next(numbers)}"


class Lab:
    """Machines and domains of one test."""

    def __init__(self, client, service, workdir, unique_name):
        self.client = client
        self.service = service
        self.manager = Manager(client)
        self.directory = workdir
        self.unique_name = unique_name
        self.machines = []
        self.attached = []
        self.peers = []

    def machine(self, name=None, suffix=""):
        machine = Machine(self.directory, name or self.unique_name(), suffix)
        self.machines.append(machine)
        return machine

    def attach(self, machine, **keywords):
        self.attached.append(machine.name)
        return self.manager.attach(machine.name, machine.monitor_path, **keywords)

    def peer(self, script, name="peer.monitor"):
        peer = FakePeer(f"{self.directory}/{name}", script)
        self.peers.append(peer)
        return peer

    def standard(self, chain=None, **keywords):
        """A machine with one virtio disk vda, attached: (machine, chain, disk)."""
        chain = chain or images.two_layers(self.directory)
        machine = self.machine().add_virtio(chain, **keywords).start()
        domain = self.attach(machine)
        return machine, chain, domain.disk("vda")

    def slow(self, **keywords):
        return self.standard(images.slow_layers(self.directory), **keywords)

    def domain_of(self, machine):
        return self.manager.domain(machine.name)

    @staticmethod
    def let_go(domain):
        """Its jobs end with it, where they have not ended before; that takes a moment."""
        try:
            domain.detach(force=True)
        except BusError as error:
            return error.short != "JobActive"
        return True

    def clean(self):
        self.service.ensure()
        for machine in self.machines:
            machine.clean()
        for name in self.attached:
            try:
                domain = self.manager.domain(name)
                wait_until(lambda: domain["State"] in ("crashed", "shutoff", "disconnected"), f"the end of {name}")
                wait_until(lambda: self.let_go(domain), f"the end of what runs in {name}")
            except BusError:
                pass
        for peer in self.peers:
            peer.close()
        self.forget_jobs()

    def forget_jobs(self):
        """The daemon outlives the tests, and what one leaves behind is read at every start of all that follow."""
        for listed in self.manager.jobs(state="concluded"):
            try:
                Job(self.client, listed["Path"]).dismiss()
            except BusError:
                pass  # one of a domain whose record could not be written, say


@pytest.fixture
def lab(client, service, workdir, unique_name):
    lab = Lab(client, service, workdir, unique_name)
    yield lab
    lab.clean()


@pytest.fixture
def own(lab):
    owner = Owner(lab)
    yield owner
    owner.lab.service.ensure()
    owner.clean()
