# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the documents point to is there, and the pictures can be seen everywhere."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from kit.pages import PROJECT, documents, text

LINK = re.compile(r"\]\(([^)\s]+)\)")
SVG = "{http://www.w3.org/2000/svg}"
PICTURES = sorted(PROJECT.glob("docs/pictures/*.svg"))


def links(name):
    prose = re.sub(r"^```.*?^```$", "", text(name), flags=re.MULTILINE | re.DOTALL)
    return [link for link in LINK.findall(prose) if "://" not in link]


def anchors(path):
    """Of the headings, as they are made of them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", documents() + ["CONTRIBUTING.md"])
def test_every_link_leads_somewhere(name):
    for link in links(name):
        path, _, anchor = link.partition("#")
        target = (PROJECT / name).parent / path if path else PROJECT / name
        assert target.exists(), f"{name}: {link}"
        assert not anchor or anchor in anchors(target), f"{name}: {link}"


def test_every_page_and_every_picture_is_linked_to():
    linked = {((PROJECT / name).parent / link).resolve() for name in documents() for link in links(name)}
    for path in PICTURES + [PROJECT / name for name in documents() if name != "README.md"]:
        assert path.resolve() in linked, path


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_complete_and_has_a_dark_form(path):
    root = ElementTree.parse(path).getroot()
    assert root.tag == SVG + "svg" and root.get("viewBox")
    assert root.findtext(SVG + "title").strip() and root.findtext(SVG + "desc").strip()
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.endswith("href") or value.startswith("#"), "a picture that needs another file"
    style = root.findtext(SVG + "style")
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    rule = re.compile(r"([.\w-]+) \{([^}]*)\}")
    coloured = {name for name, rules in rule.findall(light) if re.search(r"(color|fill|stroke): #", rules)}
    assert coloured == {name for name, _ in rule.findall(dark)}
