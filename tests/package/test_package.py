# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package, built from this tree, and the RPM spec beside it. tests/system installs it in a machine."""

import fnmatch
import os
import re
import subprocess
from pathlib import Path

import pytest
from kit.package import build

PROJECT = Path(__file__).resolve().parent.parent.parent
# Where Fedora has what Debian's rpm knows no place for.
MACROS = {"_unitdir": "/usr/lib/systemd/system", "_sysusersdir": "/usr/lib/sysusers.d",
          "_tmpfilesdir": "/usr/lib/tmpfiles.d", "_sharedstatedir": "/var/lib"}


def run(*command, **keywords):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **keywords).stdout


@pytest.fixture(scope="session")
def package():
    return build()


@pytest.fixture(scope="session")
def unpacked(package, tmp_path_factory):
    directory = tmp_path_factory.mktemp("unpacked")
    run("dpkg-deb", "--raw-extract", str(package), str(directory))
    return directory


def installed(unpacked):
    """Files, by the names that they have where /lib and /usr/lib are one."""
    names = ("/" + str(path.relative_to(unpacked)) for path in unpacked.rglob("*")
             if not path.is_dir() and path.relative_to(unpacked).parts[0] != "DEBIAN")
    return {name.replace("/lib/", "/usr/lib/", 1) if name.startswith("/lib/") else name for name in names}


def spec_patterns():
    options = [word for name, value in MACROS.items() for word in ("--define", f"{name} {value}")]
    text = run("rpmspec", *options, "-P", str(PROJECT / "packaging/blockjobd.spec"))
    lines = text.split("\n%files\n")[1].split("\n%changelog")[0].splitlines()
    return [line.split()[-1] for line in lines if line and not line.startswith(("%license", "%doc", "%dir", "%attr"))]


def test_what_is_for_debian_alone(unpacked):
    ours = {"/usr/share/doc/blockjobd/50-blockjobd-example.rules"}
    for name in installed(unpacked):
        if name.startswith("/usr/share/doc/blockjobd/") and "/examples/" not in name and name not in ours:
            assert re.search(r"/(NEWS|README|copyright|changelog|[a-z-]+\.md)", name), name


def test_spec_names_what_is_installed(unpacked):
    files = {name for name in installed(unpacked)
             if not name.startswith(("/usr/share/lintian", "/usr/share/doc")) or "/examples/" in name or name.endswith(".rules")}
    patterns = spec_patterns()
    assert len(patterns) > 15
    for name in files:
        assert any(fnmatch.fnmatch(name, pattern) or name.startswith(pattern + "/") for pattern in patterns), name
    for pattern in patterns:
        assert any(fnmatch.fnmatch(name, pattern) or name.startswith(pattern + "/") for name in files), pattern


def test_one_version_everywhere(package):
    version = re.search(r"version: '([^']+)'", (PROJECT / "meson.build").read_text()).group(1)
    assert run("dpkg-deb", "-f", str(package), "Version").strip().rsplit("-", 1)[0] == version
    assert f"\nVersion:        {version}\n" in (PROJECT / "packaging/blockjobd.spec").read_text()
    assert f"\n{version}, " in (PROJECT / "NEWS").read_text()


def test_settings_are_the_administrators(unpacked):
    assert (unpacked / "DEBIAN/conffiles").read_text() == "/etc/blockjobd/blockjobd.conf\n"


@pytest.mark.parametrize("program", ["usr/libexec/blockjobd", "usr/bin/blockjobctl"])
def test_release_build(unpacked, program):
    """No test can make it die, and no sanitizer is in it."""
    binary = (unpacked / program).read_bytes()
    assert b"BLOCKJOBD_TEST_" not in binary and b"__asan_" not in binary
    assert run(str(unpacked / program), "--version").startswith("blockjob")


def test_places(unpacked):
    unit = (unpacked / "lib/systemd/system/blockjobd.service").read_text()
    assert "ExecStart=/usr/libexec/blockjobd " in unit
    assert "d /var/lib/blockjobd/images 0711 blockjobd-qemu" in (unpacked / "usr/lib/tmpfiles.d/blockjobd.conf").read_text()
    activation = (unpacked / "usr/share/dbus-1/system-services/org.blockjobd1.service").read_text()
    assert "SystemdService=blockjobd.service" in activation


def test_postinst_makes_user_and_directories(unpacked):
    script = (unpacked / "DEBIAN/postinst").read_text()
    user, directories, start = (script.index(word) for word in ("systemd-sysusers", "systemd-tmpfiles", "deb-systemd-invoke"))
    assert user < directories < start


PURGE = """
set -e
for place in /var/lib /var/log /run; do mount -t tmpfs none $place; done
mkdir -p /var/lib/blockjobd/images /var/lib/blockjobd/jobs /var/log/blockjobd /run/blockjobd
echo record >/var/lib/blockjobd/jobs/a.json
[ "$2" = empty ] || echo data >/var/lib/blockjobd/images/disk.qcow2
sh "$1" purge >&2
find /var/lib/blockjobd /var/log/blockjobd /run/blockjobd 2>/dev/null || true
"""


@pytest.mark.parametrize("images, left", [
    ("full", {"/var/lib/blockjobd", "/var/lib/blockjobd/images", "/var/lib/blockjobd/images/disk.qcow2"}),
    ("empty", set()),
])
def test_purge_leaves_images_alone(unpacked, images, left):
    said = run("unshare", "--mount", "sh", "-c", PURGE, "sh", str(unpacked / "DEBIAN/postrm"), images,
               env=os.environ | {"DPKG_MAINTSCRIPT_PACKAGE": "blockjobd"})
    assert set(said.splitlines()) == left
