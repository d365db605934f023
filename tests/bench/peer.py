# SPDX-License-Identifier: LGPL-2.1-or-later
"""The peer: a libvirtd and a libvirt-dbus of this program's own, on the private bus, with real QEMUs.

They are what Debian ships, in namespaces for mounts and for the network: their configuration, state, logs and sockets
lie in a directory of ours, so that a libvirt of this machine is not touched. What differs from a default installation
can only make the peer quicker: no cgroups, no AppArmor, no /dev of its own for each QEMU, and QEMU's output goes
straight into a file. Its sockets and what it writes of running domains are on a tmpfs, as on any machine; definitions
are on disk.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time

from bench.common import bench_directory
from kit.bus import BusError, Client
from kit.images import MIB, Chain
from kit.own import disk_xml
from kit.qemu import Machine
from kit.qmp import Qmp
from kit.waiting import DEADLINE, wait_until

NAME = "org.libvirt"
PROGRAMS = ("/usr/sbin/libvirtd", "/usr/sbin/libvirt-dbus")

# Of libvirt's enumerations
START_PAUSED = 1
COMMIT_ACTIVE, COMMIT_BYTES = 4, 16
COPY_TRANSIENT_JOB = 4
ABORT_PIVOT = 2
SNAPSHOT_NO_METADATA, SNAPSHOT_DISK_ONLY = 4, 16
COMPLETED, _, CANCELED, READY = range(4)

CONFIGURATION = {
    "libvirtd.conf": 'auth_unix_rw = "none"\nunix_sock_rw_perms = "0777"\n',
    "qemu.conf": 'security_driver = "none"\ncgroup_controllers = []\nnamespaces = []\nstdio_handler = "file"\n',
}
# Without KVM, that QEMU's user may not be let use, libvirtd does not ask QEMU for its abilities before each start.
ENTER = """\
set -e
if [ -e /dev/kvm ]; then
    install -m 0 /dev/null "$1/kvm"
    mount --bind "$1/kvm" /dev/kvm
fi
mount -t tmpfs -o mode=755 tmpfs /run
for place in etc var/lib var/cache var/log; do
    mount --bind "$1/$place" "/$place/libvirt"
done
exec /usr/sbin/libvirtd
"""


def installed():
    return all(os.access(program, os.X_OK) for program in PROGRAMS)


def domain_xml(machine, chain):
    """As kit.qemu.Machine starts its QEMUs, with the second monitor too."""
    disk = disk_xml(chain.top.path, image_format=chain.top.format, inside="<alias name='ua-vda'/>")
    arguments = "".join(f"<qemu:arg value='{value}'/>" for value in (
        "-chardev", f"socket,id=own,path={machine.own_path},server=on,wait=off", "-mon", "chardev=own,mode=control"))
    return (f"<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>{machine.name}</name>"
            f"<uuid>{machine.uuid}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>"
            f"<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>{disk}"
            f"<controller type='usb' model='none'/><memballoon model='none'/></devices>"
            f"<qemu:commandline>{arguments}</qemu:commandline></domain>")


class PeerMachine(Machine):
    """A QEMU that libvirt started; its disk's jobs, as a client of libvirt-dbus has to go about them."""

    def __init__(self, peer, directory, name, chain):
        super().__init__(directory, name)
        self.peer = peer
        self.chains["vda"] = chain
        self.below, self.top = [None, *[layer.path for layer in chain.layers]][-2:]
        self.write_names["vda"] = "-d /machine/peripheral/ua-vda/virtio-backend"
        self.output_path = f"{peer.home}/var/log/qemu/{name}.log"
        self.path, = peer.connect("DomainDefineXML", "(s)", domain_xml(self, chain))

    def start(self):
        self.call("Create", "(u)", START_PAUSED)
        self.qmp = Qmp(self.own_path)
        return self

    def call(self, member, signature, *arguments):
        return self.peer.client.call(self.path, f"{NAME}.Domain", member, signature, *arguments, destination=NAME)

    def call_later(self, member, signature, *arguments):
        return self.peer.client.call_later(self.path, f"{NAME}.Domain", member, signature, *arguments,
                                           destination=NAME)

    def job_info(self):
        return self.call("GetBlockJobInfo", "(su)", "vda", 0)[0]

    def clean(self):
        self.peer.machines.remove(self)
        for member in ("Destroy", "Undefine"):
            with contextlib.suppress(BusError):  # it did not start, or ended by itself
                self.call(member, "(u)", 0)
        if self.qmp is not None:
            self.qmp.close()
        shutil.rmtree(self.directory)

    def block(self, target):
        return super().block(f"ua-{target}")

    def snapshot(self, target, path):
        """As that of Machine, by libvirt, which makes the image; the overlay's node."""
        self.below, self.top = self.active_file(target), path
        xml = (f"<domainsnapshot><disks><disk name='{target}' snapshot='external'><driver type='qcow2'/>"
               f"<source file='{path}'/></disk></disks></domainsnapshot>")
        self.call("SnapshotCreateXML", "(su)", xml, SNAPSHOT_DISK_ONLY | SNAPSHOT_NO_METADATA)
        return self.block(target)["inserted"]["node-name"]

    # Jobs.

    def wait_status(self, status, since=0, deadline=DEADLINE):
        heard = self.peer.client.wait_signal(self.path, "BlockJob", deadline, since)
        assert heard.arguments[2] == status, f"the peer's job: {heard.arguments} instead of status {status}"
        return heard

    def commit_call(self, speed=0):
        """Of the active layer into the image below: libvirt-dbus cannot leave out base and top."""
        return ("BlockCommit", "(ssstu)", "vda", self.below, self.top, speed, COMMIT_ACTIVE | COMMIT_BYTES)

    def abort_call(self, flags=0):
        return ("BlockJobAbort", "(su)", "vda", flags)

    def begin_commit(self):
        self.call(*self.commit_call())

    def begin_copy(self, path):
        target = f"<disk type='file'><driver type='qcow2'/><source file='{path}'/></disk>"
        self.call("BlockCopy", "(ssa{sv}u)", "vda", target, {}, COPY_TRANSIENT_JOB)

    def commit(self, ending):
        return self._two_phases(self.begin_commit, ending)

    def copy(self, path):
        return self._two_phases(lambda: self.begin_copy(path), "keep")

    def _two_phases(self, begin, ending):
        """In ms, from the call to the signal of the end, which the client asks for when the job is ready."""
        start, since = time.monotonic(), self.peer.client.position()
        begin()
        self.wait_status(READY, since)
        return (self.end(ending).time - start) * 1000

    def end(self, ending):
        """Of a job that is ready; the signal that tells of it."""
        since = self.peer.client.position()
        self.call(*self.abort_call(ABORT_PIVOT if ending == "pivot" else 0))
        return self.wait_status(COMPLETED if ending == "pivot" else CANCELED, since)

    def pull(self):
        start, since = time.monotonic(), self.peer.client.position()
        self.call("BlockPull", "(stu)", "vda", 0, 0)
        return (self.wait_status(COMPLETED, since).time - start) * 1000


class Peer:
    """Both programs, started; `machine` gives a QEMU with a disk."""

    def __init__(self, directory):
        self.directory = directory
        self.home = f"{directory}/libvirt"
        self.client = Client(listen=False)
        self.client.driver("AddMatch", "(s)", f"type='signal',sender='{NAME}',member='BlockJob'")
        self.processes, self.machines = [], []

    def start(self):
        for place in ("etc", "var/lib", "var/cache", "var/log"):
            os.makedirs(f"{self.home}/{place}")
        for name, text in CONFIGURATION.items():
            with open(f"{self.home}/etc/{name}", "w") as file:
                file.write(text)
        self._spawn("unshare", "--mount", "--net", "--", "sh", "-c", ENTER, "sh", self.home)
        libvirtd = self.processes[0]
        self._wait(libvirtd, lambda: os.path.exists(f"/proc/{libvirtd.pid}/root/run/libvirt/libvirt-sock"))
        self._spawn("nsenter", f"--target={libvirtd.pid}", "--mount", "--", "setpriv", "--reuid=libvirtdbus",
                    "--regid=libvirtdbus", "--init-groups", "--", PROGRAMS[1], "--system")
        self._wait(self.processes[1], lambda: self.client.driver("NameHasOwner", "(s)", NAME)[0])

    def _spawn(self, *command):
        with open(f"{self.directory}/libvirt.output", "ab") as output:
            self.processes.append(subprocess.Popen(["setpriv", "--pdeathsig", "TERM", "--", *command], stdout=output,
                                                   stderr=output, stdin=subprocess.DEVNULL))

    def _wait(self, process, condition):
        wait_until(lambda: process.poll() is not None or condition(), "the peer to start")
        if process.poll() is not None:
            with open(f"{self.directory}/libvirt.output", errors="replace") as output:
                raise AssertionError(f"the peer did not start: {output.read()}")

    def connect(self, member, signature, *arguments):
        return self.client.call("/org/libvirt/QEMU", f"{NAME}.Connect", member, signature, *arguments,
                                destination=NAME)

    def pids(self):
        return [process.pid for process in self.processes]

    def machine(self, name, chain=None):
        """In a directory of its own, with a disk as that of common.new_machine unless there is one."""
        directory = tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory)
        os.chmod(directory, 0o777)  # QEMU runs as a user of libvirt's and makes its monitor there
        machine = PeerMachine(self, directory, name, chain or Chain(directory).add([(1, 0, 2 * MIB)]))
        self.machines.append(machine)
        return machine.start()

    def stop(self):
        for machine in list(self.machines):
            machine.clean()
        for process in reversed(self.processes):
            process.terminate()
            process.wait(DEADLINE)
        self.client.close()


@contextlib.contextmanager
def running():
    """The peer, in a directory of its own; None where it is not installed. Its machines end with it."""
    if not installed():
        print("libvirtd and libvirt-dbus are not installed: their column stays empty", flush=True)
        yield None
        return
    with bench_directory([]) as directory:
        peer = Peer(directory)
        try:
            peer.start()
            yield peer
        finally:
            peer.stop()
