# SPDX-License-Identifier: LGPL-2.1-or-later
"""Users who may do nothing, with all the connections and descriptors that the bus allows them."""

import resource

import pytest
from kit.bus import ROOT
from kit.caller import body
from kit.counting import descriptors, descriptors_at_most
from kit.neighbours import Neighbour
from kit.polkit import Agent
from kit.swarm import Swarm
from kit.waiting import wait_until


@pytest.fixture
def swarms(service):
    made = []

    def make(user, count):
        made.append(Swarm(user, count))
        return made[-1]

    yield make
    for swarm in made:
        swarm.kill()


def assert_unharmed(lab, pid, neighbour):
    """The service is the one that it was, and works for others."""
    assert lab.service.owned() and lab.service.pid() == pid, lab.service.log.since(0)[-500:]
    neighbour.commit()


def test_more_callers_than_the_bus_has_matches_for_us(lab, swarms):
    """dbus-daemon allows a connection 512 match rules, and each caller's end is waited for with one."""
    pid, neighbour = lab.service.pid(), Neighbour(lab)
    for user in ("man", "lp", "nobody"):
        assert swarms(user, 200).let("read")
        assert_unharmed(lab, pid, neighbour)


# Of a user who is denied at once, more come than polkit gets done with.
@pytest.mark.parametrize("user, connections, is_asked", [("games", 10, True), ("daemon", 60, False)])
def test_descriptors_of_requests_that_wait(lab, swarms, user, connections, is_asked):
    """More of them than units/blockjobd.service.in lets the service have open, in requests that wait for polkit."""
    pid, neighbour = lab.service.pid(), Neighbour(lab)
    before = descriptors(pid)
    swarm = swarms(user, connections)
    agent = Agent(swarm.process.pid)
    with descriptors_at_most(pid, min(32768, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1])):
        assert swarm.let("ask")
        if is_asked:
            agent.wait_question()
        assert_unharmed(lab, pid, neighbour)
    swarm.kill()
    wait_until(lambda: len(descriptors(pid)) <= len(before) + 2, "the descriptors of a caller that is gone to be closed")
    agent.close()


def test_stop_while_a_question_stands(lab, asked):
    caller, agent = asked
    caller.send(ROOT, "Manager", "AttachDomain", body("never", "/no/such", {}), interactive=True)
    agent.wait_question()
    lab.service.terminate()
    lab.service.start()
