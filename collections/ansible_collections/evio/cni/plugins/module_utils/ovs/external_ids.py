# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The keys that we write to and read from external_ids and other_config in Open vSwitch's database. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.attachment import Attachment

OWNER_ID = "evio-owner"

OWNER = "evio.cni"
"""Value of OWNER_ID on our bridges and ports. We remove nothing that lacks it."""

BORROWED_ID = "evio-gateways"
"""On a bridge of somebody else: the addresses that we have added to its device, separated by commas."""

RAISED_ID = "evio-set-up"
"""On a bridge of somebody else: ``true`` if we have set its device up, which was down."""

EPOCH_ID = "evio-epoch"
"""On a bridge: the fencing epoch of the node's claim on its subnet."""

REMOVED_PORT_ID = "evio-closed-"
"""On a bridge, followed by the OpenFlow number of a port that DEL has removed; the value is the port's name.

Its flows, which match no frame any more, and then this key are deleted by the next ADD, GC or repair. If DEL deleted
them, it would have to wait for vswitchd to release the port, which would double its time.
"""

CONTAINER_ID = "evio-container"

IFNAME_ID = "evio-ifname"

NETWORK_ID = "evio-network"

ADDRESS_ID = "evio-ip"

MAC_ID = "attached-mac"

INTERFACE_ID = "iface-id"

USERSPACE_TSO = "userspace-tso-enable"
"""In other_config of the table Open_vSwitch: segmentation offload in vswitchd's datapath (ovs-vswitchd.conf.db(5))."""


def external_ids(attachment: Attachment, mac: str) -> dict[str, str]:
    """Return the external_ids that a pod's port has from its creation on."""
    return {
        OWNER_ID: OWNER,
        CONTAINER_ID: attachment.container_id,
        IFNAME_ID: attachment.ifname,
        NETWORK_ID: attachment.network,
        INTERFACE_ID: f"{attachment.container_id}:{attachment.ifname}",
        MAC_ID: mac,
    }


def address_ids(addresses: list[str]) -> dict[str, str]:
    """Return the external_ids that a pod's port gets once IPAM has answered; prefix lengths are left out."""
    return {ADDRESS_ID: ",".join(address.partition("/")[0] for address in addresses)}
