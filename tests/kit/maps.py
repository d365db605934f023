# SPDX-License-Identifier: LGPL-2.1-or-later
"""Chains of which it is known which layer holds what, and what Disk.Map has to say of them."""

from kit import images
from kit.images import KIB, MIB

DATA, ZERO, NOWHERE = 1, 2, 0xFFFFFFFF
NOTHING = (ZERO, NOWHERE)


def written(*layers, size=images.SIZE, granularity=64 * KIB):
    """Layers bottom first, each a list of (offset, length, flags): the ranges that a map of them has."""
    cells = [NOTHING] * (size // granularity)
    for number, layer in enumerate(layers):
        for offset, length, flags in layer:
            for cell in range(offset // granularity, (offset + length) // granularity):
                cells[cell] = (flags, len(layers) - 1 - number)
    return merged([(cell * granularity, granularity, *what) for cell, what in enumerate(cells)])


def merged(ranges):
    found = []
    for offset, length, flags, depth in ranges:
        if found and found[-1][2:] == (flags, depth):
            found[-1] = (found[-1][0], found[-1][1] + length, flags, depth)
        else:
            found.append((offset, length, flags, depth))
    return found


def part(ranges, offset, length):
    """What a map of that part alone has to say."""
    cut = [(max(at, offset), min(at + long, offset + length), flags, depth) for at, long, flags, depth in ranges]
    return [(start, end - start, flags, depth) for start, end, flags, depth in cut if start < end]


def layered(directory, count):
    """(chain, its map): layer n holds two stripes of its own and one that hides a piece of the layer below."""
    chain, layers = images.Chain(directory), []
    for number in range(count):
        writes = [(number + 1, (4 * number + 1) * MIB, 2 * MIB), (number + 1, (16 + number) * MIB, 320 * KIB)]
        chain.add(writes)
        layers.append([(offset, length, DATA) for _, offset, length in writes])
        if number:
            offset = (4 * number - 2) * MIB
            images.run("qemu-io", "-f", "qcow2", "-c", f"write -P 77 {offset} 1M", chain.top.path)
            chain.contents[-1].fill(77, offset, MIB)
            layers[-1].append((offset, MIB, DATA))
    return chain, written(*layers)
