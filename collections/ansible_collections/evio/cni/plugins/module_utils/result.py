# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an ADD tells the runtime: made of IPAM's answer, of our interfaces, and of what came before us in the chain.

Pure, in the newest shape of the specification; cni_protocol has it in older ones.
"""

from __future__ import annotations

from .cni_protocol import FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .netconf import NetConf

_DEFAULT_ROUTE = {4: "0.0.0.0/0", 6: "::/0"}


def addresses_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod's addresses, as IPAM has given them. Raises CniError where there is none."""
    ips = answer.get("ips")
    if not isinstance(ips, list) or not ips:
        raise CniError(FAILED, "the IPAM plugin has given no address")
    return [
        {"interface": 2, "address": ip["address"], **({"gateway": ip["gateway"]} if ip.get("gateway") else {})}
        for ip in ips
    ]


def routes_of(conf: NetConf, answer: dict[str, Any], ips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """IPAM's routes, and the default route of each family that has an address and none yet."""
    gateways = {_family(gateway): gateway.partition("/")[0] for gateway in conf.gateways}
    for ip in ips:
        if ip.get("gateway"):
            gateways[_family(ip["address"])] = ip["gateway"]
    routes = []
    for route in answer.get("routes") or ():
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
    interfaces: list[dict[str, Any]],
    ips: list[dict[str, Any]],
    routes: list[dict[str, Any]],
    answer: dict[str, Any],
) -> dict[str, Any]:
    """Our result, after what plugins before us in the chain have made."""
    before = conf.previous or {}
    there = list(before.get("interfaces") or ())
    return {
        "interfaces": [*there, *interfaces],
        "ips": [*(before.get("ips") or ()), *({**ip, "interface": ip["interface"] + len(there)} for ip in ips)],
        "routes": [*(before.get("routes") or ()), *routes],
        "dns": conf.dns or answer.get("dns") or before.get("dns") or {},
    }


def _family(address: str) -> int:
    return 6 if ":" in address else 4
