# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of the bus that unpacks nothing: it reads as many bytes as a message's header says, and that is all.

GDBus makes an object of each value of a reply before the caller has it, Python one more, and of what 1,000 domains
have to say that takes longer than saying it. busctl and sd-bus put off the unpacking, but the time of one call cannot
be had from busctl, and a program in C would have to be built before anything is measured.
"""

import os
import re
import socket
import struct

from gi.repository import Gio

from kit.bus import DRIVER, BusError, Client
from kit.waiting import DEADLINE

METHOD_RETURN, ERROR, SIGNAL = 2, 3, 4
HEADER = 16


class Wire:
    def __init__(self):
        self.made_by = Client(listen=False)  # makes the messages
        self.serial = 0
        self.buffer = b""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(3 * DEADLINE)
        self.socket.connect(re.match("unix:path=([^,]+)", os.environ["DBUS_SYSTEM_BUS_ADDRESS"])[1])
        self.socket.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        assert self.socket.recv(1024).startswith(b"OK "), "the bus does not know us"
        self.socket.sendall(b"BEGIN\r\n")
        self.driver("Hello")

    def close(self):
        self.socket.close()
        self.made_by.close()

    def message(self, *arguments, **keywords):
        """As Client.message; its bytes, which may be sent as often as one likes."""
        message = self.made_by.message(*arguments, **keywords)
        self.serial += 1
        message.set_serial(self.serial)
        return bytes(message.to_blob(Gio.DBusCapabilityFlags.NONE))

    def send(self, message):
        self.socket.sendall(message)

    def _take(self, size):
        """So many bytes of what comes; straight into their place, where they are many."""
        taken = bytearray(size)
        ready = min(size, len(self.buffer))
        taken[:ready], self.buffer = self.buffer[:ready], self.buffer[ready:]
        view = memoryview(taken)
        while ready < size:
            if size - ready >= 1 << 16:
                got = self.socket.recv_into(view[ready:])
            else:
                more = self.socket.recv(1 << 16)
                got = min(len(more), size - ready)
                view[ready:ready + got], self.buffer = more[:got], more[got:]
            if not got:
                raise ConnectionError("the bus closed the connection")
            ready += got
        return taken

    def _next(self):
        """(type, fields, body) of the next message, as they came."""
        header = self._take(HEADER)
        length, _, fields = struct.unpack_from("<III", header, 4)
        assert header[0] == ord("l"), "a message of another byte order"
        return header[1], self._take((fields + 7) // 8 * 8), self._take(length)

    def wait_reply(self):
        """The body of the next reply to any call."""
        while True:
            kind, fields, body = self._next()
            if kind == ERROR:
                raise BusError("in a benchmark", f"{bytes(fields)} {bytes(body)}")
            if kind == METHOD_RETURN:
                return body

    def driver(self, member, *arguments):
        name, path, interface = DRIVER
        return self.call(self.message(path, interface, member, *arguments, destination=name))

    def listen(self, rule):
        self.driver("AddMatch", "(s)", rule)

    def wait_signal(self):
        """Until the next signal has come."""
        while self._next()[0] != SIGNAL:
            pass

    def call(self, message):
        self.send(message)
        return self.wait_reply()

    def call_all(self, messages, at_once):
        """All of them, with so many under way at a time."""
        for number, message in enumerate(messages):
            if number >= at_once:
                self.wait_reply()
            self.send(message)
        for _ in range(min(len(messages), at_once)):
            self.wait_reply()
