# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine that is plugged into a bridge of the host."""

import fcntl
import os
import socket
import stat
import subprocess

import pytest
from kit import images
from kit.bus import refused
from kit.own import disk_xml, domain_xml

SIOCBRADDBR, SIOCBRDELBR = 0x89A0, 0x89A1
TUN = "/dev/net/tun"


def network_device_call(number, name):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, number, name.encode() + b"\0")


@pytest.fixture
def bridge():
    name = f"bjt{os.getpid() % 100000}"
    network_device_call(SIOCBRADDBR, name)
    yield name
    network_device_call(SIOCBRDELBR, name)


@pytest.fixture
def tun(workdir):
    """As udev makes it: everybody may open it. In the mount namespace of the tests alone."""
    if os.stat(TUN).st_mode & 0o006 == 0o006:
        yield
        return
    node = f"{workdir}/tun"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(10, 200))
    os.chmod(node, 0o666)
    subprocess.run(["mount", "--bind", node, TUN], check=True)
    yield
    subprocess.run(["umount", TUN], check=True)


def ports(bridge):
    return os.listdir(f"/sys/class/net/{bridge}/brif")


def machine_on(own, bridge):
    chain = own.give(images.two_layers(own.directory))
    devices = f"<interface type='bridge'><source bridge='{bridge}'/><model type='virtio'/></interface>\n"
    return own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path), devices=devices))


def test_plugged_in_as_long_as_it_runs(bridge, tun, own):
    domain = machine_on(own, bridge)
    domain.start()
    tap, = ports(bridge)
    assert tap.startswith("bj") and tap.endswith("-0")
    own.lab.service.restart()
    assert ports(bridge) == [tap]
    domain.destroy()
    assert not ports(bridge) and not os.path.exists(f"/sys/class/net/{tap}")
    domain.start()
    assert ports(bridge) == [tap]


def test_bridge_that_is_not_there(tun, own):
    domain = machine_on(own, "bj-none")
    with refused("InvalidArgument", "bj-none"):
        domain.start()
    assert domain["State"] == "shutoff"
    assert not [name for name in os.listdir("/sys/class/net") if name.startswith("bj") and name.endswith("-0")]
