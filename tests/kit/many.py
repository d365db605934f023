# SPDX-License-Identifier: LGPL-2.1-or-later
"""As many of something as a limit allows, made quickly."""

import os

from kit.images import KIB, MIB, Chain, Contents, Layer, run

# So much between two stripes of data that a job does not copy them in one go, and can be slowed down.
STEP = 256 * KIB


def raw_disk(directory, name, stripes=8):
    """A disk of one raw layer, without a program that makes it."""
    chain = Chain(directory, name)
    contents = Contents(bytes(stripes * STEP))
    for number in range(stripes):
        contents.fill(number + 1, number * STEP, 64 * KIB)
    path = f"{directory}/{name}.raw"
    with open(path, "wb") as file:
        for number in range(stripes):
            file.seek(number * STEP)
            file.write(contents[number * STEP:number * STEP + 64 * KIB])
        file.truncate(len(contents))
    chain.layers.append(Layer(path, "raw", len(contents)))
    chain.contents.append(contents)
    return chain


def deep_chain(directory, count, name="deep"):
    """So many layers; only the lowest holds anything. All other headers are alike but for three digits."""
    chain = Chain(directory, name).add([(1, 0, 64 * KIB)], size=MIB, file_name=f"{name}-000.qcow2")
    model = f"{directory}/{name}-001.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", chain.base.path, "-F", "qcow2", model, str(MIB))
    with open(model, "rb") as file:
        header = file.read()
    os.unlink(model)
    for number in range(1, count):
        path = f"{directory}/{name}-{number:03}.qcow2"
        with open(path, "wb") as file:
            file.write(header.replace(b"-000.qcow2", b"-%03d.qcow2" % (number - 1)))
        chain.layers.append(Layer(path, "qcow2", MIB))
        chain.contents.append(chain.contents[-1].copy())
    return chain
