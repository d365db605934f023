# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client that only listens knows all there is: every object and property, by signals alone."""

import pytest

from kit import images
from kit.bus import NAME, PROPERTIES, ROOT
from kit.images import KIB
from kit.waiting import wait_until


class Mirror:
    """The objects as a client has them that asked once and has only listened since."""

    def __init__(self, client):
        self.client = client
        self.since = client.position()
        self.objects = client.managed_objects()
        self.invalidated = []

    def follow(self):
        with self.client.news:
            news, self.since = self.client.log[self.since:], len(self.client.log)
        for heard in news:
            if heard.kind != "signal":
                continue
            if heard.member == "InterfacesAdded":
                path, interfaces = heard.arguments
                self.objects.setdefault(path, {}).update(interfaces)
            elif heard.member == "InterfacesRemoved":
                path, interfaces = heard.arguments
                for interface in interfaces:
                    self.objects[path].pop(interface, None)
                if not [name for name in self.objects[path] if name.startswith(NAME)]:
                    del self.objects[path]
            elif heard.member == "PropertiesChanged" and heard.path != ROOT:
                interface, values, invalidated = heard.arguments
                assert heard.path in self.objects, f"change of {heard.path}, which was not added"
                assert interface in self.objects[heard.path]
                self.objects[heard.path][interface].update(values)
                self.invalidated += invalidated
        return self.objects

    def assert_true(self):
        """What was heard is what is: as soon as the last signal has come."""
        def differences():
            real = self.client.managed_objects()
            mine = self.follow()
            found = [f"{path}: only {'there' if path in real else 'here'}" for path in real.keys() ^ mine.keys()]
            for path in real.keys() & mine.keys():
                for interface, values in real[path].items():
                    for name, value in values.items():
                        if mine[path].get(interface, {}).get(name) != value:
                            found.append(f"{path} {name}: heard {mine[path].get(interface, {}).get(name)!r}, "
                                         f"is {value!r}")
            return found

        try:
            wait_until(lambda: not differences(), "the mirror to be true", 5)
        except AssertionError:
            raise AssertionError("\n".join(differences())) from None
        assert not self.invalidated, "changes come with their values"


@pytest.fixture
def mirror(client):
    mirror = Mirror(client)
    yield mirror
    mirror.assert_true()


def test_life_of_a_job(lab, mirror):
    machine, chain, disk = lab.slow()
    mirror.assert_true()
    job = disk.commit(active=True, speed=256 * KIB)
    mirror.assert_true()
    job.pause()
    job.wait("State", "paused")
    mirror.assert_true()
    job.resume()
    job.set_speed(0)
    job.wait_ready()
    machine.write("vda", 9, 20 << 20, 1 << 20)
    mirror.assert_true()
    job.pivot()
    mirror.assert_true()
    assert mirror.objects[disk.path][f"{NAME}.Disk"]["Source"] == chain.base.path


@pytest.mark.parametrize("end", ["keep", "force", "cancel"])
def test_other_ends(lab, mirror, end):
    _, _, disk = lab.slow()
    job = disk.commit(active=True, speed=64 * KIB if end == "cancel" else 0)
    if end != "cancel":
        job.wait_ready()
    job.abort(force=end == "force")
    mirror.assert_true()
    job.dismiss()


def test_life_of_a_domain(lab, mirror):
    machine, _, disk = lab.standard()
    domain = lab.domain_of(machine)
    domain.call("Resume")
    mirror.assert_true()
    domain.call("Suspend")
    disk.commit(auto="pivot").wait_completed("completed")
    machine.snapshot("vda", f"{lab.directory}/new.qcow2")
    disk.commit(auto="keep").wait_completed("kept")
    mirror.assert_true()
    machine.quit()
    domain.wait("State", "shutoff")
    mirror.assert_true()
    domain.detach()


def test_death_of_a_machine_with_a_job(lab, mirror):
    machine, _, disk = lab.slow()
    job = disk.commit(active=True)
    job.wait_ready()
    machine.kill()
    job.wait_completed("lost")
    mirror.assert_true()


def test_several_machines(lab, mirror):
    disks = [lab.standard(images.two_layers(lab.directory, str(number)))[2] for number in range(4)]
    jobs = [disk.commit(auto="pivot" if number % 2 else "keep") for number, disk in enumerate(disks)]
    for job in jobs:
        job.wait_completed()


def test_changes_of_the_manager(lab):
    """Its lists change with PropertiesChanged, too, though it is no managed object."""
    machine, _, disk = lab.standard()
    domain = lab.domain_of(machine)
    position = lab.client.position()
    job = disk.commit(active=True)
    job.wait_ready()
    job.pivot()
    domain.detach()

    def told(name):
        return [heard.arguments[1][name] for heard in lab.client.heard(ROOT, "PropertiesChanged", position)
                if heard.arguments[0] == f"{NAME}.Manager" and name in heard.arguments[1]]

    wait_until(lambda: told("Domains"), "the change of Domains")
    assert job.path in told("Jobs")[0]
    assert job.path not in told("Jobs")[-1]
    assert domain.path not in told("Domains")[-1]


def test_nothing_is_told_that_did_not_change(lab):
    """Two values in a row are never the same: a client that redraws on each signal has a reason each time."""
    machine, _, disk = lab.slow()
    domain = lab.domain_of(machine)
    position = lab.client.position()
    job = disk.commit(active=True, speed=512 * KIB)
    job.wait_ready()
    domain.call("Resume")
    domain.call("Suspend")
    job.pivot()
    values = {}
    for heard in lab.client.heard(member="PropertiesChanged", since=position):
        for name, value in heard.arguments[1].items():
            values.setdefault((heard.path, name), []).append(value)
    for key, told in values.items():
        repeated = [value for value, following in zip(told, told[1:]) if value == following]
        assert not repeated, f"{key}: {told}"
    assert lab.client.call(job.path, PROPERTIES, "Get", "(ss)", f"{NAME}.Job", "Result") == ("completed",)
