# SPDX-License-Identifier: LGPL-2.1-or-later
"""An authentication agent: what asks the user for a password. Here a test answers, or lets the question stand."""

import os
import threading
import time

from gi.repository import Gio, GLib

from kit.waiting import DEADLINE

POLKIT = "org.freedesktop.PolicyKit1"
AUTHORITY = "/org/freedesktop/PolicyKit1/Authority"
AGENT_PATH = "/org/blockjobd1/tests/Agent"
AGENT_INTERFACE = """
<node><interface name="org.freedesktop.PolicyKit1.AuthenticationAgent">
  <method name="BeginAuthentication">
    <arg type="s" direction="in"/><arg type="s" direction="in"/><arg type="s" direction="in"/>
    <arg type="a{ss}" direction="in"/><arg type="s" direction="in"/><arg type="a(sa{sv})" direction="in"/>
  </method>
  <method name="CancelAuthentication"><arg type="s" direction="in"/></method>
</interface></node>
"""


class Question:
    def __init__(self, arguments, invocation):
        self.action, self.message, _, self.details, self.cookie, self.identities = arguments
        self.invocation = invocation
        self.cancelled = False


class Agent:
    """Registered for one process, whose questions come here. Root may register for others, and answer."""

    def __init__(self, pid):
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
        self.connection = Gio.DBusConnection.new_for_address_sync(os.environ["DBUS_SYSTEM_BUS_ADDRESS"], flags,
                                                                  None, None)
        self.connection.set_exit_on_close(False)
        self.questions = []
        self.news = threading.Condition()
        self.context = GLib.MainContext()
        self.loop = GLib.MainLoop.new(self.context, False)
        self.context.push_thread_default()
        interface = Gio.DBusNodeInfo.new_for_xml(AGENT_INTERFACE).interfaces[0]
        self.connection.register_object(AGENT_PATH, interface, self._called, None, None)
        self.context.pop_thread_default()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.subject = self._subject_of(pid)
        self._authority("RegisterAuthenticationAgent", "((sa{sv})ss)", self.subject, "C", AGENT_PATH)

    @staticmethod
    def _subject_of(pid):
        with open(f"/proc/{pid}/stat") as stat:
            start_time = int(stat.read().rpartition(")")[2].split()[19])
        uid = os.stat(f"/proc/{pid}").st_uid
        return ("unix-process", {"pid": GLib.Variant("u", pid), "start-time": GLib.Variant("t", start_time),
                                 "uid": GLib.Variant("i", uid)})

    def _run(self):
        self.context.push_thread_default()
        self.loop.run()

    def _authority(self, member, signature, *arguments):
        return self.connection.call_sync(POLKIT, AUTHORITY, f"{POLKIT}.Authority", member,
                                         GLib.Variant(signature, arguments), None, 0, 20000, None)

    def _called(self, connection, sender, path, interface, method, parameters, invocation):
        with self.news:
            if method == "BeginAuthentication":
                # No reply as long as the question is open.
                self.questions.append(Question(parameters.unpack(), invocation))
            else:
                cookie, = parameters.unpack()
                for question in self.questions:
                    question.cancelled |= question.cookie == cookie
                invocation.return_value(None)
            self.news.notify_all()

    def wait_question(self, number=0, deadline=DEADLINE):
        """The question of this number, counted from 0 in the order in which they came."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.questions) > number, deadline), "nobody was asked"
            return self.questions[number]

    def wait_cancelled(self, question, deadline=DEADLINE):
        with self.news:
            assert self.news.wait_for(lambda: question.cancelled, deadline), "the question still stands"

    def allow(self, question):
        """As if the administrator had typed the right password."""
        self._authority("AuthenticationAgentResponse2", "(us(sa{sv}))", 0, question.cookie,
                        ("unix-user", {"uid": GLib.Variant("u", 0)}))
        question.invocation.return_value(None)

    def deny(self, question):
        """As if the dialog had been closed."""
        question.invocation.return_dbus_error(f"{POLKIT}.Error.Cancelled", "dismissed")

    def close(self):
        self.loop.quit()
        self.connection.close_sync(None)
        self.thread.join(5)


def wait_polkit(connection, deadline=DEADLINE):
    """polkitd is on the bus; for after it was started again."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        owned = connection.call_sync("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                     "NameHasOwner", GLib.Variant("(s)", (POLKIT,)), None, 0, 5000, None)
        if owned.unpack()[0]:
            return
        time.sleep(0.02)
    raise AssertionError("polkitd did not come back")
