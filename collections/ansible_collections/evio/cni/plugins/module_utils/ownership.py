# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""By what our bridges and ports are known: their external_ids in Open vSwitch, their names and their MACs.

Pure, and without an import that a plugin's call would have to wait for.
"""

from __future__ import annotations

OWNER_ID = "evio-owner"
OWNER = "evio.cni"
"""Only what carries OWNER_ID with this value is ever removed."""

EPOCH_ID = "evio-epoch"
CONTAINER_ID = "evio-container"
IFNAME_ID = "evio-ifname"
NETWORK_ID = "evio-network"
ADDRESS_ID = "evio-ip"
MAC_ID = "attached-mac"
INTERFACE_ID = "iface-id"

CLOSED_PORT_ID = "evio-closed-"
"""Of a bridge, with the number of a port behind it that a DEL has unplugged, and the port's name as value: its flows,
which nothing matches any more, go with the next ADD, GC or repair, and the key after them. Waiting for vswitchd to take
a device off would double the time of a DEL."""

HOST_IFNAME = "evpod"
"""How the host's ends of all attachments begin, and no other interface of ours does."""


def bridge_mac(gateway: bytes) -> str:
    """A locally administered MAC that follows from the packed gateway: its IPv4 address, or the end of its IPv6 one."""
    prefix = b"\x0a\x58" if len(gateway) == 4 else b"\x0a\x56"
    return (prefix + gateway[-4:]).hex(":")


def host_ifname(network: str, container_id: str, ifname: str) -> str:
    """The host's end of an attachment, 15 characters: it follows from what every DEL knows."""
    return HOST_IFNAME + short_hash(f"{network}/{container_id}:{ifname}")[:10]


def external_ids(container_id: str, ifname: str, network: str, mac: str) -> dict[str, str]:
    """By what a pod's port says whose it is from the first."""
    return {
        OWNER_ID: OWNER,
        CONTAINER_ID: container_id,
        IFNAME_ID: ifname,
        NETWORK_ID: network,
        INTERFACE_ID: f"{container_id}:{ifname}",
        MAC_ID: mac,
    }


def address_ids(addresses: list[str]) -> dict[str, str]:
    """What it says besides once IPAM has answered; addresses may have their prefix lengths."""
    return {ADDRESS_ID: ",".join(address.partition("/")[0] for address in addresses)}


def short_hash(content: str) -> str:
    """44 bits of the content's SHA-1, as 11 digits: to tell names apart, not to keep anybody out."""
    try:
        from _sha1 import sha1  # type: ignore[import-not-found]  # private, and much quicker to import than hashlib
    except ImportError:
        from hashlib import sha1
    digest: str = sha1(content.encode()).hexdigest()
    return digest[:11]
