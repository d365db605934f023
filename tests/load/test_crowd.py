# SPDX-License-Identifier: LGPL-2.1-or-later
"""A hundred clients at once: no signal is lost, no job, no byte, and the service stays as large as it was."""

import math

import pytest
from kit.bus import NAME
from kit.counting import Samples, allocated, descriptors, recorded
from kit.crowd import Crowd
from kit.pinger import pinged
from kit.waiting import wait_until

# Of finished jobs in each domain: so few that all that is kept is there after the first minute.
KEPT = 8
# A Ping waits for what is in front of it in the service's queue, where each client has one call at most; what takes
# longest of those lists every job that is kept. And it waits for a processor, as everything does, of which other
# programs may leave it little for some seconds.
PING_SECONDS = {0.5: 0.1, 0.99: 1.0, 1.0: 10.0}
# KiB: each of some two dozen threads that look at files comes to have a heap of its own, and these take longer than a
# minute to become as large as they will; test_rounds.py has the closer look. It is less than 1 KiB for each job.
GROWTH = 2048
# Descriptors: what is open for a moment, to look at a file or to write a record.
MOMENTARY = 2
MINUTE = 60.0


@pytest.fixture
def quiet(lab):
    """Its client does not keep every signal of minutes in its log."""
    lab.client.driver("RemoveMatch", "(s)", f"type='signal',sender='{NAME}'")
    return lab


def part_of(values, part):
    """What so many of them do not go over."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


def let_work(lab, clients, machines, seconds):
    """All of it but what the service became; samples of its memory in KiB and its descriptors."""
    lab.service.restart(settings=f"[Jobs]\nKeepFinished={KEPT}\n")
    pid = lab.service.pid()
    crowd = Crowd(lab, machines)
    before = descriptors(pid)
    samples = Samples(lambda: (allocated(pid), len(descriptors(pid))))
    with pinged() as pings, crowd.at_work(clients):
        while samples.seconds() < seconds and not crowd.ending.wait(1):
            samples.take()
    took = {part: part_of(pings, part) for part in PING_SECONDS}
    print(f"{crowd.figures(samples.seconds())}\n{len(pings)} Pings, parts that took so many s at most: {took}")
    assert lab.service.pid() == pid
    crowd.assert_all_heard()
    crowd.assert_listed(lab.manager, KEPT)
    crowd.close()
    wait_until(lambda: len(descriptors(pid)) <= len(before), f"descriptors to be closed beside {before}")
    assert recorded(lab.service, "jobs") == crowd.held(lab.manager)
    for place in crowd.places:
        place.assert_right(lab.client)
    assert all(took[part] < seconds for part, seconds in PING_SECONDS.items()), f"Pings: {took}"
    return samples


def test_ten_clients(quiet):
    let_work(quiet, 10, 3, 10)


@pytest.mark.long
def test_a_hundred_clients(quiet):
    let_work(quiet, 100, 20, 10 * MINUTE)


@pytest.mark.long
def test_memory_under_a_hundred_clients(release, quiet):
    samples = let_work(quiet, 100, 20, 10 * MINUTE)
    minutes = [samples.medians(number * MINUTE, (number + 1) * MINUTE) for number in range(10)]
    print(f"KiB of memory and descriptors in each minute: {minutes}")
    (second, files), (last, last_files) = minutes[1], minutes[-1]
    assert last - second <= GROWTH and last_files <= files + MOMENTARY
