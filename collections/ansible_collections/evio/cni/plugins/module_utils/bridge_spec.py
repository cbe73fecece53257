# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the pod bridge shall be and what it is: its description, its fixed MAC, and how the two differ.

Pure. Reading and changing the bridge is the subject of bridge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from .differences import Differences
from .errors import EvioError

OWNER = "evio.cni"
OWNER_ID = "evio-owner"
"""The external_id by which a bridge is known as ours; others are never removed."""
EPOCH_ID = "evio-epoch"

DATAPATH_TYPES = ("system", "netdev")

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")
"""IFNAMSIZ of linux/if.h, 16 with the final zero."""
_MAC = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")


class BridgeError(EvioError):
    """The bridge cannot be described so, or cannot be made."""


@dataclass(frozen=True)
class BridgeSpec:
    """The bridge as it shall be."""

    name: str
    gateways: tuple[str, ...]
    """Its addresses in CIDR notation, at most one a family: the gateways of the node's pods."""
    mtu: int | None = None
    """Bytes; None leaves it to Open vSwitch."""
    datapath_type: str = "system"
    """``system``, the kernel's datapath, or ``netdev``, that of vswitchd."""
    mac: str | None = None
    """None derives it from the first gateway, so that it never changes."""
    external_ids: Mapping[str, str] = field(default_factory=lambda: {OWNER_ID: OWNER})

    @property
    def fixed_mac(self) -> str | None:
        if self.mac is not None:
            return self.mac.lower()
        return bridge_mac(self.gateways[0]) if self.gateways else None


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
    """Without link-local ones."""
    is_up: bool
    error: str | None = None
    """What vswitchd says of the bridge's own port."""


def check_spec(spec: BridgeSpec) -> None:
    """Raise BridgeError for what no bridge can have; Open vSwitch's library drops some of it silently."""
    if not _NAME.match(spec.name):
        raise BridgeError(f"bridge name {spec.name!r}: it takes up to 15 letters, digits, '-', '_' and '.'")
    if spec.datapath_type not in DATAPATH_TYPES:
        raise BridgeError(f"datapath_type {spec.datapath_type!r} is none of {', '.join(DATAPATH_TYPES)}")
    if spec.mtu is not None and not 68 <= spec.mtu <= 65535:
        raise BridgeError(f"mtu {spec.mtu} is not between 68 and 65535 bytes")
    if spec.mac is not None and (not _MAC.match(spec.mac.lower()) or int(spec.mac[:2], 16) & 1):
        raise BridgeError(f"mac {spec.mac!r} is not the address of one interface, as in 0a:58:0a:f4:03:01")
    families = [_interface(gateway).version for gateway in spec.gateways]
    if len(set(families)) != len(families):
        raise BridgeError(f"gateways {', '.join(spec.gateways)}: a bridge has one a family")


def bridge_mac(gateway: str) -> str:
    """A locally administered MAC that follows from the gateway: its IPv4 address, or the low 32 bits of an IPv6 one."""
    interface = _interface(gateway)
    low = int(interface.ip) & 0xFFFFFFFF
    prefix = "0a:58" if isinstance(interface, IPv4Interface) else "0a:56"
    return prefix + "".join(f":{low >> shift & 0xFF:02x}" for shift in (24, 16, 8, 0))


def compare(spec: BridgeSpec, state: BridgeState | None) -> Differences:
    """Every property that the spec speaks of; all of them differ where there is no bridge yet."""
    differences = Differences()
    found = state
    differences.compare("datapath_type", spec.datapath_type, found.datapath_type if found else None)
    if spec.fixed_mac is not None:
        differences.compare("mac", spec.fixed_mac, found.mac if found else None)
    if spec.mtu is not None:
        differences.compare("mtu", spec.mtu, found.mtu if found else None)
    differences.compare("fail_mode", "standalone", found.fail_mode if found else None)
    differences.compare("spanning_tree", False, found.spanning_tree if found else None)
    for key, value in spec.external_ids.items():
        differences.compare(f"external_ids:{key}", value, found.external_ids.get(key) if found else None)
    differences.compare("gateways", _canonical(spec.gateways), sorted(found.addresses) if found else None)
    differences.compare("up", True, found.is_up if found else None)
    return differences


def _canonical(gateways: Sequence[str]) -> list[str]:
    return sorted(str(_interface(gateway)) for gateway in gateways)


def _interface(gateway: str) -> IPv4Interface | IPv6Interface:
    try:
        return ip_interface(gateway)
    except ValueError as error:
        raise BridgeError(f"gateway {gateway!r} is not an address with a prefix length: {error}") from error
