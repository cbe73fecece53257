# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guarding a pod's port on its bridge: the flows of port_security put in, looked for and taken out by openflow."""

from __future__ import annotations

from .openflow import OpenFlow, OpenFlowError
from .port_security import cookie_of, flows_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .netconf import NetConf


def guard(conf: NetConf, name: str, ofport: int, mac: str, addresses: list[str]) -> None:
    """Let the port send only what is the pod's own; everything, where the network is without port security.

    ``name`` is that of the host's end, ``ofport`` its OpenFlow number. Raises OpenFlowError.
    """
    bridge = OpenFlow(conf.ovsdb, conf.bridge)
    try:
        bridge.replace(cookie_of(name), flows_of(ofport, mac, addresses) if conf.port_security else [])
    finally:
        bridge.close()


def is_guarded(conf: NetConf, name: str, ofport: int, mac: str, addresses: list[str]) -> bool:
    """Whether the port has as many flows as it shall. Raises OpenFlowError."""
    wanted = flows_of(ofport, mac, addresses) if conf.port_security else []
    bridge = OpenFlow(conf.ovsdb, conf.bridge)
    try:
        return bridge.count(cookie_of(name)) == len(wanted)
    finally:
        bridge.close()


def unguard(conf: NetConf, name: str) -> bool:
    """Take the port's flows out; False if they may still be there. A bridge that takes no calls has none any more."""
    try:
        bridge = OpenFlow(conf.ovsdb, conf.bridge)
    except OpenFlowError:
        return True
    try:
        bridge.replace(cookie_of(name), [])
    except OpenFlowError:
        return False
    finally:
        bridge.close()
    return True
