# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plugin's own configuration: its entry of the conflist as a runtime hands it over, checked and with defaults.

Pure, and without an import that a plugin's call would have to wait for. How the entry is written: conflist.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from .. import paths
from ..cidr import is_cidr
from ..fast_json import loads
from ..mtu import MOST_MTU
from .spec import INVALID_CONFIG, UNDECODABLE, CniError, check_network_name, is_ifname, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NetConf:
    """One network's configuration; ``raw`` is all of it, as the IPAM plugin gets it."""

    __slots__ = (
        "bridge",
        "cluster_cidrs",
        "cni_version",
        "datapath_type",
        "dns",
        "epoch",
        "gateways",
        "ip_masq",
        "ipam_type",
        "is_default_gateway",
        "mac",
        "mtu",
        "name",
        "ovsdb",
        "port_security",
        "previous",
        "raw",
        "state_dir",
    )

    def __init__(self, raw: dict[str, Any]) -> None:
        """Raises CniError that names the key and the value."""
        self.raw = raw
        self.cni_version = version_of(raw)
        self.name = _text(raw, "name", "")
        check_network_name(self.name)
        self.bridge = _text(raw, "bridge", "br-evio")
        if not is_ifname(self.bridge) or not is_name(self.bridge):
            raise CniError(INVALID_CONFIG, f"bridge: {self.bridge!r} is not the name of a bridge")
        self.ipam_type = _ipam_type(raw)
        self.gateways = _gateways(raw)
        self.is_default_gateway = _flag(raw, "isDefaultGateway", False)
        if (self.is_default_gateway or _flag(raw, "isGateway", False)) and not self.gateways:
            self.gateways = _gateways_of_ranges(raw)
        self.ip_masq = _flag(raw, "ipMasq" if "ipMasq" in raw else "isIPMasq", False)
        self.cluster_cidrs = _cidrs(raw, "clusterCIDRs")
        self.datapath_type = _text(raw, "datapathType", "system")
        if self.datapath_type not in MOST_MTU:
            raise CniError(INVALID_CONFIG, f"datapathType: {self.datapath_type!r} is neither system nor netdev")
        self.mtu = _mtu(raw, MOST_MTU[self.datapath_type])
        self.ovsdb = _text(raw, "ovsdb", paths.OVSDB)
        self.state_dir = _text(raw, "stateDir", paths.STATE_DIR)
        if not self.ovsdb.startswith("unix:/"):
            raise CniError(
                INVALID_CONFIG,
                f"ovsdb: {self.ovsdb!r} is not the path of a socket, as in unix:/run/openvswitch/db.sock",
            )
        if not self.state_dir.startswith("/"):
            raise CniError(INVALID_CONFIG, f"stateDir: {self.state_dir!r} is not an absolute path")
        self.port_security = _flag(raw, "portSecurity", True)
        self.epoch = _epoch(raw)
        self.dns = _object(raw, "dns")
        self.mac = _mac(raw)
        self.previous = _previous(raw)


def conf_for_removal(raw: dict[str, Any]) -> NetConf:
    """As far as DEL needs it: a pod must not stay because something else was made wrong since its ADD."""
    needed = ("cniVersion", "name", "ovsdb", "stateDir", "portSecurity", "ipam")
    conf = NetConf({key: raw[key] for key in needed if key in raw})
    # What the IPAM plugin gets: all of it, but for what it would stumble over itself.
    objects = ("args", "runtimeConfig")
    conf.raw = {key: value for key, value in raw.items() if key not in objects or isinstance(value, dict)}
    return conf


def range_sets(raw: dict[str, Any]) -> list[Any]:
    """host-local's, as it puts them together: the runtime's, the one of before there were sets, and the sets."""
    ipam, asked = raw["ipam"], (raw.get("runtimeConfig") or {}).get("ipRanges")
    return [*(asked or []), *([[ipam]] if ipam.get("subnet") else []), *(ipam.get("ranges") or [])]


def decode(text: bytes) -> dict[str, Any]:
    """What is on standard input, as it is. Raises CniError for what is no JSON object."""
    try:
        raw = loads(text.decode())
    except UnicodeDecodeError as error:
        raise CniError(UNDECODABLE, "the configuration on standard input is no UTF-8", str(error)) from None
    except ValueError as error:
        raise CniError(UNDECODABLE, "the configuration on standard input is no JSON", str(error)) from None
    if not isinstance(raw, dict):
        raise CniError(UNDECODABLE, "the configuration on standard input is no JSON object")
    return raw


def version_of(raw: dict[str, Any]) -> str:
    """The configuration's version of the specification: before 0.2.0 there was no key for it. Raises CniError."""
    return _text(raw, "cniVersion", "") or "0.1.0"


def _ipam_type(raw: dict[str, Any]) -> str:
    ipam = raw.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    if not isinstance(kind, str) or not is_name(kind):
        raise CniError(INVALID_CONFIG, f"ipam.type: {kind!r} is not the name of an IPAM plugin")
    return kind


def _mtu(raw: dict[str, Any], most: int) -> int | None:
    mtu = raw.get("mtu")
    if mtu is None:
        return None
    if not _is_integer(mtu) or (mtu != 0 and not 68 <= mtu <= most):
        raise CniError(INVALID_CONFIG, f"mtu: {mtu!r} is not between 68 and {most} bytes")
    return mtu or None


def _epoch(raw: dict[str, Any]) -> int:
    epoch: int = 0 if raw.get("epoch") is None else raw["epoch"]
    if not _is_integer(epoch):
        raise CniError(INVALID_CONFIG, f"epoch: {epoch!r} is not a whole number")
    return epoch


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _mac(raw: dict[str, Any]) -> str | None:
    """What is asked for in the configuration; ``runtimeConfig`` over ``args.cni`` (CONVENTIONS.md)."""
    for place in (_object(raw, "runtimeConfig"), _object(_object(raw, "args"), "cni")):
        if mac := _text(place, "mac", ""):
            return mac
    return None


def _previous(raw: dict[str, Any]) -> dict[str, Any] | None:
    """The result of the plugins before us, or of our own ADD: of the shape that its readers count on."""
    if raw.get("prevResult") is None:
        return None
    previous = _object(raw, "prevResult")
    for key, needed, other in (("interfaces", "name", "mac"), ("ips", "address", "gateway"), ("routes", "dst", "gw")):
        values = previous.get(key) or []
        if not isinstance(values, list) or not all(isinstance(one, dict) and needed in one for one in values):
            raise CniError(
                INVALID_CONFIG, f"prevResult.{key}: {values!r} is not a list of objects, each with its {needed}"
            )
        for one in values:
            text = _text(one, needed, "")
            _text(one, other, "")
            if needed != "name" and not is_cidr(text):
                raise CniError(INVALID_CONFIG, f"prevResult.{key}: {text!r} is not an address with a prefix length")
    _object(previous, "dns")
    return previous


def _gateways(raw: dict[str, Any]) -> list[str]:
    """The bridge's addresses, one a family at most."""
    key = "gateway" if "gateway" in raw else "bridgeIPv4"
    gateways = _cidrs(raw, key)
    if len({":" in gateway for gateway in gateways}) != len(gateways):
        raise CniError(INVALID_CONFIG, f"{key}: {gateways!r} are more than one of a family")
    for gateway in gateways:
        address, _slash, length = gateway.partition("/")
        packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
        hosts = len(packed) * 8 - int(length)
        if hosts > 1 and int.from_bytes(packed, "big") & ((1 << hosts) - 1) == 0:
            raise CniError(INVALID_CONFIG, f"{key}: {gateway!r} is a network, not the address of a gateway in it")
    return gateways


def _gateways_of_ranges(raw: dict[str, Any]) -> list[str]:
    """Those that host-local names to the pods: a range's own, or the first address of its subnet."""
    gateways: dict[bool, str] = {}
    try:
        for one in (ranges[0] for ranges in range_sets(raw)):
            network, _slash, length = one["subnet"].partition("/")
            family = AF_INET6 if ":" in network else AF_INET
            first = int.from_bytes(inet_pton(family, network), "big") + 1
            address = one.get("gateway") or inet_ntop(family, first.to_bytes(16 if family == AF_INET6 else 4, "big"))
            gateways.setdefault(family == AF_INET6, f"{address}/{length}")
    except (AttributeError, IndexError, KeyError, OSError, OverflowError, TypeError):
        gateways.clear()
    if not gateways:
        raise CniError(
            INVALID_CONFIG, "gateway: missing; isGateway and isDefaultGateway need it, or ranges of host-local"
        )
    return _cidrs({"ipam.ranges": list(gateways.values())}, "ipam.ranges")


def _object(raw: dict[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CniError(INVALID_CONFIG, f"{key}: {value!r} is not an object")
    return value


def _text(raw: dict[str, Any], key: str, default: str) -> str:
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise CniError(INVALID_CONFIG, f"{key}: {value!r} is not a string")
    return value


def _cidrs(raw: dict[str, Any], key: str) -> list[str]:
    """One or more addresses with their prefix lengths; none where the key is missing, null or empty."""
    value = raw.get(key)
    values = [value] if isinstance(value, str) else value
    if value is None or value == "":
        return []
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise CniError(INVALID_CONFIG, f"{key}: {value!r} is neither a string nor a list of strings")
    for one in values:
        if not is_cidr(one):
            raise CniError(INVALID_CONFIG, f"{key}: {one!r} is not an address with a prefix length")
    return values


def _flag(raw: dict[str, Any], key: str, default: bool) -> bool:
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CniError(INVALID_CONFIG, f"{key}: {value!r} is neither true nor false")
    return value
