# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pod bridge as its network wants it, and mended: the rare path, with the room that makes bridges.

Whether it needs to be mended: ready_bridge.
"""

from __future__ import annotations

import sys

from .bridge_spec import BridgeSpec
from .cni_protocol import FAILED, INVALID_CONFIG, CniError
from .datapath import probe_datapath
from .errors import EvioError
from .journal import Journal, networks
from .netconf import NetConf
from .netns import has_interface
from .ownership import EPOCH_ID, OWNER, OWNER_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_MODULE = "datapathType: this kernel has no module openvswitch; netdev does without"


def mend(conf: NetConf) -> None:
    """Make the bridge as the network wants it. Raises CniError."""
    _refuse_bridge_of_another(conf)
    if conf.datapath_type == "system" and probe_datapath() != "system":
        raise CniError(FAILED, NO_MODULE)
    # The libraries that modules use are the host's own, which -S has hidden.
    sys.path.append("/usr/lib/python3/dist-packages")
    from .bridge import ensure_bridge

    try:
        ensure_bridge(bridge_of(conf), ovsdb=conf.ovsdb)
    except EvioError as error:
        raise CniError(FAILED, str(error)) from None


def _refuse_bridge_of_another(conf: NetConf) -> None:
    """Two networks may share a bridge, but not take each other's gateway from it."""
    for other in networks(conf.state_dir) if conf.gateways else ():
        journal = Journal(conf.state_dir, other)
        for attachment in journal.attachments() if other != conf.name else ():
            entry = journal.read(*attachment) or {}
            if entry.get("bridge") == conf.bridge and has_interface(journal.host_end_in(entry, *attachment)):
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
    epoch = {EPOCH_ID: str(conf.epoch)} if conf.epoch else {}
    return BridgeSpec(
        conf.bridge,
        tuple(conf.gateways),
        mtu=conf.mtu,
        datapath_type=conf.datapath_type,
        external_ids={OWNER_ID: OWNER, **epoch},
    )
