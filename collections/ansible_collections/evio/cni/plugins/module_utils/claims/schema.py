# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The keys and values of node subnets in etcd: what a claim, a pool and a released subnet look like there. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from ..subnets import Pool
from .model import _NODE_NAME, Claim, ClaimError, PoolConfig, Released

SCHEMA = 1


@dataclass(frozen=True)
class Keys:
    """The keys of one cluster."""

    cluster: str

    def __post_init__(self) -> None:
        if not _NODE_NAME.match(self.cluster):
            raise ClaimError(f"cluster {self.cluster!r} cannot be a key in etcd; use letters, digits, '-', '_' and '.'")

    @property
    def prefix(self) -> str:
        return f"/evio/{self.cluster}/"

    @property
    def pool(self) -> str:
        return self.prefix + "pool"

    @property
    def nodes(self) -> str:
        return self.prefix + "nodes/"

    @property
    def subnets(self) -> str:
        return self.prefix + "subnets/"

    @property
    def released(self) -> str:
        return self.prefix + "released/"

    def node(self, name: str) -> str:
        return self.nodes + name

    def subnet(self, cidr: str) -> str:
        return self.subnets + padded(ip_network(cidr).network_address)

    def release(self, cidr: str) -> str:
        return self.released + padded(ip_network(cidr).network_address)

    def places(self, pool: Pool, places: range) -> tuple[str, str]:
        """The first key of these places of a pool, and the first one behind them."""
        first = int(pool.network.network_address)
        shift = pool.network.max_prefixlen - pool.prefix_length
        address = type(pool.network.network_address)
        # "~" sorts behind every digit: the last place of an address family has no address behind it.
        last = padded(address(first + (places.stop << shift) - 1))
        return self.subnets + padded(address(first + (places.start << shift))), f"{self.subnets}{last}~"

    def place(self, pool: Pool, key: str) -> int:
        """The place of a subnet's key."""
        digits = key.removeprefix(self.subnets)
        number = 0
        if pool.family == 4:
            for octet in digits.split("."):
                number = number << 8 | int(octet)
        else:
            number = int(digits.replace(":", ""), 16)
        return (number - int(pool.network.network_address)) >> (pool.network.max_prefixlen - pool.prefix_length)


def padded(address: IPv4Address | IPv6Address) -> str:
    """The address with zeros in front: ``010.244.003.000``, or all 32 digits of an IPv6 address."""
    if address.version == 4:
        return ".".join(f"{octet:03d}" for octet in address.packed)
    return address.exploded


def encode_pool_config(shape: PoolConfig) -> str:
    return _dumps(
        {
            "v": SCHEMA,
            "pools": [{"pod_cidr": pool.pod_cidr, "node_bits": pool.node_bits} for pool in shape.pools],
            "reserved": list(shape.reserved),
            "pins": {node: list(cidrs) for node, cidrs in shape.pins.items()},
        }
    )


def encode_claim(claim: Claim) -> str:
    return _dumps({"machine_id": claim.machine_id, "cidrs": list(claim.cidrs), "claimed": claim.claimed})


def encode_subnet(cidr: str, claim: Claim) -> str:
    return _dumps({"cidr": cidr, "node": claim.node})


def encode_released(cidr: str, released: Released) -> str:
    return _dumps({"cidr": cidr, "node": released.node, "released": released.released})


def decode_pool_config(text: str) -> PoolConfig:
    value = _loads("pool", text)
    if value.get("v") != SCHEMA:
        raise ClaimError(f"the registry has schema {value.get('v')!r}, this version knows {SCHEMA}; upgrade evio.cni")
    return PoolConfig(
        tuple(Pool(str(pool["pod_cidr"]), int(pool["node_bits"])) for pool in value["pools"]),
        tuple(value.get("reserved", ())),
        {node: tuple(cidrs) for node, cidrs in value.get("pins", {}).items()},
    )


def decode_claim(node: str, text: str, epoch: int) -> Claim:
    value = _loads(f"nodes/{node}", text)
    return Claim(node, str(value["machine_id"]), tuple(value["cidrs"]), float(value["claimed"]), epoch)


def decode_released(key: str, text: str) -> tuple[str, Released]:
    value = _loads(key, text)
    return str(value["cidr"]), Released(str(value["node"]), float(value["released"]))


def decode_holder(key: str, text: str) -> tuple[str, str]:
    """A subnet, and the node that has it."""
    value = _loads(key, text)
    return str(value["cidr"]), str(value["node"])


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _loads(key: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ClaimError(f"the registry's key {key} holds no JSON: {text[:60]!r}") from error
    if not isinstance(value, dict):
        raise ClaimError(f"the registry's key {key} holds no object: {text[:60]!r}")
    return value
