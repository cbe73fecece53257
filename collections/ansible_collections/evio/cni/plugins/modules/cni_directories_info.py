#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that compares CNI's directories with the container runtime's; cni/directories does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cni_directories_info
short_description: Check that the container runtime will find the CNI configuration and the plugin
version_added: 0.1.0
description:
  - Fails if the runtime reads CNI configuration or plugins from other directories than O(conf_dir) and O(bin_dir), and
    names the variable to set. Runtimes that do not tell their directories are not checked; containerd tells them.
  - Fails if another network's file in O(conf_dir) sorts before this collection's, because the runtime would use only
    that file. Files that sort after it are named in a warning. None of them is changed.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
requirements:
  - python3-grpcio
options:
  cri_socket:
    description: Socket of the container runtime. If empty, no runtime is asked.
    type: str
    default: ""
  required:
    description: Whether the module fails if the runtime does not answer, or cannot be asked for want of grpc.
    type: bool
    default: false
  conf_dir:
    description: The directory into which the CNI configuration will be written.
    type: path
    default: /etc/cni/net.d
  bin_dir:
    description: The directory into which the plugin will be installed.
    type: path
    default: /opt/cni/bin
  name:
    description: Name of the network.
    type: str
    default: evio
"""

EXAMPLES = r"""
- name: Check that containerd reads the usual directories
  evio.cni.cni_directories_info:
    cri_socket: /run/containerd/containerd.sock
"""

RETURN = r"""
conf_dir:
  description: The runtime's directory of CNI configuration, or null if it was not asked or does not tell it.
  returned: success
  type: str
bin_dirs:
  description: The runtime's directories of CNI plugins.
  returned: success
  type: list
  elements: str
other_files:
  description: Files of other networks that the runtime would use if this collection's file were not there.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.cni.directories import check_directories
from ..module_utils.module_runner import Module, run_module


class CniDirectoriesInfo:
    """One run: look at the directory, ask the runtime, compare."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params

    def run(self) -> dict[str, Any]:
        found = check_directories(
            self.params["conf_dir"],
            self.params["bin_dir"],
            network=self.params["name"],
            cri_socket=self.params["cri_socket"],
            is_required=self.params["required"],
        )
        warning = found.warning(self.params["conf_dir"])
        if warning:
            self.module.warn(warning)
        return {
            "changed": False,
            "conf_dir": found.conf_dir,
            "bin_dirs": list(found.bin_dirs),
            "other_files": found.other_files,
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cri_socket": {"type": "str", "default": ""},
            "required": {"type": "bool", "default": False},
            "conf_dir": {"type": "path", "default": paths.CNI_CONF_DIR},
            "bin_dir": {"type": "path", "default": paths.CNI_BIN_DIR},
            "name": {"type": "str", "default": "evio"},
        },
        supports_check_mode=True,
    )
    run_module(module, CniDirectoriesInfo)


if __name__ == "__main__":
    main()
