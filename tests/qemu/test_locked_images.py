# SPDX-License-Identifier: LGPL-2.1-or-later
"""Another program has an image of the chain open: its locks say so, and a commit that would change it is refused."""

import subprocess

import pytest
from kit import images
from kit.bus import refused
from kit.locks import locked


@pytest.fixture
def reader():
    """Starts programs that hold an image open, as backup programs do."""
    processes = []

    def start(layer):
        process = subprocess.Popen(["qemu-io", "-U", "-r", "-f", layer.format, layer.path], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        process.stdin.write("read 0 512\n")
        process.stdin.flush()
        assert "read 512/512" in process.stdout.readline() + process.stdout.readline()
        return process
    yield start
    for process in processes:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_commit_of_what_somebody_reads(lab, reader, number):
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    process = reader(chain.layers[number])
    with refused("ImageInUse", chain.layers[number].path, process.pid, "qemu-io", "force"):
        disk.commit(top="[1]", base="[3]")
    assert machine.jobs() == {} and disk["Job"] == "/"
    process.stdin.write("quit\n")
    process.stdin.flush()
    process.wait(20)
    disk.commit(top="[1]", base="[3]").wait_completed("completed")


def test_layers_that_are_not_concerned(lab, reader):
    chain = images.layers(lab.directory, 4)
    _, _, disk = lab.standard(chain)
    reader(chain.layers[0])
    disk.commit(top="[1]", base="[2]").wait_completed("completed")


def test_force(lab):
    """What QEMU would not heed: the lock of a program that knows nothing of QEMU's."""
    chain = images.layers(lab.directory, 4)
    machine, _, disk = lab.standard(chain)
    with locked(chain.layers[1].path) as process:
        with refused("ImageInUse", chain.layers[1].path, process.pid):
            disk.commit(top="[1]", base="[3]")
        disk.commit(top="[1]", base="[3]", force=True).wait_completed("completed")
    machine.quit()
    images.assert_contents(chain.base, chain.contents[2])


def test_inspection_names_them(lab, reader):
    """A process that has a layer locked is a user of it; the QEMUs of domains are told by their disks."""
    chain = images.two_layers(lab.directory)
    machine, _, _ = lab.standard(chain)
    disk = f"disk 'vda' of domain '{machine.name}'"

    def users():
        layers, = lab.client.call("/org/blockjobd1", "Manager", "InspectImage", "(sa{sv})", chain.top.path, {})
        return [layer["users"] for layer in layers]

    assert users() == [[disk], [disk]]
    process = reader(chain.base)
    assert users() == [[disk], [disk, f"process {process.pid} (qemu-io), which has locked it"]]
    process.stdin.write("quit\n")
    process.stdin.flush()
    process.wait(20)
    assert users() == [[disk], [disk]]
