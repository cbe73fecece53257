# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the pod bridge is as its network wants it: looked at in microseconds, mended by bridge where it is not."""

from __future__ import annotations

from .cni_protocol import FAILED, INVALID_CONFIG, CniError
from .errors import EvioError
from .netns import has_interface
from .ownership import EPOCH_ID, OWNER, OWNER_ID, bridge_mac
from .rtnetlink import Link, Netlink, split_cidr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .bridge_spec import BridgeSpec
    from .netconf import NetConf
    from .ovsdb_rpc import Switch


def ready_bridge(conf: NetConf, host: Netlink, switch: Switch) -> Link:
    """The bridge, as the configuration wants it. Raises CniError."""
    link = host.link(conf.bridge)
    if switch.external_ids is None or link is None or not is_as_wanted(conf, host, link):
        _mend(conf)
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


def _mend(conf: NetConf) -> None:
    """The rare path, with the libraries that modules use: they are the host's own, which -S has hidden."""
    import sys

    _refuse_bridge_of_another(conf)

    sys.path.append("/usr/lib/python3/dist-packages")
    from .bridge import ensure_bridge

    try:
        ensure_bridge(bridge_of(conf), ovsdb=conf.ovsdb)
    except EvioError as error:
        raise CniError(FAILED, str(error)) from None


def _refuse_bridge_of_another(conf: NetConf) -> None:
    """Two networks may share a bridge, but not take each other's gateway from it."""
    from .journal import Journal, networks

    for other in networks(conf.state_dir) if conf.gateways else ():
        journal = Journal(conf.state_dir, other)
        for attachment in journal.attachments() if other != conf.name else ():
            entry = journal.read(*attachment) or {}
            if entry.get("bridge") == conf.bridge and has_interface(journal.host_end(*attachment)):
                gateways = _gateways_in(entry)
                if gateways and gateways != conf.gateways:
                    raise CniError(
                        INVALID_CONFIG,
                        f"gateway: the bridge {conf.bridge} is the gateway {', '.join(gateways)} of network {other}'s "
                        "pods; give this network a bridge of its own",
                    )


def _gateways_in(entry: dict[str, Any]) -> list[str]:
    from .netconf import NetConf

    try:
        return NetConf(entry["config"]).gateways
    except (CniError, KeyError, TypeError, AttributeError):
        return []


def bridge_of(conf: NetConf) -> BridgeSpec:
    """The bridge as the configuration wants it, for the room that makes bridges."""
    from .bridge_spec import BridgeSpec

    epoch = {EPOCH_ID: str(conf.epoch)} if conf.epoch else {}
    return BridgeSpec(
        conf.bridge,
        tuple(conf.gateways),
        mtu=conf.mtu,
        datapath_type=conf.datapath_type,
        external_ids={OWNER_ID: OWNER, **epoch},
    )
