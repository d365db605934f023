# SPDX-License-Identifier: LGPL-2.1-or-later
"""Another host, over ssh; a container. What is typed next goes there, too."""

import os

import pytest

from kit import ctl as status
from kit.ctl import Running, ctl
from kit.objects import Job

# What stands for the other host's sshd: the bridge is the real one, of systemd, on this bus.
SSH = """#!/bin/sh
echo "$@" >>{log}
while [ "$1" != -- ]; do shift; done
[ "$2" != root@nowhere ] || {{ echo "ssh: Could not resolve hostname nowhere" >&2; exit 255; }}
shift 2
[ "$1" = systemd-stdio-bridge ] || exit 127
exec "$@" --bus-path="$THERE"
"""


@pytest.fixture
def ssh(workdir):
    """The environment in which there is no bus here, and one there."""
    log = f"{workdir}/ssh.log"
    os.mkdir(f"{workdir}/bin")
    with open(f"{workdir}/bin/ssh", "w") as file:
        file.write(SSH.format(log=log))
    os.chmod(f"{workdir}/bin/ssh", 0o755)
    yield {"PATH": f"{workdir}/bin:{os.environ['PATH']}", "THERE": os.environ["DBUS_SYSTEM_BUS_ADDRESS"],
           "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere/bus"}
    with open(log) as file:
        assert all("systemd-stdio-bridge" in line for line in file)


def test_host(lab, ssh):
    machine, chain, disk = lab.standard()
    done = ctl("--host", "root@web", "commit", machine.name, "--wait", **ssh)
    assert f"blockjobctl --host root@web pivot {done.job} " in done.out.replace("'", "")
    ctl("-H", "root@web", "pivot", done.job, **ssh)
    assert disk["Source"] == chain.base.path
    # a file name is one of there
    done = ctl("backup", machine.name, "backup.qcow2", "-H", "root@web", status=status.ERROR, **ssh)
    assert "InvalidArgument: " in done.err and "'backup.qcow2'" in done.err


def test_host_that_is_not_there(lab, ssh):
    ctl("--host", "root@nowhere", "list", status=status.NO_SERVICE, **ssh)


def test_connection_that_breaks(lab, ssh):
    machine, _, disk = lab.slow()
    waiting = Running("-H", "root@web", "commit", machine.name, "--speed", "64K", "--keep", "--wait", **ssh)
    job = Job(lab.client, lab.client.wait_property(disk.path, "Disk", "Job", lambda path: path != "/"))
    waiting.wait_said("copying")
    os.kill(int(os.popen(f"pgrep -P {waiting.process.pid}").read()), 9)
    done = waiting.end(status.NO_SERVICE)
    assert "connection to the bus is lost" in done.err and "runs on" in done.err
    job.abort()


def test_machine(lab):
    machine, _, _ = lab.standard()
    assert machine.name in ctl("--machine", ".host", "list").out
    ctl("--machine", "nowhere", "list", status=status.NO_SERVICE)
    ctl("--machine", "a", "--host", "b", "list", status=status.USAGE)
