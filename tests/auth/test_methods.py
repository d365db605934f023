# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every method there is, called by somebody who may not: refused, and nothing was touched.

The table below has a row for each method of the live introspection. A new method without one fails here.
"""

import os
import socket
import xml.etree.ElementTree as ElementTree

import pytest

from kit import images
from kit.bus import ACCESS_DENIED, INTERACTION_REQUIRED, NAME, ROOT
from kit.caller import body
from kit.images import KIB
from kit.bus import options
from kit.own import Owner, domain_xml

FREE = None

# interface, method -> arguments as GVariant text (FREE: everybody may), for a call that root could make.
METHODS = {
    ("Manager", "AttachDomain"): lambda place: body("somename", place.listener_path, {}),
    ("Manager", "AttachDomainFd"): lambda place: "('somename', handle 0, @a{sv} {})",
    ("Manager", "DefineDomain"): lambda place: body(domain_xml("somename"), {}),
    ("Manager", "CreateDomain"): lambda place: body(domain_xml("somename"), {}),
    ("Manager", "InspectImage"): lambda place: body(place.chain.top.path, {}),
    ("Manager", "GetDomain"): FREE,
    ("Manager", "GetJob"): FREE,
    ("Manager", "ListJobs"): FREE,
    ("Domain", "Detach"): lambda place: body(options({"force": True})),
    ("Domain", "Start"): lambda place: body({}),
    ("Domain", "Shutdown"): lambda place: body({}),
    ("Domain", "Destroy"): lambda place: body({}),
    ("Domain", "Undefine"): lambda place: body({}),
    ("Domain", "GetXml"): lambda place: body({}),
    ("Domain", "Suspend"): lambda place: "()",
    ("Domain", "Resume"): lambda place: "()",
    ("Disk", "Commit"): lambda place: body(options({"active": True})),
    ("Disk", "Copy"): lambda place: body(place.target_path, {}),
    ("Disk", "CopyToFd"): lambda place: "(handle 0, @a{sv} {})",
    ("Disk", "Pull"): lambda place: body({}),
    ("Disk", "Backup"): lambda place: body(place.target_path, {}),
    ("Disk", "BackupToFd"): lambda place: "(handle 0, @a{sv} {})",
    ("Disk", "Snapshot"): lambda place: body(place.target_path, {}),
    ("Disk", "Resize"): lambda place: "(uint64 67108864, @a{sv} {})",
    ("Disk", "Map"): lambda place: body({}),
    ("Job", "Abort"): lambda place: body(options({"force": True})),
    ("Job", "Pivot"): lambda place: body({}),
    ("Job", "SetSpeed"): lambda place: "(uint64 0,)",
    ("Job", "Pause"): lambda place: "()",
    ("Job", "Resume"): lambda place: "()",
    ("Job", "SetMode"): lambda place: "('write-blocking',)",
    ("Job", "Dismiss"): lambda place: "()",
}
GUARDED = [key for key, arguments in METHODS.items() if arguments is not FREE]


class Place:
    """A domain with a disk that could be committed, one with a running job, domains of the service's own, of which
    one is off, and a socket that listens."""

    def __init__(self, lab):
        self.lab = lab
        self.own = Owner(lab)
        self.off, self.on = (self.own.define(domain_xml(lab.unique_name("own"))) for _ in range(2))
        self.on.start()
        self.machine, self.chain, disk = lab.standard(images.two_layers(lab.directory, "idle"))
        self.busy_machine, _, busy = lab.slow()
        self.job = busy.commit(active=True, speed=64 * KIB)
        self.paths = {"Manager": ROOT, "Domain": self.job["Domain"], "Disk": disk.path, "Job": self.job.path}
        own = {"Start": self.off, "Undefine": self.off, "GetXml": self.off, "Shutdown": self.on, "Destroy": self.on}
        self.own_paths = {("Domain", member): domain.path for member, domain in own.items()}
        self.listener_path = f"{lab.directory}/listener"
        self.target_path = f"{lab.directory}/target.qcow2"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.listener_path)
        self.listener.listen()
        self.listener.setblocking(False)
        self.before = self.look()

    def look(self):
        objects = self.lab.client.managed_objects()
        # What changes by itself while the job runs.
        for name in ("Current", "Total", "Progress"):
            del objects[self.job.path][f"{NAME}.Job"][name]
        jobs = {name: entry["status"] for machine in (self.machine, self.busy_machine)
                for name, entry in machine.jobs().items()}
        states = [machine.qmp.execute("query-status")["status"] for machine in (self.machine, self.busy_machine)]
        speeds = [entry["speed"] for entry in self.busy_machine.qmp.execute("query-block-jobs")]
        return objects, jobs, states, speeds

    def path_of(self, interface, member):
        """Of the object on which root could call the method."""
        return self.own_paths.get((interface, member), self.paths[interface])

    def assert_untouched(self):
        assert self.look() == self.before
        assert not os.path.exists(self.target_path)
        with pytest.raises(BlockingIOError):
            self.listener.accept()


@pytest.fixture
def place(lab):
    place = Place(lab)
    yield place
    place.listener.close()
    lab.service.ensure()
    place.own.clean()


def test_table_is_complete(lab, place):
    found = set()
    for name, path in place.paths.items():
        for interface in ElementTree.fromstring(lab.client.introspect(path)).iter("interface"):
            if interface.get("name") == f"{NAME}.{name}":
                found |= {(name, method.get("name")) for method in interface.iter("method")}
    assert found == set(METHODS)


def call_all(caller, place, **keywords):
    """{method: error name} of every guarded method."""
    errors = {}
    for interface, member in GUARDED:
        errors[interface, member] = caller.error(place.path_of(interface, member), interface, member,
                                                 METHODS[interface, member](place),
                                                 with_socket="Fd" in member, **keywords)
    return errors


@pytest.mark.parametrize("interactive", [False, True])
def test_denied(callers, place, interactive):
    errors = call_all(callers("daemon"), place, interactive=interactive)
    assert errors == {key: ACCESS_DENIED for key in GUARDED}
    place.assert_untouched()


def test_challenge_without_leave_to_ask(callers, place):
    """The caller did not set the flag: it is told that asking would help, and nobody is asked."""
    errors = call_all(callers("games"), place)
    assert errors == {key: INTERACTION_REQUIRED for key in GUARDED}
    place.assert_untouched()


def test_challenge_that_nobody_can_answer(callers, place):
    """The flag is set, and there is no agent for this caller: refused at once."""
    errors = call_all(callers("games"), place, interactive=True)
    assert set(errors.values()) <= {ACCESS_DENIED, INTERACTION_REQUIRED}, errors
    place.assert_untouched()


def test_no_rule_for_the_caller(callers, place):
    """What the actions say by themselves, for a caller without a session: the administrator's password."""
    errors = call_all(callers("mail"), place)
    assert errors == {key: INTERACTION_REQUIRED for key in GUARDED}
    place.assert_untouched()


def test_denied_before_anything_is_looked_at(callers, place):
    """Not even whether a thing exists is told to who may not ask."""
    caller = callers("daemon")
    for path in ("/no/such/socket", place.listener_path, "/etc/passwd", ""):
        assert caller.error(ROOT, "Manager", "AttachDomain", body("somename", path, {})) == ACCESS_DENIED
    taken = place.machine.name
    assert caller.error(ROOT, "Manager", "AttachDomain", body(taken, place.listener_path, {})) == ACCESS_DENIED
    for values in ({"active": True, "base": "/no/such/image"}, {"active": True, "base": "[77]"}):
        assert caller.error(place.paths["Disk"], "Disk", "Commit", body(options(values))) == ACCESS_DENIED
    place.assert_untouched()


def test_reads_are_free(callers, place):
    caller = callers("daemon")
    identity = place.job["Id"]
    properties = "org.freedesktop.DBus.Properties"
    assert caller.call(ROOT, "Manager", "GetDomain", body(place.machine.name))
    assert caller.call(ROOT, "Manager", "GetJob", body(identity)) == [place.job.path]
    assert caller.call(ROOT, "Manager", "ListJobs", body({}))
    assert caller.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    for interface, path in place.paths.items():
        assert caller.call(path, properties, "GetAll", body(f"{NAME}.{interface}"))
        assert caller.call(path, "org.freedesktop.DBus.Introspectable", "Introspect")
        assert caller.call(path, "org.freedesktop.DBus.Peer", "Ping") == []
    assert caller.call(place.job.path, properties, "Get", body(f"{NAME}.Job", "State")) == ["running"]


def test_denial_is_logged(callers, place, service):
    position = service.log.size()
    caller = callers("daemon")
    assert caller.error(place.paths["Disk"], "Disk", "Commit", body(options({"active": True}))) == ACCESS_DENIED
    said = service.log.since(position)
    assert "Commit" in said and "uid 1" in said, said


def test_root_is_logged(lab, place, service):
    """polkit never sees root's calls; the journal does."""
    position = service.log.size()
    place.job.abort()
    said = service.log.since(position)
    assert "Abort" in said and ("root" in said or "uid 0" in said), said


def test_domain_manager(lab, callers, place):
    """Somebody with all rights and another uid than root does everything."""
    caller = callers("sys")
    machine = lab.machine().add_virtio(images.two_layers(lab.directory, "theirs")).start()
    lab.attached.append(machine.name)
    path, = caller.call(ROOT, "Manager", "AttachDomain", body(machine.name, machine.monitor_path, {}))
    caller.call(path, "Domain", "Resume")
    caller.call(path, "Domain", "Suspend")
    disk = lab.domain_of(machine).disk("vda")
    job = caller.commit(disk, active=True)
    lab.client.wait_signal(job, "Ready")
    caller.call(job, "Job", "Pivot", body({}))
    assert lab.client.get(job, "Job", "Result") == "completed"
    assert lab.client.get(job, "Job", "StartedBy") == 3
    caller.call(job, "Job", "Dismiss")
    caller.call(path, "Domain", "Detach", body({}))
