# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small internet for the overlay's tests: public and NATed nodes in namespaces, each with its agent and its device.

The device is the kernel's WireGuard where the kernel has it, else wireguard-go.

Each namespace exists as long as the process that holds it, so nothing is left when these processes end. The lab of the
repository (lab/) sets up whole hosts with systemd; here only the overlay runs, so that a node starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import (
    OverlayConfig,
    OverlayPeer,
    PodRoutes,
    render_overlay,
    render_pod_routes,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.device import KERNEL, USERSPACE, create_key

from .ovs_daemons import PATIENCE

COLLECTIONS = Path(__file__).resolve().parents[5]
HOST_CIDR = "10.10.0.0/16"
SERVICE_CIDR = "10.96.0.0/12"
POD_CIDR = "10.244.0.0/16"
PROGRAM = COLLECTIONS.parent / "build/bin/evio"
"""What ``make plugin`` builds."""

DEVICE_KIND = (
    KERNEL
    if subprocess.run(
        ["unshare", "--net", "ip", "link", "add", "evw0", "type", "wireguard"], capture_output=True, check=False
    ).returncode
    == 0
    else USERSPACE
)
"""The kind of all nodes' devices, which the kernel decides."""

PORT_PRESERVING = "masquerade"
SYMMETRIC = "masquerade random,fully-random"


class Namespace:
    """A network and a mount namespace, held by a sleeping process."""

    def __init__(self) -> None:
        self.holder = subprocess.Popen(["unshare", "--mount", "--net", "sleep", "infinity"])
        wait_until(lambda: Path(f"/proc/{self.holder.pid}/comm").read_text() == "sleep\n", 5, "a namespace")
        self.inode = os.stat(f"/proc/{self.holder.pid}/ns/net").st_ino
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        return self.holder.pid

    def command(self, *command: str) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--mount", "--net", *command]

    def run(self, *command: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            self.command(*command), input=text, capture_output=True, text=True, timeout=30 * PATIENCE, check=False
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {result.stdout}{result.stderr}")
        return result

    def processes(self) -> list[int]:
        """Return the processes in the network namespace, without the holder."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.stat(entry / "ns/net").st_ino == self.inode:
                    found.append(int(entry.name))
        return [pid for pid in found if pid != self.pid]

    def close(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.holder.kill()
        self.holder.wait()


@dataclass
class Node:
    """A host of the overlay."""

    name: str
    index: int
    namespace: Namespace
    directory: Path
    endpoint: str | None
    agent: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)
    program: tuple[str, ...] = (str(PROGRAM),)

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.log = self.directory / "agent.log"
        self.public_key = create_key(str(self.directory / "wireguard.key"))

    @property
    def address(self) -> str:
        return f"10.10.0.{self.index}"

    @property
    def pod_subnet(self) -> str:
        return f"10.244.{self.index}.0/24"

    @property
    def pod_gateway(self) -> str:
        return f"10.244.{self.index}.1"

    @property
    def peer(self) -> OverlayPeer:
        return OverlayPeer(self.name, self.public_key, self.address, self.endpoint)

    def start(self) -> None:
        files = [
            *("--config", self.directory / "overlay.json"),
            *("--pod-routes", self.directory / "pod-routes.json"),
            *("--key", self.directory / "wireguard.key"),
            *("--state", self.directory / "state.json"),
        ]
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen(
                self.namespace.command(*self.program, "overlay", *map(str, files), "run"),
                stdout=log,
                stderr=log,
            )

    def restart(self, lab: OverlayLab) -> None:
        """Start an agent after another, and wait for its state: the state file is still that of the other."""
        started = time.time()
        self.start()
        wait_until(lambda: self.state()["updated"] > started, 15, f"the next agent's state on {self.name}", lab)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.agent is not None:
            self.agent.send_signal(number)
            self.agent.wait(10)
            self.agent = None

    def wireguard_pids(self) -> list[int]:
        found = []
        for pid in self.namespace.processes():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("wireguard"):
                    found.append(pid)
        return found

    def paths(self) -> dict[str, str | None]:
        """Return the path to each peer, by name, as the agent's state file has it."""
        return {peer["name"]: peer["path"] for peer in self.state().get("peers", [])}

    def state(self) -> dict[str, Any]:
        """Return the agent's state file; empty before the agent has written it."""
        try:
            state: dict[str, Any] = json.loads((self.directory / "state.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def pings(self, address: str, *options: str, wait: str = "0.3") -> bool:
        return (
            self.namespace.run("ping", "-n", "-q", "-c", "1", "-W", wait, *options, address, check=False).returncode
            == 0
        )

    def device(self) -> int | None:
        """Return the number of the interface, which another device would not have; None while there is none."""
        shown = self.namespace.run("ip", "-j", "link", "show", "evio0", check=False).stdout
        return int(json.loads(shown)[0]["ifindex"]) if shown else None

    @contextlib.contextmanager
    def pinging(self, address: str) -> Iterator[None]:
        """Ping the address once a second meanwhile."""
        command = self.namespace.command("ping", "-n", "-q", "-i", "1", address)
        pinging = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            pinging.kill()
            pinging.wait()

    def lose_device(self) -> None:
        """Kill wireguard-go, or delete the device of a kernel that has WireGuard."""
        if DEVICE_KIND == KERNEL:
            self.namespace.run("ip", "link", "del", "evio0")
        for pid in self.wireguard_pids():
            os.kill(pid, signal.SIGKILL)


class Router:
    """A home's NAT router: it preserves ports or is symmetric, and drops packets that are no answers."""

    def __init__(self, namespace: Namespace, wan: str, kind: str) -> None:
        self.namespace, self.wan, self.kind = namespace, wan, kind
        self.hosts = 0
        namespace.run("ip", "link", "add", "lan", "type", "bridge")
        namespace.run("ip", "address", "add", "192.168.1.1/24", "dev", "lan")
        namespace.run("ip", "link", "set", "lan", "up")
        namespace.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.set_rules()

    def set_rules(self) -> None:
        self.namespace.run(
            "nft",
            "-f",
            "-",
            text=f"""
            flush ruleset
            table ip nat {{ chain post {{ type nat hook postrouting priority 100; oifname "wan" {self.kind}; }}; }}
            table ip filter {{
                chain in {{ type filter hook input priority 0; policy accept;
                    iifname "wan" ct state new drop; }}
                chain pass {{ type filter hook forward priority 0; policy accept;
                    iifname "wan" ct state new,invalid drop; }}
            }}""",
        )

    def forget(self) -> None:
        """Drop all NAT mappings, as a power cut does."""
        # Masquerade drops the mappings of an interface that goes down.
        self.namespace.run("ip", "link", "set", "wan", "down")
        time.sleep(0.2)
        self.namespace.run("ip", "link", "set", "wan", "up")
        self._set_default_route()

    def readdress(self, wan: str) -> None:
        """Get another address from the provider."""
        self.namespace.run("ip", "address", "flush", "dev", "wan")
        self.wan = wan
        self.namespace.run("ip", "address", "add", f"{wan}/24", "dev", "wan")
        self._set_default_route()

    def block(self, address: str) -> None:
        """Drop all packets between the hosts behind this router and the address."""
        for key in ("saddr", "daddr"):
            self.namespace.run("nft", "insert", "rule", "ip", "filter", "pass", "ip", key, address, "drop")

    def _set_default_route(self) -> None:
        self.namespace.run("ip", "route", "replace", "default", "via", "198.51.100.254")


class OverlayLab:
    """The public segment 198.51.100.0/24, its routers and its nodes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._namespaces: list[Namespace] = []
        self.nodes: dict[str, Node] = {}
        self.mtu = 1420
        self.segment = self._namespace()
        self.segment.run("ip", "link", "add", "br0", "type", "bridge")
        self.segment.run("ip", "address", "add", "198.51.100.254/24", "dev", "br0")
        self.segment.run("ip", "-6", "address", "add", "2001:db8::fe/64", "dev", "br0", "nodad")
        self.segment.run("ip", "link", "set", "br0", "up")
        self._ports = 0

    def close(self) -> None:
        for node in self.nodes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.stop(signal.SIGKILL)
        for namespace in self._namespaces:
            namespace.close()

    def public_node(self, name: str, *, ipv6: bool = False, mtu: int = 1500) -> Node:
        index = len(self.nodes) + 1
        address = f"2001:db8::{index}" if ipv6 else f"198.51.100.{10 + index}"
        namespace = self._namespace()
        self._plug(self.segment, "br0", namespace, "eth0", mtu)
        namespace.run(
            "ip", "address", "add", f"{address}/{64 if ipv6 else 24}", "dev", "eth0", *(["nodad"] if ipv6 else [])
        )
        namespace.run("ip", "route", "add", "default", "via", "2001:db8::fe" if ipv6 else "198.51.100.254")
        return self._node(name, namespace, f"[{address}]:51820" if ipv6 else f"{address}:51820")

    def router(self, kind: str = PORT_PRESERVING, mtu: int = 1500) -> Router:
        namespace = self._namespace()
        wan = f"198.51.100.{100 + self._ports}"
        self._plug(self.segment, "br0", namespace, "wan", mtu)
        namespace.run("ip", "address", "add", f"{wan}/24", "dev", "wan")
        namespace.run("ip", "route", "add", "default", "via", "198.51.100.254")
        return Router(namespace, wan, kind)

    def node(self, name: str, router: Router) -> Node:
        namespace = self._namespace()
        self._plug(router.namespace, "lan", namespace, "eth0")
        namespace.run("ip", "address", "add", f"192.168.1.{10 + router.hosts}/24", "dev", "eth0")
        namespace.run("ip", "route", "add", "default", "via", "192.168.1.1")
        router.hosts += 1
        return self._node(name, namespace, None)

    def neighbour(self, node: Node, kind: str) -> Namespace:
        """Add a host that sends by a public node to its probe address: a ``pod`` of it, or a host of its ``LAN``."""
        namespace = self._namespace()
        if kind == "pod":
            self._plug(node.namespace, "pods", namespace, "eth0")
            own, gateway = f"10.244.{node.index}.2", node.pod_gateway
        else:
            self._plug(self.segment, "br0", namespace, "eth0")
            own, gateway = "198.51.100.99", f"198.51.100.{10 + node.index}"
        namespace.run("ip", "address", "add", f"{own}/24", "dev", "eth0")
        namespace.run("ip", "route", "add", "default", "via", gateway)
        return namespace

    def write(self, node: Node, members: list[Node] | None = None, services: tuple[str, ...] = (SERVICE_CIDR,)) -> None:
        """Write the node's two files, as the role would for these members; all nodes by default."""
        members = list(self.nodes.values()) if members is None else members
        config = OverlayConfig(
            node=node.name,
            address=node.address,
            host_cidr=HOST_CIDR,
            public_key=node.public_key,
            endpoint=node.endpoint,
            mtu=self.mtu,
            peers=tuple(member.peer for member in members if member is not node),
        )
        subnets = {member.name: (member.pod_subnet,) for member in members}
        routes = PodRoutes((POD_CIDR,), subnets, services)
        for name, text in (("overlay.json", render_overlay(config)), ("pod-routes.json", render_pod_routes(routes))):
            temporary = node.directory / f".{name}.tmp"
            temporary.write_text(text)
            temporary.rename(node.directory / name)

    def start(self) -> None:
        for node in self.nodes.values():
            self.write(node)
        for node in self.nodes.values():
            node.start()

    def pairs(self) -> Iterator[tuple[Node, Node]]:
        for source in self.nodes.values():
            for target in self.nodes.values():
                if source is not target:
                    yield source, target

    def wait_reachable(self, timeout: float = 30.0) -> float:
        """Wait until every node reaches every other's host overlay address and pod gateway; return the seconds."""
        start = time.monotonic()
        for source, target in self.pairs():
            for address in (target.address, target.pod_gateway):
                left = timeout - (time.monotonic() - start)
                wait_until(lambda: source.pings(address), left, f"{source.name} pings {address}", self)  # noqa: B023
        return time.monotonic() - start

    def wait_path(self, source: Node, target: Node, path: str | None, timeout: float = 30.0) -> float:
        """Wait until the state file of the source's agent has this path to the target; return the seconds.

        Meanwhile the source sends a ping each second: only a path in use becomes direct, and a dead path is noticed.
        """
        what = f"{source.name} to {target.name}: {path}"
        with source.pinging(target.address):
            return wait_until(lambda: source.paths().get(target.name, "?") == path, timeout, what, self)

    def logs(self) -> str:
        return "\n".join(
            f"--- {node.name} {node.paths()}\n{node.log.read_text() if node.log.exists() else ''}"
            for node in self.nodes.values()
        )

    def _namespace(self) -> Namespace:
        namespace = Namespace()
        self._namespaces.append(namespace)
        return namespace

    def _node(self, name: str, namespace: Namespace, endpoint: str | None) -> Node:
        # wireguard-go's control sockets are named after the interface: each node needs its own directory.
        namespace.run("mount", "-t", "tmpfs", "tmpfs", "/run")
        namespace.run("mkdir", "/run/wireguard")
        node = Node(name, len(self.nodes) + 1, namespace, self.directory / name, endpoint)
        # In place of the pod bridge.
        namespace.run("ip", "link", "add", "pods", "type", "bridge")
        namespace.run("ip", "address", "add", f"{node.pod_gateway}/24", "dev", "pods")
        namespace.run("ip", "link", "set", "pods", "up")
        self.nodes[name] = node
        return node

    def _plug(self, switch: Namespace, bridge: str, host: Namespace, ifname: str, mtu: int = 1500) -> None:
        self._ports += 1
        port = f"port{self._ports}"
        switch.run(
            *("ip", "link", "add", port, "mtu", str(mtu), "type", "veth"),
            *("peer", "name", ifname, "mtu", str(mtu), "netns", str(host.pid)),
        )
        switch.run("ip", "link", "set", port, "master", bridge, "up")
        host.run("ip", "link", "set", ifname, "up")


def wait_until(condition: Callable[[], bool], timeout: float, what: str, lab: OverlayLab | None = None) -> float:
    """Wait until the condition holds; return the seconds. Raises AssertionError with ``what`` and the agents' logs."""
    start = time.monotonic()
    timeout *= PATIENCE
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return time.monotonic() - start
        if time.monotonic() - start > timeout:
            raise AssertionError(f"not within {timeout:.1f} s: {what}\n{lab.logs() if lab else ''}")
        time.sleep(0.05)
