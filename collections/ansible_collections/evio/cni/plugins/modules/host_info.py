#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that reads what is on a host before a playbook changes it; node/identity and node/candidate do it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Read what is on a host before it is set up as a node
version_added: 0.1.0
description:
  - Reads the machine's id, its hostname, and what an earlier run has made of it, the name of the node, the cluster and
    the subnets. M(evio.cni.inventory_identities_info) compares the identities of all hosts.
  - Tells what is in the way of a node. It fails for none of that; the playbooks do, each for what concerns it.
  - With O(checks), makes in the same step those checks of M(evio.cni.preflight_info) that cost nothing. It fails
    if the clock is so wrong that new certificates would not be valid yet, and warns of the rest.
  - Everything is read in one step, because each step takes a fifth of a second of each host's CPU time.
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
  machine_id:
    description: The file with the machine's id.
    type: path
    default: /etc/machine-id
  identity_file:
    description: The file that M(evio.cni.node_identity) wrote.
    type: path
    default: /etc/evio/node.json
  overlay_config:
    description: The file of M(evio.cni.wireguard_overlay), which names the node too.
    type: path
    default: /etc/evio/overlay.json
  conf_dir:
    description: The directory that the container runtime reads its CNI configuration from.
    type: path
    default: /etc/cni/net.d
  bin_dir:
    description: The directory into which the plugin will be installed.
    type: path
    default: /opt/cni/bin
  pods:
    description: Whether the host is to run pods. Otherwise other networks in O(conf_dir) are of no interest.
    type: bool
    default: false
  cri_socket:
    description: >-
      Socket of the container runtime, whose directories are compared with ours. If empty, no runtime is asked.
    type: str
    default: ""
  host_cidr:
    description: >-
      The host overlay in CIDR notation. Without it, no network of the host is a conflict with the overlay.
    type: str
  pod_cidrs:
    description: The pod overlay in CIDR notation, at most one IPv4 and one IPv6.
    type: list
    elements: str
    default: []
  service_cidrs:
    description: >-
      The networks of the Services' addresses. Addresses of Services that the host has itself, as kube-proxy with IPVS
      gives them to it, are no conflict.
    type: list
    elements: str
    default: []
  own_interfaces:
    description: Interfaces that belong to the overlay. Their addresses and routes are no conflict.
    type: list
    elements: str
    default: []
  edgevpn_config:
    description:
      - EdgeVPN.io's configuration file. If this collection has written it, its bridges belong to the overlay too, also
        those of overlays that have other ids now.
    type: path
    default: /etc/opt/evio/config.json
  edgevpn_members:
    description: The file that M(evio.cni.edgevpn_config) writes beside O(edgevpn_config).
    type: path
    default: /etc/evio/edgevpn.json
  files:
    description: Files to look for.
    type: list
    elements: path
    default: []
  checks:
    description: Whether to make the checks.
    type: bool
    default: false
requirements:
  - python3-grpcio, to ask the container runtime
"""

EXAMPLES = r"""
- name: Read which node the machine is, and whether its LAN is inside the overlay
  evio.cni.host_info:
    host_cidr: 10.10.0.0/16
    pod_cidrs: [10.244.0.0/16]
    own_interfaces: [evio0, br-evio]
  register: host
"""

RETURN = r"""
certificates:
  description: Files and directories of certificates that were written on the machine with its identity.
  returned: success
  type: list
  elements: str
identity:
  description: What the machine says of itself. C(node) and C(cluster) are empty if it was not set up.
  returned: success
  type: dict
  sample:
    hostname: edge3
    machine_id: 3f0d5c2f8f0c4a2f9d8d5cf1a3f3a6b1
    node: node3
    cluster: kubernetes
configured:
  description: >-
    The subnets in the host's C(10-evio.conflist) and the epoch of their claim. Null if there is no such file, or it
    cannot be read.
  returned: success
  type: dict
  sample:
    cidrs: [10.244.0.0/24]
    epoch: 4
claim_fault:
  description: Why the host's C(10-evio.conflist) does not tell its subnets, or null.
  returned: success
  type: str
overlay_conflict:
  description: >-
    Which other interface of the host has an address, a route or a gateway inside the host overlay, the pod overlay,
    the network of the agents' probe addresses (247.0.0.0/8), or the networks of Services. The overlay would cut the
    host off from that network. Null if there is none.
  returned: success
  type: str
cni_fault:
  description: >-
    Which other network's file in O(conf_dir) sorts before this collection's, so that the runtime would use only that
    file, or which other directories the runtime reads, with the variable to set. Null if it is neither.
  returned: success
  type: str
other_cni_files:
  description: >-
    Files of other networks that the runtime would use if this collection's file were not there. A warning names them.
  returned: success
  type: list
  elements: str
present_files:
  description: Those of O(files) that exist.
  returned: success
  type: list
  elements: str
rows:
  description: What the checks have found, as M(evio.cni.preflight_info) tells it.
  returned: O(checks=true)
  type: list
  elements: dict
time:
  description: The host's clock in seconds since 1970.
  returned: success
  type: float
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.module_runner import Module, run_module
from ..module_utils.node.candidate import cni_directories, configured_claim, overlay_conflict
from ..module_utils.node.identity import IdentityError, read_identity, read_site_certificates
from ..module_utils.node.quick_checks import quick_rows
from ..module_utils.overlay.edgevpn.config import CONFIG_PATH


class HostInfo:
    """One run: read the host's files and networks, and ask its container runtime."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params

    def run(self) -> dict[str, Any]:
        names = ("machine_id", "identity_file", "overlay_config")
        configured, claim_fault = configured_claim(self.params["conf_dir"])
        return {
            "changed": False,
            "identity": read_identity(**{name: self.params[name] for name in names}).to_json(),
            "certificates": self._site_certificates(),
            "configured": configured,
            "claim_fault": claim_fault,
            "overlay_conflict": self._overlay_conflict(),
            **self._cni_directories(),
            "present_files": [path for path in self.params["files"] if Path(path).exists()],
            **({"rows": [asdict(row) for row in quick_rows()]} if self.params["checks"] else {}),
            "time": time.time(),
        }

    def _site_certificates(self) -> list[str]:
        try:
            return read_site_certificates(self.params["identity_file"])
        except IdentityError:
            # Another list than the playbook wants: it is written again.
            return []

    def _overlay_conflict(self) -> str | None:
        if not self.params["host_cidr"]:
            return None
        return overlay_conflict(
            self.params["host_cidr"],
            self.params["pod_cidrs"],
            self.params["service_cidrs"],
            self.params["own_interfaces"],
            edgevpn_config=self.params["edgevpn_config"],
            edgevpn_members=self.params["edgevpn_members"],
        )

    def _cni_directories(self) -> dict[str, Any]:
        if not self.params["pods"]:
            return {"cni_fault": None, "other_cni_files": []}
        found, fault = cni_directories(self.params["conf_dir"], self.params["bin_dir"], self.params["cri_socket"])
        warning = found.warning(self.params["conf_dir"])
        if warning:
            self.module.warn(warning)
        return {"cni_fault": fault, "other_cni_files": found.other_files}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "machine_id": {"type": "path", "default": paths.MACHINE_ID},
            "identity_file": {"type": "path", "default": paths.NODE_IDENTITY},
            "overlay_config": {"type": "path", "default": paths.OVERLAY_CONFIG},
            "conf_dir": {"type": "path", "default": paths.CNI_CONF_DIR},
            "bin_dir": {"type": "path", "default": paths.CNI_BIN_DIR},
            "pods": {"type": "bool", "default": False},
            "cri_socket": {"type": "str", "default": ""},
            "host_cidr": {"type": "str"},
            "pod_cidrs": {"type": "list", "elements": "str", "default": []},
            "service_cidrs": {"type": "list", "elements": "str", "default": []},
            "own_interfaces": {"type": "list", "elements": "str", "default": []},
            "edgevpn_config": {"type": "path", "default": CONFIG_PATH},
            "edgevpn_members": {"type": "path", "default": paths.EDGEVPN_MEMBERS},
            "files": {"type": "list", "elements": "path", "default": []},
            "checks": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    run_module(module, HostInfo)


if __name__ == "__main__":
    main()
