# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may what: one table in the code, one list of actions, and the interfaces have no method beside them."""

import re
import subprocess

from contract.interfaces import NAMES, PREFIX, names_of, policy_actions, sources, table_rows, text

TABLE = "service/authorization-table.h"
# allow_any, allow_inactive, allow_active
ACTIONS = {
    "manage-domains": ("auth_admin", "auth_admin", "auth_admin"),
    "start-job": ("auth_admin", "auth_admin", "auth_admin_keep"),
    "write-path": ("auth_admin", "auth_admin", "auth_admin"),
    "manage-own-job": ("auth_admin", "auth_admin", "yes"),
    "manage-job": ("auth_admin", "auth_admin", "auth_admin_keep"),
}
DETAILS = {"domain_name", "domain_uuid", "disk", "job_type", "target", "started_by_uid"}


def test_the_actions_and_who_has_them_by_default():
    found = {name.removeprefix(PREFIX): tuple(action.findtext(f"defaults/{who}")
                                              for who in ("allow_any", "allow_inactive", "allow_active"))
             for name, action in policy_actions().items()}
    assert found == ACTIONS


def test_what_people_are_asked_is_complete():
    for name, action in policy_actions().items():
        assert action.findtext("description") and action.findtext("message"), name
        assert set(re.findall(r"\$\((\w+)\)", action.findtext("message"))) <= DETAILS, name


def test_polkitd_takes_the_file(service):
    done = subprocess.run(["busctl", "--system", "call", "org.freedesktop.PolicyKit1",
                           "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority",
                           "EnumerateActions", "s", ""], stdout=subprocess.PIPE, text=True, check=True)
    assert set(re.findall(r'"(org\.blockjobd1\.[\w-]+)"', done.stdout)) == set(policy_actions())


def rows():
    """{(interface, method): the constant of its action}"""
    found = [row for row in table_rows(TABLE) if len(row) == 3]
    assert len({row[:2] for row in found}) == len(found), "a method has two rows"
    return {row[:2]: row[2] for row in found}


def constants():
    """{constant: action id}; None for what needs no action."""
    return {row[0]: None if row[1] == "NULL" else row[1] for row in table_rows(TABLE) if len(row) == 2}


def test_every_method_has_exactly_one_row():
    assert set(rows()) == {(name, method) for name in NAMES for method in names_of(name, "method")}


def test_the_actions_of_the_code_are_those_of_the_policy_file():
    assert {action for action in constants().values() if action} == set(policy_actions())
    assert set(rows().values()) <= set(constants())


def test_no_other_place_names_an_action():
    """What is asked of polkit comes from the table alone."""
    for path in sources("src", "service"):
        if str(path) != TABLE:
            assert not re.search(r'"org\.blockjobd1\.[a-z]+-', text(path)), path


def test_only_questions_are_free():
    free = {row for row, constant in rows().items() if constants()[constant] is None}
    assert free == {("Manager", "GetDomain"), ("Manager", "GetJob"), ("Manager", "ListJobs")}


def test_the_documentation_says_the_action():
    """Where the interface does not say it for all its methods, each method does."""
    for (name, method), constant in rows().items():
        action = constants()[constant]
        comment = re.search(rf"<!--\s+{method}:((?:(?!-->).)*)-->\s+<method name=\"{method}\"",
                            text(f"dbus/{PREFIX}{name}.xml"), re.DOTALL).group(1)
        if action is None:
            assert "Free to all." in comment, f"{name}.{method}"
        elif name != "Job" and "action: as with" not in comment:
            assert f"Action: {action}." in comment, f"{name}.{method}"
