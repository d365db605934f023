# SPDX-License-Identifier: LGPL-2.1-or-later
"""What QEMU's own tests try with its jobs: headers that mislead, threads, errors when ready, the hands of others."""

import os

import pytest

from kit import chains, images
from kit.bus import BusError
from kit.every_job import (KINDS, SLOW, TWO_PHASES, assert_disk_as_before, assert_result, finish, slow_chain,
                           slow_disk, start, target_path)
from kit.faults import FaultyServer, layers, machine_with_faults, write_fault
from kit.images import KIB, MIB, Layer, SIZE
from kit.qemu import Machine
from kit.qmp import QmpError
from kit.targets import node_of

# Headers that lead elsewhere than QEMU was told to go.


def misled(directory, count, *numbers):
    """Layers, the headers of some of which name an image that is not below them in QEMU: (chain, that image)."""
    chain = images.layers(directory, count)
    decoy = Layer(f"{directory}/decoy.qcow2", "qcow2", SIZE)
    images.run("qemu-img", "create", "-q", "-f", "qcow2", decoy.path, str(SIZE))
    images.run("qemu-io", "-f", "qcow2", "-c", f"write -P 99 0 {SIZE // 2}", decoy.path)
    for number in numbers:
        images.run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", decoy.path, "-F", "qcow2",
                   chain.layers[number].path)
    return chain, decoy


# How many layers, which of their headers are wrong, the numbers of top and base, and the options.
COMMITS = {
    "middle": (4, [2, 3], 2, 1, {"top": "[1]", "base": "[2]"}),
    "middle-by-path": (4, [3], 2, 0, {"top": "disk-2.qcow2", "base": "disk-0.qcow2"}),
    "active": (3, [1, 2], 2, 0, {"auto": "pivot"}),
}


@pytest.mark.parametrize("way", COMMITS)
def test_commit_against_the_headers(lab, way):
    """What is below in QEMU counts: that is merged, removed and recorded; the image in the header is left alone."""
    count, wrong, top, base, options = COMMITS[way]
    options = {name: f"{lab.directory}/{value}" if value.startswith("disk") else value
               for name, value in options.items()}
    chain, decoy = misled(lab.directory, count, *wrong)
    machine, _, disk = lab.standard(chain)
    assert disk.sources() == chain.paths()
    others = [decoy, *chain.layers[:base]]
    before = chains.digests(others)
    job = disk.commit(delete=True, **options)
    assert job["Target"] == chain.layers[base].path
    assert job.wait_completed("completed") == ("completed", "", "")
    for number, layer in enumerate(chain.layers):
        assert os.path.exists(layer.path) == (not base < number <= top), layer.path
    chains.merge(chain, top, base)
    chains.assert_layers(machine, disk, chain, chains.left_numbers(count, top, base))
    machine.write("vda", 9, 20 * MIB, MIB)
    machine.quit()
    chains.assert_images(chain)
    assert chains.digests(others) == before


@pytest.mark.parametrize("base", [None, "[2]"], ids=["all", "down-to-base"])
def test_pull_against_the_headers(lab, base):
    chain, decoy = misled(lab.directory, 3, 1, 2)
    machine, _, disk = lab.standard(chain)
    others = [decoy, *chain.layers[:2]]
    before = chains.digests(others)
    disk.pull(base=base).wait_completed("completed")
    left = [0, 2] if base else [2]
    chain.layers = [chain.layers[number] for number in left]
    chain.contents = [chain.contents[number] for number in left]
    chains.assert_layers(machine, disk, chain, left)
    machine.write("vda", 9, 20 * MIB, MIB)
    machine.quit()
    chains.assert_images(chain)
    assert chains.digests(others) == before


# A disk with a thread of its own in QEMU.

def threaded_disk(lab):
    chain = slow_chain(lab.directory)
    machine = lab.machine().add_virtio(chain)
    machine.arguments[-1] += ",iothread=io0"
    machine.arguments[:0] = ["-object", "iothread,id=io0"]
    machine.start()
    return machine, chain, lab.attach(machine).disk("vda")


@pytest.mark.parametrize("kind", KINDS)
def test_disk_on_an_iothread(lab, kind):
    machine, chain, disk = threaded_disk(lab)
    at_start = chain.contents[-1].copy()
    job = start(kind, lab, disk, speed=SLOW)
    machine.write("vda", 9, 20 * MIB, MIB)
    assert job["State"] == "running"
    finish(kind, job)
    machine.write("vda", 10, 21 * MIB, MIB)
    machine.quit()
    target = Layer(target_path(kind, lab.directory), "qcow2", SIZE)
    active = {"active-commit": chain.base, "copy": target}.get(kind, chain.top)
    assert disk["Source"] == active.path
    images.assert_contents(active, chain.contents[-1])
    images.assert_sound(active)
    if kind == "backup":
        images.assert_contents(target, at_start)
    if kind == "commit":
        images.assert_contents(chain.base, chain.contents[1])


def test_snapshot_and_its_commit_on_an_iothread(lab):
    machine, chain, disk = threaded_disk(lab)
    overlay = f"{lab.directory}/overlay.qcow2"
    before = chain.contents[-1].copy()
    disk.snapshot(overlay)
    machine.write("vda", 9, 20 * MIB, MIB)
    assert disk["Source"] == overlay
    images.assert_contents(chain.top, before)
    disk.commit(auto="pivot", shallow=True).wait_completed("completed")
    machine.write("vda", 10, 21 * MIB, MIB)
    assert disk["Source"] == chain.top.path
    machine.quit()
    images.assert_contents(chain.top, chain.contents[-1])


# A ready job whose target cannot take what the guest writes now.

# Nothing is copied to these places before that.
BAD = {"copy": 20 * MIB, "active-commit": 512 * KIB}


class ReadyAndFailed:
    def __init__(self, lab, kind, once):
        self.chain = layers(lab.directory)
        self.server = None
        self.written = self.chain.base
        faults, arguments = {}, {}
        if kind == "copy":
            self.server = FaultyServer(lab.directory, "write", once, BAD[kind] // 512)
            self.written = self.server.layer
            arguments = {"target": self.server.uri, "format": "raw", "reuse": True}
        else:
            faults[0] = write_fault(self.chain.base, once, BAD[kind])
        self.machine = machine_with_faults(lab, self.chain, faults).start()
        self.disk = lab.attach(self.machine).disk("vda")
        self.job = start(kind, lab, self.disk, "stop", **arguments)
        self.job.wait_ready()
        self.machine.write("vda", 9, BAD[kind], 64 * KIB)
        self.job.wait("IoStatus", "failed")

    def clean(self):
        self.machine.clean()
        if self.server:
            self.server.stop()


@pytest.fixture
def failed(lab):
    made = []

    def make(kind, once):
        made.append(ReadyAndFailed(lab, kind, once))
        return made[0]

    yield make
    for one in made:
        one.clean()


@pytest.mark.parametrize("kind", TWO_PHASES)
def test_abort_of_a_ready_job_after_an_error(failed, kind):
    """The image is well again: what is missing is written first, so that the copy is one."""
    trouble = failed(kind, True)
    trouble.job.abort()
    trouble.job.wait_completed("kept")
    assert_disk_as_before(trouble.machine, trouble.chain, trouble.disk)
    trouble.machine.quit()
    images.assert_contents(trouble.written, trouble.chain.contents[-1])
    images.assert_contents(trouble.chain.top, trouble.chain.contents[-1])


@pytest.mark.parametrize("kind", TWO_PHASES)
def test_abort_of_a_ready_job_that_stays_in_error(lab, failed, kind):
    """It cannot become a copy, and nobody is told that it did: refused or not, it is there until it is forced."""
    trouble = failed(kind, False)
    # What QEMU said up to here is read, so that what is waited for is new.
    trouble.machine.qmp.execute("query-status")
    trouble.machine.qmp.events.clear()
    call = lab.client.call_later(trouble.job.path, "Job", "Abort", "(a{sv})", {})
    trouble.machine.qmp.wait_event("BLOCK_JOB_ERROR")
    assert trouble.job["Result"] == ""
    # Whether the job could be asked to end between two errors is a race: so the call fails or waits.
    trouble.job.abort(force=True)
    trouble.job.wait_completed("cancelled")
    lab.client.wait_reply(call)
    assert_disk_as_before(trouble.machine, trouble.chain, trouble.disk)
    trouble.machine.quit()
    images.assert_contents(trouble.chain.top, trouble.chain.contents[-1])


@pytest.mark.parametrize("kind", TWO_PHASES)
def test_forced_abort_of_a_ready_job_in_error(failed, kind):
    trouble = failed(kind, False)
    trouble.job.abort(force=True)
    trouble.job.wait_completed("cancelled")
    assert_disk_as_before(trouble.machine, trouble.chain, trouble.disk)
    trouble.machine.write("vda", 10, 8 * MIB, MIB)
    trouble.machine.quit()
    images.assert_contents(trouble.chain.top, trouble.chain.contents[-1])


# The hands of others.

@pytest.mark.parametrize("kind", KINDS)
def test_second_qemu_on_the_disk(lab, kind):
    """It gets no lock, and the job does not notice."""
    machine, chain, disk = slow_disk(lab)
    job = start(kind, lab, disk, speed=SLOW)
    other = lab.machine(suffix="-other").add_virtio(chain)
    with pytest.raises(AssertionError, match="lock"):
        other.start()
    assert job["State"] == "running"
    finish(kind, job)
    machine.quit()
    assert_result(kind, lab, chain)


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_that_somebody_else_deletes(lab, kind):
    """QEMU refuses it for every node that is in use, those of the job among them."""
    machine, chain, disk = slow_disk(lab)
    job = start(kind, lab, disk, speed=SLOW)
    nodes = set(machine.nodes())
    assert len(nodes) > 6, "the job has no node of its own"
    for node in nodes:
        with pytest.raises(QmpError, match="in use|busy|not owned"):
            machine.qmp.execute("blockdev-del", node_name=node)
    assert set(machine.nodes()) == nodes
    assert job["State"] == "running"
    finish(kind, job)
    machine.quit()
    assert_result(kind, lab, chain)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_of_the_guest(lab, kind):
    machine, chain, disk = slow_disk(lab)
    job = start(kind, lab, disk, speed=SLOW)
    machine.qmp.execute("system_reset")
    machine.qmp.wait_event("RESET")
    assert job["State"] == "running"
    if kind in TWO_PHASES:
        job.set_speed(0)
        job.wait_ready()
        machine.qmp.execute("system_reset")
        machine.qmp.wait_event("RESET")
        assert job["State"] == "ready"
    finish(kind, job)
    machine.quit()
    assert_result(kind, lab, chain)


def test_pivot_that_somebody_else_forbids(lab):
    """A node over the target lets nobody read there, and another reads the source; so they cannot be swapped, and the
    disk stays where it is. The words are QEMU's, as few as they are."""
    machine, chain, disk = lab.standard()
    path = f"{lab.directory}/target.qcow2"
    job = disk.copy(path)
    job.wait_ready()
    machine.qmp.execute("blockdev-add", driver="blkdebug", node_name="forbids", image=node_of(machine, path),
                        unshare_child_perms=["consistent-read"])
    machine.qmp.execute("blockdev-add", driver="blkdebug", node_name="reads", image="vda-1",
                        take_child_perms=["consistent-read"])
    with pytest.raises(BusError) as error:
        job.pivot()
    assert error.value.short == "QemuError" and "Operation not permitted" in error.value.message
    machine.write("vda", 9, 20 * MIB, MIB)
    job.wait_completed("failed")
    machine.qmp.execute("blockdev-del", node_name="reads")
    machine.qmp.execute("blockdev-del", node_name="forbids")
    assert_disk_as_before(machine, chain, disk)
    # Without it the next one can.
    again = disk.copy(f"{path}-2", auto="pivot")
    again.wait_completed("completed")
    assert disk["Source"] == f"{path}-2"
    machine.quit()
    images.assert_contents(Layer(f"{path}-2", "qcow2", SIZE), chain.contents[-1])


# What the guest discards.

class DiscardingMachine(Machine):
    """Its images are told what the guest discards."""

    def _blockdev(self, **options):
        super()._blockdev(discard="unmap", **options)

    def discard(self, target, offset, length):
        seen = len(self.output())
        result = self.qmp.human(f'qemu-io {self.write_names[target]} "discard {offset} {length}"')
        result += self.output()[seen:]
        assert "discard " in result and "rror" not in result, f"discard on {target} failed: {result}"
        self.chains[target].contents[-1].fill(0, offset, length)


@pytest.mark.parametrize("kind", KINDS)
def test_discards_of_the_guest(lab, kind):
    """Before and after the job: what was discarded is zeros, and no data of a layer below; as are zeros meanwhile.

    Under the filter of a job QEMU may pass over a discard, which is a hint and no more."""
    chain = slow_chain(lab.directory)
    machine = DiscardingMachine(lab.directory, lab.unique_name())
    lab.machines.append(machine)
    machine.add_virtio(chain).start()
    disk = lab.attach(machine).disk("vda")
    machine.discard("vda", 0, 64 * KIB)
    machine.discard("vda", 512 * KIB, 512 * KIB)
    at_start = chain.contents[-1].copy()
    job = start(kind, lab, disk, speed=SLOW)
    chains.write_zeros(machine, "vda", MIB, 512 * KIB)
    finish(kind, job)
    machine.discard("vda", 3 * MIB + 512 * KIB, 64 * KIB)
    machine.quit()
    target = Layer(target_path(kind, lab.directory), "qcow2", SIZE)
    active = {"active-commit": chain.base, "copy": target}.get(kind, chain.top)
    images.assert_contents(active, chain.contents[-1])
    if kind == "backup":
        images.assert_contents(target, at_start)
    if kind == "commit":
        images.assert_contents(chain.base, chain.contents[1])
