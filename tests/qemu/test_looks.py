# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU is asked for its nodes whenever something has changed; not while that would be its end."""

from kit import images


def test_images_are_created_on_two_disks(lab):
    """QEMU 7.2 dies when it is asked while it creates a qcow2 image: each job's looks come into the other's creation."""
    chains = [images.two_layers(lab.directory, name) for name in ("one", "two")]
    machine = lab.machine().add_virtio(chains[0]).add_virtio(chains[1], "vdb").start()
    domain = lab.attach(machine)
    disks = [domain.disk(target) for target in ("vda", "vdb")]
    for number in range(40):
        calls = [lab.client.call_later(disk.path, "Disk", "Snapshot", "(sa{sv})",
                                       f"{lab.directory}/{index}-{number}.qcow2", {})
                 for index, disk in enumerate(disks)]
        for call in calls:
            reply = lab.client.wait_reply(call)
            assert reply.kind == "reply", (number, machine.process.poll(), reply)
    assert machine.running()
