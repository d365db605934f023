# SPDX-License-Identifier: LGPL-2.1-or-later
"""A commit of several layers that goes from the bottom up: what is done stays done, and the same call goes on."""

import json
import os

import pytest

from kit import images
from kit.bus import refused
from kit.images import KIB, MIB
from kit.waiting import stays, wait_until

SLOW = 64 * KIB
# How far above each other the stripes of the layers begin: each layer has 1 MiB of its own.
GAP = 4 * MIB


def five_layers(directory):
    """Those of docs/restartable-commit.md, each with data of its own, in stripes that a speed limit is kept from."""
    chain = images.Chain(directory)
    for number, name in enumerate(["base", "mid2", "mid1", "top", "act"]):
        chain.add(images.stripes(number + 1, start=number * GAP), file_name=f"{name}.qcow2")
    return chain


def written(machine):
    """Bytes that this QEMU has written to files."""
    with open(f"/proc/{machine.process.pid}/io") as file:
        return int(next(line for line in file if line.startswith("wchar:")).split()[1])


def names(chain, *layers):
    return [chain.layers[number].path for number in layers]


def test_layer_by_layer(lab):
    """One job object for all of it, with a progress that covers the whole."""
    chain = five_layers(lab.directory)
    machine, _, disk = lab.standard(chain)
    position = lab.client.position()
    job = disk.commit(top=f"{lab.directory}/top.qcow2", base=f"{lab.directory}/base.qcow2", restartable=True)
    assert (job["Type"], job["Source"], job["Target"]) == ("commit", chain.layers[3].path, chain.base.path)
    job.wait_completed("completed")
    assert job["Current"] == job["Total"] == 3 * images.SIZE and job["Progress"] == 1.0
    told = [heard.arguments[1]["Chain"] for heard in lab.client.heard(disk.path, "PropertiesChanged", position)
            if "Chain" in heard.arguments[1]]
    lengths = list(dict.fromkeys(len(layers) for layers in told))
    assert lengths[-3:] == [4, 3, 2], "each layer left the chain when it was done"
    assert len(lab.client.heard(job.path, "Completed", position)) == 1
    states = [heard.arguments[1]["State"] for heard in lab.client.heard(job.path, "PropertiesChanged", position)
              if "State" in heard.arguments[1]]
    assert states in (["running", "completing", "concluded"], ["completing", "concluded"]), states
    assert disk.sources() == names(chain, 4, 0)
    machine.quit()
    images.assert_contents(chain.top, chain.contents[4])
    images.assert_contents(chain.base, chain.contents[3])


def test_active_layer_is_the_last(lab):
    """Then it has two phases, and only then."""
    chain = five_layers(lab.directory)
    machine, _, disk = lab.standard(chain)
    job = disk.commit(active=True, restartable=True, speed=SLOW, delete=True)
    assert job["Type"] == "active-commit"
    with refused("NotReady", job["Id"]):
        job.pivot()
    wait_until(lambda: job["Current"] > 0, "it to begin")
    job.set_speed(0)
    job.wait_ready()
    assert job["State"] == "ready" and disk.sources() == names(chain, 4, 0)
    machine.write("vda", 9, 30 * MIB, MIB)
    chain.contents[4].fill(9, 30 * MIB, MIB)
    job.pivot()
    job.wait_completed("completed")
    assert disk.sources() == [chain.base.path]
    assert [os.path.exists(layer.path) for layer in chain.layers] == [True, False, False, False, False]
    machine.quit()
    images.assert_contents(chain.base, chain.contents[4])


def test_kept(lab):
    chain = five_layers(lab.directory)
    machine, _, disk = lab.standard(chain)
    disk.commit(auto="keep", restartable=True).wait_completed("kept")
    assert disk.sources() == names(chain, 4, 0)
    machine.quit()
    images.assert_contents(chain.top, chain.contents[4])
    images.assert_contents(chain.base, chain.contents[4])


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_aborted_and_taken_up_again(lab, layer):
    """What is in base already is not written once more: about as many bytes altogether as without a break."""
    chain = five_layers(lab.directory)
    machine, _, disk = lab.standard(chain)
    before = written(machine)
    job = disk.commit(top="[1]", base="[4]", restartable=True, delete=True, speed=SLOW if layer == 0 else 0)
    while len(disk["Chain"]) > 5 - layer and job["State"] != "concluded":
        pass
    job.abort()
    result = job.wait_completed()[0]
    done = 5 - len(disk["Chain"])
    assert result == "cancelled" or done == 3
    left = [4 - number for number in range(4 - done)] + [0]
    assert disk.sources() == names(chain, *left)
    assert [os.path.exists(layer.path) for layer in chain.layers] == [number in left for number in range(5)]
    if result == "cancelled":
        assert job["Error"][1].endswith(f"{done} of 3 layers are in '{chain.base.path}' for good")
        disk.commit(top=chain.layers[3].path, base=chain.base.path, restartable=True).wait_completed("completed")
    assert disk.sources() == names(chain, 4, 0)
    total = written(machine) - before
    machine.quit()
    images.assert_contents(chain.top, chain.contents[4])
    images.assert_contents(chain.base, chain.contents[3])
    assert total < 3 * MIB + 2 * MIB, "three layers of 1 MiB, and no more than one of them twice"


@pytest.mark.parametrize("options, name, words", [
    ({"keep_top": True, "top": "[1]"}, "InvalidArgument", ["keep-top", "restartable"]),
    ({"top": "[1]", "base": "[9]"}, "NoSuchImage", ["[9]"]),
    ({}, "InvalidArgument", ["active"]),
], ids=["keep-top", "base", "active"])
def test_refused(lab, options, name, words):
    machine, _, disk = lab.standard(five_layers(lab.directory))
    with refused(name, *words):
        disk.commit(restartable=True, **options)
    assert machine.jobs() == {} and disk["Job"] == "/"


def test_layer_that_is_smaller(lab):
    """Of a layer that is larger than the one above it nothing may show: the range is refused as a whole."""
    chain = images.Chain(lab.directory)
    for number, size in enumerate([8 * MIB, 16 * MIB, 12 * MIB, 16 * MIB]):
        chain.add([(number + 1, number * MIB, MIB)], size=size)
    machine, _, disk = lab.standard(chain)
    with refused("InvalidArgument", chain.layers[2].path, chain.layers[1].path, "smaller"):
        disk.commit(active=True, restartable=True)
    assert machine.jobs() == {}


def test_one_layer(lab):
    """It is a commit like any other."""
    chain = images.layers(lab.directory, 3)
    _, _, disk = lab.standard(chain)
    disk.commit(top="[1]", base="[2]", restartable=True).wait_completed("completed")
    assert disk.sources() == names(chain, 2, 0)


@pytest.mark.parametrize("relative", [False, True])
def test_names_in_headers(lab, relative):
    chain = five_layers(lab.directory)
    _, _, disk = lab.standard(chain)
    disk.commit(top="[1]", base="[4]", restartable=True, relative=relative).wait_completed("completed")
    name = os.path.basename(chain.base.path) if relative else chain.base.path
    assert disk["Chain"][0]["backing"] == name


def bytes_of_a_commit_that_is_given_up_at_its_end(lab, name, restartable):
    """And is done again: bytes that QEMU has written."""
    directory = f"{lab.directory}/{name}"
    os.mkdir(directory)
    chain = five_layers(directory)
    machine, _, disk = lab.standard(chain)
    values = {"top": chain.layers[3].path, "base": chain.base.path, "restartable": restartable}
    lab.service.restart(wait_at="check-pending", **{"pass": "2" if restartable else "0"})
    before = written(machine)
    job = disk.commit(**values)
    lab.service.wait_stopped(lab.service.pid())
    lab.client.call_later(job.path, "Job", "Abort", "(a{sv})", {})
    lab.service.resume(lab.service.pid())
    job.wait_completed("cancelled")
    disk.commit(**values).wait_completed("completed")
    total = written(machine) - before
    machine.quit()
    images.assert_contents(chain.base, chain.contents[3])
    return total


def test_bytes_beside_a_plain_commit(lab):
    """Of three layers with 1 MiB each: all of it twice, or one layer twice."""
    plain = bytes_of_a_commit_that_is_given_up_at_its_end(lab, "plain", False)
    restartable = bytes_of_a_commit_that_is_given_up_at_its_end(lab, "restartable", True)
    print(f"bytes written: plain {plain}, restartable {restartable}")
    assert plain >= 6 * MIB and 4 * MIB <= restartable < 5 * MIB


# Where QEMU has no job that could be told anything, or one that takes no orders any more: (point, how often before).
BETWEEN = [("check-pending", 0), ("record-outcome", 0), ("record-outcome+", 1), ("tidy", 1), ("next-layer", 0),
           ("next-layer+", 1)]
# There the next layer is on its way: what is sent comes behind it.
STARTING = ("start+", 1)


def at_points(*cases):
    return pytest.mark.parametrize("point, turn", [pytest.param(*case, id=f"{case[0]}-{case[1] + 1}") for case in cases])


class Between:
    """Commit of three layers whose service stands still between two of them; calls that wait for it to go on."""

    def __init__(self, lab, point, turn):
        self.lab = lab
        self.chain = five_layers(lab.directory)
        self.machine, _, self.disk = lab.standard(self.chain)
        lab.service.restart(wait_at=point, **{"pass": str(turn)})
        self.pid = lab.service.pid()
        # While the service stands still, QEMU goes on: with this speed for about a second a layer.
        self.job = self.disk.commit(top="[1]", base="[4]", restartable=True, speed=MIB if (point, turn) == STARTING else 0)
        lab.service.wait_stopped(self.pid)
        self.calls = []

    def later(self, member, signature="()", *arguments):
        self.calls.append(self.lab.client.call_later(self.job.path, "Job", member, signature, *arguments))

    def go_on(self):
        """What each of the calls was answered with."""
        self.lab.service.resume(self.pid)
        return [self.lab.client.wait_reply(call) for call in self.calls]

    def record(self):
        with open(f"{self.lab.service.state_directory}/jobs/{self.job['Id']}.json") as file:
            return json.load(file)

    def assert_complete(self):
        assert self.disk.sources() == names(self.chain, 4, 0)
        self.machine.quit()
        images.assert_contents(self.chain.top, self.chain.contents[4])
        images.assert_contents(self.chain.base, self.chain.contents[3])


@at_points(*BETWEEN, STARTING)
def test_paused_between_two_layers(lab, point, turn):
    """And given a speed: the next layer waits, also in the service's next life, and has that speed then."""
    between = Between(lab, point, turn)
    machine, job = between.machine, between.job
    between.later("SetSpeed", "(t)", SLOW)
    between.later("Pause")
    assert [reply.kind for reply in between.go_on()] == ["reply", "reply"]
    job.wait("State", "paused")
    assert job["Speed"] == SLOW and job["Result"] == ""
    if (point, turn) != STARTING:
        machine.wait_jobs(lambda jobs: jobs == {}, "QEMU to be done with the layer")
        left = len(between.disk["Chain"])
        wait_until(lambda: between.record()["held"], "the pause to be recorded")
        lab.service.restart()
        job.wait("State", "paused")
        stays(lambda: machine.jobs() == {} and len(between.disk["Chain"]) == left, "waiting", 0.3)
    job.resume()
    job.wait("State", "running")
    block_job, = machine.wait_jobs(lambda jobs: jobs and machine.qmp.execute("query-block-jobs"), "the next layer")
    assert (block_job["device"], block_job["speed"]) == (job["QemuJobId"], SLOW)
    job.set_speed(0)
    job.wait_completed("completed")
    between.assert_complete()


@pytest.mark.parametrize("paused", [False, True])
@at_points(BETWEEN[0], BETWEEN[2], BETWEEN[4], STARTING)
def test_aborted_between_two_layers(lab, point, turn, paused):
    """Also when it is paused there: the layers that are done stay done."""
    between = Between(lab, point, turn)
    if paused:
        between.later("Pause")
    between.later("Abort", "(a{sv})", {})
    assert {reply.kind for reply in between.go_on()} == {"reply"}
    between.job.wait_completed("cancelled")
    done = 5 - len(between.disk["Chain"])
    assert between.job["Error"][1].endswith(f"{done} of 3 layers are in '{between.chain.base.path}' for good")
    assert between.machine.jobs() == {} and done == turn + (point not in ("check-pending", "start+"))
    between.disk.commit(top="[1]", base=between.chain.base.path, restartable=True).wait_completed("completed")
    between.assert_complete()


@at_points(BETWEEN[0], BETWEEN[5], STARTING)
def test_mode_between_two_layers(lab, point, turn):
    """It has none that could be changed, there as anywhere."""
    between = Between(lab, point, turn)
    between.later("SetMode", "(s)", "write-blocking")
    between.later("Resume")
    assert [reply.kind for reply in between.go_on()] == ["error", "reply"]
    between.job.wait_completed("completed")
    between.assert_complete()
