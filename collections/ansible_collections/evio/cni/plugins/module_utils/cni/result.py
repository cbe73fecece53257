# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The result of ADD (SPEC.md section 5, "Success"): made from IPAM's answer, our interfaces and prevResult.

Pure. Results have the format of the newest specification; ``shape_result`` turns them into that of an older one.
"""

from __future__ import annotations

from ..cidr import DEFAULT_ROUTES, ip_version, is_cidr, is_in, split_cidr
from .interfaces import Interfaces
from .spec import FAILED, ROUTE_NUMBERS, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .netconf import NetConf

_INTERFACE_KEYS_SINCE_1_1_0 = ("mtu", "socketPath", "pciID")


def addresses_of(conf: NetConf, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the result's ``ips``: the pod's addresses from IPAM's answer, each with its gateway.

    If the bridge has an address in the same subnet, that is the gateway, whatever IPAM says: nobody else answers there.
    Raises CniError for an answer that cannot be used.
    """
    ips = []
    own_addresses = [gateway.partition("/")[0] for gateway in conf.gateways]
    for ip in _objects(answer, "ips"):
        address = ip.get("address")
        if not is_cidr(address):
            raise _unusable_answer("ips", ip)
        if address.partition("/")[0] in own_addresses:
            raise CniError(FAILED, f"the IPAM plugin has given the pod {address}, the address of its gateway")
        packed, _length = split_cidr(address)
        near = (gateway.partition("/")[0] for gateway in conf.gateways if is_in(packed, *split_cidr(gateway)))
        gateway = next(near, ip.get("gateway"))
        ips.append({"interface": Interfaces.POD, "address": address, **({"gateway": gateway} if gateway else {})})
    if not ips:
        raise CniError(FAILED, "the IPAM plugin has given no address")
    return ips


def routes_of(conf: NetConf, answer: dict[str, Any], ips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the result's ``routes``: IPAM's, and with isDefaultGateway a default route for each family that lacks it.

    Raises CniError for an answer that cannot be used.
    """
    gateways = {ip_version(gateway): gateway.partition("/")[0] for gateway in conf.gateways}
    for ip in ips:
        if ip.get("gateway"):
            gateways[ip_version(ip["address"])] = ip["gateway"]
    routes = []
    for route in _objects(answer, "routes"):
        if not is_cidr(route.get("dst")) or not all(_is_route_number(route.get(key)) for key in ROUTE_NUMBERS):
            raise _unusable_answer("routes", route)
        gateway = route.get("gw") or gateways.get(ip_version(route["dst"]))
        routes.append({**route, **({"gw": gateway} if gateway else {})})
    if conf.is_default_gateway:
        has = {ip_version(route["dst"]) for route in routes if route["dst"] in DEFAULT_ROUTES.values()}
        for version in dict.fromkeys(ip_version(ip["address"]) for ip in ips):
            if version not in has and version in gateways:
                routes.append({"dst": DEFAULT_ROUTES[version], "gw": gateways[version]})
    return routes


def result_of(
    conf: NetConf,
    interfaces: Interfaces,
    ips: list[dict[str, Any]],
    routes: list[dict[str, Any]],
    answer: dict[str, Any],
) -> dict[str, Any]:
    """Return the result: what plugins before this one in the chain have made, then what this one has made."""
    before = conf.previous or {}
    earlier = list(before.get("interfaces") or ())
    return {
        "interfaces": [*earlier, *(interface.to_json() for interface in interfaces)],
        "ips": [*(before.get("ips") or ()), *({**ip, "interface": ip["interface"] + len(earlier)} for ip in ips)],
        "routes": [*(before.get("routes") or ()), *routes],
        "dns": conf.dns or answer.get("dns") or before.get("dns") or {},
    }


def shape_result(result: dict[str, Any], cni_version: str) -> dict[str, Any]:
    """Return a result in the format of this version of the specification."""
    has_all_keys = cni_version >= "1.1.0"
    shaped: dict[str, Any] = {"cniVersion": cni_version}
    shaped["interfaces"] = [
        dict(interface) if has_all_keys else _without(interface, _INTERFACE_KEYS_SINCE_1_1_0)
        for interface in result["interfaces"]
    ]
    shaped["ips"] = [dict(ip) for ip in result["ips"]]
    if cni_version < "1.0.0":
        for ip in shaped["ips"]:
            ip["version"] = str(ip_version(ip["address"]))
    shaped["routes"] = [
        dict(route) if has_all_keys else _without(route, ROUTE_NUMBERS) for route in result.get("routes", ())
    ]
    if result.get("dns"):
        shaped["dns"] = result["dns"]
    return shaped


def _objects(answer: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects in IPAM's answer; an empty list if the key is missing or null."""
    values = answer.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise _unusable_answer(key, values)
    return values


def _is_route_number(value: object) -> bool:
    """Return whether a route can have this number: an unsigned 32-bit integer, as in the kernel, or none."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32)


def _unusable_answer(key: str, value: object) -> CniError:
    return CniError(FAILED, f"the IPAM plugin's answer cannot be used: {key} has {value!r}")


def _without(value: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key not in keys}
