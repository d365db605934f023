# SPDX-License-Identifier: LGPL-2.1-or-later
"""The objects of the contract, as thin as can be."""

from kit.bus import NAME, ROOT, options
from kit.waiting import DEADLINE


class Remote:
    interface = None

    def __init__(self, client, path):
        self.client = client
        self.path = path

    def __getitem__(self, name):
        return self.client.get(self.path, self.interface, name)

    def all(self):
        return self.client.get_all(self.path, self.interface)

    def call(self, member, signature="()", *arguments, **keywords):
        return self.client.call(self.path, self.interface, member, signature, *arguments, **keywords)

    def wait(self, name, value, deadline=DEADLINE):
        return self.client.wait_property(self.path, self.interface, name, value, deadline)

    def changes(self, name, since=0):
        """Every value of the property that a PropertiesChanged told, in order."""
        return [heard.arguments[1][name] for heard in self.client.heard(self.path, "PropertiesChanged", since)
                if heard.arguments[0] == f"{NAME}.{self.interface}" and name in heard.arguments[1]]

    def exists(self):
        return self.path in self.client.managed_objects()

    def wait_removed(self, deadline=DEADLINE, since=0):
        return self.client.wait_signal(ROOT, "InterfacesRemoved", deadline, since,
                                       lambda heard: heard.arguments[0] == self.path)


class Manager(Remote):
    interface = "Manager"

    def __init__(self, client):
        super().__init__(client, ROOT)

    def attach(self, name, qmp_path, **keywords):
        path, = self.call("AttachDomain", "(ssa{sv})", name, qmp_path, options(keywords))
        return Domain(self.client, path)

    def attach_descriptor(self, name, descriptor, **keywords):
        path, = self.call("AttachDomainFd", "(sha{sv})", name, 0, options(keywords), descriptors=[descriptor])
        return Domain(self.client, path)

    def domain(self, name):
        return Domain(self.client, self.call("GetDomain", "(s)", name)[0])

    def job(self, identity):
        return Job(self.client, self.call("GetJob", "(s)", identity)[0])

    def jobs(self, **keywords):
        return self.call("ListJobs", "(a{sv})", options(keywords))[0]


class Domain(Remote):
    interface = "Domain"

    def detach(self, **keywords):
        self.call("Detach", "(a{sv})", options(keywords))

    def disk(self, target="vda"):
        """By what the domain says, not by what its path should be."""
        for path in self["Disks"]:
            disk = Disk(self.client, path)
            if disk["Target"] == target:
                return disk
        raise AssertionError(f"{self.path} has no disk {target}: {self['Disks']}")


class Disk(Remote):
    interface = "Disk"

    def commit(self, **keywords):
        return Job(self.client, self.call("Commit", "(a{sv})", options(keywords))[0])

    def copy(self, target, **keywords):
        return Job(self.client, self.call("Copy", "(sa{sv})", target, options(keywords))[0])

    def copy_to_descriptor(self, descriptor, **keywords):
        return self._to_descriptor("CopyToFd", descriptor, keywords)

    def pull(self, **keywords):
        return Job(self.client, self.call("Pull", "(a{sv})", options(keywords))[0])

    def backup(self, target, **keywords):
        return Job(self.client, self.call("Backup", "(sa{sv})", target, options(keywords))[0])

    def backup_to_descriptor(self, descriptor, **keywords):
        return self._to_descriptor("BackupToFd", descriptor, keywords)

    def snapshot(self, overlay, **keywords):
        self.call("Snapshot", "(sa{sv})", overlay, options(keywords))

    def resize(self, size, **keywords):
        self.call("Resize", "(ta{sv})", size, options(keywords))

    def map(self, **keywords):
        """[(offset, length, flags, depth)]"""
        return self.call("Map", "(a{sv})", options(keywords))[0]

    def _to_descriptor(self, member, descriptor, keywords):
        path, = self.call(member, "(ha{sv})", 0, options(keywords), descriptors=[descriptor])
        return Job(self.client, path)

    def sources(self):
        return [layer["source"] for layer in self["Chain"]]


class Job(Remote):
    interface = "Job"

    def pivot(self, **keywords):
        self.call("Pivot", "(a{sv})", options(keywords))

    def abort(self, **keywords):
        self.call("Abort", "(a{sv})", options(keywords))

    def set_speed(self, speed):
        self.call("SetSpeed", "(t)", speed)

    def set_mode(self, mode):
        self.call("SetMode", "(s)", mode)

    def pause(self):
        self.call("Pause")

    def resume(self):
        self.call("Resume")

    def dismiss(self):
        self.call("Dismiss")

    def wait_ready(self, deadline=DEADLINE):
        self.client.wait_signal(self.path, "Ready", deadline)

    def completed(self):
        """Every Completed that was heard of this job."""
        return [heard.arguments for heard in self.client.heard(self.path, "Completed")]

    def wait_completed(self, result=None, deadline=DEADLINE):
        """The job's end; with a result, that and no other, told once, and told alike by the properties."""
        arguments = self.client.wait_signal(self.path, "Completed", deadline).arguments
        if result is not None:
            assert arguments[0] == result, f"{self.path} ended as {arguments}, not {result}"
            assert self["State"] == "concluded" and self["Result"] == result
            assert self["Error"] == arguments[1:]
            assert (arguments[1] == "") == (result in ("completed", "kept", "cancelled", "pivoted")) \
                or result == "lost", arguments
            assert len(self.completed()) == 1
        return arguments
