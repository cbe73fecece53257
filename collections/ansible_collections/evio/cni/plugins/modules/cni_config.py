#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that keeps a node's conflist. cni/conflist builds it, conf_dir writes it, cri asks the runtime."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cni_config
short_description: Configure the pod network of a node
version_added: 0.1.0
description:
  - Writes C(10-evio.conflist) for the CNI plugin C(evio) with host-local IPAM. This is the last step of setting up a
    node.
  - Renames the file within its directory, because containerd does not notice a file that is moved in from elsewhere.
    Then asks the container runtime over CRI whether it has loaded the file.
  - Chains the plugins C(portmap) and C(bandwidth) if their binaries are installed.
  - O(files) and O(units) are written and enabled before the file, and started after it. If the unit
    C(evio-metrics.service) among them goes or gets another directory, the metrics that it has written are removed.
  - Installs the nftables rules of running pods, if the new configuration has others or the rules are missing.
  - Warns of running pods that have another MTU than O(mtu), because pods keep the MTU with which they were started.
  - Removes the fence of M(evio.cni.node_fence), since the node is now configured for a valid claim.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.ovsdb
  - evio.cni.units
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - python3-grpcio, if O(cri_socket) is given
options:
  state:
    description:
      - Whether the file exists.
      - Drain the node before you use V(absent), because the runtime needs the file to stop pods.
    type: str
    choices: [present, absent]
    default: present
  bridge:
    description: The OVS bridge that pods are plugged into. Required with O(state=present).
    type: str
  subnets:
    description: The node's subnets in CIDR notation, at most one IPv4 and one IPv6. Required with O(state=present).
    type: list
    elements: str
  cluster_cidrs:
    description:
      - Networks to which packets of pods are never masqueraded, that is both overlays. Required with O(state=present).
    type: list
    elements: str
  mtu:
    description: MTU of the pods in bytes, equal to the bridge's. Required with O(state=present).
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
    description: Whether packets that pods send to other networks get the node's address.
    type: bool
    default: true
  port_security:
    description: Whether a pod may send only from its own addresses.
    type: bool
    default: true
  pod_segments:
    description:
      - Pod networks in which the bridges of all nodes form one layer-2 segment, as with EdgeVPN.io. At most one IPv4
        and one IPv6 network.
      - The bridge's gateway has the prefix length of such a network.
    type: list
    elements: str
    default: []
  flat:
    description: Gives a pod's address the prefix length of its network in O(pod_segments), not of the node's subnet.
    type: bool
    default: false
  service_cidrs:
    description: >-
      Networks of Services that the node itself reaches by the bridge, with its gateway address as source. At most one
      of each IP version.
    type: list
    elements: str
    default: []
  name:
    description: Name of the network.
    type: str
    default: evio
  conf_dir:
    description: The directory that the container runtime reads its CNI configuration from.
    type: path
    default: /etc/cni/net.d
  plugin_dirs:
    description: The directories in which the binaries of chained plugins are looked for.
    type: list
    elements: path
    default: [/opt/cni/bin, /usr/lib/cni]
  state_dir:
    description: The state directory of the CNI plugin.
    type: path
    default: /var/lib/evio-cni
  cri_socket:
    description: The container runtime's socket. If it is empty, and in check mode, the runtime is not asked.
    type: str
    default: ""
  timeout:
    description: Seconds within which the runtime has to load the file.
    type: float
    default: 10.0
"""

EXAMPLES = r"""
- name: Configure the pod network, and wait until containerd has loaded it
  evio.cni.cni_config:
    bridge: br-evio
    subnets: [10.244.3.0/24]
    cluster_cidrs: [10.10.0.0/16, 10.244.0.0/16]
    mtu: 1420
    cri_socket: /run/containerd/containerd.sock
"""

RETURN = r"""
path:
  description: Path of the file.
  returned: success
  type: str
  sample: /etc/cni/net.d/10-evio.conflist
conflist:
  description: Content of the file.
  returned: O(state=present)
  type: dict
lacks_cri:
  description: Whether the runtime answers, but does not serve CRI. A restart may help.
  returned: failure for this reason
  type: bool
loaded:
  description: Whether the runtime was asked and has loaded the file.
  returned: O(state=present)
  type: bool
"""

import contextlib
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.cni import conf_dir, cri
from ..module_utils.cni.conflist import CHAINED_PLUGINS, PodNetwork, build_conflist
from ..module_utils.cni.netconf import NetConf
from ..module_utils.defaults import DATAPATH_TYPE
from ..module_utils.differences import Differences
from ..module_utils.errors import EvioError
from ..module_utils.firewall.network_rules import rules_of_pods
from ..module_utils.managed_file import ManagedFile, result_of
from ..module_utils.module_runner import Module, ModuleError, run_module
from ..module_utils.names import DATAPATH_TYPES
from ..module_utils.node.metrics_file import metrics_file, remove_metrics, stop_counting
from ..module_utils.node.report import old_mtu_warning
from ..module_utils.state.attachments import addresses_of_pods, journal_entries
from ..module_utils.state.directory import StateError
from ..module_utils.state.fence import read_fence, take_down_fence
from ..module_utils.state.journal import Journal
from ..module_utils.subnets import NodeSubnet
from ..module_utils.systemd_units import OPTIONS, from_options


class CniConfig:
    """One run: read the file and the fence once, compare, act unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params
        self.check_mode = module.check_mode
        self.directory: str = self.params["conf_dir"]
        self.file = ManagedFile(os.path.join(self.directory, paths.CONFLIST_NAME), mode=conf_dir.MODE)
        self.fence = read_fence(self.params["state_dir"])
        self.units = from_options(self.params["files"], self.params["units"], dry_run=self.check_mode)
        self.metrics = self._compare_metrics()

    def run(self) -> dict[str, Any]:
        return self._present() if self.params["state"] == "present" else self._absent()

    def _present(self) -> dict[str, Any]:
        """Write units first and the file last: with the file, the runtime begins to attach pods."""
        conflist = build_conflist(self._network())
        conf_dir.refuse_competitors(self.directory, self.params["name"])
        change = self.file.change_to(conf_dir.render(conflist))
        fence = Differences()
        fence.compare("fence", None, self.fence)
        self.units.write_files()
        self._remove_metrics()
        rules = self._ensure_rules(conflist)
        if not self.check_mode:
            conf_dir.write_conflist(conflist, self.directory)
            # The caller has the claim from etcd, so it is valid.
            take_down_fence(self.params["state_dir"])
        self._warn_about_mtu(conflist)
        self.units.start()
        return {
            **result_of(*self.units.parts(), self.metrics, rules, change, fence),
            "path": str(self.file.path),
            "conflist": conflist,
            "loaded": self._await_runtime(conflist),
        }

    def _absent(self) -> dict[str, Any]:
        change = self.file.change_to(None)
        if not self.check_mode:
            change.apply()
        self.units.write_files()
        self._remove_metrics()
        return {**result_of(change, *self.units.parts(), self.metrics), "path": str(self.file.path)}

    def _compare_metrics(self) -> Differences:
        """Compare the file of the metrics that the unit on the node writes with that of the wanted unit."""
        differences = Differences()
        for change in self.units.changes:
            if str(change.file.path) == paths.METRICS_UNIT:
                differences.compare("metrics", metrics_file(change.text), metrics_file(change.file.text))
        return differences

    def _remove_metrics(self) -> None:
        """Remove the file that is not written any more, after its unit was stopped or changed."""
        for difference in self.metrics if not self.check_mode else ():
            if difference.found is not None:
                remove_metrics(difference.found)
            if difference.wanted is None:
                stop_counting(self.params["state_dir"])

    def _network(self) -> PodNetwork:
        params = self.params
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
            service_cidrs=tuple(params["service_cidrs"]),
            ovsdb=params["ovsdb"],
            state_dir=params["state_dir"],
            chained=tuple(name for name in CHAINED_PLUGINS if self._is_installed(name)),
        )

    def _ensure_rules(self, conflist: dict[str, Any]) -> Differences:
        """Give running pods the nftables rules of the new configuration: otherwise the next pod would bring them."""
        conf = _netconf(conflist)
        try:
            pods = addresses_of_pods(journal_entries(Journal(conf.state_dir), conf.name))
        except StateError:
            pods = []  # A journal that cannot be read is evio status's subject.
        rules, differences = rules_of_pods(conf, pods), Differences()
        for chain in rules.missing() if pods else ():
            differences.compare(f"nftables chain {chain}", "complete", "missing or incomplete")
        if differences.changed and not self.check_mode:
            rules.ensure()
        return differences

    def _warn_about_mtu(self, conflist: dict[str, Any]) -> None:
        """Running pods keep their MTU; a journal that cannot be read is evio status's subject."""
        with contextlib.suppress(EvioError):
            warning = old_mtu_warning(_netconf(conflist))
            if warning is not None:
                self.module.warn(warning)

    def _is_installed(self, plugin: str) -> bool:
        return any(os.path.isfile(os.path.join(directory, plugin)) for directory in self.params["plugin_dirs"])

    def _await_runtime(self, conflist: dict[str, Any]) -> bool:
        socket = self.params["cri_socket"]
        if not socket or self.check_mode:
            return False
        multus = conf_dir.multus_in_front(self.directory, self.params["name"])
        try:
            cri.await_network(conflist, socket, timeout=self.params["timeout"], multus=multus)
        except cri.NoCriServiceError as error:
            raise ModuleError(str(error), lacks_cri=True) from error
        return True


def _netconf(conflist: dict[str, Any]) -> NetConf:
    return NetConf({**conflist["plugins"][0], "name": conflist["name"], "cniVersion": conflist["cniVersion"]})


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "bridge": {"type": "str"},
            "subnets": {"type": "list", "elements": "str"},
            "cluster_cidrs": {"type": "list", "elements": "str"},
            "mtu": {"type": "int"},
            "epoch": {"type": "int", "default": 0},
            "datapath_type": {"type": "str", "choices": list(DATAPATH_TYPES), "default": DATAPATH_TYPE},
            "ip_masq": {"type": "bool", "default": True},
            "port_security": {"type": "bool", "default": True},
            "pod_segments": {"type": "list", "elements": "str", "default": []},
            "flat": {"type": "bool", "default": False},
            "service_cidrs": {"type": "list", "elements": "str", "default": []},
            "name": {"type": "str", "default": "evio"},
            "conf_dir": {"type": "path", "default": paths.CNI_CONF_DIR},
            "plugin_dirs": {"type": "list", "elements": "path", "default": list(paths.PLUGIN_DIRS)},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
            "state_dir": {"type": "path", "default": paths.STATE_DIR},
            "cri_socket": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 10.0},
            **OPTIONS,
        },
        required_if=[("state", "present", ["bridge", "subnets", "cluster_cidrs", "mtu"])],
        supports_check_mode=True,
    )
    run_module(module, CniConfig)


if __name__ == "__main__":
    main()
