#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that installs the evio programs on a node; programs/installation does the work.

The action plugin of the same name packs the archive on the control machine. It first asks with the digest alone, and
sends the file only if the node needs it.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: programs
short_description: Install the evio programs on a node, and link the CNI plugins that they call; or remove them
version_added: 0.1.0
description:
  - Installs the CNI plugin C(evio) and the configuration generator C(evio-config-gen), byte-compiled for the node's own
    Python, and switches to them in one step. Calls of the plugin that are running keep the version they started with.
  - Links CNI plugins of the distribution into O(bin_dir), unless there is a file of that name.
  - Links the programs, their manual pages, and completions for bash and zsh below O(commands_prefix), unless there is a
    file of that name.
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
  state:
    description:
      - V(present) installs the programs.
      - V(absent) removes them with all versions and the links below O(commands_prefix). Of the links to CNI plugins,
        those of O(links) are removed.
    type: str
    choices: [present, absent]
    default: present
  src:
    description:
      - An archive on the control machine, to install other programs than those of the collection.
      - The collection's own programs are packed on the control machine, once for all hosts of a run.
    type: path
  release:
    description:
      - A version that is on the node already, to go back to it, by its name as RV(version) has it, or by the version of
        the collection that it came with, such as V(0.1.0).
      - V(previous) is the version that was installed before that of the archive. On a node that does not have the
        archive's version, it is the version that the node has.
      - Empty for the version of the archive.
    type: str
    default: ""
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
    description:
      - Names of the distribution's CNI plugins that are linked into O(bin_dir). With O(state=absent), these links are
        removed, if they lead into O(links_dir).
    type: list
    elements: str
    default: []
  links_dir:
    description: The directory of the distribution's CNI plugins.
    type: path
    default: /usr/lib/cni
  commands_prefix:
    description:
      - The directory below which people find the programs. V(bin) in it should be in E(PATH).
      - Without it, there are no such links.
    type: path
"""

EXAMPLES = r"""
- name: Install the evio programs
  evio.cni.programs:
    links: [host-local, loopback, portmap, bandwidth]
    commands_prefix: /usr/local

- name: Go back to the version before
  evio.cni.programs:
    release: previous

- name: Remove the evio programs
  evio.cni.programs:
    state: absent
    commands_prefix: /usr/local
"""

RETURN = r"""
version:
  description: The installed version. Its name is derived from its content.
  returned: when O(state=present)
  type: str
outdated_services:
  description: Services of this collection that run with the code of another version, so they have to be restarted.
  returned: when O(state=present)
  type: list
  elements: str
linked:
  description: The plugins that were linked in this run.
  returned: when O(state=present)
  type: list
  elements: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.differences import Differences
from ..module_utils.module_runner import Module, run_module
from ..module_utils.programs.cni_plugins import linked_plugins, missing_plugins, provide_plugins, remove_links
from ..module_utils.programs.command_links import CommandLinks, apply_command_links, read_command_links
from ..module_utils.programs.installation import (
    PROGRAMS,
    InstallationError,
    find_version,
    install,
    installed_files,
    is_installed,
    previous_version,
    switch,
    uninstall,
    version_of,
)
from ..module_utils.programs.running import outdated_services

_PREVIOUS = "previous"


class Programs:
    """One run: compare the installed version and the links with what is wanted, act unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params
        self.check_mode = module.check_mode
        self.bin_dir: str = self.params["bin_dir"]
        self.directories: dict[str, Any] = {"bin_dir": self.bin_dir, "lib_dir": self.params["lib_dir"]}

    def run(self) -> dict[str, Any]:
        return self._remove() if self.params["state"] == "absent" else self._provide()

    def _provide(self) -> dict[str, Any]:
        if not self.params["digest"]:
            raise InstallationError(
                "digest is not set: this module needs its action plugin, which is a part of the collection"
            )
        version = self._wanted_version()
        is_current = is_installed(version, **self.directories)
        # A file in bin_dir stays, whether we have linked it or not.
        missing_links = missing_plugins(self.params["links"], bin_dir=self.bin_dir)
        if not self.check_mode:
            if self.params["release"]:
                switch(version, **self.directories)
            elif not is_current and not self.params["sent"]:
                return {"changed": False, "wants_archive": True}
            elif not is_current:
                with open(self.params["src"], "rb") as stream:
                    install(stream.read(), **self.directories)
            provide_plugins(self.params["links"], bin_dir=self.bin_dir, source_dir=self.params["links_dir"])
        differences = Differences()
        for program in PROGRAMS:
            differences.compare(program, version, version if is_current else None)
        for name in missing_links:
            differences.compare(name, os.path.join(self.params["links_dir"], name), None)
        commands = self._link_commands(version, differences)
        for path in commands.foreign:
            self.module.warn(f"{path} is not a link of evio.cni and stays as it is")
        outdated = outdated_services(version, lib_dir=self.params["lib_dir"])
        return {**differences.result(), "version": version, "outdated_services": outdated, "linked": missing_links}

    def _wanted_version(self) -> str:
        """Return the version of the archive, or the one on the node that is chosen instead."""
        release: str = self.params["release"]
        version = version_of(self.params["digest"])
        if release == _PREVIOUS:
            return previous_version(version, lib_dir=self.params["lib_dir"])
        return find_version(release, lib_dir=self.params["lib_dir"]) if release else version

    def _remove(self) -> dict[str, Any]:
        differences = Differences()
        # The links first: they lead into what is removed.
        self._link_commands(None, differences)
        links = linked_plugins(self.params["links"], bin_dir=self.bin_dir, source_dir=self.params["links_dir"])
        for path in (*links, *map(str, installed_files(**self.directories))):
            differences.compare(path, None, "present")
        if not self.check_mode:
            remove_links(links)
            uninstall(**self.directories)
        return differences.result()

    def _link_commands(self, version: str | None, differences: Differences) -> CommandLinks:
        prefix = self.params["commands_prefix"]
        if not prefix:
            return CommandLinks((), ())
        commands = read_command_links(prefix, **self.directories, version=version)
        for link in commands.links:
            differences.compare(link.path, link.target, link.found)
        if not self.check_mode:
            apply_command_links(commands)
        return commands


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "src": {"type": "path"},
            "release": {"type": "str", "default": ""},
            "digest": {"type": "str"},
            "sent": {"type": "bool", "default": False},
            "bin_dir": {"type": "path", "default": paths.CNI_BIN_DIR},
            "lib_dir": {"type": "path", "default": paths.CNI_LIB_DIR},
            "links": {"type": "list", "elements": "str", "default": []},
            "links_dir": {"type": "path", "default": paths.DISTRIBUTION_CNI_DIR},
            "commands_prefix": {"type": "path"},
        },
        required_if=[("sent", True, ["src"])],
        supports_check_mode=True,
    )
    run_module(module, Programs)


if __name__ == "__main__":
    main()
