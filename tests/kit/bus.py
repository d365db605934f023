# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of the system bus that keeps everything it hears, in the order in which it came over the wire."""

import contextlib
import os
import threading
import time
from typing import Any, NamedTuple

from gi.repository import Gio, GLib

from kit.waiting import DEADLINE

NAME = "org.blockjobd1"
ROOT = "/org/blockjobd1"
ERRORS = NAME + ".Error."
ACCESS_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
INTERACTION_REQUIRED = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
DRIVER = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class BusError(Exception):
    """An error reply: its name, and the message as it was sent."""

    def __init__(self, name, message):
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message

    @property
    def short(self):
        """The name within the project's own errors, or the whole one."""
        return self.name.removeprefix(ERRORS)


@contextlib.contextmanager
def refused(name, *words):
    """The block must end in this error (a name of ours, or a full one), with these words in its message."""
    holder = []
    try:
        yield holder
    except BusError as error:
        assert error.short == name, f"{error} instead of {name}"
        for word in words:
            assert str(word) in error.message, f"'{word}' is not in '{error.message}'"
        assert error.message and error.message[-1] != "\n"
        holder.append(error)
    else:
        raise AssertionError(f"went through, and {name} was due")


def variant(value):
    """The type that the contract gives to options: b, t, s; anything else as a GLib.Variant."""
    if isinstance(value, GLib.Variant):
        return value
    if isinstance(value, bool):
        return GLib.Variant("b", value)
    if isinstance(value, int):
        return GLib.Variant("t", value)
    return GLib.Variant("s", value)


def options(values):
    """A dictionary for a{sv}; underscores in names stand for hyphens, and None for an option not given."""
    return {name.replace("_", "-"): variant(value) for name, value in values.items() if value is not None}


class Heard(NamedTuple):
    """One message as it came in."""

    time: float
    kind: str  # signal, reply or error
    sender: str
    path: str
    interface: str
    member: str
    arguments: Any
    reply_serial: int


class Client:
    """A connection of its own. Signals are those of the name, as any client would ask for them."""

    def __init__(self, listen=True):
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
        address = os.environ["DBUS_SYSTEM_BUS_ADDRESS"]
        self.connection = Gio.DBusConnection.new_for_address_sync(address, flags, None, None)
        self.connection.set_exit_on_close(False)
        self.log = []
        self.news = threading.Condition()
        self.connection.add_filter(self._hear)
        if listen:
            self.driver("AddMatch", "(s)", f"type='signal',sender='{NAME}'")
            self.driver("AddMatch", "(s)", f"type='signal',sender='{DRIVER[0]}',member='NameOwnerChanged',arg0='{NAME}'")

    def _hear(self, connection, message, incoming, *_):
        # Runs in GDBus's own thread, once for each message, in their order.
        kinds = {Gio.DBusMessageType.SIGNAL: "signal", Gio.DBusMessageType.METHOD_RETURN: "reply",
                 Gio.DBusMessageType.ERROR: "error"}
        kind = kinds.get(message.get_message_type())
        if incoming and kind:
            body = message.get_body() if kind == "signal" else None
            heard = Heard(time.monotonic(), kind, message.get_sender(), message.get_path(),
                          message.get_interface(), message.get_member(), body.unpack() if body else (),
                          message.get_reply_serial())
            with self.news:
                self.log.append(heard)
                self.news.notify_all()
        return message

    def close(self):
        if not self.connection.is_closed():
            self.connection.close_sync(None)

    @property
    def unique_name(self):
        return self.connection.get_unique_name()

    # Calls.

    def message(self, path, interface, member, signature="()", *arguments, destination=NAME, interactive=False,
                descriptors=None):
        interface = interface if "." in interface else f"{NAME}.{interface}"
        message = Gio.DBusMessage.new_method_call(destination, path, interface, member)
        message.set_body(GLib.Variant(signature, arguments))
        if interactive:
            message.set_flags(Gio.DBusMessageFlags.ALLOW_INTERACTIVE_AUTHORIZATION)
        if descriptors:
            passed = Gio.UnixFDList.new()
            for descriptor in descriptors:
                passed.append(descriptor)  # a duplicate; new_from_array would take ours away
            message.set_unix_fd_list(passed)
        return message

    def call_message(self, message, timeout=60.0):
        """Sends a message that was made before; the reply as a message, which tells its place in the log."""
        reply, _ = self.connection.send_message_with_reply_sync(message, Gio.DBusSendMessageFlags.NONE,
                                                                int(timeout * 1000), None)
        if reply.get_message_type() == Gio.DBusMessageType.ERROR:
            body = reply.get_body()
            raise BusError(reply.get_error_name(), body.unpack()[0] if body and body.n_children() else "")
        return reply

    def call(self, path, interface, member, signature="()", *arguments, timeout=60.0, **keywords):
        """The reply's arguments as a tuple."""
        reply = self.call_message(self.message(path, interface, member, signature, *arguments, **keywords), timeout)
        body = reply.get_body()
        return body.unpack() if body else ()

    def call_later(self, path, interface, member, signature="()", *arguments, **keywords):
        """Sends without waiting; `wait_reply` takes what comes back."""
        message = self.message(path, interface, member, signature, *arguments, **keywords)
        _, serial = self.connection.send_message(message, Gio.DBusSendMessageFlags.NONE)
        return serial

    def wait_reply(self, serial, deadline=DEADLINE):
        return self.wait(lambda heard: heard.reply_serial == serial and heard.kind != "signal",
                         f"a reply to message {serial}", deadline)

    def driver(self, member, signature="()", *arguments):
        name, path, interface = DRIVER
        return self.call(path, interface, member, signature, *arguments, destination=name)

    def get(self, path, interface, name):
        return self.call(path, PROPERTIES, "Get", "(ss)", f"{NAME}.{interface}", name)[0]

    def get_all(self, path, interface):
        return self.call(path, PROPERTIES, "GetAll", "(s)", f"{NAME}.{interface}")[0]

    def managed_objects(self):
        return self.call(ROOT, OBJECT_MANAGER, "GetManagedObjects")[0]

    def introspect(self, path):
        return self.call(path, "org.freedesktop.DBus.Introspectable", "Introspect")[0]

    def name_owner(self):
        try:
            return self.driver("GetNameOwner", "(s)", NAME)[0]
        except BusError:
            return ""

    # What was heard.

    def position(self):
        """A place in the log: what comes from now on is behind it."""
        with self.news:
            return len(self.log)

    def heard(self, path=None, member=None, since=0, where=None):
        with self.news:
            return [heard for heard in self.log[since:] if heard.kind == "signal"
                    and (path is None or heard.path == path) and (member is None or heard.member == member)
                    and (where is None or where(heard))]

    def wait(self, condition, what, deadline=DEADLINE, since=0):
        """The first message in the log, from `since` on, for which the condition holds."""
        end = time.monotonic() + deadline
        position = since
        with self.news:
            while True:
                for heard in self.log[position:]:
                    if condition(heard):
                        return heard
                position = len(self.log)
                left = end - time.monotonic()
                if left <= 0 or not self.news.wait(left):
                    tail = "\n".join(str(heard[1:7]) for heard in self.log[-12:] if heard.kind == "signal")
                    raise AssertionError(f"not within {deadline:g} s: {what}; last signals:\n{tail}")

    def wait_signal(self, path, member, deadline=DEADLINE, since=0, where=None):
        return self.wait(lambda heard: heard.kind == "signal" and heard.path == path and heard.member == member
                         and (where is None or where(heard)), f"signal {member} of {path}", deadline, since)

    def wait_property(self, path, interface, name, value, deadline=DEADLINE):
        """Waits for a value, by signals alone: a change that is not told is a fault, and is reported as one.

        value is the value itself or a condition on it.
        """
        fits = value if callable(value) else lambda current: current == value
        position = self.position()
        current = self.get(path, interface, name)
        end = time.monotonic() + deadline
        while not fits(current):
            try:
                change = self.wait(
                    lambda heard: heard.kind == "signal" and heard.path == path
                    and heard.member == "PropertiesChanged" and heard.arguments[0] == f"{NAME}.{interface}"
                    and (name in heard.arguments[1] or name in heard.arguments[2]),
                    f"{name} of {path} to change (is {current!r})", end - time.monotonic(), position)
            except AssertionError:
                late = self.get(path, interface, name)
                if fits(late):
                    raise AssertionError(f"{name} of {path} became {late!r} without a PropertiesChanged") from None
                raise
            position = self.log.index(change, position) + 1
            current = change.arguments[1][name] if name in change.arguments[1] else self.get(path, interface, name)
        return current
