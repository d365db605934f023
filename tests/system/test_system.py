# SPDX-License-Identifier: LGPL-2.1-or-later
"""The package in a whole Debian 12 with systemd: one story, in the order of the tests, on one computer that is
restarted, and whose power is cut."""

import json
import re
import struct
import subprocess
import time
from pathlib import Path

import pytest
from kit.computer import Computer
from kit.package import build

IMAGES = "/var/lib/blockjobd/images"
BASE, TOP, COPY = f"{IMAGES}/base.qcow2", f"{IMAGES}/top.qcow2", f"{IMAGES}/copy.qcow2"
DOMAIN = "/org/blockjobd1/domain/web"
DISK = f"{DOMAIN}/disk/vda"
COUNTER = 2048 * 512  # where the guest writes, in bytes
DEADLINE = 60
XML = f"""<domain type='qemu'><name>web</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{TOP}'/><target dev='vda' bus='virtio'/></disk>
<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>
</devices></domain>"""


@pytest.fixture(scope="module")
def computer(tmp_path_factory):
    computer = Computer(tmp_path_factory.mktemp("system"), build())
    try:
        computer.start()
        computer.run("ip link add br0 type bridge && ip link set br0 up")
        yield computer
    finally:
        computer.close()


@pytest.fixture(autouse=True)
def after_what_went_before(request):
    """A story that has gone wrong is not told on."""
    if request.session.testsfailed:
        pytest.fail("a test before this one failed")


def wait(condition, what):
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
    return value


def counter(computer, image):
    """What the guest has counted to, as that image shows it by now."""
    said = computer.run(f"qemu-io -U -r -f qcow2 -c 'read -v {COUNTER} 512' {image}")
    return struct.unpack("<I", bytes.fromhex("".join(said.split("\n")[0].split()[1:5])))[0]


def wait_counter(computer, image, more_than):
    return wait(lambda: (now := counter(computer, image)) > more_than and now, f"the guest to count on in {image}")


def state(computer, job):
    return computer.read(job, "Job", "State")


def start_machine(computer):
    computer.call(DOMAIN, "Domain", "Start", "'a{sv}' 0")


def test_installation(computer):
    """It is enabled and runs when the package is installed."""
    computer.run("mkdir /root/package && tar -C /root/package -xf /dev/vdb\n"
                 "DEBIAN_FRONTEND=noninteractive apt-get install -y /root/package/*.deb")
    assert computer.run("systemctl is-enabled blockjobd && systemctl is-active blockjobd") == "enabled\nactive"
    assert computer.run(f"stat -c '%U %a' {IMAGES}") == "blockjobd-qemu 711"
    assert computer.run("systemctl --failed --no-legend") == ""


def test_bus_activation(computer):
    computer.run("systemctl stop blockjobd")
    assert computer.read("/org/blockjobd1", "Manager", "Version")
    assert computer.run("systemctl is-active blockjobd") == "active"


def test_sandbox(computer):
    """As the unit says, and as the kernel says of the process."""
    pid = computer.run("systemctl show -P MainPID blockjobd")
    status = dict(line.split(":\t") for line in computer.run(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    # CAP_CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID, NET_ADMIN
    assert int(status["CapBnd"], 16) == sum(1 << number for number in (0, 1, 5, 6, 7, 12))
    for place in ("/usr", "/boot", "/etc"):
        assert "Read-only file system" in computer.ask(f"nsenter -t {pid} -m touch {place}/x")[1]
    exposure = computer.run("systemd-analyze security blockjobd --no-pager | tail -1")
    assert float(re.search(r": ([0-9.]+) ", exposure).group(1)) <= 5.0, exposure


def test_machine(computer, tmp_path):
    """Defined and started: a unit of its own, with the rights of its own user, plugged into the bridge."""
    source = Path(__file__).parent / "counter.S"
    subprocess.run(["as", "--32", source, "-o", tmp_path / "counter.o"], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0", "--oformat", "binary", tmp_path / "counter.o", "-o",
                    tmp_path / "counter"], check=True)
    sector = (tmp_path / "counter").read_bytes().hex()
    computer.run(f"cd {IMAGES}; truncate -s 64M raw; printf '{''.join(f'{chr(92)}x{sector[i:i + 2]}' for i in range(0, 1024, 2))}'"
                 " | dd of=raw conv=notrunc status=none\n"
                 f"qemu-img convert -O qcow2 raw {BASE}; rm raw\n"
                 f"qemu-io -f qcow2 -c 'write -P 7 8M 16M' {BASE}\n"
                 f"qemu-img create -q -f qcow2 -b {BASE} -F qcow2 {TOP}\n"
                 f"qemu-io -f qcow2 -c 'write -P 9 40M 16M' {TOP}\n"
                 f"chown blockjobd-qemu: {BASE} {TOP}")
    computer.run(f"cat >/root/web.xml <<'END'\n{XML}\nEND\n"
                 'busctl call org.blockjobd1 /org/blockjobd1 org.blockjobd1.Manager DefineDomain "sa{sv}" '
                 '"$(cat /root/web.xml)" 0')
    start_machine(computer)
    pid = computer.read(DOMAIN, "Domain", "Pid")
    assert computer.run(f"stat -c %U /proc/{pid}") == "blockjobd-qemu"
    assert "/machine.slice/blockjobd-" in computer.run(f"cat /proc/{pid}/cgroup")
    assert len(computer.run("ls /sys/class/net/br0/brif").split()) == 1
    wait_counter(computer, TOP, 0)


def test_live_commit(computer):
    """By the command line client, while the guest counts: it goes on in base."""
    before = counter(computer, TOP)
    said = computer.run("blockjobctl commit web/vda --pivot --wait")
    assert BASE in said
    assert computer.read(DISK, "Disk", "Source") == BASE
    assert wait_counter(computer, BASE, before)
    for check in ("read -P 7 8M 16M", "read -P 9 40M 16M"):
        assert "Pattern verification failed" not in computer.run(f"qemu-io -U -r -f qcow2 -c '{check}' {BASE}")


def test_journal(computer):
    """Texts of the catalog and fields of the records."""
    said = computer.run("journalctl -x --no-pager -u blockjobd")
    assert "did what it was for, and the result is on" in said and "no longer valid" in said
    lines = computer.run("journalctl -o json -u blockjobd BLOCKJOB_RESULT=completed").splitlines()
    record = json.loads(lines[-1])
    assert record["BLOCKJOB_DOMAIN"] == "web" and record["BLOCKJOB_DISK"] == "vda"
    assert record["BLOCKJOB_IMAGE"] == BASE and record["BLOCKJOB_TYPE"] == "active-commit"


SNAPSHOT = f"call org.blockjobd1 {DISK} org.blockjobd1.Disk Snapshot 'sa{{sv}}' {TOP}.new 0"


def test_unprivileged_user(computer):
    """Refused, and allowed by a rule."""
    as_nobody = f"setpriv --reuid nobody --regid nogroup --clear-groups busctl --system {SNAPSHOT}"
    status, said = computer.ask(as_nobody)
    assert status != 0 and ("Access denied" in said or "authentication" in said.lower() or "uthoriz" in said), said
    assert computer.read(DISK, "Disk", "Source") == BASE
    computer.run("cat >/etc/polkit-1/rules.d/10-nobody.rules <<'END'\n"
                 "polkit.addRule(function(action, subject) {\n"
                 "    if (action.id == 'org.blockjobd1.start-job' && subject.user == 'nobody' &&\n"
                 "        action.lookup('domain_name') == 'web')\n"
                 "        return polkit.Result.YES;\n"
                 "});\nEND\nchmod 644 /etc/polkit-1/rules.d/10-nobody.rules")
    wait(lambda: computer.ask(as_nobody)[0] == 0, "the rule to count")
    assert computer.read(DISK, "Disk", "Source") == f"{TOP}.new"
    assert "blockjobctl" in computer.run("blockjobctl --version")
    computer.run("blockjobctl commit web/vda --pivot --wait && rm /etc/polkit-1/rules.d/10-nobody.rules")
    assert computer.read(DISK, "Disk", "Source") == BASE


def start_copy(computer):
    """As slow as can be, so that it is in its first phase."""
    return computer.call(DISK, "Disk", "Copy", f"'sa{{sv}}' {COPY} 1 speed t 65536")


def test_service_is_restarted_in_a_job(computer):
    """By the administrator, and after a crash: the job goes on."""
    job = start_copy(computer)
    before = computer.run("systemctl show -P MainPID blockjobd")
    computer.run("systemctl restart blockjobd")
    assert state(computer, job) == "running"
    computer.run("systemctl kill -s KILL blockjobd")
    wait(lambda: computer.ask("systemctl is-active blockjobd")[1] == "active" and
         computer.run("systemctl show -P MainPID blockjobd") not in ("0", before), "the service to be back")
    assert state(computer, job) == "running"
    computer.run(f"busctl call org.blockjobd1 {job} org.blockjobd1.Job SetSpeed t 0")
    wait(lambda: state(computer, job) == "ready", "the copy to be ready")
    computer.run(f"busctl call org.blockjobd1 {job} org.blockjobd1.Job Pivot 'a{{sv}}' 0")
    assert computer.read(job, "Job", "Result") == "completed" and computer.read(DISK, "Disk", "Source") == COPY
    wait_counter(computer, COPY, counter(computer, BASE))


def end_of(computer, job):
    return computer.read(job, "Job", "Result"), computer.read(DISK, "Disk", "Source")


def test_reboot_in_a_job(computer):
    """A snapshot on the copy, and a commit of it that nobody has decided about: the disk is the overlay."""
    computer.run(f"busctl call org.blockjobd1 {DISK} org.blockjobd1.Disk Snapshot 'sa{{sv}}' {IMAGES}/second.qcow2 0")
    job = computer.call(DISK, "Disk", "Commit", "'a{sv}' 1 active b true")
    wait(lambda: state(computer, job) == "ready", "the commit to be ready")
    before = counter(computer, f"{IMAGES}/second.qcow2")
    computer.reboot()
    result, source = end_of(computer, job)
    assert result in ("lost", "kept", "cancelled") and source == f"{IMAGES}/second.qcow2"
    computer.run("ip link add br0 type bridge && ip link set br0 up")
    assert counter(computer, source) >= before
    start_machine(computer)
    wait_counter(computer, source, 0)


def test_power_cut_in_a_job(computer):
    """First with nothing decided, and the disk is what it was."""
    job = computer.call(DISK, "Disk", "Commit", "'a{sv}' 1 active b true")
    wait(lambda: state(computer, job) == "ready", "the commit to be ready")
    computer.power_cut()
    computer.start()
    assert end_of(computer, job) == ("lost", f"{IMAGES}/second.qcow2")
    computer.run("ip link add br0 type bridge && ip link set br0 up")
    start_machine(computer)
    wait_counter(computer, f"{IMAGES}/second.qcow2", 0)
    # Then right behind the word that the pivot is done.
    said = computer.run("blockjobctl commit web/vda --pivot --wait")
    assert COPY in said
    computer.power_cut()
    computer.start()
    assert computer.read(DISK, "Disk", "Source") == COPY
    xml = computer.call(DOMAIN, "Domain", "GetXml", "'a{sv}' 1 inactive b true")
    assert f"<source file='{COPY}'" in xml.replace('"', "'") and "second.qcow2" not in xml
    for check in ("read -P 7 8M 16M", "read -P 9 40M 16M"):
        assert "Pattern verification failed" not in computer.run(f"qemu-io -r -f qcow2 -c '{check}' {COPY}")


def test_removal(computer):
    """Nothing is left but the images, and the user that they belong to."""
    images = computer.run(f"ls {IMAGES}")
    computer.run("DEBIAN_FRONTEND=noninteractive apt-get purge -y blockjobd; rm -rf /root/package")
    assert computer.run(f"ls {IMAGES}") == images
    left = computer.run("find / -xdev \\( -path /proc -o -path /var/lib/apt -o -path /var/log/journal \\) -prune -o "
                        f"-iname '*blockjob*' -print | grep -v '^{IMAGES}' || true")
    assert left.splitlines() == ["/var/lib/blockjobd"]
    assert computer.ask("busctl --system status org.blockjobd1")[0] != 0
    assert "blockjobd" not in computer.run("systemctl list-units --all --no-legend --plain")
