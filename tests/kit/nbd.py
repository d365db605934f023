# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that writes all the time: a small NBD client on an export of the disk.

Unlike writes through QEMU's own monitor, its requests simply wait while QEMU holds the disk at a pivot.
"""

import socket
import struct
import threading

from kit.images import KIB
from kit.waiting import DEADLINE

OPTION_MAGIC = 0x49484156454F5054
OPTION_EXPORT_NAME = 1
REQUEST_MAGIC = 0x25609513
REPLY_MAGIC = 0x67446698
WRITE, DISCONNECT, FLUSH = 1, 2, 3
RECORD = 4 * KIB


class NbdClient:
    def __init__(self, path, export):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(path)
        greeting = self._receive(18)
        assert greeting[:8] == b"NBDMAGIC", greeting
        # Fixed newstyle, and no zeroes after the export's data.
        self.socket.sendall(struct.pack(">I", 3))
        name = export.encode()
        self.socket.sendall(struct.pack(">QII", OPTION_MAGIC, OPTION_EXPORT_NAME, len(name)) + name)
        self.size, self.flags = struct.unpack(">QH", self._receive(10))

    def _receive(self, length):
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise ConnectionError("the NBD server closed the connection")
            data += part
        return data

    def _request(self, command, offset=0, data=b""):
        self.socket.sendall(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, command, 1, offset, len(data)) + data)
        magic, error, _ = struct.unpack(">IIQ", self._receive(16))
        assert magic == REPLY_MAGIC
        if error:
            raise OSError(error, f"NBD command {command} at {offset}")

    def write(self, offset, data):
        self._request(WRITE, offset, data)

    def flush(self):
        self._request(FLUSH)

    def close(self):
        self.socket.close()


class Writer(threading.Thread):
    """Writes numbered records round and round in one region, with a flush after each few.

    Afterwards `acknowledged` holds for every slot the number of the last record that was flushed, and
    `attempted` the last one that was sent: each slot of the right image holds one between the two.
    """

    def __init__(self, path, export, offset, slots):
        super().__init__(daemon=True)
        self.client = NbdClient(path, export)
        self.offset = offset
        self.slots = slots
        self.acknowledged = {}
        self.attempted = {}
        self.count = 0
        self.error = None
        self.stopping = threading.Event()
        self.progress = threading.Condition()
        self.start()

    @staticmethod
    def record(number):
        return struct.pack(">Q", number) * (RECORD // 8)

    def run(self):
        try:
            while not self.stopping.is_set():
                written = {}
                for _ in range(8):
                    self.count += 1
                    slot = self.count % self.slots
                    self.attempted[slot] = self.count
                    self.client.write(self.offset + slot * RECORD, self.record(self.count))
                    written[slot] = self.count
                self.client.flush()
                with self.progress:
                    self.acknowledged.update(written)
                    self.progress.notify_all()
                # A guest that does nothing but write would leave no processor for the rest of the test.
                self.stopping.wait(0.002)
        except OSError as error:
            self.error = error
        finally:
            with self.progress:
                self.progress.notify_all()

    def wait_more(self, records=64, deadline=DEADLINE):
        """Returns after so many more acknowledged records: the guest is writing, not held."""
        with self.progress:
            target = max(self.acknowledged.values(), default=0) + records
            came = self.progress.wait_for(
                lambda: self.error or max(self.acknowledged.values(), default=0) >= target, deadline)
        assert came and not self.error, f"the guest's writes stopped: {self.error or 'held'}"

    def stop(self):
        self.stopping.set()
        self.join(DEADLINE)
        assert not self.is_alive(), "a write of the guest hangs"
        self.client.close()

    def assert_all_in(self, contents):
        """Every acknowledged record is in these bytes, or a later one that was sent but not acknowledged."""
        assert self.acknowledged, "the guest wrote nothing"
        for slot, number in self.acknowledged.items():
            start = self.offset + slot * RECORD
            found, = struct.unpack(">Q", contents[start:start + 8])
            assert number <= found <= self.attempted[slot], f"slot {slot}: record {found}, acknowledged {number}"
            assert contents[start:start + RECORD] == self.record(found), f"slot {slot} is torn"
