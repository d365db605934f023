#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commits the active layer of a disk into its base while the guest runs, and moves the disk there.

usage: commit.py /org/blockjobd1/domain/NAME/disk/TARGET
"""

import sys

from gi.repository import Gio, GLib

SERVICE = "org.blockjobd1"
DISK = SERVICE + ".Disk"
JOB = SERVICE + ".Job"
# The service went away, before the call or in the middle of it: what it did is seen when it is back.
AWAY = ("org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.ServiceUnknown",
        "org.freedesktop.DBus.Error.NameHasNoOwner")
# QEMU went away, or somebody else ends the job: Completed follows.
ENDING = (SERVICE + ".Error.Disconnected", SERVICE + ".Error.InvalidState", SERVICE + ".Error.NotActive")


class SignalFollows(Exception):
    pass


class Commit:
    def __init__(self, disk):
        self.disk = disk
        self.job = None
        self.over = False
        self.status = 1
        self.loop = GLib.MainLoop()
        self.bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)

    def call(self, path, interface, method, signature="()", *arguments):
        try:
            reply = self.bus.call_sync(SERVICE, path, interface, method, GLib.Variant(signature, arguments), None,
                                       Gio.DBusCallFlags.NONE, GLib.MAXINT, None)
        except GLib.Error as error:
            name = Gio.DBusError.get_remote_error(error)
            Gio.DBusError.strip_remote_error(error)
            if name in AWAY or self.job and name in ENDING:
                raise SignalFollows from error
            sys.exit(f"commit.py: {method}: {error.message}")
        return reply.unpack()

    def get_all(self, path, interface):
        return self.call(path, "org.freedesktop.DBus.Properties", "GetAll", "(s)", interface)[0]

    def find_or_start(self):
        """The job that is there already, since this program or the service was interrupted say; else a new one."""
        job = self.get_all(self.disk, DISK)["Job"]
        if job == "/":
            job, = self.call(self.disk, DISK, "Commit", "(a{sv})", {"active": GLib.Variant("b", True)})
        elif self.get_all(job, JOB)["Type"] != "active-commit":
            sys.exit(f"commit.py: {job}: another job is at work on this disk")
        print("job", job, flush=True)
        return job

    def step(self):
        """Where do things stand, and what is due?"""
        self.job = self.job or self.find_or_start()
        job = self.get_all(self.job, JOB)
        if job["Result"]:
            source = self.get_all(self.disk, DISK)["Source"]
            print(f"{job['Result']}: {job['DiskTarget']} is {source}", flush=True)
            self.over = True
            self.status = 0 if job["Result"] in ("completed", "pivoted") else 1
            self.loop.quit()
        elif job["State"] == "ready":
            self.call(self.job, JOB, "Pivot", "(a{sv})", {"async": GLib.Variant("b", True)})
            print("ready, pivot", flush=True)

    def look(self, *_):
        try:
            if not self.over:
                self.step()
        except SignalFollows:
            pass  # and calls look() again
        except SystemExit as end:
            # an exception does not leave the main loop by itself
            print(end, file=sys.stderr)
            self.over = True
            self.loop.quit()

    def run(self):
        # Before the job is started, so that none of its signals can be missed.
        self.bus.signal_subscribe(SERVICE, JOB, None, None, None, Gio.DBusSignalFlags.NONE, self.look)
        # Calls look() at once when the service is there, and each time it has come back.
        Gio.bus_watch_name_on_connection(self.bus, SERVICE, Gio.BusNameWatcherFlags.AUTO_START, self.look, None)
        self.loop.run()
        return self.status


if len(sys.argv) != 2:
    sys.exit(__doc__)
sys.exit(Commit(sys.argv[1]).run())
