"""The lab's present state, read from the kernel, and a list of commands to look around with."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import machines
import network
import nodes
import ssh
from state import Lab
from topology import Node

_TOUR = """\
Look around:
  lab/lab status                           nodes, addresses, routers
  lab/lab ssh node2                        a shell on a node (end it with Ctrl-D)
  lab/lab ssh node2 wg show evio0          the node's tunnels
  lab/lab ssh node2 ovs-vsctl show         the node's bridge, and the ports of its pods
  lab/lab ssh node2 /opt/cni/bin/evio status
  lab/lab pods list                        the pods; `pods down` removes them, `pods up` starts new ones
  ssh -F {configuration} node2
  ip netns exec {segment} tcpdump -ni {bridge}    what the internet sees
Break something, and run lab/lab prove again:
  lab/lab nat-type node3 symmetric         no direct tunnel is possible, so the public node relays
  lab/lab nat-forget node2                 the node's router loses its translations, as in a restart
  lab/lab readdress node2                  the node's site gets another public address
  lab/lab reboot node2
  lab/lab cut node2; lab/lab heal node2    the node's site loses its uplink; it has it again
Remove the lab: make demo-down
"""

_TRANSLATION = {"preserving": "preserving", "symmetric": "symmetric", "none": "firewall"}
"""The word in the table for each way of translating (topology.NAT_TYPES)."""


@dataclass(frozen=True)
class NodeStatus:
    """One node as it is now; `router` and `nat` are None for a public node, `pid` is None if the node does not run.

    `release` is its Debian release, `uplink` says whether the link of the node's site is "up" or "cut", and `mtu` are
    the bytes of its longest packet.
    """

    name: str
    address: str
    public_address: str
    router: str | None
    nat: str | None
    release: str
    uplink: str
    mtu: int
    pid: int | None


def read(lab: Lab) -> list[NodeStatus]:
    """Return the status of every node. Raises LabError if the lab is not up."""
    topology = lab.topology()
    statuses = []
    for node in topology.nodes:
        router = topology.router_of(node)
        statuses.append(
            NodeStatus(
                name=node.name,
                address=node.address,
                public_address=topology.public_address(node),
                router=node.router,
                nat=router.nat if router else None,
                release=node.release,
                uplink="up" if network.uplink_is_up(lab.prefix, network.uplink_port(node)) else "cut",
                mtu=topology.mtu,
                pid=_process(lab, node) if nodes.is_running(lab, node) else None,
            )
        )
    return statuses


def _process(lab: Lab, node: Node) -> int | None:
    """Return the id of the node's process 1, or of the virtual machine that it is."""
    return machines.pid(lab, node) if lab.is_machine(node.name) else nodes.pid(lab, node)


def as_json(statuses: list[NodeStatus]) -> dict[str, object]:
    """Return the nodes as JSON shows them."""
    return {"nodes": [asdict(node) for node in statuses]}


def as_text(statuses: list[NodeStatus]) -> str:
    """Return a table with a line for each node."""
    columns = f"{'ROUTER':20} {'RELEASE':9} {'UPLINK':7} {'MTU':>4}"
    lines = [f"{'NODE':9} {'ADDRESS':20} {'INTERNET SEES':17} {columns}  STATE\n"]
    for node in statuses:
        router = f"{node.router}, {_TRANSLATION[node.nat]}" if node.router and node.nat else "none: public"
        state = f"runs, pid {node.pid}" if node.pid else "DOWN"
        address = f"{node.address:20} {node.public_address:17}"
        lines.append(f"{node.name:9} {address} {router:20} {node.release:9} {node.uplink:7} {node.mtu:>4}  {state}\n")
    return "".join(lines)


def tour(lab: Lab) -> str:
    """Return the list of commands to look around with."""
    return _TOUR.format(
        configuration=ssh.configuration(lab), segment=lab.netns(network.SEGMENT), bridge=network.SEGMENT
    )
