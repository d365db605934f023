# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine whose image a commit of somebody else has made invalid does not start from it, unless it has to."""

from kit import images
from kit.bus import options, refused
from kit.own import disk_xml, domain_xml


def test_start(own):
    chain = own.give(images.layers(own.directory, 3))
    other = images.Chain(own.directory, "other")
    other.layers, other.contents = [chain.base], [chain.contents[0]]
    other.add(file_name="other.qcow2")
    own.give(other)
    one, disk = own.standard(chain)
    two = own.define(domain_xml(own.lab.unique_name(), disk_xml(other.top.path)))
    with refused("ImageInUse", chain.base.path, two["Name"], "force"):
        disk.commit(top="[1]", base="[2]")
    disk.commit(top="[1]", base="[2]", force=True).wait_completed("completed")
    with refused("ImageInUse", other.top.path, chain.base.path, two["Name"], "force"):
        two.start()
    one.start()
    one.destroy()
    two.call("Start", "(a{sv})", options({"force": True}))
    assert two["State"] == "running"
