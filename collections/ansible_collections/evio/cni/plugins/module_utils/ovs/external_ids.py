# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""By what our bridges and ports are known: their external_ids in Open vSwitch, their names and their MACs.

Pure, and without an import that a plugin's call would have to wait for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.attachment import Attachment

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
REMOVED_PORT_ID = "evio-closed-"
"""Of a bridge, with the number of a port behind it that a DEL has unplugged, and the port's name as value: its flows,
which nothing matches any more, go with the next ADD, GC or repair, and the key after them. Waiting for vswitchd to take
a device off would double the time of a DEL."""


def external_ids(attachment: Attachment, mac: str) -> dict[str, str]:
    """By what a pod's port says whose it is from the first."""
    return {
        OWNER_ID: OWNER,
        CONTAINER_ID: attachment.container_id,
        IFNAME_ID: attachment.ifname,
        NETWORK_ID: attachment.network,
        INTERFACE_ID: f"{attachment.container_id}:{attachment.ifname}",
        MAC_ID: mac,
    }


def address_ids(addresses: list[str]) -> dict[str, str]:
    """What it says besides once IPAM has answered; addresses may have their prefix lengths."""
    return {ADDRESS_ID: ",".join(address.partition("/")[0] for address in addresses)}
