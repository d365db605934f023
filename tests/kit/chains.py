# SPDX-License-Identifier: LGPL-2.1-or-later
"""Chains with more in them than data: zeros and holes, filters between layers, files that cannot be changed.

And what is left of a chain when some of its layers were merged, in the model, in QEMU and on disk.
"""

import hashlib
import json
import os

from kit import images
from kit.images import KIB, MIB, run
from kit.qemu import Machine

# A region of `every_case`: whole clusters of every size up to this one, so that all of it can be
# discarded in a layer that has such clusters.
REGION = 128 * KIB


class MixedChain(images.Chain):
    """A chain whose layers may have zeros and holes, and sizes and clusters of their own."""

    def add_mixed(self, operations, image_format="qcow2", size=None, file_name=None, settings="", backing=None):
        """Puts a layer on top. An operation is (kind, pattern, offset, length), and its kind is "data", "zero" or
        "discard"; what lies behind the end of the layer is left out. settings are those of qemu-img's -o."""
        self.add(image_format=image_format, size=size, file_name=file_name, backing=backing)
        layer, contents = self.top, self.contents[-1]
        if settings:
            self._format_again(layer, settings)
        commands = []
        for kind, pattern, offset, length in operations:
            length = min(length, layer.size - offset)
            if length <= 0:
                continue
            # What is discarded was there before.
            if kind in ("data", "discard"):
                commands.append(f"write -P {pattern} {offset} {length}")
            if kind == "zero":
                commands.append(f"write -z {offset} {length}")
            if kind == "discard":
                commands.append(f"discard {offset} {length}")
            contents.fill(pattern if kind == "data" else 0, offset, length)
        if commands:
            arguments = [part for command in commands for part in ("-c", command)]
            run("qemu-io", "-d", "unmap", "-f", image_format, *arguments, layer.path)
        return self

    def _format_again(self, layer, settings):
        command = ["qemu-img", "create", "-q", "-f", layer.format, "-o", settings]
        if len(self.layers) > 1:
            command += ["-b", images.backing_string(layer), "-F", self.layers[-2].format]
        run(*command, layer.path, str(layer.size))


def every_case():
    """What three layers do in 32 regions: [operations of the lowest, of the one above, of the highest].

    Each region is another combination of: in the lowest nothing or data, in each of the others nothing, data,
    zeros, or data that was discarded. Data and zeros of the upper two do not cover a region, and not the same part.
    """
    operations = ([], [], [])
    start = 0
    for lowest in (None, "data"):
        for middle in (None, "data", "zero", "discard"):
            for highest in (None, "data", "zero", "discard"):
                part = REGION // 4
                if lowest:
                    operations[0].append(("data", 1, start, REGION))
                if middle:
                    length = REGION if middle == "discard" else REGION - part
                    operations[1].append((middle, 2, start, length))
                if highest:
                    skipped = 0 if highest == "discard" else part
                    operations[2].append((highest, 3, start + skipped, REGION - skipped))
                start += REGION
    return operations


def merge(chain, top, base):
    """The model of a commit of layer number top into number base, which is what that layer was from then on."""
    chain.contents[base] = chain.contents[top]
    chain.layers[base].size = len(chain.contents[base])
    del chain.layers[base + 1:top + 1]
    del chain.contents[base + 1:top + 1]


def left_numbers(count, top, base):
    """The numbers, bottom first, of the layers that such a commit leaves of count."""
    return [number for number in range(count) if not base < number <= top]


def assert_layers(machine, disk, chain, numbers, target="vda", root=None):
    """QEMU and the bus agree that these are the disk's layers, by the numbers in their node names, and no other
    image is open; nothing of a job is left. root is the filter on top of them, where there is one."""
    nodes = machine.nodes()
    expected = {f"{target}-{number}{end}" for number in numbers for end in ("", "-file")} | ({root} if root else set())
    assert {name for name in nodes if name.startswith(f"{target}-")} == expected
    # The files as their own nodes tell them: a layer above them may have a json: name.
    assert [nodes[f"{target}-{number}-file"]["file"] for number in reversed(numbers)] == chain.paths()
    assert not [name for name in nodes if name.startswith("bj-")]
    assert machine.jobs() == {}, "the job is still in QEMU"
    assert machine.block(target)["inserted"]["node-name"] == (root or f"{target}-{numbers[-1]}")
    assert [nodes[f"{target}-{number}"]["ro"] for number in numbers] == [True] * (len(numbers) - 1) + [False]
    assert disk["Source"] == chain.top.path
    assert disk["Job"] == "/"
    assert disk["NodeName"] == (root or f"{target}-{numbers[-1]}")
    assert_told(disk, chain)
    assert [layer["node-name"] for layer in disk["Chain"]] == [f"{target}-{number}" for number in reversed(numbers)]


def assert_told(disk, chain):
    """The bus tells this chain."""
    told = disk["Chain"]
    assert [layer["source"] for layer in told] == chain.paths()
    assert [layer["depth"] for layer in told] == list(range(len(chain.layers)))
    assert [layer["format"] for layer in told] == [layer.format for layer in reversed(chain.layers)]
    assert [layer["virtual-size"] for layer in told] == [layer.size for layer in reversed(chain.layers)]
    assert [layer["backing"] for layer in told] == [images.backing_string(layer) for layer in reversed(chain.layers)]
    assert [layer["read-only"] for layer in told] == [False] + [True] * (len(told) - 1)


def assert_headers(chain):
    """Each image's header leads to the one below, and names its format."""
    below = None
    for layer in chain.layers:
        information = images.information(layer)
        recorded = information.get("backing-filename")
        if below is None:
            assert recorded is None, f"{layer.path} has the backing file {recorded}"
        else:
            assert recorded, f"{layer.path} has no backing file"
            found = os.path.join(os.path.dirname(layer.path), recorded)
            assert os.path.exists(found), f"{layer.path} has the backing file {recorded}, which is missing"
            assert os.path.samefile(found, below.path), f"{layer.path} has the backing file {recorded}"
            assert information["backing-filename-format"] == below.format
        below = layer


def assert_images(chain):
    """What a machine that starts now would find: the headers, and every byte of every layer. No QEMU may run."""
    assert_headers(chain)
    for layer, contents in zip(chain.layers, chain.contents):
        images.assert_contents(layer, contents)
        if layer.format == "qcow2":
            images.assert_sound(layer)


def digests(layers):
    """What tells whether any of these files was changed."""
    found = {}
    for layer in layers:
        with open(layer.path, "rb") as file:
            found[layer.path] = hashlib.sha256(file.read()).hexdigest()
    return found


def slow_middle(directory, count=3, number=1, name="disk"):
    """count layers, whose number `number` has much in it with gaps between: its commit lasts with a speed limit."""
    chain = images.Chain(directory, name)
    for layer in range(count):
        writes = images.stripes(layer + 1) if layer == number else [(layer + 1, layer * MIB, 2 * MIB)]
        chain.add(writes)
    return chain


class LayeredMachine(Machine):
    """A machine with filters in the middle of its chains, or with options of its own for every image file."""

    def __init__(self, directory, name, filters=None, **file_options):
        """filters: of which node it is above, and its driver, throttle or copy-on-read."""
        super().__init__(directory, name)
        self.filters = filters or {}
        self.file_options = file_options
        if "throttle" in self.filters.values():
            group = {"qom-type": "throttle-group", "id": "between", "limits": {"bps-total": 1 << 40}}
            self.arguments += ["-object", json.dumps(group)]

    def _blockdev(self, **options):
        if options["driver"] == "file":
            options.update(self.file_options)
        # copy-on-read writes, or wants to be able to.
        if self.filters.get(options["node_name"]) == "copy-on-read":
            options["read_only"] = False
        below = options.get("backing")
        if below in self.filters:
            node = f"{below}-filter"
            driver = self.filters[below]
            group = {"throttle_group": "between"} if driver == "throttle" else {}
            super()._blockdev(driver=driver, node_name=node, file=below, read_only=driver != "copy-on-read", **group)
            options["backing"] = node
        super()._blockdev(**options)


def layered(lab, filters=None, **file_options):
    """Such a machine as one of the lab's, not started."""
    machine = LayeredMachine(lab.directory, lab.unique_name(), filters, **file_options)
    lab.machines.append(machine)
    return machine


def write_zeros(machine, target, offset, length):
    """A guest's request for zeros, which need not become data."""
    seen = len(machine.output())
    line = f'qemu-io {machine.write_names[target]} "write -z {offset} {length}"'
    result = machine.qmp.human(line) + machine.output()[seen:]
    assert "wrote " in result, f"zeros to {target} failed: {result}"
    machine.chains[target].contents[-1].fill(0, offset, length)


def flush(machine, target):
    """A guest's flush: what it wrote before is on disk, whatever becomes of QEMU."""
    result = machine.qmp.human(f'qemu-io {machine.write_names[target]} flush')
    assert "rror" not in result, result


class ReadOnlyMount:
    """A file or a directory that nobody can change any more, root included: mounted over itself, read-only.

    chattr would do the same, but not on every file system."""

    def __init__(self, path):
        self.path = path
        run("mount", "--bind", path, path)
        run("mount", "-o", "remount,bind,ro", path)

    def remove(self):
        # Lazily: a killed process may be about to close its last file.
        run("umount", "-l", self.path)
