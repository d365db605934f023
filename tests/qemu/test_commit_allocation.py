# SPDX-License-Identifier: LGPL-2.1-or-later
"""What becomes of every cluster, whichever layers have it: data, zeros and holes, and layers of unlike sizes."""

import pytest

from kit import chains, images
from kit.bus import refused
from kit.chains import REGION, MixedChain
from kit.images import KIB, MIB

ALL = 32 * REGION
# Ends that are in the middle of a region, and at no border of a cluster.
HALF = ALL // 2 + 3 * 512
MORE = ALL * 3 // 4 + 32 * KIB

# Of each of the three layers: format, size, and what else it is created with.
LAYOUTS = {
    "alike": [("qcow2", ALL, ""), ("qcow2", ALL, ""), ("qcow2", ALL, "")],
    "growing": [("qcow2", HALF, ""), ("qcow2", MORE, "cluster_size=4k"), ("qcow2", ALL, "cluster_size=128k")],
    "raw-base": [("raw", HALF, ""), ("qcow2", MORE, "cluster_size=128k"), ("qcow2", ALL, "cluster_size=4k")],
    "subclusters": [("qcow2", ALL, "cluster_size=4k"), ("qcow2", ALL, "cluster_size=128k,extended_l2=on"),
                    ("qcow2", ALL, "cluster_size=64k,extended_l2=on")],
    "large-base": [("qcow2", MORE, "cluster_size=2M"), ("qcow2", MORE, "cluster_size=4k"), ("qcow2", ALL, "")],
}


@pytest.mark.parametrize("kind", ["middle", "active"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_case(lab, layout, kind):
    chain = MixedChain(lab.directory)
    for operations, (image_format, size, settings) in zip(chains.every_case(), LAYOUTS[layout]):
        chain.add_mixed(operations, image_format, size, settings=settings)
    if kind == "middle":
        chain.add_mixed([("data", 4, 5 * REGION, 3 * REGION), ("zero", 0, 21 * REGION, REGION)])
    images.assert_contents(chain.top, chain.contents[-1])
    machine, _, disk = lab.standard(chain)
    if kind == "middle":
        disk.commit(top="[1]", base="[3]").wait_completed("completed")
    else:
        job = disk.commit(active=True)
        job.wait_ready()
        # The second phase has zeros as well: over data, and over nothing.
        chains.write_zeros(machine, "vda", 16 * REGION, 2 * REGION)
        chains.write_zeros(machine, "vda", REGION // 2, REGION // 4)
        machine.write("vda", 9, 3 * REGION, REGION)
        job.pivot()
        job.wait_completed("completed")
    capacity = disk["Capacity"]
    chains.merge(chain, 2, 0)
    chains.assert_layers(machine, disk, chain, [0, 3] if kind == "middle" else [0])
    assert capacity == chain.top.size == ALL
    machine.quit()
    chains.assert_images(chain)


def short_middle(directory, covered):
    """A layer in the middle that is shorter than both its neighbours: what lies behind its end hides base.

    Where the layer above it has nothing, that must read as zeros, and not as the data of base."""
    chain = MixedChain(directory)
    chain.add_mixed([("data", 1, 0, 2 * MIB)], size=2 * MIB)
    chain.add_mixed([("data", 2, 0, MIB // 2)], size=MIB)
    chain.add_mixed([("data", 3, MIB // 4, 64 * KIB), ("data", 3, MIB + MIB // 2, 64 * KIB)], size=2 * MIB)
    if covered:
        chain.add_mixed([("data", 4, MIB // 8, 64 * KIB)])
    assert chain.contents[-1][MIB:MIB + MIB // 2] == bytes(MIB // 2)
    return chain


@pytest.mark.parametrize("kind", ["middle", "active"])
@pytest.mark.parametrize("base", [0, 1], ids=["into-the-longer", "into-the-shorter"])
def test_short_layer_in_the_middle(lab, base, kind):
    chain = short_middle(lab.directory, kind == "middle")
    machine, _, disk = lab.standard(chain)
    options = {"top": "[1]"} if kind == "middle" else {"auto": "pivot"}
    disk.commit(base=f"node:vda-{base}", **options).wait_completed("completed")
    chains.merge(chain, 2, base)
    left = list(range(base + 1)) + ([3] if kind == "middle" else [])
    chains.assert_layers(machine, disk, chain, left)
    machine.quit()
    chains.assert_images(chain)


@pytest.mark.parametrize("kind, base_format", [("middle", "qcow2"), ("middle", "raw"), ("active", "qcow2")])
def test_top_that_is_smaller(lab, kind, base_format):
    """By no more than a sector: base would have an end that nobody wrote."""
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, 4 * MIB)], base_format, 4 * MIB).add([(2, 0, MIB)], size=4 * MIB - 512)
    if kind == "middle":
        chain.add(size=4 * MIB)
    machine, _, disk = lab.standard(chain)
    before = chains.digests(chain.layers[:1])
    with refused("InvalidArgument", chain.layers[1].path, chain.base.path):
        disk.commit(**({"top": "[1]"} if kind == "middle" else {"active": True}))
    chains.assert_layers(machine, disk, chain, range(len(chain.layers)))
    assert chains.digests(chain.layers[:1]) == before


def test_grown_base_after_an_abort(lab):
    """Base grows at the start of the job; that is no harm to a disk which still has its layers."""
    chain = images.Chain(lab.directory)
    chain.add([(1, 0, MIB)], size=2 * MIB).add(images.stripes(2), size=8 * MIB).add()
    machine, _, disk = lab.standard(chain)
    job = disk.commit(top="[1]", speed=64 * KIB)
    job.abort()
    job.wait_completed("cancelled")
    machine.write("vda", 9, 6 * MIB, MIB)
    assert disk.sources() == chain.paths()
    assert disk["Chain"][-1]["virtual-size"] == images.information(chain.base)["virtual-size"]
    machine.quit()
    chains.assert_headers(chain)
    for layer, contents in list(zip(chain.layers, chain.contents))[1:]:
        images.assert_contents(layer, contents)
