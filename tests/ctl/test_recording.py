# SPDX-License-Identifier: LGPL-2.1-or-later
"""README shows what blockjobctl does, not what it once did."""

import subprocess

from contract.interfaces import PROJECT


def test_recording_in_readme(service):
    done = subprocess.run([PROJECT / "tests/tools/record-terminal", "--check"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
