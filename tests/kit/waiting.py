# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one place that polls: conditions for which nothing sends a signal."""

import time

# Long enough for a daemon with sanitizers on a busy machine; reached only when something is wrong.
DEADLINE = 20.0


def wait_until(condition, what, deadline=DEADLINE):
    """Returns the first true value of condition(); fails when there is none before the deadline."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline:g} s: {what}")
        time.sleep(0.01)


def stays(condition, what, duration):
    """Fails as soon as condition() is false within the duration: for things that must not happen."""
    end = time.monotonic() + duration
    while time.monotonic() < end:
        assert condition(), f"did not stay so for {duration:g} s: {what}"
        time.sleep(0.01)
