#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that installs the evio programs on a node; programs/installation does the work.

The action plugin of the same name packs the archive on the control machine. It first asks with the digest alone, and
sends the file only if the node needs it.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: programs
short_description: Install the evio programs on a node, and link the CNI plugins that they call
version_added: 0.1.0
description:
  - Installs the CNI plugin C(evio) and the configuration generator C(evio-config-gen), byte-compiled for the node's own
    Python, and switches to them in one step. Calls of the plugin that are running keep the version they started with.
  - Links CNI plugins of the distribution into O(bin_dir), unless there is a file of that name.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  src:
    description:
      - An archive on the control machine, to install other programs than those of the collection.
      - The collection's own programs are packed on the control machine, once for all hosts of a run.
    type: path
  digest:
    description: SHA-256 of the archive. Set by the action plugin.
    type: str
  sent:
    description: Says that O(src) is the archive on the node. Set by the action plugin.
    type: bool
    default: false
  bin_dir:
    description: The directory in which the container runtime looks for CNI plugins.
    type: path
    default: /opt/cni/bin
  lib_dir:
    description: The directory of the programs' code. Each version has a directory of its own below it.
    type: path
    default: /opt/cni/lib
  links:
    description: Names of the distribution's CNI plugins that are linked into O(bin_dir).
    type: list
    elements: str
    default: []
  links_dir:
    description: The directory of the distribution's CNI plugins.
    type: path
    default: /usr/lib/cni
"""

EXAMPLES = r"""
- name: Install the evio programs
  evio.cni.programs:
    links: [host-local, loopback, portmap, bandwidth]
"""

RETURN = r"""
version:
  description: The installed version. Its name is derived from its content.
  returned: success
  type: str
linked:
  description: The plugins that were linked in this run.
  returned: success
  type: list
  elements: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.differences import Differences
from ..module_utils.module_runner import Module, run_module
from ..module_utils.programs.cni_plugins import missing_plugins, provide_plugins
from ..module_utils.programs.installation import PROGRAMS, InstallationError, install, is_installed, version_of


class Programs:
    """One run: compare the installed version and the links with what is wanted, act unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        if not self.params["digest"]:
            raise InstallationError(
                "digest is not set: this module needs its action plugin, which is a part of the collection"
            )
        self.bin_dir: str = self.params["bin_dir"]
        self.directories: dict[str, Any] = {"bin_dir": self.bin_dir, "lib_dir": self.params["lib_dir"]}
        self.version = version_of(self.params["digest"])
        self.is_current = is_installed(self.version, **self.directories)
        # A file in bin_dir stays, whether we have linked it or not.
        self.missing_links = missing_plugins(self.params["links"], bin_dir=self.bin_dir)

    def run(self) -> dict[str, Any]:
        if not self.check_mode:
            if not self.is_current and not self.params["sent"]:
                return {"changed": False, "wants_archive": True}
            self._install()
            provide_plugins(self.params["links"], bin_dir=self.bin_dir, source_dir=self.params["links_dir"])
        return {**self._differences().result(), "version": self.version, "linked": self.missing_links}

    def _differences(self) -> Differences:
        differences = Differences()
        for program in PROGRAMS:
            differences.compare(program, self.version, self.version if self.is_current else None)
        for name in self.missing_links:
            differences.compare(name, self._link_target(name), None)
        return differences

    def _install(self) -> None:
        if not self.is_current:
            with open(self.params["src"], "rb") as stream:
                install(stream.read(), **self.directories)

    def _link_target(self, name: str) -> str:
        return os.path.join(self.params["links_dir"], name)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path"},
            "digest": {"type": "str"},
            "sent": {"type": "bool", "default": False},
            "bin_dir": {"type": "path", "default": paths.CNI_BIN_DIR},
            "lib_dir": {"type": "path", "default": paths.CNI_LIB_DIR},
            "links": {"type": "list", "elements": "str", "default": []},
            "links_dir": {"type": "path", "default": paths.DISTRIBUTION_CNI_DIR},
        },
        required_if=[("sent", True, ["src"])],
        supports_check_mode=True,
    )
    run_module(module, Programs)


if __name__ == "__main__":
    main()
