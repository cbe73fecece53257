"""What there is of the lab right now: asked of the kernel, not remembered; and how to look around."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import network
import nodes
import ssh
from state import Lab

_TOUR = """\
Look around:
  lab/lab status                          nodes, addresses, routers
  lab/lab ssh node2                       a shell on a node, as an operator has it (exit: Ctrl-D)
  lab/lab ssh node2 wg show evio0         its tunnels
  lab/lab ssh node2 ovs-vsctl show        its bridge and the pods' ports
  lab/lab ssh node2 /opt/cni/bin/evio status
  lab/lab pods list                       the pods; `pods down` and `pods up` make new ones
  ssh -F {configuration} node2
  ip netns exec {segment} tcpdump -ni {bridge}   what the internet sees
Break it, and run lab/lab prove again:
  lab/lab nat-type node3 symmetric        no hole can be punched: the public node relays
  lab/lab nat-forget node2                its router restarts
  lab/lab readdress node2                 its site gets another public address, or prefix
  lab/lab reboot node2; lab/lab cut node2; lab/lab heal node2
Take it away: make demo-down
"""

_TRANSLATION = {"preserving": "preserving", "symmetric": "symmetric", "none": "firewall"}
"""What a person calls a router that translates in this way (topology.NAT_TYPES)."""


@dataclass(frozen=True)
class NodeSurvey:
    """One node as it is now; `nat` and `router` are None for a public node, `pid` is None if it does not run.

    `uplink` says whether its site's link passes anything, `mtu` how many bytes of an IP packet.
    """

    name: str
    address: str
    public_address: str
    router: str | None
    nat: str | None
    uplink: str
    mtu: int
    pid: int | None


def survey(lab: Lab) -> list[NodeSurvey]:
    """Every node. Raises LabError if the lab is not up."""
    topology = lab.topology()
    surveyed = []
    for node in topology.nodes:
        router = topology.router_of(node)
        surveyed.append(
            NodeSurvey(
                name=node.name,
                address=node.address,
                public_address=topology.public_address(node),
                router=node.router,
                nat=router.nat if router else None,
                uplink="up" if network.uplink_is_up(lab.prefix, network.uplink_port(node)) else "cut",
                mtu=topology.mtu,
                pid=nodes.pid(lab, node) if nodes.is_running(lab, node) else None,
            )
        )
    return surveyed


def as_json(surveyed: list[NodeSurvey]) -> dict[str, object]:
    """For programs."""
    return {"nodes": [asdict(node) for node in surveyed]}


def as_text(surveyed: list[NodeSurvey]) -> str:
    """For people: one line a node."""
    lines = [f"{'NODE':9} {'ADDRESS':20} {'INTERNET SEES':17} {'ROUTER':20} {'UPLINK':7} {'MTU':>4}  STATE\n"]
    for node in surveyed:
        router = f"{node.router}, {_TRANSLATION[node.nat]}" if node.router and node.nat else "none: public"
        state = f"runs, pid {node.pid}" if node.pid else "DOWN"
        address = f"{node.address:20} {node.public_address:17}"
        lines.append(f"{node.name:9} {address} {router:20} {node.uplink:7} {node.mtu:>4}  {state}\n")
    return "".join(lines)


def tour(lab: Lab) -> str:
    """What to look at, and how."""
    return _TOUR.format(
        configuration=ssh.configuration(lab), segment=lab.netns(network.SEGMENT), bridge=network.SEGMENT
    )
