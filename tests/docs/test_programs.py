# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs of docs/programs.md: what they promise, with the service killed under them wherever it hurts."""

import os
import re
import subprocess
import tempfile

import pytest

from kit import images
from kit.pages import PROJECT, blocks
from kit.waiting import DEADLINE

PAGE = "docs/programs.md"
COMPILERS = ("cc ", "gdbus-codegen ")


@pytest.fixture(scope="session")
def compiled(interfaces):
    """Built by the very commands of the page, without a warning."""
    commands = [block.text for block in blocks(PAGE) if block.language == "sh" and block.text.startswith(COMPILERS)]
    assert len(commands) == 2
    with tempfile.TemporaryDirectory(prefix="bj-programs-") as directory:
        os.symlink(PROJECT / "docs", f"{directory}/docs")
        for command in commands:
            done = subprocess.run(["sh", "-ec", command], cwd=directory, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
            assert (done.returncode, done.stdout) == (0, "")
        yield directory


COMMANDS = {
    "sdbus": ["./commit-sdbus"],
    "gdbus": ["./commit-gdbus"],
    "python": ["docs/examples/commit.py"],
    "javascript": ["gjs", "-m", "docs/examples/commit.js"],
    "shell": ["docs/examples/commit.sh"],
}


@pytest.fixture(params=COMMANDS)
def program(request, compiled):
    started = []

    def start(disk):
        process = subprocess.Popen(COMMANDS[request.param] + [disk], cwd=compiled, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process):
    """What it printed, on both, and its exit status."""
    output, errors = process.communicate(timeout=DEADLINE)
    return output.splitlines(), errors, process.returncode


def assert_moved(process, machine, chain, disk):
    """It said so, and it is so: in the service, in QEMU and in the bytes of the image."""
    lines, errors, status = ended(process)
    assert status == 0, (lines, errors)
    assert lines[-1] == f"completed: vda is {chain.base.path}"
    assert disk["Source"] == machine.active_file("vda") == chain.base.path
    machine.quit()
    images.assert_contents(chain.base, chain.contents[1])
    images.assert_sound(chain.base)
    return lines


def test_every_program_is_shown_and_every_one_is_run():
    shown = set(re.findall(r"<!-- docs/examples/(\S+) -->", (PROJECT / PAGE).read_text()))
    assert shown == set(os.listdir(PROJECT / "docs/examples"))
    assert len(shown) == len(COMMANDS)


def test_the_page_shows_what_the_files_are():
    done = subprocess.run([PROJECT / "docs/include-examples", "--check"], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_merge(lab, program):
    machine, chain, disk = lab.standard()
    process = program(disk.path)
    lines = assert_moved(process, machine, chain, disk)
    assert re.fullmatch(r"job /org/blockjobd1/job/[a-z0-9]+", lines[0])
    assert lines[1] == "ready, pivot"


def test_the_service_is_restarted_while_the_job_gets_ready(lab, service, program):
    machine, chain, disk = lab.standard()
    service.restart(wait_at="say-ready")
    process = program(disk.path)
    service.wait_stopped(service.pid())
    service.restart()
    assert_moved(process, machine, chain, disk)


def test_the_service_dies_before_it_answers_commit(lab, service, program):
    """The job has been started, and the program has never heard its path."""
    machine, chain, disk = lab.standard()
    service.restart(stop_at="announce")
    process = program(disk.path)
    service.wait_gone()
    service.start()
    assert_moved(process, machine, chain, disk)
    assert len([job for job in lab.manager.jobs() if job["Disk"] == disk.path]) == 1


@pytest.mark.parametrize("point", ["record-decision", "record-target", "finalize", "record-outcome"])
def test_the_service_dies_in_the_pivot(lab, service, program, point):
    """At the first, the pivot is forgotten: no signal says that the job is ready, for that has been said before."""
    machine, chain, disk = lab.standard()
    service.restart(stop_at=point)
    process = program(disk.path)
    service.wait_gone()
    service.start()
    assert_moved(process, machine, chain, disk)


def test_a_job_that_is_there_is_gone_on_with(lab, program):
    """As after the death of the program itself."""
    machine, chain, disk = lab.standard()
    job = disk.commit(active=True)
    job.wait_ready()
    lines = assert_moved(program(disk.path), machine, chain, disk)
    assert lines[0] == f"job {job.path}"


def going_on_with(job, process):
    assert process.stdout.readline() == f"job {job.path}\n"


@pytest.mark.parametrize("end, result", [(lambda machine, job: job.abort(), "cancelled"),
                                         (lambda machine, job: machine.kill(), "lost")],
                         ids=["somebody else ends the job", "QEMU is killed"])
def test_the_disk_stays(lab, program, end, result):
    machine, chain, disk = lab.slow()
    job = disk.commit(active=True, speed=images.KIB)
    process = program(disk.path)
    going_on_with(job, process)
    end(machine, job)
    lines, errors, status = ended(process)
    assert (lines, status) == ([f"{result}: vda is {chain.top.path}"], 1), errors


def test_what_is_refused_is_said(lab, program):
    """No second layer: there is nothing to merge."""
    chain = images.Chain(lab.directory).add([(1, 0, images.MIB)])
    _, _, disk = lab.standard(chain)
    lines, errors, status = ended(program(disk.path))
    assert (lines, status) == ([], 1)
    assert "vda" in errors

