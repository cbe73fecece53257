#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that tells what kubeadm has done on a host; kubernetes/kubeadm reads it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubeadm_info
short_description: Tell what kubeadm has done on a host
version_added: 0.1.0
description:
  - Tells whether the host is in a cluster of kubeadm, and which versions of kubeadm and kubelet it has.
  - Changes nothing.
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
options:
  address:
    description: The host's address in the host overlay.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Read what kubeadm has done on this host
  evio.cni.kubeadm_info:
    address: 10.10.0.1
"""

RETURN = r"""
host:
  description: The host, as kubeadm has left it.
  returned: success
  type: dict
  contains:
    state:
      description: >-
        C(absent), C(worker) or C(control_plane); C(initialising) or C(joining) if the role kubernetes was interrupted
        while kubeadm ran.
      type: str
    is_noted:
      description: Whether the role kubernetes was interrupted after it had started kubeadm, whatever RV(host.state) is.
      type: bool
    server:
      description: URL of the API server that kubelet asks, or null.
      type: str
    has_etcd:
      description: Whether the host has the static pod of a stacked etcd.
      type: bool
    has_address:
      description: Whether the host has O(address).
      type: bool
    kubeadm:
      description: Version of kubeadm, or null if it is not installed.
      type: str
    kubelet:
      description: Version of kubelet, or null if it is not installed.
      type: str
  sample:
    state: worker
    is_noted: false
    server: https://10.10.0.1:6443
    has_etcd: false
    has_address: true
    kubeadm: 1.30.2
    kubelet: 1.30.2
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.kubernetes.kubeadm import read_host
from ..module_utils.module_runner import Module, run_module


class KubeadmInfo:
    """One run: read kubeadm's files, and ask the programs for their versions."""

    def __init__(self, module: Module) -> None:
        self.address: str = module.params["address"]

    def run(self) -> dict[str, Any]:
        return {"changed": False, "host": asdict(read_host(self.address))}


def main() -> None:
    module = AnsibleModule(
        argument_spec={"address": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    run_module(module, KubeadmInfo)


if __name__ == "__main__":
    main()
