# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disk images with known contents, and comparison with a model of them byte by byte."""

import json
import os
import subprocess
import tempfile

KIB = 1 << 10
MIB = 1 << 20
SIZE = 32 * MIB


def run(*command):
    """Runs a tool to its end; its output is in the error when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}"
    return done.stdout


class Contents(bytearray):
    """What a reader of an image should find in it."""

    def fill(self, pattern, offset, length):
        self[offset:offset + length] = bytes([pattern]) * length

    def copy(self):
        return Contents(self)


class Layer:
    def __init__(self, path, image_format, size):
        self.path = path
        self.format = image_format
        self.size = size


def stripes(pattern, count=16, length=64 * KIB, step=256 * KIB, start=0):
    """Writes with gaps between them.

    QEMU copies a run of neighbouring dirty clusters in one go, whatever the speed; with gaps a speed
    limit is kept from the first stripe on, so that a job of one mebibyte can be made to last.
    """
    return [(pattern, start + number * step, length) for number in range(count)]


class Chain:
    """Images that are each other's backing files.

    layers are the layers, bottom first; contents[n] is what a reader of layer n finds.
    """

    def __init__(self, directory, name="disk"):
        self.directory = directory
        self.name = name
        self.layers = []
        self.contents = []

    def add(self, writes=(), image_format="qcow2", size=None, file_name=None, backing=None, unchecked=False):
        """Puts a layer on top. backing is the string for its header, where it is not simply the path;
        unchecked means that the file it names is not looked at, since a QEMU has it open."""
        size = size or (self.layers[-1].size if self.layers else SIZE)
        path = os.path.join(self.directory, file_name or f"{self.name}-{len(self.layers)}.{image_format}")
        command = ["qemu-img", "create", "-q", "-f", image_format]
        if self.layers:
            command += ["-b", backing or self.layers[-1].path, "-F", self.layers[-1].format]
        if unchecked:
            command.append("-u")
        run(*command, path, str(size))
        below = self.contents[-1] if self.contents else b""
        contents = Contents(below[:size])
        contents.extend(bytes(size - len(contents)))
        if writes:
            arguments = []
            for pattern, offset, length in writes:
                arguments += ["-c", f"write -P {pattern} {offset} {length}"]
                contents.fill(pattern, offset, length)
            run("qemu-io", "-f", image_format, *arguments, path)
        self.layers.append(Layer(path, image_format, size))
        self.contents.append(contents)
        return self

    @property
    def base(self):
        return self.layers[0]

    @property
    def top(self):
        return self.layers[-1]

    def paths(self):
        """Top first, as the bus tells them."""
        return [layer.path for layer in reversed(self.layers)]


def two_layers(directory, name="disk", base_format="qcow2", size=SIZE):
    """A base and an overlay that overlap: 3 MiB of data at most have to be copied."""
    chain = Chain(directory, name)
    chain.add([(1, 0, 4 * MIB)], image_format=base_format, size=size)
    chain.add([(2, 2 * MIB, 3 * MIB)])
    return chain


def slow_layers(directory, name="disk", base_format="qcow2"):
    """A base and an overlay whose commit can be made to last by a speed limit."""
    chain = Chain(directory, name)
    chain.add([(1, 0, 4 * MIB)], image_format=base_format)
    chain.add(stripes(2))
    return chain


def layers(directory, count, name="disk"):
    """count layers, each with a pattern of its own that covers half of the one below."""
    chain = Chain(directory, name)
    for number in range(count):
        chain.add([(number + 1, number * MIB, 2 * MIB)])
    return chain


def read_image(path, image_format):
    """The whole of an image as bytes, through its chain, whoever else has it open."""
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), suffix=".raw") as raw:
        run("qemu-img", "convert", "-U", "-f", image_format, "-O", "raw", path, raw.name)
        return raw.read()


def assert_contents(layer, expected):
    """Every byte of the image is as in the model."""
    found = read_image(layer.path, layer.format)
    assert len(found) == len(expected), f"{layer.path}: {len(found)} bytes instead of {len(expected)}"
    if found != expected:
        step = 64 * KIB
        wrong = [offset for offset in range(0, len(expected), step)
                 if found[offset:offset + step] != expected[offset:offset + step]]
        first = wrong[0]
        raise AssertionError(f"{layer.path}: {len(wrong)} blocks of 64 KiB differ, the first at {first}: "
                             f"{found[first]} instead of {expected[first]}")


def has_pattern(layer, pattern, offset, length):
    """As `assert_contents` for one range, by qemu-io's own verification."""
    done = subprocess.run(["qemu-io", "-r", "-U", "-f", layer.format, "-c", f"read -P {pattern} {offset} {length}",
                           layer.path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode == 0 and "erification failed" not in done.stdout


def assert_identical(one, other):
    """qemu-img's opinion on two layers that must show the same disk."""
    run("qemu-img", "compare", "-U", "-f", one.format, "-F", other.format, one.path, other.path)


def assert_sound(layer):
    """No corruption in the metadata of a qcow2 image that nobody has open."""
    run("qemu-img", "check", "-q", "-f", layer.format, layer.path)


def assert_uncorrupted(layer):
    """As assert_sound, but clusters that nothing refers to are no harm; a QEMU that had no end leaves them."""
    done = subprocess.run(["qemu-img", "check", "-q", "-f", layer.format, layer.path], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode in (0, 3), f"{layer.path}: {done.stdout}"


def information(layer):
    return json.loads(run("qemu-img", "info", "-U", "-f", layer.format, "--output=json", layer.path))


def backing_string(layer):
    return information(layer).get("backing-filename", "")
