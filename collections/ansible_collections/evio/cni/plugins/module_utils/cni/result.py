# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an ADD tells the runtime: made of IPAM's answer, of our interfaces, and of what came before us in the chain.

Pure, in the newest shape of the specification, and from that in older ones.
"""

from __future__ import annotations

from ..cidr import is_cidr, is_in, split_cidr
from .interfaces import Interfaces
from .spec import FAILED, ROUTE_NUMBERS, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .netconf import NetConf

_DEFAULT_ROUTE = {4: "0.0.0.0/0", 6: "::/0"}


def addresses_of(conf: NetConf, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod's addresses, as IPAM has given them, each with its gateway. Raises CniError for what makes no sense.

    The gateway is the bridge's own where its subnet has the address: IPAM may name another, which nobody has.
    """
    ips = []
    for ip in _list_of_objects(answer, "ips"):
        address = ip.get("address")
        if not is_cidr(address):
            raise _senseless("ips", ip)
        gateway = next(
            (one.partition("/")[0] for one in conf.gateways if is_in(split_cidr(address)[0], *split_cidr(one))),
            ip.get("gateway"),
        )
        if address.partition("/")[0] in [one.partition("/")[0] for one in conf.gateways]:
            raise CniError(FAILED, f"the IPAM plugin has given the pod {address}, the address of its gateway")
        ips.append({"interface": Interfaces.POD, "address": address, **({"gateway": gateway} if gateway else {})})
    if not ips:
        raise CniError(FAILED, "the IPAM plugin has given no address")
    return ips


def routes_of(conf: NetConf, answer: dict[str, Any], ips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """IPAM's routes, and the default route of each family that has an address and none yet. Raises CniError."""
    gateways = {_family(gateway): gateway.partition("/")[0] for gateway in conf.gateways}
    for ip in ips:
        if ip.get("gateway"):
            gateways[_family(ip["address"])] = ip["gateway"]
    routes = []
    for route in _list_of_objects(answer, "routes"):
        if not is_cidr(route.get("dst")) or not all(_is_number(route.get(key)) for key in ROUTE_NUMBERS):
            raise _senseless("routes", route)
        gateway = route.get("gw") or gateways.get(_family(route["dst"]))
        routes.append({**route, **({"gw": gateway} if gateway else {})})
    if conf.is_default_gateway:
        has = {_family(route["dst"]) for route in routes if route["dst"] in _DEFAULT_ROUTE.values()}
        for family in dict.fromkeys(_family(ip["address"]) for ip in ips):
            if family not in has and family in gateways:
                routes.append({"dst": _DEFAULT_ROUTE[family], "gw": gateways[family]})
    return routes


def result_of(
    conf: NetConf,
    interfaces: Interfaces,
    ips: list[dict[str, Any]],
    routes: list[dict[str, Any]],
    answer: dict[str, Any],
) -> dict[str, Any]:
    """Our result, after what plugins before us in the chain have made."""
    before = conf.previous or {}
    there = list(before.get("interfaces") or ())
    return {
        "interfaces": [*there, *(interface.to_json() for interface in interfaces)],
        "ips": [*(before.get("ips") or ()), *({**ip, "interface": ip["interface"] + len(there)} for ip in ips)],
        "routes": [*(before.get("routes") or ()), *routes],
        "dns": conf.dns or answer.get("dns") or before.get("dns") or {},
    }


def shape_result(result: dict[str, Any], cni_version: str) -> dict[str, Any]:
    """A result of the newest shape as an older version has it (SPEC.md section 6, and that of the version)."""
    shaped: dict[str, Any] = {"cniVersion": cni_version}
    shaped["interfaces"] = [_older(one, ("mtu", "socketPath", "pciID"), cni_version) for one in result["interfaces"]]
    shaped["ips"] = [dict(ip) for ip in result["ips"]]
    if cni_version < "1.0.0":
        for ip in shaped["ips"]:
            ip["version"] = "6" if ":" in ip["address"] else "4"
    shaped["routes"] = [_older(route, ROUTE_NUMBERS, cni_version) for route in result.get("routes", ())]
    if result.get("dns"):
        shaped["dns"] = result["dns"]
    return shaped


def _older(value: dict[str, Any], younger: tuple[str, ...], cni_version: str) -> dict[str, Any]:
    if cni_version >= "1.1.0":
        return dict(value)
    return {key: item for key, item in value.items() if key not in younger}


def _list_of_objects(answer: dict[str, Any], key: str) -> list[dict[str, Any]]:
    values = answer.get(key) or []
    if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
        raise _senseless(key, values)
    return values


def _is_number(value: object) -> bool:
    """Whether a route may say it: a number of the kernel's size, or nothing."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32)


def _senseless(key: str, value: object) -> CniError:
    return CniError(FAILED, f"the IPAM plugin's answer makes no sense: {key} has {value!r}")


def _family(address: str) -> int:
    return 6 if ":" in address else 4
