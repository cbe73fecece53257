"""What a node has of pods: network namespaces, OVS ports, reserved addresses, journal entries; the node reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import nodes
from commands import LabError, run
from http_requests import Source
from kubectl import Kubectl
from state import Lab
from topology import Node

_READ = """\
import glob, json, os, subprocess

def out(*argv, check=True):
    return subprocess.run(argv, capture_output=True, text=True, check=check, timeout=60).stdout

netns = {}
for path in glob.glob("/run/netns/*"):
    links = json.loads(out("nsenter", "--net=" + path, "ip", "-json", "-4", "address", "show", "eth0") or "[]")
    addresses = [info["local"] for link in links for info in link.get("addr_info", [])]
    netns[path] = addresses[0] if addresses else ""
ports = json.loads(out("ovs-vsctl", "--format=json", "--columns=name,external_ids", "list", "Interface"))["data"]
reserved = [os.path.basename(path) for path in glob.glob("/var/lib/cni/networks/*/[0-9]*")]
# It exits with 1 while it finds something wrong.
status = json.loads(out("/opt/cni/bin/evio", "status", "--json", check=False))
print(json.dumps({
    "netns": netns,
    "ports": sorted(name for name, ids in ports if any(key.startswith("evio-") for key, value in ids[1])),
    "reserved": sorted(reserved),
    "journal": sorted(pod.get("container", str(pod)) for network in status["networks"] for pod in network["pods"]),
    "links": sorted(link["ifname"] for link in json.loads(out("ip", "-json", "link", "show", "type", "veth"))),
    "sandboxes": sorted(out("crictl", "pods", "-q").split()),
}))
"""


@dataclass(frozen=True)
class OnNode:
    """What a node has of pods: `netns` has the pods' addresses by their namespaces' paths; the others are names."""

    netns: dict[str, str]
    ports: list[str]
    reserved: list[str]
    journal: list[str]
    links: list[str]
    sandboxes: list[str]

    def counts(self) -> dict[str, int]:
        """Return how many there are of each."""
        return {name: len(value) for name, value in asdict(self).items()}


def read(lab: Lab, node: Node) -> OnNode:
    """Read what one node has. Raises LabError."""
    found: dict[str, Any] = json.loads(run(*nodes.command(lab, node, ["python3", "-c", _READ]), timeout=60))
    return OnNode(**found)


def read_all(lab: Lab, on: Sequence[Node]) -> dict[str, OnNode]:
    """Read what each of these nodes has, by the nodes' names."""
    with ThreadPoolExecutor(max_workers=8) as workers:
        return dict(zip([node.name for node in on], workers.map(lambda node: read(lab, node), on), strict=True))


def sources(lab: Lab, kubectl: Kubectl, selector: str) -> list[Source]:
    """Return the running pods with these labels, ordered by node and name, as sources of requests.

    Raises LabError if a node lacks the network namespace of a pod.
    """
    netns = {
        (name, address): path
        for name, found in read_all(lab, lab.topology().nodes).items()
        for path, address in found.netns.items()
    }
    listed = kubectl.get("pods", f"--selector={selector}", "--field-selector=status.phase=Running")
    pods = []
    for pod in listed:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        name, place = pod["metadata"]["name"], (pod["spec"]["nodeName"], pod["status"]["podIP"])
        if place not in netns:
            raise LabError(f"{place[0]} has no network namespace with the address of {name}, {place[1]}")
        pods.append(Source(name, *place, netns=netns[place]))
    return sorted(pods, key=lambda pod: (pod.node, pod.name))
