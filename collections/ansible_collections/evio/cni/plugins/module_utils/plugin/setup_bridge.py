# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pod bridge as the configuration wants it: checked by every ADD in microseconds. Its repair: repair_bridge."""

from __future__ import annotations

from ..cidr import split_cidr
from ..names import bridge_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.netconf import NetConf
    from ..kernel.links import Link
    from ..kernel.rtnetlink import Netlink


def setup_bridge(conf: NetConf, host: Netlink) -> Link:
    """Return the bridge's device, repaired if it was not as the configuration wants it. Raises EvioError."""
    link = host.link(conf.bridge)
    if link is not None and is_as_wanted(conf, host, link):
        return link
    # Only a bridge that is not as wanted needs it.
    from .repair_bridge import repaired_bridge

    return repaired_bridge(conf, host)


def is_as_wanted(conf: NetConf, host: Netlink, link: Link) -> bool:
    """Return whether the bridge's device is up, with its MTU, its gateways and the MAC that follows from the first.

    Somebody else's bridge keeps its own MAC. Without gateways, it may be down: Open vSwitch forwards all the same.
    """
    if conf.mtu is not None and link.mtu != conf.mtu:
        return False
    if not conf.gateways:
        return link.is_up or _is_borrowed(conf)
    if not link.is_up:
        return False
    gateways = {split_cidr(gateway) for gateway in conf.gateways}
    mac = bridge_mac(split_cidr(conf.gateways[0])[0])
    if not gateways <= host.addresses(link.index):
        return False
    return link.mac == mac or _is_borrowed(conf)


def _is_borrowed(conf: NetConf) -> bool:
    # Few bridges are looked at so closely.
    from .repair_bridge import is_borrowed

    return is_borrowed(conf)
