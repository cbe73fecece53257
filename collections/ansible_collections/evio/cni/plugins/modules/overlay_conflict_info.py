#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that refuses a host whose own networks are inside the overlay's; overlay/conflicts compares them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_conflict_info
short_description: Check that a host has no network inside the overlay's networks
version_added: 0.1.0
description:
  - Fails if another interface of the host has an address, a route or a gateway inside the host overlay, the pod overlay
    or the network of the agents' probe addresses (247.0.0.0/8), or inside the networks of Services. The overlay would
    cut the host off from that network.
  - Changes nothing, and needs no package on the host.
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
  host_cidr:
    description: The host overlay in CIDR notation.
    type: str
    required: true
  pod_cidrs:
    description: The pod overlay in CIDR notation, at most one IPv4 and one IPv6.
    type: list
    elements: str
    required: true
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
    required: true
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
"""

EXAMPLES = r"""
- name: Refuse a host with a LAN inside the overlay
  evio.cni.overlay_conflict_info:
    host_cidr: 10.10.0.0/16
    pod_cidrs: [10.244.0.0/16]
    own_interfaces: [evio0, br-evio]
"""

RETURN = r""" # """

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.atomic_file import read_text
from ..module_utils.kernel.networks_in_use import networks_in_use
from ..module_utils.module_runner import Module, run_module
from ..module_utils.overlay.conflicts import find_conflict, without_single_addresses
from ..module_utils.overlay.edgevpn.config import CONFIG_PATH
from ..module_utils.overlay.edgevpn.naming import configured_bridges
from ..module_utils.overlay.endpoint import OverlayError
from ..module_utils.overlay.wireguard.config import overlay_networks


class OverlayConflictInfo:
    """One run: read the host's networks, and compare."""

    def __init__(self, module: Module) -> None:
        self.params = module.params

    def run(self) -> dict[str, Any]:
        networks = overlay_networks(self.params["host_cidr"], self.params["pod_cidrs"])
        own = [*self.params["own_interfaces"], *self._edgevpn_bridges()]
        conflict = find_conflict(networks_in_use(), networks, own)
        if conflict is None:
            uses = without_single_addresses(networks_in_use())
            for cidr in self.params["service_cidrs"]:
                services = {"the network of Services (evio_service_network)": cidr}
                conflict = conflict or find_conflict(uses, services, own)
        if conflict is not None:
            raise OverlayError(conflict)
        return {"changed": False}

    def _edgevpn_bridges(self) -> list[str]:
        """Return the bridges of EdgeVPN.io as this collection has configured it, whatever ids the overlays have now."""
        try:
            if read_text(self.params["edgevpn_members"]) is None:
                # A file that EdgeVPN.io itself or another program has written.
                return []
            return configured_bridges(json.loads(read_text(self.params["edgevpn_config"]) or "{}"))
        except (OSError, ValueError, AttributeError, TypeError):
            return []


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host_cidr": {"type": "str", "required": True},
            "pod_cidrs": {"type": "list", "elements": "str", "required": True},
            "service_cidrs": {"type": "list", "elements": "str", "default": []},
            "own_interfaces": {"type": "list", "elements": "str", "required": True},
            "edgevpn_config": {"type": "path", "default": CONFIG_PATH},
            "edgevpn_members": {"type": "path", "default": paths.EDGEVPN_MEMBERS},
        },
        supports_check_mode=True,
    )
    run_module(module, OverlayConflictInfo)


if __name__ == "__main__":
    main()
