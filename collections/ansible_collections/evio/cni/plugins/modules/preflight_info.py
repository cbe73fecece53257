#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that says what will go wrong on a host before anything is changed there; node/preflight looks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_info
short_description: Say what will go wrong on a host before anything is changed there
version_added: 0.1.0
description:
  - Looks at Python, the kernel's features, the clock, ports, networks, link-local services, firewalls, C(rp_filter),
    other pod networks, network managers, inotify instances, names, the MTU of the paths to relays, and the kind of the
    site's NAT.
  - Returns a row for each check, with what was found and what to do about it. Does not fail for what it finds.
  - Changes nothing, and needs no package on the host.
  - Compares the clocks in an action plugin, which knows when it has asked the host and when the host has answered.
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
    description: The networks of the Services' addresses.
    type: list
    elements: str
    default: []
  listen_port:
    description: UDP port of the overlay on this host.
    type: int
    default: 51820
  is_relay:
    description: Whether this host has a public endpoint, and so relays for others.
    type: bool
    default: false
  relays:
    description: Endpoints of the other nodes that relay, C(address:port) or C(name:port), by the nodes' names.
    type: dict
    default: {}
  bridge:
    description: The pod bridge.
    type: str
    default: br-evio
  conf_dir:
    description: The container runtime's directory of CNI configuration.
    type: path
    default: /etc/cni/net.d
  nat_token:
    description: The token of M(evio.cni.nat_responder) on the relays. If it is empty, the NAT's kind is not looked at.
    type: str
    default: ""
  names:
    description: Further endpoints, C(name:port), that the host has to look up.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Say what will go wrong on this host
  evio.cni.preflight_info:
    host_cidr: 10.10.0.0/16
    pod_cidrs: [10.244.0.0/16]
    relays:
      node1: 198.51.100.11:51820
  register: preflight
"""

RETURN = r"""
rows:
  description: One row for each check.
  returned: success
  type: list
  elements: dict
  contains:
    check:
      description: What was looked at, in one or two words.
      type: str
    state:
      description: V(ok); V(warning) for what works, but not well; V(error) for what will not work.
      type: str
    what:
      description: What was found, as one sentence.
      type: str
    remedy:
      description: What to do about it. Empty if the state is V(ok).
      type: str
  sample:
    - {check: ports, state: error, what: UDP port 51820 is used by another program, remedy: "ss -ulpn 'sport = :51820'"}
nat:
  description:
    - Kind of the site's NAT. Two nodes whose NATs are V(endpoint-dependent) reach each other by a relay only.
    - One of V(none), V(endpoint-independent), V(endpoint-dependent) and V(unknown).
  returned: success
  type: str
  sample: endpoint-independent
time:
  description: The host's clock when it was asked, in seconds since 1970.
  returned: success
  type: float
"""

import time
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.defaults import BRIDGE
from ..module_utils.errors import EvioError
from ..module_utils.module_runner import Module, run_module
from ..module_utils.node.preflight import Plans, check_host
from ..module_utils.overlay.endpoint import LISTEN_PORT, parse_public_endpoint


class PreflightInfo:
    """One run: look at the host."""

    def __init__(self, module: Module) -> None:
        params = module.params
        self.plans = Plans(
            host_cidr=params["host_cidr"],
            pod_cidrs=tuple(params["pod_cidrs"]),
            service_cidrs=tuple(params["service_cidrs"]),
            listen_port=params["listen_port"],
            is_relay=params["is_relay"],
            relays={name: parse_public_endpoint(str(endpoint)) for name, endpoint in params["relays"].items()},
            bridge=params["bridge"],
            conf_dir=params["conf_dir"],
            nat_token=params["nat_token"],
            names=tuple(params["names"]),
        )

    def run(self) -> dict[str, Any]:
        now = time.time()
        try:
            rows, nat = check_host(self.plans)
        except ValueError as error:
            raise EvioError(f"host_cidr, pod_cidrs: {error}") from error
        return {"changed": False, "rows": [asdict(row) for row in rows], "nat": nat, "time": now}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host_cidr": {"type": "str", "required": True},
            "pod_cidrs": {"type": "list", "elements": "str", "required": True},
            "service_cidrs": {"type": "list", "elements": "str", "default": []},
            "listen_port": {"type": "int", "default": LISTEN_PORT},
            "is_relay": {"type": "bool", "default": False},
            "relays": {"type": "dict", "default": {}},
            "bridge": {"type": "str", "default": BRIDGE},
            "conf_dir": {"type": "path", "default": paths.CNI_CONF_DIR},
            "nat_token": {"type": "str", "default": "", "no_log": False},
            "names": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    run_module(module, PreflightInfo)


if __name__ == "__main__":
    main()
