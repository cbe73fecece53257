#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The node's conflist as an Ansible resource: conflist shapes it, conf_dir puts it in place, cri asks the runtime."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cni_config
short_description: The CNI configuration of a node
version_added: 0.1.0
description:
  - Writes C(10-evio.conflist) for the C(evio) plugin with host-local IPAM, as the last step of a node's set-up, in the
    one way that containerd notices, and then asks the container runtime over CRI whether it has loaded it.
  - The plugins C(portmap) and C(bandwidth) are chained where their binaries are there.
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
requirements:
  - python3-grpcio, where O(cri_socket) is given
options:
  state:
    description: Whether the file is there. Drain the node before you take it away, a runtime needs it to stop pods.
    type: str
    choices: [present, absent]
    default: present
  bridge:
    description: The OVS bridge that pods are plugged into. Required for O(state=present).
    type: str
  subnets:
    description: The node's subnets in CIDR notation, at most one a family. Required for O(state=present).
    type: list
    elements: str
  cluster_cidrs:
    description: Networks that are never masqueraded, both overlays. Required for O(state=present).
    type: list
    elements: str
  mtu:
    description: MTU of the pods in bytes, the same as the bridge's. Required for O(state=present).
    type: int
  epoch:
    description: Revision of the node's claim in etcd.
    type: int
    default: 0
  datapath_type:
    description: Datapath of the bridge.
    type: str
    choices: [system, netdev]
    default: system
  ip_masq:
    description: Whether what pods send out of the overlays gets the node's address.
    type: bool
    default: true
  port_security:
    description: Whether a pod may send only from its own addresses.
    type: bool
    default: true
  pod_segments:
    description:
      - Pod networks of which all nodes' bridges are one layer-2 segment, as EdgeVPN.io makes it, at most one a family.
        The bridge's gateway has the network's prefix length there.
    type: list
    elements: str
    default: []
  flat:
    description: On O(pod_segments), have the whole network on the pods' link, and not their node's subnet.
    type: bool
    default: false
  name:
    description: Name of the network.
    type: str
    default: evio
  conf_dir:
    description: The directory the runtime reads.
    type: path
    default: /etc/cni/net.d
  plugin_dirs:
    description: Where the binaries of chained plugins are looked for.
    type: list
    elements: path
    default: [/opt/cni/bin, /usr/lib/cni]
  ovsdb:
    description: Socket of the OVSDB server.
    type: str
    default: unix:/var/run/openvswitch/db.sock
  state_dir:
    description: The plugin's journal.
    type: path
    default: /var/lib/evio-cni
  cri_socket:
    description: The container runtime's socket. Not asked where this is empty, or in check mode.
    type: str
    default: ""
  timeout:
    description: Seconds the runtime gets to load the file.
    type: float
    default: 10.0
"""

EXAMPLES = r"""
- name: Configure the pod network, and see that containerd has loaded it
  evio.cni.cni_config:
    bridge: br-evio
    subnets: [10.244.3.0/24]
    cluster_cidrs: [10.10.0.0/16, 10.244.0.0/16]
    mtu: 1420
    cri_socket: /run/containerd/containerd.sock
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
  sample: /etc/cni/net.d/10-evio.conflist
conflist:
  description: What is in it.
  returned: O(state=present)
  type: dict
loaded:
  description: Whether the runtime was asked and has loaded it.
  returned: O(state=present)
  type: bool
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.cni import conf_dir, cri
from ..module_utils.cni.conflist import CHAINED_PLUGINS, PodNetwork, build_conflist
from ..module_utils.errors import EvioError
from ..module_utils.state import fence
from ..module_utils.subnets import NodeSubnet


class CniConfig:
    """One run: read the file once, compare, act unless in check mode."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.directory: str = module.params["conf_dir"]
        self.path = os.path.join(self.directory, paths.CONFLIST_NAME)
        self.before = conf_dir.read_conflist(self.directory)

    def present(self) -> dict[str, Any]:
        conflist = build_conflist(self._network())
        conf_dir.refuse_competitors(self.directory)
        is_fenced = fence.read_fence(self.module.params["state_dir"]) is not None
        changed = not conf_dir.is_current(conflist, self.directory)
        if not self.module.check_mode:
            if changed:
                conf_dir.write_conflist(conflist, self.directory)
            # The claim that is configured here holds: etcd has just said so.
            fence.take_down_fence(self.module.params["state_dir"])
        return {
            **self._result(changed or is_fenced, conf_dir.render(conflist)),
            "conflist": conflist,
            "loaded": self._await_runtime(conflist),
        }

    def absent(self) -> dict[str, Any]:
        changed = self.before is not None
        if changed and not self.module.check_mode:
            conf_dir.remove_conflist(self.directory)
        return self._result(changed, None)

    def _result(self, changed: bool, after: str | None) -> dict[str, Any]:
        return {
            "changed": changed,
            "path": self.path,
            "diff": {
                "before_header": self.path,
                "after_header": self.path,
                "before": self.before or "",
                "after": after or "",
            },
        }

    def _network(self) -> PodNetwork:
        params = self.module.params
        return PodNetwork(
            name=params["name"],
            bridge=params["bridge"],
            subnets=tuple(NodeSubnet(cidr) for cidr in params["subnets"]),
            cluster_cidrs=tuple(params["cluster_cidrs"]),
            mtu=params["mtu"],
            datapath_type=params["datapath_type"],
            epoch=params["epoch"],
            ip_masq=params["ip_masq"],
            port_security=params["port_security"],
            segments=tuple(params["pod_segments"]),
            flat=params["flat"],
            ovsdb=params["ovsdb"],
            state_dir=params["state_dir"],
            chained=tuple(name for name in CHAINED_PLUGINS if self._is_installed(name)),
        )

    def _is_installed(self, plugin: str) -> bool:
        return any(os.path.isfile(os.path.join(directory, plugin)) for directory in self.module.params["plugin_dirs"])

    def _await_runtime(self, conflist: dict[str, Any]) -> bool:
        socket = self.module.params["cri_socket"]
        if not socket or self.module.check_mode:
            return False
        cri.await_network(conflist, socket, timeout=self.module.params["timeout"])
        return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "bridge": {"type": "str"},
            "subnets": {"type": "list", "elements": "str"},
            "cluster_cidrs": {"type": "list", "elements": "str"},
            "mtu": {"type": "int"},
            "epoch": {"type": "int", "default": 0},
            "datapath_type": {"type": "str", "choices": ["system", "netdev"], "default": "system"},
            "ip_masq": {"type": "bool", "default": True},
            "port_security": {"type": "bool", "default": True},
            "pod_segments": {"type": "list", "elements": "str", "default": []},
            "flat": {"type": "bool", "default": False},
            "name": {"type": "str", "default": "evio"},
            "conf_dir": {"type": "path", "default": paths.CNI_CONF_DIR},
            "plugin_dirs": {"type": "list", "elements": "path", "default": [paths.CNI_BIN_DIR, "/usr/lib/cni"]},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "state_dir": {"type": "path", "default": paths.STATE_DIR},
            "cri_socket": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 10.0},
        },
        required_if=[("state", "present", ["bridge", "subnets", "cluster_cidrs", "mtu"])],
        supports_check_mode=True,
    )
    try:
        config = CniConfig(module)
        result = config.present() if module.params["state"] == "present" else config.absent()
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
