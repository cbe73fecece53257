# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The registry's keys and values in etcd. Pure: ``registry`` reads and writes them.

Below ``/evio/<cluster>/``: ``pool`` holds the pool configuration, ``nodes/<name>`` a node's claim,
``subnets/<address>`` the owner of a subnet, and ``released/<address>`` the last owner of a subnet that is not claimed.
Addresses are padded with zeros, so the order of keys is the order of subnets: a range of keys is a range of subnets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from ..names import is_node_name
from ..subnets import Pool
from .model import Claim, ClaimError, PoolConfig, Released

SCHEMA = 1
"""Version of the layout described above; stored in the key ``pool``."""


@dataclass(frozen=True)
class Keys:
    """The keys of one cluster. Raises ClaimError for a name that cannot be part of a key."""

    cluster: str

    def __post_init__(self) -> None:
        if not is_node_name(self.cluster):
            raise ClaimError(f"cluster {self.cluster!r} cannot be a key in etcd; use letters, digits, '-', '_' and '.'")

    @property
    def prefix(self) -> str:
        """The beginning of all of the cluster's keys."""
        return f"/evio/{self.cluster}/"

    @property
    def pool(self) -> str:
        """The key of the pool configuration."""
        return self.prefix + "pool"

    @property
    def nodes(self) -> str:
        """The beginning of the keys of all claims."""
        return self.prefix + "nodes/"

    @property
    def subnets(self) -> str:
        """The beginning of the keys of all claimed subnets."""
        return self.prefix + "subnets/"

    @property
    def released(self) -> str:
        """The beginning of the keys of all released subnets."""
        return self.prefix + "released/"

    def node(self, name: str) -> str:
        """Return the key of a node's claim."""
        return self.nodes + name

    def subnet(self, cidr: str) -> str:
        """Return the key that a subnet has while it is claimed."""
        return self.subnets + padded(ip_network(cidr).network_address)

    def release(self, cidr: str) -> str:
        """Return the key that a subnet has after its release."""
        return self.released + padded(ip_network(cidr).network_address)

    def places(self, pool: Pool, places: range) -> tuple[str, str]:
        """Return the range of keys of the pool's subnets at these indexes: its first key, and the end it excludes."""
        first = int(pool.network.network_address)
        shift = pool.network.max_prefixlen - pool.prefix_length
        address = type(pool.network.network_address)
        # "~" sorts after every digit: no address follows the last subnet of an address family.
        last = padded(address(first + (places.stop << shift) - 1))
        return self.subnets + padded(address(first + (places.start << shift))), f"{self.subnets}{last}~"

    def place(self, pool: Pool, key: str) -> int:
        """Return the index in the pool of the subnet with this key; the inverse of ``subnet``."""
        digits = key.removeprefix(self.subnets)
        number = 0
        if pool.family == 4:
            for octet in digits.split("."):
                number = number << 8 | int(octet)
        else:
            number = int(digits.replace(":", ""), 16)
        return (number - int(pool.network.network_address)) >> (pool.network.max_prefixlen - pool.prefix_length)


def padded(address: IPv4Address | IPv6Address) -> str:
    """Return the address with leading zeros: ``010.244.003.000``, or all 32 digits of an IPv6 address."""
    if address.version == 4:
        return ".".join(f"{octet:03d}" for octet in address.packed)
    return address.exploded


def encode_pool_config(config: PoolConfig) -> str:
    """Return the value of the key ``pool``."""
    return _dumps(
        {
            "v": SCHEMA,
            "pools": _encode_pools(config.pools),
            "reserved": list(config.reserved),
            "pins": {node: list(cidrs) for node, cidrs in config.pins.items()},
            **({"former": _encode_pools(config.former)} if config.former else {}),
        }
    )


def _encode_pools(pools: Sequence[Pool]) -> list[dict[str, Any]]:
    return [{"pod_cidr": pool.pod_cidr, "node_bits": pool.node_bits} for pool in pools]


def encode_claim(claim: Claim) -> str:
    """Return the value of a node's key. The epoch is not part of it: it is the key's mod_revision."""
    return _dumps({"machine_id": claim.machine_id, "cidrs": list(claim.cidrs), "claimed": claim.claimed})


def encode_subnet(cidr: str, claim: Claim) -> str:
    """Return the value of a claimed subnet's key."""
    return _dumps({"cidr": cidr, "node": claim.node})


def encode_released(cidr: str, released: Released) -> str:
    """Return the value of a released subnet's key."""
    return _dumps({"cidr": cidr, "node": released.node, "released": released.released})


def decode_pool_config(text: str) -> PoolConfig:
    """Return the pool configuration. Raises ClaimError for the schema of another version."""
    value = _loads("pool", text)
    if value.get("v") != SCHEMA:
        raise ClaimError(f"the registry has schema {value.get('v')!r}, this version knows {SCHEMA}; upgrade evio.cni")
    return PoolConfig(
        _decode_pools(value["pools"]),
        tuple(value.get("reserved", ())),
        {node: tuple(cidrs) for node, cidrs in value.get("pins", {}).items()},
        _decode_pools(value.get("former", ())),
    )


def _decode_pools(values: Iterable[Mapping[str, Any]]) -> tuple[Pool, ...]:
    return tuple(Pool(str(pool["pod_cidr"]), int(pool["node_bits"])) for pool in values)


def decode_claim(node: str, text: str, epoch: int) -> Claim:
    """Return a node's claim; ``epoch`` is the mod_revision of its key."""
    value = _loads(f"nodes/{node}", text)
    return Claim(node, str(value["machine_id"]), tuple(value["cidrs"]), float(value["claimed"]), epoch)


def decode_released(key: str, text: str) -> tuple[str, Released]:
    """Return a released subnet, and its last owner."""
    value = _loads(key, text)
    return str(value["cidr"]), Released(str(value["node"]), float(value["released"]))


def decode_holder(key: str, text: str) -> tuple[str, str]:
    """Return a claimed subnet, and the name of its owner."""
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
        raise ClaimError(f"the registry's key {key} holds no JSON object: {text[:60]!r}")
    return value
