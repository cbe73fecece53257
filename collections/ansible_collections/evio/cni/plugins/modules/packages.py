# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that tells which Debian packages are missing; the action plugin packages has apt install them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install Debian packages that are missing
version_added: 0.1.0
description:
  - Asks dpkg first, which takes a few milliseconds. Only if a package is missing, M(ansible.builtin.apt) installs the
    packages, without those that they recommend.
  - If apt's package lists are too old for that, updates them and tries again.
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
  name:
    description: Names of the packages, as M(ansible.builtin.apt) takes them.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Install Open vSwitch
  evio.cni.packages:
    name: [openvswitch-switch, python3-openvswitch]
"""

RETURN = r"""
missing:
  description: The packages that were not installed.
  returned: success
  type: list
  elements: str
"""

import re
import subprocess

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.module_runner import Module, run_module

_DPKG_SECONDS = 30.0
_PLAIN = re.compile(r"[a-z0-9][a-z0-9.+-]+(:[a-z0-9-]+)?")
"""A package's name (Debian policy 5.6.1), with its architecture; others name a version, a release or a pattern."""


class Packages:
    """One run: ask dpkg."""

    def __init__(self, module: Module) -> None:
        self.names: list[str] = module.params["name"]

    def run(self) -> dict[str, object]:
        installed = self._installed()
        return {"changed": False, "missing": [name for name in self.names if name not in installed]}

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
        argument_spec={"name": {"type": "list", "elements": "str", "required": True}}, supports_check_mode=True
    )
    run_module(module, Packages)


if __name__ == "__main__":
    main()
