# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service keeps of its domains, and what becomes of them when that, or the service, or a QEMU goes away."""

import json
import os
import shutil
import signal
import subprocess

import pytest
from kit import images
from kit.bus import BusError, refused
from kit.images import KIB
from kit.own import disk_xml, domain_xml, storage_daemons
from kit.space import SmallDisk
from kit.waiting import stays, wait_until


def image(path):
    return images.Layer(path, "qcow2", images.SIZE)


def record_of(own, domain, directory=None):
    return f"{directory or own.lab.service.state_directory}/domains/{domain['Name']}.json"


def read_record(own, domain):
    with open(record_of(own, domain)) as file:
        return json.load(file)


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


# The state directory is full.

@pytest.fixture
def small_state(own):
    """A daemon on a state directory of its own, with room for a few records."""
    small = SmallDisk(f"{own.directory}/state", 256)
    own.lab.service.kill()
    own.lab.service.start(state_directory=small.path)
    yield small
    if own.lab.service.alive():
        own.clean()
    own.lab.service.kill()
    small.remove()
    own.lab.service.start()


def restart_at(own, small_state, **points):
    own.lab.service.kill()
    own.lab.service.start(state_directory=small_state.path, **points)
    return own.lab.service.pid()


def test_definition_that_cannot_be_recorded(own, small_state):
    name = own.lab.unique_name()
    small_state.fill()
    with refused("NoSpace"):
        own.define(domain_xml(name))
    with refused("NoSuchDomain", name):
        own.lab.manager.domain(name)
    with refused("NoSpace"):
        own.create(domain_xml(name))
    small_state.free()
    domain = own.define(domain_xml(name))
    restart_at(own, small_state)
    assert domain["State"] == "shutoff"


def test_start_that_cannot_be_recorded(own, small_state):
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    small_state.fill()
    with refused("NoSpace", domain["Name"]):
        domain.start()
    assert (domain["State"], domain["Pid"]) == ("shutoff", 0)
    small_state.free()
    domain.start()
    assert disk.sources() == chain.paths()


@pytest.mark.parametrize("point", ["launch-process", "start-record"])
def test_start_that_cannot_be_recorded_any_more(own, small_state, point):
    """There may be a process already: it is ended, and its guest has not run."""
    domain, disk = own.standard(images.two_layers(own.directory))
    pid = restart_at(own, small_state, wait_at=point)
    call = own.client.call_later(domain.path, "Domain", "Start", "(a{sv})", {})
    own.lab.service.wait_stopped(pid)
    small_state.fill()
    own.lab.service.resume(pid)
    reply = own.client.wait_reply(call)
    if point == "start-record":
        assert reply.kind == "error" and (domain["State"], domain["Pid"]) == ("shutoff", 0)
    small_state.free()
    if reply.kind == "error":
        domain.start()
    assert domain["State"] == "running"


def test_undefined_on_a_full_disk(own, small_state):
    domain = own.define(domain_xml(own.lab.unique_name()))
    small_state.fill()
    domain.undefine()
    restart_at(own, small_state)
    assert not domain.exists()
    small_state.free()


def test_job_of_one_that_is_off_without_a_record(own, small_state):
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    small_state.fill()
    for call in (lambda: disk.commit(active=True), disk.pull, lambda: disk.snapshot(f"{own.directory}/over.qcow2")):
        with refused("NoSpace"):
            call()
    assert disk["Job"] == "/" and not domain["Jobs"] and not os.path.exists(f"{own.directory}/over.qcow2")
    wait_until(lambda: not storage_daemons(), "the storage daemons to end")
    small_state.free()
    disk.commit(active=True).wait_completed("completed")
    images.assert_contents(chain.base, chain.contents[1])


@pytest.mark.parametrize("state", ["running", "shutoff"])
def test_pivot_that_cannot_be_recorded(own, small_state, state):
    """Full at PENDING: the disk stays what it was, in QEMU, in the definition and in the record."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    pid = restart_at(own, small_state, wait_at="record-target")
    if state == "running":
        domain.start()
    job = disk.commit(active=True, auto="pivot")
    own.lab.service.wait_stopped(pid)
    small_state.fill()
    own.lab.service.resume(pid)
    wait_until(lambda: job["Result"] == "" and job["State"] != "running", "the job to wait for its record")
    small_state.free()
    result, error, message = job.wait_completed()
    assert result == "kept" and error.endswith(".NoSpace")
    assert disk.sources() == chain.paths() and domain.xml_source(inactive=True) == [chain.top.path]
    restart_at(own, small_state)
    assert disk.sources() == chain.paths() and domain["State"] == state
    disk.commit(active=True, auto="pivot").wait_completed("completed")
    assert domain.xml_source(inactive=True) == [chain.base.path]


@pytest.mark.parametrize("state", ["running", "shutoff"])
def test_end_whose_domain_cannot_be_recorded(own, small_state, state):
    """Nobody is told before the next start is known to use the right image."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    pid = restart_at(own, small_state, wait_at="record-domain")
    if state == "running":
        domain.start()
    job = disk.commit(active=True, auto="pivot")
    own.lab.service.wait_stopped(pid)
    small_state.fill()
    own.lab.service.resume(pid)
    stays(lambda: not job.completed(), "not told", 0.7)
    qemu = domain["Pid"]
    own.lab.service.kill()
    if qemu:
        os.kill(qemu, signal.SIGKILL)
        wait_until(lambda: not runs(qemu), "the end of QEMU")
    small_state.free()
    own.lab.service.start(state_directory=small_state.path)
    job.wait_completed()
    assert job["Result"] in ("completed", "pivoted")
    assert disk.sources() == [chain.base.path] == domain.xml_source(inactive=True)
    domain.start()
    assert disk.sources() == [chain.base.path]


# Records.

DAMAGES = {
    "empty": lambda record: b"",
    "truncated": lambda record: record[:-20],
    "xml-of-nothing": lambda record: replaced(record, xml="<domain"),
    "xml-of-another-type": lambda record: replaced(record, xml=42),
    "name-of-another": lambda record: replaced(record, name="other"),
    "newer": lambda record: replaced(record, version=999),
    "disks": lambda record: replaced(record, disks="none"),
}


def replaced(record, **members):
    return json.dumps(json.loads(record) | members).encode()


@pytest.mark.parametrize("damage", DAMAGES)
def test_definition_whose_record_is_damaged(own, damage):
    """It is set aside and told of; the others are there, and its name is free."""
    chain = images.two_layers(own.directory)
    good, disk = own.standard(chain)
    bad = own.define(domain_xml(own.lab.unique_name()))
    name, path = bad["Name"], record_of(own, bad)
    own.lab.service.kill()
    with open(path, "rb") as file:
        damaged = DAMAGES[damage](file.read())
    with open(path, "wb") as file:
        file.write(damaged)
    position = own.lab.service.log.size()
    own.lab.service.start()
    assert path in own.lab.service.log.since(position)
    with open(f"{path}.damaged", "rb") as file:
        assert file.read() == damaged
    assert good["State"] == "shutoff" and disk.sources()[0] == chain.top.path
    good.start()
    with refused("NoSuchDomain", name):
        own.lab.manager.domain(name)
    assert own.define(domain_xml(name))["State"] == "shutoff"
    os.unlink(f"{path}.damaged")


def test_record_with_other_disks_than_its_xml(own):
    """Somebody's hand was in it: the service starts, and what it says of the domain makes sense."""
    chain = images.two_layers(own.directory)
    domain, _ = own.standard(chain)
    path = record_of(own, domain)
    for disks in ([], [{"target": "vdz", "device": "/machine/x", "chain": []}], [{"target": "vda"}, 7, None]):
        own.lab.service.kill()
        with open(path, "rb") as file:
            record = file.read()
        with open(path, "wb") as file:
            file.write(replaced(record, disks=disks))
        own.lab.service.start()
        try:
            own.client.managed_objects()
            domain.xml(), domain.xml(inactive=True)
            domain.start()
            domain.destroy()
        except BusError as error:
            assert "NoReply" not in error.name
        own.lab.service.kill()
        for file in (path, f"{path}.damaged"):
            if os.path.exists(file):
                os.unlink(file)
        with open(path, "wb") as file:
            file.write(record)
        own.lab.service.start()
    domain.start()


def test_definition_with_what_this_one_does_not_understand(own):
    """Of a newer service, say: it is set aside, not started without it."""
    domain = own.define(domain_xml(own.lab.unique_name()))
    path = record_of(own, domain)
    record = read_record(own, domain)
    own.lab.service.kill()
    with open(path, "w") as file:
        json.dump(record | {"xml": record["xml"].replace("<devices>", "<devices><tpm model='tpm-tis'/>")
                            .replace("<devices/>", "<devices><tpm model='tpm-tis'/></devices>")}, file)
    own.lab.service.start()
    assert not domain.exists() and os.path.exists(f"{path}.damaged")
    os.unlink(f"{path}.damaged")


# The service goes, and comes back.

def told(value):
    """A property, without what is not looked at again while a job runs."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [{name: entry for name, entry in layer.items() if name not in ("read-only", "allocated")}
                for layer in value]
    return value


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_running_domains_are_found_again(own, end):
    chain, other = (images.slow_layers(own.directory, name) for name in ("one", "two"))
    own.give(chain)
    own.give(other)
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path), disk_xml(other.top.path, "vdb")))
    transient = own.create(domain_xml(own.lab.unique_name()))
    domain.start()
    ready, slow = domain.disk("vda").commit(active=True), domain.disk("vdb").commit(active=True, speed=64 * KIB)
    ready.wait_ready()
    before = own.client.managed_objects()
    xml = {one.path: one.xml(inactive=True) for one in (domain, transient)}
    getattr(own.lab.service, end)()
    own.lab.service.start()
    domain.wait("State", "running")
    after = own.client.managed_objects()
    changing = {"Current", "Total", "Progress"}
    for path in before:
        for interface in before[path]:
            for name, value in before[path][interface].items():
                assert name in changing or told(after[path][interface][name]) == told(value), (path, name)
    assert xml == {one.path: one.xml(inactive=True) for one in (domain, transient)}
    assert (transient["State"], transient["Origin"], transient["Persistent"]) == ("running", "transient", False)
    ready.pivot()
    ready.wait_completed("completed")
    slow.set_speed(0)
    slow.wait("State", "ready")
    slow.abort()
    slow.wait_completed("kept")
    assert domain.disk("vda").sources() == [chain.base.path] and domain.disk("vdb").sources() == other.paths()
    transient.destroy()
    domain.destroy()
    images.assert_contents(chain.base, chain.contents[1])


def test_qemu_that_died_meanwhile(own):
    chain = images.slow_layers(own.directory)
    domain, disk = own.standard(chain)
    domain.start()
    job = disk.commit(active=True)
    job.wait_ready()
    pid = domain["Pid"]
    own.lab.service.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not runs(pid), "the end of QEMU")
    own.lab.service.start()
    assert (domain["State"], domain["Pid"]) == ("crashed", 0)
    job.wait_completed("lost")
    assert disk["Job"] == "/" and domain.xml_source(inactive=True) == [chain.top.path]
    domain.start()
    assert domain["State"] == "running" and domain["Pid"] != pid and disk.sources() == chain.paths()


def test_transient_that_died_meanwhile(own, client):
    """Nothing of it comes back, and its name is free."""
    chain = own.give(images.slow_layers(own.directory))
    name = own.lab.unique_name()
    domain = own.create(domain_xml(name, disk_xml(chain.top.path)))
    job = domain.disk().commit(active=True)
    job.wait_ready()
    pid, record = domain["Pid"], record_of(own, domain)
    own.lab.service.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not runs(pid), "the end of QEMU")
    own.lab.service.start()
    job.wait_completed("lost")
    wait_until(lambda: not domain.exists(), "the domain to go")
    wait_until(lambda: not os.path.exists(record), "its record to go")
    assert own.create(domain_xml(name, disk_xml(chain.top.path)))["State"] == "running"


def test_pid_that_is_somebody_elses_by_now(own):
    """The record names a process that is another one: it is not touched."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    domain.start()
    pid, path, record = domain["Pid"], record_of(own, domain), read_record(own, domain)
    own.lab.service.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not runs(pid), "the end of QEMU")
    stranger = subprocess.Popen(["sleep", "1000"])
    with open(path, "w") as file:
        json.dump(record | {"pid": stranger.pid}, file)
    own.lab.service.start()
    try:
        assert domain["State"] in ("crashed", "shutoff")
        domain.start()
        domain.destroy()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_runtime_directory_that_is_removed(own):
    """The monitors cannot be reached again; the machines run, can be ended, and new ones started."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    domain.start()
    runtime = os.path.dirname(os.path.dirname(read_record(own, domain)["path"]))
    shutil.rmtree(runtime)
    # The connection is there.
    disk.commit(active=True).abort(force=True)
    assert domain["State"] == "running"
    other = own.define(domain_xml(own.lab.unique_name()))
    other.start()
    assert other["State"] == "running"
    pid = domain["Pid"]
    own.lab.service.restart()
    assert domain["State"] == "disconnected" and other["State"] == "running"
    with refused("InvalidState", domain["Name"]):
        domain.start()
    assert runs(pid)
    domain.destroy()
    assert domain["State"] in ("shutoff", "crashed") and not runs(pid)
    domain.start()
    assert disk.sources() == chain.paths()


def test_two_services(own):
    """The second one on the same state goes at once and touches nothing."""
    domain, disk = own.standard(images.slow_layers(own.directory))
    domain.start()
    job = disk.commit(active=True, speed=64 * KIB)
    first = own.lab.service.pid()
    second = own.lab.service.launch()
    assert second.wait(20) not in (0, -signal.SIGABRT, -signal.SIGSEGV)
    own.lab.service.processes.remove(second)
    assert own.lab.service.pid() == first and domain["State"] == "running" and job["State"] == "running"
    job.abort()
    domain.destroy()


# Ends.

def test_shutdown_of_a_guest_that_does_not_listen(own):
    """There is no operating system in it: the call returns, and it runs on."""
    domain, _ = own.standard(images.two_layers(own.directory))
    domain.start()
    for _ in range(2):
        domain.shutdown()
    assert domain["State"] == "running"
    domain.call("Suspend")
    domain.shutdown()
    assert domain["State"] in ("paused", "running")


@pytest.mark.parametrize("end", ["destroy", "kill_qemu"])
@pytest.mark.parametrize("kind, when", [("commit", "running"), ("commit", "ready"), ("copy", "running"),
                                        ("copy", "ready"), ("pull", "running"), ("backup", "running")])
def test_end_of_the_machine_in_a_job(own, kind, when, end):
    chain = images.slow_layers(own.directory)
    domain, disk = own.standard(chain)
    domain.start()
    target = f"{own.directory}/target.qcow2"
    speed = 64 * KIB if when == "running" else None
    job = {"commit": lambda: disk.commit(active=True, speed=speed), "copy": lambda: disk.copy(target, speed=speed),
           "pull": lambda: disk.pull(speed=speed), "backup": lambda: disk.backup(target, speed=speed)}[kind]()
    if when == "ready":
        job.wait_ready()
    getattr(domain, end)()
    job.wait_completed("lost")
    assert domain["State"] == ("shutoff" if end == "destroy" else "crashed") and not domain["Jobs"]
    assert domain.xml_source(inactive=True) == [chain.top.path] and disk["Job"] == "/"
    domain.start()
    assert disk.sources() == chain.paths()
    domain.destroy()
    images.assert_contents(chain.top, chain.contents[1])


@pytest.mark.parametrize("end", ["destroy", "kill"])
@pytest.mark.parametrize("point", ["record-target", "finalize", "finalize+", "record-domain"])
@pytest.mark.parametrize("kind", ["commit", "copy"])
def test_end_of_the_machine_at_the_pivot(own, client, kind, point, end):
    """Which image the disk is, is what the next start uses, whichever it is; and it was told so."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    own.lab.service.restart(wait_at=point)
    pid = own.lab.service.pid()
    domain.start()
    target = f"{own.directory}/target.qcow2"
    job = disk.commit(active=True) if kind == "commit" else disk.copy(target)
    destination = chain.base.path if kind == "commit" else target
    job.wait_ready()
    qemu = domain["Pid"]
    pivot = client.call_later(job.path, "Job", "Pivot", "(a{sv})", {})
    own.lab.service.wait_stopped(pid)
    if end == "kill":
        os.kill(qemu, signal.SIGKILL)
        own.lab.service.resume(pid)
    else:
        ended = client.call_later(domain.path, "Domain", "Destroy", "(a{sv})", {})
        own.lab.service.resume(pid)
        client.wait_reply(ended)
    result = job.wait_completed()[0]
    assert len(job.completed()) == 1
    domain.wait("Pid", 0)
    client.wait_reply(pivot)
    # A QEMU that is told to end gives its jobs up where it hears of that first; the guest does not run any more.
    assert result in ("completed", "pivoted") or point == "record-target" \
        or (end == "destroy" and point in ("finalize", "finalize+"))
    top = destination if result in ("completed", "pivoted") else chain.top.path
    assert domain.xml_source(inactive=True) == [top] and disk.sources()[0] == top
    own.lab.service.restart()
    assert domain.xml_source(inactive=True) == [top] and not domain["Jobs"]
    domain.start()
    assert disk.sources()[0] == top
    domain.destroy()
    images.assert_contents(image(top), chain.contents[1])


@pytest.mark.parametrize("point", ["start", "ask", "record-target", "finalize", "record-domain"])
def test_storage_daemon_that_is_killed(own, client, point):
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    own.lab.service.restart(wait_at=point)
    pid = own.lab.service.pid()
    call = client.call_later(disk.path, "Disk", "Commit", "(a{sv})", options_of_commit())
    own.lab.service.wait_stopped(pid)
    daemon, = storage_daemons()
    os.kill(daemon, signal.SIGKILL)
    own.lab.service.resume(pid)
    reply = client.wait_reply(call)
    wait_until(lambda: not domain["Jobs"] and disk["Job"] == "/", "the job's end")
    assert reply.kind == ("error" if point == "start" else "reply")
    assert not storage_daemons() and domain["State"] == "shutoff"
    top, = domain.xml_source()
    results = [entry["Result"] for entry in own.lab.manager.jobs(domain=domain["Name"])]
    pivoted = results in (["completed"], ["pivoted"])
    assert top == (chain.base.path if pivoted else chain.top.path), results
    assert pivoted or point in ("start", "ask", "record-target")
    assert disk.sources()[0] == top
    images.assert_contents(image(top), chain.contents[1])
    if top == chain.top.path:
        disk.commit(active=True).wait_completed("completed")
    domain.start()
    assert disk.sources() == [chain.base.path]


def options_of_commit():
    from kit.bus import options
    return options({"active": True, "auto": "pivot"})


def test_undefined_and_defined_again_with_a_finished_job(own):
    """A job of the domain that was: readable, and of no meaning for the one that is."""
    chain = images.two_layers(own.directory)
    domain, disk = own.standard(chain)
    job = disk.commit(active=True)
    job.wait_completed("completed")
    name, identity = domain["Name"], domain["Uuid"]
    domain.undefine()
    assert job["Result"] == "completed"
    again = own.define(domain_xml(name, disk_xml(chain.top.path), identity=identity))
    own.lab.service.restart()
    assert again.xml_source() == [chain.top.path] and job["Result"] == "completed"
    assert again.disk().sources()[0] == chain.top.path
    images.assert_contents(chain.base, chain.contents[1])
