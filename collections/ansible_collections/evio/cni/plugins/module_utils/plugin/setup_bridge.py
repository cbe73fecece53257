# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the pod bridge is as its network wants it: looked at by every ADD, mended by pod_bridge where it is not.

The pod bridge as its network wants it, and mended: the rare path, with the room that makes bridges.

Whether it needs to be mended: setup_bridge.
"""

from __future__ import annotations

import sys

from ..cidr import split_cidr
from ..cni.netconf import NetConf
from ..cni.spec import FAILED, INVALID_CONFIG, CniError
from ..errors import EvioError
from ..kernel.netns import has_interface
from ..names import bridge_mac
from ..ovs.external_ids import EPOCH_ID, OWNER, OWNER_ID
from ..state.journal import Journal, networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.netconf import NetConf
    from ..kernel.rtnetlink import Link, Netlink
    from ..ovs.bridge_spec import BridgeSpec


def setup_bridge(conf: NetConf, host: Netlink) -> Link:
    """The bridge's device, as the configuration wants it. Raises CniError."""
    link = host.link(conf.bridge)
    return link if link is not None and is_as_wanted(conf, host, link) else repaired_bridge(conf, host)


def repaired_bridge(conf: NetConf, host: Netlink) -> Link:
    """The same after it was mended, whatever there was of it. Raises CniError."""
    repair_bridge(conf)
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


NO_MODULE = "datapathType: this kernel has no module openvswitch; netdev does without"


def repair_bridge(conf: NetConf) -> None:
    """Make the bridge as the network wants it. Raises CniError."""
    _refuse_bridge_of_another(conf)
    # The rare path: importing what makes bridges takes ten times as long as a whole ADD.
    from ..ovs.datapath import probe_datapath

    if conf.datapath_type == "system" and probe_datapath() != "system":
        raise CniError(FAILED, NO_MODULE)
    # The libraries that modules use are the host's own, which -S has hidden.
    sys.path.append("/usr/lib/python3/dist-packages")
    from ..ovs.bridge import ensure_bridge

    try:
        ensure_bridge(bridge_of(conf), ovsdb=conf.ovsdb)
    except EvioError as error:
        raise CniError(FAILED, str(error)) from None


def _refuse_bridge_of_another(conf: NetConf) -> None:
    """Two networks may share a bridge, but not take each other's gateway from it."""
    journal = Journal(conf.state_dir)
    for other in networks(conf.state_dir) if conf.gateways else ():
        for attachment in journal.attachments(other) if other != conf.name else ():
            entry = journal.read(attachment) or {}
            if entry.get("bridge") == conf.bridge and has_interface(journal.host_end_in(entry, attachment)):
                gateways = _gateways_in(entry)
                if gateways and gateways != conf.gateways:
                    raise CniError(
                        INVALID_CONFIG,
                        f"gateway: the bridge {conf.bridge} is the gateway {', '.join(gateways)} of network {other}'s "
                        "pods; give this network a bridge of its own",
                    )


def _gateways_in(entry: dict[str, Any]) -> list[str]:
    try:
        return NetConf(entry["config"]).gateways
    except (CniError, KeyError, TypeError, AttributeError):
        return []


def bridge_of(conf: NetConf) -> BridgeSpec:
    """The bridge as the configuration wants it, for the room that makes bridges."""
    from ..ovs.bridge_spec import BridgeSpec

    epoch = {EPOCH_ID: str(conf.epoch)} if conf.epoch else {}
    return BridgeSpec(
        conf.bridge,
        tuple(conf.gateways),
        mtu=conf.mtu,
        datapath_type=conf.datapath_type,
        external_ids={OWNER_ID: OWNER, **epoch},
    )
