# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disks that lose what was not flushed when their power is cut.

Each is a file that QEMU's storage daemon exports through FUSE, a loop device on that, and an ext4 on the device. The
daemon's filter `blklogwrites` logs each write and flush when it is done; the disk after the power cut is made from the
log: all up to the last flush that was over, and of what came later nothing, all, or some.

State and images lie on a disk each, since a sync of one file takes much with it of what else is new on its own file
system. What ext4 does for programs that forget to sync (auto_da_alloc, data=ordered, a commit every five seconds) is
off: other file systems do nothing of it.
"""

import os
import random
import struct
import subprocess
import uuid
from typing import NamedTuple, Optional

from kit.images import MIB, run
from kit.waiting import DEADLINE, wait_until

# The log is that of Linux's dm-log-writes: a sector with the head, then for each request a sector that describes it
# and the data.
HEAD = struct.Struct("<QQQ")  # magic, version, number of requests up to the last flush
ENTRY = struct.Struct("<QQQQ")  # first sector, number of sectors, flags, length of data that is no request's
MAGIC = 0x6A736677736872
SECTOR = 512
DISCARD = 4

LOG_SIZE = 4096 * MIB  # the most; there is no more of it than was written
OPTIONS = "noatime,data=writeback,noauto_da_alloc,commit=600"

BOOT_ID = "/proc/sys/kernel/random/boot_id"

# What is on the disk after the cut besides all that was flushed.
NOTHING = "nothing"
NAMES = "names"  # the file system's journal as it is then, without the data of files that were not synced
EVERYTHING = "everything"
STATE, IMAGES = "state", "images"  # everything on the one disk, nothing on the other
SOME = ("some-1", "some-2", "some-3")  # of everything, as far as the file system's own flushes allow, by chance


def works(*command):
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


class Request(NamedTuple):
    offset: int
    length: int
    position: Optional[int]  # of its data


class Disk:
    """A file system at `path`."""

    def __init__(self, directory, hardware, name, mebibytes):
        self.name = name
        self.path = f"{directory}/{name}"
        self.size = mebibytes * MIB
        self.export = f"{hardware}/{name}"
        self.blank, self.raw, self.log, self.replayed = (f"{self.export}.{end}"
                                                         for end in ("blank", "raw", "log", "replayed"))
        self.device = None
        self.mounted = False
        self.chosen = set()  # the numbers of the requests that outlive the power cut
        os.mkdir(self.path)
        for file, size in ((self.blank, self.size), (self.log, LOG_SIZE), (self.export, 0)):
            with open(file, "wb") as empty:
                empty.truncate(size)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.blank)
        self._copy_blank(self.raw)

    def _copy_blank(self, file):
        run("cp", "--sparse=always", self.blank, file)

    def arguments(self):
        """Of the storage daemon. The log takes no syncs: what is in it is read while the machine runs."""
        name = self.name
        return ["--blockdev", f"driver=file,node-name={name}-raw,filename={self.raw},cache.no-flush=on",
                "--blockdev", f"driver=file,node-name={name}-log,filename={self.log},cache.no-flush=on",
                "--blockdev", f"driver=blklogwrites,node-name={name},file={name}-raw,log={name}-log,"
                              f"log-sector-size={SECTOR}",
                "--export", f"fuse,id={name},node-name={name},mountpoint={self.export},writable=on"]

    def attach(self, file):
        """By the device that the disk had before; by another one while that is attached."""
        if self.device and not self.mounted:
            wait_until(lambda: works("losetup", self.device, file), f"{self.device} to be free")
        else:
            self.device = run("losetup", "--find", "--show", file).strip()

    def mount(self, options):
        run("mount", "-t", "ext4", "-o", options, self.device, self.path)
        self.mounted = True
        # It goes with its mount, whatever ends that.
        run("losetup", "--detach", self.device)

    def unmount(self):
        if self.mounted:
            # A killed process may be about to close its last file.
            wait_until(lambda: works("umount", self.path), f"{self.path} to be unused")
            self.mounted = False

    def sync(self):
        run("sync", "--file-system", self.path)

    def note(self, later):
        """The power goes now: whatever is logged from here on never was, besides what the cache wrote by itself."""
        if later == NAMES:
            self._commit()
        flushed = self._flushed()
        if later == EVERYTHING or later in SOME:
            self.sync()
        if later == EVERYTHING:
            flushed = self._flushed()
        self.chosen = {*range(flushed)}
        if later in SOME:
            self.chosen |= self._some(flushed, later)

    def _flushed(self):
        with open(self.log, "rb") as log:
            magic, _, flushed = HEAD.unpack(log.read(HEAD.size))
        assert magic == MAGIC, f"{self.log} is no log"
        return flushed

    def _commit(self):
        """What the file system does every few seconds: its journal has all the changes of names and sizes."""
        with open(f"{self.path}/unrelated", "wb") as file:
            os.fsync(file.fileno())

    def _some(self, flushed, seed):
        """Up to one of the flushes that came later, and half of what came between that and the next."""
        requests = list(self._requests())
        chance = random.Random(f"{seed} {self.name}")
        ends = [flushed - 1] + [number for number, request in enumerate(requests)
                                if number >= flushed and not request.length] + [len(requests)]
        at = chance.randrange(len(ends) - 1)
        between = range(ends[at] + 1, ends[at + 1])
        return {*range(flushed, ends[at] + 1), *chance.sample(between, len(between) // 2)}

    def _requests(self):
        """To the log's end. A flush has no length; what was discarded has no place in the log."""
        position = SECTOR
        with open(self.log, "rb") as log:
            while True:
                log.seek(position)
                sector, sectors, flags, _ = ENTRY.unpack(log.read(ENTRY.size))
                if not sectors and not flags:
                    return
                position += SECTOR
                length = sectors * SECTOR
                yield Request(sector * SECTOR, length, None if flags & DISCARD else position)
                if not flags & DISCARD:
                    position += length

    def replay(self):
        """What is on the disk when the power is there again."""
        self._copy_blank(self.replayed)
        with open(self.log, "rb") as log, open(self.replayed, "r+b") as disk:
            for number, request in enumerate(self._requests()):
                if number in self.chosen:
                    disk.seek(request.offset)
                    disk.write(self._data(log, request))

    @staticmethod
    def _data(log, request):
        if request.position is None:
            return bytes(request.length)
        log.seek(request.position)
        return log.read(request.length)


class PowerSupply:
    """`state` and `images`, and what they hang on."""

    def __init__(self, directory):
        self.hardware = f"{directory}/hardware"
        self.daemon = None
        self.booted = False
        self.disks = []
        os.mkdir(self.hardware)
        run("mount", "-t", "tmpfs", "tmpfs", self.hardware)
        try:
            self.state = self._add(directory, STATE, 16)
            self.images = self._add(directory, IMAGES, 64)
            self._start()
        except BaseException:
            self.remove()
            raise

    def _add(self, directory, name, mebibytes):
        self.disks.append(Disk(directory, self.hardware, name, mebibytes))
        return self.disks[-1]

    def _start(self):
        command = ["qemu-storage-daemon"]
        for disk in self.disks:
            command += disk.arguments()
        self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        for disk in self.disks:
            wait_until(lambda: self.daemon.poll() is not None or os.path.getsize(disk.export), "the exports")
        assert self.daemon.poll() is None, "the storage daemon ended"
        for disk in self.disks:
            disk.attach(disk.export)
            disk.mount(OPTIONS)

    def cut(self, service, machines, later=NOTHING, renumbered=False):
        """The power is cut, and comes back: nothing runs, and the disks are what they are then. With their numbers,
        by which files are known as well, or with others."""
        for disk in self.disks:
            disk.note(EVERYTHING if later == disk.name else later)
        service.kill()
        for machine in machines:
            machine.kill()
        for disk in self.disks:
            disk.replay()
            if renumbered:
                disk.attach(disk.replayed)
        self._stop()
        for disk in self.disks:
            if not renumbered:
                disk.attach(disk.replayed)
            disk.mount("noatime")
        self._boot()

    def _boot(self):
        """It is another boot of the machine, for all that this test starts."""
        identity = f"{self.hardware}/boot-id"
        with open(identity, "w") as file:
            file.write(f"{uuid.uuid4()}\n")
        run("mount", "--bind", identity, BOOT_ID)
        self.booted = True

    def _stop(self):
        for disk in self.disks:
            disk.unmount()
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait(DEADLINE)
            self.daemon = None

    def remove(self):
        self._stop()
        if self.booted:
            run("umount", BOOT_ID)
        run("umount", "-l", self.hardware)
