# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plugin's configuration: read from standard input, every value checked, with defaults for what is left out.

Pure, and without imports that a call would have to wait for. ``conflist`` writes the configuration.
"""

from __future__ import annotations

from _socket import inet_ntop

from .. import defaults, paths
from ..cidr import family, is_cidr, packed, split_cidr
from ..fast_json import loads
from ..mtu import LEAST_MTU, MOST_MTU
from ..names import DATAPATH_TYPES
from .spec import INVALID_CONFIG, UNDECODABLE, CniError, check_network_name, is_ifname, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOST_LOCAL = "host-local"
"""The IPAM plugin whose ranges and reservations are read as well; every other is only called."""

MOST_VLAN = 4094
"""IEEE 802.1Q: 4095 is reserved."""


def decode(text: bytes) -> dict[str, Any]:
    """Return the JSON object on standard input, unchecked. Raises CniError for anything else."""
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
    """Return the configuration's cniVersion; CNI 0.1.0, the first version, had no such key. Raises CniError."""
    return _text(raw, "cniVersion", "") or "0.1.0"


class NetConf:
    """One network's configuration. ``raw`` is all of it, as the IPAM plugin gets it."""

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
        "is_isolated",
        "mac",
        "mtu",
        "name",
        "ovsdb",
        "port_security",
        "previous",
        "raw",
        "state_dir",
        "trunks",
        "unusable",
        "vlan",
    )

    def __init__(self, raw: dict[str, Any]) -> None:
        """Raises CniError, whose message begins with the key and the value that cannot be used."""
        self.raw = raw
        self.unusable: tuple[str, ...] = ()
        self.cni_version = version_of(raw)
        self.name = _text(raw, "name", "")
        check_network_name(self.name)
        self.bridge = _bridge(raw)
        self.ipam_type = _ipam_type(raw)
        self.is_default_gateway = _flag(raw, "isDefaultGateway", False)
        self.gateways = _gateways(raw)
        if (self.is_default_gateway or _flag(raw, "isGateway", False)) and not self.gateways:
            self.gateways = _gateways_of_ranges(raw)
        self.ip_masq = _flag(raw, "ipMasq" if "ipMasq" in raw else "isIPMasq", False)
        self.cluster_cidrs = _cidrs(raw, "clusterCIDRs")
        # Empty where the configuration leaves it to the bridge.
        self.datapath_type = _text(raw, "datapathType", "")
        if self.datapath_type and self.datapath_type not in DATAPATH_TYPES:
            raise CniError(INVALID_CONFIG, f"datapathType: {self.datapath_type!r} is neither system nor netdev")
        self.mtu = _mtu(raw, MOST_MTU[self.datapath_type or defaults.DATAPATH_TYPE])
        self.ovsdb = _text(raw, "ovsdb", paths.OVSDB)
        if not self.ovsdb.startswith("unix:/"):
            raise CniError(
                INVALID_CONFIG,
                f"ovsdb: {self.ovsdb!r} is not the path of a socket, as in unix:/run/openvswitch/db.sock",
            )
        self.state_dir = _text(raw, "stateDir", paths.STATE_DIR)
        if not self.state_dir.startswith("/"):
            raise CniError(INVALID_CONFIG, f"stateDir: {self.state_dir!r} is not an absolute path")
        self.port_security = _flag(raw, "portSecurity", True)
        self.vlan = _vlan(raw)
        self.trunks = _trunks(raw)
        self.is_isolated = _flag(raw, "portIsolation", False)
        self.epoch = _epoch(raw)
        self.dns = _object(raw, "dns")
        self.mac = _mac(raw)
        self.previous = _previous(raw)


def conf_for_removal(raw: dict[str, Any]) -> NetConf | None:
    """Return the configuration with only the keys that DEL needs, or None without a valid name: no ADD accepted that.

    A key that makes an ADD fail, or that somebody has made invalid since the ADD, must not keep a pod from being
    removed. Keys that DEL needs and cannot use are named in ``unusable`` and have their defaults; then ``ipam_type``
    may be empty.
    """
    needed = {key: raw[key] for key in _FOR_REMOVAL if key in raw}
    try:
        conf = NetConf(needed)
        unusable: list[str] = []
    except CniError:
        unusable = [key for key in _FOR_REMOVAL[1:] if not _is_usable(raw, key)]
        try:
            conf = NetConf({"ipam": _NO_IPAM, **{key: needed[key] for key in needed if key not in unusable}})
        except CniError:
            return None
        conf.unusable = tuple(unusable)
    if "ipam" in unusable:
        conf.ipam_type = ""
    # The IPAM plugin gets all keys, except invalid ones at which it would fail.
    objects = ("args", "runtimeConfig")
    conf.raw = {key: value for key, value in raw.items() if key not in objects or isinstance(value, dict)}
    if "cniVersion" in unusable:
        conf.raw["cniVersion"] = "1.0.0"
    return conf


_FOR_REMOVAL = ("name", "cniVersion", "ovsdb", "stateDir", "portSecurity", "ipam")

_NO_IPAM = {"type": "none"}


def _is_usable(raw: dict[str, Any], key: str) -> bool:
    try:
        NetConf({"name": "any", "ipam": _NO_IPAM, key: raw.get(key)})
    except CniError:
        return False
    return True


def range_sets(raw: dict[str, Any]) -> list[Any]:
    """Return the range sets of host-local, in its order: the runtime's, the single ``subnet``, then ``ranges``."""
    ipam, asked = raw["ipam"], (raw.get("runtimeConfig") or {}).get("ipRanges")
    return [*(asked or []), *([[ipam]] if ipam.get("subnet") else []), *(ipam.get("ranges") or [])]


def _bridge(raw: dict[str, Any]) -> str:
    bridge = _text(raw, "bridge", defaults.BRIDGE)
    if not is_ifname(bridge) or not is_name(bridge):
        raise CniError(INVALID_CONFIG, f"bridge: {bridge!r} is not the name of a bridge")
    return bridge


def _ipam_type(raw: dict[str, Any]) -> str:
    ipam = raw.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    if not isinstance(kind, str) or not is_name(kind):
        raise CniError(INVALID_CONFIG, f"ipam.type: {kind!r} is not the name of an IPAM plugin")
    return kind


def _gateways(raw: dict[str, Any]) -> list[str]:
    """Return the bridge's addresses, at most one of each family."""
    key = "gateway" if "gateway" in raw else "bridgeIPv4"
    gateways = _cidrs(raw, key)
    if len({family(gateway) for gateway in gateways}) != len(gateways):
        raise CniError(INVALID_CONFIG, f"{key}: {gateways!r} are more than one of a family")
    for gateway in gateways:
        address, length = split_cidr(gateway)
        host_bits = len(address) * 8 - length
        if host_bits > 1 and int.from_bytes(address, "big") & ((1 << host_bits) - 1) == 0:
            raise CniError(INVALID_CONFIG, f"{key}: {gateway!r} is a network, not the address of a gateway in it")
    return gateways


def _gateways_of_ranges(raw: dict[str, Any]) -> list[str]:
    """Return the gateways that host-local tells the pods: a range's ``gateway``, or its subnet's first host address."""
    gateways: dict[int, str] = {}
    try:
        for ranges in range_sets(raw):
            network, _slash, length = ranges[0]["subnet"].partition("/")
            subnet = packed(network)
            first = (int.from_bytes(subnet, "big") + 1).to_bytes(len(subnet), "big")
            address = ranges[0].get("gateway") or inet_ntop(family(network), first)
            gateways.setdefault(family(network), f"{address}/{length}")
    except (AttributeError, IndexError, KeyError, OSError, OverflowError, TypeError):
        gateways.clear()
    if not gateways:
        raise CniError(
            INVALID_CONFIG, "gateway: missing; isGateway and isDefaultGateway need it, or ranges of host-local"
        )
    return _cidrs({"ipam.ranges": list(gateways.values())}, "ipam.ranges")


def _mtu(raw: dict[str, Any], most: int) -> int | None:
    mtu = raw.get("mtu")
    if mtu is None:
        return None
    least = LEAST_MTU[4]
    if not _is_integer(mtu) or (mtu != 0 and not least <= mtu <= most):
        raise CniError(INVALID_CONFIG, f"mtu: {mtu!r} is not between {least} and {most} bytes")
    return mtu or None


def _vlan(raw: dict[str, Any]) -> int | None:
    """Return the VLAN of the pods' ports; None without one, as 0 also says."""
    vlan = raw.get("vlan")
    if vlan is None or (_is_integer(vlan) and vlan == 0):
        return None
    return _vlan_id("vlan", vlan)


def _trunks(raw: dict[str, Any]) -> tuple[int, ...]:
    """Return the VLANs whose tagged frames the pods' ports carry, sorted; empty without ``vlanTrunk``.

    Each item of the list has an ``id``, or a ``minID`` and a ``maxID``. ``trunk`` is ovs-cni's name of the key.
    """
    if raw.get("vlanTrunk") and raw.get("trunk"):
        raise CniError(INVALID_CONFIG, "trunk: the configuration has vlanTrunk too; give one of them")
    key = "vlanTrunk" if raw.get("vlanTrunk") else "trunk"
    items = raw.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise CniError(INVALID_CONFIG, f"{key}: {items!r} is not a list of objects")
    found: set[int] = set()
    for item in items:
        vlan, first, last = item.get("id"), item.get("minID"), item.get("maxID")
        if (first is None) != (last is None) or (vlan is None and first is None):
            raise CniError(INVALID_CONFIG, f"{key}: {item!r} has neither an id nor a minID and a maxID")
        if vlan is not None:
            found.add(_vlan_id(key, vlan))
        if first is not None:
            found.update(range(_vlan_id(key, first), _vlan_id(key, last) + 1))
            if first > last:
                raise CniError(INVALID_CONFIG, f"{key}: minID {first} is greater than maxID {last}")
    return tuple(sorted(found))


def _vlan_id(key: str, value: Any) -> int:
    if not _is_integer(value) or not 1 <= value <= MOST_VLAN:
        raise CniError(INVALID_CONFIG, f"{key}: {value!r} is not the number of a VLAN, 1 to {MOST_VLAN}")
    return int(value)


def _epoch(raw: dict[str, Any]) -> int:
    epoch: int = 0 if raw.get("epoch") is None else raw["epoch"]
    if not _is_integer(epoch):
        raise CniError(INVALID_CONFIG, f"epoch: {epoch!r} is not a whole number")
    return epoch


def _mac(raw: dict[str, Any]) -> str | None:
    """Return the MAC that the runtime asks for: ``runtimeConfig`` overrides ``args.cni`` (CONVENTIONS.md)."""
    for source in (_object(raw, "runtimeConfig"), _object(_object(raw, "args"), "cni")):
        if mac := _text(source, "mac", ""):
            return mac
    return None


def _previous(raw: dict[str, Any]) -> dict[str, Any] | None:
    """Return prevResult: the result of the plugins before this one in the chain, or after ADD the result of ADD."""
    if raw.get("prevResult") is None:
        return None
    previous = _object(raw, "prevResult")
    # Of each list, the string that its objects must have, and one that they may have.
    for key, needed, other in (("interfaces", "name", "mac"), ("ips", "address", "gateway"), ("routes", "dst", "gw")):
        values = previous.get(key) or []
        if not isinstance(values, list) or not all(isinstance(value, dict) and needed in value for value in values):
            raise CniError(
                INVALID_CONFIG, f"prevResult.{key}: {values!r} is not a list of objects, each with its {needed}"
            )
        for value in values:
            text = _text(value, needed, "")
            _text(value, other, "")
            if needed != "name" and not is_cidr(text):
                raise CniError(INVALID_CONFIG, f"prevResult.{key}: {text!r} is not an address with a prefix length")
    _object(previous, "dns")
    return previous


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


def _flag(raw: dict[str, Any], key: str, default: bool) -> bool:
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CniError(INVALID_CONFIG, f"{key}: {value!r} is neither true nor false")
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _cidrs(raw: dict[str, Any], key: str) -> list[str]:
    """Return one or more addresses with prefix lengths; none if the key is missing, null or an empty string."""
    value = raw.get(key)
    if value is None or value == "":
        return []
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(cidr, str) for cidr in values):
        raise CniError(INVALID_CONFIG, f"{key}: {value!r} is neither a string nor a list of strings")
    for cidr in values:
        if not is_cidr(cidr):
            raise CniError(INVALID_CONFIG, f"{key}: {cidr!r} is not an address with a prefix length")
    return values
