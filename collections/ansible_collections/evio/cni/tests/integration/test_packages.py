# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module packages asks the real dpkg of this machine which packages are missing."""

from __future__ import annotations

import subprocess

from .ansible_module import run_module


def missing(*names: str) -> list[str]:
    result = run_module("packages", name=list(names))
    assert result["changed"] is False
    found: list[str] = result["missing"]
    return found


def test_only_packages_that_dpkg_has_not_installed_are_missing() -> None:
    assert missing("dpkg", "no-such-package", "coreutils") == ["no-such-package"]


def test_package_of_an_architecture_is_asked_for_with_it() -> None:
    native = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    assert missing(f"coreutils:{native}", "coreutils:s390x") == ["coreutils:s390x"]


def test_names_that_only_apt_understands_are_left_to_it() -> None:
    assert missing("coreutils=9.1-1", "core*", "--status", "dpkg/stable") == [
        "coreutils=9.1-1",
        "core*",
        "--status",
        "dpkg/stable",
    ]
