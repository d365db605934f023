# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of pulls and backups share: disks that no ordinary machine has, and a service that dies on the way."""

import json

from kit import images
from kit.bus import ROOT, options, refused
from kit.images import KIB, MIB
from kit.objects import Job

# With the gaps of images.slow_layers: a job that is under way for as long as a test may take.
SLOW = 64 * KIB

# Where a read of the faulty disk fails: not at the start, which QEMU reads to guess the disk's geometry.
FAULT = 2 * MIB


def faulty_disk(lab, error_number, once=True):
    """(machine, chain, disk): a read of the raw base at FAULT ends in this error, the first time or each time."""
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, 4 * MIB)], image_format="raw").add([(2, 8 * MIB, MIB)])
    rule = {"event": "none", "iotype": "read", "sector": FAULT // 512, "errno": error_number, "once": once}
    return attach(lab, chain, {0: {"driver": "blkdebug", "image": "vda-0-file", "inject-error": [rule]}}, {})


def disk_with_filter_between(lab, chain, number):
    """(machine, chain, disk): right above layer number, 0 being the lowest, there is the throttle "between"."""
    return attach(lab, chain, {}, {number: {"driver": "throttle", "throttle-group": "group",
                                            "file": f"vda-{number}"}})


def attach(lab, chain, protocol_filters, format_filters):
    machine = lab.machine()
    machine.arguments += ["-object", json.dumps({"qom-type": "throttle-group", "id": "group"})]
    below = None
    for number, layer in enumerate(chain.layers):
        read_only = layer is not chain.top
        file = f"vda-{number}-file"
        nodes = [{"driver": "file", "node-name": file, "filename": layer.path, "auto-read-only": True}]
        if number in protocol_filters:
            file = f"vda-{number}-faults"
            nodes.append({"node-name": file, **protocol_filters[number]})
        nodes.append({"driver": layer.format, "node-name": f"vda-{number}", "file": file, "read-only": read_only})
        if layer.format == "qcow2":
            nodes[-1]["backing"] = below
        below = f"vda-{number}"
        if number in format_filters:
            below = "between"
            nodes.append({"node-name": below, "read-only": read_only, **format_filters[number]})
        for node in nodes:
            machine.arguments += ["-blockdev", json.dumps(node)]
    machine.arguments += ["-device", f"virtio-blk-pci,id=vda,drive={below}"]
    machine.chains["vda"] = chain
    machine.write_names["vda"] = "-d /machine/peripheral/vda/virtio-backend"
    machine.start()
    return machine, chain, lab.attach(machine).disk("vda")


def run_until_death(lab, disk, member, signature, *arguments, **keywords):
    """Starts a job in a service that dies at a step. The job's object, None where it was never told of."""
    position = lab.client.position()
    lab.client.wait_reply(lab.client.call_later(disk.path, "Disk", member, signature, *arguments, options(keywords)))
    lab.service.wait_gone()
    told = lab.client.heard(ROOT, "JobNew", position)
    return Job(lab.client, told[0].arguments[1]) if told else None


def assert_each_refused(name, cases, call):
    """For each (values, word) of the cases: call(values) ends in this error, with the word in its message."""
    wrong = []
    for values, word in cases:
        try:
            with refused(name, word):
                call(values)
        except AssertionError as error:
            wrong.append(f"{values}: {error}")
    assert not wrong, "\n".join(wrong)


def assert_nodes(machine, *names):
    """QEMU has these nodes with their files, the names "-file" of which go without saying, and nothing else."""
    expected = {name for number in names for name in (number, f"{number}-file")}
    assert set(machine.nodes()) == expected
    assert machine.jobs() == {}, "the job is still in QEMU"


def assert_single_phase(lab, job):
    """What no job without a second phase has, neither while it runs nor afterwards."""
    assert job["Mode"] == "" and job["Ready"] is False
    assert job["ReadyTime"] == 0 and job["GuestHold"] == 0
    assert not lab.client.heard(job.path, "Ready")
