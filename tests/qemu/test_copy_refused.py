# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies that cannot be: refused by a method error, and nothing of the attempt is left anywhere."""

import os
import re
import signal
import socket

import pytest
from gi.repository import GLib

from kit import images
from kit.bus import ROOT, BusError, refused
from kit.chains import ReadOnlyMount
from kit.images import KIB, MIB, Layer, SIZE
from kit.objects import Job
from kit.space import SmallDisk
from kit.targets import SLOWLY, NbdServer, assert_disk, assert_free, prepare, read_file


def files(directory):
    """Every file below, with what tells whether it is another one by now."""
    found = {}
    for where, _, names in os.walk(directory):
        for name in names:
            status = os.lstat(f"{where}/{name}")
            found[f"{where}/{name}"] = status.st_ino, status.st_size, status.st_mtime_ns
    return {name: what for name, what in found.items() if not re.search(r"\.(output|monitor|own|socket)$", name)}


class Untouched:
    """A disk that cannot be copied to somewhere, whatever is tried."""

    def __init__(self, lab):
        self.lab = lab
        self.machine, self.chain, self.disk = lab.standard()
        self.path = f"{lab.directory}/target"

    def assert_refused(self, name, cases):
        """For each (target, options, word) of the cases: this error, with the word in it; and all is as it was."""
        wrong = []
        nodes, before = self.machine.nodes().keys(), files(self.lab.directory)
        position = self.lab.client.position()
        for target, values, word in cases:
            try:
                with refused(name, word):
                    self.disk.copy(target, **values)
            except AssertionError as error:
                wrong.append(f"{target} {values}: {error}")
            if self.machine.nodes().keys() != nodes or self.machine.jobs() or files(self.lab.directory) != before \
                    or self.disk["Job"] != "/":
                wrong.append(f"{target} {values}: something is left")
                break
        assert not wrong, "\n".join(wrong)
        assert not self.lab.client.heard(ROOT, "JobNew", position)
        assert self.disk.sources() == self.chain.paths()

    def assert_usable(self):
        """The next copy goes through, to where nothing was before."""
        self.disk.copy(f"{self.path}-after", auto="pivot").wait_completed("completed")
        assert_disk(self.machine, self.disk, f"{self.path}-after")
        self.machine.quit()
        images.assert_contents(Layer(f"{self.path}-after", "qcow2", SIZE), self.chain.contents[-1])


@pytest.fixture
def untouched(lab):
    untouched = Untouched(lab)
    yield untouched
    untouched.assert_usable()


# Options.

def unsigned(value):
    return GLib.Variant("u", value)


def test_options(untouched):
    cases = [
        ({"format": "vmdk"}, "format"), ({"format": ""}, "format"), ({"auto": "now"}, "auto"),
        ({"mode": "fast"}, "mode"), ({"mode": ""}, "mode"), ({"speed": 1 << 63}, "speed"),
        ({"buffer": 1 << 63}, "buffer"), ({"on_source_error": "never"}, "on-source-error"),
        ({"on_target_error": ""}, "on-target-error"), ({"active": True}, "active"), ({"sync": "top"}, "sync"),
        ({"on_error": "stop"}, "on-error"), ({"reuse": "yes"}, "reuse"), ({"shallow": 1}, "shallow"),
        ({"granularity": 64 * KIB}, "granularity"), ({"granularity": GLib.Variant("i", 512)}, "granularity"),
        ({"buffer": unsigned(MIB)}, "buffer"), ({"speed": "1M"}, "speed"), ({"relative": 1}, "relative"),
    ] + [({"granularity": unsigned(value)}, "granularity")
         for value in (0, 1, 256, 511, 513, 768, 64 * MIB + 1, 96 * MIB, 128 * MIB, (1 << 32) - 1)]
    untouched.assert_refused("InvalidArgument", [(untouched.path, *case) for case in cases])


def test_options_that_exclude_each_other(untouched):
    there = prepare(f"{untouched.path}-there", backing=untouched.chain.base.path).path
    path = untouched.path
    untouched.assert_refused("InvalidArgument", [
        (path, {"format": "raw", "shallow": True}, "raw"), (path, {"relative": True}, "relative"),
        (path, {"relative": True, "shallow": False}, "relative"),
        (there, {"relative": True, "shallow": True, "reuse": True}, "relative"),
    ])


# Names.

def test_names(untouched):
    names = ["", "target.qcow2", "./target", "../target", "nbd", "nbdx:unix:/x", "http://example.org/x", "https://x/y",
             "ftp://example.org/x", "ssh://example.org/x", "file:/tmp/x", "fat:rw:/tmp", "null-co://",
             "blkdebug::/tmp/x", "json:{\"driver\":\"file\",\"filename\":\"/tmp/x\"}", "gluster://h/v/i", "nfs://h/x",
             "vvfat:/x", "iscsi", "NBD+UNIX", "nbd://", "nbd+unix:///disk", "nbd+unix:///disk?socket=relative",
             "nbd://host:99999/disk"]
    untouched.assert_refused("InvalidArgument", [(name, {"format": "raw", "reuse": True}, name) for name in names])


def test_protocol_that_is_not_there(untouched):
    """Whether QEMU was built without it, or has no module for it at hand: it says so."""
    for name in ("rbd:pool/image", "iscsi://127.0.0.1:1/iqn.2000-01.org.example:disk/0"):
        with pytest.raises(BusError) as error:
            untouched.disk.copy(name, format="raw", reuse=True)
        assert error.value.short in ("NotSupported", "QemuError") and name in error.value.message
        assert untouched.machine.jobs() == {}
        assert {name for name in untouched.machine.nodes() if not name.startswith("vda-")} == set()


def test_what_is_no_file(lab, untouched):
    """A FIFO would hold whoever opens it."""
    os.mkfifo(untouched.path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{untouched.path}.socket")
    cases = [(where, {"reuse": reuse}, where) for reuse in (False, True)
             for where in (untouched.path, f"{untouched.path}.socket", lab.directory, "/", "/dev/null")]
    untouched.assert_refused("InvalidArgument", cases)
    listener.close()


def test_directory(lab, untouched):
    with open(f"{lab.directory}/file", "w"):
        pass
    paths = [f"{lab.directory}/missing/target", f"{lab.directory}/file/target", f"{lab.directory}/new/",
             f"{lab.directory}/" + "x" * 256]
    untouched.assert_refused("InvalidArgument", [(path, {}, path) for path in paths])


def test_directory_that_is_read_only(lab, untouched):
    directory = f"{lab.directory}/sub"
    os.mkdir(directory)
    there = prepare(f"{directory}/there").path
    mount = ReadOnlyMount(directory)
    try:
        word = "Read-only file system"
        untouched.assert_refused("QemuError", [(f"{directory}/new", {}, word), (f"{directory}/new", {}, "sub/new"),
                                               (there, {"reuse": True}, word)])
    finally:
        mount.remove()


def test_directory_that_is_full(lab, untouched):
    """What was created and came no further is removed again."""
    small = SmallDisk(f"{lab.directory}/small", 64)
    try:
        small.fill()
        untouched.assert_refused("NoSpace", [(f"{small.path}/new", {}, "small/new"),
                                             (f"{small.path}/new", {"shallow": True}, os.strerror(28))])
    finally:
        small.remove()


def test_start_that_fails_at_last(untouched):
    """All is prepared when QEMU refuses the job itself: another node of somebody's stands on the disk."""
    execute = untouched.machine.qmp.execute
    execute("blockdev-add", driver="raw", node_name="theirs", file="vda-1", read_only=True)
    try:
        for values in ({}, {"format": "raw"}, {"shallow": True}):
            untouched.assert_refused("QemuError", [(untouched.path, values, "root")])
        there = prepare(untouched.path)
        content = read_file(there.path)
        untouched.assert_refused("QemuError", [(untouched.path, {"reuse": True}, "root")])
        assert read_file(there.path) == content
        assert_free(there.path)
    finally:
        execute("blockdev-del", node_name="theirs")


# What is there already, or is not.

def test_file_that_exists(untouched):
    """Whatever is in it; what a symbolic link leads to counts as well."""
    there = prepare(untouched.path, pattern=77).path
    os.symlink(there, f"{there}-link")
    open(f"{there}-empty", "w").close()
    untouched.assert_refused("Exists", [(f"{there}{end}", values, f"{there}{end}") for end in ("", "-link", "-empty")
                                        for values in ({}, {"reuse": False}, {"format": "raw"}, {"shallow": True})])


def test_reuse_of_nothing(lab, untouched):
    os.symlink(f"{lab.directory}/nowhere", f"{lab.directory}/link")
    untouched.assert_refused("NoSuchImage", [(path, {"reuse": True, **values}, path)
                                             for path in (untouched.path, f"{lab.directory}/link")
                                             for values in ({}, {"shallow": True})])


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_size(untouched, image_format):
    for end, size in (("-smaller", SIZE - 512), ("-larger", SIZE + 512), ("-empty", 0)):
        there = prepare(f"{untouched.path}{end}", image_format, size)
        values = {"reuse": True, "format": image_format}
        untouched.assert_refused("InvalidArgument", [(there.path, values, word) for word in (there.path, size, SIZE)])
        assert images.information(there)["virtual-size"] == size


def test_format_that_it_has_not(untouched):
    """What is said of it counts, not what it looks like."""
    raw = prepare(f"{untouched.path}-raw", "raw").path
    qcow2 = prepare(f"{untouched.path}-qcow2").path
    untouched.assert_refused("QemuError", [(raw, {"reuse": True}, raw)])
    untouched.assert_refused("InvalidArgument", [(qcow2, {"reuse": True, "format": "raw"}, SIZE)])


def test_chain_that_cannot_be(untouched):
    """What a prepared shallow target shall stand on is for its header to say, by the name of a local image."""
    names = [(), ("-b", "nbd://127.0.0.1:1/disk", "-F", "raw"), ("-b", "json:{\"driver\":\"null-co\"}", "-F", "raw"),
             ("-b", "base.vmdk", "-F", "vmdk"), ("-b", "file:base.qcow2", "-F", "qcow2")]
    for number, arguments in enumerate(names):
        there = f"{untouched.path}-{number}"
        images.run("qemu-img", "create", "-q", "-f", "qcow2", "-u", *arguments, there, str(SIZE))
        content = read_file(there)
        untouched.assert_refused("InvalidArgument", [(there, {"shallow": True, "reuse": True}, word)
                                                     for word in (there, *arguments[1:2])])
        assert read_file(there) == content


def test_image_of_the_disk_itself(untouched):
    """Under whatever name."""
    names = []
    for layer in untouched.chain.layers:
        folder, name = os.path.split(layer.path)
        os.link(layer.path, f"{layer.path}-hard")
        os.symlink(layer.path, f"{layer.path}-soft")
        names += [layer.path, f"{layer.path}-hard", f"{layer.path}-soft",
                  f"{folder}/../{os.path.basename(folder)}/{name}"]
    untouched.assert_refused("InvalidArgument", [(name, values, name) for name in names
                                                 for values in ({"reuse": True}, {"reuse": True, "shallow": True})])
    for name in names:
        with pytest.raises(BusError) as error:
            untouched.disk.copy(name)
        assert error.value.short in ("Exists", "InvalidArgument")


# In use.

def one_layer(lab, layer):
    chain = images.Chain(lab.directory)
    chain.layers.append(layer)
    chain.contents.append(images.Contents(SIZE))
    return chain


@pytest.mark.parametrize("attached", [False, True], ids=["unknown", "attached"])
def test_image_of_another_machine(lab, untouched, attached):
    there = prepare(untouched.path)
    other = lab.machine().add_virtio(one_layer(lab, there)).start()
    if attached:
        lab.attach(other)
    untouched.assert_refused("ImageInUse", [(there.path, {"reuse": True}, other.name if attached else there.path)])
    other.quit()
    # A machine that is off needs its images the next time.
    if attached:
        lab.domain_of(other).wait("State", "shutoff")
        untouched.assert_refused("ImageInUse", [(there.path, {"reuse": True}, other.name)])
        lab.domain_of(other).detach()
        lab.attached.remove(other.name)
    untouched.disk.copy(there.path, reuse=True, auto="keep").wait_completed("kept")


@pytest.mark.parametrize("layer", [0, 1])
def test_image_of_another_disk(lab, layer):
    """Its active layer, and one below, by another name for good measure."""
    chains = {target: images.two_layers(lab.directory, target) for target in ("vda", "vdb")}
    machine = lab.machine().add_virtio(chains["vda"]).add_virtio(chains["vdb"], "vdb").start()
    disk = lab.attach(machine).disk("vda")
    path = f"{lab.directory}/link"
    os.link(chains["vdb"].layers[layer].path, path)
    with refused("ImageInUse", path, "vdb"):
        disk.copy(path, reuse=True)
    assert len(machine.nodes()) == 8 and machine.jobs() == {}
    machine.quit()
    images.assert_contents(chains["vdb"].top, chains["vdb"].contents[-1])


def test_target_of_another_job(lab):
    """Two disks into one image: the second is told so, whether the first has just begun or is ready."""
    chains = {target: images.slow_layers(lab.directory, target) for target in ("vda", "vdb")}
    machine = lab.machine().add_virtio(chains["vda"]).add_virtio(chains["vdb"], "vdb").start()
    domain = lab.attach(machine)
    path = f"{lab.directory}/target"
    job = domain.disk("vda").copy(path, **SLOWLY)
    other = domain.disk("vdb")
    for _ in range(2):
        with refused("Exists", path):
            other.copy(path)
        with refused("ImageInUse", path):
            other.copy(path, reuse=True)
        assert other["Job"] == "/" and len(machine.jobs()) == 1
        job.set_speed(0)
        job.wait_ready()
    job.pivot()
    with refused("ImageInUse", path, "vda"):
        other.copy(path, reuse=True)
    machine.quit()
    images.assert_contents(Layer(path, "qcow2", SIZE), chains["vda"].contents[-1])


def test_two_copies_into_one_file_at_once(lab):
    """Both calls are under way before either has an answer: one gets a job, and the file that this one writes is there
    under its name, since what the other one undoes is not that."""
    chains = {target: images.two_layers(lab.directory, target) for target in ("vda", "vdb")}
    machine = lab.machine().add_virtio(chains["vda"]).add_virtio(chains["vdb"], "vdb").start()
    domain = lab.attach(machine)
    path = f"{lab.directory}/target"
    disks = [domain.disk(target) for target in chains]
    for held in (True, False, True, False):
        if held:
            # QEMU answers neither before both have come.
            machine.process.send_signal(signal.SIGSTOP)
        calls = [lab.client.call_later(disk.path, "Disk", "Copy", "(sa{sv})", path, {}) for disk in disks]
        assert domain["Jobs"] == []
        machine.process.send_signal(signal.SIGCONT)
        kinds = [lab.client.wait_reply(call).kind for call in calls]
        assert sorted(kinds) == ["error", "reply"]
        assert os.path.exists(path), "the other one has removed the file"
        assert disks[kinds.index("error")]["Job"] == "/"
        winner = kinds.index("reply")
        job = Job(lab.client, disks[winner]["Job"])
        job.wait_ready()
        job.abort()
        job.wait_completed("kept")
        images.assert_contents(Layer(path, "qcow2", SIZE), list(chains.values())[winner].contents[-1])
        os.unlink(path)
        assert not os.path.exists(path) and machine.jobs() == {} and len(machine.nodes()) == 8


def test_job_of_somebody_else_on_the_disk(lab):
    machine, _, disk = lab.slow()
    machine.qmp.execute("block-commit", job_id="theirs", device="vda-1", top_node="vda-1", base_node="vda-0",
                        speed=65536, auto_dismiss=False)
    with refused("JobActive", "theirs"):
        disk.copy(f"{lab.directory}/target")
    assert list(machine.jobs()) == ["theirs"] and not os.path.exists(f"{lab.directory}/target")


def test_disk_that_is_not_there(lab):
    machine = lab.machine().add_empty_cd("cd").add_virtio(images.two_layers(lab.directory)).start()
    domain = lab.attach(machine)
    with refused("InvalidState", "cd"):
        domain.disk("cd").copy(f"{lab.directory}/target")
    disk = domain.disk("vda")
    machine.quit()
    domain.wait("State", "shutoff")
    with refused("InvalidState"):
        disk.copy(f"{lab.directory}/target")
    assert not os.path.exists(f"{lab.directory}/target")


# Servers.

def test_servers(untouched):
    there = prepare(untouched.path, "raw")
    smaller = prepare(f"{untouched.path}-smaller", "raw", SIZE - 512)
    values = {"format": "raw", "reuse": True}
    with NbdServer(there.path) as server, NbdServer(smaller.path, tcp=True) as small, \
            NbdServer(f"{there.path}", tcp=True, writable=False) as read_only:
        other = server.uri.replace("/disk?", "/other?")
        untouched.assert_refused("InvalidArgument", [(small.uri, values, word) for word in (SIZE, SIZE - 512)])
        untouched.assert_refused("QemuError", [(other, values, other), (read_only.uri, values, read_only.uri),
                                               (server.uri, {"reuse": True}, server.uri)])
        server.stop()
        untouched.assert_refused("QemuError", [(server.uri, values, server.uri)])


def test_server_that_does_not_greet(untouched):
    """It accepts and says nothing: QEMU waits for that with all that it does, and the caller is told in the end."""
    there = prepare(untouched.path, "raw")
    with NbdServer(there.path) as server:
        server.hold()
        call = untouched.lab.client.call_later(untouched.disk.path, "Disk", "Copy", "(sa{sv})", server.uri,
                                               {"format": GLib.Variant("s", "raw"), "reuse": GLib.Variant("b", True)})
        server.kill()
        assert untouched.lab.client.wait_reply(call).kind == "error"
    untouched.machine.qmp.execute("query-status")
    assert untouched.disk["Job"] == "/" and untouched.machine.jobs() == {}
