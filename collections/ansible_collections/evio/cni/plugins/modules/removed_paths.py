#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that removes files and directories from a host, and directories that are empty then."""

from __future__ import annotations

DOCUMENTATION = r"""
module: removed_paths
short_description: Remove files and directories, and others if they are empty
version_added: 0.1.0
description:
  - Removes all O(paths) and O(files) in one step, and then those of O(empty_directories) that have nothing in them, in
    their order.
  - A symbolic link is removed, and what it leads to stays.
  - A mount point, such as a disk of its own for the container runtime, stays. What is in it is removed.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: A directory of O(empty_directories) counts that what is removed before it would leave empty.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  paths:
    description: Absolute paths of files, and of directories that are removed with all that is in them.
    type: list
    elements: path
    default: []
  files:
    description:
      - Absolute paths of files. A directory of such a name stays, with a warning. For paths that people set, who may
        give another one by mistake.
    type: list
    elements: path
    default: []
  empty_directories:
    description: Absolute paths of directories that are removed if they are empty, the innermost first.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Remove the drop-in of etcd.service, and the directory of its drop-ins if no other is there
  evio.cni.removed_paths:
    files: [/etc/systemd/system/etcd.service.d/evio.conf]
    empty_directories: [/etc/systemd/system/etcd.service.d]
"""

RETURN = r"""
removed:
  description: The paths that were removed or, in check mode, would be removed.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.differences import Differences
from ..module_utils.module_runner import Module, run_module
from ..module_utils.path_removal import PathRemoval


class RemovedPaths:
    """One run: find what is there, remove it unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.module = module
        names = ("paths", "files", "empty_directories")
        self.removal = PathRemoval(**{name: module.params[name] for name in names})

    def run(self) -> dict[str, Any]:
        for path in self.removal.directories:
            self.module.warn(f"{path} is a directory and stays: only a file of this name would be removed")
        differences = Differences()
        for path in self.removal.found:
            differences.compare(path, None, "present")
        if not self.module.check_mode:
            self.removal.apply()
        return {**differences.result(), "removed": self.removal.found}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "empty_directories": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    run_module(module, RemovedPaths)


if __name__ == "__main__":
    main()
