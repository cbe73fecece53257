#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that removes files and directories from a host, and directories that are empty then."""

from __future__ import annotations

DOCUMENTATION = r"""
module: removed_paths
short_description: Remove files and directories, and others if they are empty
version_added: 0.1.0
description:
  - Removes all O(paths) in one step, and then those of O(empty_directories) that have nothing in them, in their order.
  - A symbolic link is removed, and what it leads to stays.
  - A mount point, such as a disk of its own for the container runtime, stays. What is in it is removed.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: A directory of O(empty_directories) that O(paths) or others of these directories would leave empty counts.
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
  empty_directories:
    description: Absolute paths of directories that are removed if they are empty, the innermost first.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Remove the certificates of etcd, and the directory of its drop-ins if no other is there
  evio.cni.removed_paths:
    paths: [/etc/evio-etcd, /etc/systemd/system/etcd.service.d/evio.conf]
    empty_directories: [/etc/systemd/system/etcd.service.d]
"""

RETURN = r"""
removed:
  description: The paths that were removed or, in check mode, would be removed.
  returned: success
  type: list
  elements: str
"""

import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.differences import Differences
from ..module_utils.module_runner import Module, ModuleError, run_module

_LEAST_NAMES = 2
"""Names in a path that may be removed: never /etc or /var itself."""


class RemovedPaths:
    """One run: find what is there, remove it unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.check_mode = module.check_mode
        self.paths = [_checked(path) for path in module.params["paths"]]
        self.empty_directories = [_checked(path) for path in module.params["empty_directories"]]

    def run(self) -> dict[str, Any]:
        found = [path for path in self.paths if os.path.lexists(path) and not _is_bare_mount_point(path)]
        removed = set(found)
        for directory in self.empty_directories:
            is_directory = os.path.isdir(directory) and not os.path.islink(directory) and not os.path.ismount(directory)
            if is_directory and self._is_left_empty(directory, removed):
                found.append(directory)
                removed.add(directory)
        differences = Differences()
        for path in found:
            differences.compare(path, None, "present")
            if not self.check_mode:
                _remove(path)
        return {**differences.result(), "removed": found}

    def _is_left_empty(self, directory: str, removed: set[str]) -> bool:
        return all(os.path.join(directory, name) in removed for name in os.listdir(directory))


def _checked(path: str) -> str:
    normal = path.rstrip("/")
    names = normal.split("/")[1:]
    if not normal.startswith("/") or len(names) < _LEAST_NAMES or {"", ".", ".."}.intersection(names):
        raise ModuleError(f"{path}: only absolute paths of at least {_LEAST_NAMES} names are removed")
    return normal


def _is_bare_mount_point(path: str) -> bool:
    return os.path.ismount(path) and os.path.isdir(path) and not os.listdir(path)


def _remove(path: str) -> None:
    try:
        if os.path.ismount(path) and os.path.isdir(path):
            for name in os.listdir(path):
                _remove(os.path.join(path, name))
        elif os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ModuleError(f"cannot remove {error.filename or path}: {error.strerror}") from error


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "empty_directories": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    run_module(module, RemovedPaths)


if __name__ == "__main__":
    main()
