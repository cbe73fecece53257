# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a pod reaches, row by row of the table in docs/security.md: nodes, agents, pods, a LAN, an internet."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.netconf import NetConf
from ansible_collections.evio.cni.plugins.module_utils.firewall.network_rules import rules_of
from ansible_collections.evio.cni.plugins.module_utils.firewall.overlay_rules import remove_overlay_rules
from ansible_collections.evio.cni.plugins.module_utils.kernel.netns import in_netns
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import probe_address

from .overlay_lab import POD_CIDR, Namespace, Node, OverlayLab, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

INTERNET = "198.51.100.254"
PRINTER = "192.168.50.2"
"""A host in the LAN of the second node."""


class Site:
    """Two public nodes with a pod each; the second node has a LAN with a printer."""

    def __init__(self, directory: Path) -> None:
        self.lab = OverlayLab(directory)
        self.namespaces: list[Namespace] = []
        self.first, self.second = self.lab.public_node("first"), self.lab.public_node("second")
        self.pods = {node.name: self._pod(node, 2) for node in (self.first, self.second)}
        self.printer = self._namespace()
        self.second.namespace.run(
            *("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "eth0"),
            *("netns", str(self.printer.pid)),
        )
        self._address(self.second.namespace, "lan0", "192.168.50.1/24")
        self._address(self.printer, "eth0", f"{PRINTER}/24")
        self.printer.run("ip", "route", "add", "default", "via", "192.168.50.1")
        self.lab.start()
        self.lab.wait_reachable()

    def close(self) -> None:
        self.lab.close()
        for namespace in self.namespaces:
            namespace.close()

    def neighbour(self) -> str:
        """Start another pod on the first node and return its address."""
        self._pod(self.first, 3)
        return "10.244.1.3"

    def reaches(self, pod: Namespace, address: str) -> bool:
        return pod.run("ping", "-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", address, check=False).returncode == 0

    def inside(self, node: Node, function: Callable[[], object]) -> None:
        netns = os.open(f"/proc/{node.namespace.pid}/ns/net", os.O_RDONLY)
        try:
            in_netns(netns, function)
        finally:
            os.close(netns)

    def _pod(self, node: Node, number: int) -> Namespace:
        pod = self._namespace()
        veth = f"veth{number}"
        node.namespace.run(
            *("ip", "link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", str(pod.pid)),
        )
        node.namespace.run("ip", "link", "set", veth, "master", "pods", "up")
        self._address(pod, "eth0", f"10.244.{node.index}.{number}/24")
        pod.run("ip", "route", "add", "default", "via", node.pod_gateway)
        # As the plugin's ADD does it.
        conf = NetConf(
            {
                "cniVersion": "1.0.0",
                "name": "evio",
                "bridge": "pods",
                "ipMasq": True,
                "gateway": f"{node.pod_gateway}/24",
                "clusterCIDRs": ["10.10.0.0/16", POD_CIDR],
                "ipam": {"type": "host-local"},
            }
        )
        self.inside(node, lambda: rules_of(conf, []).ensure())
        return pod

    def _namespace(self) -> Namespace:
        self.namespaces.append(Namespace())
        return self.namespaces[-1]

    @staticmethod
    def _address(namespace: Namespace, device: str, cidr: str) -> None:
        namespace.run("ip", "address", "add", cidr, "dev", device)
        namespace.run("ip", "link", "set", device, "up")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        yield site
    finally:
        site.close()


def overlay_chains(node: Node) -> list[str]:
    listed = json.loads(node.namespace.run("nft", "-j", "list", "chains", "inet").stdout)["nftables"]
    return [item["chain"]["name"] for item in listed if item.get("chain", {}).get("name", "").startswith("overlay-")]


def test_pod_reaches_gateway_own_node_other_nodes_pods_and_internet(site: Site) -> None:
    pod = site.pods["first"]
    for address in (
        site.first.pod_gateway,
        site.first.address,
        site.neighbour(),
        "10.244.2.2",
        site.second.address,
        INTERNET,
    ):
        assert site.reaches(pod, address), address
    # The LAN of a pod's own node, by the node's address there.
    assert site.reaches(site.pods["second"], PRINTER)
    assert site.reaches(pod, "198.51.100.12")


def test_pod_reaches_no_probe_address(site: Site) -> None:
    pod = site.pods["first"]
    for node in (site.first, site.second):
        address = probe_address(node.address)
        assert not site.reaches(pod, address), address
        # From the agents' own port too.
        for packet in ("51821", "40000"):
            pod.run("sh", "-c", f"echo '{{}}' | nc -u -q0 -w1 -p {packet} {address} 51821", check=False)
    assert "not a message" not in site.lab.logs()
    received = site.second.namespace.run("nft", "list", "table", "inet", "evio_cni").stdout
    assert "only the agents of other nodes send to the probe address" in received
    site.lab.wait_reachable()


def test_packets_of_pods_that_another_node_lets_out_are_dropped_at_the_probe_address(site: Site) -> None:
    """A node that has lost its rules, or runs an older version, masquerades its pods as its own agent."""
    os.kill(site.first.agent.pid, signal.SIGSTOP)  # type: ignore[union-attr]
    for chain in overlay_chains(site.first):
        site.first.namespace.run("nft", f"flush chain inet evio_cni {chain}")
    assert not site.reaches(site.pods["first"], probe_address(site.second.address))
    assert not site.reaches(site.first.namespace, probe_address(site.second.address))


def test_other_node_does_not_reach_the_lan_of_this_node(site: Site) -> None:
    """A hostile node sends what it likes into the overlay: WireGuard checks the sources, not the destinations."""
    pod, agent = site.pods["first"], site.first.agent
    assert agent is not None
    os.kill(agent.pid, signal.SIGSTOP)
    [line] = site.first.namespace.run("wg", "show", "evio0", "allowed-ips").stdout.splitlines()
    key, *allowed = line.split()
    networks = ",".join([*allowed, "192.168.50.0/24", INTERNET])
    site.first.namespace.run("wg", "set", "evio0", "peer", key, "allowed-ips", networks)
    for target in ("192.168.50.0/24", INTERNET):
        site.first.namespace.run("ip", "route", "add", target, "dev", "evio0")
    # The first node's own rules would drop these packets.
    for chain in overlay_chains(site.first):
        site.first.namespace.run("nft", f"flush chain inet evio_cni {chain}")
    site.first.namespace.run("nft", "flush", "chain", "inet", "evio_cni", masquerade_chain(site.first))
    assert site.reaches(pod, site.second.address)
    for address in (PRINTER, "192.168.50.1", INTERNET):
        assert not site.reaches(pod, address), address
    # Not the routes or WireGuard kept them out: without the rules they pass.
    os.kill(site.second.agent.pid, signal.SIGSTOP)  # type: ignore[union-attr]
    for chain in overlay_chains(site.second):
        site.second.namespace.run("nft", f"flush chain inet evio_cni {chain}")
    assert site.reaches(pod, PRINTER)


def test_node_port_leads_from_the_lan_to_a_pod_of_another_node(site: Site) -> None:
    site.second.namespace.run(
        "nft",
        "-f",
        "-",
        text="""
        table ip kube {
            chain pre { type nat hook prerouting priority -100; ip daddr 192.168.50.1 dnat to 10.244.1.2; }
            chain post { type nat hook postrouting priority 100; oifname "evio0" masquerade; }
        }""",
    )
    assert site.reaches(site.printer, "192.168.50.1")
    # And from another node's pod to a host network endpoint in the LAN, by the node's overlay address.
    site.second.namespace.run("nft", f"insert rule ip kube pre ip daddr {site.second.address} dnat to {PRINTER}")
    assert site.reaches(site.pods["first"], site.second.address)


def test_rules_of_the_overlay_come_back_after_a_flush(site: Site) -> None:
    assert len(overlay_chains(site.second)) == 2
    site.second.namespace.run("nft", "flush", "ruleset")
    assert overlay_chains(site.second) == []
    wait_until(lambda: len(overlay_chains(site.second)) == 2, 3, "the rules are back", site.lab)


def test_removal_takes_the_rules_of_the_overlay_and_leaves_the_masquerade(site: Site) -> None:
    os.kill(site.first.agent.pid, signal.SIGSTOP)  # type: ignore[union-attr]
    site.inside(site.first, remove_overlay_rules)
    assert overlay_chains(site.first) == []
    site.first.namespace.run("nft", "flush", "chain", "inet", "evio_cni", masquerade_chain(site.first))
    site.inside(site.first, remove_overlay_rules)


def masquerade_chain(node: Node) -> str:
    listed = json.loads(node.namespace.run("nft", "-j", "list", "chains", "inet").stdout)["nftables"]
    [name] = [item["chain"]["name"] for item in listed if item.get("chain", {}).get("name", "").startswith("net-")]
    return str(name)
