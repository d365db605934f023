# SPDX-License-Identifier: LGPL-2.1-or-later
"""One job of each type, on a disk on which each of them can be made to last: for what must hold for all of them."""

from kit import images
from kit.images import KIB

KINDS = ("active-commit", "commit", "copy", "pull", "backup")
TWO_PHASES = ("active-commit", "copy")
SLOW = 64 * KIB


def slow_chain(directory, name="disk"):
    """Three layers in which every other cluster has data, so that a speed limit is kept for each kind."""
    chain = images.Chain(directory, name)
    for number in range(3):
        chain.add(images.stripes(number + 1, start=number * 64 * KIB))
    return chain


def slow_disk(lab):
    return lab.standard(slow_chain(lab.directory))


def target_path(kind, directory):
    return f"{directory}/{kind}-target.qcow2"


def start(kind, lab, disk, policy=None, target=None, **keywords):
    """policy is the error policy for whatever the job reads and writes; target is that of a copy or a backup."""
    if kind == "copy" and "speed" in keywords:
        # A limit holds back what comes after 16 MiB that are under way at once, if there is room for them.
        keywords["buffer"] = 64 * KIB
    if kind in ("copy", "backup"):
        method = disk.copy if kind == "copy" else disk.backup
        return method(target or target_path(kind, lab.directory), on_source_error=policy, on_target_error=policy,
                      **keywords)
    if kind == "pull":
        return disk.pull(on_error=policy, **keywords)
    if kind == "commit":
        return disk.commit(top="[1]", on_error=policy, **keywords)
    return disk.commit(active=True, on_error=policy, **keywords)


def finish(kind, job):
    """To the end that it is for; a job of two phases pivots."""
    job.set_speed(0)
    if kind in TWO_PHASES:
        job.wait_ready()
        job.pivot()
    job.wait_completed("completed")


def written_image(kind, lab, chain):
    """The layer that the job writes, and what is in it when it is completed without a write of the guest."""
    if kind in ("copy", "backup"):
        return images.Layer(target_path(kind, lab.directory), "qcow2", images.SIZE), chain.contents[-1]
    if kind == "commit":
        return chain.base, chain.contents[1]
    return (chain.top if kind == "pull" else chain.base), chain.contents[-1]


def assert_result(kind, lab, chain):
    """The image that was written is all there; and the disk, where it is another one, shows what it showed."""
    layer, contents = written_image(kind, lab, chain)
    images.assert_contents(layer, contents)
    if kind != "active-commit":
        images.assert_contents(chain.top, chain.contents[-1])


def file_of_disk(machine, target="vda"):
    """The file that the guest writes to, as its own node names it: the one of the format may be a json: text."""
    graph = machine.qmp.execute("x-debug-query-block-graph")
    names = {item["id"]: item["name"] for item in graph["nodes"]}
    drivers = {name: node["drv"] for name, node in machine.nodes().items()}

    def child(name, *edges):
        return next((names[edge["child"]] for edge in graph["edges"]
                     if names[edge["parent"]] == name and edge["name"] in edges), None)

    name = machine.block(target)["inserted"]["node-name"]
    while drivers[name] in ("mirror_top", "commit_top"):
        name = child(name, "backing")
    while below := child(name, "file", "image"):
        name = below
    return machine.nodes()[name]["file"]


def assert_disk_as_before(machine, chain, disk, target="vda"):
    """After an end without success: the same image is the disk, and everybody says so."""
    assert disk["Source"] == file_of_disk(machine, target) == chain.top.path
    assert disk.sources() == chain.paths()
    assert disk["Job"] == "/"
    assert machine.jobs() == {}, "the job is still in QEMU"
