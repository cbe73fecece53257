#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that reads a backup of the claims from etcd; its action plugin writes the file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: claims_backup
short_description: Back up which node has which subnet
version_added: 0.1.0
description:
  - Reads the registry of a cluster from etcd, and writes it to a file on the control machine. The file is JSON that
    says what it holds, with the version of its format. Only its owner can read it.
  - The file's name has etcd's cluster id and the revision at which the registry was last written, so that no backup
    ever replaces another one. If the registry has not changed since the last backup, the file is left as it is.
  - An empty registry is refused, since it is one that was lost.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.etcd
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
requirements:
  - python3-etcd3
options:
  cluster:
    description: The cluster's name. It is a part of the keys in etcd.
    type: str
    default: kubernetes
  directory:
    description: Directory on the control machine for the file. It is made if it does not exist.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Back up the claims
  evio.cni.claims_backup:
    directory: build/evio-backups
  run_once: true
"""

RETURN = r"""
path:
  description: Path of the file on the control machine.
  returned: success
  type: str
  sample: build/evio-backups/claims-kubernetes-cdf818194e3a8c32-91.json
claims:
  description: The number of claims in the file.
  returned: success
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.claims.backup import encode_backup
from ..module_utils.claims.registry import Registry
from ..module_utils.defaults import CLUSTER
from ..module_utils.etcd.client import Etcd
from ..module_utils.etcd.options import ETCD_OPTIONS, access_of
from ..module_utils.module_runner import Module, run_module


class ClaimsBackup:
    """One run: read the registry, and return the file's content to the action plugin."""

    def __init__(self, module: Module) -> None:
        with Etcd(access_of(module.params)) as etcd:
            self.backup = Registry(etcd, module.params["cluster"]).backup()

    def run(self) -> dict[str, Any]:
        return {"changed": False, "content": encode_backup(self.backup), "claims": len(self.backup.claims)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ETCD_OPTIONS,
            "cluster": {"type": "str", "default": CLUSTER},
            "directory": {"type": "path", "required": True},
        },
        required_together=[("user", "password")],
        supports_check_mode=True,
    )
    run_module(module, ClaimsBackup)


if __name__ == "__main__":
    main()
