# SPDX-License-Identifier: LGPL-2.1-or-later
"""GetXml at each moment of a disk's life, against what QEMU and the disk objects say."""

import pytest
from kit import images
from kit.images import KIB
from kit.own import disk_xml, domain_xml


def disk_of(tree, target="vda"):
    return next(disk for disk in tree.findall("devices/disk") if disk.find("target").get("dev") == target)


def chain_of(tree, target="vda"):
    """(source, format) of each layer that the XML names, and whether the chain has its end mark."""
    disk = disk_of(tree, target)
    found, element, image_format = [], disk, disk.find("driver").get("type")
    while element is not None and element.find("source") is not None:
        found.append((element.find("source").get("file"), image_format))
        element = element.find("backingStore")
        if element is not None and element.find("format") is not None:
            image_format = element.find("format").get("type")
    return found, element is not None and len(element) == 0


def mirror_of(domain, **keywords):
    mirror = disk_of(domain.tree(**keywords)).find("mirror")
    return None if mirror is None else (mirror.get("job"), mirror.get("ready"), mirror.find("source").get("file"),
                                        mirror.find("format").get("type"))


def layers_of(disk):
    return [(layer["source"], layer["format"]) for layer in disk["Chain"]]


def test_running_and_inactive(own):
    chain = images.layers(own.directory, 3)
    domain, disk = own.standard(chain)
    assert chain_of(domain.tree()) == ([(chain.top.path, "qcow2")], False)
    assert domain.tree().get("id") is None and domain.xml() == domain.xml(inactive=True)
    shut_off = domain.xml()
    domain.start()
    assert chain_of(domain.tree()) == (layers_of(disk), True) and int(domain.tree().get("id")) > 0
    assert domain.xml(inactive=True) == shut_off
    domain.destroy()
    assert domain.xml() == shut_off


def test_can_be_defined_again(own):
    """What is told is what is taken, in either form; nothing is lost on the way."""
    chain = images.layers(own.directory, 3)
    domain, disk = own.standard(chain)
    domain.start()
    forms = [domain.xml(), domain.xml(inactive=True)]
    domain.destroy()
    for xml in forms:
        domain.undefine()
        domain = own.define(xml)
        assert domain["Name"] in xml and domain["Uuid"] in xml
        domain.start()
        assert domain.disk().sources() == chain.paths()
        again = domain.xml(inactive=True)
        domain.destroy()
        assert domain.xml() == again
    assert again == forms[1]


@pytest.mark.parametrize("kind", ["commit", "copy", "raw-copy"])
@pytest.mark.parametrize("state", ["running", "shutoff"])
def test_mirror(own, kind, state):
    chain = images.slow_layers(own.directory)
    domain, disk = own.standard(chain)
    if state == "running":
        domain.start()
    target = f"{own.directory}/target"
    image_format = "raw" if kind == "raw-copy" else "qcow2"
    auto = "pivot" if state == "shutoff" else None
    if kind == "commit":
        job, destination = disk.commit(active=True, speed=64 * KIB, auto=auto), chain.base.path
    else:
        job, destination = disk.copy(target, format=image_format, speed=64 * KIB, auto=auto), target
    mirror = (job["Type"], "yes" if job["Ready"] else None, destination, image_format)
    assert mirror_of(domain) == mirror
    assert mirror_of(domain, inactive=True) is None
    assert domain.xml_source(inactive=True) == [chain.top.path]
    own.lab.service.restart()
    job.wait("State", lambda state: state in ("running", "ready"))
    assert mirror_of(domain) == (job["Type"], "yes" if job["Ready"] else None, destination, image_format)
    job.set_speed(0)
    if state == "running":
        job.wait("State", "ready")
        assert mirror_of(domain) == (job["Type"], "yes", destination, image_format)
        job.pivot()
    job.wait_completed("completed")
    assert mirror_of(domain) is None and mirror_of(domain, inactive=True) is None
    assert chain_of(domain.tree(inactive=True))[0] == [(destination, image_format)]
    assert chain_of(domain.tree())[0] == ([(destination, image_format)] if state == "shutoff" else layers_of(disk))
    own.lab.service.restart()
    assert chain_of(domain.tree(inactive=True))[0] == [(destination, image_format)]
    if state == "running":
        domain.destroy()
    domain.start()
    assert disk["Source"] == destination and disk["Format"] == image_format


@pytest.mark.parametrize("end", ["kept", "cancelled"])
def test_mirror_that_ends_without_a_pivot(own, end):
    chain = images.slow_layers(own.directory)
    domain, disk = own.standard(chain)
    domain.start()
    before, inactive = domain.xml(), domain.xml(inactive=True)
    job = disk.copy(f"{own.directory}/target.qcow2", speed=64 * KIB if end == "cancelled" else None)
    if end == "kept":
        job.wait_ready()
    job.abort()
    job.wait_completed(end)
    assert domain.xml() == before and domain.xml(inactive=True) == inactive


def test_other_jobs_have_no_mirror(own):
    chain = images.layers(own.directory, 3)
    domain, disk = own.standard(chain)
    domain.start()
    for job in (disk.backup(f"{own.directory}/backup.qcow2", speed=64 * KIB),):
        assert mirror_of(domain) is None
        job.abort()
    job = disk.commit(top="[1]", base="[2]")
    job.wait_completed("completed")
    assert chain_of(domain.tree()) == ([(chain.top.path, "qcow2"), (chain.base.path, "qcow2")], True)
    disk.pull().wait_completed("completed")
    assert chain_of(domain.tree()) == ([(chain.top.path, "qcow2")], True)


def test_snapshots(own):
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    overlays = [f"{own.directory}/over-{number}.qcow2" for number in range(2)]
    disk.snapshot(overlays[0])
    assert domain.xml_source() == overlays[:1]
    domain.start()
    disk.snapshot(overlays[1])
    assert domain.xml_source() == [*reversed(overlays), *chain.paths()]
    assert domain.xml_source(inactive=True) == overlays[1:]
    own.lab.service.restart()
    assert domain.xml_source(inactive=True) == overlays[1:]


# Chains that the XML says itself.

def explicit(chain, depth=0):
    layers = list(reversed(chain.layers))[depth + 1:]
    inside = "<backingStore/>"
    for layer in reversed(layers):
        inside = (f"<backingStore type='file'><format type='{layer.format}'/><source file='{layer.path}'/>{inside}"
                  "</backingStore>")
    return inside


def test_explicit_chain(own):
    """It counts, and not the headers; jobs leave it true."""
    chain = own.give(images.layers(own.directory, 4))
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path, inside=explicit(chain))))
    disk = domain.disk()
    assert chain_of(domain.tree()) == ([(path, "qcow2") for path in chain.paths()], True)
    domain.start()
    disk.commit(top="[1]", base="[2]").wait_completed("completed")
    left = [chain.top.path, chain.layers[1].path, chain.base.path]
    for keywords in ({}, {"inactive": True}):
        assert chain_of(domain.tree(**keywords)) == ([(path, "qcow2") for path in left], True)
    domain.destroy()
    disk.snapshot(f"{own.directory}/over.qcow2")
    left.insert(0, f"{own.directory}/over.qcow2")
    assert domain.xml_source() == left
    domain.start()
    assert disk.sources() == left
    disk.commit(active=True, auto="pivot").wait_completed("completed")
    assert domain.xml_source() == domain.xml_source(inactive=True) == [chain.base.path]
    domain.destroy()
    images.assert_contents(chain.base, chain.contents[3])
    domain.start()
    assert disk.sources() == [chain.base.path]


def test_explicit_chain_where_the_headers_say_another(own):
    """The header names a file that is not there any more; the XML knows where it went."""
    import os
    chain = images.two_layers(own.directory)
    moved = f"{own.directory}/moved.qcow2"
    os.rename(chain.base.path, moved)
    chain.layers[0] = images.Layer(moved, "qcow2", images.SIZE)
    own.give(chain)
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path, inside=explicit(chain))))
    domain.start()
    assert domain.disk().sources() == [chain.top.path, moved]
    domain.disk().commit(active=True, auto="pivot").wait_completed("completed")
    domain.destroy()
    images.assert_contents(chain.base, chain.contents[1])


@pytest.mark.parametrize("job", ["pull", "commit", "copy"])
def test_explicit_chain_of_one_that_is_off(own, job):
    chain = own.give(images.layers(own.directory, 3))
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path, inside=explicit(chain))))
    disk, target = domain.disk(), f"{own.directory}/target.qcow2"
    {"pull": disk.pull, "commit": lambda: disk.commit(active=True, auto="pivot"),
     "copy": lambda: disk.copy(target, auto="pivot")}[job]().wait_completed("completed")
    end = {"pull": chain.top.path, "commit": chain.base.path, "copy": target}[job]
    assert domain.xml_source() == [end] == disk.sources()
    domain.start()
    assert disk.sources() == [end] == domain.xml_source()
    domain.destroy()
    images.assert_contents(images.Layer(end, "qcow2", images.SIZE), chain.contents[2])


def test_names_with_strange_letters(own):
    """Quotes, ampersands and blanks are letters of a file name."""
    import os
    path = f"{own.directory}/a 'b' \"c\" & <d> é,x=y%20.qcow2"
    chain = images.two_layers(own.directory)
    os.rename(chain.top.path, path)
    chain.layers[1] = images.Layer(path, "qcow2", images.SIZE)
    own.give(chain)
    escaped = path.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&apos;")
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(escaped)))
    assert domain.xml_source() == [path]
    domain.start()
    assert domain.disk().sources() == chain.paths() == domain.xml_source()
    own.lab.service.restart()
    assert domain.xml_source(inactive=True) == [path]
    domain.disk().commit(active=True, auto="pivot").wait_completed("completed")
    assert domain.xml_source(inactive=True) == [chain.base.path]
