# SPDX-License-Identifier: LGPL-2.1-or-later
"""Another user with many connections to the bus, of which dbus-daemon allows one user 256."""

import inspect
import os
import subprocess
import sys


def serve():
    """Runs in the other user's process: makes its connections, and with each does what a line of its input says."""
    import os
    import sys

    from gi.repository import Gio, GLib

    name, flags = "org.blockjobd1", Gio.DBusConnectionFlags
    flags = flags.AUTHENTICATION_CLIENT | flags.MESSAGE_BUS_CONNECTION
    address, null = os.environ["DBUS_SYSTEM_BUS_ADDRESS"], os.open("/dev/null", os.O_RDONLY)

    def connection():
        made = Gio.DBusConnection.new_for_address_sync(address, flags, None, None)
        made.set_exit_on_close(False)
        return made

    def read(connection):
        connection.call_sync(name, "/org/blockjobd1", f"{name}.Manager", "ListJobs", GLib.Variant("(a{sv})", ({},)),
                             None, Gio.DBusCallFlags.NONE, 20000, None)

    def ask(connection):
        for number in range(240):
            message = Gio.DBusMessage.new_method_call(name, "/org/blockjobd1", f"{name}.Manager", "AttachDomainFd")
            message.set_body(GLib.Variant("(sha{sv})", (f"asked{number}", 0, {})))
            message.set_flags(Gio.DBusMessageFlags.ALLOW_INTERACTIVE_AUTHORIZATION
                              | Gio.DBusMessageFlags.NO_REPLY_EXPECTED)
            descriptors = Gio.UnixFDList.new()
            for _ in range(16):  # as many as dbus-daemon lets through
                descriptors.append(null)
            message.set_unix_fd_list(descriptors)
            connection.send_message(message, Gio.DBusSendMessageFlags.NONE)
            if number % 20 == 19:  # the kernel closes a connection on which too many descriptors are on their way
                connection.call_sync("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId", None, None,
                                     Gio.DBusCallFlags.NONE, 20000, None)

    connections = [connection() for _ in range(int(sys.argv[1]))]
    print("there", flush=True)
    for line in sys.stdin:
        for one in connections:
            {"read": read, "ask": ask}[line.strip()](one)
        print("done", flush=True)


class Swarm:
    def __init__(self, user, count):
        source = inspect.getsource(serve) + "\nserve()\n"
        self.process = subprocess.Popen(["setpriv", f"--reuid={user}", "--clear-groups", "--", sys.executable, "-c",
                                         source, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        cwd="/", env=dict(os.environ))
        assert self.process.stdout.readline() == "there\n"

    def let(self, what):
        """Each connection does so; whether all got through."""
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "done\n"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
