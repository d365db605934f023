# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each setting of the configuration file has its effect. ImageDirectories= has it in all suites."""

import os
import pwd

import pytest
from kit import images
from kit.own import disk_xml, domain_xml
from kit.waiting import wait_until


def committed(disk):
    job = disk.commit(auto="keep")
    job.wait_completed("kept")
    return job


def test_finished_jobs_go_after_a_time(lab):
    _, _, disk = lab.standard()
    lab.service.restart(settings="[Jobs]\nKeepFinishedSec=1\n")
    committed(disk).wait_removed()


def test_so_many_finished_jobs_stay(lab):
    _, _, disk = lab.standard()
    lab.service.restart(settings="[Jobs]\nKeepFinished=2\n")
    first, second, third = (committed(disk) for _ in range(3))
    first.wait_removed()
    assert second.exists() and third.exists()


def test_settings_count_for_jobs_that_are_there(lab):
    """They are read at the start."""
    _, _, disk = lab.standard()
    job = committed(disk)
    lab.service.restart(settings="[Jobs]\nKeepFinishedSec=1\n")
    wait_until(lambda: not job.exists(), "the job to go")


def test_user(own):
    user = pwd.getpwnam("nobody")
    own.lab.service.restart(settings="[Domains]\nUser=nobody\n")
    chain = images.two_layers(own.directory)
    for path in (own.directory, *chain.paths()):
        os.chown(path, user.pw_uid, user.pw_gid)
    domain = own.define(domain_xml(own.lab.unique_name(), disk_xml(chain.top.path)))
    domain.start()
    assert os.stat(f"/proc/{domain['Pid']}").st_uid == user.pw_uid
    domain.destroy()


@pytest.mark.parametrize("settings, words", [
    ("[Jobs]\nKeepFinishedSec=soon\n", "KeepFinishedSec=: 'soon' is no number"),
    ("[Jobs]\nKeepUnfinished=1\n", "there is no setting 'KeepUnfinished' in [Jobs]"),
])
def test_what_is_not_understood_is_said(service, settings, words):
    """With the name of the file, and no service runs that leaves it out."""
    position = service.log.size()
    service.kill()
    process = service.launch(settings=settings)
    assert process.wait(20) == 1
    assert f".conf: {words}" in service.log.since(position)
