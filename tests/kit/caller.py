# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of the bus that is another user: a process that makes calls as it is told on its standard input.

One line of JSON for a call, one line for its outcome. Started by `Caller`; as the source is handed over as text,
the other user needs to be able to read nothing of the tests' own.
"""

import inspect
import json
import os
import subprocess
import sys

from gi.repository import GLib

from kit.bus import NAME, BusError, options


def serve():
    """Runs in the other user's process."""
    import json
    import os
    import socket
    import sys

    from gi.repository import Gio, GLib

    flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
    connection = Gio.DBusConnection.new_for_address_sync(os.environ["DBUS_SYSTEM_BUS_ADDRESS"], flags, None, None)
    connection.set_exit_on_close(False)
    print(json.dumps(connection.get_unique_name()), flush=True)
    for line in sys.stdin:
        call = json.loads(line)
        message = Gio.DBusMessage.new_method_call(call["destination"], call["path"], call["interface"],
                                                  call["member"])
        message.set_body(GLib.Variant.parse(None, call["body"], None, None))
        if call["interactive"]:
            message.set_flags(Gio.DBusMessageFlags.ALLOW_INTERACTIVE_AUTHORIZATION)
        if call["with_socket"]:
            ours, theirs = socket.socketpair()
            descriptors = Gio.UnixFDList.new()
            descriptors.append(ours.fileno())
            message.set_unix_fd_list(descriptors)
        if call["times"]:
            # Without replies: dbus-daemon has a limit of its own for those that a connection waits for.
            message.set_flags(message.get_flags() | Gio.DBusMessageFlags.NO_REPLY_EXPECTED)
            for _ in range(call["times"]):
                connection.send_message(message.copy(), Gio.DBusSendMessageFlags.NONE)
            connection.flush_sync(None)
            print(json.dumps({"sent": call["times"]}), flush=True)
            continue
        reply, _ = connection.send_message_with_reply_sync(message, Gio.DBusSendMessageFlags.NONE, 60000, None)
        body = reply.get_body()
        answer = {"error": reply.get_error_name(), "values": body.unpack() if body else ()}
        print(json.dumps(answer, default=str), flush=True)


class Caller:
    def __init__(self, user):
        source = inspect.getsource(serve) + "\nserve()\n"
        self.process = subprocess.Popen(
            ["setpriv", f"--reuid={user}", f"--regid={user if user != 'nobody' else 'nogroup'}", "--clear-groups",
             "--", sys.executable, "-c", source],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/",
            env={"DBUS_SYSTEM_BUS_ADDRESS": os.environ["DBUS_SYSTEM_BUS_ADDRESS"], "PATH": os.environ["PATH"]})
        self.unique_name = json.loads(self.process.stdout.readline())

    def send(self, path, interface, member, body="()", interactive=False, with_socket=False, times=0,
             destination=NAME):
        """Makes the call; `receive` takes the outcome. body is a tuple in GVariant's text form."""
        interface = interface if "." in interface else f"{NAME}.{interface}"
        call = {"path": path, "interface": interface, "member": member, "body": body, "interactive": interactive,
                "with_socket": with_socket, "times": times, "destination": destination}
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()

    def receive(self):
        answer = json.loads(self.process.stdout.readline())
        if answer.get("error"):
            raise BusError(answer["error"], answer["values"][0] if answer["values"] else "")
        return answer.get("values")

    def call(self, *arguments, **keywords):
        self.send(*arguments, **keywords)
        return self.receive()

    def error(self, *arguments, **keywords):
        """The name of the error, "" where the call went through."""
        try:
            self.call(*arguments, **keywords)
        except BusError as error:
            return error.short
        return ""

    def commit(self, disk, **values):
        return self.call(disk.path, "Disk", "Commit", body(options(values)))[0]

    def kill(self):
        """Gone from the bus, in the middle of whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def body(*values):
    """The text form of a message's arguments, from GLib.Variants, dictionaries of options, and plain values."""
    def text(value):
        if isinstance(value, GLib.Variant):
            return value.print_(True)
        if isinstance(value, dict):
            return GLib.Variant("a{sv}", value).print_(True)
        if isinstance(value, str):
            return GLib.Variant("s", value).print_(True)
        raise TypeError(value)

    parts = [text(value) for value in values]
    return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"

