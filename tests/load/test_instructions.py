# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is done most often takes no more instructions than its bound, on any machine and however busy it is."""

import os
import subprocess

from kit.pages import PROJECT


def test_bounds(release_build):
    program = [PROJECT / "tests/with-service", "--", PROJECT / "tests/bench/instructions.py", "--quick"]
    subprocess.run(program, env=os.environ | {"BLOCKJOBD_BUILD": str(release_build)}, check=True)
