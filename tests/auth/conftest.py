# SPDX-License-Identifier: LGPL-2.1-or-later
"""Callers of every kind; run with tests/with-service --rules tests/auth/auth.rules."""

import pytest


@pytest.fixture(autouse=True)
def rules_are_in_force(client):
    """Without the rules every one of these tests would say something else than it seems to."""
    from gi.repository import GLib

    subject = ("unix-process", {"pid": GLib.Variant("u", 1), "start-time": GLib.Variant("t", 0),
                                "uid": GLib.Variant("i", 3)})  # sys
    polkit = "org.freedesktop.PolicyKit1"
    (authorized, _, _), = client.call("/org/freedesktop/PolicyKit1/Authority", f"{polkit}.Authority",
                                      "CheckAuthorization", "((sa{sv})sa{ss}us)", subject,
                                      "org.blockjobd1.manage-domains", {}, 0, "", destination=polkit)
    assert authorized, "run this with tests/with-service --rules tests/auth/auth.rules"
