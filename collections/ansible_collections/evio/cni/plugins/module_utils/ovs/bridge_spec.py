# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pod bridge as it is wanted (``BridgeSpec``) and as it is (``BridgeState``), and how the two differ.

A bridge without our mark is somebody else's: it is given our gateways, and everything else must be as wanted already.
Pure. ``bridge`` reads and changes the bridge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network
from typing import Any

from ..differences import Differences
from ..errors import EvioError
from ..mtu import LEAST_MTU, MOST_MTU
from ..names import DATAPATH_TYPES, bridge_mac, is_mac
from .external_ids import BORROWED_ID, OWNER, OWNER_ID

_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
"""By IP version."""

FAIL_MODE = "secure"
"""A vswitchd that has just started knows no flows. In this mode nothing passes then until the flows are installed; in
the mode ``standalone`` everything would pass, forged frames of pods too (ovs-vswitchd.conf.db(5), table Bridge)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
"""linux/if.h: IFNAMSIZ is 16 with the final zero."""


class BridgeError(EvioError):
    """No bridge can be as the spec says, or the bridge cannot be made, changed or removed."""


@dataclass(frozen=True)
class BridgeSpec:
    """The bridge as it is wanted."""

    name: str
    gateways: tuple[str, ...]
    """Addresses in CIDR notation, at most one per IP version: the gateways of the node's pods. An empty tuple leaves
    the bridge's addresses alone."""
    mtu: int | None = None
    """Bytes; None leaves it to Open vSwitch."""
    datapath_type: str = "system"
    """``system`` for the kernel's datapath, ``netdev`` for vswitchd's."""
    mac: str | None = None
    """None derives it from the first gateway, so that it never changes."""
    external_ids: Mapping[str, str] = field(default_factory=lambda: {OWNER_ID: OWNER})
    may_adopt: bool = False
    """Whether a bridge without our mark is made ours, instead of being treated as somebody else's."""
    service_cidrs: tuple[str, ...] = ()
    """Networks of Services that the node itself reaches by this bridge, with the gateway's address as source. Where the
    overlay has an interface of its own, the routes lead there instead."""
    is_borrowed: bool = False
    """Whether the bridge is somebody else's even if it has our mark, which earlier versions set on every bridge."""

    def changes_only_gateways(self, external_ids: Mapping[str, str]) -> bool:
        """Return whether a bridge with these external_ids is somebody else's."""
        return self.is_borrowed or (not self.may_adopt and external_ids.get(OWNER_ID) != OWNER)

    @property
    def fixed_mac(self) -> str | None:
        """The MAC to set, in lower case; None without ``mac`` and gateways."""
        if self.mac is not None:
            return self.mac.lower()
        return bridge_mac(_gateway(self.gateways[0]).ip.packed) if self.gateways else None

    @property
    def routes(self) -> dict[str, str]:
        """The source addresses of the node's packets to Services, by the Services' network."""
        sources = {gateway.version: str(gateway.ip) for gateway in map(_gateway, self.gateways)}
        networks = [ip_network(cidr) for cidr in self.service_cidrs]
        return {str(network): sources[network.version] for network in networks if network.version in sources}

    @property
    def networks(self) -> list[str]:
        """The networks of the gateways to which there are routes by the bridge, in CIDR notation."""
        return sorted(filter(None, map(gateway_network, map(_gateway, self.gateways))))

    @property
    def node_sysctls(self) -> dict[str, str]:
        """Settings that make the node its pods' router, by path below /proc/sys. The caller keeps them over a boot."""
        versions = {_gateway(gateway).version for gateway in self.gateways}
        return {_FORWARDING[version]: "1" for version in sorted(versions)}

    @property
    def link_sysctls(self) -> dict[str, str]:
        """Settings of the bridge's device: ignore router advertisements, which a pod could send (CVE-2020-10749).

        And use its link-local address at once: until then the kernel forwards no IPv6 packet from pod to pod. It is
        derived from the MAC, and the MAC from the gateway's address, which no other node has.
        """
        return {f"net/ipv6/conf/{self.name}/accept_ra": "0", f"net/ipv6/conf/{self.name}/accept_dad": "0"}

    @property
    def sysctls(self) -> dict[str, str]:
        """All settings, of the node and of the bridge's device."""
        return {**self.node_sysctls, **self.link_sysctls}


@dataclass(frozen=True)
class BridgeState:
    """The bridge as it is."""

    datapath_type: str
    mac: str | None
    mtu: int | None
    external_ids: Mapping[str, str]
    fail_mode: str | None
    spanning_tree: bool
    addresses: frozenset[str]
    """Configured addresses in CIDR notation, without link-local addresses and without those that have a lifetime."""
    is_up: bool
    sysctls: Mapping[str, str]
    """Values of the spec's settings, as far as the kernel has them; by path below /proc/sys."""
    routes: Mapping[str, str] = field(default_factory=dict)
    """Our routes by the device: source addresses by network."""
    networks: frozenset[str] = frozenset()
    """The networks to which the kernel has added routes by the device, in CIDR notation."""
    is_forwarded: bool = True
    """Whether iptables lets packets from and to pods through. Other firewalls do not count."""

    forwards: bool = True
    """False for a bridge without pods' ports and without flows: its creation was interrupted."""

    @property
    def borrowed(self) -> frozenset[str]:
        """The addresses that we have added to somebody else's bridge, in CIDR notation."""
        return frozenset(filter(None, self.external_ids.get(BORROWED_ID, "").split(",")))


def check_spec(spec: BridgeSpec) -> None:
    """Raise BridgeError for a spec that no bridge can have. Open vSwitch's library ignores some bad values silently."""
    if not _NAME.fullmatch(spec.name):
        raise BridgeError(
            f"bridge name {spec.name!r}: a name has up to 15 letters, digits, '-', '_' and '.', and begins with a "
            "letter or digit"
        )
    if spec.datapath_type not in DATAPATH_TYPES:
        raise BridgeError(f"datapath_type {spec.datapath_type!r} is none of {', '.join(DATAPATH_TYPES)}")
    if spec.mac is not None and not _is_unicast_mac(spec.mac.lower()):
        raise BridgeError(f"mac {spec.mac!r} is not a unicast MAC address, as in 0a:58:0a:f4:03:01")
    for cidr in spec.service_cidrs:
        try:
            ip_network(cidr)
        except ValueError as error:
            raise BridgeError(f"service network {cidr!r} is not a network in CIDR notation: {error}") from error
    versions = [_gateway(gateway).version for gateway in spec.gateways]
    if len(set(versions)) != len(versions):
        raise BridgeError(f"gateways {', '.join(spec.gateways)}: a bridge has at most one gateway per IP version")
    least = LEAST_MTU[6 if 6 in versions else 4]
    most = MOST_MTU[spec.datapath_type]
    if spec.mtu is not None and not least <= spec.mtu <= most:
        raise BridgeError(f"mtu {spec.mtu} is not between {least} and {most} bytes")


def compare(spec: BridgeSpec, state: BridgeState | None) -> Differences:
    """Return which properties of the spec the bridge lacks: all of them if there is no bridge (None).

    Raises BridgeError where somebody else's bridge would need another change than our gateways.
    """
    differences = Differences()
    if state is not None and spec.changes_only_gateways(state.external_ids):
        _refuse_changes(spec, state)
        for name, wanted, present in _borrowed_properties(spec, state):
            differences.compare(name, wanted, present)
        return differences
    found = _properties_found(spec, state) if state is not None else {}
    for name, wanted in _properties_wanted(spec).items():
        differences.compare(name, wanted, found.get(name))
    return differences


def _refuse_changes(spec: BridgeSpec, state: BridgeState) -> None:
    """Raise BridgeError if somebody else's bridge is not as wanted in what we do not change there."""
    asked = {"datapath_type": spec.datapath_type, "mtu": spec.mtu, "mac": spec.mac.lower() if spec.mac else None}
    found = {"datapath_type": state.datapath_type, "mtu": state.mtu, "mac": state.mac}
    faults = [
        f"{name} is {found[name]}, asked for is {wanted}"
        for name, wanted in asked.items()
        if wanted is not None and wanted != found[name]
    ]
    if faults:
        raise BridgeError(
            f"the bridge {spec.name} is not {OWNER}'s (external_ids:{OWNER_ID} is not set), so only gateways are added "
            f"to it and nothing else is changed: {'; '.join(faults)}. Ask for what the bridge has, let its owner "
            "change it, or take the name of a bridge that does not exist yet"
        )


def _borrowed_properties(spec: BridgeSpec, state: BridgeState) -> list[tuple[str, Any, Any]]:
    """Return name, wanted value and found value of each property that somebody else's bridge is given."""
    owner = ("external_ids:" + OWNER_ID, None, state.external_ids.get(OWNER_ID))
    if not spec.gateways:
        return [owner]
    wanted = _canonical(spec.gateways)
    ours = sorted(state.addresses & ({*wanted} | state.borrowed))
    sysctls = [(f"sysctl:{name}", value, state.sysctls.get(name)) for name, value in spec.node_sysctls.items()]
    forwarding = ("forwarding", "accepted", "accepted" if state.is_forwarded else "dropped")
    routes = ("routes", spec.routes, dict(state.routes))
    networks = ("networks", spec.networks, _networks_found(spec, state))
    return [owner, ("up", True, state.is_up), ("gateways", wanted, ours), networks, routes, forwarding, *sysctls]


def _properties_wanted(spec: BridgeSpec) -> dict[str, Any]:
    wanted: dict[str, Any] = {"datapath_type": spec.datapath_type}
    if spec.fixed_mac is not None:
        wanted["mac"] = spec.fixed_mac
    if spec.mtu is not None:
        wanted["mtu"] = spec.mtu
    wanted.update({"fail_mode": FAIL_MODE, "spanning_tree": False, "up": True, "flow": "NORMAL"})
    if spec.gateways:
        wanted["gateways"] = _canonical(spec.gateways)
        wanted["networks"] = spec.networks
        wanted["routes"] = spec.routes
        wanted["forwarding"] = "accepted"
    return {**wanted, **_prefixed("external_ids", spec.external_ids), **_prefixed("sysctl", spec.sysctls)}


def _properties_found(spec: BridgeSpec, state: BridgeState) -> dict[str, Any]:
    return {
        "datapath_type": state.datapath_type,
        "mac": state.mac,
        "mtu": state.mtu,
        "fail_mode": state.fail_mode,
        "spanning_tree": state.spanning_tree,
        "up": state.is_up,
        "flow": "NORMAL" if state.forwards else None,
        "gateways": sorted(state.addresses),
        "networks": _networks_found(spec, state),
        "routes": dict(state.routes),
        "forwarding": "accepted" if state.is_forwarded else "dropped",
        **_prefixed("external_ids", state.external_ids),
        **_prefixed("sysctl", state.sysctls),
    }


def gateway_network(gateway: IPv4Interface | IPv6Interface) -> str | None:
    """Return the network to which the kernel adds a route with this address; None for an address alone."""
    return str(gateway.network) if gateway.network.num_addresses > 1 else None


def _networks_found(spec: BridgeSpec, state: BridgeState) -> list[str]:
    """Return the gateways' networks, without those that lack their route although device and gateway are there."""
    present = [g for g in map(_gateway, spec.gateways) if state.is_up and str(g) in state.addresses]
    lacking = {gateway_network(gateway) for gateway in present} - state.networks
    return [network for network in spec.networks if network not in lacking]


def _prefixed(kind: str, values: Mapping[str, str]) -> dict[str, str]:
    return {f"{kind}:{name}": value for name, value in values.items()}


def _canonical(gateways: Sequence[str]) -> list[str]:
    return sorted(str(_gateway(gateway)) for gateway in gateways)


def _is_unicast_mac(mac: str) -> bool:
    return is_mac(mac) and not int(mac[:2], 16) & 1 and mac != "00:00:00:00:00:00"


def _gateway(cidr: str) -> IPv4Interface | IPv6Interface:
    try:
        gateway = ip_interface(cidr)
    except ValueError as error:
        raise BridgeError(f"gateway {cidr!r} is not an address with a prefix length: {error}") from error
    if "/" not in cidr:
        raise BridgeError(f"gateway {cidr!r} is an address without its prefix length, as in {cidr}/24")
    subnet = gateway.network
    ends = [subnet.network_address] if gateway.version == 6 else [subnet.network_address, subnet.broadcast_address]
    if subnet.num_addresses > 2 and gateway.ip in ends:
        raise BridgeError(f"gateway {cidr!r} is the first or last address of its subnet, which no host can have")
    return gateway
