# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nodes whose bridges are one layer-2 segment, as EdgeVPN.io makes it; a veth pair stands for its tunnels."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.evio.cni.plugins.module_utils.cni.conflist import PodNetwork, build_conflist
from ansible_collections.evio.cni.plugins.module_utils.subnets import NodeSubnet

from .cni_runtime import Node
from .ovs_daemons import DATAPATH, OpenVSwitch, in_namespace

POD_CIDR = "10.244.0.0/16"


def conf_of(cidr: str, switch: OpenVSwitch, directory: Path, *, flat: bool) -> dict[str, object]:
    """The plugin's entry as the role cni writes it for EdgeVPN.io."""
    network = PodNetwork(
        "appPODOVL",
        (NodeSubnet(cidr),),
        ("10.10.0.0/16", POD_CIDR),
        1410,
        datapath_type=DATAPATH,
        ovsdb=switch.ovsdb,
        state_dir=str(directory / "state"),
        segments=(POD_CIDR,),
        flat=flat,
    )
    plugin: dict[str, object] = build_conflist(network)["plugins"][0]
    return plugin


def join(nodes: list[Node]) -> None:
    """Join the bridges of two nodes to one segment."""
    one, other = (node.switch for node in nodes)
    in_namespace(
        one.netns, "ip", "link", "add", "tunnel", "type", "veth", "peer", "name", "tunnel", "netns", other.netns
    )
    for switch in (one, other):
        in_namespace(switch.netns, "ip", "link", "set", "tunnel", "up")
        switch.vsctl("add-port", "appPODOVL", "tunnel")
