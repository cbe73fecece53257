# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Repair the pod bridge where it is not as the configuration wants it. The check: setup_bridge.

How a bridge is made or changed: ovs/bridge, which is imported for a repair alone.
"""

from __future__ import annotations

import sys

from ..cidr import is_cidr
from ..cni.netconf import NetConf
from ..cni.spec import FAILED, INVALID_CONFIG, CniError
from ..deadline import seconds_left
from ..defaults import OVS_TIMEOUT
from ..errors import EvioError
from ..kernel.netns import has_interface
from ..ovs.external_ids import EPOCH_ID, OWNER, OWNER_ID
from ..ovs.jsonrpc import OvsdbClient, OvsdbError
from ..ovs.ports import switch_of
from ..paths import PYTHON_PACKAGES
from ..state.journal import Journal, networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..kernel.links import Link
    from ..kernel.rtnetlink import Netlink
    from ..ovs.bridge_spec import BridgeSpec

NO_MODULE = "datapathType: this kernel has no module openvswitch; netdev does without"
"""Message: ADD and STATUS refuse ``system`` then."""


def repaired_bridge(conf: NetConf, host: Netlink) -> Link:
    """Repair the bridge and return its device. Raises EvioError."""
    repair_bridge(conf)
    link = host.link(conf.bridge)
    if link is None:
        raise CniError(FAILED, f"the bridge {conf.bridge} was made and is gone again; does another program delete it?")
    return link


def is_borrowed(conf: NetConf) -> bool:
    """Return whether the bridge lacks our mark, and is to be left without it."""
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            lacks_mark = switch_of(ovsdb, conf.bridge).is_borrowed
    except OvsdbError:
        return False
    return lacks_mark and not _was_ours(conf)


def _was_ours(conf: NetConf) -> bool:
    """Return whether live pods of the network were attached when the bridge of this name had our mark.

    If it has none now, somebody has made the bridge anew in the place of ours.
    """
    journal = Journal(conf.state_dir)
    return any(
        entry.get("bridge") == conf.bridge
        and not entry.get("borrowed")
        and "ips" in entry
        and has_interface(journal.host_end_in(entry, attachment))
        for attachment in journal.attachments(conf.name)
        for entry in [journal.read(attachment) or {}]
    )


def repair_bridge(conf: NetConf) -> None:
    """Make the bridge, or change it to what the configuration wants. Raises CniError."""
    refuse_gateway_of_another_network(conf)
    # Rare; these imports take ten times as long as a whole ADD.
    from ..ovs.datapath import probe_datapath

    # Before Open vSwitch is asked: without the module it would wait for the device until its time is over.
    if conf.datapath_type == "system" and probe_datapath() != "system":
        raise CniError(FAILED, NO_MODULE)
    # The launcher's option -S keeps them out of sys.path.
    sys.path.append(PYTHON_PACKAGES)
    from ..ovs.bridge import ensure_bridge

    try:
        ensure_bridge(bridge_of(conf), ovsdb=conf.ovsdb, timeout=seconds_left(OVS_TIMEOUT))
    except EvioError as error:
        raise CniError(FAILED, str(error)) from None


def bridge_of(conf: NetConf) -> BridgeSpec:
    """Return the configuration's bridge, as ``ensure_bridge`` and ``compare_bridge`` take it."""
    # Rare, as above.
    from ..ovs.bridge_spec import BridgeSpec

    epoch = {EPOCH_ID: str(conf.epoch)} if conf.epoch else {}
    return BridgeSpec(
        conf.bridge,
        tuple(conf.gateways),
        mtu=conf.mtu,
        datapath_type=conf.datapath_type or _found_datapath(conf),
        external_ids={OWNER_ID: OWNER, **epoch},
        service_cidrs=_service_cidrs(conf),
        may_adopt=_was_ours(conf),
    )


def _service_cidrs(conf: NetConf) -> tuple[str, ...]:
    """Return the networks of the configuration's ``serviceCIDRs``. Raises CniError."""
    cidrs = conf.raw.get("serviceCIDRs") or []
    if not isinstance(cidrs, list) or not all(map(is_cidr, cidrs)):
        raise CniError(INVALID_CONFIG, f"serviceCIDRs: {cidrs!r} is not a list of networks in CIDR notation")
    return tuple(cidrs)


def _found_datapath(conf: NetConf) -> str:
    """Return the datapath type of the bridge, or of a new one on this kernel. Raises OvsdbError."""
    from ..ovs.datapath import probe_datapath

    with OvsdbClient(conf.ovsdb) as ovsdb:
        switch = switch_of(ovsdb, conf.bridge)
    if switch.external_ids is None:
        return probe_datapath()
    return switch.datapath_type or "system"


def refuse_gateway_of_another_network(conf: NetConf) -> None:
    """Raise CniError if live pods of another network have other gateways on this bridge.

    Networks may share a bridge; but the repair would take away gateways that the configuration does not have.
    """
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
