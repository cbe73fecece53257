# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the pod bridge is as its network wants it: looked at by every ADD, mended by pod_bridge where it is not."""

from __future__ import annotations

from .addresses import split_cidr
from .cni_protocol import FAILED, CniError
from .ownership import bridge_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .links import Link
    from .netconf import NetConf
    from .rtnetlink import Netlink


def ready_bridge(conf: NetConf, host: Netlink) -> Link:
    """The bridge's device, as the configuration wants it. Raises CniError."""
    link = host.link(conf.bridge)
    return link if link is not None and is_as_wanted(conf, host, link) else mended_bridge(conf, host)


def mended_bridge(conf: NetConf, host: Netlink) -> Link:
    """The same after it was mended, whatever there was of it. Raises CniError."""
    from .pod_bridge import mend

    mend(conf)
    link = host.link(conf.bridge)
    if link is None:
        raise CniError(FAILED, f"the bridge {conf.bridge} has gone again; is another program at work on it?")
    return link


def is_as_wanted(conf: NetConf, host: Netlink, link: Link) -> bool:
    """Whether a bridge that is there is up, with its gateways, MTU and MAC."""
    if not link.is_up or (conf.mtu is not None and link.mtu != conf.mtu):
        return False
    if not conf.gateways:
        return True
    wanted = {split_cidr(gateway) for gateway in conf.gateways}
    fixed = bridge_mac(split_cidr(conf.gateways[0])[0])
    return link.mac == fixed and wanted <= host.addresses(link.index)
