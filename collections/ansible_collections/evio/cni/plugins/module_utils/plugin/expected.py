# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an attachment should be, as the result of its ADD or its journal entry says. Pure.

Whether it is so: findings.
"""

from __future__ import annotations

from ..cidr import DEFAULT_ROUTES, is_cidr
from ..cni.attachment import Attachment
from ..cni.interfaces import Interface, Interfaces
from ..cni.netconf import HOST_LOCAL, NetConf
from ..cni.spec import NOT_AS_ATTACHED, CniError
from ..state.result_cache import cached_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..state.attachments import JournalEntry

_MAIN_TABLE = (None, 0, 254)
"""Values of a route's ``table`` that mean the main table (linux/rtnetlink.h, RT_TABLE_UNSPEC and RT_TABLE_MAIN)."""


class ExpectedRoute:
    """A route of the main table; ``gateway`` is empty where the route has none, None where it is not known."""

    __slots__ = ("destination", "gateway")

    def __init__(self, destination: str, gateway: str | None) -> None:
        self.destination = destination
        """A network in CIDR notation."""
        self.gateway = gateway


class Expected:
    """What ADD made of one attachment.

    An interface's MAC that is empty and an MTU of 0 are not known. ``addresses`` are in CIDR notation.
    """

    __slots__ = ("addresses", "attachment", "interfaces", "routes")

    def __init__(
        self, attachment: Attachment, interfaces: Interfaces, addresses: list[str], routes: list[ExpectedRoute]
    ) -> None:
        self.attachment = attachment
        self.interfaces = interfaces
        self.addresses = addresses
        self.routes = routes

    @property
    def is_complete(self) -> bool:
        """Whether the pod's MAC and addresses are known: its port can be made from them."""
        return bool(self.interfaces.pod.mac and self.addresses)


def expected_by_result(conf: NetConf, attachment: Attachment, netns: str, host_end: str) -> Expected:
    """Read the configuration's ``prevResult``; ``netns`` and ``host_end`` tell which of its interfaces are ours.

    Raises CniError NOT_AS_ATTACHED where it does not describe the attachment.
    """
    previous = conf.previous or {}
    interfaces = list(previous.get("interfaces") or ())
    ours = [
        index
        for index, interface in enumerate(interfaces)
        if interface["name"] == attachment.ifname and interface.get("sandbox") == netns
    ]
    if len(ours) != 1:
        raise CniError(
            NOT_AS_ATTACHED, f"prevResult has {len(ours) or 'no'} interfaces {attachment.ifname} in {netns}, not one"
        )
    addresses = [ip["address"] for ip in previous.get("ips") or () if ip.get("interface") == ours[0]]
    if not addresses:
        raise CniError(NOT_AS_ATTACHED, f"prevResult has no address of {attachment.ifname}")
    return Expected(
        attachment,
        Interfaces(_on_host(interfaces, conf.bridge), _on_host(interfaces, host_end), _interface(interfaces[ours[0]])),
        addresses,
        [
            ExpectedRoute(route["dst"], route.get("gw") or "")
            for route in previous.get("routes") or ()
            if route.get("table") in _MAIN_TABLE
        ],
    )


def expected_by_entry(conf: NetConf, entry: JournalEntry) -> Expected:
    """Read the attachment's journal entry, which has no MTU and no routes: the configuration says which there are.

    The pod's MAC is that of the whole chain's result, where the runtime has it: a plugin after ours may change it.
    """
    mac = (cached_mac(entry.attachment, entry.netns) if entry.mac else None) or entry.mac
    interfaces = Interfaces(
        Interface(conf.bridge, "", 0),
        Interface(entry.host_end, "", 0),
        Interface(entry.attachment.ifname, mac, 0, entry.netns),
    )
    return Expected(entry.attachment, interfaces, list(entry.ips), list(_configured_routes(conf, entry)))


def _on_host(interfaces: list[dict[str, Any]], name: str) -> Interface:
    for interface in interfaces:
        if interface["name"] == name and not interface.get("sandbox"):
            return _interface(interface)
    raise CniError(NOT_AS_ATTACHED, f"prevResult has no interface {name} of the host")


def _interface(interface: dict[str, Any]) -> Interface:
    """Results have an MTU since CNI 1.1.0."""
    return Interface(
        interface["name"],
        (interface.get("mac") or "").lower(),
        interface.get("mtu") or 0,
        interface.get("sandbox") or "",
    )


def _configured_routes(conf: NetConf, entry: JournalEntry) -> Iterator[ExpectedRoute]:
    """Yield the default routes of families whose gateway is known, and the routes of host-local's configuration."""
    known = conf.gateways or (entry.ips if conf.ipam_type == HOST_LOCAL else ())
    for version, default in DEFAULT_ROUTES.items():
        if conf.is_default_gateway and all(
            any((":" in address) == (version == 6) for address in addresses) for addresses in (known, entry.ips)
        ):
            yield ExpectedRoute(default, None)
    routes = conf.raw["ipam"].get("routes") if conf.ipam_type == HOST_LOCAL else None
    for route in routes if isinstance(routes, list) else ():
        if isinstance(route, dict) and is_cidr(route.get("dst")):
            yield ExpectedRoute(route["dst"], None)
