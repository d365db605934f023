# SPDX-License-Identifier: LGPL-2.1-or-later
"""Map: which layer holds what, byte for byte, of disks that QEMU has open."""

import concurrent.futures
import os
import signal
import subprocess

import pytest
from gi.repository import GLib

from kit import images
from kit.bus import BusError, Client, refused
from kit.every_job import SLOW
from kit.images import KIB, MIB
from kit.maps import DATA, NOWHERE, ZERO, layered, part, written
from kit.qmp import QmpError
from kit.waiting import wait_until


def left(machine):
    """What a map may have left in QEMU."""
    exports = [export["id"] for export in machine.qmp.execute("query-block-exports")]
    nodes = [name for name in machine.nodes() if name == "bj-map"]
    try:
        machine.qmp.execute("nbd-server-stop")
        return exports, nodes, True
    except QmpError:
        return exports, nodes, False


def assert_clean(machine):
    assert left(machine) == ([], [], False)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_each_layer_of_a_chain(lab, count):
    chain, expected = layered(lab.directory, count)
    machine, _, disk = lab.standard(chain)
    assert disk.map() == expected
    assert {depth for *_, depth in expected} == {*range(count), NOWHERE}
    assert_clean(machine)
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


@pytest.mark.parametrize("offset, length", [(0, 1), (1, 1), (5 * MIB - 1, 2), (MIB + 512, 3 * MIB + 7),
                                            (images.SIZE - 1, 1), (0, images.SIZE)])
def test_part_to_the_byte(lab, offset, length):
    chain, expected = layered(lab.directory, 3)
    _, _, disk = lab.standard(chain)
    assert disk.map(offset=offset, length=length) == part(expected, offset, length)
    assert disk.map(offset=offset) == part(expected, offset, images.SIZE - offset)


def test_end_of_the_disk_is_an_empty_part(lab):
    machine, _, disk = lab.standard()
    assert disk.map(offset=images.SIZE) == []
    assert_clean(machine)


@pytest.mark.parametrize("values", [{"offset": images.SIZE + 1}, {"length": images.SIZE + 1},
                                    {"offset": 1, "length": images.SIZE}, {"offset": (1 << 63) - 1},
                                    {"offset": 1 << 63}, {"length": (1 << 64) - 1},
                                    {"max_ranges": GLib.Variant("u", 131073)}, {"max_ranges": 5}, {"depth": 1}])
def test_options_that_are_not_right(lab, values):
    machine, _, disk = lab.standard()
    with refused("InvalidArgument", *[key.replace("_", "-") for key in values]):
        disk.map(**values)
    assert_clean(machine)


def test_limit_of_ranges(lab):
    chain, expected = layered(lab.directory, 5)
    machine, _, disk = lab.standard(chain)
    enough = GLib.Variant("u", len(expected))
    assert disk.map(max_ranges=enough) == expected
    with refused("LimitExceeded", "offset", "max-ranges", expected[-1][0]):
        disk.map(max_ranges=GLib.Variant("u", len(expected) - 1))
    assert_clean(machine)


def test_what_the_guest_has_just_written(lab):
    """Its metadata is in QEMU's cache alone."""
    machine, _, disk = lab.standard()
    before = [[(0, 4 * MIB, DATA)], [(2 * MIB, 3 * MIB, DATA)]]
    assert disk.map() == written(*before)
    machine.write("vda", 7, MIB, 64 * KIB)
    machine.write("vda", 8, 20 * MIB, MIB)
    assert disk.map() == written(before[0], before[1] + [(MIB, 64 * KIB, DATA), (20 * MIB, MIB, DATA)])
    assert_clean(machine)


def test_zeros_and_discard(lab):
    """What a layer says to be zero hides what is below, and holds no data."""
    chain = images.two_layers(lab.directory)
    images.run("qemu-io", "-f", "qcow2", "-c", "write -z 0 1M", "-c", "write -z 8M 1M", "-d", "unmap",
               "-c", "discard 3M 1M", chain.top.path)
    machine, _, disk = lab.standard(chain)
    assert disk.map() == written([(0, 4 * MIB, DATA)],
                                 [(2 * MIB, 3 * MIB, DATA), (0, MIB, ZERO), (8 * MIB, MIB, ZERO),
                                  (3 * MIB, MIB, ZERO)])


def test_raw_base_with_holes(lab):
    """A raw image has all of the disk; what the file system has no block for reads as zeros."""
    chain = images.two_layers(lab.directory, base_format="raw")
    _, _, disk = lab.standard(chain)
    assert disk.map() == written([(0, images.SIZE, ZERO), (0, 4 * MIB, DATA)], [(2 * MIB, 3 * MIB, DATA)])


def test_raw_disk(lab):
    chain = images.Chain(lab.directory).add([(1, MIB, MIB)], image_format="raw")
    _, _, disk = lab.standard(chain)
    # qemu-img allocates the first block of a new raw image.
    assert disk.map() == written([(0, images.SIZE, ZERO), (0, 4 * KIB, DATA), (MIB, MIB, DATA)], granularity=4 * KIB)


def test_shorter_layer(lab):
    """What is behind its end reads as zeros because of it."""
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, MIB)]).add([(2, MIB, MIB)], size=16 * MIB).add([(3, 2 * MIB, MIB)], size=images.SIZE)
    _, _, disk = lab.standard(chain)
    assert disk.map() == written([(0, MIB, DATA)], [(MIB, MIB, DATA), (16 * MIB, 16 * MIB, ZERO)],
                                 [(2 * MIB, MIB, DATA)])


@pytest.mark.parametrize("keywords", [{"throttle": {"iops-total": 1000}}, {"read_only": True}, {"share": True}])
def test_disk_is_no_plain_one(lab, keywords):
    chain, expected = layered(lab.directory, 3)
    machine, _, disk = lab.standard(chain, **keywords)
    assert disk.map() == expected
    assert_clean(machine)


def test_disk_without_medium(lab):
    machine = lab.machine().add_empty_cd().start()
    with refused("InvalidState", "medium"):
        lab.attach(machine).disk("cd").map()
    assert_clean(machine)


def test_guest_is_paused_or_runs(lab):
    chain, expected = layered(lab.directory, 2)
    machine, _, disk = lab.standard(chain)
    for command in ("cont", "stop"):
        machine.qmp.execute(command)
        assert disk.map() == expected


def test_during_a_commit_and_after_it(lab):
    """The filter of a job is no layer, and what the job copies does not change what the guest reads."""
    machine, chain, disk = lab.slow()
    expected = disk.map()
    job = disk.commit(active=True, speed=SLOW)
    assert disk.map() == expected
    job.set_speed(0)
    job.wait_ready()
    assert disk.map() == expected
    assert_clean(machine)
    job.pivot()
    assert disk.map() == written([(0, 4 * MIB, DATA)])
    assert disk.sources() == [chain.base.path]


def test_during_a_commit_of_several_layers(lab):
    """QEMU lets nobody read through the layers between; the message names the job, and afterwards it can be asked."""
    chain = images.Chain(lab.directory)
    for number in range(3):
        chain.add(images.stripes(number + 1, start=number * 64 * KIB))
    machine, _, disk = lab.standard(chain)
    job = disk.commit(active=True, speed=SLOW)
    with refused("JobActive", job["Id"], "active-commit"):
        disk.map()
    assert_clean(machine)
    job.set_speed(0)
    job.wait_ready()
    job.pivot()
    assert {depth for *_, depth in disk.map()} == {0, NOWHERE}


def test_during_a_copy(lab):
    machine, _, disk = lab.slow()
    expected = disk.map()
    job = disk.copy(f"{lab.directory}/copy.qcow2", speed=SLOW)
    assert disk.map() == expected
    job.abort()
    assert disk.map() == expected
    assert_clean(machine)


def test_many_at_once(lab):
    """They are answered one after the other, each rightly."""
    chain, expected = layered(lab.directory, 3)
    machine, _, disk = lab.standard(chain)
    serials = [lab.client.call_later(disk.path, "Disk", "Map", "(a{sv})", {}) for _ in range(20)]
    kinds = [lab.client.wait_reply(serial).kind for serial in serials]
    assert kinds[:16] == ["reply"] * 16 and "error" in kinds[16:] or kinds == ["reply"] * 20
    assert disk.map() == expected
    assert_clean(machine)


def test_somebody_elses_server(lab):
    """It is left alone, with and without exports."""
    machine, _, disk = lab.standard(share=True)
    machine.qmp.execute("nbd-server-start",
                        addr={"type": "unix", "data": {"path": f"{lab.directory}/other.nbd"}})
    with refused("NotSupported", "NBD"):
        disk.map()
    machine.qmp.execute("block-export-add", id="other", type="nbd", node_name="vda-1", name="x")
    with refused("NotSupported", "NBD"):
        disk.map()
    assert left(machine) == (["other"], [], True), "somebody else's server was ended"
    assert disk.map()


def test_qemu_ends_meanwhile(lab):
    machine, _, disk = lab.standard()
    machine.process.send_signal(signal.SIGSTOP)
    serial = lab.client.call_later(disk.path, "Disk", "Map", "(a{sv})", {})
    machine.kill()
    assert lab.client.wait_reply(serial).kind == "error"
    lab.domain_of(machine).wait("State", "crashed")
    with refused("InvalidState"):
        disk.map()


@pytest.mark.parametrize("step", ["mark", "pass", "serve", "export", "exported", "mapped", "unexport",
                                  "stop-server", "unmark"])
def test_service_is_killed_in_between(lab, service, step):
    """Its next start removes what is left, and a map is what it was."""
    chain, expected = layered(lab.directory, 2)
    machine, _, disk = lab.standard(chain)
    service.restart(stop_at=f"map-{step}")
    lab.client.call_later(disk.path, "Disk", "Map", "(a{sv})", {})
    service.wait_gone()
    service.restart()
    assert_clean(machine)
    assert disk.map() == expected
    disk.resize(images.SIZE + MIB)


def test_service_stops_in_between(lab, service):
    """In order: it leaves nothing behind."""
    machine, _, disk = lab.standard()
    service.restart(wait_at="map-exported")
    pid = service.pid()
    serial = lab.client.call_later(disk.path, "Disk", "Map", "(a{sv})", {})
    service.wait_stopped(pid)
    service.terminate_later(pid)
    service.resume(pid)
    service.wait_gone()
    assert lab.client.wait_reply(serial).kind == "error"
    assert_clean(machine)


def test_caller_goes_away(lab, service):
    machine, _, disk = lab.standard()
    service.restart(wait_at="map-exported")
    pid = service.pid()
    caller = Client(listen=False)
    caller.call_later(disk.path, "Disk", "Map", "(a{sv})", {})
    service.wait_stopped(pid)
    caller.close()
    service.resume(pid)
    wait_until(lambda: "bj-map" not in machine.nodes(), "the end of the map")
    assert_clean(machine)


def test_jobs_begin_and_end_meanwhile(lab):
    """Whatever QEMU's graph is at the moment, no wrong layer is told; and no job fails because of it."""
    chain, expected = layered(lab.directory, 3)
    machine, _, disk = lab.standard(chain)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for number in range(6):
            maps = [pool.submit(disk.map) for _ in range(3)]
            disk.snapshot(f"{lab.directory}/over{number}.qcow2")
            maps += [pool.submit(disk.map) for _ in range(3)]
            job = disk.commit(active=True, shallow=True, auto="pivot", delete=True)
            assert job.wait_completed("completed")[2] == ""
            for future in maps:
                try:
                    found = future.result()
                except BusError as error:
                    assert error.short == "JobActive", error
                else:
                    above = [depth for *_, depth in found if depth != NOWHERE]
                    shift = max(above) - 2
                    assert [(offset, length, flags, depth if depth == NOWHERE else depth - shift)
                            for offset, length, flags, depth in found] == expected
    assert disk.map() == expected and disk.sources() == chain.paths()
    assert_clean(machine)
    assert set(machine.nodes()) == {f"vda-{number}{end}" for number in range(3) for end in ("", "-file")}


@pytest.fixture
def far_base(lab):
    """(machine, disk, the process that has its base), which is reached over a network."""
    chain = images.two_layers(lab.directory, base_format="raw")
    path = f"{lab.directory}/far.nbd"
    server = subprocess.Popen(["qemu-nbd", "--persistent", "--read-only", "-f", "raw", "-k", path, chain.base.path])
    wait_until(lambda: os.path.exists(path), "the server of the base")
    machine = lab.machine()
    machine._blockdev(driver="nbd", node_name="vda-0", server={"type": "unix", "path": path}, read_only=True)
    machine._blockdev(driver="file", node_name="vda-1-file", filename=chain.top.path)
    machine._blockdev(driver="qcow2", node_name="vda-1", file="vda-1-file", backing="vda-0")
    machine.arguments += ["-device", "virtio-blk-pci,id=vda,drive=vda-1"]
    machine.start()
    yield machine, lab.attach(machine).disk(), server
    server.kill()
    server.wait()


def test_storage_hangs(lab, far_base):
    """The call ends; what hangs in QEMU is gone when it does not any more, and QEMU answers all the time."""
    machine, disk, server = far_base
    expected = written([(0, images.SIZE, ZERO), (0, 4 * MIB, DATA)], [(2 * MIB, 3 * MIB, DATA)])
    assert disk.map() == expected
    server.send_signal(signal.SIGSTOP)
    with refused("Timeout", "storage"):
        disk.map()
    assert machine.qmp.execute("query-status")
    with refused("Timeout", "earlier"):
        disk.map()
    for call in (lambda: lab.domain_of(machine).detach(), lambda: disk.resize(2 * images.SIZE)):
        with refused("JobActive", "map"):
            call()
    server.send_signal(signal.SIGCONT)
    wait_until(lambda: "bj-map" not in machine.nodes(), "the end of the map")
    assert_clean(machine)
    assert disk.map() == expected


def test_storage_hangs_and_qemu_dies(lab, far_base):
    machine, disk, server = far_base
    server.send_signal(signal.SIGSTOP)
    serial = lab.client.call_later(disk.path, "Disk", "Map", "(a{sv})", {})
    wait_until(lambda: machine.qmp.execute("query-block-exports"), "the export")
    machine.kill()
    assert lab.client.wait_reply(serial).kind == "error"
    lab.domain_of(machine).wait("State", "crashed")


def test_qemu_hangs(lab):
    machine, _, disk = lab.standard()
    expected = disk.map()
    machine.process.send_signal(signal.SIGSTOP)
    with refused("Timeout"):
        disk.map()
    machine.process.send_signal(signal.SIGCONT)
    lab.domain_of(machine).wait("StateReason", lambda reason: "answer" not in reason)
    # Behind the one that was given up.
    assert disk.map() == expected
    assert_clean(machine)
