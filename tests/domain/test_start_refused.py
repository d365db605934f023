# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starts that come to nothing: the caller is told why, nothing is left running, and the next start can go well."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest
from kit import images
from kit.bus import ROOT, BusError, refused
from kit.own import USER, disk_xml, domain_xml, give, processes_of_the_user
from kit.waiting import wait_until


@pytest.fixture(autouse=True)
def nothing_is_left(own):
    yield
    own.lab.service.ensure()
    own.clean()
    wait_until(lambda: not processes_of_the_user(), f"the end of {processes_of_the_user()}")


def assert_off(domain, chain=None):
    assert (domain["State"], domain["Pid"], domain["Jobs"]) == ("shutoff", 0, [])
    if chain:
        assert domain.disk().sources() == chain.paths()


# Images.

def test_image_that_is_not_there_yet(own):
    """Any time before the start will do."""
    chain = images.Chain(own.directory)
    path = f"{own.directory}/disk-0.qcow2"
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(path)))
    assert domain.disk().sources() == [path]
    with refused("NoSuchImage", path, "vda", domain["Name"]):
        domain.start()
    assert_off(domain)
    with refused("NoSuchImage", path):
        domain.disk().pull()
    own.give(chain.add([(1, 0, images.MIB)]))
    domain.start()
    assert domain["State"] == "running" and domain.disk()["Capacity"] == images.SIZE


def test_backing_image_that_is_not_there(own):
    chain = images.layers(own.directory, 3)
    domain, disk = own.standard(chain)
    os.rename(chain.base.path, chain.base.path + ".away")
    with refused("NoSuchImage", chain.base.path, chain.layers[1].path, "vda"):
        domain.start()
    assert_off(domain)
    os.rename(chain.base.path + ".away", chain.base.path)
    domain.start()
    assert disk.sources() == chain.paths()


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.close()


def make_loop(path):
    os.symlink(path, path)


def make_terminal(path):
    os.symlink("/dev/zero", path)


@pytest.mark.parametrize("make, words", [(make_fifo, ["FIFO"]), (os.mkdir, ["directory"]), (make_socket, ["socket"]),
                                         (make_terminal, ["character device"]), (make_loop, ["symbolic links"])])
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_image_that_is_no_file(own, make, words, image_format):
    path = f"{own.directory}/vda"
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(path, image_format=image_format)))
    make(path)
    begin = time.monotonic()
    with refused("InvalidArgument", path, "vda", *words):
        domain.start()
    with refused("InvalidArgument", path, *words):
        domain.disk().pull()
    assert time.monotonic() - begin < 5, "it waited for a writer of the FIFO"
    assert_off(domain)


def test_format_is_not_what_the_header_says(own):
    """Raw can be anything. qcow2 is only what says so, or a guest could make its disk one."""
    raw = images.Chain(own.directory, "raw").add([(1, 0, images.MIB)], image_format="raw")
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(own.give(raw).top.path)))
    with refused("InvalidArgument", raw.top.path, "qcow2"):
        domain.start()
    assert_off(domain)
    # The other way round the file is the disk, header and all.
    chain = own.give(images.two_layers(own.directory, "hidden"))
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path, image_format="raw")))
    domain.start()
    assert domain.disk().sources() == [chain.top.path] and domain.disk()["Format"] == "raw"
    assert domain.disk()["Capacity"] == os.path.getsize(chain.top.path)


def test_format_that_is_not_said_is_raw(own):
    """As with libvirt: nothing is guessed from what a guest can write."""
    chain = own.give(images.two_layers(own.directory))
    disk = disk_xml(chain.top.path).replace("<driver name='qemu' type='qcow2'/>", "")
    domain = own.define(domain_xml(own.lab.unique_name(), disk))
    domain.start()
    assert domain.disk()["Format"] == "raw" and domain.disk().sources() == [chain.top.path]


def test_header_that_is_cut_off(own):
    chain = own.give(images.two_layers(own.directory))
    domain, _ = own.standard(chain)
    os.truncate(chain.top.path, 60)
    with refused("InvalidArgument", chain.top.path):
        domain.start()
    assert_off(domain)


@pytest.mark.parametrize("where", ["image", "backing", "directory"])
def test_image_of_another_user(own, where):
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    path = {"image": chain.top.path, "backing": chain.base.path, "directory": own.directory}[where]
    os.chown(path, 0, 0)
    os.chmod(path, 0o644 if where == "image" else 0o700 if where == "directory" else 0o600)
    with refused("InvalidArgument", path, USER, "vda", "Permission denied"):
        domain.start()
    assert_off(domain)
    give(path)
    os.chmod(path, 0o755 if where == "directory" else 0o600)
    domain.start()
    assert disk.sources() == chain.paths()


def test_image_that_can_only_be_read(own):
    """Enough for a disk that is read only, and for a CD."""
    chain = images.two_layers(own.directory)
    own.give(chain)
    for path in chain.paths():
        os.chown(path, 0, 0)
        os.chmod(path, 0o644)
    disks = [disk_xml(chain.top.path, inside="<readonly/>"),
             disk_xml(chain.top.path, target="hda", bus="ide", device="cdrom")]
    domain = own.define(domain_xml(own.lab.unique_name(), *disks))
    domain.start()
    assert [domain.disk(target)["ReadOnly"] for target in ("vda", "hda")] == [True, True]


# Images of two domains.

def pair_on_one_image(own, first="", second=""):
    chain = own.give(images.two_layers(own.directory))
    return chain, *(own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path, inside=inside)))
                    for inside in (first, second))


@pytest.mark.parametrize("inside", ["", "<readonly/>", "<shareable/>"])
def test_two_domains_with_one_writable_image(own, inside):
    """One that writes has it alone, also where the other would not write or would share it."""
    chain, one, two = pair_on_one_image(own, "", inside)
    for first, second in ((one, two), (two, one)):
        first.start()
        with refused("ImageInUse", chain.top.path, "vda", second["Name"], first["Name"]):
            second.start()
        assert_off(second)
        assert first["State"] == "running"
        first.destroy()
    two.start()


def test_one_image_at_once(own, client):
    chain, one, two = pair_on_one_image(own)
    calls = [client.call_later(domain.path, "Domain", "Start", "(a{sv})", {}) for domain in (one, two)]
    assert sorted(client.wait_reply(call).kind for call in calls) == ["error", "reply"]
    assert sorted(domain["State"] for domain in (one, two)) == ["running", "shutoff"]


@pytest.mark.parametrize("inside", ["<readonly/>", "<shareable/>"])
def test_image_that_two_may_have(own, inside):
    chain = own.give(images.Chain(own.directory).add([(1, 0, images.MIB)], image_format="raw"))
    domains = [own.define(domain_xml(own.lab.unique_name(),
                                     disk_xml(chain.top.path, image_format="raw", inside=inside))) for _ in range(2)]
    for domain in domains:
        domain.start()
    assert [domain["State"] for domain in domains] == ["running", "running"]


def test_image_that_is_anothers_backing_image(own):
    """What is under an overlay that runs is not written by anybody; two overlays of one base are fine."""
    chain = images.two_layers(own.directory)
    images.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", chain.base.path, "-F", "qcow2",
               f"{own.directory}/second.qcow2")
    own.give(chain)
    give(f"{own.directory}/second.qcow2")
    top, second, base = (own.define(domain_xml(own.lab.unique_name(), disk_xml(path)))
                         for path in (chain.top.path, f"{own.directory}/second.qcow2", chain.base.path))
    top.start()
    second.start()
    with refused("ImageInUse", chain.base.path, top["Name"]):
        base.start()
    top.destroy()
    with refused("ImageInUse", chain.base.path, second["Name"]):
        base.start()
    second.destroy()
    base.start()
    with refused("ImageInUse", chain.base.path, base["Name"]):
        top.start()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_image_by_another_name(own, link):
    """It is the file that counts."""
    chain = own.give(images.two_layers(own.directory))
    other = f"{own.directory}/other-name.qcow2"
    link(chain.top.path, other)
    one, two = (own.define(domain_xml(own.lab.unique_name(), disk_xml(path))) for path in (chain.top.path, other))
    one.start()
    with refused("ImageInUse", two["Name"]):
        two.start()
    assert_off(two)
    one.destroy()
    two.start()


def test_image_of_an_attached_domain(own):
    machine, chain, disk = own.lab.standard()
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(own.give(chain).top.path)))
    with refused("ImageInUse", chain.top.path, machine.name):
        domain.start()
    machine.quit()
    own.lab.domain_of(machine).wait("Pid", 0)
    domain.start()


def test_one_domain_with_one_image_twice(own):
    chain = own.give(images.two_layers(own.directory))
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path), disk_xml(chain.top.path, "vdb")))
    with refused("ImageInUse", domain["Name"]):
        domain.start()
    assert_off(domain)


def test_image_that_another_program_has(own):
    """QEMU's own words: the lock of a qemu-io that writes."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    other = subprocess.Popen(["qemu-io", "-f", "qcow2", chain.top.path], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        other.stdin.write(b"write 0 64k\n")
        other.stdin.flush()
        assert b"wrote" in other.stdout.readline()
        with refused("ImageInUse", domain["Name"], "lock", chain.top.path):
            domain.start()
        assert_off(domain, chain)
        with refused("ImageInUse", "lock", chain.top.path):
            disk.pull()
        assert_off(domain, chain)
    finally:
        other.stdin.close()
        assert other.wait(20) == 0
        other.stdout.close()
    domain.start()


# Starts at once.

def test_start_twice_at_once(own, client):
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    calls = [client.call_later(domain.path, "Domain", "Start", "(a{sv})", {}) for _ in range(3)]
    assert sorted(client.wait_reply(call).kind for call in calls) == ["error", "error", "reply"]
    assert domain["State"] == "running"
    assert processes_of_the_user() == [domain["Pid"]]


@pytest.mark.parametrize("member", ["Destroy", "Undefine", "Shutdown", "Start"])
def test_calls_in_the_middle_of_a_start(own, client, member):
    """Each is answered, and the start comes to an end, whatever it is."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    start = client.call_later(domain.path, "Domain", "Start", "(a{sv})", {})
    other = client.call_later(domain.path, "Domain", member, "(a{sv})", {})
    # As soon as there is something to be ended, Destroy ends it.
    ended = client.wait_reply(other).kind == "reply"
    assert not ended or member == "Destroy"
    assert client.wait_reply(start).kind == ("error" if ended else "reply")
    assert domain["State"] == ("shutoff" if ended else "running")
    assert len(processes_of_the_user()) == (0 if ended else 1)


def test_job_in_the_middle_of_a_start(own, client):
    """The disk goes to one of them, and both are answered."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    start = client.call_later(domain.path, "Domain", "Start", "(a{sv})", {})
    job = client.call_later(disk.path, "Disk", "Pull", "(a{sv})", {})
    assert client.wait_reply(start).kind == "reply"
    client.wait_reply(job)
    wait_until(lambda: not domain["Jobs"] and disk["Job"] == "/", "the end of the job")
    assert domain["State"] == "running"
    assert processes_of_the_user() == [domain["Pid"]]


def test_start_in_the_middle_of_a_job(own, client):
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    job = client.call_later(disk.path, "Disk", "Commit", "(a{sv})", {"active": images_option(True)})
    start = client.call_later(domain.path, "Domain", "Start", "(a{sv})", {})
    assert client.wait_reply(start).kind == "error"
    assert client.wait_reply(job).kind == "reply"
    wait_until(lambda: not domain["Jobs"], "the end of the job")
    domain.start()
    assert disk.sources() == [chain.base.path]


def images_option(value):
    from kit.bus import variant
    return variant(value)


# Emulators.

@pytest.fixture
def script(own):
    """Makes an emulator of some lines of shell, and a domain that has it."""
    def make(*lines, mode=0o755):
        path = f"{own.directory}/qemu-script"
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        os.chmod(path, mode)
        chain = own.give(images.two_layers(own.directory))
        return own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path),
                                     devices=f"<emulator>{path}</emulator>\n")), chain, path
    return make


def replace_by_qemu(path):
    os.unlink(path)
    os.symlink("/usr/bin/qemu-system-x86_64", path)


def test_emulator_that_is_not_there(own, script):
    domain, chain, path = script("")
    os.unlink(path)
    with refused("Failed", path, "does not exist"):
        domain.start()
    assert_off(domain, chain)
    os.mkdir(path)
    with pytest.raises(BusError, match="qemu-script"):
        domain.start()
    assert_off(domain, chain)
    os.rmdir(path)
    os.symlink("/usr/bin/qemu-system-x86_64", path)
    domain.start()
    assert domain["State"] == "running"


@pytest.mark.parametrize("text, mode", [("#!/bin/sh", 0o644), ("no program at all\0\1", 0o755),
                                        ("#!/no/such/interpreter", 0o755), ("", 0o755)])
def test_emulator_that_is_no_program(own, script, text, mode):
    domain, chain, path = script(text, mode=mode)
    with pytest.raises(BusError) as error:
        domain.start()
    assert error.value.short in ("Failed", "QemuError") and path in error.value.message, error.value
    assert_off(domain, chain)
    replace_by_qemu(path)
    domain.start()


def test_emulator_that_says_no(own, script):
    domain, chain, path = script("#!/bin/sh", "echo 'qemu: the moon is in the wrong phase' >&2", "exit 1")
    for _ in range(2):
        with refused("QemuError", domain["Name"], "the moon is in the wrong phase"):
            domain.start()
        assert_off(domain, chain)
    # The words of the last start are not those of this one.
    with open(path, "w") as file:
        file.write("#!/bin/sh\nexit 1\n")
    with refused("QemuError", domain["Name"], path, "without a word"):
        domain.start()
    replace_by_qemu(path)
    domain.start()


def test_emulator_that_says_too_much(own, script):
    """Bytes that are no text, and a megabyte of them."""
    domain, chain, path = script("#!/bin/sh", "head -c 1000000 /dev/zero | tr '\\0' '\\377' >&2",
                                 "printf 'the end\\001\\033[31m\\n' >&2", "exit 1")
    with refused("QemuError", "the end") as error:
        domain.start()
    assert len(error[0].message) < 8192
    assert_off(domain, chain)


@pytest.mark.parametrize("number", ["KILL", "SEGV", "TERM"])
def test_emulator_that_dies(own, script, number):
    domain, chain, path = script("#!/bin/sh", f"kill -{number} $$")
    with refused("QemuError", domain["Name"], path, "without a word"):
        domain.start()
    assert_off(domain, chain)
    replace_by_qemu(path)
    domain.start()


def test_emulator_that_leaves_a_child(own, script):
    """Whoever still holds the socket: the process that was started is over, and so is the start."""
    domain, chain, path = script("#!/bin/sh", "sleep 1000 &", "echo gone >&2", "exit 1")
    begin = time.monotonic()
    with refused("QemuError", "gone"):
        domain.start()
    assert time.monotonic() - begin < 20
    assert_off(domain, chain)
    for pid in processes_of_the_user():
        os.kill(pid, signal.SIGKILL)


def hang(own, client, script, *lines):
    """A start that waits for an emulator, and the emulator's process."""
    domain, chain, path = script("#!/bin/sh", *lines, "exec sleep 1000")
    call = client.call_later(domain.path, "Domain", "Start", "(a{sv})", {})
    pid, = wait_until(processes_of_the_user, "the emulator to run")
    return domain, chain, path, call, pid


def read_record(own, domain):
    with open(f"{own.lab.service.state_directory}/domains/{domain['Name']}.json") as file:
        return json.load(file)


def test_emulator_that_hangs_is_destroyed(own, client, script):
    domain, chain, path, call, pid = hang(own, client, script)
    domain.destroy()
    assert client.wait_reply(call).kind == "error"
    assert_off(domain, chain)
    replace_by_qemu(path)
    domain.start()


def test_emulator_that_hangs_is_killed(own, client, script):
    domain, chain, path, call, pid = hang(own, client, script)
    os.kill(pid, signal.SIGKILL)
    assert client.wait_reply(call).kind == "error"
    assert_off(domain, chain)


def test_emulator_that_heeds_no_signal(own, client, script):
    domain, chain, path, call, pid = hang(own, client, script, "trap '' TERM")
    begin = time.monotonic()
    domain.destroy()
    assert time.monotonic() - begin < 15
    assert client.wait_reply(call).kind == "error"
    assert_off(domain, chain)


def test_others_while_an_emulator_hangs(own, client, script):
    """The service serves; what is on the disk is held."""
    domain, chain, path, call, pid = hang(own, client, script)
    with refused("InvalidState", domain["Name"]):
        domain.start()
    with refused("InvalidState", domain["Name"]):
        domain.undefine()
    other = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path)))
    with refused("ImageInUse", domain["Name"]):
        other.start()
    third = own.define(domain_xml(own.lab.unique_name()))
    third.start()
    assert third["State"] == "running"
    domain.destroy()
    client.wait_reply(call)
    other.start()


def test_service_dies_while_an_emulator_hangs(own, client, script):
    """The next service ends it: its guest has not run."""
    domain, chain, path, call, pid = hang(own, client, script)
    wait_until(lambda: read_record(own, domain)["pid"] == pid, "its process to be on record")
    own.lab.service.restart()
    with refused("InvalidState", domain["Name"]):
        domain.start()
    os.kill(pid, signal.SIGKILL)
    domain.wait("State", "shutoff")
    replace_by_qemu(path)
    domain.start()


def test_service_dies_and_the_emulator_is_destroyed(own, client, script):
    domain, chain, path, call, pid = hang(own, client, script)
    wait_until(lambda: read_record(own, domain)["pid"] == pid, "its process to be on record")
    own.lab.service.restart()
    domain.destroy()
    assert_off(domain, chain)
    replace_by_qemu(path)
    domain.start()


def test_emulator_that_hangs_for_good(own, client, script):
    """The start gives up after a while, which is to be set."""
    own.lab.service.restart(settings="[Domains]\nStartSec=1\n")
    domain, chain, path, call, pid = hang(own, client, script)
    assert client.wait_reply(call, 90).kind == "error"
    assert_off(domain, chain)
    assert not processes_of_the_user()
    replace_by_qemu(path)
    domain.start()


def test_transient_that_does_not_start(own, client):
    name = own.lab.unique_name()
    chain = own.give(images.two_layers(own.directory))
    position = client.position()
    os.chmod(own.directory, 0o755)
    with open(f"{own.directory}/qemu", "w") as file:
        file.write("#!/bin/sh\necho 'no machine today' >&2\nexit 1\n")
    os.chmod(f"{own.directory}/qemu", 0o755)
    emulator = f"<emulator>{own.directory}/qemu</emulator>\n"
    with refused("QemuError", name, "no machine today"):
        own.create(domain_xml(name, disk_xml(chain.top.path), devices=emulator))
    with refused("NoSuchImage", "/no/such"):
        own.create(domain_xml(name, disk_xml("/no/such/image")))
    with refused("NoSuchDomain", name):
        own.lab.manager.domain(name)
    assert not client.heard(ROOT, "DomainAdded", position)
    state = f"{own.lab.service.state_directory}/domains"
    wait_until(lambda: not [file for file in os.listdir(state) if file.startswith(name)], "no record to be left")
    assert own.create(domain_xml(name, disk_xml(chain.top.path)))["State"] == "running"
