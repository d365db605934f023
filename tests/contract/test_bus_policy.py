# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may be org.blockjobd1 on the bus, and who may talk to it."""

import configparser
import subprocess
import xml.etree.ElementTree as ElementTree

from contract.interfaces import text
from kit.bus import NAME, ROOT

AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
DRIVER = ["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"]


def busctl(*arguments, prefix=()):
    done = subprocess.run([*prefix, "busctl", "--system", "--timeout=10", *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def test_nobody_may_not_own_the_name(service):
    # 4 is DO_NOT_QUEUE: without the policy the answer would be "3", the name is taken.
    status, said = busctl("call", *DRIVER, "RequestName", "su", NAME, "4", prefix=AS_NOBODY)
    assert status != 0 and "denied" in said.lower(), said
    status, said = busctl("call", *DRIVER, "RequestName", "su", NAME, "4")
    assert (status, said.strip()) == (0, "u 3"), "root may; the name is taken"


def test_everybody_may_talk_to_the_service(service):
    for prefix in (AS_NOBODY, ()):
        status, said = busctl("get-property", NAME, ROOT, NAME + ".Manager", "Version", prefix=prefix)
        assert status == 0 and said.startswith('s "'), said


def test_the_policy_opens_nothing_else():
    root = ElementTree.fromstring(text("dbus/org.blockjobd1.conf"))
    rules = [(tuple(policy.attrib.items()), rule.tag, dict(rule.attrib))
             for policy in root.findall("policy") for rule in policy]
    assert rules == [
        ((("user", "root"),), "allow", {"own": NAME}),
        ((("context", "default"),), "allow", {"send_destination": NAME}),
    ]


def test_activation_leads_to_the_unit():
    parser = configparser.RawConfigParser(comment_prefixes=("#",))
    parser.optionxform = str
    parser.read_string(text("dbus/org.blockjobd1.service.in"))
    section = dict(parser["D-BUS Service"])
    # Without systemd nothing is started: the sandbox is part of the service.
    assert section == {"Name": NAME, "Exec": "/bin/false", "User": "root", "SystemdService": "blockjobd.service"}
