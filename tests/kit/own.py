# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains of the service's own: their XML, their files, their processes."""

import os
import pwd
import shutil
import signal
import uuid
import xml.etree.ElementTree as ElementTree

from kit.bus import BusError, options
from kit.objects import Domain, Job
from kit.waiting import wait_until

USER = "blockjobd-qemu"


def give(*paths):
    """The files are the user's that QEMU runs as."""
    account = pwd.getpwnam(USER)
    for path in paths:
        os.chown(path, account.pw_uid, account.pw_gid)


def disk_xml(path, target="vda", image_format="qcow2", bus="virtio", inside="", device="disk"):
    source = f"<source file='{path}'/>" if path else ""
    return (f"<disk type='file' device='{device}'><driver name='qemu' type='{image_format}'/>{source}{inside}"
            f"<target dev='{target}' bus='{bus}'/></disk>")


def domain_xml(name, *disks, devices="", identity=None, top="", memory=32):
    identity = identity or uuid.uuid4()
    return (f"<domain type='qemu'>\n  <name>{name}</name>\n  <uuid>{identity}</uuid>\n"
            f"  <memory unit='MiB'>{memory}</memory>\n  <vcpu>1</vcpu>\n"
            f"  <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>\n{top}"
            f"  <devices>\n    {chr(10).join(disks)}\n{devices}  </devices>\n</domain>\n")


class OwnDomain(Domain):
    """A domain with what its XML says kept beside it."""

    def start(self):
        self.call("Start", "(a{sv})", {})

    def shutdown(self):
        self.call("Shutdown", "(a{sv})", {})

    def destroy(self):
        self.call("Destroy", "(a{sv})", {})

    def undefine(self):
        self.call("Undefine", "(a{sv})", {})

    def xml(self, **keywords):
        return self.call("GetXml", "(a{sv})", options(keywords))[0]

    def tree(self, **keywords):
        return ElementTree.fromstring(self.xml(**keywords))

    def xml_source(self, target="vda", **keywords):
        """What the XML names as the disk, with the names of what is below it."""
        disk = next(disk for disk in self.tree(**keywords).findall("devices/disk")
                    if disk.find("target").get("dev") == target)
        names, element = [], disk
        while element is not None and element.find("source") is not None:
            source = element.find("source")
            names.append(source.get("file") or source.get("dev") or source.get("name"))
            element = element.find("backingStore")
        return names

    def kill_qemu(self):
        pid = self["Pid"]
        os.kill(pid, signal.SIGKILL)
        self.wait("Pid", 0)
        return pid


class Owner:
    """Defines and creates domains, and leaves none behind."""

    def __init__(self, lab):
        self.lab = lab
        self.client = lab.client
        self.directory = lab.directory
        give(lab.directory)
        self.domains = []

    def give(self, chain):
        give(*chain.paths())
        return chain

    def _make(self, member, xml, keywords):
        path, = self.client.call("/org/blockjobd1", "Manager", member, "(sa{sv})", xml, options(keywords))
        domain = OwnDomain(self.client, path)
        self.domains.append(domain)
        return domain

    def define(self, xml, **keywords):
        return self._make("DefineDomain", xml, keywords)

    def create(self, xml, **keywords):
        return self._make("CreateDomain", xml, keywords)

    def standard(self, chain, **keywords):
        """A defined domain, shut off, with one virtio disk: (domain, disk)."""
        self.give(chain)
        domain = self.define(domain_xml(self.lab.unique_name(), disk_xml(chain.top.path, image_format=chain.top.format),
                                        **keywords))
        return domain, domain.disk()

    def inspect(self, path, **keywords):
        return self.client.call("/org/blockjobd1", "Manager", "InspectImage", "(sa{sv})", path, options(keywords))[0]

    def jobs_of(self, domain):
        return [Job(self.client, path) for path in domain["Jobs"]]

    def clean(self):
        for domain in self.domains:
            try:
                for job in self.jobs_of(domain):
                    self._abort(job)
                if domain["State"] not in ("shutoff", "crashed"):
                    domain.destroy()
                wait_until(lambda: not domain["Jobs"], "the end of its jobs")
                domain.undefine()
            except BusError:
                pass  # gone already

    def _abort(self, job):
        try:
            job.abort(force=True)
        except BusError:
            pass


class SlowEmulator:
    """One that comes up when it is let: until then nobody but the service has ever listened on its monitor."""

    def __init__(self, directory, first=":"):
        self.path, self.gate = f"{directory}/emulator", f"{directory}/gate"
        os.mkfifo(self.gate)
        os.chmod(self.gate, 0o644)
        with open(self.path, "w") as script:
            script.write(f'#!/bin/sh\n{first}\nread line < {self.gate}\nexec qemu-system-x86_64 "$@"\n')
        os.chmod(self.path, 0o755)

        self.xml = f"<emulator>{self.path}</emulator>"

    def let(self):
        with open(self.gate, "w") as gate:
            gate.write("go\n")


def processes_of_the_user(word=""):
    """Of every process of these tests that runs with the rights of QEMU's user, and has that in its command line: its
    pid."""
    number, found, here = pwd.getpwnam(USER).pw_uid, [], os.readlink("/proc/self/ns/mnt")
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat, open(f"/proc/{entry}/cmdline", "rb") as file:
                over = stat.read().rsplit(")", 1)[1].split()[0] in "ZX"
                meant = word.encode() in file.read()
            if os.stat(f"/proc/{entry}").st_uid == number and meant and not over \
                    and os.readlink(f"/proc/{entry}/ns/mnt") == here:
                found.append(int(entry))
        except OSError:
            continue
    return found


def storage_daemons():
    """Those of them that are a qemu-storage-daemon."""
    return processes_of_the_user("qemu-storage-daemon")


def is_installed(program):
    return shutil.which(program) is not None
