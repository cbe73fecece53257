#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that tells which Debian packages are missing; the action plugin packages has apt install them.

debian_packages keeps the note of what was installed, by which the module removes it.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install Debian packages that are missing, or remove those that were installed so
version_added: 0.1.0
description:
  - Asks dpkg first, which takes a few milliseconds. Only if a package is missing, M(ansible.builtin.apt) installs the
    packages, without those that they recommend.
  - If apt's package lists are too old for that, updates them and tries again.
  - Notes on the host which packages were not there before, with those that they need. O(state=absent) removes these.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: >-
      Where apt cannot predict, because its lists or its own Python package are missing, the packages are expected to be
      installed by the real run.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) installs packages.
      - V(absent) purges all packages that this module has installed, and deletes the system users and groups that they
        have made. Packages that were there before stay, and so do those that a package of others needs by now.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Names of the packages, as M(ansible.builtin.apt) takes them. Required with O(state=present).
    type: list
    elements: str
    default: []
  keep:
    description: Names of packages that stay with O(state=absent), and those that they need.
    type: list
    elements: str
    default: []
  note:
    description: File on the host with the packages that this module has installed.
    type: path
    default: /var/lib/misc/evio-packages.json
  installed:
    description: Says that apt has been run. Set by the action plugin.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Install Open vSwitch
  evio.cni.packages:
    name: [openvswitch-switch, python3-openvswitch]

- name: Remove all packages that were installed so
  evio.cni.packages:
    state: absent
"""

RETURN = r"""
missing:
  description: The packages that were not installed.
  returned: when O(state=present)
  type: list
  elements: str
removed:
  description: The packages that were removed or, in check mode, would be removed.
  returned: when O(state=absent)
  type: list
  elements: str
needed:
  description: Packages that stay because packages of others need them, each with those packages.
  returned: when O(state=absent)
  type: dict
"""

import re
import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.debian_packages import (
    Note,
    after_removal,
    begin_installation,
    end_installation,
    package_name,
    plan_removal,
    read_note,
    remove,
    write_note,
)
from ..module_utils.differences import Differences
from ..module_utils.module_runner import Module, run_module

_DPKG_SECONDS = 30.0
_PLAIN = re.compile(r"[a-z0-9][a-z0-9.+-]+(:[a-z0-9-]+)?")
"""A package's name (Debian policy 5.6.1), with its architecture; others name a version, a release or a pattern."""

_NEEDED_BY_APT = "python3-apt"
"""Ansible's module apt installs it by itself."""


class Packages:
    """One run: ask dpkg, and keep the note; or remove what the note has."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.names: list[str] = module.params["name"]
        self.path: str = module.params["note"]
        self.note = read_note(self.path)

    def run(self) -> dict[str, Any]:
        return self._remove() if self.module.params["state"] == "absent" else self._find_missing()

    def _find_missing(self) -> dict[str, Any]:
        installed = self._installed()
        missing = [name for name in self.names if name not in installed]
        if not self.module.check_mode:
            note = end_installation(self.note, [*map(package_name, self.names), _NEEDED_BY_APT])
            if missing and not self.module.params["installed"]:
                note = begin_installation(note)
            self._keep(note)
        return {"changed": False, "missing": missing}

    def _remove(self) -> dict[str, Any]:
        note = end_installation(self.note, ())
        removal = plan_removal(note, self.module.params["keep"])
        for name, others in removal.needed.items():
            self.module.warn(f"{name} stays, because {', '.join(others)} would go with it")
        differences = Differences()
        for name in (*removal.packages, *removal.accounts):
            differences.compare(name, None, "installed")
        if not self.module.check_mode:
            remove(removal)
            self._keep(after_removal(note, removal))
        return {**differences.result(), "removed": list(removal.packages), "needed": dict(removal.needed)}

    def _keep(self, note: Note) -> None:
        if note != self.note:
            write_note(self.path, note)

    def _installed(self) -> set[str]:
        """Return those of the packages that are installed. What dpkg cannot answer is apt's to decide."""
        names = [name for name in self.names if _PLAIN.fullmatch(name)]
        query = ["dpkg-query", "--show", "--showformat=${Package} ${Architecture} ${db:Status-Status}\n", "--", *names]
        try:
            # It ends with 1 if it does not know one of them.
            done = subprocess.run(query, capture_output=True, text=True, timeout=_DPKG_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return set()
        found = [line.split() for line in done.stdout.splitlines()]
        installed = [(row[0], row[1]) for row in found if len(row) == 3 and row[2] == "installed"]
        return {name for name, architecture in installed if architecture} | {
            f"{name}:{architecture}" for name, architecture in installed
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "list", "elements": "str", "default": []},
            "note": {"type": "path", "default": paths.INSTALLED_PACKAGES},
            "installed": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ["name"])],
        supports_check_mode=True,
    )
    run_module(module, Packages)


if __name__ == "__main__":
    main()
