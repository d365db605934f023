# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every point in the life of a job at which something can die, alone and in pairs.

The service is killed at a point; QEMU is killed at a point under a service that lives; the service first and then
QEMU; QEMU first and then the service; the service, and once more while it recovers. After each of them all that
kit/crash_pairs.py asks for is true. A part of this is in every check, all of it in the long one.
"""

import os
import tempfile

import pytest

from kit.crash_pairs import NOT_DUE, Pair, points_of
from kit.crash_walk import steps_of
from kit.waiting import wait_until

# What a service comes to when it learns that QEMU is no more.
AFTER_QEMU = ("look", "compare-images", "record-outcome", "tell", "record-domain", "answer")
# In every check: where one moment decides.
ALWAYS = {"record-target+", "finalize", "finalize+", "look", "record-outcome+"}
KINDS = list(NOT_DUE)
ALWAYS_KINDS = {"pivoted-commit", "kept-commit", "copy"}


def cases(points=points_of, always=lambda kind, point: kind in ALWAYS_KINDS and point in ALWAYS):
    """(kind, point): all of them, of which each check has but a part."""
    return [pytest.param(kind, point, id=f"{kind}-{point}", marks=[] if always(kind, point) else pytest.mark.long)
            for kind in KINDS for point in points(kind)]


def steps(kind):
    return [point for point in points_of(kind) if not point.endswith("+")]


@pytest.fixture
def traced(lab):
    """Where a service writes its points down; and those that it came to, each once, in order."""
    path = f"{lab.directory}/trace"

    def points():
        with open(path) as file:
            return list(dict.fromkeys(file.read().splitlines()))
    return path, points


@pytest.mark.parametrize("kind", KINDS)
def test_the_points_are_those_of_an_undisturbed_job(lab, traced, kind):
    """So that no point is left out below, and none is waited for in vain."""
    path, points = traced
    pair = Pair(lab, kind, points_of(kind)[0], trace=path)
    attached = len(points())
    call = pair.call()
    assert lab.client.wait_reply(call).kind == "reply"
    if kind != "snapshot":
        job = pair.job_that_is_told()
        if pair.kind.ends_by_hand:
            pair.end_by_hand(job)
        job.wait_completed(pair.kind.result)
    wait_until(lambda: pair.disk["Job"] == "/", "the disk to be free")
    lab.service.kill()
    # check-snapshot is due with newer QEMUs than Debian 12's.
    others = ("connect-", "delete-file", "told", "check-snapshot")
    found = [point for point in points()[attached:] if not point.startswith(others)]
    assert sorted(found) == sorted(points_of(kind))


@pytest.mark.parametrize("kind, point", cases(always=lambda kind, point: kind == "pivoted-commit" and point[-1] == "+"))
def test_service_killed(lab, kind, point):
    pair = Pair(lab, kind, point, stop_at=point)
    pair.run_until_it_stands()
    lab.service.wait_gone()
    lab.service.start()
    pair.assert_all_of_living()


@pytest.mark.parametrize("kind, point", cases())
def test_qemu_killed_under_the_service(lab, kind, point):
    pair = Pair(lab, kind, point, wait_at=point)
    pair.run_until_it_stands()
    pair.kill_qemu()
    pair.resume()
    pair.assert_all_of_dead(service_lived=True)


@pytest.mark.parametrize("kind, point", cases())
def test_service_killed_and_then_qemu(lab, kind, point):
    pair = Pair(lab, kind, point, stop_at=point)
    pair.run_until_it_stands()
    lab.service.wait_gone()
    pair.kill_qemu()
    lab.service.start()
    pair.assert_all_of_dead(service_lived=False)


def orders():
    """(kind, point of QEMU's end, point of the service's end): where a service deals with the first one."""
    found = []
    for kind in KINDS:
        table = steps_of(kind)
        for point in steps(kind):
            found += [(kind, point, end) for end in table[table.index(point) + 1:] if end in AFTER_QEMU]
    return found


@pytest.mark.long
@pytest.mark.parametrize("kind, point, end", orders())
def test_qemu_killed_and_then_the_service(lab, kind, point, end):
    pair = Pair(lab, kind, point, wait_at=point, stop_at=end)
    pair.run_until_it_stands()
    pair.kill_qemu()
    pair.resume()
    wait_until(lambda: not lab.service.owned() or pair.is_over(), "the second point, or that it is not met")
    pair.restart()
    pair.assert_all_of_dead(service_lived=True)


def in_a_directory_of_its_own(lab, parent, *arguments, **points):
    """Another job in the same test: a domain that is gone still names its images."""
    lab.directory = tempfile.mkdtemp(dir=parent)
    return Pair(lab, *arguments, **points)


def points_of_recovery(lab, parent, kind, point):
    """Those that the next start comes to until the job has ended, or is given up."""
    path = f"{parent}/trace"
    pair = in_a_directory_of_its_own(lab, parent, kind, point, stop_at=point)
    pair.run_until_it_stands()
    lab.service.wait_gone()
    lab.service.start(trace=path)
    if pair.finish() is None:
        wait_until(lambda: pair.disk["Job"] == "/", "the job to be given up")
    lab.service.kill()
    pair.machine.kill()
    with open(path) as file:
        points = list(dict.fromkeys(file.read().splitlines()))
    os.unlink(path)
    # Behind a step is where a part of the next is. "told" is the one point at which nothing can be right:
    # test_service_killed.py has it.
    return [point for point in points if point != "told" and not point.endswith("+")]


def twice(kind, point):
    return kind == "pivoted-commit" and point in ("record-target", "tidy")


@pytest.mark.parametrize("kind, point", cases(steps, twice))
def test_service_killed_again_at_each_step_of_its_recovery(lab, workdir, kind, point):
    """The third service has to end what the second one was about to."""
    points = points_of_recovery(lab, workdir, kind, point)
    assert points
    for again in points:
        pair = in_a_directory_of_its_own(lab, workdir, kind, point, stop_at=point)
        pair.run_until_it_stands()
        lab.service.wait_gone()
        pair.let_the_client_act(lab.service.launch(stop_at=again))
        lab.service.start()
        try:
            pair.assert_all_of_living()
        except AssertionError as error:
            raise AssertionError(f"killed at {point}, and then at {again}") from error
        pair.machine.kill()
